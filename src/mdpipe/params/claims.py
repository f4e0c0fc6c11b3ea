"""The `claims` of params.yaml: what a paper says, how it is measured here, and in which region the measure should be.

A claim is declared before anything is trained. The stage `report` measures it and gives the verdict.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from mdpipe.params.diffusion import MD4Config
from mdpipe.params.errors import BrokenRules, Keys, not_in
from mdpipe.params.fields import Name
from mdpipe.params.registry import Config, KindConfig

if TYPE_CHECKING:
    from mdpipe.params.root import Params

Finite = Annotated[float, Field(gt=-math.inf, lt=math.inf)]
MIN_SEEDS = 2
"""Trainings that an error over seeds needs."""


class MeasureConfig(KindConfig):
    """A number that several trainings of some runs give, with an error over seeds."""

    is_ratio: ClassVar[bool] = False
    """True for a ratio, which is estimated by its logarithm."""

    run: str
    """A key of `runs`, with `seeds`."""
    baseline: str
    """Another key of `runs`, with the same `seeds`; of a measure of bounds, a key of the run's `evaluate.bounds`."""

    def problems(self, params: "Params") -> BrokenRules:
        """Yield runs that do not exist or differ in their seeds."""
        yield from _seed_problems(params, ("run", self.run), ("baseline", self.baseline))


class DifferenceConfig(MeasureConfig):
    """Bits per token of the run minus those of the baseline on the same held-out examples."""

    kind: Literal["difference"] = "difference"

    def problems(self, params: "Params") -> BrokenRules:
        """Yield runs that are not evaluated on the same examples, too."""
        yield from super().problems(params)
        found = [params.runs[name] for name in (self.run, self.baseline) if name in params.runs]
        if len({(run.dataset, run.evaluate.split) for run in found}) > 1:
            yield ("baseline",), "the runs are not evaluated on the same split of the same dataset"


class ZeroShotConfig(MeasureConfig):
    """A measure of two runs on all sources of `zero_shot`, by their first protocol."""

    def problems(self, params: "Params") -> BrokenRules:
        """Yield runs without zero-shot evaluation, or with other tokens, too."""
        yield from super().problems(params)
        for key, name in (("run", self.run), ("baseline", self.baseline)):
            if name in params.runs and name not in params.zero_shot.runs:
                yield (key,), not_in("zero_shot.runs", name, params.zero_shot.runs)
        if len({params.runs[name].dataset for name in (self.run, self.baseline) if name in params.runs}) > 1:
            yield ("baseline",), "the runs are not on the same dataset, whose tokenizer encodes the sources"


class ZeroShotDifferenceConfig(ZeroShotConfig):
    """Bits per token of the run minus those of the baseline on the sources."""

    kind: Literal["zero_shot"] = "zero_shot"


class ZeroShotGapConfig(ZeroShotConfig):
    """Difference on the sources minus that on the held-out split, in bits per token.

    It is positive if the run overfits more than the baseline.
    """

    kind: Literal["zero_shot_gap"] = "zero_shot_gap"


class TwoBoundsConfig(MeasureConfig):
    """A measure of two bounds of the same trainings."""

    bound: str
    """A key of the run's `evaluate.bounds`."""

    def problems(self, params: "Params") -> BrokenRules:
        """Yield a run without seeds, and bounds that it does not have."""
        yield from _bound_problems(params, self.run, {("bound",): self.bound, ("baseline",): self.baseline})


class BoundDifferenceConfig(TwoBoundsConfig):
    """Bits per token by one bound minus those by the baseline, on the same examples."""

    kind: Literal["bound"] = "bound"


class VarianceConfig(TwoBoundsConfig):
    """Monte Carlo variance of one bound divided by that of the baseline: of an example, its mean over examples."""

    kind: Literal["variance"] = "variance"
    is_ratio: ClassVar[bool] = True


class ExponentConfig(MeasureConfig):
    """Exponent b of excess = a T^b: the slope of log excess on log T, by least squares.

    The excess is that of a bound in T steps over the baseline, in continuous time.
    """

    kind: Literal["exponent"] = "exponent"
    bounds: Annotated[list[str], Field(min_length=2)]
    """Keys of the run's `evaluate.bounds`, with different `timesteps`."""

    def problems(self, params: "Params") -> BrokenRules:
        """Yield a run without seeds, bounds that it does not have, and those without timesteps or with equal ones."""
        named: dict[Keys, str] = {("bounds", index): name for index, name in enumerate(self.bounds)}
        found = list(_bound_problems(params, self.run, named | {("baseline",): self.baseline}))
        yield from found
        steps = [] if found else [self.timesteps(params, name) for name in self.bounds]
        for index, timesteps in enumerate(steps):
            if timesteps is None or timesteps in steps[:index]:
                yield ("bounds", index), "needs `timesteps`, and other ones than the bounds before it"

    def timesteps(self, params: "Params", name: str) -> int | None:
        """Return the T of a bound; None in continuous time."""
        objective = params.runs[self.run].evaluate.bounds[name].objective
        return objective.timesteps if isinstance(objective, MD4Config) else None


class FIDConfig(MeasureConfig):
    """FID against the training images, divided by the baseline's: the geometric mean over pairs of samplers."""

    kind: Literal["fid"] = "fid"
    is_ratio: ClassVar[bool] = True
    samplers: Annotated[list[str], Field(min_length=1)]
    """Keys of the run's `samplers` in `image_quality.runs`; the baseline may be the same run."""
    baseline_samplers: Annotated[list[str], Field(min_length=1)]
    """Keys of the baseline's `samplers`, as many as in `samplers`."""

    def problems(self, params: "Params") -> BrokenRules:
        """Yield runs without image quality, and samplers that they do not have, too."""
        yield from super().problems(params)
        measured = params.image_quality.runs
        for key, name, listed in (("run", self.run, "samplers"), ("baseline", self.baseline, "baseline_samplers")):
            if name in params.runs and name not in measured:
                yield (key,), not_in("image_quality.runs", name, measured)
            for index, sampler in enumerate(getattr(self, listed) if name in measured else ()):
                if sampler not in measured[name].samplers:
                    where = f"image_quality.runs.{name}.samplers"
                    yield (listed, index), not_in(where, sampler, measured[name].samplers)
        if len(self.samplers) != len(self.baseline_samplers):
            yield ("baseline_samplers",), f"needs as many as `samplers`, {len(self.samplers)}"


class Region(Config):
    """The interval that contains the measure if the claim is true; its ends may be open."""

    above: Finite | None = None
    """Lower end; null for none."""
    below: Finite | None = None
    """Upper end; null for none."""

    def broken_rules(self) -> BrokenRules:
        """Yield that the region is empty."""
        if self.above is not None and self.below is not None and self.above >= self.below:
            yield ("above",), f"must be less than below = {self.below:g}"


class Claim(Config):
    """A claim, the measure that tests it, and where the measure should be."""

    statement: str
    """The claim in words."""
    where: str
    """Source of the claim: a table or figure of the paper, or another publication."""
    published: str
    """The published result in words, with its data."""
    published_value: Finite | None = None
    """The measure according to the published numbers; null if there are none."""
    measure: MeasureConfig
    """The measure that tests the claim."""
    expect: Region
    """The region that agrees with the claim. A margin for "equal" belongs here."""

    def broken_rules(self) -> BrokenRules:
        """Yield a region of all numbers, and ends that a ratio cannot reach."""
        if self.expect.above is None and self.expect.below is None:
            yield ("expect",), "state `above`, `below` or both: any number would agree"
        for key in ("above", "below") if self.measure.is_ratio else ():
            if (end := getattr(self.expect, key)) is not None and end <= 0:
                yield ("expect", key), "a ratio is positive"


Claims = dict[Name, Claim]


def _seed_problems(params: "Params", *named: tuple[str, str]) -> BrokenRules:
    """Yield runs that do not exist or have one training only, or whose seeds differ; `named` are (key, run)."""
    names = params.replicates()
    for key, name in named:
        if name not in names:
            yield (key,), not_in("runs", name, names)
        elif len(names[name]) < MIN_SEEDS:
            yield (key,), f"needs an error over trainings: write `seeds: [0, 1, 2]` in runs.{name}"
    seeds = {key: params.runs[name].seeds for key, name in named if name in params.runs}
    if all(seeds.values()) and len({frozenset(listed or ()) for listed in seeds.values()}) > 1:
        yield (named[-1][0],), "the difference is taken seed by seed: both runs need the same `seeds`"


def _bound_problems(params: "Params", run: str, named: Mapping[Keys, str]) -> BrokenRules:
    """Yield a run without seeds, and the names of bounds that it does not have."""
    yield from _seed_problems(params, ("run", run))
    if run in params.runs:
        bounds = params.runs[run].evaluate.bounds
        for keys, name in named.items():
            if name not in bounds:
                yield keys, not_in(f"runs.{run}.evaluate.bounds", name, bounds)
