"""Feature networks: what they learn, and files of weights."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mdpipe.data.dataset import EncodedDataset
from mdpipe.evaluation import image_features
from mdpipe.evaluation.image_features_inception import EDGE, Inception, load_inception, resize
from mdpipe.params.suites import CNNFeaturesConfig

CPU = torch.device("cpu")
SETTINGS = {"kind": "cnn", "dataset": "bars", "hidden_size": 16, "batch_size": 16, "steps": 60, "learning_rate": 5e-3}


def write_bars(folder: Path, *, labeled: bool) -> EncodedDataset:
    """Images of 8 x 8 gray levels with a bright bar: at the left or at the right if labeled, else always above."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for split, count in (("train", 64), ("test", 32)):
        images, labels = generator.integers(0, 6, (count, 8, 8)), np.arange(count) % 2
        if labeled:
            images[labels == 0, :, :2] = images[labels == 1, :, 6:] = 15
        else:
            images[:, :2] = 15
        np.save(folder / f"{split}-00000.npy", images.reshape(count, 64).astype(np.uint8))
        if labeled:
            np.save(folder / f"{split}_labels-00000.npy", labels)
    header = {"modality": "image", "tokenizer": "pixels", "vocab_size": 16, "shape": [8, 8, 1], "seq_len": 64}
    splits = {"train": {"images": 64, "tokens": 4096}, "test": {"images": 32, "tokens": 2048}}
    classes = 2 if labeled else 0
    (folder / "dataset.json").write_text(json.dumps({**header, "classes": classes, "splits": splits}))
    return EncodedDataset.open(folder, "train")


@pytest.mark.parametrize(("labeled", "outputs"), [(True, 2), (False, image_features.ROTATIONS)])
def test_network_learns_classes_or_without_labels_rotations(tmp_path, labeled, outputs):
    train = write_bars(tmp_path / "bars", labeled=labeled)
    state = torch.random.get_rng_state()
    network = image_features.train_cnn(train, CNNFeaturesConfig(**SETTINGS), 0, CPU)
    assert torch.equal(state, torch.random.get_rng_state())
    assert network.head.out_features == outputs
    accuracy = image_features.accuracy(network, EncodedDataset.open(train.directory, "test"), CPU)
    assert accuracy.value > 0.95
    assert image_features.chance_level(EncodedDataset.open(train.directory, "test")) == 1 / outputs
    again = image_features.train_cnn(train, CNNFeaturesConfig(**SETTINGS), 0, CPU).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in network.state_dict().items())


def test_a_saved_network_keeps_features_and_names_its_weights(tmp_path):
    network = image_features.ImageCNN((8, 8, 1), 16, 2).eval()
    metadata = {"kind": "cnn", "dataset": "bars", "task": "classes", "shape": [8, 8, 1]}
    image_features.save_features(tmp_path, network, {**metadata, "num_features": 16, "num_outputs": 2})
    loaded, header = image_features.load_features(tmp_path, "make it", CPU)
    pixels = np.random.default_rng(0).integers(0, 256, (image_features.BATCH + 1, 8, 8, 1), dtype=np.uint8)
    ours, theirs = (image_features.extract(net, pixels, CPU) for net in (network, loaded))
    assert torch.equal(ours.features, theirs.features) and torch.equal(ours.logits, theirs.logits)
    assert ours.features.shape == (len(pixels), 16) and ours.logits.shape == (len(pixels), 2)
    assert header.sha256 == hashlib.sha256((tmp_path / image_features.WEIGHTS).read_bytes()).hexdigest()


def test_rotations_are_quarter_turns():
    image = torch.arange(4).reshape(1, 1, 2, 2)
    turned, turns = image_features.rotate(image)
    assert turns.tolist() == [0, 1, 2, 3]
    assert turned[:, 0].flatten(1).tolist() == [[0, 1, 2, 3], [1, 3, 0, 2], [3, 2, 1, 0], [2, 0, 3, 1]]


@pytest.fixture(scope="module")
def inception() -> Inception:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Inception().eval()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_inception_reads_a_file_of_the_published_format(tmp_path, inception):
    """The published file is such a state dict; names and shapes were compared with those of torch-fidelity 0.4.0."""
    state = inception.state_dict()
    shapes = sorted((name, tuple(tensor.shape)) for name, tensor in state.items())
    digest = hashlib.sha256(repr(shapes).encode()).hexdigest()
    assert (len(shapes), digest[:16]) == (566, "d1c9a52dc8072dcb")
    torch.save(state, tmp_path / "weights.pth")
    save_file(state, tmp_path / "weights.safetensors")
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        expected = inception(images)
        for path in (tmp_path / "weights.pth", tmp_path / "weights.safetensors"):
            network = load_inception(path, sha256(path)).eval()
            assert all(torch.equal(a, b) for a, b in zip(network(images), expected, strict=True))
        gray = images[:, :1]
        assert torch.equal(inception(gray)[0], inception(gray.expand(-1, 3, -1, -1))[0])
    assert expected[0].shape == (1, 2048) and expected[1].shape == (1, 1008)


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("pwned"),))


def test_a_file_of_weights_is_refused_by_name_and_runs_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    with pytest.raises(ValueError, match=r"weights.pth is missing; .*weights-inception-2015-12-05-6726825d.pth"):
        load_inception(path, "0" * 64)
    torch.save({"fc.weight": Malicious()}, path)
    with pytest.raises(ValueError, match=f"has the SHA-256 {sha256(path)}, and `sha256` .* is {'0' * 64}"):
        load_inception(path, "0" * 64)
    with pytest.raises(ValueError, match="holds no weights of it"):
        load_inception(path, sha256(path))
    assert not Path("pwned").exists()
    torch.save({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"Missing key.*Conv2d_1a_3x3"):
        load_inception(path, sha256(path))


def test_resizing_reads_where_tensorflow_1_does():
    """Output i is at i * H / edge, between its two neighbors, and the last row is repeated."""
    rows = torch.tensor([0.0, 10.0, 20.0]).reshape(1, 1, 3, 1).expand(-1, -1, -1, 3)
    assert resize(rows, 6)[0, 0, :, 0].tolist() == [0.0, 5.0, 10.0, 15.0, 20.0, 20.0]
    assert resize(torch.rand(1, 3, 8, 9), EDGE).shape == (1, 3, EDGE, EDGE)
