"""params.yaml: what is accepted, and how what is wrong is reported."""

import json
import math
import re
from copy import deepcopy
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.params import ParamsError, json_schema, load_params, parse_params
from tests.params.refusals import POLYNOMIAL, SMOKE, TEXTS, error_of

ROOT = Path(__file__).parents[2]
PARAMS_FILES = [ROOT / "params.yaml", *sorted((ROOT / "workflow/presets").glob("*.yaml"))]


SCHEDULE = "runs.chars_md4.objective.schedule"


@pytest.mark.parametrize("path", PARAMS_FILES, ids=lambda path: path.stem)
def test_every_params_file_is_valid_and_fits_the_schema(path):
    load_params(path)
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(json_schema()))


def test_the_committed_schema_is_the_one_of_the_types():
    assert (ROOT / "workflow/params.schema.json").read_text() == json_schema()


UVIT = {
    "kind": "uvit",
    "hidden_size": 8,
    "num_blocks": 1,
    "transformer_width": 8,
    "num_layers": 1,
    "num_heads": 2,
}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"runs.chars_md4.train.stepz": 3}, ["runs.chars_md4.train", "'stepz'", "did you mean 'steps'"]),
        ({"extra": 1}, ["top level", "'extra'", "allowed: seed, sources, datasets, runs, comparisons, zero_shot"]),
        ({"runs.chars_md4.train.steps": "30"}, ["runs.chars_md4.train.steps: '30'", "whole number, without quotes"]),
        ({"runs.chars_md4.train.steps": 0}, ["runs.chars_md4.train.steps: 0 is refused: must be at least 1"]),
        (
            {"runs.chars_md4.hardware.precision": "fp8"},
            ["runs.chars_md4.hardware.precision", "'fp8'", "must be 'float32' or 'bfloat16'"],
        ),
        (
            {"runs.chars_md4.train.warmup_steps": 30},
            ["runs.chars_md4.train.warmup_steps: 30 is refused: must be below steps = 30"],
        ),
        (
            {"runs.chars_md4.network.num_heads": 3},
            ["runs.chars_md4.network.num_heads: 3", "size = 32", "1, 2, 4, 8, 16"],
        ),
        (
            {"runs.chars_md4.network.kind": "mlp"},
            ["runs.chars_md4.network.kind: 'mlp'", "one of transformer, unet, uvit"],
        ),
        ({"runs.digits.dataset": "docs_chars"}, ["runs.digits.dataset", "a unet needs images", "digits"]),
        (
            {"runs.chars_md4.network": "unet"},
            ["runs.chars_md4.network: 'unet'", "a mapping of the kind and its settings, as {kind: unet, ...}"],
        ),
        ({"runs.chars_md4.network": UVIT}, ["runs.chars_md4.dataset", "a uvit needs images", "digits"]),
        (
            {"runs.digits.network": UVIT | {"num_heads": 3}},
            ["network.num_heads: 3", "does not divide transformer_width = 8"],
        ),
        (
            {"runs.digits.network": UVIT, "datasets.digits.image_size": 7},
            ["patches of 2 x 2 pixels", "images of 7 x 7"],
        ),
        ({"datasets.digits.image_size": 9}, ["datasets.digits.image_size: 9", "at most 8, the edge of the images of"]),
        ({"runs.chars_md4.dataset": "nowhere"}, ["runs.chars_md4.dataset", "'nowhere'", "digits, docs_chars"]),
        ({"runs.chars_md4.evaluate.num_mc_samples": 3}, ["evaluate.num_mc_samples: 3", "a multiple of 2"]),
        ({"datasets.digits.source": "typer_docs"}, ["datasets.digits.tokenizer", "'typer_docs' has texts"]),
        ({"datasets.docs_chars.source": "digits"}, ["datasets.docs_chars.tokenizer", "'digits' has images"]),
        ({"datasets.digits.splits.test": 0.95}, ["datasets.digits.splits.validation: 0.1", "nothing to train on"]),
        (
            {
                "datasets.docs_chars.splits.validation": {"windows": 0.5},
                "datasets.docs_chars.splits.test": {"windows": 0.5},
            },
            ["datasets.docs_chars.splits.validation: ", "nothing to train on"],
        ),
        (
            {
                "datasets.docs_chars.splits.validation": {"last_documents": 5},
                "datasets.docs_chars.splits.test": {"last_characters": 5},
            },
            ["datasets.docs_chars.splits.test", "count both in documents or both in characters"],
        ),
        ({"datasets.docs_chars.seq_lne": 1}, ["datasets.docs_chars", "did you mean 'seq_len'"]),
        ({"sources.digits.kind": "mnist"}, ["sources.digits.kind: 'mnist'", "one of docstrings, text, "]),
        (
            {"zero_shot.runs": {"digits": None}},
            ["zero_shot.runs.digits: 'digits'", "chars_ar, chars_md4, subwords_genmd4"],
        ),
        ({"zero_shot.sources": {"pydantic_docs": None}}, ["zero_shot.sources", "would not be zero-shot"]),
        (
            {"runs.chars_md4.sample.sampler": {"kind": "genmd4_ancestral"}},
            ["runs.chars_md4.sample.sampler.kind: 'genmd4_ancestral'", "allowed: ancestral, ancestral_stepwise"],
        ),
        (
            {"runs.chars_md4.sample.sampler.steps": None},
            ["runs.chars_md4.sample.sampler.steps: null", "must be a whole number"],
        ),
        (
            {"runs.chars_md4.objective": "md5"},
            ["runs.chars_md4.objective: 'md5'", "one of md4", "mean 'md4'?"],
        ),
        ({"runs.chars_md4.objective": {"kind": "md4", "num_mask_samples": 0}}, ["num_mask_samples: 0", "at least 1"]),
        (POLYNOMIAL | {f"{SCHEDULE}.exponent": 0.0}, [f"{SCHEDULE}.exponent: 0.0", "at least 1"]),
        (POLYNOMIAL | {f"{SCHEDULE}.exponent": math.inf}, [f"{SCHEDULE}.exponent: inf", "must be finite"]),
        (
            {"runs.chars_md4.objective": {"kind": "md4", "schedule": {"kind": "geometric", "beta_min": 30.0}}},
            [f"{SCHEDULE}.beta_min: 30.0", "must be below beta_max = 20"],
        ),
        (
            {"runs.chars_md4.hardware": {"num_processes": 3}},
            ["runs.chars_md4.train.batch_size: 8", "hardware.num_processes = 3"],
        ),
        (
            {"runs.chars_ar.network": UVIT},
            ["runs.chars_ar.network.kind: 'uvit'", "needs a network that can be causal: transformer"],
        ),
        (
            {"runs.chars_ar.network.time_conditioning": True},
            ["network.time_conditioning: true", "no time", "must be false"],
        ),
        ({"runs.chars_md4.class_cond": {}}, ["runs.chars_md4.class_cond", "'pydantic_docs' has no classes"]),
        ({"runs.digits.class_cond": None}, ["runs.digits.sample.guidance_scale: 1.0", "needs classes"]),
        (
            {"comparisons": [{"run": "chars_md4", "baseline": "digits"}]},
            ["comparisons.0.baseline", "not evaluated on"],
        ),
        (
            {"comparisons": [{"run": "chars_md4", "baseline": "x"}]},
            ["comparisons.0.baseline: 'x'", "chars_ar, chars_md4"],
        ),
        (
            {"samplers.runs.chars_md4.reference_model": "subwords_genmd4"},
            ["reference_model: 'subwords_genmd4'", "allowed: chars_ar"],
        ),
        (
            {"samplers.runs.chars_md4.dataset": "digits"},
            ["samplers.runs.chars_md4.dataset", "is on 'docs_chars'"],
        ),
        ({"samplers.steps": []}, ["samplers.steps", "at least one number of steps"]),
        ({"samplers.temperatures": [0.5]}, ["samplers.temperatures", "must include 1"]),
        (
            {"samplers.runs": {"digits": {"reference_model": "digits", "dataset": "digits", "causal_lm": "gpt2"}}},
            ["samplers.runs.digits.causal_lm: 'gpt2'", "scores text"],
        ),
        (
            {"runs.Upper-case": SMOKE["runs"]["chars_md4"]},
            ["runs.Upper-case", "lowercase letters", "write 'upper_case'"],
        ),
        ({"runs.a\nb": SMOKE["runs"]["chars_md4"]}, [r"runs.'a\nb': the name 'a\nb'", "only lowercase letters"]),
        ({"runs." + "a" * 65: SMOKE["runs"]["chars_md4"]}, ["runs.aaaa", "at most 64 characters"]),
        ({"runs.nul": SMOKE["runs"]["chars_md4"]}, ["runs.nul", "a device on Windows"]),
        ({"datasets.com1": SMOKE["datasets"]["digits"]}, ["datasets.com1", "a device on Windows"]),
        ({"samplers.steps": [4, 8, 4]}, ["samplers.steps", "4 is there a second time"]),
        ({"sources.typer_docs.packages": ["rich", "rich"]}, ["sources.typer_docs", "rich is there a second time"]),
        (
            {"samplers.samplers": ["ancestral", {"kind": "ancestral", "time_grid": "uniform"}]},
            ["samplers.samplers.1.kind: 'ancestral'", "one of each kind"],
        ),
        (
            {"comparisons": [{"run": "chars_md4", "baseline": "chars_md4"}]},
            ["comparisons.0.baseline: 'chars_md4'", "differs from itself"],
        ),
        (
            {"comparisons": [{"run": "chars_md4", "baseline": "chars_ar"}] * 2},
            ["comparisons", "is there a second time"],
        ),
        ({"sources.digits.path": "my/{x}"}, ["sources.digits.path: 'my/{x}'", "wildcard"]),
        ({"sources.digits.path": ""}, ["sources.digits.path: ''", "not empty"]),
        ({"sources.digits.path": " my"}, ["sources.digits.path: ' my'", "no spaces around it"]),
        ({"sources.digits.path": "my\ntexts"}, ["sources.digits.path: 'my\\ntexts'", "no line breaks"]),
        ({"sources.digits.path": "s3://bucket/x"}, ["sources.digits.path: 's3://bucket/x'", "must be a local path"]),
        ({"sources.digits": TEXTS | {"pattern": "/etc/*"}}, ["sources.digits.pattern: '/etc/*'", "stays in there"]),
        ({"sources.digits": TEXTS | {"pattern": ""}}, ["sources.digits.pattern: ''", "stays in there"]),
        (
            {"sources.digits": TEXTS | {"pattern": {"a": "../x"}}},
            ["sources.digits.pattern.a: '../x'", "stays in there"],
        ),
        (
            {"sources.digits": TEXTS | {"pattern": "a/**.txt"}},
            ["sources.digits.pattern: 'a/**.txt'", "between slashes"],
        ),
        ({"sources.digits": TEXTS | {"pattern": {}}}, ["sources.digits.pattern", "at least one entry"]),
        (
            {"sources.typer_docs.packages": ["../rich"]},
            ["packages.0: '../rich'", "Python imports a package"],
        ),
        ({"sources.digits.path": "my/x.dvc"}, ["sources.digits.path: 'my/x.dvc'", "its own files"]),
        ({"sources.digits.path": "my/" + "é" * 128}, ["sources.digits.path", "at most 255 bytes"]),
    ],
)
def test_an_error_names_the_key_the_value_and_the_rule(change, parts):
    message = error_of(change)
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (10, "10 is refused: a fraction is a number between 0 and 1, such as 0.1; .* write {last_documents: 10}$"),
        (1, "1 is refused: .* write {last_documents: 1}$"),
        (1.0, "1.0 is refused: .* write {last_documents: 1}$"),
        (0, "0 is refused: a fraction is a number between 0 and 1, such as 0.1$"),
        (-0.1, "-0.1 is refused: a fraction is a number between 0 and 1, such as 0.1$"),
        (2.5, "2.5 is refused: a fraction is a number between 0 and 1, such as 0.1$"),
        (float("nan"), "nan is refused: a fraction is a number between 0 and 1, such as 0.1$"),
        ("10%", "'10%' is refused: .*; write 0.1$"),
        ("12.5 %", "'12.5 %' is refused: .*; write 0.125$"),
        ("1/20", "'1/20' is refused: .*; write 0.05$"),
        ("0.1", "'0.1' is refused: .*; write 0.1$"),
        ("1/0", "'1/0' is refused: a fraction is a number between 0 and 1, such as 0.1$"),
        (True, "true is refused: .* the name of a split of the source, {last_documents: N}, .* or {windows: 0.1}$"),
        ([0.1], ".* is refused: .* the name of a split of the source, {last_documents: N}, .* or {windows: 0.1}$"),
        ({}, "a fraction is .* the name of a split of the source, {last_documents: N}, .* or {windows: 0.1}$"),
        (
            {"share": 0.1},
            "a fraction is .* the name of a split of the source, {last_documents: N}, .* or {windows: 0.1}$",
        ),
        (
            {"last_documents": 1, "windows": 0.1},
            "a fraction is .* the name of a split of the source, {last_documents: N}, .*$",
        ),
    ],
)
@pytest.mark.parametrize("key", ["datasets.docs_chars.splits.validation", "datasets.digits.splits.test"])
def test_a_wrong_split_is_refused_in_one_line(key, value, rule):
    message = error_of({key: value})
    assert re.fullmatch(f"params.yaml: {key}: {rule}", message), message


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"last_documents": 0}, "last_documents: 0 is refused: must be at least 1"),
        ({"last_documents": 0.1}, "last_documents: 0.1 is refused: must be a whole number"),
        ({"last_characters": "5M"}, "last_characters: '5M' is refused: must be a whole number"),
        ({"windows": 10}, "windows: 10 is refused: must be below 1"),
    ],
)
def test_only_the_form_that_is_meant_is_reported(value, line):
    assert (
        error_of({"datasets.docs_chars.splits.test": value}) == f"params.yaml: datasets.docs_chars.splits.test.{line}"
    )


@pytest.mark.parametrize("name", ["test", "10", "fold 1", "train[:10%]", "1.5b"])
def test_the_name_of_a_split_is_not_a_fraction(name):
    data = deepcopy(SMOKE)
    source = data["datasets"]["docs_chars"]["source"]
    data["sources"][source] = {"kind": "text", "path": "my", "pattern": {"train": "a.txt", name: "b.txt"}}
    data["datasets"]["docs_chars"]["splits"]["validation"] = name
    assert parse_params(data).datasets["docs_chars"].splits.validation == name


@pytest.mark.parametrize(
    ("source", "own"),
    [
        (TEXTS, "none; write a fraction, such as 0.1"),
        ({**TEXTS, "pattern": {"train": "a.txt", "test": "b.txt"}}, "test, train"),
        ({"kind": "huggingface", "path": "my", "name": "owner/name", "splits": ["train", "test"]}, "test, train"),
        ({"kind": "catalog", "path": "my", "name": "openwebtext"}, "train"),
    ],
)
def test_a_split_that_the_source_lacks_is_refused(source, own):
    change = {"sources.pydantic_docs": source, "datasets.docs_chars.source": "pydantic_docs"}
    line = "datasets.docs_chars.splits.test: 'dev' is refused: source 'pydantic_docs' has no split of this name; it has"
    assert error_of(change | {"datasets.docs_chars.splits.test": "dev"}) == f"params.yaml: {line} {own}"


@pytest.mark.parametrize(
    "path",
    [
        *("my/a b", "my/a#b", "$HOME/$x", "my/50%", "a@b", "*", "my/[x]?", "~/x", "-b", "./q", "my//q/", "../x", "/x"),
        *("a:b", "my/a\"b'", "my\\x", "my/\u00e9", "my/e\u0301", "my/" + "l" * 250),
    ],
)
def test_a_path_may_have_any_other_character(path):
    data = deepcopy(SMOKE)
    data["sources"]["digits"]["path"] = path
    assert parse_params(data).sources["digits"].path == path


def test_every_problem_of_a_file_is_reported_at_once():
    message = error_of({"runs.chars_md4.train.steps": 0, "runs.digits.network.hidden_size": 9, "seed": -1})
    assert {line.split(":")[1].strip() for line in message.splitlines()} == {
        "runs.chars_md4.train.steps",
        "runs.digits.network.hidden_size",
        "seed",
    }


def test_a_list_of_allowed_keys_is_given_once():
    """Runs often share a mistake; what is allowed is the same for all of them."""
    first, second, other = error_of(
        {
            "runs.chars_md4.train.step": 1,
            "runs.chars_ar.train.step": 1,
            "runs.digits.network.width": 1,
        }
    ).splitlines()
    assert "allowed: steps, batch_size," in first
    assert second.endswith("(did you mean 'steps'?); allowed: the same as for runs.chars_md4.train")
    assert "allowed: kind, " in other


@given(
    path=st.sampled_from(
        ["seed", "runs.chars_md4.train.steps", "runs.digits.network.num_blocks", "datasets.digits.image_size"]
    ),
    value=st.one_of(st.text(), st.floats(), st.none(), st.booleans(), st.lists(st.integers(), max_size=2)),
)
def test_no_value_is_quietly_turned_into_a_whole_number(path, value):
    """Neither "8" nor 8.0 nor true is 8."""
    assert path in error_of({path: value})


def test_scientific_notation_is_a_number_as_dvc_reads_it(tmp_path):
    text = (ROOT / "workflow/presets/smoke.yaml").read_text().replace("3.0e-3", "3e-3")
    (tmp_path / "params.yaml").write_text(text)
    assert load_params(tmp_path / "params.yaml").runs["chars_md4"].train.learning_rate == 0.003


@pytest.mark.parametrize("content", [b"- 1\n", b"word\n"])
def test_a_file_that_is_no_mapping_is_refused_by_name(tmp_path, content):
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(ParamsError, match="must be a mapping with the keys seed, sources") as error:
        load_params(path)
    assert str(path) in str(error.value)


def test_an_empty_section_says_how_to_write_nothing(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"# nothing\n")
    with pytest.raises(ParamsError, match="top level: is empty"):
        load_params(path)
    assert error_of({"sources": None}).startswith("params.yaml: sources: is empty; write {}")
    assert error_of({"zero_shot.runs": None}).startswith("params.yaml: zero_shot.runs: is empty; write {}")
    assert "zero_shot: is empty" in error_of({"zero_shot": None})


def test_a_very_long_value_is_not_shown_whole():
    assert len(error_of({"runs.chars_md4.train.steps": "9" * 10_000})) < 500
    assert len(error_of({"seed": [["lol"] * 1_000] * 1_000})) < 500


def test_a_folder_instead_of_the_file_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"is a folder; name the params file in it, such as .*/params\.yaml"):
        load_params(tmp_path)


def test_a_missing_file_says_where_to_get_one(tmp_path):
    with pytest.raises(ParamsError, match=r"cp workflow/presets/smoke\.yaml"):
        load_params(tmp_path / "params.yaml")
