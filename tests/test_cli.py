"""The command line says what is wrong in a line, and never with a traceback for what a person typed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "workflow/presets/smoke.yaml", tmp_path / "params.yaml")
    (tmp_path / "constraints.txt").touch()  # What the sources of the preset are watched by.
    return tmp_path


def mdpipe(place: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "mdpipe", *arguments], cwd=place, capture_output=True, text=True)


def test_check_says_what_would_run(place):
    printed = mdpipe(place, "check").stdout
    for expected in ("download@digits", "train@letters", "zero_shot@pieces-typer_docs", "report"):
        assert expected in printed


def test_check_takes_any_params_file(place):
    assert "train@photos" in mdpipe(place, "check", str(ROOT / "params.yaml")).stdout


def test_schema_prints_the_committed_schema(place):
    assert mdpipe(place, "schema").stdout == (ROOT / "workflow/params.schema.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("train", "nobody"),
            "mdpipe: 'nobody' is not in `runs` of params.yaml; it has: digits, letters, letters_ar, pieces",
        ),
        (
            ("evaluate", "leters"),
            "mdpipe: 'leters' is not in `runs` of params.yaml (did you mean 'letters'?); it has: digits, letters,",
        ),
        (("samplers", "digits"), "mdpipe: 'digits' is not in `samplers.runs` of params.yaml; it has: letters"),
        (
            ("tokenizer", "docs_leters"),
            "mdpipe: 'docs_leters' is not in `datasets` of params.yaml (did you mean 'docs_",
        ),
        (("download", "nowhere"), "mdpipe: 'nowhere' is not in `sources`"),
        (("zero_shot", "letters", "nowhere"), "mdpipe: 'nowhere' is not in `zero_shot.sources` of params.yaml; it has"),
        (("zero_shot", "digits", "typer_docs"), "mdpipe: 'digits' is not in `zero_shot.runs` of params.yaml; it has"),
        (
            ("generate", "leters"),
            "mdpipe: there is no run 'leters' (did you mean 'letters'?); trained in models/: none;",
        ),
        (("bench", "samplers", "--out", "x.json"), "mdpipe: --out x.json must end in .csv"),
        (("encode", "digits"), "mdpipe: data/raw/digits/source.json does not exist; run `dvc repro download@digits`"),
        (("train", "letters"), "mdpipe: data/encoded/docs_letters/dataset.json does not exist; run `dvc repro encode@"),
        (("sample", "letters"), "mdpipe: models/letters/run.json does not exist; run `dvc repro train@letters`"),
        (("report",), "mdpipe: metrics/evaluate/letters.json does not exist"),
        (("check", "missing.yaml"), "mdpipe: missing.yaml is missing"),
        *((command, "mdpipe: DVC: you are not inside of a DVC repository") for command in [("verify",), ("clean",)]),
        (("unlock",), "mdpipe: DVC: you are not inside of a DVC repository"),
    ],
)
def test_a_mistake_ends_in_one_line_that_says_the_cure(place, arguments, message):
    done = mdpipe(place, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr


def test_light_commands_do_not_load_torch(place):
    code = "import sys, mdpipe.cli, mdpipe.stages.download, mdpipe.stages.encode; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_training_and_evaluation_load_only_what_a_bare_gpu_node_has(place):
    code = (
        "import sys, mdpipe.stages.train, mdpipe.stages.evaluate\n"
        "print(sorted({'polars', 'PIL', 'sklearn', 'sentencepiece', 'dvc', 'snakemake', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
