"""The comparison of samplers: one row each and one for the data, scored by the likelihood of the reference model."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from mdpipe.data.dataset import EncodedDataset
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.params import Params, SampleConfig, parse_params
from mdpipe.pipeline import paths
from mdpipe.pipeline.model_io import load_model
from mdpipe.pipeline.sampling import all_masked, sample
from mdpipe.reporting.schemas import SAMPLERS
from mdpipe.stages.compare_samplers import compare_samplers

WINDOW = 32
LETTERS = " abcdefghijklmnopqrstuvwxyz"
PERPLEXITIES = {name for name in SAMPLERS if name.startswith(("bits", "generative_perplexity"))}
Row = dict[str, str]


@pytest.fixture
def rows(params: Params, place: Path) -> list[Row]:
    """The rows of metrics/samplers/chars_md4.csv, as text."""
    compare_samplers(params, "chars_md4")
    return rows_of("chars_md4")


def rows_of(run: str) -> list[Row]:
    with paths.plot("samplers", run).open(newline="") as file:
        return list(csv.DictReader(file))


def with_samplers(params: Params, *described: dict[str, object]) -> Params:
    """The preset with other samplers to compare."""
    data = params.model_dump(mode="json")
    data["samplers"]["samplers"] = list(described)
    return parse_params(data)


def held_out() -> Tensor:
    """The test split's whole windows."""
    tokens = EncodedDataset.open(paths.encoded("docs_chars"), "test").tokens
    whole = tokens[: len(tokens) // WINDOW * WINDOW].reshape(-1, WINDOW).astype(np.int64)
    return torch.from_numpy(whole)


def bits_by_chaining(tokens: Tensor) -> list[float]:
    """Return the bits per letter of each text under the reference model, one letter after the other."""
    network = load_model("chars_ar").network
    bits = torch.zeros(len(tokens), dtype=torch.float64)
    for place in range(WINDOW):
        before = pad(tokens[:, :place], (1, 0), value=27)
        with torch.inference_mode():
            hidden = network(before, torch.zeros(len(tokens)), None)
            log_p = network.head(hidden[:, -1]).double().log_softmax(dim=-1)
        bits -= log_p.gather(1, tokens[:, place, None]).squeeze(1) / math.log(2)
    return (bits / WINDOW).tolist()


def stderr_over_documents(values: NDArray[np.float64]) -> float:
    """Return the error of the mean over windows, from the sum of the deviations of each document's windows."""
    starts = EncodedDataset.open(paths.encoded("docs_chars"), "test").document_starts
    assert starts is not None
    document = [max(np.flatnonzero(starts <= WINDOW * window + WINDOW // 2)) for window in range(len(values))]
    sums = [np.sum(values[document == one] - values.mean()) for one in np.unique(document)]
    return math.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / len(values)


def entropy(tokens: Tensor) -> float:
    p = tokens.flatten().bincount(minlength=27).double() / tokens.numel()
    return float(torch.special.entr(p).sum() / math.log(2))


def test_rows_are_the_data_and_each_sampler_at_each_step_count(rows: list[Row]) -> None:
    assert {tuple(row) for row in rows} == {tuple(SAMPLERS)}
    assert [(row["sampler"], row["steps"], row["samples"]) for row in rows] == [
        ("data", "", str(len(held_out()))),
        ("ancestral_stepwise", "4", "2"),
        ("ancestral_stepwise", "8", "2"),
        ("ancestral", "4", "2"),
        ("ancestral", "8", "2"),
        ("first_hitting", "", "2"),
    ]
    parameters = str(load_model("chars_md4").num_parameters)
    for row in rows:
        assert [row[name] for name in ("run", "dataset", "reference_model", "unit", "num_parameters")] == [
            "chars_md4",
            "docs_chars",
            "chars_ar",
            "bits/char",
            parameters,
        ]


def test_network_calls_are_at_most_one_per_step_and_one_more(rows: list[Row]) -> None:
    calls = {(row["sampler"], row["steps"]): row["nfe"] for row in rows}
    assert calls["data", ""] == ""
    assert calls["first_hitting", ""] == str(WINDOW)
    for sampler, steps in calls:
        if steps:
            assert int(calls[sampler, steps]) in (int(steps), int(steps) + 1)


def test_the_data_are_scored_as_a_whole(rows: list[Row]) -> None:
    tokens = held_out()
    bits = bits_by_chaining(tokens)
    assert float(rows[0]["bits"]) == pytest.approx(np.mean(bits), rel=1e-5)
    assert float(rows[0]["bits_stderr"]) == pytest.approx(stderr_over_documents(np.array(bits)), rel=1e-4)
    assert float(rows[0]["entropy"]) == pytest.approx(entropy(tokens), rel=1e-5)
    assert float(rows[0]["generative_perplexity"]) == pytest.approx(2 ** np.mean(bits), rel=1e-5)
    assert float(rows[0]["generative_perplexity_per_sample"]) == pytest.approx(np.exp2(bits).mean(), rel=1e-5)


def test_other_temperatures_add_rows_at_the_most_steps(params: Params, rows: list[Row]) -> None:
    """All rows of temperature 1 keep their bytes."""
    suite = params.samplers.model_copy(update={"temperatures": [0.5, 1.0]})
    compare_samplers(params.model_copy(update={"samplers": suite}), "chars_md4")
    more = rows_of("chars_md4")
    assert [row for row in more if row["temperature"] != "0.5"] == rows
    added = [row for row in more if row["temperature"] == "0.5"]
    assert [(row["sampler"], row["steps"]) for row in added] == [
        ("ancestral_stepwise", "8"),
        ("ancestral", "8"),
        ("first_hitting", ""),
    ]
    assert all(row["bits"] not in {other["bits"] for other in rows} for row in added)


def test_number_formats_and_ngrams_are_recorded(rows: list[Row]) -> None:
    assert [(row["network_dtype"], row["sampling_dtype"]) for row in rows] == [("", ""), *[("float32", "float64")] * 5]
    tokens = held_out().numpy()
    trigrams = [{tuple(text[at : at + 3]) for at in range(WINDOW - 2)} for text in tokens[[0, -1]].tolist()]
    assert float(rows[0]["distinct_3"]) == pytest.approx(len(trigrams[0] | trigrams[1]) / (2 * (WINDOW - 2)), rel=1e-5)
    fourgrams = [len({tuple(text[at : at + 4]) for at in range(WINDOW - 3)}) for text in tokens.tolist()]
    assert float(rows[0]["repetition"]) == pytest.approx(1 - np.mean(fourgrams) / (WINDOW - 3), rel=1e-4)


def test_samples_are_scored_as_the_data_are(params: Params, rows: list[Row]) -> None:
    """Sample again with the stream of random numbers that each row has."""
    trained = load_model("chars_md4")
    compared = params.samplers.samplers_for(params.runs["chars_md4"].objective)
    for row, config in zip(rows[1:], compared, strict=True):
        noise = CounterRNG(params.seed, f"samplers/{config.kind}/{getattr(config, 'steps', None)}")
        tokens = sample(trained, SampleConfig(sampler=config), all_masked(trained, 2), noise).tokens
        first, second = bits_by_chaining(tokens)
        assert float(row["bits"]) == pytest.approx((first + second) / 2, rel=1e-5)
        assert float(row["bits_stderr"]) == pytest.approx(abs(first - second) / 2, rel=1e-4)
        assert float(row["entropy"]) == pytest.approx(entropy(tokens), rel=1e-5)


def test_the_file_depends_on_nothing_but_the_seed(params: Params, rows: list[Row]) -> None:
    first = paths.plot("samplers", "chars_md4").read_bytes()
    compare_samplers(params, "chars_md4")
    assert paths.plot("samplers", "chars_md4").read_bytes() == first
    compare_samplers(params.model_copy(update={"seed": 1}), "chars_md4")
    assert rows_of("chars_md4")[0] == rows[0]
    assert rows_of("chars_md4")[1:] != rows[1:]


def test_mauve_is_a_column_where_it_is_possible(
    params: Params, rows: list[Row], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few samples a line says why not; with enough, samples have a number, and nothing else changes."""
    pytest.importorskip("mauve")
    assert {row["mauve"] for row in rows} == {""}
    with caplog.at_level("INFO"):
        compare_samplers(params, "chars_md4")
    assert "no MAUVE of chars_md4: it needs 1,000 samples and as many windows of held-out text, and there are 2" in [
        record.getMessage() for record in caplog.records
    ]
    monkeypatch.setattr("mdpipe.evaluation.quality.MIN_MAUVE_SAMPLES", 2)
    compare_samplers(params, "chars_md4")
    more = rows_of("chars_md4")
    assert [{**row, "mauve": ""} for row in more] == rows
    assert more[0]["mauve"] == ""
    assert all(0 < float(row["mauve"]) <= 1 for row in more[1:])


def test_only_samplers_that_fit_the_run_are_tried(params: Params) -> None:
    """At every number of steps where they walk a grid, with the settings that the suite gives them."""
    suite = with_samplers(
        params,
        {"kind": "remdm", "time_grid": "uniform", "eta": 0.3},
        {"kind": "genmd4_ancestral"},
        {"kind": "first_hitting"},
        {"kind": "autoregressive"},
    )
    tried = {
        run: [config.model_dump() for config in suite.samplers.samplers_for(suite.runs[run].objective)]
        for run in ("chars_md4", "subwords_genmd4", "chars_ar")
    }
    remdm = {"kind": "remdm", "time_grid": "uniform", "eta": 0.3}
    genmd4 = {"kind": "genmd4_ancestral", "time_grid": "cosine"}
    assert tried == {
        "chars_md4": [*({**remdm, "steps": steps} for steps in (4, 8)), {"kind": "first_hitting"}],
        "subwords_genmd4": [{**genmd4, "steps": steps} for steps in (4, 8)],
        "chars_ar": [{"kind": "autoregressive"}],
    }


def test_a_reference_model_that_only_has_a_bound_is_refused(params: Params, place: Path) -> None:
    """The params already say so; where the models on the disk are others than these, the stage does."""
    comparison = params.samplers.runs["chars_md4"].model_copy(update={"reference_model": "chars_md4"})
    suite = params.samplers.model_copy(update={"runs": {"chars_md4": comparison}})
    with pytest.raises(ValueError, match="must have an exact likelihood"):
        compare_samplers(params.model_copy(update={"samplers": suite}), "chars_md4")
    assert not paths.plot("samplers", "chars_md4").exists()


def test_a_pretrained_model_scores_the_decoded_text_as_well(params: Params, place: Path, rows: list[Row]) -> None:
    """Its rows are those of the same samples: only name, unit and perplexity differ."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({letter: row for row, letter in enumerate(LETTERS)}))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(place / "gpt2")
    config = transformers.GPT2Config(vocab_size=len(LETTERS), n_embd=8, n_layer=1, n_head=1, n_positions=WINDOW)
    transformers.GPT2LMHeadModel(config).save_pretrained(place / "gpt2")
    data = params.model_dump(mode="json")
    data["samplers"]["runs"]["chars_md4"]["causal_lm"] = "gpt2"
    compare_samplers(parse_params(data), "chars_md4")
    both = rows_of("chars_md4")
    assert [row for row in both if row["reference_model"] == "chars_ar"] == rows
    pretrained = [row for row in both if row["reference_model"] == "gpt2"]
    assert {row["unit"] for row in pretrained} == {"bits/token"}
    shared = rows[0].keys() - {"reference_model", "unit", *PERPLEXITIES}
    assert [{name: row[name] for name in shared} for row in pretrained] == [
        {name: row[name] for name in shared} for row in rows
    ]
    for row in pretrained:  # Small random weights are nearly uniform over 27 letters.
        assert float(row["bits"]) == pytest.approx(math.log2(len(LETTERS)), abs=0.1)
