"""Our side: the step of `mdpipe bench train` in float32, with the official optimizer's settings, without clipping."""

from time import perf_counter

import protocol

from mdpipe.benchmarks.training import SHAPES, time_steps
from mdpipe.diffusion.objectives.base import build_objective
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.networks.base import count_parameters
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.training import HardwareConfig, OptimizerConfig, TrainConfig
from mdpipe.training.loop import Batch, Trainer


def build(shape: str, batch: int, threads: int, compile: bool) -> protocol.TrainingStep:
    """Build a trainer on random tokens and take the first steps.

    Compiling is what building it and the first step take longer than the last one.
    """
    configure_runtime(threads)
    network = SHAPES[shape].build_network(0)
    objective = build_objective(ObjectiveConfig.parse("md4"), SHAPES[shape].vocab_size)
    changes = {"beta2": protocol.BETA2, "weight_decay": protocol.WEIGHT_DECAY}
    settings = TrainConfig(
        steps=protocol.SCHEDULE_STEPS,
        batch_size=batch,
        warmup_steps=0,
        optimizer=OptimizerConfig.parse("adamw").model_copy(update=changes),
        learning_rate=protocol.LEARNING_RATE,
        ema_decay=protocol.EMA_DECAY,
        max_grad_norm=None,
    )
    hardware = HardwareConfig(precision="float32", threads=threads, compile=compile)
    start = perf_counter()
    trainer = Trainer.build(network, objective, settings, hardware, CounterRNG(0, "bench"))
    build_seconds = perf_counter() - start
    tokens = SHAPES[shape].random_tokens(batch, 0)

    def batches(_: int, rows: range) -> Batch:
        return Batch(tokens[rows.start : rows.stop])

    seconds = time_steps(trainer, batches, protocol.WARM_UP)
    state = trainer.state
    return protocol.TrainingStep(
        run=lambda: trainer.train_step(batches),
        read_loss=lambda: state.history.mean_loss(state.step - 1, state.step),
        parameters=count_parameters(network),
        compile_seconds=build_seconds + seconds[0] - seconds[-1] if compile else None,
    )


if __name__ == "__main__":
    protocol.serve(build)
