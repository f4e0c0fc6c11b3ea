"""The command line says what is wrong in a line, and never with a traceback for what a person typed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mdpipe.cli import app
from mdpipe.params import load_params

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the smoke preset and nothing made yet, where the commands run."""
    shutil.copy(ROOT / "workflow/presets/smoke.yaml", tmp_path / "params.yaml")
    (tmp_path / "constraints.txt").touch()  # What the sources of the preset are watched by.
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exit_code(*arguments: str) -> int | str | None:
    """Run a command in this process; a text is what Python would print to stderr before it exits with status 1."""
    with pytest.raises(SystemExit) as ended:
        app(arguments)
    return ended.value.code


def test_check_says_what_would_run(capsys):
    assert exit_code("check") == 0
    printed = capsys.readouterr().out
    for expected in ("download@digits", "train@chars_md4", "zero_shot@subwords_genmd4-typer_docs", "report"):
        assert expected in printed
    assert "compare_samplers@chars_md4: scored by chars_ar, temperature 1\n" in printed


def test_check_takes_any_params_file(capsys):
    assert exit_code("check", str(ROOT / "params.yaml")) == 0
    assert "train@photos" in capsys.readouterr().out


def test_check_prints_resolved_params_that_are_a_params_file(capsys):
    assert exit_code("check", "--resolved") == 0
    Path("resolved.yaml").write_text(capsys.readouterr().out)
    assert load_params(Path("resolved.yaml")) == load_params()
    assert exit_code("check", "resolved.yaml", "--resolved") == 0
    assert capsys.readouterr().out == Path("resolved.yaml").read_text()


def test_check_needs_no_optional_section(capsys):
    content = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump({key: content[key] for key in ("sources", "datasets", "runs")}))
    assert exit_code("check") == 0
    printed = capsys.readouterr().out
    assert "train@chars_md4" in printed and "zero_shot" not in printed and "compare_samplers@" not in printed


def test_resolve_writes_what_check_prints_if_it_differs(capsys):
    assert exit_code("check", "--resolved") == 0
    file, printed = Path("params.resolved.yaml"), capsys.readouterr().out
    for content in ("", "seed: 3\n"):
        file.write_text(content)
        assert exit_code("resolve") == 0
        assert file.read_text() == printed
    before = file.stat()
    assert exit_code("resolve") == 0
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_schema_prints_the_committed_schema(capsys):
    assert exit_code("schema") == 0
    assert capsys.readouterr().out == (ROOT / "workflow/params.schema.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("train", "nobody"),
            "mdpipe: 'nobody' is not in `runs` of params.yaml; it has: chars_ar, chars_md4, digits, subwords_genmd4",
        ),
        (
            ("evaluate", "chars_md"),
            "mdpipe: 'chars_md' is not in `runs` of params.yaml (did you mean 'chars_md4'?); it has: chars_ar,",
        ),
        (
            ("compare-samplers", "digits"),
            "mdpipe: 'digits' is not in `samplers.runs` of params.yaml; it has: chars_md4",
        ),
        (
            ("fit-tokenizer", "docs_leters"),
            "mdpipe: 'docs_leters' is not in `datasets` of params.yaml (did you mean 'docs_",
        ),
        (("download", "nowhere"), "mdpipe: 'nowhere' is not in `sources`"),
        (("tokenizer", "docs_chars"), "mdpipe: `mdpipe tokenizer` is now `mdpipe fit-tokenizer`"),
        (("samplers", "chars_md4"), "mdpipe: `mdpipe samplers` is now `mdpipe compare-samplers`"),
        (("zero_shot", "a", "b"), "mdpipe: `mdpipe zero_shot` is now `mdpipe zero-shot`"),
        (
            ("zero-shot", "chars_md4", "nowhere"),
            "mdpipe: 'nowhere' is not in `zero_shot.sources` of params.yaml; it has",
        ),
        (("zero-shot", "digits", "typer_docs"), "mdpipe: 'digits' is not in `zero_shot.runs` of params.yaml; it has"),
        (
            ("generate", "chars_md"),
            "mdpipe: there is no run 'chars_md' (did you mean 'chars_md4'?); trained in models/: none;",
        ),
        (("bench", "samplers", "--out", "x.json"), "mdpipe: --out x.json must end in .csv"),
        (("encode", "digits"), "mdpipe: data/raw/digits/source.json does not exist; run `dvc repro download@digits`"),
        (("train", "chars_md4"), "mdpipe: data/encoded/docs_chars/dataset.json does not exist; run `dvc repro encode@"),
        (("sample", "chars_md4"), "mdpipe: models/chars_md4/run.json does not exist; run `dvc repro train@chars_md4`"),
        (("report",), "mdpipe: records/encode/docs_chars.json does not exist"),
        (("check", "missing.yaml"), "mdpipe: missing.yaml is missing"),
        *((command, "mdpipe: DVC: you are not inside of a DVC repository") for command in [("verify",), ("clean",)]),
        (("unlock",), "mdpipe: DVC: you are not inside of a DVC repository"),
    ],
)
def test_an_error_is_one_line_with_a_hint(arguments, message):
    assert exit_code(*arguments).startswith(message)


def test_a_process_ends_with_that_line_and_status_1():
    done = subprocess.run([sys.executable, "-m", "mdpipe", "train", "nobody"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("mdpipe: 'nobody' is not in `runs`")
    assert len(done.stderr.splitlines()) == 1


def test_threads_that_wait_sleep():
    """OpenMP prints the settings that it has read when torch is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-m", "mdpipe", "generate", "chars_md4"]
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "OMP_DISPLAY_ENV": "true"})
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


def test_light_commands_do_not_load_torch():
    code = "import sys, mdpipe.cli, mdpipe.stages.download, mdpipe.stages.encode; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_readme_puts_the_tables_of_results_into_both_pages(capsys):
    for folder in ("results", "docs"):
        shutil.copytree(ROOT / folder, folder)
    for artifact in ("report", "samples"):
        Path(artifact).mkdir()
    page = (ROOT / "README.md").read_text()
    begin = page.index("<!-- likelihood:begin -->") + len("<!-- likelihood:begin -->")
    Path("README.md").write_text(page[:begin] + page[page.index("<!-- likelihood:end -->") :])
    code = exit_code("readme")
    assert code == 0, code
    assert Path("README.md").read_text() == page
