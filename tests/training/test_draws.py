"""Draws of training: the noise of the step and the rows, and on a GPU none is waited for."""

import pytest
import torch

from mdpipe.diffusion.noise import Noise, stratified_times
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.schedules.linear import Linear
from mdpipe.networks.build import build_network
from mdpipe.params import AdamW, HardwareSettings, TrainSettings
from mdpipe.training.draws import Draws
from mdpipe.training.parallel import Loss
from mdpipe.training.state import TrainingState
from mdpipe.training.step import Batch, Step
from mdpipe.training.world import World

V, L, B = 5, 8, 6
CPU = torch.device("cpu")


def test_rows_have_the_noise_of_their_place_in_the_batch_whatever_was_prepared():
    noise, objective = Noise(3, "train"), MD4(Linear(), V, masks=2)
    draws = Draws(noise, objective, B, CPU)
    draws.prepare(7, range(2, 5), L)
    for rows in (range(2, 5), range(B)):
        draw, examples = draws.take(7, rows, L), torch.arange(rows.start, rows.stop)
        assert torch.equal(draw.times, stratified_times(noise, 7, examples, B))
        assert torch.equal(draw.uniforms, noise.uniform(7, examples, 2 * L))
        assert draw.known_counts() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_on_a_gpu_no_step_waits_for_it_and_losses_are_the_cpus(micro_batches):
    def losses(device: str) -> torch.Tensor:
        network = build_network(
            "transformer", V, (L,), seed=0, layers=1, heads=2, width=8, time_conditioning=True, dropout=0.1
        ).to(device)
        objective = MD4(Linear(), V)
        hardware = HardwareSettings.model_validate(
            {
                "precision": "float32",
                "threads": 1,
                "processes": 1,
                "strategy": "ddp",
                "micro_batches": micro_batches,
                "compile": False,
                "recompute": False,
            }
        )
        settings = TrainSettings(
            steps=6,
            batch_size=B,
            learning_rate=1e-3,
            warmup_steps=0,
            optimizer=AdamW(kind="adamw", beta2=0.999, weight_decay=0.0),
            gradient_clip=1.0,
            ema_decay=0.9,
            checkpoint_every=1,
            keep_checkpoints=1,
        )
        state = TrainingState(network, objective, settings)
        step = Step(state, Loss(network, objective), settings, hardware, Noise(0, "train"), World())
        tokens = torch.randint(V, (B, L), generator=torch.Generator().manual_seed(0))
        for index in range(settings.steps):
            if device == "cuda":  # The first step makes what later ones have.
                torch.cuda.set_sync_debug_mode("error" if index else "default")
            step.take(lambda _, rows: Batch(tokens[rows.start : rows.stop]))
        torch.cuda.set_sync_debug_mode("default")
        return state.record.tensors()["losses"].cpu()

    torch.testing.assert_close(losses("cuda"), losses("cpu"), rtol=1e-4, atol=1e-5)
