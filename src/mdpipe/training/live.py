"""Following a run while it trains: a bar on a terminal, else lines for `tail -f`, and TensorBoard's event files.

Event files are written where the extra `tensorboard` is installed. Nothing here goes into an artifact.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from mdpipe.training.progress import Progress, print_progress

Report = Callable[[Progress], None]


@contextmanager
def live(events: Path) -> Iterator[Report]:
    """What to call with every report; `events` is the folder for the event files."""
    with ExitStack() as open_things:
        shown = open_things.enter_context(_bar()) if sys.stderr.isatty() else print_progress
        written = open_things.enter_context(_events(events))

        def report(progress: Progress) -> None:
            shown(progress)
            written(progress)

        yield report


@contextmanager
def _bar() -> Iterator[Report]:
    with Bar(BarColumn(20), TextColumn("{task.description}"), console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda progress: bar.update(
            task, completed=progress.step, total=progress.steps, description=str(progress)
        )


@contextmanager
def _events(folder: Path) -> Iterator[Report]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # It is an extra.
        yield lambda _: None
        return
    with SummaryWriter(str(folder)) as writer:

        def write(progress: Progress) -> None:
            for name, value in asdict(progress).items():
                if isinstance(value, float):
                    writer.add_scalar(name, value, progress.step)
            if progress.learned:
                writer.add_text("learned", progress.learned, progress.step)
            writer.flush()

        yield write
