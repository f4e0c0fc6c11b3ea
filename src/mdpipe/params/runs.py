"""The `runs` of params.yaml."""

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, Tag, ValidationError, model_validator

from mdpipe.params.data import ImageDataset, modality_of
from mdpipe.params.diffusion import ObjectiveConfig, ScheduledConfig
from mdpipe.params.errors import BrokenRules, not_in
from mdpipe.params.fields import EvenNumber, Name, Positive, Seed, by_form
from mdpipe.params.networks import NetworkConfig
from mdpipe.params.registry import Config
from mdpipe.params.sampling import DEFAULT_SAMPLER, SampleConfig, unfit
from mdpipe.params.training import HardwareConfig, TrainConfig

if TYPE_CHECKING:
    from mdpipe.params.root import Params


class EstimatorConfig(Config):
    """Monte Carlo estimate of a bound."""

    estimator: Literal["exact_counts", "stratified_times", "independent_times"] = "exact_counts"
    """Exact numbers of masks, stratified, with control variates: several times less variance than the others.
    Or random times with independent masks: one time in each of equal intervals, twice, or independent times, as
    in the paper's equation. All of them have the same mean. An autoregressive likelihood is exact and needs none."""
    num_mc_samples: Annotated[
        Annotated[EvenNumber, Tag("a number")] | Annotated[Literal["auto"], Tag("a text")],
        by_form("must be an even number, or auto"),
    ] = 16
    """Monte Carlo samples of (time, mask) per example, each a network call; even, since two in each stratum give the
    Monte Carlo error. auto: as many as `half_width` needs, by a pilot of 4 samples per example."""
    half_width: Annotated[float, Field(gt=0, lt=math.inf)] = 0.01
    """Target of auto: half the width of the 95 % interval, 1.96 stderr_mc, in bits per token or dimension."""
    max_mc_samples: EvenNumber = 256
    """Limit of auto: the largest number of samples per example, also where the half-width is not reached."""
    batch_size: Positive = 64
    """Examples per batch."""
    renamed: ClassVar[dict[str, str]] = {"draws": "num_mc_samples"}

    @property
    def largest_num_mc_samples(self) -> int:
        """Return the number of samples per example, or its limit if it is not known yet."""
        return self.max_mc_samples if self.num_mc_samples == "auto" else self.num_mc_samples


class FurtherBound(EstimatorConfig):
    """A bound of a trained model by another objective, such as another schedule or a number of timesteps."""

    objective: ScheduledConfig
    """The objective, one without learned parameters."""


class EvaluateConfig(EstimatorConfig):
    """The bound on the run's own held-out data, over the whole split."""

    split: Literal["validation", "test"] = "test"
    """The held-out split that is evaluated."""
    bounds: dict[Name, FurtherBound] = {}
    """Further bounds of the same weights on the same examples, by name. Each is estimated twice, with independent
    samples of which all bounds have the same: the two give its Monte Carlo variance. `claims` compare them."""


class ClassConditioning(Config):
    """Class conditioning, for datasets with classes."""

    label_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the training examples whose label is dropped, as classifier-free guidance needs."""
    renamed: ClassVar[dict[str, str]] = {"dropout": "label_dropout"}


class Run(Config):
    """A model: data, objective, network, training, samples and evaluation."""

    dataset: str
    """A key of `datasets`."""
    objective: ObjectiveConfig
    """The training loss and likelihood bound."""
    network: NetworkConfig
    """The denoiser."""
    class_cond: ClassConditioning | None = None
    """Class conditioning; null for an unconditional model."""
    seed: Seed | None = None
    """Key of the training's randomness and of the samples; by default the root's `seed`, which stays the key of splits,
    tokenizers and the Monte Carlo samples of the evaluation. Two runs with different seeds are evaluated on the same
    examples."""
    seeds: list[Seed] | None = None
    """Train once per seed. The first training has the run's name, each further one is called NAME-seedN; tables have
    the mean over seeds and its standard error. null for one training."""
    train: TrainConfig
    """The optimization."""
    hardware: HardwareConfig = HardwareConfig()
    """Processes, precision and memory."""
    sample: SampleConfig = SampleConfig()
    """The samples of the trained model."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """The likelihood bound on held-out data."""
    renamed: ClassVar[dict[str, str]] = {
        "condition": "class_cond",
        "diffusion": "objective: {kind: KIND, ...}",
    }

    @model_validator(mode="before")
    @classmethod
    def _default_sampler(cls, data: Any) -> Any:
        """Set the sampler of a run that states none to the one of its objective."""
        if isinstance(data, dict) and isinstance(sample := data.get("sample", {}), dict) and "sampler" not in sample:
            try:
                sampler = ObjectiveConfig.class_of(data.get("objective")).sampler
            except ValidationError:
                sampler = None  # The objective's own error says why.
            return {**data, "sample": {**sample, "sampler": sampler or DEFAULT_SAMPLER}}
        return data

    def broken_rules(self) -> BrokenRules:
        """Yield settings of seeds, network, sampler and training that do not fit each other."""
        if self.seeds is not None:
            if len(self.seeds) < 2:
                yield ("seeds",), "`seeds` are of two trainings at least; for one, write `seed: N`"
            elif len(set(self.seeds)) < len(self.seeds):
                yield ("seeds",), "must be distinct: the same seed gives the same training"
            elif self.seed not in (None, self.seeds[0]):
                yield ("seed",), f"`seeds` begins with {self.seeds[0]}: leave `seed` out"
        objective, network = self.objective, self.network
        if objective.is_causal and not network.can_be_causal:
            rule = f"a run of {objective.kind} needs a network that can be causal: transformer"
            yield ("network", "kind"), rule
        if objective.is_causal and self.evaluate.bounds:
            yield ("evaluate", "bounds"), f"a model of {objective.kind} predicts no masked tokens: must be empty"
        if self.class_cond is not None and not network.takes_classes:
            yield ("class_cond",), f"a {network.kind} takes no classes: must be null"
        if getattr(network, "time_conditioning", False) and not objective.has_time:
            yield ("network", "time_conditioning"), f"{objective.kind} has no time to condition on: must be false"
        if misfit := unfit(self.sample.sampler, objective):
            yield ("sample", "sampler", "kind"), misfit
        if self.sample.guidance_scale is not None and self.class_cond is None:
            yield ("sample", "guidance_scale"), "guidance needs classes, and class_cond is null: must be null"
        micro_batches = self.hardware.num_processes * self.hardware.gradient_accumulation_steps
        if self.train.batch_size % micro_batches:
            yield (
                ("train", "batch_size"),
                f"must be a multiple of {micro_batches}: hardware.num_processes = {self.hardware.num_processes} times"
                f" hardware.gradient_accumulation_steps = {self.hardware.gradient_accumulation_steps}",
            )

    def problems(self, params: "Params") -> BrokenRules:
        """Yield a dataset that does not exist, or does not fit the network or the class conditioning."""
        if self.dataset not in params.datasets:
            yield ("dataset",), not_in("datasets", self.dataset, params.datasets)
            return
        dataset, network = params.datasets[self.dataset], self.network
        is_image = modality_of(dataset) == "image"
        if not (network.takes_images if is_image else network.takes_text):
            found, needed = ("images", "text") if is_image else ("text", "images")
            fitting = sorted(k for k, other in params.datasets.items() if modality_of(other) != modality_of(dataset))
            rule = f"a {network.kind} needs {needed} and {self.dataset!r} is {found}; datasets of {needed}:"
            yield ("dataset",), f"{rule} {', '.join(fitting) or 'none is defined'}"
        patch = network.patch_size
        if isinstance(dataset, ImageDataset) and dataset.image_size % patch:
            rule = f"a {network.kind} takes patches of {patch} x {patch} pixels, and {self.dataset!r} has images"
            yield ("dataset",), f"{rule} of {dataset.image_size} x {dataset.image_size}"
        source = params.sources.get(dataset.source)
        if self.class_cond is not None and source is not None and not source.has_classes:
            key = next((key for key in ("labels", "label_column") if key in type(source).model_fields), None)
            rule = f"source {dataset.source!r} has no classes; set class_cond to null"
            yield ("class_cond",), f"{rule}, or sources.{dataset.source}.{key}" if key else rule

    @property
    def measured_by(self) -> tuple[object, ...]:
        """Return the settings that two runs must share for their trainings to be compared seed by seed."""
        validation, seeds = self.train.validation, [self.seed] if self.seeds is None else sorted(self.seeds)
        samples = validation and (validation.num_examples, validation.num_mc_samples)
        return self.dataset, self.evaluate.split, seeds, samples

    def replicates(self, name: str, default_seed: int) -> "dict[str, Run]":
        """Return the run of each seed by its name: NAME for the first, NAME-seedN for the others.

        Args:
            name: The run's name in params.yaml.
            default_seed: The root's `seed`, for a run without one.
        """
        if self.seeds is None:
            return {name: self.model_copy(update={"seed": default_seed if self.seed is None else self.seed})}
        first, *others = self.seeds
        further = {f"{name}-seed{seed}": self.model_copy(update={"seed": seed, "seeds": None}) for seed in others}
        return {name: self.model_copy(update={"seed": first}), **further}
