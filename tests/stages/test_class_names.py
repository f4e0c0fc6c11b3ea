"""The names of classes travel from folders to the model, the command line, the samples and the report."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from mdpipe.cli import app
from mdpipe.data.artifacts.files import read_json
from mdpipe.data.dataset import EncodedDataset
from mdpipe.params import RESOLVED_PARAMS_FILE, Params, dump_params, parse_params
from mdpipe.pipeline import paths
from mdpipe.pipeline.model_io import load_model
from mdpipe.stages.download import download
from mdpipe.stages.encode import encode
from mdpipe.stages.evaluate import evaluate
from mdpipe.stages.fit_tokenizer import fit_tokenizer
from mdpipe.stages.report import report
from mdpipe.stages.sample import sample
from mdpipe.stages.train import train

pytestmark = pytest.mark.slow

FOLDERS = ("2", "<b>owl<", "airplane", "truck")
"""In the order of the folders: "2" is class 0, and the owl needs escaping in HTML."""


@pytest.fixture(scope="module")
def animals(params: Params) -> Params:
    """The smoke preset's run on digits, on images in folders instead."""
    data: dict[str, Any] = yaml.safe_load(yaml.safe_dump(params.model_dump(mode="json")))
    run = data["runs"]["digits"]
    run |= {"dataset": "animals", "class_cond": {"label_dropout": 0.1}}
    run["train"] |= {"steps": 30, "learning_rate": 0.02}
    run["sample"] |= {"count": 6, "guidance_scale": None}
    plain = data["runs"]["digits"] | {"class_cond": None}
    source = {"kind": "image_folder", "path": "pets", "pattern": "*/*.png", "labels": "folder"}
    tiles = {"tokenizer": {"kind": "pixels", "levels": 4}, "image_size": 4}
    tiles |= {"splits": {"validation": 0.2, "test": {"last_documents": 5}}}
    return parse_params(
        {
            "sources": {"animals": source | {"mode": None, "resize": None}},
            "datasets": {"animals": {"source": "animals", **tiles}},
            "runs": {"animals": run, "plain": plain},
        }
    )


@pytest.fixture(scope="module")
def built_folder(animals: Params, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which everything was made."""
    place = tmp_path_factory.mktemp("animals")
    random = np.random.default_rng(0)
    for name in FOLDERS:
        (place / "pets" / name).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(place / "pets" / name / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        download(animals, "animals")
        fit_tokenizer(animals, "animals")
        encode(animals, "animals")
        for run in animals.runs:
            train(animals, run)
            sample(animals, run)
            evaluate(animals, run)
        RESOLVED_PARAMS_FILE.write_text(dump_params(animals))
        report(animals)
    yield place


@pytest.fixture
def mdpipe(built_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    shutil.copytree(built_folder / "models", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_dataset_and_the_model_have_the_names(built_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(built_folder)
    assert EncodedDataset.open(paths.encoded("animals"), "train").class_names == FOLDERS
    assert load_model("animals").class_names == FOLDERS
    assert (load_model("plain").num_classes, load_model("plain").class_names) == (0, ())


def test_a_name_draws_the_class_that_its_number_draws(mdpipe: Callable[..., Result]) -> None:
    images = {}
    for label in ("<b>owl<", "1", "truck", "3", "2", "0"):
        assert mdpipe("generate", "animals", "--label", label, "--out", "a.png").exit_code == 0
        images[label] = Path("a.png").read_bytes()
    assert images["<b>owl<"] == images["1"]
    assert images["truck"] == images["3"]
    assert images["2"] == images["0"], "a name counts before a number"
    assert len(set(images.values())) == 3


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("airplan", "has the classes 0 to 3, named airplane, 2, <b>owl<, truck"),
        ("Truck", "has the classes 0 to 3, named truck, 2, <b>owl<, airplane"),
        ("4", "has the classes 0 to 3, named 2, <b>owl<, airplane, truck"),
        ("-1", "has the classes 0 to 3, named 2, <b>owl<, airplane, truck"),
    ],
)
def test_an_unknown_label_is_refused_with_the_known_ones(
    mdpipe: Callable[..., Result], label: str, message: str
) -> None:
    result = mdpipe("generate", "animals", "--label", label)
    assert result.exit_code == 1
    assert result.output == f"mdpipe: --label {label} is not known: run 'animals' {message}\n"
    assert not Path("animals.png").exists()


def test_infill_takes_a_name(mdpipe: Callable[..., Result]) -> None:
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save("white.png")
    for label in ("truck", "3"):
        arguments = ["--image", "white.png", "--mask", "white.png", "--label", label, "--out", f"{label}.png"]
        assert mdpipe("infill", "animals", *arguments).exit_code == 0
    assert Path("truck.png").read_bytes() == Path("3.png").read_bytes()


def test_samples_say_their_classes_and_the_report_shows_them(built_folder: Path) -> None:
    names = read_json(built_folder / "samples/animals/classes.json", "")["classes"]
    assert names == [*FOLDERS, *FOLDERS[:2]]
    assert not (built_folder / "samples/plain/classes.json").exists()
    page = (built_folder / "report/index.html").read_text()
    sampled = "2, &lt;b&gt;owl&lt;, airplane, truck"
    assert page.count(f"Samples of animals. Classes of the columns: {sampled}</figcaption>") == 1
    real = re.findall(r"Real images of animals\. (.*?)</figcaption>", page)
    trucks = ", ".join(["truck"] * 5)
    assert real == [f"Classes of the columns: {trucks.removesuffix(', truck')}", f"Classes, row by row: {trucks}"]


def test_the_table_of_datasets_has_the_classes_of_each_split(built_folder: Path) -> None:
    """The last five files are trucks."""
    table = pl.read_csv(built_folder / "results/datasets.csv")
    assert dict(table.select("split", "classes").rows())["test"] == 1
    assert dict(table.select("split", "classes").rows())["train"] == 4
    assert read_json(built_folder / "data/encoded/animals/manifest.json", "")["splits"]["test"]["classes"] == 1


def test_classes_without_examples_in_a_split_are_logged(
    built_folder: Path, animals: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(built_folder)
    encode(animals, "animals")
    log = capsys.readouterr().err
    assert "animals: 3 of 4 classes have no example in the test split: 0 (2), 1 (<b>owl<), 2 (airplane)\n" in log
    assert "train split" not in log
