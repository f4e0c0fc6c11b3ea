"""Our side: the step of `mdpipe bench train` in float32, with the official optimizer's settings, without clipping."""

from time import perf_counter

import protocol

from mdpipe.benchmarks.settings import SHAPES
from mdpipe.benchmarks.training import start_training, time_steps
from mdpipe.networks.base import count_parameters
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.training import HardwareConfig, OptimizerConfig, TrainConfig


def build(shape: str, batch: int, threads: int, compile: bool) -> protocol.TrainingStep:
    """Build a trainer on random tokens and take the first steps.

    Compiling is what building it and the first step take longer than the last one.
    """
    configure_runtime(threads)
    network = SHAPES[shape].build_network(0)
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
    objective = ObjectiveConfig.parse("md4")
    trainer, batches = start_training(network, SHAPES[shape], objective, settings, hardware, seed=0)
    build_seconds = perf_counter() - start
    seconds = time_steps(trainer, batches, protocol.WARM_UP)
    state = trainer.state
    return protocol.TrainingStep(
        run=lambda: trainer.train_step(batches),
        read_loss=lambda: state.history.summarize(state.step - 1, state.step)[0],
        parameters=count_parameters(network),
        compile_seconds=build_seconds + seconds[0] - seconds[-1] if compile else None,
    )


if __name__ == "__main__":
    protocol.serve(build)
