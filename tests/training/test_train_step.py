"""A training step: its noise is that of the rows' place in the batch, and none stops a GPU."""

import pytest
import torch

from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.rng import CounterRNG, stratified_times
from mdpipe.diffusion.schedules.base import Linear
from mdpipe.networks.base import NetworkSpec, build_network
from mdpipe.params import HardwareConfig
from mdpipe.params.diffusion import MD4Config
from mdpipe.params.networks import TransformerConfig
from mdpipe.training.loop import Batch, Trainer
from tests.diffusion.all_kinds import every_objective
from tests.training.interrupted_run import SETTINGS

V, L, B = 5, 8, 6
TOKENS = torch.randint(V, (B, L), generator=torch.Generator().manual_seed(0))


def trainer_of(objective, *, micro_batches=1, device="cpu", dropout=0.0):
    config = TransformerConfig(num_layers=1, num_heads=2, hidden_size=8, time_conditioning=True, dropout=dropout)
    network = build_network(NetworkSpec(config, V, (L,), causal=objective.is_causal), seed=0).to(device)
    hardware = HardwareConfig(gradient_accumulation_steps=micro_batches)
    settings = SETTINGS.model_copy(update={"batch_size": B})
    return Trainer(network, objective, settings, hardware, CounterRNG(0, "train"))


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_loss_of_a_step_uses_the_noise_of_global_row_indices(micro_batches):
    objective = MD4(MD4Config(num_mask_samples=2), V)
    trainer = trainer_of(objective, micro_batches=micro_batches)
    examples = torch.arange(B)
    times = stratified_times(trainer.time_rng, 0, examples, B)
    u = trainer.mask_rng.uniform(0, examples, 2 * L)
    expected = objective.loss(trainer.state.network, TOKENS, times, u).mean() / L
    trainer.train_step(lambda _, rows: Batch(TOKENS[rows.start : rows.stop]))
    torch.testing.assert_close(trainer.state.history.state_dict()["losses"][0], expected.detach().float())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("kind", sorted(every_objective(V, Linear())))
def test_on_a_gpu_no_step_stops_it_and_losses_are_the_cpus(kind, micro_batches):
    def losses(device):
        trainer = trainer_of(
            every_objective(V, Linear())[kind], micro_batches=micro_batches, device=device, dropout=0.1
        )
        for index in range(trainer.settings.steps):
            if device == "cuda":  # The first step makes what later ones have.
                torch.cuda.set_sync_debug_mode("error" if index else "default")
            trainer.train_step(lambda _, rows: Batch(TOKENS[rows.start : rows.stop]))
        torch.cuda.set_sync_debug_mode("default")
        return trainer.state.history.state_dict()["losses"].cpu()

    torch.testing.assert_close(losses("cuda"), losses("cpu"), rtol=1e-4, atol=1e-5)
