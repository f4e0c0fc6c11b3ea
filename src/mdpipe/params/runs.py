"""What is trained, sampled and measured: the `runs` of params.yaml and the zero-shot suite."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mdpipe.params.base import Name, Positive, Section


class Transformer(Section):
    """A transformer over the token sequence."""

    kind: Literal["transformer"]
    layers: Positive
    heads: Positive
    width: Positive
    time_conditioning: bool
    """Whether the network is told the time. Without it one network serves every schedule and any-order bound."""
    dropout: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _heads_fit_the_width(self) -> Self:
        if self.width % (2 * self.heads):
            even = [heads for heads in range(1, self.width // 2 + 1) if self.width % (2 * heads) == 0]
            raise ValueError(
                f"heads = {self.heads} does not divide width = {self.width} into even parts (rotary embeddings turn"
                f" pairs of channels); heads allowed at this width: {', '.join(map(str, even)) or 'none'}"
            )
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


AnyNetwork = Annotated[Transformer | UNet, Field(discriminator="kind")]


class Schedule(Section):
    """How fast tokens turn into the mask as time runs from 0 to 1 (Table 4 of the paper)."""

    kind: Literal["linear", "cosine"]


class TrainSettings(Section):
    """Optimizer, length and precision of a training run."""

    steps: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    """The peak, reached after the warm-up; a cosine brings it to 0 at the last step."""
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(gt=0, lt=1)]
    """AdamW's decay of the squared gradient; that of the gradient is 0.9."""
    gradient_clip: Annotated[float, Field(gt=0)] | None
    """Largest global norm of the gradient, or null for none."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decay of the averaged weights, which are the ones evaluated."""
    precision: Literal["float32", "bfloat16"]
    """What the matrix products compute in; weights, averages and losses are float32 always."""
    threads: Positive
    """CPU threads. A param because it decides in which order sums are taken, hence the bytes of the result."""
    checkpoint_every: Positive
    """Steps between two checkpoints."""

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps = {self.warmup_steps} must be below steps = {self.steps}")
        return self


class SampleSettings(Section):
    """How many samples are drawn and on which grid of times."""

    count: Positive
    steps: Positive
    grid: Literal["uniform", "cosine"]
    """Spacing of the times. The paper trains with the linear schedule and samples on the cosine grid (eq 6)."""


class Draws(Section):
    """How a bound is estimated."""

    draws: Annotated[int, Field(ge=2, multiple_of=2)]
    """Monte Carlo draws of (time, mask) an example; even, because two halves give the estimator its own error."""
    batch_size: Positive


class EvaluateSettings(Draws):
    """The bound on the run's own held-out data, over the whole split."""

    split: Literal["validation", "test"]


class Run(Section):
    """One model: data, objective, network, training, samples and evaluation."""

    dataset: Name
    """A key of `datasets`."""
    objective: Literal["md4"]
    schedule: Schedule
    network: AnyNetwork
    train: TrainSettings
    sample: SampleSettings
    evaluate: EvaluateSettings


class ZeroShot(Draws):
    """Every run of `runs` is measured on every source of `sources`, which it was not trained on."""

    runs: list[Name]
    """Text runs, keys of the params' `runs`."""
    sources: list[Name]
    """Text sources, keys of the params' `sources`."""
