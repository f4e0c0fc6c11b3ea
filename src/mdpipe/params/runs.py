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
    """Number of transformer blocks."""
    heads: Positive
    """Attention heads; `width` must be a multiple of twice this number."""
    width: Positive
    """Hidden size."""
    time_conditioning: bool
    """Condition the network on the time. Without it, one network serves every schedule and the any-order bound."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Dropout rate: of whole channels of each residual branch, of attention probabilities and of the embedding."""
    embed_dim: Positive | None = None
    """Width of a factored token embedding, projected to `width`; null for `width` itself. The paper's text8 networks
    have 64."""

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
    """Number of channels."""
    blocks: Positive
    """Residual blocks of the encoder; the decoder has one more."""
    time_conditioning: bool
    """Condition the network on the time."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Dropout rate of single elements before the second convolution of a block."""
    init: Literal["md4", "ordinal"] = "md4"
    """Initial weights: `md4` as in the official implementation; `ordinal` starts with similar embeddings for similar
    pixel values, which helps short training."""


class UViT(Section):
    """The U-Net with a transformer over patches of 2 x 2 pixels in the middle, for pictures of even size."""

    kind: Literal["uvit"]
    width: Annotated[int, Field(ge=8, multiple_of=8)]
    """Number of channels."""
    blocks: Positive
    """Residual blocks of the encoder; the decoder has one more."""
    middle_width: Annotated[int, Field(ge=4, multiple_of=4)]
    """Hidden size of the transformer in the middle; a multiple of `heads`."""
    layers: Positive
    """Transformer blocks in the middle."""
    heads: Positive
    """Attention heads of the transformer in the middle."""
    time_conditioning: bool
    """Condition the network on the time."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Dropout rate of single elements, before the second convolution of a block and within the transformer."""
    init: Literal["md4", "ordinal"] = "md4"
    """Initial weights: `md4` as in the official implementation; `ordinal` starts with similar embeddings for similar
    pixel values, which helps short training."""

    @model_validator(mode="after")
    def _heads_fit_the_width(self) -> Self:
        if self.middle_width % self.heads:
            rule = f"does not divide middle_width = {self.middle_width}"
            raise ValidationError.from_exception_data("network", [problem(("heads",), self.heads, rule)])
        return self


def _own_network(kind: str, network: type) -> type[Section]:
    return section_of(network, given=["vocab_size", "shape", "num_classes", "causal"], named=own_kind(kind))


AnyNetwork = Annotated[
    Transformer | UNet | UViT, Field(discriminator="kind"), OrOwn("kind", "mdpipe.networks", "Network", _own_network)
]


class TrainSettings(Section):
    """Optimizer and length of a training run."""

    steps: Positive
    """Optimizer steps."""
    batch_size: Positive
    """Examples per step, over all processes and micro-batches."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    """Peak learning rate, reached after the warm-up; a cosine then decays it to 0 at the last step."""
    warmup_steps: Annotated[int, Field(ge=0)]
    """Steps of linear warm-up; fewer than `steps`."""
    optimizer: AnyOptimizer
    """How gradients become steps."""
    gradient_clip: Annotated[float, Field(gt=0)] | None
    """Clip the global gradient norm to this value; null for no clipping."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay of the moving average of the weights. The averaged weights are the model."""
    checkpoint_every: Positive
    """Steps between checkpoints."""
    keep_checkpoints: Positive
    """Number of checkpoints kept. If the newest is corrupt, training resumes from the one before."""

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
    """Monte Carlo samples of (time, mask) per example; even, because two halves give the estimator's own error."""
    batch_size: Positive
    """Examples per batch."""


class EvaluateSettings(Draws):
    """The bound on the run's own held-out data, over the whole split."""

    split: Literal["validation", "test"]
    """The held-out split that is evaluated."""


TIMELESS = ("any_order", "autoregressive")
"""Objectives without a time."""


class Condition(Section):
    """Class conditioning, for datasets with classes."""

    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Fraction of the training examples whose label is dropped, as classifier-free guidance needs."""


class BaseRun(Section):
    """One model: data, objective, network, training, samples and evaluation."""

    objective: str
    dataset: str
    """A key of `datasets`."""
    condition: Condition | None
    """Class conditioning; null for an unconditional model."""
    network: AnyNetwork
    """The denoiser."""
    train: TrainSettings
    """The optimization."""
    hardware: HardwareSettings
    """Processes, precision and memory."""
    sample: SampleSettings
    """The samples drawn from the trained model."""
    evaluate: EvaluateSettings
    """The likelihood bound on held-out data."""

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
    """Settings of the objective."""


class GenMD4Run(BaseRun):
    """Masked diffusion with learned schedules."""

    objective: Literal["genmd4"]
    diffusion: diffusion.GenMD4
    """Settings of the objective."""


class MaskGITRun(BaseRun):
    """MaskGIT's loss."""

    objective: Literal["maskgit"]
    diffusion: diffusion.MaskGIT
    """Settings of the objective."""


class SEDDRun(BaseRun):
    """Score entropy."""

    objective: Literal["sedd"]
    diffusion: diffusion.SEDD
    """Settings of the objective."""


class D3PMRun(BaseRun):
    """Discrete-time diffusion."""

    objective: Literal["d3pm"]
    diffusion: diffusion.D3PM
    """Settings of the objective."""


class AnyOrderRun(BaseRun):
    """Any-order autoregression."""

    objective: Literal["any_order"]
    diffusion: diffusion.AnyOrder
    """Settings of the objective."""


class AutoregressiveRun(BaseRun):
    """Left to right."""

    objective: Literal["autoregressive"]
    diffusion: diffusion.Autoregressive
    """Settings of the objective."""


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
    """Evaluate each run on each source; no run was trained on any of them."""

    runs: Annotated[list[str], Distinct]
    """Text runs: keys of `runs`."""
    sources: Annotated[list[str], Distinct]
    """Text sources: keys of `sources`. None of the runs may be trained on one."""
    packing: Packing
    """The convention by which a corpus becomes windows, as for datasets."""


class Comparison(Section):
    """Two runs on the same examples. The likelihood table shows their difference with its paired standard error."""

    run: str
    """A key of `runs`."""
    against: str
    """The baseline: another run, evaluated on the same split of the same dataset."""
