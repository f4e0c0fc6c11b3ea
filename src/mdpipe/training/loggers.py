"""Loggers of a training run: a progress bar on a terminal, otherwise log lines, and TensorBoard event files.

Event files need the extra `tensorboard`. No artifact depends on what is logged.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.progress import TextColumn

from mdpipe.progress import progress_bar
from mdpipe.training.metrics import TrainMetrics

MetricsLogger = Callable[[TrainMetrics], None]

logger = logging.getLogger(__name__)


def log_to_console(metrics: TrainMetrics) -> None:
    """Log the metrics as one line."""
    logger.info("%s", metrics)


@contextmanager
def open_loggers(events: Path) -> Iterator[MetricsLogger]:
    """Yield a function that logs metrics to the console and as event files in the folder `events`."""
    with ExitStack() as stack:
        to_console = stack.enter_context(_open_progress_bar()) if sys.stderr.isatty() else log_to_console
        to_tensorboard = stack.enter_context(_open_tensorboard(events))

        def log(metrics: TrainMetrics) -> None:
            to_console(metrics)
            to_tensorboard(metrics)

        yield log


@contextmanager
def _open_progress_bar() -> Iterator[MetricsLogger]:
    with progress_bar(TextColumn("{task.fields[metrics]}"), transient=False) as bar:
        task = bar.add_task("training", total=None, metrics="")
        yield lambda metrics: bar.update(task, completed=metrics.step, total=metrics.steps, metrics=metrics)


@contextmanager
def _open_tensorboard(folder: Path) -> Iterator[MetricsLogger]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # It is an extra.
        yield lambda _: None
        return
    with SummaryWriter(str(folder)) as writer:

        def log(metrics: TrainMetrics) -> None:
            for tag, value in metrics.scalars().items():
                writer.add_scalar(tag, value, metrics.step)
            if metrics.objective:
                writer.add_text("train/objective", metrics.objective, metrics.step)
            writer.flush()

        yield log
