"""The whole of params.yaml: read, checked, and written with all defaults filled in."""

import json
from collections.abc import Iterable, Iterator
from hashlib import md5
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import ValidationError

from mdpipe.params.claims import Claims
from mdpipe.params.data import AnyDataset, Dataset
from mdpipe.params.errors import BrokenRules, Keys, problem_lines
from mdpipe.params.fields import MAX_NAME_LENGTH, Distinct, Name, RunName, Seed
from mdpipe.params.registry import Config
from mdpipe.params.runs import Run
from mdpipe.params.sources import Source
from mdpipe.params.strict_yaml import StrictYAMLError, read_yaml
from mdpipe.params.suites import Comparison, ImageQuality, SamplerSuite, StepsToBound, ZeroShot

PARAMS_FILE = Path("params.yaml")
REPLICATES_FILE = Path("params.replicates.yaml")
"""The runs that `seeds` adds to those of params.yaml, made by the stage `resolve`: DVC reads both for its templates."""
RESOLVED_PARAMS_FILE = Path("params.resolved.yaml")
"""The same with all defaults filled in, made by the stage `resolve`: the stages that DVC runs read this file."""


class Params(Config):
    """Sources, datasets, runs, and the suites that compare them."""

    seed: Seed = 0
    """Key of all randomness: splits, initial weights, batches, masks, samples. A run may have its own for training and
    samples."""
    sources: dict[Name, Source]
    """Raw text or images, by name (stage `download`)."""
    datasets: dict[Name, AnyDataset]
    """Sources with their splits and tokenizers, by name (stages `fit_tokenizer`, `encode`)."""
    runs: dict[RunName, Run]
    """Models: data, objective, network, training, samples and evaluation (stages `train`, `sample`, `evaluate`)."""
    comparisons: Annotated[list[Comparison], Distinct] = []
    """Pairs of runs. The likelihood table shows their difference on the same examples (stage `report`)."""
    zero_shot: ZeroShot = ZeroShot()
    """Text runs and the other sources that they are measured on (stage `zero_shot`)."""
    samplers: SamplerSuite = SamplerSuite()
    """Samplers to compare, and the runs to compare them on (stage `compare_samplers`)."""
    image_quality: ImageQuality = ImageQuality()
    """Feature networks, and the runs of images whose samples are measured with them (stages `fit_features`,
    `measure_images`)."""
    claims: Claims = {}
    """Claims to test with the results, by name (stage `report`)."""
    steps_to_bound: StepsToBound | None = None
    """Runs that are compared by their steps to a bound (stage `report`); null for none."""

    @property
    def md5(self) -> str:
        """Return the hash of all settings, which a measurement records."""
        return md5(self.model_dump_json().encode()).hexdigest()

    def with_replicates(self) -> "Params":
        """Return the params with a run for each seed; those that have them already are returned unchanged."""
        named = self.replicates()
        runs = {other: None for name in self.zero_shot.runs for other in named.get(name, [name])}
        measured = {other: run for name, run in self.image_quality.runs.items() for other in named.get(name, [name])}
        return self.model_copy(
            update={
                "runs": self.all_runs,
                "zero_shot": self.zero_shot.model_copy(update={"runs": runs}),
                "image_quality": self.image_quality.model_copy(update={"runs": measured}),
            }
        )

    def replicates(self) -> dict[str, list[str]]:
        """Return the names of the runs of each run of params.yaml, one per seed, its own name first."""
        made = {name: list(run.replicates(name, self.seed)) for name, run in self.runs.items()}
        further = {other for names in made.values() for other in names[1:]}
        return {name: names for name, names in made.items() if name not in further}

    def seed_of(self, run: str) -> int:
        """Return the seed of a run's training and samples."""
        seed = self.all_runs[run].seed
        return self.seed if seed is None else seed

    @property
    def all_runs(self) -> dict[str, Run]:
        """Return the runs of all seeds, by name."""
        return {
            replicate: settings
            for name, run in self.runs.items()
            for replicate, settings in run.replicates(name, self.seed).items()
        }

    def dataset_of(self, run: str) -> Dataset | None:
        """Return the dataset of a run; None if one of the two does not exist, which is reported separately."""
        runs = self.all_runs
        return self.datasets.get(runs[run].dataset) if run in runs else None

    def broken_rules(self) -> BrokenRules:
        """Yield names that do not exist, and sections that do not fit each other."""
        yield from self._seed_problems()
        for section, config in _sections(self):
            yield from (((*section, *keys), rule) for keys, rule in config.problems(self))

    def _seed_problems(self) -> BrokenRules:
        """Yield names of runs that are taken by the replicates of others, or whose replicates have too long names."""
        for name, run in self.runs.items():
            entry, suffix, _ = name.partition("-seed")
            if suffix and (entry not in self.runs or self.runs[entry].replicates(entry, self.seed).get(name) != run):
                rule = f"the name is kept for another training of run {entry!r}: write `seeds: [...]` in runs.{entry}"
                yield ("runs", name), rule
            longest = max(run.replicates(name, self.seed), key=len)
            if len(longest) > MAX_NAME_LENGTH:
                rule = f"makes the name {longest!r}, and a name has at most {MAX_NAME_LENGTH} characters"
                yield ("runs", name, "seeds"), rule


def _sections(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Config]]:
    """Yield all sections of a value, each with its path."""
    if isinstance(value, Config):
        yield keys, value
    parts = value.items() if isinstance(value, dict) else value if isinstance(value, Config) else ()
    for key, part in enumerate(value) if isinstance(value, list) else parts:
        yield from _sections(part, (*keys, key))


class ParamsError(ValueError):
    """params.yaml is invalid; the message has the key, the value and the allowed values."""


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a params file.

    Raises:
        ParamsError: The file is missing, is not valid YAML, or has settings that cannot be run.
    """
    return parse_params(read_params(path), name=str(path))


def read_params(path: Path = PARAMS_FILE) -> Any:
    """Return the content of a params file without checking its settings.

    Raises:
        ParamsError: The file is missing, is not valid YAML or means one thing to YAML 1.1 and another to 1.2.
    """
    try:
        return read_yaml(path.read_bytes())
    except FileNotFoundError:
        raise ParamsError(
            f"{path} is missing: run from the repository's root, or take a preset:"
            f" cp workflow/presets/smoke.yaml {path}"
        ) from None
    except IsADirectoryError:
        raise ParamsError(f"{path} is a folder; name the params file in it, such as {path / PARAMS_FILE}") from None
    except StrictYAMLError as error:
        raise ParamsError(f"{path}: {error}") from None


def parse_assignments(option: str, texts: Iterable[str]) -> dict[str, tuple[str, Any]]:
    """Return how each KEY=VALUE of an option was given, and its value as in a params file, by key.

    Raises:
        ParamsError: One sets nothing, or its value is not valid YAML, or ambiguous; the message names the option.
    """
    given = {}
    for assignment in texts:
        key, sign, text = assignment.partition("=")
        if not sign:
            raise ParamsError(f"{option} {assignment} sets nothing; write {option} KEY=VALUE")
        try:
            given[key] = (f"{option} {assignment}", read_yaml(text.encode()))
        except StrictYAMLError as error:
            raise ParamsError(f"{option} {assignment}: {error}; quote a text that has signs of YAML in it") from None
    return given


def parse_params(data: Any, name: str = "params") -> Params:
    """Check the content of a params file, and give a run with `seeds` one run per seed.

    Raises:
        ParamsError: With one line per problem, which begins with `name`.
    """
    try:
        return Params.model_validate(data).with_replicates()
    except ValidationError as error:
        raise ParamsError("\n".join(f"{name}: {line}" for line in problem_lines(error, data))) from None


def dump_params(params: Params) -> str:
    """Return params as YAML, with all defaults filled in."""
    note = f"# {PARAMS_FILE} with all defaults filled in, written by the stage `resolve`. Edit {PARAMS_FILE} instead.\n"
    return note + yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, width=120, default_flow_style=None)


def dump_replicates(params: Params, stated: Any) -> str:
    """Return as YAML what DVC's templates need of the runs that `seeds` adds.

    Args:
        params: The params, with a run for each seed.
        stated: The content of params.yaml. What it has itself is left out, since DVC accepts no key twice.
    """
    zero_shot, measured = ((stated.get(key) or {}).get("runs") or {} for key in ("zero_shot", "image_quality"))
    added = {
        "runs": {
            name: {"dataset": run.dataset, "network": {"kind": run.network.kind}}
            for name, run in params.runs.items()
            if name not in stated["runs"]
        },
        "zero_shot": {"runs": {name: None for name in params.zero_shot.runs if name not in zero_shot}},
        "image_quality": {
            "runs": {
                name: {"features": run.features, "dataset": run.dataset}
                for name, run in params.image_quality.runs.items()
                if name not in measured
            }
        },
    }
    note = (
        f"# The runs that `seeds` adds to those of {PARAMS_FILE}, written by the stage `resolve` for DVC's templates.\n"
    )
    return note + yaml.safe_dump(added, sort_keys=False, width=120)


def json_schema() -> str:
    """Return the JSON Schema of params.yaml, for editors."""
    return json.dumps(Params.model_json_schema(), indent=1, sort_keys=True) + "\n"
