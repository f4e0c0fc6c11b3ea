"""Floating-point operations and bytes of a run's network, counted from its shapes on the meta device.

Letters: F operations of a forward pass of an example, P weights, B examples a step, T steps, L tokens an example.
"""

from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING

from mdpipe.params import Run
from mdpipe.params.sampling import AnySampler
from mdpipe.stages.plan_datasets import Encoded
from mdpipe.stages.plan_figures import NOTHING, UNKNOWN, Figure

if TYPE_CHECKING:
    from mdpipe.networks.base import Network

BACKWARD = 2
"""Forward passes that a backward pass costs."""
WEIGHT_BYTES = 4
STATE_BYTES = 16
"""Of a weight in a resume state: itself, its average and AdamW's two moments in float32; Muon has one moment."""
COUNT_BYTES = 8
HEADER_BYTES = 128
"""Of a NumPy file."""
RESULT_BYTES = 16
"""Of an example in evaluations/RUN.npy: its nats and its tokens."""

CALLED_ONCE_A_STEP = ("confidence", "generalized")
"""Samplers whose last step reveals all; others have one more, at time 0, for what the schedule leaves masked there."""


@dataclass(frozen=True)
class Model:
    """What a run's network costs; unknown where the vocabulary is."""

    forward: Figure
    """F."""
    prefixes: Figure
    """The sum of F over examples of 1, 2, ..., L tokens: what left to right a sample costs."""
    weights: Figure
    """P, those of the objective among them."""
    matrices: Figure
    """How many of them Muon has."""
    vocabulary: int
    exact: bool
    """Whether one draw is enough, since the likelihood is exact."""

    def training(self, run: Run) -> Figure:
        """(1 + 2) F B T, for every mask drawn of an example."""
        return self.forward * (1 + BACKWARD) * run.train.batch_size * run.train.steps * masks(run)

    def kept(self, run: Run) -> Figure:
        """Bytes of models/RUN, 4 P, and of the resume states, one of them in the making, 16 P each.

        Of a matrix that Muon moves it is 12; the loss and gradient norm of every step come on top of a state, and how
        often each token occurs on top of the model.
        """
        model = self.weights * WEIGHT_BYTES + Figure(COUNT_BYTES * self.vocabulary)
        state = self.weights * STATE_BYTES + self.matrices * -WEIGHT_BYTES + Figure(2 * WEIGHT_BYTES * run.train.steps)
        return model + state * run.train.most_checkpoints()

    def evaluation(self, draws: int, examples: Figure) -> Figure:
        """F for every draw and example."""
        return self.forward * (1 if self.exact else draws) * examples

    def drawing(self, sampler: AnySampler, steps: int | None, count: int, length: int, guided: bool = False) -> Figure:
        """F for every network call and sample, and twice so much where classes guide it.

        Left to right, every call reads the tokens so far. How many rows `reveal_first` computes is up to chance: it is
        taken for the most, one call a token.
        """
        if sampler.kind == "autoregressive":
            cost = self.prefixes
        else:
            cost = (self.forward * network_calls(sampler, steps, length)).roughly(sampler.kind == "reveal_first")
        return cost * count * (2 if guided else 1)


def model_of(run: Run, encoded: Encoded) -> Model:
    """The costs of a run on a dataset."""
    if encoded.vocabulary is None:
        return Model(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, 0, run.objective == "autoregressive")
    from mdpipe.diffusion.objectives.build import build_objective
    from mdpipe.networks.build import empty_network, parameter_count
    from mdpipe.training.optimizer import layer_matrices

    objective = build_objective(run.objective, encoded.vocabulary, **run.diffusion.model_dump())
    network = empty_network(
        vocabulary=encoded.vocabulary,
        shape=encoded.shape,
        classes=0 if run.condition is None else max(encoded.classes, 1),
        causal=objective.causal,
        **run.network.model_dump(),
    )
    matrices = layer_matrices(network) if run.train.optimizer.kind == "muon" else []
    doubt = encoded.guessed
    return Model(
        forward=Figure(forward_flops(network, encoded.length), doubt),
        prefixes=Figure(prefix_flops(network, encoded.length), doubt) if objective.causal else NOTHING,
        weights=Figure(parameter_count(network) + parameter_count(objective), doubt),
        matrices=Figure(sum(matrix.numel() for matrix in matrices), doubt),
        vocabulary=encoded.vocabulary,
        exact=objective.exact,
    )


def masks(run: Run) -> int:
    """Network calls of a training step: the masks that are drawn of an example, two for GenMD4."""
    asked: int = getattr(run.diffusion, "masks", 2 if run.objective == "genmd4" else 1)
    return asked


def network_calls(sampler: AnySampler, steps: int | None, length: int) -> int:
    """One a step of the grid, or one a token; a predictor's correctors have one each."""
    if steps is None:
        return length
    if sampler.kind in CALLED_ONCE_A_STEP:
        return steps
    calls: int = (steps + 1) * (1 + getattr(sampler, "correctors", 0))
    return min(calls, length) if sampler.kind == "reveal_first" else calls


def forward_flops(network: "Network", length: int) -> int:
    """F of an example of so many tokens: what training counts of forward and backward, without the backward."""
    from mdpipe.training.flops import training_flops

    return round(training_flops(network, length) * length / (1 + BACKWARD))


def prefix_flops(network: "Network", length: int) -> int:
    """The sum of F(l) over l = 1, ..., L, by Newton's series, for F has a constant, a linear and a square part.

    L F(1) + L (L - 1) / 2 (F(2) - F(1)) + L (L - 1) (L - 2) / 6 (F(3) - 2 F(2) + F(1))
    """
    first, second, third = (forward_flops(network, tokens) for tokens in (1, 2, 3))
    differences = (first, second - first, third - 2 * second + first)
    return sum(comb(length, order + 1) * difference for order, difference in enumerate(differences))
