"""`mdpipe score`: bounds on -log2 p(continuation | context), and multiple choice by likelihood.

A line of the input is one of three JSON objects:

    {"context": ..., "continuation": ...}
    {"context": ..., "choices": [...], "label": ...}
    {"activity_label": ..., "ctx_a": ..., "ctx_b": ..., "endings": [...], "label": ...}    HellaSwag, or `ctx` for both

Tokens, questions and accuracies are those of lm-evaluation-harness 0.4, of which a run is a model, too, by `register`;
its log-likelihoods are lower bounds, in nats. The harness is optional: pip install lm-eval.
"""

import csv
import io
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError, model_validator

from mdpipe.commands.interactive import describe_change, load_run, require_writable
from mdpipe.data.artifacts.files import atomic_write, first_problem
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.data.tokenizers.base import Tokenizer
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.conditional import conditional_bound, is_greedy
from mdpipe.evaluation.estimate import Estimate, proportion_estimate, unigram_nll
from mdpipe.messages import reason
from mdpipe.params.sampling import SampleConfig, SamplerConfig, compatible_samplers
from mdpipe.pipeline import sampling
from mdpipe.pipeline.model_io import UNIGRAM, TrainedModel
from mdpipe.progress import count_steps

PROTOCOLS = ("conditional", "md4")
"""`conditional` bounds a continuation given its context, `md4` both together in a padded window, as in the paper's
experiment on HellaSwag."""
DIGITS = 6
"""Decimals of a number of bits."""
MAX_LISTED = 3
"""Maximum number of texts that are shown as the tokenizer changes them."""

Instance = Any
"""An `lm_eval.api.instance.Instance`: `args` are (context, continuation), (text,) or (context, settings)."""
MAX_GEN_TOKS = 256
"""Tokens that lm-evaluation-harness generates at most where a task does not say."""

Text = Annotated[str, Field(min_length=1)]
Choices = Annotated[list[Text], Field(min_length=2)]
Label = Annotated[int, Field(ge=0)]
LAYOUTS = "a line has context and continuation, or context, choices and label, or HellaSwag's keys"
Request = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""The tokens (L,) of a text, and which of them are scored given the others."""


class _Continuation(BaseModel):
    context: str
    continuation: Text

    def item(self, line: int) -> "Item":
        return Item(line, self.context, [self.continuation], None)


class _MultipleChoice(BaseModel):
    context: str
    choices: Choices
    label: Label

    def item(self, line: int) -> "Item":
        return Item(line, self.context, self.choices, self.label)


class _HellaSwag(BaseModel):
    activity_label: str
    ctx_a: str
    ctx_b: str = ""
    endings: Choices
    label: Label

    @model_validator(mode="before")
    @classmethod
    def _read_whole_context(cls, content: dict[str, Any]) -> dict[str, Any]:
        return {"ctx_a": content["ctx"], **content} if "ctx" in content else content

    def item(self, line: int) -> "Item":
        query = f"{self.activity_label}: {self.ctx_a} {self.ctx_b.capitalize()}"
        # The space that separates an ending from the query is part of what is scored, as a word boundary is.
        return Item(line, clean(query), [f" {clean(ending)}" for ending in self.endings], self.label)


@dataclass(frozen=True)
class Item:
    """A context and the texts that may follow it."""

    line: int
    context: str
    continuations: list[str]
    label: int | None
    """Index of the correct text; None for a single text, without a question."""


@dataclass(frozen=True)
class EncodedItem:
    """An item in tokens."""

    item: Item
    requests: list[Request]
    """Requests from `encode_request`, one for each text."""
    characters: list[int]
    """Lengths of the continuations as the tokenizer normalizes them, without white space at their ends."""
    changes: list[str]
    """Descriptions of the texts that the tokenizer changes."""


def score(
    run: str, file: Path, out: str | None, protocol: str, num_mc_samples: int, batch_size: int, seed: int, threads: int
) -> None:
    """Bound -log2 p of each continuation in a file; write a row for each to `out`, or print them as JSON lines.

    A summary, with the accuracy of questions, is printed after the name of `out`, or on the standard error.
    """
    is_joint = protocol == "md4"
    if protocol not in PROTOCOLS:
        raise ValueError(f"--protocol {protocol} is unknown; choose {' or '.join(PROTOCOLS)}")
    if num_mc_samples % 2:
        raise ValueError(f"--num-mc-samples {num_mc_samples} is odd; two samples in each stratum give the error")
    require_writable(out, "rows")
    items = read_items(file, only_questions=is_joint)
    model = load_run(run, threads)
    if model.modality != "text":
        raise ValueError(f"run {run!r} samples images; continuations of text need a run on text")
    tokenizer = load_tokenizer(model.directory)
    encoded = []
    for item in items:
        try:
            encoded.append(encode_item(tokenizer, item, model.seq_len, is_joint=is_joint))
        except ValueError as error:
            raise ValueError(f"{file}, line {item.line}: {error}") from None
    sys.stderr.write(describe_changes(file, encoded))
    requests = [request for one in encoded for request in one.requests]
    bounds = iter(bound_requests(model, requests, num_mc_samples, batch_size, seed))
    scored = [(one, [next(bounds).scale(1 / math.log(2)) for _ in one.requests]) for one in encoded]
    rows = [
        {
            "protocol": protocol,
            "line": one.item.line,
            "choice": None if one.item.label is None else choice,
            "is_label": None if one.item.label is None else choice == one.item.label,
            "tokens": int(is_target.sum()),
            "characters": one.characters[choice],
            "bits": round(bound.value, DIGITS),
            "stderr": round(bound.stderr, DIGITS),
        }
        for one, of_item in scored
        for choice, (bound, (_, is_target)) in enumerate(zip(of_item, one.requests, strict=True))
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    samples = "exact likelihoods" if model.objective.is_exact else f"{num_mc_samples} Monte Carlo samples each"
    summary = f"{len(rows)} continuation{'s' * (len(rows) != 1)}, {samples}\n"
    summary += describe_accuracy(scored, is_joint=is_joint)
    if out is None:
        sys.stdout.write(lines)
        sys.stderr.write(summary)
        return
    if Path(out).suffix.lower() == ".csv":
        table = io.StringIO()
        writer = csv.DictWriter(table, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        lines = table.getvalue()
    atomic_write(Path(out), lines.encode())
    sys.stdout.write(f"{out}\n{summary}")


def read_items(file: Path, *, only_questions: bool = False) -> list[Item]:
    """Read a file of JSON lines, each one of the objects above, or of the last two `only_questions`."""
    if not file.is_file():
        raise ValueError(f"{file} is not a file; name one with a JSON object per line")
    items = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            if not isinstance(content, dict):
                raise ValueError("this is not a JSON object")  # noqa: TRY004
            if only_questions and not {"choices", "endings"} & content.keys():
                keys = ", ".join(content)
                raise ValueError(f"--protocol md4 is for questions, and this has no choices and no endings ({keys})")
            kind = _HellaSwag if "endings" in content else _MultipleChoice if "choices" in content else _Continuation
            item = kind.model_validate(content).item(number)
            if item.label is not None and item.label >= len(item.continuations):
                raise ValueError(f"label = {item.label}: there are {len(item.continuations)} choices, counted from 0")
        except ValidationError as error:
            found = f"{first_problem(error)} (its keys: {', '.join(content)})"
            raise ValueError(f"{file}, line {number}: {found}; {LAYOUTS}") from None
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {reason(error)}") from None
        items.append(item)
    if not items:
        raise ValueError(f"{file} is empty; write a JSON object per line")
    return items


def clean(text: str) -> str:
    """Remove the marks that HellaSwag's texts from WikiHow have in brackets, as lm-evaluation-harness does."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def encode_item(tokenizer: Tokenizer, item: Item, window: int, *, is_joint: bool = False) -> EncodedItem:
    """Encode an item; a choice without characters, or two that become the same tokens, cannot be the answer.

    If `is_joint`, a request is the text padded with end-of-text tokens to the window, and all of its tokens are scored.
    """
    stripped = item.context.rstrip()
    texts = [item.context[len(stripped) :] + text for text in item.continuations]  # As `encode_request` divides them.
    spans = [(text, tokenizer.encode_span(text, begins=False)) for text in texts]
    characters = [len(span.text.strip()) for _, span in spans]
    if item.label is not None and 0 in characters:
        empty = characters.index(0)
        raise ValueError(f"choice {empty}, {item.continuations[empty]!r:.60}, is white space for the run's tokenizer")
    requests = [encode_request(tokenizer, item.context, text, window) for text in item.continuations]
    for (first, (one, _)), (second, (other, _)) in combinations(enumerate(requests), 2):
        if np.array_equal(one, other):
            same = f"{item.continuations[first]!r:.60} and {item.continuations[second]!r:.60}"
            raise ValueError(f"choices {first} and {second} are the same tokens: {same}; leave out the question")
    if stripped:
        spans.insert(0, (stripped, tokenizer.encode_span(stripped, begins=True)))
    if is_joint:
        eos_id, is_target = tokenizer.eos_id, np.ones(window, dtype=bool)
        requests = [(np.pad(ids, (0, window - len(ids)), constant_values=eos_id), is_target) for ids, _ in requests]
    changes = [describe_change(text, span) for text, span in spans if span.text != text]
    return EncodedItem(item, requests, characters, changes)


def describe_changes(file: Path, encoded: Sequence[EncodedItem]) -> str:
    """Return a line for each of the first texts that the tokenizer changes, and the number of the others."""
    changes = [f"{file}, line {one.item.line}: {change}" for one in encoded for change in one.changes]
    shown = changes[:MAX_LISTED]
    if others := len(changes) - len(shown):
        shown.append(f"it changes {others} more of the texts in {file}")
    return "".join(f"mdpipe: {line}\n" for line in shown)


def encode_request(tokenizer: Tokenizer, context: str, continuation: str, window: int) -> Request:
    """Return the tokens (L,) of a text and which are the continuation's, as lm-evaluation-harness splits them.

    Both are encoded as one text, which is cut where the context's own tokens end. White space at the end of the context
    goes to the continuation. An empty context is the end-of-text token, and a long one loses its beginning.

    Raises:
        ValueError: The continuation has no tokens, or more than the model's window.
    """
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    before = tokenizer.encode(stripped) if stripped else np.array([tokenizer.eos_id])
    after = tokenizer.encode(stripped + continuation)[len(before) if stripped else 0 :]
    if not 0 < len(after) <= window:
        raise ValueError(f"the continuation {continuation!r:.60} has {len(after)} tokens; allowed: 1 to {window}")
    tokens = np.concatenate([before, after])[-window:]
    return tokens, np.arange(len(tokens)) >= len(tokens) - len(after)


def bound_requests(
    model: TrainedModel, requests: Sequence[Request], num_mc_samples: int, batch_size: int, seed: int
) -> list[Estimate]:
    """Bound -log p, in nats, of the targets of each request, with a progress bar on the standard error."""
    tokens, targets = [ids for ids, _ in requests], [is_target for _, is_target in requests]
    nll = unigram_nll(np.load(model.directory / UNIGRAM))
    rng = CounterRNG(seed, "score")
    with count_steps("scoring") as show:
        return conditional_bound(
            model.objective, model.network, tokens, targets, nll, num_mc_samples, batch_size, rng, show
        )


def describe_accuracy(scored: Sequence[tuple[EncodedItem, Sequence[Estimate]]], *, is_joint: bool = False) -> str:
    """Return a line with the accuracies of the questions, if there are any, and their standard errors.

    The answer is the choice of the least bits or, normalized, of the least bits per character. Joint bounds are of
    equally many tokens, and are not normalized. Errors are those of `proportion_estimate`.
    """
    questions = [(one, [bound.value for bound in bounds]) for one, bounds in scored if one.item.label is not None]
    if not questions:
        return ""
    answers = {"accuracy": [np.argmin(bits) == one.item.label for one, bits in questions]}
    if not is_joint:
        per_character = [np.argmin(np.divide(bits, one.characters)) == one.item.label for one, bits in questions]
        answers["length-normalized accuracy"] = per_character
    rates = {name: proportion_estimate(sum(map(int, correct)), len(correct)) for name, correct in answers.items()}
    parts = [f"{name} {rate.value:.4f} ± {rate.stderr:.4f}" for name, rate in rates.items()]
    wilson = ", at 0 and 1 the half-width of Wilson's interval" * any(rate.value in (0, 1) for rate in rates.values())
    count = f"{len(questions)} question{'s' * (len(questions) != 1)}"
    return f"{', '.join(parts)} (binomial standard errors{wilson}) on {count}\n"


class RunLM:
    """A trained run with the methods of `lm_eval.api.model.LM`; its arguments are the options of `mdpipe score`."""

    def __init__(self, run: str, num_mc_samples: int = 32, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.model = load_run(run, threads=torch.get_num_threads())
        self.tokenizer = load_tokenizer(self.model.directory)
        self.num_mc_samples, self.batch_size, self.seed = num_mc_samples, batch_size, seed

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Return log p of each continuation, and if greedy generation would give it."""
        model = self.model
        pairs = [
            encode_request(self.tokenizer, context, continuation, model.seq_len)
            for context, continuation in (request.args for request in requests)
        ]
        greedy = [is_greedy(model.objective, model.denoiser, tokens, is_target) for tokens, is_target in pairs]
        return list(zip(self._log_likelihoods(pairs), greedy, strict=True))

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """Return log p of each text after an end-of-text token, every token given as many before it as fit."""
        windows: list[Request] = []
        counts = []
        for request in requests:
            ids = np.concatenate([[self.tokenizer.eos_id], self.tokenizer.encode(request.args[0])])
            of_text = rolling_windows(ids, self.model.seq_len)
            windows += of_text
            counts.append(len(of_text))
        ends = np.cumsum(counts)[:-1]
        return [float(parts.sum()) for parts in np.split(np.array(self._log_likelihoods(windows)), ends)]

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Continue each context, greedily by default, and cut the text before the first of the `until` strings.

        The run's sampler fills as many tokens as the task asks for, up to half of the model's window.
        """
        model = self.model
        sampler = SamplerConfig.parse(compatible_samplers(type(model.objective.config))[0])
        texts = []
        for index, (context, settings) in enumerate(request.args for request in requests):
            count = min(settings.get("max_gen_toks", MAX_GEN_TOKS), model.seq_len // 2)
            known = self.tokenizer.encode(context)[count - model.seq_len :]
            tokens = torch.cat([torch.from_numpy(known)[None], sampling.all_masked(model, 1, count)], dim=1)
            is_random = settings.get("do_sample", False)
            choice = {"temperature": settings.get("temperature", 1.0)} if is_random else {"top_k": 1}
            rng = CounterRNG(self.seed, f"generate/{index}")
            config = SampleConfig(sampler=sampler, **choice)
            filled = sampling.sample(model, config, tokens, rng).tokens
            text = self.tokenizer.decode(filled[0, len(known) :].numpy())
            ends = [text.find(stop) for stop in settings.get("until", []) if stop in text]
            texts.append(text[: min(ends, default=len(text))])
        return texts

    def _log_likelihoods(self, requests: Sequence[Request]) -> list[float]:
        bounds = bound_requests(self.model, requests, self.num_mc_samples, self.batch_size, self.seed)
        return [-bound.value for bound in bounds]


def rolling_windows(ids: NDArray[np.int64], window: int) -> list[Request]:
    """Return windows of tokens whose targets are all but the first token, each once.

    Each window begins with one token of context, apart from the last: it is as long as the others where it can be.
    """
    windows = []
    for first in range(1, len(ids), window - 1):
        end = min(first + window - 1, len(ids))
        begin = max(0, end - window)
        windows.append((ids[begin:end], np.arange(begin, end) >= first))
    return windows


def register() -> None:
    """Make `mdpipe` a model of lm-evaluation-harness in this process.

    Raises:
        ImportError: The package lm-eval is not installed.
    """
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model

    register_model("mdpipe")(type("MdpipeLM", (RunLM, LM), {}))
