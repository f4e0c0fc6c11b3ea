"""Every setting of every kind and section accepts the ends of its range, and refuses what is outside by its key."""

import math
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from mdpipe.params import EstimatorConfig, EvaluateConfig, HardwareConfig, SampleConfig, TrainConfig
from mdpipe.params.diffusion import (
    CountedLossConfig,
    D3PMConfig,
    DiscreteTimeConfig,
    GenMD4Config,
    GeometricConfig,
    LinearConfig,
    LogitNormalConfig,
    MaskGITConfig,
    MD4Config,
    ObjectiveConfig,
    PolynomialConfig,
    ScheduleConfig,
    ScheduledConfig,
    TimeDistributionConfig,
    TimedLossConfig,
    WeightedLossConfig,
)
from mdpipe.params.errors import DEPENDENT_DEFAULT
from mdpipe.params.networks import NetworkConfig, TransformerConfig, UNetConfig, UViTConfig
from mdpipe.params.registry import Config, KindConfig
from mdpipe.params.runs import ClassConditioning
from mdpipe.params.sampling import (
    DiscreteTimeSamplerConfig,
    MaskGITSamplerConfig,
    PaperSamplerConfig,
    PredictorCorrectorConfig,
    ReMDMConfig,
    SamplerConfig,
)
from mdpipe.params.suites import ReferenceModel, SamplerSuite
from mdpipe.params.training import (
    LRScheduleConfig,
    MatrixOptimizerConfig,
    NorMuonConfig,
    OptimizerConfig,
    ValidationConfig,
    WarmupStableDecayConfig,
)

NAN, INF = math.nan, math.inf
Values = list[Any]

COUNT: tuple[Values, Values] = ([1, 10**9], [0, -1, 1.0, "1", True, None])
OPTIONAL_COUNT: tuple[Values, Values] = ([1, None], [0, -1, 1.5, "1"])
FRACTION: tuple[Values, Values] = ([0.0, 0, 0.999], [1.0, -0.1, NAN, INF, "0.1", None])
INSIDE: tuple[Values, Values] = ([1e-9, 0.999], [0.0, 1.0, -0.1, NAN, "0.1", None])
"""Strictly between 0 and 1."""
NOT_NEGATIVE: tuple[Values, Values] = ([0.0, 100.0], [-0.1, INF, NAN, "1", None])
POSITIVE: tuple[Values, Values] = ([1e-9, 1e9], [0.0, -1.0, INF, NAN, "1", None])
SWITCH: tuple[Values, Values] = ([False, True], [0, 1, "true", None])
TIME_GRID: tuple[Values, Values] = (["uniform", "cosine"], ["square", None, 4])
CHANNELS: tuple[Values, Values] = ([4, 12], [0, 2, 6, 8.0, None])

RULES: dict[type[Config], dict[str, tuple[Values, Values]]] = {
    ScheduleConfig: {"epsilon": ([0.0, 0, 0.499], [-0.1, 0.5, NAN, "0.1", None])},
    PolynomialConfig: {"exponent": ([1.0, 1, 50.0], [0.5, -1.0, INF, NAN, "2", None])},
    GeometricConfig: {
        "beta_min": ([1e-9, 19.9], [0.0, -1.0, 20.0, 30.0, NAN, None]),
        "beta_max": ([1e-4, 1e9], [1e-6, 0.0, -1.0, INF, NAN, None]),
    },
    ScheduledConfig: {"schedule": (["cosine", {"kind": "linear"}], ["square", {}, None, 1])},
    TimedLossConfig: {
        "time_distribution": (["uniform", {"kind": "logit_normal", "mean": -1.0, "std": 0.5}], ["beta", {}, None])
    },
    WeightedLossConfig: {"loss_weight": (["bound", "flat"], ["mean", 1.0, None])},
    CountedLossConfig: {"exact_counts": SWITCH},
    LogitNormalConfig: {"mean": ([-5.0, 0], [-INF, NAN, "0", None]), "std": POSITIVE},
    MaskGITConfig: {"loss_weight": (["mean", "flat"], ["bound", 1.0, None])},
    DiscreteTimeConfig: {"timesteps": OPTIONAL_COUNT, "time_grid": TIME_GRID},
    MD4Config: {"num_mask_samples": COUNT},
    GenMD4Config: {
        "initial_exponent": POSITIVE,
        "exponent_learning_rate": ([1e-9, 0.999, None], [0.0, 1.0, NAN, "0.1"]),
        "epsilon": FRACTION,
    },
    D3PMConfig: {"timesteps": COUNT, "auxiliary": NOT_NEGATIVE},
    NetworkConfig: {"time_conditioning": SWITCH, "dropout": FRACTION},
    TransformerConfig: {
        "num_layers": COUNT,
        "num_heads": ([1, 6], [0, 4, 5, 12, 1.0, None]),
        "hidden_size": ([4, 24], [0, 5, 26, 24.0, None]),
        "embed_dim": OPTIONAL_COUNT,
        "qk_norm": SWITCH,
        "zero_init": SWITCH,
        "mlp": (["glu", "relu_squared"], ["gelu", None]),
        "value_embeddings": ([0, 2], [-1, 3, 1.0, None]),
        "unet_skips": SWITCH,
    },
    UNetConfig: {"hidden_size": CHANNELS, "num_blocks": COUNT, "init": (["md4", "ordinal"], ["zero", None])},
    UViTConfig: {
        "hidden_size": CHANNELS,
        "num_blocks": COUNT,
        "transformer_width": ([4, 12], [0, 2, 6, 8.0, None]),
        "num_layers": COUNT,
        "num_heads": ([1, 12], [0, 5, 24, 1.0, None]),
        "qk_norm": SWITCH,
        "init": (["md4", "ordinal"], ["zero", None]),
    },
    DiscreteTimeSamplerConfig: {"steps": COUNT, "time_grid": TIME_GRID},
    PaperSamplerConfig: {"decode": (["sample", "argmax"], ["best", None])},
    MaskGITSamplerConfig: {"noise_scale": NOT_NEGATIVE},
    ReMDMConfig: {"eta": ([0.0, 0, 1.0], [-0.1, 1.5, NAN, "0.1", None])},
    PredictorCorrectorConfig: {"num_corrector_steps": ([0, 9], [-1, 1.0, None])},
    OptimizerConfig: {"beta2": INSIDE, "weight_decay": FRACTION, "cautious_weight_decay": SWITCH},
    MatrixOptimizerConfig: {"momentum": FRACTION, "learning_rate": ([1e-9, 0.999, None], [0.0, 1.0, NAN, "0.1"])},
    NorMuonConfig: {"row_beta2": FRACTION},
    WarmupStableDecayConfig: {
        "decay_fraction": ([1e-9, 1.0], [0.0, 1.1, NAN, "0.1", None]),
        "shape": (["linear", "1-sqrt"], ["cosine", None]),
    },
    TrainConfig: {
        "steps": ([101, 10**9], [0, -1, 1e3, "101", None]),
        "batch_size": COUNT,
        "learning_rate": INSIDE,
        "warmup_steps": ([0, 199], [-1, 200, 201, 1.0, None]),
        "optimizer": (["muon", {"kind": "adamw"}], ["sgd", {}, None]),
        "max_grad_norm": ([1e-9, 1.0, None], [0.0, -1.0, NAN, "1"]),
        "lr_schedule": (["cosine", "warmup_stable_decay"], ["constant", {}, None]),
        "ema_decay": FRACTION,
        "ema_start": FRACTION,
        "validation": ([None, {"every": 10}], ["last", 10, {}]),
        "save_every": COUNT,
        "save_total_limit": COUNT,
    },
    ValidationConfig: {
        "every": COUNT,
        "num_examples": ([2, 10**6], [1, 0, 2.0, None]),
        "num_mc_samples": ([2, 64], [0, 1, 3, "auto", None]),
        "batch_size": COUNT,
        "keep_best": SWITCH,
    },
    HardwareConfig: {
        "precision": (["float32", "bfloat16"], ["fp8", 32, None]),
        "threads": COUNT,
        "num_processes": COUNT,
        "strategy": (["ddp", "fsdp"], ["tp", None]),
        "gradient_accumulation_steps": COUNT,
        "compile": SWITCH,
        "activation_checkpointing": SWITCH,
    },
    SampleConfig: {
        "count": COUNT,
        "sampler": (["first_hitting", {"kind": "remdm", "eta": 0.5}], ["euler", {}, None]),
        "temperature": POSITIVE,
        "top_k": OPTIONAL_COUNT,
        "top_p": ([1e-9, 1.0, None], [0.0, 1.1, NAN, "0.9"]),
        "guidance_scale": ([0.0, 3.0, None], [-0.1, INF, NAN, "1"]),
    },
    EstimatorConfig: {
        "estimator": (["exact_counts", "stratified_times", "independent_times"], ["exact", "antithetic", None]),
        "num_mc_samples": ([2, 64, "auto"], [0, 1, 3, -2, 2.0, None, "all"]),
        "half_width": POSITIVE,
        "max_mc_samples": ([2, 64], [0, 1, 3, "auto", None]),
        "batch_size": COUNT,
    },
    EvaluateConfig: {
        "split": (["validation", "test"], ["train", None]),
        "bounds": (
            [{}, {"cosine": {"objective": {"kind": "md4", "schedule": "cosine"}}}],
            [["cosine"], {"a": 1}, None],
        ),
    },
    ReferenceModel: {
        "reference_model": (["chars_ar"], [1, None]),
        "dataset": (["docs_chars"], [1, None]),
        "causal_lm": (["openai-community/gpt2-large", "folder/of/gpt2", None], [2, ["gpt2"]]),
    },
    SamplerSuite: {
        "runs": ([{}, {"chars_md4": {"reference_model": "chars_ar", "dataset": "docs_chars"}}], [["chars_md4"], None]),
        "samplers": ([[], ["maskgit"]], [["euler"], None]),
        "steps": ([[], [1, 8]], [[0], [8, 8], 8, None]),
        "temperatures": ([[1.0], [0.7, 1.0, 1.5]], [[], [0.7], [0.0, 1.0], [1.0, INF], [1.0, 1.0], 1.0, None]),
        "count": ([2, 10**6], [1, 0, 2.0, None]),
    },
    ClassConditioning: {"label_dropout": FRACTION},
}
"""For each setting, by the class that declares it: values that are accepted, among them the ends of the range, and
values that are refused."""

REQUIRED: dict[type[Config], dict[str, Any]] = {
    PolynomialConfig: {"exponent": 2.0},
    TransformerConfig: {"num_layers": 4, "num_heads": 2, "hidden_size": 12},
    UNetConfig: {"hidden_size": 8, "num_blocks": 1},
    UViTConfig: {"hidden_size": 8, "num_blocks": 1, "transformer_width": 12, "num_layers": 1, "num_heads": 2},
    TrainConfig: {"steps": 200, "batch_size": 1},
    ValidationConfig: {"every": 10},
    ReferenceModel: {"reference_model": "chars_ar", "dataset": "docs_chars"},
}
"""Values of the settings that have no default."""

COMPARED: dict[tuple[type[Config], str, Any], list[tuple[str, ...]]] = {
    (TransformerConfig, "hidden_size", 5): [("num_heads",)],
    (TransformerConfig, "hidden_size", 26): [("num_heads",)],
    (GeometricConfig, "beta_max", 1e-6): [("beta_min",)],
}
"""Where the rule compares two settings and the error names the other one."""

FAMILIES: list[type[KindConfig]] = [
    ScheduleConfig,
    TimeDistributionConfig,
    ObjectiveConfig,
    NetworkConfig,
    SamplerConfig,
    OptimizerConfig,
    LRScheduleConfig,
]
SECTIONS: list[type[Config]] = [
    TrainConfig,
    HardwareConfig,
    SampleConfig,
    EvaluateConfig,
    EstimatorConfig,
    ReferenceModel,
    SamplerSuite,
    ClassConditioning,
    ValidationConfig,
]
CONFIGS = [*(config for family in FAMILIES for config in family.kinds.values()), *SECTIONS]
every_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)


def rules_of(config: type[Config]) -> dict[str, tuple[Values, Values]]:
    """Return the rules of a class with those that it inherits."""
    return {key: rule for base in reversed(config.__mro__) for key, rule in RULES.get(base, {}).items()}


def refused_keys(config: type[Config], settings: dict[str, Any]) -> list[tuple[int | str, ...]]:
    """Return the paths of the keys with problems."""
    try:
        config.model_validate(settings)
    except ValidationError as error:
        return [problem["loc"] for problem in error.errors() if problem["type"] != DEPENDENT_DEFAULT]
    return []


@every_config
def test_every_setting_has_a_rule_here(config):
    assert set(rules_of(config)) == set(config.model_fields) - {"kind"}


@every_config
def test_values_up_to_the_ends_of_the_range_are_accepted(config):
    for key, (accepted, _) in rules_of(config).items():
        for value in accepted:
            assert refused_keys(config, REQUIRED.get(config, {}) | {key: value}) == [], (key, value)


@every_config
def test_a_value_outside_the_range_is_refused_by_its_key(config):
    for key, (_, refused) in rules_of(config).items():
        for value in refused:
            found = refused_keys(config, REQUIRED.get(config, {}) | {key: value})
            assert [path[:1] for path in found] == [(key,)] or found == COMPARED.get((config, key, value)), (key, value)


@every_config
def test_a_required_setting_that_is_missing_is_named(config):
    required = REQUIRED.get(config, {})
    assert {key for key, field in config.model_fields.items() if field.is_required()} == set(required)
    for key in required:
        assert refused_keys(config, {other: value for other, value in required.items() if other != key}) == [(key,)]


@every_config
def test_an_unknown_setting_is_refused_with_the_allowed_ones(config):
    with pytest.raises(ValidationError, match="unknown key 'xyz'; allowed: ") as error:
        config.model_validate(REQUIRED.get(config, {}) | {"xyz": 1})
    assert all(key in str(error.value) for key in config.model_fields)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_an_unknown_kind_is_refused_with_the_allowed_ones(family):
    for unknown in ("no_such_kind", "", 3):
        for data in (unknown, {"kind": unknown}):
            with pytest.raises(ValidationError) as error:
                family.parse(data)
            assert ", ".join(family.kinds) in str(error.value)
    near = next(iter(family.kinds))
    with pytest.raises(ValidationError, match=f"did you mean '{near}'"):
        family.parse(near[:-1])


def test_a_misspelled_kind_of_an_added_file_gets_a_suggestion(tmp_path, monkeypatch):
    """And no file is imported or suggested that defines no kind."""
    package = tmp_path / "added_networks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "neighbors.py").write_text(
        'class NeighborsConfig(NetworkConfig):\n    kind: Literal["neighbors"] = ""\n'
    )
    (package / "neighborly.py").write_text("raise AssertionError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(NetworkConfig, "package", "added_networks")
    for data in ("neighbirs", {"kind": "neighborl"}):
        with pytest.raises(ValidationError, match="did you mean 'neighbors'"):
            NetworkConfig.parse(data)


CONFIG_ONLY = """
from typing import Literal

from mdpipe.params.networks import NetworkConfig


class {name}Config(NetworkConfig):
    kind: Literal["{name}"] = "{name}"
"""

ABSTRACT = f"""{CONFIG_ONLY.format(name="unfinished")}

from mdpipe.networks.base import Network

class Unfinished(Network, config=unfinishedConfig):
    pass
"""


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("unclosed", "x = (\n", r"cannot be imported: SyntaxError: '\(' was never closed \(unclosed.py, line 1\)"),
        ("careless", "def f():\n    return 1 / 0\n\n\nf()\n", "cannot be imported: in line 2, ZeroDivisionError: "),
        ("lonely", "import no_such_library\n", "cannot be imported: in line 1, ModuleNotFoundError: "),
        ("unbuilt", CONFIG_ONLY.format(name="unbuilt"), "has no class with config=unbuiltConfig"),
        ("unfinished", ABSTRACT, "class Unfinished lacks the method forward, init_weights"),
    ],
)
def test_a_broken_added_file_is_refused_with_its_problem(name, text, problem, tmp_path, monkeypatch):
    package = tmp_path / "broken_networks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(NetworkConfig, "package", "broken_networks")
    monkeypatch.setattr(NetworkConfig, "kinds", dict(NetworkConfig.kinds))
    monkeypatch.delitem(sys.modules, "broken_networks", raising=False)
    for _ in range(2):  # Of all runs that have it.
        with pytest.raises(ValidationError, match=rf"broken_networks\.{name}:? {problem}"):
            NetworkConfig.parse({"kind": name})


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_a_bare_kind_is_that_kind_with_its_defaults(family):
    for kind, config in family.kinds.items():
        if config not in REQUIRED:
            assert family.parse(kind) == family.parse({"kind": kind}) == config()


def test_rules_are_checked_without_loading_torch():
    modules = "import sys, mdpipe.params; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", modules], capture_output=True, check=True).stdout == b"False\n"


def test_a_configuration_cannot_take_the_kind_of_another():
    with pytest.raises(TypeError, match="Mine and LinearConfig have the same `kind`, 'linear'"):

        class Mine(LinearConfig):
            pass

    assert ScheduleConfig.kinds["linear"] is LinearConfig
