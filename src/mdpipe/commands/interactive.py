"""What `mdpipe generate` and `mdpipe infill` have in common: the model, the sampler asked for, progress."""

import difflib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from torch import Tensor

from mdpipe.commands.sampling_options import SamplingOptions
from mdpipe.data.tokenizers import Tokenizer
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import OnStep
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import PARAMS_FILE, load_params
from mdpipe.params.errors import did_you_mean
from mdpipe.pipeline import paths
from mdpipe.stages.model_io import TrainedRun, load_run
from mdpipe.stages.sampling import Drawn, draw

LISTED = 12
"""Names of classes in a message."""


def open_run(run: str, options: SamplingOptions) -> TrainedRun:
    """Load the model, ready to be sampled from.

    Raises:
        ValueError: it is missing or broken, or an option is out of range.
    """
    _require_run(run)
    options.require_in_range()
    configure_runtime(options.threads)
    return load_run(run)


def class_number(trained: TrainedRun, label: str) -> int:
    """The class that has this name, or else this number.

    Raises:
        ValueError: the run knows no such class; the message lists those it knows, similar names first.
    """
    if label in trained.class_names:
        return trained.class_names.index(label)
    if label.isdecimal() and int(label) < trained.classes:
        return int(label)
    known = f"the classes 0 to {trained.classes - 1}" if trained.classes else "no classes"
    if trained.class_names:
        similar = difflib.get_close_matches(label, trained.class_names, LISTED)
        listed = list(dict.fromkeys([*similar, *trained.class_names]))[:LISTED]
        known += f", named {', '.join(listed)}{' and others' * (len(trained.class_names) > len(listed))}"
    raise ValueError(f"--label {label} is not known: run {trained.directory.name!r} knows {known}")


def fill(trained: TrainedRun, tokens: Tensor, options: SamplingOptions) -> Drawn:
    """Sample the masked positions of tokens (N, L), with a progress bar on the standard error.

    Raises:
        ValueError: the sampler does not exist or does not fit the run's objective, a setting of it is wrong, the run
            has no such class, or it samples from left to right and a token is known to the right of a mask.
    """
    objective = trained.objective.config
    sampler = options.build_sampler(trained.name, objective)
    masked = tokens == trained.objective.mask_id
    if objective.is_causal and (masked[:, :-1] & ~masked[:, 1:]).any():
        raise ValueError(
            f"a run of {objective.kind} samples from left to right, without regard to the text after a gap: it fills"
            " one gap, at the end"
        )
    with _progress() as on_step:
        return draw(
            trained,
            sampler,
            tokens,
            CounterRNG(options.seed, "by hand"),
            choice=options.token_sampler(trained.name),
            classes=None if options.label is None else torch.full((len(tokens),), class_number(trained, options.label)),
            guidance=options.guidance_scale(trained.name),
            on_step=on_step,
        )


def encode_prompt(tokenizer: Tokenizer, parts: Sequence[str]) -> list[NDArray[np.int64]]:
    """Encode the parts of a text between which tokens will be sampled; say on the standard error which are altered.

    Raises:
        ValueError: a part is not UTF-8, or the tokenizer cannot spell it.
    """
    spans: list[NDArray[np.int64]] = []
    for part in parts:
        try:
            part.encode()
        except UnicodeEncodeError:
            raise ValueError(f"the text {part!r} is not UTF-8; set the terminal to it, or convert the text") from None
        span = tokenizer.encode_span(part, begins=not spans)
        if span.text != part:
            sys.stderr.write(f"mdpipe: the run's tokenizer reads {part!r} as {span.text!r}\n")
        spans.append(span.ids)
    return spans


def _require_run(run: str) -> None:
    """Pass if the run is trained, or in params.yaml, in which case it can be.

    Raises:
        ValueError: it is neither; the message names the nearest and all there are.
    """
    trained = paths.trained_runs()
    if run in trained:
        return
    wanted = load_params().runs if PARAMS_FILE.exists() else {}
    if run not in wanted:
        hint = did_you_mean(run, [*trained, *wanted])
        untrained = sorted(wanted.keys() - set(trained))
        others = f"; in params.yaml and not trained: {', '.join(untrained)}" if untrained else ""
        raise ValueError(f"there is no run {run!r}{hint}; trained in models/: {', '.join(trained) or 'none'}{others}")


@contextmanager
def _progress() -> Iterator[OnStep]:
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("sampling", total=None)

        def on_step(done: int, steps: int, _: Tensor) -> None:
            bar.update(task, completed=done, total=steps)

        yield on_step
