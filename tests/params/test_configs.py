"""Every configuration class: names of keys, errors of wrong ones, and defaults."""

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from mdpipe.params import ParamsError, Run, dump_params, json_schema, load_params, parse_params
from mdpipe.params.data import ImageDataset, TextDataset
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.errors import problem_lines
from mdpipe.params.registry import Config, KindConfig
from mdpipe.params.sampling import SamplerConfig
from tests.params.refusals import POLYNOMIAL, SMOKE, TEXTS, error_of

ROOT = Path(__file__).parents[2]
PARAMS_FILES = [ROOT / "params.yaml", *sorted((ROOT / "workflow/presets").glob("*.yaml"))]
OLD = yaml.safe_load((Path(__file__).parent / "params_before_renaming.yaml").read_text())
"""The params of the default suite before keys were renamed."""

WORDS_OF_PYDANTIC = re.compile(r"Input|String should|dictionary|instance|discriminator|required|None|True|factory")
WRONG_VALUES = [None, True, -1, 0, 3, 0.5, float("inf"), "no such", "", [], ["no such"], {}, {"kind": "no such"}, [[]]]


def subclasses(parent: type[Config]) -> Iterator[type[Config]]:
    for child in parent.__subclasses__():
        yield child
        yield from subclasses(child)


def is_in_params(config: type[Config]) -> bool:
    """Return True if the class is not a base of others only, and comes with the package."""
    is_abstract = issubclass(config, KindConfig) and config.model_fields["kind"].annotation is str
    return config.__module__.startswith("mdpipe.params") and not is_abstract


CONFIGS = [config for config in subclasses(Config) if is_in_params(config)]
FAMILIES = [family for family in KindConfig.__subclasses__() if family.__module__.startswith("mdpipe.params")]


def name_of(item: Any) -> str | None:
    return item.__name__ if isinstance(item, type) else None


def problems(config: type[Config], data: Any) -> list[str]:
    """Return the lines that the params of a config are refused with; none if they are accepted."""
    try:
        config.model_validate(data)
    except ValidationError as error:
        return problem_lines(error, data)
    return []


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_an_unknown_key_is_named_with_the_allowed_ones(config):
    assert any("unknown key 'unheard_of'" in line for line in problems(config, {"unheard_of": 1}))
    for key in config.model_fields:
        (line,) = [line for line in problems(config, {f"{key}_": 1}) if "unknown key" in line]
        assert re.search(rf"allowed: (.*, )?{key}(,|$)", line)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_a_missing_key_says_what_it_may_be(config):
    lines = problems(config, {})
    required = [key for key, field in config.model_fields.items() if field.is_required()]
    assert [line.partition(":")[0] for line in lines] == required
    for line in lines:
        assert ": is missing; must be " in line
        assert not WORDS_OF_PYDANTIC.search(line)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_no_message_is_in_the_words_of_pydantic(config):
    for key in config.model_fields:
        for value in WRONG_VALUES:
            for line in problems(config, {key: value}):
                assert not WORDS_OF_PYDANTIC.search(line), line
                assert re.match(r"(top level|[\w.]+): ", line), line


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_every_field_says_what_it_is_for(config):
    assert config.model_fields.keys() - {"kind"} <= config.descriptions().keys()


MISUSES: list[tuple[dict[str, Any], str]] = [
    (
        {"runs.chars_md4.objective": {"kind": "md5"}},
        "runs.chars_md4.objective.kind: 'md5' is refused: .* mean 'md4'?)$",
    ),
    ({"runs.chars_md4.objective": "MD4"}, "runs.chars_md4.objective: 'MD4' is refused: .* mean 'md4'?)$"),
    ({"runs.x": None}, "runs.x: is empty; must be a mapping with the keys dataset, objective, network, "),
    (
        {"runs.chars_md4.objective": None},
        "runs.chars_md4.objective: is empty; must be a kind, or a mapping whose `kind` ",
    ),
    (
        {"runs.chars_md4.objective": {"kind": None}},
        "runs.chars_md4.objective.kind: null is refused: must be one of md4, ",
    ),
    ({"runs.chars_md4.objective": {"kind": "md4", "schedule": "linaer"}}, ".*schedule: 'linaer' .* mean 'linear'?)$"),
    (
        {"runs.chars_md4.objective": {"kind": "md4", "schedule": {"kind": "base"}}},
        ".*schedule.kind: 'base' is refused: mdpipe.diffusion.schedules.base has no ScheduleConfig whose kind is ",
    ),
    (POLYNOMIAL, ".*schedule.exponent: is missing; must be a number (The power w"),
    (
        {"runs.chars_md4.objective": {"kind": "md4", "time_grid": "cosin"}},
        ".*time_grid: 'cosin' is refused: must be 'uniform' or 'cosine' (did you ",
    ),
    ({"runs.chars_md4.network": []}, "runs.chars_md4.network: .* must be a kind, or a mapping whose `kind` is one of "),
    (
        {"runs.chars_md4.network.kind": "unet"},
        "runs.chars_md4.network: unknown keys 'num_layers' .*, 'num_heads'; allowed: kind, ",
    ),
    ({"runs.chars_md4.train": {"batch_size": 8}}, "runs.chars_md4.train.steps: is missing; must be a whole number"),
    ({"runs.chars_md4.network.time_conditioning": "true"}, ".*: must be true or false, without quotes$"),
    ({"runs.chars_md4.sample.sampler": {"kind": "Ancestral"}}, ".*sampler.kind: 'Ancestral' .* mean 'ancestral'?)$"),
    ({"runs.chars_md4.sample.temperature": 0}, "runs.chars_md4.sample.temperature: 0 is refused: must be above 0$"),
    (
        {"runs.chars_md4.train.optimizer": "adam"},
        ".*optimizer: 'adam' .* one of adamw, muon, normuon (did you mean 'adamw'?)$",
    ),
    ({"runs.chars_md4.train.steps": 1e3}, "runs.chars_md4.train.steps: 1000.0 .* a whole number; write 1000$"),
    (
        {"runs.chars_md4.evaluate.split": None},
        "runs.chars_md4.evaluate.split: null is refused: must be 'validation' or ",
    ),
    (
        {"runs.chars_md4.dataset": "Docs"},
        "runs.chars_md4.dataset: 'Docs' is refused: .* (did you mean 'docs_chars'?); ",
    ),
    (
        {"runs.chars_md4.dataset": "doc_chars"},
        "runs.chars_md4.dataset: 'doc_chars' is refused: .* mean 'docs_chars'",
    ),
    (
        {"datasets.docs_chars.tokenizer": {"kind": "hf_tokenizer", "eos_token": "a"}},
        "datasets.docs_chars.tokenizer.path: is missing; ",
    ),
    ({"datasets.digits.tokenizer.kind": "pixles"}, "datasets.digits.tokenizer.kind: 'pixles' .* mean 'pixels'?)$"),
    (
        {"datasets.docs_chars.packing": "steam"},
        "datasets.docs_chars.packing: .*mdlm_zero_shot .*'stream'?).* map",
    ),
    (
        {"datasets.docs_chars.packing": 3},
        "datasets.docs_chars.packing: 3 .* or a mapping with the keys ",
    ),
    (
        {"datasets.docs_chars.packing": "documents"},
        "datasets.docs_chars.packing: 'documents' .*a protocol of zero_shot.sources; use stream$",
    ),
    (
        {"zero_shot.sources.typer_docs": {"mine": {"separate_documents": True, "drop_last": True}}},
        "zero_shot.sources.typer_docs.mine.drop_last: .*separate_documents needs shorter last windows",
    ),
    (
        {"zero_shot.sources.typer_docs": {"mine": {"stride": 8, "wrap_with_eos": True, "drop_last": True}}},
        "zero_shot.sources.typer_docs.mine.stride: 8 .*windows that overlap are not wrapped",
    ),
    (
        {"zero_shot.sources.typer_docs": {"mine": {"stride": 9999}}},
        "zero_shot.sources.typer_docs.mine.stride: 9999 .*run '.*' has windows of seq_len = ",
    ),
    ({"datasets.docs_chars.packing": {"kind": 1}}, "datasets.docs_chars.packing: unknown key 'kind'; allowed: app"),
    ({"sources.x": {"kind": "texts"}}, "sources.x.kind: 'texts' is refused: .* (did you mean 'text'?)$"),
    ({"sources.x": TEXTS | {"pattern": 3}}, "sources.x.pattern: 3 is refused: must be text, or a mapping "),
    ({"sources.x": {"kind": "catalog", "path": "my", "name": "text9"}}, "sources.x.name: 'text9' .* mean 'text8'?"),
    ({"sources.digits.kind": "Digits"}, "sources.digits.kind: 'Digits' is refused: .* mean 'digits'?)$"),
    ({"sources.typer_docs.packages": "rich"}, "sources.typer_docs.packages: .* must be a list; write "),
    (
        {"comparisons": ["chars_md4"]},
        "comparisons.0: 'chars_md4' is refused: must be a mapping .* run, baseline$",
    ),
    (
        {"zero_shot.runs": {"digits": None}},
        "zero_shot.runs.digits: 'digits' is refused: its dataset 'digits' has images; ",
    ),
    (
        {"zero_shot.runs": ["chars_md4", "subwords_genmd4"]},
        "zero_shot.runs: .* is refused: .*; write {chars_md4, subwords_genmd4}$",
    ),
    ({"zero_shot.runs": "chars_md4"}, "zero_shot.runs: 'chars_md4' is refused: .*; write {chars_md4}$"),
    ({"zero_shot.runs": {"chars_md4": 1}}, "zero_shot.runs.chars_md4: 1 is refused: takes no value$"),
    ({"zero_shot.sources": ["typer_docs"]}, "zero_shot.sources: .* is refused: .*; write {typer_docs}$"),
    ({"zero_shot.sources": {"typer_docs": "seed"}}, "zero_shot.sources.typer_docs: .*one of stream, .*'sedd'?)"),
    (
        {"zero_shot.sources": {"typer_docs": ["sedd", "text8"]}},
        "zero_shot.sources.typer_docs: .*; write {sedd, text8}$",
    ),
    ({"zero_shot.sources": {"typer_docs": {}}}, "zero_shot.sources.typer_docs: .* at least one; write "),
    ({"zero_shot.sources": {"typer_docs": {"a-b": None}}}, "zero_shot.sources.typer_docs: .*one of stream, "),
    (
        {"zero_shot.sources": {"typer_docs": {"sedd": {"append_eos": False}}}},
        "zero_shot.sources.typer_docs: 'sedd' is a built-in packing; your own protocol needs another name$",
    ),
    (
        {"zero_shot.sources": {"typer_docs": {"mine": {"apend_eos": False}}}},
        "zero_shot.sources.typer_docs.mine: unknown key 'apend_eos' (did you mean 'append_eos'?)",
    ),
    ({"zero_shot.packing": "sedd"}, "zero_shot: unknown key 'packing', now `sources: {NAME: PACKING}`; allowed: "),
    ({"samplers.samplers": [{"kind": "ancestal"}]}, "samplers.samplers.0.kind: 'ancestal' .* mean 'ancestral'?)$"),
    ({"image_quality.features.digits.kind": "vgg"}, "image_quality.features.digits.kind: .*one of cnn, inception$"),
    (
        {"image_quality.features.digits.dataset": "docs_chars", "image_quality.runs": {}},
        "image_quality.features.digits.dataset: .*it has text; allowed are the datasets of images: digits$",
    ),
    (
        {"image_quality.runs.digits.features": "digit"},
        "image_quality.runs.digits.features: .*for 'digits' (did you mean 'digits'?); allowed: digits$",
    ),
    ({"image_quality.runs.digits.count": 4}, "image_quality.runs.digits.count: 4 is refused: must be .*8"),
    (
        {"image_quality.runs": {"chars_md4": {"features": "digits", "dataset": "docs_chars"}}},
        "image_quality.runs.chars_md4: .*its dataset has text; allowed are the runs of images: digits$",
    ),
    (
        {"image_quality.features.digits": {"kind": "inception", "dataset": "digits", "path": "x.pth", "sha256": "67"}},
        "image_quality.features.digits.sha256: '67' is refused: ",
    ),
    ({"seed": None}, "seed: null is refused: must be a whole number$"),
]


@pytest.mark.parametrize(("change", "line"), MISUSES)
def test_each_misuse_is_reported_once_in_the_words_of_params(change: dict[str, Any], line: str) -> None:
    message = error_of(change)
    pattern = "params.yaml: " + line.replace("(", r"\(").replace("?)", r"\?\)")
    assert re.match(pattern, message) and "\n" not in message, message
    assert not WORDS_OF_PYDANTIC.search(message), message


def test_every_missing_key_says_what_it_may_be() -> None:
    source = {"kind": "url", "path": "my", "sha256": "abc"}
    lines = error_of({"sources.x": source}).splitlines()
    assert "params.yaml: sources.x.url: is missing; must be text (URL without user, password or token: " in lines[0]
    assert any(line.startswith("params.yaml: sources.x.sha256: 'abc' is refused: must be the 64 hex") for line in lines)


@pytest.mark.parametrize(("config", "tokenizer"), [(TextDataset, "pixels"), (ImageDataset, {"kind": "bytes"})])
def test_a_dataset_refuses_tokenizers_of_the_other_modality(config, tokenizer):
    assert any(
        re.match(r"tokenizer(\.kind)?: .*must be one of ", line) for line in problems(config, {"tokenizer": tokenizer})
    )


RENAMED = [(config, old) for config in CONFIGS for old in config.renamed]


@pytest.mark.parametrize(("config", "old"), RENAMED)
def test_the_old_name_of_a_key_is_refused_with_the_new_one(config, old):
    new = config.renamed[old]
    is_here = new.partition(":")[0] in config.model_fields  # A network or sampler without the key has no hint.
    (line,) = [line for line in problems(config, {old: 1}) if "unknown key" in line]
    assert (f"'{old}', now `{new}`" in line) == is_here
    assert old not in config.model_fields


def test_every_new_name_is_a_key_of_some_config():
    for old, new in {(old, config.renamed[old]) for config, old in RENAMED}:
        key = new.partition(":")[0]
        assert any(config.renamed.get(old) == new and key in config.model_fields for config in CONFIGS), old


RENAMED_VALUES = [
    (config, key, old)
    for config in CONFIGS
    for key, values in config.renamed_values.items()
    if key in config.model_fields
    for old in values
]


@pytest.mark.parametrize(("config", "key", "value"), RENAMED_VALUES)
def test_the_old_value_of_a_key_is_refused_with_the_new_one(config, key, value):
    new = config.renamed_values[key][value]
    assert f"{key}: {value!r} is refused: {value} is now called {new}" in problems(config, {key: value})
    assert not any(line.startswith(f"{key}:") for line in problems(config, {key: yaml.safe_load(new)}))
    for old_key in [old for old, name in config.renamed.items() if name == key]:
        (line,) = [line for line in problems(config, {old_key: value}) if "unknown key" in line]
        assert f"'{old_key}', now `{key}: {new}`" in line


def test_every_renamed_value_belongs_to_a_key():
    assert {(key, old) for _, key, old in RENAMED_VALUES} == {
        *(("sample_by", "file"), ("decode_errors", "error"), ("decode_errors", "skip")),
        *(("drop_last", "keep"), ("drop_last", "drop")),
    }


@pytest.mark.parametrize(
    ("split", "line"),
    [
        ({"last": 5}, "unknown key 'last', now `last_documents`; allowed: last_documents"),
        ({"chunks": 0.1}, "unknown key 'chunks', now `windows`; allowed: windows"),
    ],
)
def test_the_old_form_of_a_split_is_refused_with_the_new_one(split, line):
    key = "datasets.docs_chars.splits.test"
    assert error_of({key: split}) == f"params.yaml: {key}: {line}"


def test_old_values_are_refused_together_with_missing_keys():
    lines = error_of({"sources.x": {"kind": "text", "sample_by": "file", "decode_errors": "skip"}}).splitlines()
    assert [line.split(" ")[1] for line in lines] == [
        f"sources.x.{key}:" for key in ("sample_by", "decode_errors", "path")
    ]


RENAMED_KINDS = [(family, old) for family in FAMILIES for old in family.renamed_kinds]


@pytest.mark.parametrize(("family", "old"), RENAMED_KINDS)
@pytest.mark.parametrize("with_settings", [True, False])
def test_the_old_name_of_a_kind_is_refused_with_the_new_one(family, old, with_settings):
    new = family.renamed_kinds[old]
    assert family.find(new.split(" ")[0]) is not None
    with pytest.raises(ValidationError) as error:
        family.parse({"kind": old, "grid": "cosine"} if with_settings else old)
    assert f"{old} is now called {new}" in str(error.value)


@pytest.mark.parametrize(
    ("family", "elsewhere"), [(family, name) for family in FAMILIES for name in family.names_elsewhere]
)
def test_a_name_of_the_literature_is_refused_with_the_one_here(family, elsewhere):
    here = family.names_elsewhere[elsewhere]
    assert here.partition(" here")[0] in family.kinds
    for written in (elsewhere, elsewhere.upper(), elsewhere.replace("_", "-")):
        with pytest.raises(ValidationError) as error:
            family.parse({"kind": written})
        assert f"; {written} is {here}" in str(error.value)


def test_all_new_names_of_an_old_params_file_are_given_at_once():
    with pytest.raises(ParamsError) as error:
        parse_params(OLD)
    lines = str(error.value).splitlines()
    assert not WORDS_OF_PYDANTIC.search(str(error.value))
    for run in OLD["runs"]:
        message = " ".join(line for line in lines if f"runs.{run}" in line)
        for new in ("class_cond", "objective: {kind: KIND, ...}", "hidden_size", "guidance_scale", "num_mc_samples"):
            assert f"now `{new}`" in message
        for new in ("max_grad_norm", "save_every", "save_total_limit", "num_processes", "activation_checkpointing"):
            assert f"now `{new}`" in message
        assert "now `sampler: {kind: KIND, steps: N}`" in message
    for kind in ("maskgit", "remdm", "genmd4_ancestral", "ancestral (and the old `ancestral` is `ancestral_stepwise`)"):
        assert f"is now called {kind}" in str(error.value)
    for part in ("comparisons.0: unknown key 'against', now `baseline`", "now `num_corrector_steps`", "`time_grid`"):
        assert part in str(error.value)
    for part in (
        "samplers.runs.letters: unknown key 'judge', now `reference_model`",
        "write {letters, pieces}",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("path", PARAMS_FILES, ids=lambda path: path.stem)
def test_resolved_params_are_equal_params_that_fit_the_schema(path):
    params = load_params(path)
    resolved = yaml.safe_load(dump_params(params))
    assert parse_params(resolved) == params
    assert dump_params(parse_params(resolved)) == dump_params(params)
    jsonschema.validate(resolved, yaml.safe_load(json_schema()))


def test_resolved_params_state_every_setting():
    resolved = yaml.safe_load(dump_params(parse_params(minimal())))
    for run in resolved["runs"].values():
        assert set(run) == set(Run.model_fields)
        assert run["train"]["warmup_steps"] == 2
        assert run["sample"]["sampler"]["kind"] == (
            ObjectiveConfig.kinds[run["objective"]["kind"]].sampler or "ancestral"
        )
    sections = {"sources", "datasets", "runs", "comparisons", "zero_shot", "samplers", "image_quality", "claims"}
    assert set(resolved) == {"seed", "steps_to_bound", *sections}


def test_the_committed_resolved_params_are_those_of_params_yaml():
    assert (ROOT / "params.resolved.yaml").read_text() == dump_params(load_params(ROOT / "params.yaml"))


def minimal() -> dict[str, Any]:
    """Return params with a run of each objective, which state what has no default."""
    run = {"dataset": "docs_chars", "train": {"steps": 20, "batch_size": 8}}
    network = {"kind": "transformer", "num_layers": 1, "num_heads": 2, "hidden_size": 32}
    runs = {kind: run | {"objective": kind, "network": network} for kind in ObjectiveConfig.kinds}
    return deepcopy({"sources": SMOKE["sources"], "datasets": SMOKE["datasets"], "runs": runs})


def test_seed_and_the_sections_that_compare_may_be_absent():
    params = parse_params(minimal())
    assert (params.seed, params.comparisons) == (0, [])
    assert not params.zero_shot.runs and not params.zero_shot.sources and not params.samplers.runs
    assert not params.image_quality.features and not params.image_quality.runs
    assert params.steps_to_bound is None
    jsonschema.validate(minimal(), yaml.safe_load(json_schema()))


@pytest.mark.parametrize("kind", ObjectiveConfig.kinds)
def test_every_objective_has_a_default_sampler_that_fits(kind):
    sampler = parse_params(minimal()).runs[kind].sample.sampler
    assert sampler == SamplerConfig.parse(ObjectiveConfig.kinds[kind].sampler or "ancestral")
