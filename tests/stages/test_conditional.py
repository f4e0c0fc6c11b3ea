"""A run with `class_cond` learns what its classes look like, all the way from a file of labeled images.

The images of class 0 are black and those of class 1 are white, so the class determines the image.
"""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor
from typer.testing import CliRunner

from mdpipe.cli import app
from mdpipe.data.artifacts.files import read_json
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.training_batches import training_labels
from mdpipe.diffusion.objectives.md4 import MD4
from mdpipe.params import Params, parse_params
from mdpipe.pipeline import paths
from mdpipe.stages.compare_samplers import compare_samplers
from mdpipe.stages.download import download
from mdpipe.stages.encode import encode
from mdpipe.stages.evaluate import evaluate
from mdpipe.stages.fit_tokenizer import fit_tokenizer
from mdpipe.stages.sample import sample
from mdpipe.stages.train import train
from tests.diffusion.statistical_tests import FALSE_ALARM, chi_square_chance
from tests.stages.sample_files import levels_of

pytestmark = pytest.mark.slow

CLASSES = 2
NO_CLASS = CLASSES
IMAGES = 60
EDGE = 4
DROPOUT = 0.4
STEPS = 100
BATCH = 16
NEARLY = 0.2
"""Fraction of wrong pixels allowed, since the network is hardly trained."""


@pytest.fixture(scope="module")
def toy(params: Params) -> Params:
    """The smoke preset's run on digits, on black and white images instead."""
    data: dict[str, Any] = yaml.safe_load(yaml.safe_dump(params.model_dump(mode="json")))
    run = data["runs"]["digits"]
    run |= {"dataset": "toy", "class_cond": {"label_dropout": DROPOUT}}
    run["train"] |= {"steps": STEPS, "batch_size": BATCH, "learning_rate": 0.02}
    run["sample"] |= {"count": 6, "guidance_scale": None}
    dataset = {"source": "toy", "splits": {"validation": 0.1, "test": 0.2}, "image_size": EDGE, "stride": EDGE}
    return parse_params(
        {
            "sources": {"toy": {"kind": "npy", "path": "toy.npz", "field": "images", "labels": "labels"}},
            "datasets": {"toy": {**dataset, "tokenizer": {"kind": "pixels", "levels": 2}}},
            "runs": {"toy": run},
        }
    )


@pytest.fixture(scope="module")
def trained_toy(toy: Params, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Tensor | None]]:
    """The folder of the trained run, and the class labels that its objective got at each step."""
    place = tmp_path_factory.mktemp("toy")
    conditions: list[Tensor | None] = []
    loss = MD4.loss

    def spy(self: MD4, *arguments: Any) -> Tensor:
        conditions.append(arguments[4])
        return loss(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(MD4, "loss", spy)
        labels = np.arange(IMAGES) % CLASSES
        # No two are equal, since equal images share a split; with two levels they are.
        shades = np.abs(labels * 255 - np.arange(IMAGES)).astype(np.uint8)
        images = shades[:, None, None].repeat(EDGE, axis=1).repeat(EDGE, axis=2)
        np.savez("toy.npz", images=images, labels=labels)
        download(toy, "toy")
        fit_tokenizer(toy, "toy")
        encode(toy, "toy")
        train(toy, "toy")
    return place, conditions


@pytest.fixture
def toy_place(trained_toy: tuple[Path, list[Tensor | None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, in which the test runs."""
    shutil.copytree(trained_toy[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_step_gets_the_labels_except_the_dropped_ones(
    toy: Params, trained_toy: tuple[Path, list[Tensor | None]]
) -> None:
    place, conditions = trained_toy
    dataset = EncodedDataset.open(place / paths.encoded("toy"), "train")
    shown = torch.stack([condition for condition in conditions if condition is not None])
    labels = torch.stack([torch.from_numpy(training_labels(dataset, toy.seed, step, BATCH)) for step in range(STEPS)])
    assert shown.shape == labels.shape
    dropped = shown == NO_CLASS
    assert torch.equal(shown[~dropped], labels[~dropped])
    counts = torch.tensor([dropped.sum(), (~dropped).sum()])
    fractions = torch.tensor([DROPOUT, 1 - DROPOUT])
    assert chi_square_chance(counts, fractions * STEPS * BATCH) > FALSE_ALARM


def test_samples_take_the_classes_in_turn(toy: Params, toy_place: Path) -> None:
    sample(toy, "toy")
    tokens = np.load(paths.samples("toy") / "tokens.npy")
    assert tokens.mean(axis=1).round().tolist() == [0, 1, 0, 1, 0, 1]


def test_the_bound_is_of_images_given_their_classes(toy: Params, toy_place: Path) -> None:
    """Far below the bit that a pixel costs without knowing anything, and far above where the classes are the wrong."""
    evaluate(toy, "toy")
    right = read_json(paths.metrics("evaluate", "toy"), "")["value"]
    labels = paths.encoded("toy") / "test_labels-00000.npy"
    np.save(labels, 1 - np.load(labels))
    evaluate(toy, "toy")
    wrong = read_json(paths.metrics("evaluate", "toy"), "")["value"]
    assert right < 0.1
    assert wrong > 0.4


def bits_by_sampler() -> dict[str, float]:
    """At temperature 1, a network that is hardly trained would sample a wrong pixel now and then."""
    with paths.plot("samplers", "toy").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["temperature"] != "1"]
    return {row["sampler"]: float(row["bits"]) for row in rows}


def test_samplers_and_reference_model_get_the_classes(toy: Params, params: Params, toy_place: Path) -> None:
    """An autoregressive run that is conditioned, too, is sure of images of the right class, and surprised by others."""
    described = toy.model_dump(mode="json")
    causal = params.runs["chars_ar"].model_dump(mode="json", include={"objective", "network"})
    described["runs"]["toy_ar"] = described["runs"]["toy"] | causal | {"sample": {"count": 2}}
    described["samplers"] = {
        "runs": {"toy": {"reference_model": "toy_ar", "dataset": "toy"}},
        "samplers": ["ancestral"],
        "steps": [EDGE * EDGE],
        "temperatures": [0.5, 1.0],
        "count": 6,
    }
    compared = parse_params(described)
    train(compared, "toy_ar")
    compare_samplers(compared, "toy")
    right = bits_by_sampler()
    labels = paths.encoded("toy") / "test_labels-00000.npy"
    np.save(labels, 1 - np.load(labels))
    compare_samplers(compared, "toy")
    wrong = bits_by_sampler()
    assert max(right.values()) < 0.2
    assert wrong["data"] > 10 * right["data"]
    assert wrong["ancestral"] == right["ancestral"]


def whiteness(*options: object) -> list[float]:
    """Return the fraction of white pixels in each image of `mdpipe generate`."""
    arguments = ["generate", "toy", "--count", "16", "--out", "toy.png", *map(str, options)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    fractions: list[float] = levels_of(Path("toy.png"), EDGE, levels=CLASSES).mean(axis=(1, 2)).tolist()
    return fractions


@pytest.mark.parametrize("label", range(CLASSES))
def test_samples_of_a_label_look_like_it(toy_place: Path, label: int) -> None:
    assert all(abs(fraction - label) < NEARLY for fraction in whiteness("--label", label))


def test_with_no_label_images_of_both_classes_come_up(toy_place: Path) -> None:
    """Independent pixels would make all images gray: 0.5 plus or minus 0.125."""
    fractions = whiteness()
    assert min(fractions) < NEARLY
    assert max(fractions) > 1 - NEARLY


def test_guidance_changes_what_the_sample_stage_draws(params: Params, place: Path) -> None:
    """Of a run on digits that has not learned to be certain."""
    samples = []
    for guidance in (0.0, 0.0, 6.0):
        run = params.runs["digits"]
        guided = run.model_copy(update={"sample": run.sample.model_copy(update={"guidance_scale": guidance})})
        sample(params.model_copy(update={"runs": {"digits": guided}}), "digits")
        samples.append(np.load(paths.samples("digits") / "tokens.npy"))
    assert np.array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])
