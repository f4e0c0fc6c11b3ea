"""What `mdpipe generate` and `mdpipe infill` have in common: the model, the sampler asked for, progress."""

import difflib
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from torch import Tensor

from mdpipe.commands.chosen_sampler import chosen_sampler, settings_of
from mdpipe.data.tokenizers import Tokenizer
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.diffusion.samplers.base import OnStep
from mdpipe.diffusion.token_sampling import TokenSampler
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import PARAMS_FILE, load_params
from mdpipe.params.nearest import did_you_mean
from mdpipe.pipeline import paths
from mdpipe.stages.model_io import TrainedRun, load_run
from mdpipe.stages.sampling import Drawn, draw

LISTED = 12
"""Names of classes in a message."""


@dataclass(frozen=True)
class Wish:
    """How a person wants to sample; what is None is as in the run's `sample` in params.yaml."""

    sampler: str | None
    settings: Sequence[str]
    """Of the sampler, as KEY=VALUE."""
    steps: int | None
    grid: str | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    label: str | None
    """Name or number of a class."""
    guidance: float | None
    seed: int
    threads: int


def open_run(run: str, wish: Wish) -> TrainedRun:
    """The model, ready to be sampled from.

    Raises:
        ValueError: it is missing or broken, a value of the wish is out of range, or guidance has no class to go by.
    """
    _require_run(run)
    _require_in_range(wish)
    configure_runtime(wish.threads)
    trained = load_run(run)
    if wish.guidance is not None and wish.label is None:
        raise ValueError("--guidance needs a class to be guided by; give one with --label")
    return trained


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


def fill(trained: TrainedRun, tokens: Tensor, wish: Wish) -> Drawn:
    """Fill the masks of tokens (N, L) as wished, with a progress bar on the standard error.

    Raises:
        ValueError: the sampler does not exist or does not fit the run's objective, a setting of it is wrong, the run
            knows no such class, or it draws from left to right and something is known behind a mask.
    """
    own = settings_of(trained.name)
    sampler = chosen_sampler(trained.name, trained.kind, wish.sampler, wish.steps, wish.grid, wish.settings)
    choice = TokenSampler(
        temperature=_first(wish.temperature, own and own.temperature, 1.0),
        top_k=_first(wish.top_k, own and own.top_k),
        top_p=_first(wish.top_p, own and own.top_p),
    )
    guidance = None if wish.label is None else _first(wish.guidance, own and own.guidance)
    masked = tokens == trained.objective.mask_id
    if trained.objective.is_causal and (masked[:, :-1] & ~masked[:, 1:]).any():
        raise ValueError(
            f"a run of {trained.kind} draws from left to right and cannot heed what stands behind a gap: it fills one"
            " gap, at the end"
        )
    with _progress() as on_step:
        return draw(
            trained,
            sampler,
            tokens,
            CounterRNG(wish.seed, "by hand"),
            choice=choice,
            classes=None if wish.label is None else torch.full((len(tokens),), class_number(trained, wish.label)),
            guidance=guidance,
            on_step=on_step,
        )


def _first(*values: Any) -> Any:
    """Return the first value that is not None, if there is one."""
    return next((value for value in values if value is not None), None)


def _require_in_range(wish: Wish) -> None:
    """Pass if the values are those that params.yaml may have, too.

    Raises:
        ValueError: one is not; the message names its option.
    """
    temperature, top_k, top_p, guidance = wish.temperature, wish.top_k, wish.top_p, wish.guidance
    rules = [
        ("--temperature", temperature, temperature is None or temperature > 0, "above 0"),
        ("--top-k", top_k, top_k is None or top_k >= 1, "at least 1"),
        ("--top-p", top_p, top_p is None or 0 < top_p <= 1, "above 0 and at most 1"),
        ("--guidance", guidance, guidance is None or 0 <= guidance < math.inf, "at least 0, and finite"),
    ]
    for option, value, is_in_range, rule in rules:
        if not is_in_range:
            raise ValueError(f"{option} {value} is refused: must be {rule}")


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
