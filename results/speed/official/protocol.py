"""What both sides of the comparison share: the training that they time, and how they answer compare.py.

Only the standard library is imported, since the Python of either side runs this module.
"""

import json
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time

LEARNING_RATE = 3e-4
BETA2 = 0.999
WEIGHT_DECAY = 0.03
EMA_DECAY = 0.9999
SCHEDULE_STEPS = 1_000_000
"""Length of the cosine schedule of the learning rate, which has no warm-up."""
WARM_UP = 2
"""Steps before any are timed."""


@dataclass(frozen=True)
class TrainingStep:
    """A training step that has been taken WARM_UP times.

    Attributes:
        run: takes a step and returns when all new values are there.
        read_loss: returns the loss of the last step in bits per token.
        parameters: number of weights.
        compile_seconds: what compiling took; None if nothing was compiled.
    """

    run: Callable[[], object]
    read_loss: Callable[[], float]
    parameters: int
    compile_seconds: float | None


def serve(build: Callable[..., TrainingStep]) -> None:
    """Answer lines of JSON on the standard input: the arguments of `build`, then numbers of steps to take and time."""
    step = build(**json.loads(sys.stdin.readline()))
    _answer(parameters=step.parameters, compile_seconds=step.compile_seconds)
    for line in sys.stdin:
        steps = int(line)
        start, cpu_start = perf_counter(), process_time()
        for _ in range(steps):
            step.run()
        seconds, cpu_seconds = perf_counter() - start, process_time() - cpu_start
        _answer(
            seconds_per_step=seconds / steps,
            cpu_seconds_per_step=cpu_seconds / steps,  # of all threads
            loss=step.read_loss(),
            peak_mem_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )


def _answer(**values: float | None) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()
