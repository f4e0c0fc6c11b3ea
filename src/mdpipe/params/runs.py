"""What is trained, sampled and measured: the `runs` of params.yaml and the zero-shot suite."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, create_model, model_validator
from pydantic_core import InitErrorDetails, ValidationError

from mdpipe.params import diffusion
from mdpipe.params.base import Distinct, Positive, Section
from mdpipe.params.data import Packing
from mdpipe.params.hardware import HardwareSettings
from mdpipe.params.optimizer import AnyOptimizer
from mdpipe.params.own import OrOwn, own_kind, section_of
from mdpipe.params.problems import problem
from mdpipe.params.sampling import OnGrid, SampleSettings, fits, samplers_for


class Transformer(Section):
    """A transformer over the token sequence."""

    kind: Literal["transformer"]
    layers: Positive
    heads: Positive
    width: Positive
    time_conditioning: bool
    """Whether the network is told the time. Without it one network serves every schedule and any-order bound."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """The rate: of whole channels of what a layer adds, of attention probabilities and of elements of the embedding."""
    embed_dim: Positive | None = None
    """Channels of the token embedding, which a linear layer brings to the width; null for the width itself. The paper's
    text8 networks have 64."""

    @model_validator(mode="after")
    def _heads_fit_the_width(self) -> Self:
        if self.width % (2 * self.heads):
            even = [heads for heads in range(1, self.width // 2 + 1) if self.width % (2 * heads) == 0]
            rule = (
                f"does not divide width = {self.width} into even parts (rotary embeddings turn pairs of channels);"
                f" allowed at this width: {', '.join(map(str, even)) or 'none'}"
            )
            raise ValidationError.from_exception_data("network", [problem(("heads",), self.heads, rule)])
        return self


class UNet(Section):
    """A convolutional network at full resolution with skip connections, for pictures."""

    kind: Literal["unet"]
    width: Annotated[int, Field(ge=8, multiple_of=8)]
    blocks: Positive
    """Residual blocks on the way down; the way up has one more."""
    time_conditioning: bool
    """Whether the network is told the time."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """The rate, of single elements before the second convolution of a block."""
    init: Literal["md4", "ordinal"] = "md4"
    """The initial weights: as in the official implementation, or with an embedding in which near values start near each
    other, which short training gains from."""


class UViT(Section):
    """The U-Net with a transformer over patches of 2 x 2 pixels in the middle, for pictures of even size."""

    kind: Literal["uvit"]
    width: Annotated[int, Field(ge=8, multiple_of=8)]
    blocks: Positive
    """Residual blocks on the way down; the way up has one more."""
    middle_width: Annotated[int, Field(ge=4, multiple_of=4)]
    layers: Positive
    """Of the transformer in the middle."""
    heads: Positive
    time_conditioning: bool
    """Whether the network is told the time."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """The rate, of single elements before the second convolution of a block and within the transformer."""
    init: Literal["md4", "ordinal"] = "md4"
    """The initial weights: as in the official implementation, or with an embedding in which near values start near each
    other, which short training gains from."""

    @model_validator(mode="after")
    def _heads_fit_the_width(self) -> Self:
        if self.middle_width % self.heads:
            rule = f"does not divide middle_width = {self.middle_width}"
            raise ValidationError.from_exception_data("network", [problem(("heads",), self.heads, rule)])
        return self


def _own_network(kind: str, network: type) -> type[Section]:
    return section_of(network, given=["vocabulary", "shape", "classes", "causal"], named=own_kind(kind))


AnyNetwork = Annotated[
    Transformer | UNet | UViT, Field(discriminator="kind"), OrOwn("kind", "mdpipe.networks", "Network", _own_network)
]


class TrainSettings(Section):
    """Optimizer and length of a training run."""

    steps: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    """The peak, reached after the warm-up; a cosine brings it to 0 at the last step."""
    warmup_steps: Annotated[int, Field(ge=0)]
    optimizer: AnyOptimizer
    gradient_clip: Annotated[float, Field(gt=0)] | None
    """Largest global norm of the gradient, or null for none."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay of the averaged weights, which are the ones evaluated."""
    checkpoint_every: Positive
    """Steps between two checkpoints."""
    keep_checkpoints: Positive
    """The so many newest are kept while a run trains; where the newest is damaged, it goes on from the one before."""

    def most_checkpoints(self, newest: int = 0, kept: int = 0) -> int:
        """Return the largest number of checkpoints on the disk at once: those that are kept, and the one being written.

        Args:
            newest: step of the newest checkpoint that is there,
            kept: and how many are there, which stay until newer ones replace them.
        """
        if newest >= self.steps:
            return kept
        written = -(-self.steps // self.checkpoint_every) - newest // self.checkpoint_every  # The last step has one.
        return max(kept, min(self.keep_checkpoints + 1, kept + written))

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if self.warmup_steps >= self.steps:
            rule = f"must be below steps = {self.steps}"
            raise ValidationError.from_exception_data("train", [problem(("warmup_steps",), self.warmup_steps, rule)])
        return self


class Draws(Section):
    """How a bound is estimated."""

    draws: Annotated[int, Field(ge=2, multiple_of=2)]
    """Monte Carlo draws of (time, mask) an example; even, because two halves give the estimator its own error."""
    batch_size: Positive


class EvaluateSettings(Draws):
    """The bound on the run's own held-out data, over the whole split."""

    split: Literal["validation", "test"]


TIMELESS = ("any_order", "autoregressive")
"""Objectives without a time."""


class Condition(Section):
    """A model that is told the class of each example, where the dataset has classes."""

    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Share of the training examples whose class is kept from it, which classifier-free guidance needs."""


class BaseRun(Section):
    """One model: data, objective, network, training, samples and evaluation."""

    objective: str
    dataset: str
    """A key of `datasets`."""
    condition: Condition | None
    """How classes are told; null for a model that knows none."""
    network: AnyNetwork
    train: TrainSettings
    hardware: HardwareSettings
    sample: SampleSettings
    evaluate: EvaluateSettings

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        found = [
            *self._network_problems(),
            *self._sample_problems(),
            *self._hardware_problems(),
            *self._optimizer_problems(),
        ]
        if found:
            raise ValidationError.from_exception_data("run", found)
        return self

    def _network_problems(self) -> Iterator[InitErrorDetails]:
        if self.objective == "autoregressive" and isinstance(self.network, UNet | UViT):
            rule = "an autoregressive run needs a network that can be causal: transformer"
            yield problem(("network", "kind"), self.network.kind, rule)
        if self.objective in TIMELESS and getattr(self.network, "time_conditioning", False):
            rule = f"{self.objective} has no time to condition on: must be false"
            yield problem(("network", "time_conditioning"), True, rule)

    def _optimizer_problems(self) -> Iterator[InitErrorDetails]:
        if self.train.optimizer.kind == "muon" and isinstance(self.network, UNet):
            rule = "muon is for matrices, and the layers of a unet are convolutions: adamw"
            yield problem(("train", "optimizer", "kind"), "muon", rule)

    def _sample_problems(self) -> Iterator[InitErrorDetails]:
        sample, kind = self.sample, self.sample.sampler.kind
        if not fits(kind, self.objective):
            rule = f"does not fit a run of {self.objective}; allowed: {', '.join(samplers_for(self.objective))}"
            yield problem(("sample", "sampler", "kind"), kind, rule)
        elif isinstance(sample.sampler, OnGrid) != (sample.steps is not None):
            need = "a number, such as 128," if isinstance(sample.sampler, OnGrid) else "null"
            yield problem(("sample", "steps"), sample.steps, f"must be {need} for the sampler {kind}")
        if sample.guidance is not None and self.condition is None:
            rule = "guidance needs classes, and condition is null: must be null"
            yield problem(("sample", "guidance"), sample.guidance, rule)

    def _hardware_problems(self) -> Iterator[InitErrorDetails]:
        parts = self.hardware.processes * self.hardware.micro_batches
        if self.train.batch_size % parts:
            rule = (
                f"must be a multiple of {parts}: hardware.processes = {self.hardware.processes} times"
                f" hardware.micro_batches = {self.hardware.micro_batches}"
            )
            yield problem(("train", "batch_size"), self.train.batch_size, rule)


class MD4Run(BaseRun):
    """Masked diffusion."""

    objective: Literal["md4"]
    diffusion: diffusion.MD4


class GenMD4Run(BaseRun):
    """Masked diffusion with learned schedules."""

    objective: Literal["genmd4"]
    diffusion: diffusion.GenMD4


class MaskGITRun(BaseRun):
    """MaskGIT's loss."""

    objective: Literal["maskgit"]
    diffusion: diffusion.MaskGIT


class SEDDRun(BaseRun):
    """Score entropy."""

    objective: Literal["sedd"]
    diffusion: diffusion.SEDD


class D3PMRun(BaseRun):
    """Discrete-time diffusion."""

    objective: Literal["d3pm"]
    diffusion: diffusion.D3PM


class AnyOrderRun(BaseRun):
    """Any-order autoregression."""

    objective: Literal["any_order"]
    diffusion: diffusion.AnyOrder


class AutoregressiveRun(BaseRun):
    """Left to right."""

    objective: Literal["autoregressive"]
    diffusion: diffusion.Autoregressive


def _own_run(kind: str, objective: type) -> type[Section]:
    settings = section_of(objective, given=["vocabulary"], types={"schedule": diffusion.AnySchedule})
    fields: dict[str, Any] = {"objective": (Literal[kind], ...), "diffusion": (settings, ...)}
    return create_model(objective.__name__, __base__=BaseRun, **fields)


Run = Annotated[
    MD4Run | GenMD4Run | MaskGITRun | SEDDRun | D3PMRun | AnyOrderRun | AutoregressiveRun,
    Field(discriminator="objective"),
    OrOwn("objective", "mdpipe.diffusion.objectives", "Objective", _own_run),
]


def diffusion_section(objective: str, implementation: type) -> Any:
    """Return the section `diffusion` of a run with this objective, which the class implements."""
    for run in get_args(get_args(Run)[0]):
        if get_args(run.model_fields["objective"].annotation) == (objective,):
            return run.model_fields["diffusion"].annotation
    return _own_run(objective, implementation).model_fields["diffusion"].annotation


class ZeroShot(Draws):
    """Every run of `runs` is measured on every source of `sources`, which it was not trained on."""

    runs: Annotated[list[str], Distinct]
    """Text runs, keys of the params' `runs`."""
    sources: Annotated[list[str], Distinct]
    """Text sources, keys of the params' `sources`."""
    packing: Packing
    """The convention by which a corpus becomes windows."""


class Comparison(Section):
    """Two runs on the same examples: the table of likelihoods shows their difference with its paired error."""

    run: str
    against: str
