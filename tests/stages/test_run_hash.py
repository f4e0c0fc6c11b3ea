"""A checkpoint's run hash changes with all that the weights depend on, and with nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

import mdpipe
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.raw import Document, ImageBatch
from mdpipe.params import parse_params
from mdpipe.pipeline.run_hash import hash_training
from tests.data.builders import encode_images, encode_text, make_tokenizer
from tests.data.shards import write_raw

SMOKE = Path(__file__).parents[2] / "workflow/presets/smoke.yaml"


@pytest.fixture
def dataset(tmp_path: Path) -> EncodedDataset:
    write_raw(tmp_path / "raw", "text", [Document(f"{n:02d}", f"text number {n} " * 9) for n in range(30)])
    encode_text(tmp_path / "raw", make_tokenizer("text8"), tmp_path / "encoded", 8, 0, 0.1, 0.1)
    return EncodedDataset.open(tmp_path / "encoded", "train")


def hash_of(dataset: EncodedDataset, **changes: object) -> str:
    data = yaml.safe_load(SMOKE.read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        section = data
        for key in parents:
            section = section.setdefault(key, {})
        section[last] = value
    return hash_training(parse_params(data), "chars_md4", dataset)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"runs__chars_md4__seed": 1},
        {"runs__chars_md4__train__steps": 31},
        {"runs__chars_md4__network__num_layers": 2},
        {"runs__chars_md4__objective": {"kind": "md4", "schedule": "cosine"}},
    ],
)
def test_it_changes_with_seed_settings_and_schedule(dataset, change):
    assert hash_of(dataset, **change) != hash_of(dataset)


@pytest.mark.parametrize(
    "change",
    [
        {"runs__chars_md4__seeds": [0, 1]},
        {"runs__subwords_genmd4__seed": 1},
        {"runs__chars_md4__train__save_every": 7},
        {"runs__chars_md4__train__save_total_limit": 9},
        {"runs__chars_md4__hardware__num_processes": 4},
        {"runs__chars_md4__hardware__strategy": "fsdp"},
        {"runs__chars_md4__sample__sampler__steps": 9},
        {"runs__subwords_genmd4__train__steps": 99},
    ],
)
def test_it_does_not_change_with_what_leaves_the_weights_alone(dataset, change):
    assert hash_of(dataset, **change) == hash_of(dataset)


def test_it_changes_with_one_token_of_the_training_data(dataset):
    before = hash_of(dataset)
    path = dataset.directory / "train-00000.npy"
    tokens = np.load(path)
    tokens[5] = (tokens[5] + 1) % dataset.vocab_size
    np.save(path, tokens)
    assert hash_of(dataset) != before


def test_it_changes_with_one_label_of_the_training_data(tmp_path):
    images = np.zeros((20, 4, 4, 1), np.uint8)
    write_raw(tmp_path / "raw", "npy", ImageBatch(images, np.arange(20, dtype=np.int32), 1, np.arange(20) % 2))
    encode_images(tmp_path / "raw", 2, 4, 4, tmp_path / "encoded", 0, 0.1, 0.1)
    dataset = EncodedDataset.open(tmp_path / "encoded", "train")
    before = hash_of(dataset)
    path = dataset.directory / "train_labels-00000.npy"
    labels = np.load(path)
    labels[3] = 1 - labels[3]
    np.save(path, labels)
    assert hash_of(dataset) != before


def test_it_changes_with_the_code_that_dvc_yaml_lists(dataset, tmp_path, monkeypatch):
    """Else a checkpoint of other code would be taken for one of this."""
    package = tmp_path / "src/mdpipe"
    (package / "listed").mkdir(parents=True)
    deps = ["src/mdpipe/listed", "data/encoded/x"]
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"train": {"do": {"deps": deps}}}}))
    monkeypatch.setattr(mdpipe, "__file__", str(package / "__init__.py"))
    found = []
    for file, text in (("listed/a.py", "1"), ("listed/a.py", "2"), ("other.py", "1")):
        (package / file).write_text(text)
        found.append(hash_of(dataset))
    assert found[0] != found[1] == found[2]


def test_it_changes_with_the_network_of_the_runs_kind_only(dataset, tmp_path, monkeypatch):
    networks = tmp_path / "src/mdpipe/networks"
    networks.mkdir(parents=True)
    deps = ["src/mdpipe/networks/base.py", "src/mdpipe/networks/${item.network.kind}.py"]
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"train": {"do": {"deps": deps}}}}))
    monkeypatch.setattr(mdpipe, "__file__", str(networks.parent / "__init__.py"))
    for name in ("__init__", "base", "transformer", "unet"):
        (networks / f"{name}.py").write_text("from mdpipe.networks.base import Network\n")
    before = hash_of(dataset)
    (networks / "unet.py").write_text("# edited\n")
    assert hash_of(dataset) == before
    (networks / "transformer.py").write_text("# edited\n")
    assert hash_of(dataset) != before
    (tmp_path / "helpers").mkdir()
    (networks / "parts").mkdir()
    for file in (
        networks.parent / "helper.py",
        networks / "parts/__init__.py",
        networks / "parts/a.py",
        tmp_path / "helpers/b.py",
    ):
        file.write_text("SCALE = 1.0\n")
    for code, imported in (
        ("from mdpipe.networks.unet import UNet", "src/mdpipe/networks/unet.py"),
        ("from mdpipe.networks import (\n    base,\n    unet,\n)", "src/mdpipe/networks/unet.py"),
        ("from .unet import UNet", "src/mdpipe/networks/unet.py"),
        ("from mdpipe.networks.parts.a import SCALE", "src/mdpipe/networks/parts/__init__.py"),
        ("from mdpipe.networks.parts import SCALE", "src/mdpipe/networks/parts/__init__.py"),
        ("def late():\n    import mdpipe.helper", "src/mdpipe/helper.py"),
        ("from ..helper import SCALE", "src/mdpipe/helper.py"),
        ("import helpers.b", "helpers/b.py"),
    ):
        (networks / "transformer.py").write_text(f"import torch\n\n{code}\n")
        with pytest.raises(ValueError, match=rf"^transformer\.py imports {imported}, which the run does not depend on"):
            hash_of(dataset)


@pytest.mark.parametrize("folder", ["diffusion", "diffusion/objectives", "diffusion/samplers", "diffusion/schedules"])
def test_files_of_diffusion_import_only_what_is_listed(dataset, tmp_path, monkeypatch, folder):
    package = tmp_path / "src/mdpipe"
    for name in ("diffusion", "diffusion/objectives", "diffusion/samplers", "diffusion/schedules"):
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text("")
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"train": {"do": {"deps": ["src/mdpipe/diffusion"]}}}}))
    monkeypatch.setattr(mdpipe, "__file__", str(package / "__init__.py"))
    (package / "helper.py").write_text("SCALE = 1.0\n")
    (package / "diffusion/shared.py").write_text("SCALE = 1.0\n")
    (package / folder / "mine.py").write_text("from mdpipe.diffusion.shared import SCALE\n")
    hash_of(dataset)
    (package / folder / "mine.py").write_text("from mdpipe.helper import SCALE\n")
    problem = r"^mine\.py imports src/mdpipe/helper\.py, .*: move the code to src/mdpipe/diffusion, or add that file"
    with pytest.raises(ValueError, match=problem):
        hash_of(dataset)
    (package / folder / "mine.py").write_text("from mdpipe.helper import (\n")
    hash_of(dataset)
