"""Every params file that we offer is right and gives a graph."""

import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from mdpipe.networks.build import empty_network, parameter_count
from mdpipe.params import load_params
from workflow.graph import read_stages

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "params.yaml", *sorted((ROOT / "workflow/presets").glob("*.yaml"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_params_file_is_valid_and_every_run_of_it_is_trained_sampled_and_evaluated(file, tmp_path):
    shutil.copy(file, tmp_path / "params.yaml")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    names = {stage.name for stage in read_stages(Repo.init(str(tmp_path), no_scm=True))}
    params = load_params(tmp_path / "params.yaml")
    asked = {f"{stage}@{run}" for run in params.runs for stage in ("train", "sample", "evaluate")}
    assert asked | {"report"} <= names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_editors_find_the_schema_of_a_params_file(file):
    schema = file.read_text().splitlines()[0].partition("$schema=")[2]
    assert (file.parent / schema).resolve() == ROOT / "workflow/params.schema.json"


@pytest.mark.parametrize(
    ("preset", "run", "vocabulary", "shape", "millions"),
    [
        ("paper_text8", "md4", 27, (256,), 88.7),
        ("paper_text8", "genmd4", 27, (256,), 88.7),
        ("paper_openwebtext", "small", 50257, (1024,), 165.9),
        ("paper_openwebtext", "medium", 50257, (1024,), 416.2),
        ("paper_cifar10", "md4", 256, (32, 32, 3), 28.4),
        ("paper_imagenet64", "md4", 256, (64, 64, 3), 198.3),
    ],
)
def test_networks_of_the_papers_experiments_have_their_size(preset, run, vocabulary, shape, millions):
    params = load_params(ROOT / f"workflow/presets/{preset}.yaml")
    settings = params.runs[run].network.model_dump()
    network = empty_network(vocabulary=vocabulary, shape=shape, classes=0, causal=False, **settings)
    assert parameter_count(network) / 1e6 == pytest.approx(millions, abs=0.05)
