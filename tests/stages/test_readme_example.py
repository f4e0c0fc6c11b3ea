"""The data set of one's own in README.md is checked, encoded and trained on, in one long file as in many."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from mdpipe.cli import app
from mdpipe.data.dataset import EncodedDataset
from mdpipe.params import load_params
from mdpipe.pipeline import paths
from mdpipe.stages.download import download
from mdpipe.stages.encode import encode
from mdpipe.stages.fit_tokenizer import fit_tokenizer
from mdpipe.stages.train import train

README = (Path(__file__).parents[2] / "README.md").read_text()
WORDS = np.array(["the", "sea", "was", "calm", "and", "no", "ship", "came", "home", "that", "night."])


def example(**training: int) -> dict[str, Any]:
    """The YAML of the page, with other settings of the training."""
    (piece,) = re.findall(r"^```yaml\n(sources:.*?)^```", README, re.MULTILINE | re.DOTALL)
    content: dict[str, Any] = yaml.safe_load(piece)
    content["runs"]["novels"]["train"] |= training
    return content


@pytest.mark.parametrize("files", [1, 2, 300])
def test_the_data_set_of_the_page_works_for_few_and_many_files(tmp_path, monkeypatch, files):
    monkeypatch.chdir(tmp_path)
    Path("my/novels").mkdir(parents=True)
    random, words = np.random.default_rng(0), 90_000 // files
    for number in range(files):
        Path(f"my/novels/{number:03d}.txt").write_text(" ".join(random.choice(WORDS, words)))
    Path("params.yaml").write_text(yaml.safe_dump(example(steps=1, batch_size=2), sort_keys=False))
    checked = CliRunner().invoke(app, ["check"])
    assert checked.exit_code == 0, checked.output
    params = load_params()
    download(params, "novels")
    fit_tokenizer(params, "novels")
    encode(params, "novels")
    sizes = {split: len(EncodedDataset.open(paths.encoded("novels"), split).tokens) for split in ("validation", "test")}
    # End-of-text tokens count, too: at most one for each file, and one where a document is cut.
    assert all(50_000 <= size <= 50_000 + files + 1 for size in sizes.values())
    train(params, "novels")


def test_the_default_splits_of_the_page_need_three_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my/novels").mkdir(parents=True)
    content = example()
    del content["datasets"]["novels"]["splits"]
    Path("params.yaml").write_text(yaml.safe_dump(content))
    for number in range(3):
        Path(f"my/novels/{number}.txt").write_text(f"novel {number}")
        assert CliRunner().invoke(app, ["check"]).exit_code == (number < 2)
