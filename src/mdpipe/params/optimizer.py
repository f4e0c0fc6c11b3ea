"""How weights are moved, the `optimizer` of a run's `train` in params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from mdpipe.params.base import Section
from mdpipe.params.own import ByKind


class AdamW(Section):
    """AdamW on all weights, as in the paper; beta1 is 0.9."""

    kind: Literal["adamw"]
    beta2: Annotated[float, Field(gt=0, lt=1)]
    """Decay rate of the second moment."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decoupled weight decay, multiplied by the learning rate."""


class Muon(Section):
    """Muon on the matrices of the layers, whose steps are made orthogonal, and AdamW on all other weights.

    Its steps are scaled to the size of AdamW's, so one learning rate and one weight decay serve both. They are computed
    in float32 on a CPU and in bfloat16 on a GPU, whatever the precision of the network's products.
    """

    kind: Literal["muon"]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    """Momentum of the matrices' gradients (Nesterov)."""
    beta2: Annotated[float, Field(gt=0, lt=1)]
    """Decay rate of AdamW's second moment."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)]
    """Decoupled weight decay, multiplied by the learning rate."""


AnyOptimizer = Annotated[AdamW | Muon, Field(discriminator="kind"), ByKind("kind")]
