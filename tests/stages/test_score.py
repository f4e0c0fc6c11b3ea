"""`mdpipe score` and the model of lm-evaluation-harness, on trained runs and on a toy whose right answers are known."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import Result

from mdpipe.commands import score
from mdpipe.commands.score import RunLM, clean, encode_request, read_items, rolling_windows
from mdpipe.data.tokenizers import ALPHABET
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.diffusion.schedules.base import Linear
from mdpipe.evaluation.conditional import is_greedy
from mdpipe.params.diffusion import MD4Config
from mdpipe.pipeline.model_io import load_model
from tests.data.builders import make_tokenizer
from tests.diffusion.all_kinds import every_objective
from tests.diffusion.objectives.enumeration import expectation

Command = Callable[..., Result]
QUESTION = {"context": "the function", "choices": [" returns", " raises an error"], "label": 1}


def write_lines(*lines: object) -> str:
    Path("lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return "lines.jsonl"


def rows_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def continuation(context: str, text: str) -> dict[str, str]:
    return {"context": context, "continuation": text}


def test_an_exact_likelihood_obeys_the_chain_rule(mdpipe: Command) -> None:
    first, second = "a list", " of names"
    lines = [continuation("it is", f" {first}{second}"), continuation("it is", f" {first}")]
    lines.append(continuation(f"it is {first}", second))
    whole, *parts = rows_of(mdpipe("score", "chars_ar", write_lines(*lines)))
    assert whole["bits"] == pytest.approx(sum(part["bits"] for part in parts), abs=1e-4)
    assert [row["tokens"] for row in (whole, *parts)] == [16, 7, 9]  # The space belongs to what follows it.
    assert whole["stderr"] == 0


@pytest.mark.parametrize("run", ["chars_md4", "subwords_genmd4"])
def test_rows_are_the_same_printed_and_in_both_kinds_of_file(mdpipe: Command, run: str) -> None:
    file = write_lines(continuation("", "one text"), QUESTION)
    printed = mdpipe("score", run, file, "--num-mc-samples", 4)
    rows = rows_of(printed)
    assert [(row["line"], row["choice"], row["is_label"]) for row in rows] == [
        (1, None, None),
        (2, 0, False),
        (2, 1, True),
    ]
    assert [row["characters"] for row in rows] == [8, 7, 15]
    assert all(row["bits"] > 0 and row["stderr"] >= 0 and row["tokens"] > 0 for row in rows)
    assert printed.stderr.startswith("3 continuations, 4 Monte Carlo samples each\naccuracy ")
    for out in ("rows.jsonl", "rows.csv"):
        result = mdpipe("score", run, file, "--num-mc-samples", 4, "--out", out)
        assert result.stdout == f"{out}\n{printed.stderr}"
    assert Path("rows.jsonl").read_text() == printed.stdout
    with Path("rows.csv").open() as table:
        assert [row["bits"] for row in csv.DictReader(table)] == [str(row["bits"]) for row in rows]


def test_hellaswag_is_read_as_lm_evaluation_harness_reads_it(mdpipe: Command) -> None:
    shared = {"activity_label": "Cooking", "endings": ["cuts [substeps] it.", "sings [title] Done"], "label": "1"}
    parts = {"ctx_a": "[header] A man [title] walks  in.", "ctx_b": "he", "ctx": "ignored"}
    file = write_lines({**shared, **parts}, {**shared, "ctx": "A man walks. he"})
    first, second = read_items(Path(file))
    assert first.context == "Cooking:  A man. walks in. He".replace("  ", " ")
    assert (first.continuations, first.label) == ([" cuts it.", " sings. Done"], 1)
    assert second.context == "Cooking: A man walks. he"
    question = {"context": first.context, "choices": first.continuations, "label": 1}
    bits = [
        [row["bits"] for row in rows_of(mdpipe("score", "chars_ar", write_lines(line)))]
        for line in ({**shared, **parts}, question)
    ]
    assert bits[0] == bits[1]
    assert clean(" [a] b  c [title] d ") == "[a] b  c. d".replace("[a] ", " ").replace("  ", " ")


class LikesTheFirst(nn.Module):
    """Gives the first token of a sequence the probability 1/2 everywhere, and the others the rest."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.bonus = nn.Parameter(torch.tensor(math.log(vocab_size - 1), dtype=torch.float64))
        self.vocab_size = vocab_size

    def forward(self, tokens: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        first = nn.functional.one_hot(tokens[:, :1], self.vocab_size + 1)[..., : self.vocab_size]
        return (self.bonus * first).expand(-1, tokens.shape[1], -1)

    def head(self, hidden: Tensor) -> Tensor:
        return hidden


def test_a_toy_answers_what_its_likelihoods_say(mdpipe: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shorter of two answers has fewer bits, the longer one fewer per character; one right answer of each kind."""
    toy = replace(load_model("chars_md4"), network=LikesTheFirst(27), objective=MD4(MD4Config(), 27))  # type: ignore[arg-type]
    monkeypatch.setattr(score, "load_run", lambda *_: toy)
    monkeypatch.setattr(score, "unigram_nll", lambda _: np.zeros(27))
    short_or_long = {"context": "aa", "choices": [" b", " aaaaaaaa"]}
    lines = [{**short_or_long, "label": 0}, {**short_or_long, "label": 1}, {**short_or_long, "label": 1}]
    lines.append({"context": "cc", "choices": [" aa", " bb", " cc"], "label": 2})
    result = mdpipe("score", "chars_md4", write_lines(*lines), "--num-mc-samples", 512)
    likely, other = 1, math.log2(52)
    expected = [*3 * [2 * other, other + 8 * likely], 3 * other, 3 * other, other + 2 * likely]
    for row, bits in zip(rows_of(result), expected, strict=True):
        assert row["bits"] == pytest.approx(bits, abs=max(1e-5, 5 * row["stderr"]))
    error = math.sqrt(0.25 * 0.75 / 4)
    assert f"accuracy 0.5000 ± 0.2500, length-normalized accuracy 0.7500 ± {error:.4f} (bin" in result.stderr
    assert "on 4 questions" in result.stderr


@pytest.mark.parametrize("name", ["md4", "genmd4", "autoregressive"])
def test_the_papers_protocol_bounds_a_padded_window(
    mdpipe: Command, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Of question and ending together, against the mean over all masks and times; the ending given the question is
    another number.
    """
    objective, network = every_objective(27, Linear())[name].double(), LikesTheFirst(27)
    toy = replace(load_model("chars_md4"), network=network, objective=objective, shape=(9,))  # type: ignore[arg-type]
    monkeypatch.setattr(score, "load_run", lambda *_: toy)
    monkeypatch.setattr(score, "unigram_nll", lambda _: np.linspace(1, 3, 27))
    file = write_lines({"activity_label": "a", "ctx": "aa", "endings": ["b", "a a"], "label": 1})
    result = mdpipe("score", "chars_md4", file, "--protocol", "md4", "--num-mc-samples", 512)
    conditional = rows_of(mdpipe("score", "chars_md4", file, "--num-mc-samples", 512))
    for row, other, text in zip(rows_of(result), conditional, ("a aa b   ", "a aa a a "), strict=True):
        tokens = torch.tensor([ALPHABET.index(letter.encode()) for letter in text])
        with torch.no_grad():
            expected = expectation(objective, network, tokens).item() / math.log(2)
        # A true z-score exceeds 5 once in two million runs.
        assert row["bits"] == pytest.approx(expected, abs=max(1e-5, 5 * row["stderr"]))
        assert row["stderr"] < 0.1 * expected
        assert (row["tokens"], other["tokens"]) == (9, len(text.strip()) - 4)
        assert other["bits"] < row["bits"] - 10
    first, second = (row["bits"] for row in rows_of(result))  # From left to right, nothing is known and both are equal.
    error = "0.2500 (binomial standard errors, at 0 and 1 the half-width of Wilson's interval) on 1 question\n"
    assert f"accuracy {int(second < first)}.0000 ± {error}" in result.stderr
    assert {row["protocol"] for row in rows_of(result)} == {"md4"}
    assert {row["protocol"] for row in conditional} == {"conditional"}
    assert (second < first) == (name != "autoregressive")
    assert "length-normalized" not in result.stderr


def test_texts_that_the_tokenizer_changes_are_shown(mdpipe: Command) -> None:
    """Characters are counted as it normalizes them: text8 spells digits out."""
    lines = [continuation("The", " end 7"), continuation("the", " end"), continuation("the \u65e5", " A (b)")]
    result = mdpipe("score", "chars_ar", write_lines(*lines, continuation("a", " B")))
    assert [row["characters"] for row in rows_of(result)] == [9, 3, 3, 1]
    read = "the run's tokenizer reads"
    assert result.stderr.splitlines()[:4] == [
        f"mdpipe: lines.jsonl, line 1: {read} 'The' as 'the'",
        f"mdpipe: lines.jsonl, line 1: {read} ' end 7' as ' end seven '",
        f"mdpipe: lines.jsonl, line 3: {read} 'the \u65e5' as 'the '",
        "mdpipe: it changes 2 more of the texts in lines.jsonl",
    ]
    assert "reads" not in mdpipe("score", "subwords_genmd4", write_lines(lines[0]), "--num-mc-samples", 2).stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        ("[1]", "this is not a JSON object"),
        ('{"context": "a"}', "continuation: Field required"),
        ('{"context": "a", "continuation": 3}', "continuation = 3: Input should be a valid string"),
        ('{"context": "a", "continuation": "\\ud800"}', "continuation = "),
        ('{"context": "a.", "continuation": "!"}', "the continuation '!' has 0 tokens; allowed: 1 to "),
        ('{"context": "日本", "continuation": " a"}', "the tokenizer 'text8' keeps nothing of '日本'; write it in"),
        ('{"context": "a", "continuation": " 日本"}', "the tokenizer 'text8' keeps nothing of ' 日本'; write it in"),
        ('{"context": "a", "choices": [" b", " B"], "label": 0}', "choices 0 and 1 are the same tokens: ' b' and ' B'"),
        ('{"context": "a", "choices": [" b", " !"], "label": 0}', "choice 1, ' !', is white space for the run's"),
        (json.dumps({"context": "a", "continuation": "b" * 999}), " has 999 tokens; allowed: 1 to "),
        ('{"context": "a", "choices": ["b"], "label": 0}', "choices = ['b']: List should have at least 2 items"),
        ('{"context": "a", "choices": ["b", "c"], "label": 2}', "label = 2: there are 2 choices, counted from 0"),
        ('{"activity_label": "a", "ctx": "b", "endings": ["c", "d"], "label": ""}', "label = '': Input should be"),
        ('{"activity_label": "a", "endings": ["c", "d"], "label": 0}', "ctx_a: Field required"),
    ],
)
def test_a_bad_line_is_named_with_its_file(refusal: Callable[..., str], place: Path, line: str, message: str) -> None:
    Path("bad.jsonl").write_text(f"{json.dumps(QUESTION)}\n\n{line}\n")
    found = refusal("score", "chars_md4", "bad.jsonl")
    assert found.startswith("mdpipe: bad.jsonl, line 3: ")
    assert message in found


def test_the_joint_protocol_refuses_lines_that_are_no_questions(refusal: Callable[..., str], mdpipe: Command) -> None:
    file = write_lines(QUESTION, continuation("the", " end"))
    message = "--protocol md4 is for questions, and this has no choices and no endings (context, continuation)"
    found = refusal("score", "chars_md4", file, "--protocol", "md4")
    assert found == f"mdpipe: lines.jsonl, line 2: {message}\n"
    assert len(rows_of(mdpipe("score", "chars_md4", file, "--num-mc-samples", 2))) == 3
    file = write_lines(QUESTION)
    assert len(rows_of(mdpipe("score", "chars_md4", file, "--num-mc-samples", 2, "--protocol", "md4"))) == 2


def test_what_cannot_be_scored_is_refused(refusal: Callable[..., str], place: Path) -> None:
    file = write_lines(QUESTION)
    Path("empty.jsonl").touch()
    assert "'digits' samples images" in refusal("score", "digits", file)
    assert "there is no run 'chars_md5' (did you mean 'chars_md4'?)" in refusal("score", "chars_md5", file)
    assert "no.jsonl is not a file" in refusal("score", "chars_md4", "no.jsonl")
    assert "empty.jsonl is empty" in refusal("score", "chars_md4", "empty.jsonl")
    assert "--num-mc-samples 3 is odd" in refusal("score", "chars_md4", file, "--num-mc-samples", 3)
    assert "--protocol mdlm is unknown; choose conditional or md4" in refusal(
        "score", "chars_md4", file, "--protocol", "mdlm"
    )
    assert "allowed: .jsonl, .csv" in refusal("score", "chars_md4", file, "--out", "rows.txt")


@pytest.mark.parametrize(
    ("context", "text", "window", "tokens", "targets"),
    [
        ("ab", " cd", 9, "ab cd", 3),
        ("ab ", "cd", 9, "ab cd", 3),
        ("ab, ", "cd", 9, "ab cd", 2),  # Its own tokens include the space that the comma becomes.
        ("", "cd", 9, " cd", 2),
        ("abcdef", "gh", 4, "efgh", 2),
        ("abc", "defg", 4, "defg", 4),
    ],
)
def test_a_text_is_split_where_its_context_ends(
    context: str, text: str, window: int, tokens: str, targets: int
) -> None:
    text8 = make_tokenizer("text8")
    ids, is_target = encode_request(text8, context, text, window)
    assert text8.decode(ids) == tokens
    assert is_target.tolist() == [False] * (len(ids) - targets) + [True] * targets


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, []),
        (3, [([0, 1, 2], 2)]),
        (4, [([0, 1, 2, 3], 3)]),
        (6, [([0, 1, 2, 3], 3), ([2, 3, 4, 5], 2)]),
        (8, [([0, 1, 2, 3], 3), ([3, 4, 5, 6], 3), ([4, 5, 6, 7], 1)]),
    ],
)
def test_rolling_windows_score_each_token_once(count: int, expected: list[tuple[list[int], int]]) -> None:
    """With as much context as fits, after the first token."""
    windows = rolling_windows(np.arange(count), 4)
    assert [(ids.tolist(), int(targets.sum())) for ids, targets in windows] == expected
    scored = [token for ids, targets in windows for token in ids[targets].tolist()]
    assert scored == list(range(1, count))


def requests(*arguments: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=one) for one in arguments]


@pytest.mark.parametrize("run", ["chars_md4", "chars_ar", "subwords_genmd4"])
def test_the_harness_gets_the_bounds_of_the_command(mdpipe: Command, run: str) -> None:
    pairs = [("the", " name"), ("", "list of"), ("a", " b")]
    rows = rows_of(mdpipe("score", run, write_lines(*(continuation(*pair) for pair in pairs)), "--num-mc-samples", 4))
    model = RunLM(run, num_mc_samples=4)
    found = model.loglikelihood(requests(*pairs))
    assert [-log_p / math.log(2) for log_p, _ in found] == pytest.approx([row["bits"] for row in rows], abs=1e-4)
    assert all(isinstance(greedy, bool) for _, greedy in found)
    assert model.loglikelihood([]) == []


def test_a_rolling_likelihood_of_short_texts_is_exact(place: Path) -> None:
    model = RunLM("chars_ar")
    short, long = "a name", "words of a text that has more letters than the window of this model " * 3
    whole = model.loglikelihood(requests(("", short)))[0][0]
    rolled = model.loglikelihood_rolling(requests((short,), ("",), (long,)))
    assert rolled[0] == pytest.approx(whole)
    assert rolled[1] == 0
    assert rolled[2] < 5 * whole


@pytest.mark.parametrize("run", ["chars_md4", "chars_ar", "subwords_genmd4"])
def test_generation_is_greedy_and_stops_at_a_string(place: Path, run: str) -> None:
    model = RunLM(run)
    context = "the value of the field " * 9  # Longer than the window.
    (text,) = model.generate_until(requests((context, {"max_gen_toks": 8})))
    assert text
    stop = text[len(text) // 2]
    settings = {"max_gen_toks": 8, "until": [stop, "never this"]}
    assert model.generate_until(requests((context, settings))) == [text[: text.index(stop)]]
    if run == "chars_ar":
        new = np.array([ALPHABET.index(letter.encode()) for letter in text])
        tokens = np.concatenate([model.tokenizer.encode(context)[8 - model.model.seq_len :], new])
        is_new = np.arange(len(tokens)) >= len(tokens) - 8
        assert is_greedy(model.model.objective, model.model.denoiser, tokens, is_new)
