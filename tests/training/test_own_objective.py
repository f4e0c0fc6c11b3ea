"""The results of a user's own objective are refused if they are not one number for each example."""

import numpy as np
import pytest
import torch

from mdpipe.diffusion.objectives.base import ELBO, Objective
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import likelihood_bound
from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.params import EstimatorConfig
from mdpipe.params.diffusion import MD4Config
from mdpipe.params.networks import TransformerConfig
from mdpipe.training.loop import Batch
from tests.training.test_train_step import TOKENS, B, L, V, trainer_of

LOSSES = {
    "scalar": (lambda loss: loss.mean(), rf"^`loss` of objective\.kind = md4 is \(\), not \({B},\), a number of nats"),
    "column": (lambda loss: loss[:, None], rf"^`loss` of objective\.kind = md4 is \({B}, 1\), not \({B},\), a number"),
    "none": (lambda _: None, rf"^`loss` of objective\.kind = md4 is a NoneType, not \({B},\), a number of nats"),
}


@pytest.mark.parametrize("case", LOSSES)
def test_a_loss_that_is_not_one_per_example_is_refused(case):
    change, problem = LOSSES[case]

    class Own(MD4):
        def loss(self, *arguments):
            return change(super().loss(*arguments))

    trainer = trainer_of(Own(MD4Config(), V))
    with pytest.raises(ValueError, match=problem):
        trainer.train_step(lambda _, rows: Batch(TOKENS[rows.start : rows.stop]))


ELBOS = {
    "tensor": (lambda elbo: elbo.total, r"^`elbo` of objective\.kind = md4 returns Tensor, not an ELBO"),
    "number": (
        lambda elbo: ELBO(elbo.reconstruction, 0.0, elbo.diffusion),
        rf"^prior of `elbo` of objective\.kind = md4 is a float, not \({B},\), a number of nats for each example",
    ),
    "column": (
        lambda elbo: ELBO(elbo.reconstruction, elbo.prior, elbo.diffusion[:, None]),
        rf"^diffusion of `elbo` of objective\.kind = md4 is \({B}, 1\), not \({B},\), a number of nats",
    ),
}


class Examples:
    """All examples in one batch."""

    vocab_size, examples = V, B

    def evaluation_batches(self, batch_size):
        yield np.arange(B), TOKENS.numpy()


@pytest.mark.parametrize("case", ELBOS)
def test_what_is_no_elbo_is_refused_in_training_and_evaluation(case):
    change, problem = ELBOS[case]

    class Own(MD4):
        def elbo(self, *arguments):
            return change(super().elbo(*arguments))

    objective = Own(MD4Config(), V)
    network = build_network(NetworkSpec(TransformerConfig(num_layers=1, num_heads=2, hidden_size=8), V, (L,)), seed=0)
    settings = EstimatorConfig(estimator="stratified_times", num_mc_samples=2)
    with pytest.raises(ValueError, match=problem):
        likelihood_bound(objective, network, Examples(), settings, CounterRNG(0, "evaluate"))
    u = torch.full((B, L), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match=problem):
        Objective.loss(objective, network, TOKENS, u[:, 0], u)
