"""`mdpipe generate`: samples begin with the prompt, a seed gives the same bytes, and mistakes end in one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import Result

from mdpipe.commands import interactive
from mdpipe.data.pixels import quantize
from mdpipe.data.tokenizers import END_OF_DOCUMENT
from mdpipe.params import Params
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.sampling import SamplerConfig, compatible_samplers
from tests.stages.conftest import SMOKE
from tests.stages.sample_files import LEVELS, levels_of, texts_of

pytestmark = pytest.mark.slow

Command = Callable[..., Result]
WINDOW = 32
"""Characters of the network's window."""

OBJECTIVE = {"chars_md4": "md4", "chars_ar": "autoregressive", "subwords_genmd4": "genmd4", "digits": "md4"}


def samplers_of(run: str) -> list[str]:
    """Return the kinds of samplers that fit a run."""
    return compatible_samplers(ObjectiveConfig.kinds[OBJECTIVE[run]])


@pytest.mark.parametrize("run", ["chars_md4", "chars_ar", "subwords_genmd4"])
def test_a_seed_gives_the_same_texts_and_another_seed_others(mdpipe: Command, run: str) -> None:
    outputs = [mdpipe("generate", run, "--seed", seed, "--steps", 8).stdout_bytes for seed in (3, 3, 4)]
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]


def test_a_seed_gives_the_same_image_and_another_seed_another(mdpipe: Command) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert mdpipe("generate", "digits", "--seed", seed, "--out", f"{name}.png").stdout == f"{name}.png\n"
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert Path("a.png").read_bytes() != Path("c.png").read_bytes()


def test_images_are_written_under_the_runs_name_by_default(mdpipe: Command) -> None:
    assert mdpipe("generate", "digits", "--count", 8).stdout == "digits.png\n"
    assert levels_of(Path("digits.png")).shape == (8, 8, 8)


def test_samples_do_not_depend_on_their_number(mdpipe: Command) -> None:
    few, many = (texts_of(mdpipe("generate", "chars_md4", "--count", count).stdout) for count in (2, 5))
    assert many[:2] == few
    assert len(set(many)) == 5


def test_a_file_holds_what_would_have_been_printed(mdpipe: Command) -> None:
    printed = mdpipe("generate", "subwords_genmd4").stdout
    assert mdpipe("generate", "subwords_genmd4", "--out", "new/texts.txt").stdout == "new/texts.txt\n"
    assert Path("new/texts.txt").read_text(encoding="utf-8") == printed


@pytest.mark.parametrize(
    ("run", "prompt", "beginning"),
    [
        ("chars_md4", "the model ", "the model "),
        ("chars_ar", "the model ", "the model "),
        ("chars_md4", "Fields, 2 of", "fields two of"),
        ("chars_md4", "a [", "a "),
        ("subwords_genmd4", "Usage:\n  ü ▁ ", "Usage:\n  ü ▁ "),
    ],
)
def test_every_sample_begins_with_the_prompt(mdpipe: Command, run: str, prompt: str, beginning: str) -> None:
    arguments = ("--prompt", prompt, "--length", WINDOW, "--count", 3)
    texts = texts_of(mdpipe("generate", run, *arguments).stdout)
    assert len(set(texts)) == 3
    assert all(text.startswith(beginning) for text in texts)


@pytest.mark.parametrize("run", ["chars_md4", "chars_ar"])
@pytest.mark.parametrize("length", [5, WINDOW, WINDOW + 1, 3 * WINDOW + 7])
def test_texts_have_the_requested_length(mdpipe: Command, run: str, length: int) -> None:
    texts = texts_of(mdpipe("generate", run, "--length", length, "--prompt", "the", "--count", 2).stdout)
    assert [len(text) for text in texts] == [length, length]
    assert all(text.startswith("the") for text in texts)


def test_a_model_with_other_params_than_the_file_is_reported(mdpipe: Command, params: Params) -> None:
    data = params.model_dump(mode="json")
    data["runs"]["chars_md4"]["network"]["num_layers"] += 1
    Path("params.yaml").write_text(yaml.safe_dump(data))
    assert mdpipe("generate", "chars_md4", "--count", 1).stderr == (
        "mdpipe: models/chars_md4 was trained before runs.chars_md4.network changed in params.yaml;"
        " `dvc repro train@chars_md4` trains it again\n"
    )
    Path("params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    assert mdpipe("generate", "chars_md4", "--count", 1).stderr == ""


def test_a_prompt_may_be_longer_than_the_window(mdpipe: Command) -> None:
    prompt = "a long prompt of more than thirty two letters"
    texts = texts_of(mdpipe("generate", "chars_md4", "--length", 60, "--prompt", prompt).stdout)
    assert all(text.startswith(prompt) and len(text) == 60 for text in texts)


@pytest.mark.parametrize(("run", "sampler"), [(run, kind) for run in OBJECTIVE for kind in samplers_of(run)])
def test_every_sampler_that_fits_works_by_its_name(mdpipe: Command, run: str, sampler: str) -> None:
    assert mdpipe("generate", run, "--sampler", sampler, "--steps", 4, "--count", 2).exit_code == 0


@pytest.mark.parametrize(
    ("sampler", "setting", "other"),
    [
        ("maskgit", "noise_scale=0.5", "0.0"),
        ("remdm", "eta=1", "0"),
        ("predictor_corrector", "num_corrector_steps=2", "0"),
    ],
)
def test_sampler_settings_change_samples_and_default_to_params(
    mdpipe: Command, params: Params, sampler: str, setting: str, other: str
) -> None:
    """The run's own where it uses the sampler, before that of the comparison; with the command line before both."""

    def generate(*given: object) -> bytes:
        result = mdpipe("generate", "chars_md4", "--sampler", sampler, "--steps", 8, *given)
        assert result.exit_code == 0
        return result.stdout_bytes

    key, _, value = setting.partition("=")
    without = generate("--set", f"{key}={other}")
    asked = generate("--set", setting)
    assert without != asked
    data = params.model_dump(mode="json")
    compared, own = ({"kind": sampler, "time_grid": "cosine", key: json.loads(text)} for text in (value, other))
    data["samplers"]["samplers"] = [compared]
    Path("params.yaml").write_text(yaml.safe_dump(data))
    assert generate() == asked
    data["runs"]["chars_md4"]["sample"]["sampler"] = own
    Path("params.yaml").write_text(yaml.safe_dump(data))
    assert generate() == without
    assert generate("--set", setting) == asked


def test_the_grid_defaults_to_that_of_params(mdpipe: Command, params: Params) -> None:
    def generate(*given: object) -> str:
        return mdpipe("generate", "chars_md4", "--steps", 8, *given).stdout

    uniform, cosine = (generate("--time-grid", grid) for grid in ("uniform", "cosine"))
    assert generate() == cosine != uniform
    assert generate("--set", "time_grid=uniform") == uniform
    data = params.model_dump(mode="json")
    data["runs"]["chars_md4"]["sample"]["sampler"] = {"kind": "ancestral", "time_grid": "uniform"}
    Path("params.yaml").write_text(yaml.safe_dump(data))
    assert generate() == uniform
    assert generate("--time-grid", "cosine") == cosine


def test_what_is_not_given_is_as_the_run_has_it_in_params(mdpipe: Command, params: Params) -> None:
    """Sampler, steps, temperature, top_k and top_p; with the command line before them."""
    data = params.model_dump(mode="json")
    own = {"sampler": {"kind": "maskgit", "time_grid": "uniform", "noise_scale": 2.0, "steps": 5}}
    data["runs"]["chars_md4"]["sample"] |= {**own, "temperature": 0.5, "top_k": 9, "top_p": 0.9}
    given = ("--sampler", "maskgit", "--set", "noise_scale=2.0", "--time-grid", "uniform", "--steps", 5)
    choice = ("--temperature", 0.5, "--top-k", 9, "--top-p", 0.9)
    plain, asked = mdpipe("generate", "chars_md4").stdout, mdpipe("generate", "chars_md4", *given, *choice).stdout
    Path("params.yaml").write_text(yaml.safe_dump(data))
    assert mdpipe("generate", "chars_md4").stdout == asked != plain
    arguments = ("--sampler", "ancestral", "--steps", 128, "--temperature", 1, "--top-k", 27, "--top-p", 1)
    assert mdpipe("generate", "chars_md4", *arguments).stdout == plain


def test_the_guidance_of_params_holds_where_there_is_a_label(mdpipe: Command, params: Params) -> None:
    data = params.model_dump(mode="json")
    data["runs"]["digits"]["sample"] |= {"guidance_scale": 8.0}
    Path("params.yaml").write_text(yaml.safe_dump(data))
    for name, guidance in (("params", ()), ("same", ("--guidance-scale", 8)), ("other", ("--guidance-scale", 0))):
        mdpipe("generate", "digits", "--label", 9, *guidance, "--out", f"{name}.png")
    images = [Path(f"{name}.png").read_bytes() for name in ("params", "same", "other")]
    assert images[0] == images[1] != images[2]
    assert mdpipe("generate", "digits").exit_code == 0


@pytest.mark.parametrize("option", [("--steps", 8), ("--time-grid", "cosine")])
def test_an_option_that_the_sampler_ignores_is_reported(mdpipe: Command, option: Any) -> None:
    done = mdpipe("generate", "chars_md4", "--sampler", "first_hitting", *option)
    name, value = option
    assert done.stderr == f"mdpipe: {name} {value} is ignored: the sampler first_hitting has no grid of steps\n"


def test_the_default_file_is_checked_before_sampling(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interactive.os, "access", lambda path, mode: False)
    monkeypatch.setattr(interactive.sampling, "sample", None)
    assert refusal("generate", "digits").startswith("mdpipe: --out digits.png cannot be written: ")


def test_an_untrained_run_of_params_is_named_as_trainable(refusal: Callable[..., str]) -> None:
    shutil.copy(SMOKE, "params.yaml")
    shutil.rmtree("models/chars_md4")
    assert refusal("generate", "chars_md4").startswith(
        "mdpipe: models/chars_md4/run.json does not exist; run `dvc repro train@chars_md4`"
    )


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg", "JPEG"])
def test_a_sheet_is_in_the_format_of_its_name(mdpipe: Command, suffix: str) -> None:
    """All formats have the pixels of the PNG, JPEG nearly so."""
    assert mdpipe("generate", "digits", "--out", f"sheet.{suffix}").stdout == f"sheet.{suffix}\n"
    mdpipe("generate", "digits", "--out", "plain.png")
    with Image.open(f"sheet.{suffix}") as sheet, Image.open("plain.png") as plain:
        assert sheet.format == {"png": "PNG", "webp": "WEBP"}.get(suffix, "JPEG")
        pixels, expected = (np.asarray(image.convert("RGB")).astype(int) for image in (sheet, plain))
    error = np.abs(pixels - expected)
    assert error.max() == 0 if suffix in ("png", "webp") else error.mean() < 3


def test_arrays_and_folders_have_the_images_at_their_own_size(mdpipe: Command) -> None:
    for out in ("a.npy", "new/a.npz", "each/", "each", "sheet.png"):
        assert mdpipe("generate", "digits", "--count", 3, "--out", out).stdout == f"{out}\n"
    images = np.load("a.npy")
    assert (images.shape, images.dtype) == ((3, 8, 8, 1), np.uint8)
    assert np.array_equal(np.load("new/a.npz")["images"], images)
    files = sorted(Path("each").iterdir())
    assert [file.name for file in files] == [f"digits-000{number}.png" for number in (1, 2, 3)]
    for file, image in zip(files, images, strict=True):
        with Image.open(file) as sheet:
            assert (sheet.mode, sheet.size) == ("L", (8, 8))
            assert np.array_equal(np.asarray(sheet), image[:, :, 0])
    assert np.array_equal(levels_of(Path("sheet.png")), quantize(images[..., 0], 255, LEVELS))


def test_images_in_a_folder_replace_those_of_an_earlier_call(mdpipe: Command) -> None:
    Path("each").mkdir()
    kept = {"digits-2026b.png", "other-0001.png", "notes.txt"}
    for name in [*kept, "digits-0002.png", "digits-10000.png"]:
        Path("each", name).touch()
    mdpipe("generate", "digits", "--count", 1, "--out", "each")
    assert {file.name for file in Path("each").iterdir()} == {*kept, "digits-0001.png"}


def test_lines_of_json_hold_the_texts(mdpipe: Command) -> None:
    marked = texts_of(mdpipe("generate", "subwords_genmd4", "--count", 3).stdout)
    printed = [text.replace(f"\n{END_OF_DOCUMENT}\n", "") for text in marked]
    assert mdpipe("generate", "subwords_genmd4", "--count", 3, "--out", "new.jsonl").stdout == "new.jsonl\n"
    lines = Path("new.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"text": text} for text in printed]


@pytest.mark.parametrize("run", list(OBJECTIVE))
def test_every_other_sampler_is_refused_with_those_that_fit(refusal: Callable[..., str], run: str) -> None:
    allowed = samplers_of(run)
    for kind in [*SamplerConfig.kinds, "no_run"]:
        if kind not in allowed:
            line = refusal("generate", run, "--sampler", kind)
            assert line == (
                f"mdpipe: --sampler {kind!r} does not fit a run of {OBJECTIVE[run]}; allowed: {', '.join(allowed)}\n"
            )


def test_without_a_choice_left_to_right_all_samples_are_one(mdpipe: Command) -> None:
    """The likeliest token each time, by any of the three ways to ask for it, whatever the seed."""
    arguments = [("--top-k", 1), ("--top-p", 1e-9), ("--temperature", 1e-9), ("--top-k", 1, "--seed", 5)]
    outputs = [texts_of(mdpipe("generate", "chars_ar", *given).stdout) for given in arguments]
    assert len({text for texts in outputs for text in texts}) == 1


def test_temperature_decides_how_varied_the_samples_are(mdpipe: Command) -> None:
    """Fewer letters where it is low; where it is endless, all of them alike.

    Of 27 counts one is five standard errors off at 2e-5 of the seeds.
    """
    cold, hot = (
        "".join(texts_of(mdpipe("generate", "chars_md4", "--temperature", value, "--count", 100).stdout))
        for value in (0.2, 1e9)
    )
    counts = np.array([hot.count(letter) for letter in " abcdefghijklmnopqrstuvwxyz"])
    expected = len(hot) / 27
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)
    assert len(set(cold)) < 20


def test_the_label_and_the_guidance_reach_the_samples(mdpipe: Command) -> None:
    options = [
        (),
        ("--label", 0),
        ("--label", 9),
        ("--label", 9, "--guidance-scale", 0),
        ("--label", 9, "--guidance-scale", 8),
    ]
    for number, option in enumerate(options):
        assert mdpipe("generate", "digits", *option, "--out", f"{number}.png").exit_code == 0
    images = [Path(f"{number}.png").read_bytes() for number in range(len(options))]
    assert images[2] == images[3]
    assert len(set(images)) == 4


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("no_run",),
            "there is no run 'no_run'; trained in models/: chars_ar, chars_md4, digits, subwords_genmd4",
        ),
        (
            ("chars_md",),
            "there is no run 'chars_md' (did you mean 'chars_md4'?); trained in models/: chars_ar, chars_md4,",
        ),
        (("digits", "--label", 10), "--label 10 is not known: run 'digits' has the classes 0 to 9"),
        (("digits", "--label", -1), "--label -1 is not known: run 'digits' has the classes 0 to 9"),
        (("chars_md4", "--label", 0), "--label 0 is not known: run 'chars_md4' has no classes"),
        (("digits", "--guidance-scale", 1), "--guidance-scale needs a class; give one with --label"),
        (("digits", "--label", 1, "--guidance-scale", -1), "--guidance-scale -1.0 is refused: must be at least 0"),
        (("digits", "--prompt", "a"), "run 'digits' samples images, without --prompt and --length"),
        (("digits", "--length", 64), "run 'digits' samples images, without --prompt and --length"),
        (
            ("chars_md4", "--prompt", "a" * 32),
            "the prompt and what follows it need 33 tokens, of 32 at most; give --length 33 or more",
        ),
        (
            ("chars_md4", "--prompt", "abc", "--length", 3),
            "the prompt and what follows it need 4 tokens, of 3 at most; give --length 4 or more",
        ),
        (
            ("chars_md4", "--prompt", "привет"),
            "the tokenizer 'text8' keeps nothing of 'привет'; write it in",
        ),
        (
            ("subwords_genmd4", "--prompt", "half \udcff"),
            "the text 'half \\udcff' is not UTF-8; set the terminal to it",
        ),
        (("chars_md4", "--temperature", 0), "--temperature 0.0 is refused: must be above 0"),
        (("chars_md4", "--temperature", "nan"), "--temperature nan is refused: must be finite"),
        (("chars_md4", "--top-k", 0), "--top-k 0 is refused: must be at least 1"),
        (("chars_md4", "--top-p", 2), "--top-p 2.0 is refused: must be at most 1"),
        (("chars_md4", "--time-grid", "log"), "--time-grid log is refused: must be 'uniform' or 'cosine'"),
        (("chars_md4", "--set", "decode"), "--set decode sets nothing; write --set KEY=VALUE"),
        (
            ("chars_md4", "--set", "decod=argmax"),
            "--set decod=argmax: the sampler ancestral has no setting 'decod' (did you mean 'decode'?); it has:"
            " steps, time_grid, decode",
        ),
        (("chars_md4", "--set", "decode=best"), "--set decode=best is refused: must be 'sample' or 'argmax'"),
        (
            ("chars_md4", "--set", "kind=ancestral"),
            "--set kind=ancestral: the sampler ancestral has no setting 'kind'",
        ),
        (("chars_md4", "--sampler", "remdm", "--set", "eta=2"), "--set eta=2 is refused: must be at most 1"),
        (("chars_md4", "--sampler", "remdm", "--set", "eta=["), "--set eta=[: line 1, column 2: is not valid YAML"),
        (
            ("chars_md4", "--sampler", "first_hitting", "--set", "steps=3"),
            "--set steps=3: the sampler first_hitting has no setting 'steps'; it has: none",
        ),
        (
            ("chars_md4", "--sampler", "two_stages"),
            "--sampler 'two_stages' does not fit a run of md4 (did you mean 'two_stage'?); allowed: ancestral, ance",
        ),
        (
            ("chars_md4", "--sampler", "remasking"),
            "--sampler 'remasking' does not fit a run of md4; remasking is now called remdm",
        ),
        (
            ("digits", "--out", "new.gif"),
            "--out new.gif does not say how to write images; allowed: .png, .jpg, .jpeg, .webp (a sheet of all), .npy,"
            " .npz (an array), or a folder, with / at its end (a PNG each)",
        ),
        (("digits", "--out", "new"), "--out new does not say how to write images; allowed: .png"),
        (("chars_md4", "--out", "new.png"), "--out new.png does not say how to write texts; allowed: .txt, .jsonl"),
        (("chars_md4", "--out", "new.txt/"), "--out new.txt/ does not say how to write texts; allowed: .txt, .jsonl"),
        (("chars_md4", "--out", "models"), "--out models does not say how to write texts; allowed: .txt, .jsonl"),
        (("digits", "--out", "models/digits/run.json/a.png"), "--out models/digits/run.json/a.png cannot be written: "),
        (("digits", "--out", "models/digits/run.json/"), "--out models/digits/run.json/ cannot be written: "),
    ],
)
def test_a_mistake_ends_in_one_line_and_writes_nothing(
    refusal: Callable[..., str], arguments: tuple[object, ...], line: str
) -> None:
    assert refusal("generate", *arguments).startswith(f"mdpipe: {line}")


def test_as_a_program_it_prints_samples_alone(place: Path) -> None:
    """No progress bar and no warning outside a terminal."""
    command = [sys.executable, "-m", "mdpipe", "generate", "chars_md4", "--prompt", "a ", "--count", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [text[:2] for text in texts_of(done.stdout)] == ["a ", "a "]
    assert done.stderr == ""
