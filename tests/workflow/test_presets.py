"""Every params file that we offer is right and gives a graph."""

import json
import shutil
from pathlib import Path

import pytest
from dvc.repo import Repo

from mdpipe.networks.base import NetworkSpec, build_uninitialized, count_parameters
from mdpipe.params import load_params
from mdpipe.params.root import REPLICATES_FILE, dump_replicates, read_params
from workflow.graph import read_stages

ROOT = Path(__file__).parents[2]
OFFICIAL = json.loads((ROOT / "tests/fixtures/md4/initial_weights.json").read_text())
FILES = [ROOT / "params.yaml", *sorted((ROOT / "workflow/presets").glob("*.yaml"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_preset_is_valid_and_uses_every_run(file, tmp_path):
    shutil.copy(file, tmp_path / "params.yaml")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    params = load_params(tmp_path / "params.yaml")
    (tmp_path / REPLICATES_FILE).write_text(dump_replicates(params, read_params(file)))
    names = {stage.name for stage in read_stages(Repo.init(str(tmp_path), no_scm=True), params)}
    expected = {f"{stage}@{run}" for run in params.runs for stage in ("train", "sample", "evaluate")}
    assert expected | {"report"} <= names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_editors_find_the_schema_of_a_params_file(file):
    schema = file.read_text().splitlines()[0].partition("$schema=")[2]
    assert (file.parent / schema).resolve() == ROOT / "workflow/params.schema.json"


@pytest.mark.parametrize(
    ("preset", "run", "vocab_size", "shape", "experiment"),
    [
        ("paper_text8", "md4", 27, (256,), "text8"),
        ("paper_text8", "md4_pair", 27, (256,), "text8"),
        ("paper_text8", "genmd4", 27, (256,), "text8"),
        ("text8_1gpu_1h", "md4", 27, (256,), "text8"),
        ("paper_openwebtext", "small", 50257, (1024,), "owt"),
        ("paper_openwebtext", "small_gen", 50257, (1024,), "owt"),
        ("openwebtext_1gpu_1h", "small", 50257, (1024,), "owt"),
        ("paper_cifar10", "md4", 256, (32, 32, 3), "cifar"),
        ("paper_imagenet64", "md4", 256, (64, 64, 3), "imagenet"),
    ],
)
def test_the_papers_networks_have_exactly_their_official_size(preset, run, vocab_size, shape, experiment):
    assert network_size(preset, run, vocab_size, shape) == OFFICIAL[experiment]["total"]


def test_the_medium_network_has_its_published_size():
    assert round(network_size("paper_openwebtext", "medium", 50257, (1024,)) / 1e6, 1) == 416.2


def network_size(preset: str, run: str, vocab_size: int, shape: tuple[int, ...]) -> int:
    params = load_params(ROOT / f"workflow/presets/{preset}.yaml")
    return count_parameters(build_uninitialized(NetworkSpec(params.runs[run].network, vocab_size, shape)))


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.stem.startswith("paper_") or file.stem.endswith("_1gpu_1h")],
    ids=lambda f: f.stem,
)
def test_the_papers_presets_start_and_decode_like_the_official(file):
    for run in load_params(file).runs.values():
        assert getattr(run.network, "init", "md4") == "md4"
        assert getattr(run.sample.sampler, "decode", "argmax") == "argmax"
