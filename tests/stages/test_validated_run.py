"""A validated run is the same model; its curve has the estimates of the stage `evaluate`, on a part of a split."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from mdpipe.data.dataset import EncodedDataset
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import likelihood_bound
from mdpipe.params import EstimatorConfig, Params, parse_params
from mdpipe.pipeline import paths
from mdpipe.pipeline.model_io import load_model
from mdpipe.stages import train as stage
from tests.stages.conftest import SMOKE

COLUMNS = ["validation/loss", "validation/stderr"]


def validated(run: str, hardware: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Return the smoke preset with validations in one of its runs, and its hardware."""
    content: dict[str, Any] = yaml.safe_load(SMOKE.read_text())
    content["runs"][run]["train"]["validation"] = {"every": 20, **settings}
    content["runs"][run]["hardware"] = hardware
    return content


def curve(run: str) -> pl.DataFrame:
    """Return the rows of the curve that have a validation."""
    return pl.read_csv(paths.plot("curves", run)).drop_nulls(COLUMNS[0])


@pytest.mark.parametrize("run", ["digits", "subwords_genmd4", "chars_ar"])
def test_weights_are_the_bytes_of_a_run_without_validation(place: Path, run: str) -> None:
    file = place / f"models/{run}/model.safetensors"
    unvalidated = file.read_bytes()
    file.unlink()
    stage.train(parse_params(validated(run, {}, num_examples=8)), run)
    assert file.read_bytes() == unvalidated
    assert curve(run)["step"].to_list() == [20, 30]


@pytest.mark.parametrize("run", ["digits", "chars_md4"])
def test_the_last_validation_is_the_evaluation_of_its_examples(place: Path, params: Params, run: str) -> None:
    """All whole windows are examples here, and their clusters, labels and control variates are those of the split."""
    stage.train(parse_params(validated(run, {}, num_examples=10**6, num_mc_samples=4)), run)
    model = load_model(run)
    split = EncodedDataset.open(paths.encoded(model.dataset), "validation")
    whole = split.tokens.size // split.seq_len
    split = split.model_copy(update={"tokens": split.tokens[: whole * split.seq_len]})
    labels = np.asarray(split.labels) if model.num_classes else None
    expected = likelihood_bound(
        model.objective,
        model.network,
        split,
        EstimatorConfig(num_mc_samples=4),
        CounterRNG(params.seed, "validation"),
        labels,
        split.clusters[1],
    ).bits_per_token()
    assert curve(run)[-1, COLUMNS[0]] == pytest.approx(expected.value, rel=5e-6)  # The file has six digits.
    assert curve(run)[-1, COLUMNS[1]] == pytest.approx(expected.stderr, rel=1e-4)
    assert len(np.unique(split.clusters[1])) < whole or run == "digits"


@pytest.mark.parametrize("count", [2, 7, 40])
def test_examples_are_clustered_by_their_documents(place: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Equal windows of a text are in one cluster or another of them, and most windows are unique."""
    found: dict[str, Any] = {}

    def bound(objective: Any, network: Any, examples: Any, settings: Any, rng: Any, labels: Any, clusters: Any) -> Any:
        found.update(tokens=examples.tokens, clusters=clusters)
        return likelihood_bound(objective, network, examples, settings, rng, labels, clusters)

    monkeypatch.setattr(stage, "likelihood_bound", bound)
    stage.train(parse_params(validated("chars_md4", {}, num_examples=count)), "chars_md4")
    split = EncodedDataset.open(paths.encoded("docs_chars"), "validation")
    documents: dict[bytes, set[int]] = {}
    for index, row in enumerate(np.split(split.tokens[: len(split.tokens) // 32 * 32], len(split.tokens) // 32)):
        documents.setdefault(row.astype(np.int64).tobytes(), set()).add(int(split.clusters[1][index]))
    assert len(found["clusters"]) == len(found["tokens"]) == count
    for row, cluster in zip(found["tokens"], found["clusters"], strict=True):
        assert cluster in documents[row.tobytes()]


@pytest.mark.slow
def test_two_processes_validate_as_one_does(place: Path, mdpipe: Callable[..., Any], monkeypatch: Any) -> None:
    """The weights differ by rounding, the examples, times and masks do not."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    curves = []
    for number in (1, 2):
        (place / "models/digits/model.safetensors").unlink()
        content = validated("digits", {"num_processes": number}, num_examples=16)
        (place / "params.yaml").write_text(yaml.safe_dump(content))
        done = mdpipe("train", "digits")
        assert done.exit_code == 0, done.output
        curves.append(curve("digits").select(COLUMNS).to_numpy())
    np.testing.assert_allclose(curves[1], curves[0], rtol=1e-3)
