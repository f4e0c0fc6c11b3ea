"""Feature networks: from images to a feature vector and to the logits of a classifier.

The small network is trained on the data set itself: to classify its labels, or without labels to recognize by how many
quarter turns an image was rotated (RotNet, Gidaris, Singh and Komodakis 2018, arXiv:1803.07728).

Shapes: B images, H x W pixels, C channels, D features, K classes, N images of a split.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from mdpipe.data.artifacts.files import Header, hash_file, read_header, write_json
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.pixels import to_images
from mdpipe.evaluation.estimate import Estimate, mean_estimate
from mdpipe.evaluation.image_features_inception import NUM_FEATURES, Inception, load_inception
from mdpipe.networks.base import load_weights
from mdpipe.params.suites import CNNFeaturesConfig, FeatureNetworkConfig, InceptionFeaturesConfig

WEIGHTS, HEADER = "model.safetensors", "features.json"

ROTATIONS = 4
"""Quarter turns of an image: 0, 90, 180 and 270 degrees."""
SMALLEST_MAP = 4
"""Edge of the feature map before the average: the network halves the image down to this."""
GROUPS = 8
"""Groups of channels that GroupNorm normalizes together."""
WEIGHT_DECAY = 0.01
BATCH = 128
"""Images whose features are computed at once."""

Task = Literal["classes", "rotations", "imagenet"]


class FeaturesHeader(Header):
    """Content of features.json: what the network is, and what its numbers may be compared with."""

    kind: Literal["cnn", "inception"]
    dataset: str
    task: Task
    """Targets of the network's predictions; only with `classes` are the logits those of the dataset's classes."""
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    num_features: PositiveInt
    num_outputs: PositiveInt
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """The SHA-256 of the weights: numbers with other weights cannot be compared."""


class ImageCNN(nn.Module):
    """Convolutions with stride 2 down to about 4 x 4 pixels, the average over these as features, and a linear head."""

    def __init__(self, shape: tuple[int, int, int], num_features: int, num_outputs: int) -> None:
        super().__init__()
        height, width, channels = shape
        halvings = max(1, round(math.log2(min(height, width) / SMALLEST_MAP)))
        layers = [*_convolution(channels, num_features // 2, stride=1)]
        for level in range(halvings):
            layers += _convolution(num_features if level else num_features // 2, num_features, stride=2)
            layers += _convolution(num_features, num_features, stride=1)
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(num_features, num_outputs)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, D) and logits (B, K) of images (B, C, H, W) uint8."""
        features = self.body(images.float() / 127.5 - 1).mean((2, 3))
        return features, self.head(features)


def _convolution(inputs: int, outputs: int, stride: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.GroupNorm(math.gcd(GROUPS, outputs), outputs), nn.ReLU()


def pixels_of(dataset: EncodedDataset, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return some images of a split, (B, H, W, C)."""
    return to_images(np.asarray(dataset.tokens[chosen]), dataset.vocab_size, dataset.shape)


def rotate(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (B, C, H, W) in all rotations, (4 B, C, H, W), and their quarter turns, (4 B,)."""
    turned = torch.cat([images.rot90(turns, (2, 3)) for turns in range(ROTATIONS)])
    return turned, torch.arange(ROTATIONS, device=images.device).repeat_interleave(len(images))


def train_cnn(dataset: EncodedDataset, config: CNNFeaturesConfig, seed: int, device: torch.device) -> ImageCNN:
    """Train a network on a training split; a pure function of its arguments on one device.

    Raises:
        ValueError: Images without labels are not square, so that they cannot be rotated.
    """
    height, width, channels = dataset.shape
    if dataset.labels is None and height != width:
        raise ValueError(f"rotations need square images, and those of {dataset.directory} are {height} x {width}")
    with torch.random.fork_rng(devices=[]):  # Its layers take their initial weights from the global generator.
        torch.manual_seed(seed)
        network = ImageCNN((height, width, channels), config.hidden_size, dataset.classes or ROTATIONS)
    network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    # Each image in all rotations: as many images per step as with labels.
    count = config.batch_size if dataset.labels is not None else max(1, config.batch_size // ROTATIONS)
    for chosen in _epochs(len(dataset.tokens), count, config.steps, seed):
        images, targets = _batch(dataset, chosen, device)
        loss = F.cross_entropy(network(images)[1], targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return network.eval()


def _epochs(images: int, count: int, steps: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the images of each step, each image once per epoch in random order."""
    generator = np.random.Generator(np.random.Philox(seed))
    order = np.concatenate([generator.permutation(images) for _ in range(-(-count * steps // images))])
    yield from order[: count * steps].reshape(steps, count)


def _batch(dataset: EncodedDataset, chosen: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images and what the network should predict for them: their classes, or their rotations."""
    images = to_channels_first(pixels_of(dataset, chosen)).to(device)
    if dataset.labels is None:
        return rotate(images)
    return images, torch.from_numpy(np.array(dataset.labels[chosen])).to(device)


def to_channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    """Return images (B, H, W, C) as a tensor (B, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


@torch.inference_mode()
def accuracy(network: ImageCNN, dataset: EncodedDataset, device: torch.device) -> Estimate:
    """Return the fraction of correct predictions on a split, of classes or of rotations, with its standard error."""
    correct: list[Tensor] = []
    for start in range(0, len(dataset.tokens), BATCH):
        chosen = np.arange(start, min(start + BATCH, len(dataset.tokens)))
        images, targets = _batch(dataset, chosen, device)
        hits = (network(images)[1].argmax(1) == targets).double().cpu()
        # The rotations of one image are not independent: their mean counts once.
        correct.append(hits if dataset.labels is not None else hits.reshape(ROTATIONS, -1).mean(0))
    return mean_estimate(torch.cat(correct).numpy())


def chance_level(dataset: EncodedDataset) -> float:
    """Return the accuracy on a split of always predicting one target: its most frequent class, or one rotation."""
    if dataset.labels is None:
        return 1 / ROTATIONS
    return float(np.bincount(dataset.labels).max() / len(dataset.labels))


@dataclass(frozen=True)
class Features:
    """Features (N, D) and logits (N, K) of images, float32 on the CPU."""

    features: Tensor
    logits: Tensor


@torch.inference_mode()
def extract(network: nn.Module, pixels: NDArray[np.uint8], device: torch.device) -> Features:
    """Return features and logits of images (N, H, W, C)."""
    parts = [
        network(to_channels_first(pixels[start : start + BATCH]).to(device)) for start in range(0, len(pixels), BATCH)
    ]
    return Features(*(torch.cat([part[at].float().cpu() for part in parts]) for at in (0, 1)))


def build_features(
    config: FeatureNetworkConfig, dataset: EncodedDataset, seed: int, device: torch.device
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a small network, or read the weights of Inception v3; return it with what features.json says of it.

    Args:
        config: The settings.
        dataset: The training split.
        seed: Key of the initial weights and of the order of images.
        device: Device to compute on.

    Raises:
        ValueError: The file of weights is missing, or not the expected one.
    """
    metadata: dict[str, Any] = {"kind": config.kind, "dataset": config.dataset, "shape": list(dataset.shape)}
    if isinstance(config, InceptionFeaturesConfig):
        inception = load_inception(Path(config.path), config.sha256)
        outputs = inception.fc.out_features
        metadata |= {"task": "imagenet", "num_features": NUM_FEATURES, "num_outputs": outputs}
        return inception.to(device).eval(), metadata
    assert isinstance(config, CNNFeaturesConfig)
    network = train_cnn(dataset, config, seed, device)
    task = "rotations" if dataset.labels is None else "classes"
    return network, metadata | {
        "task": task,
        "num_features": config.hidden_size,
        "num_outputs": network.head.out_features,
    }


def save_features(folder: Path, network: nn.Module, metadata: dict[str, Any]) -> None:
    """Write model.safetensors and features.json."""
    save_file({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}, folder / WEIGHTS)
    write_json(folder / HEADER, {**metadata, "sha256": hash_file(folder / WEIGHTS)})


def save_split(features: Features, path: Path) -> None:
    """Write the features and logits of a split."""
    save_file({"features": features.features, "logits": features.logits}, path)


def load_split(path: Path, header: FeaturesHeader, hint: str) -> Features:
    """Read what `save_split` wrote.

    Raises:
        ValueError: The file is missing or broken, or of another network.
    """
    try:
        state: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} does not contain features ({error}); {hint}") from error
    widths = {name: tuple(tensor.shape[1:]) for name, tensor in state.items()}
    if widths != {"features": (header.num_features,), "logits": (header.num_outputs,)}:
        raise ValueError(f"{path} has {widths}, which does not fit {HEADER}; {hint}")
    return Features(state["features"], state["logits"])


def load_features(folder: Path, hint: str, device: torch.device) -> tuple[nn.Module, FeaturesHeader]:
    """Read a network that `save_features` wrote.

    Raises:
        ValueError: A file is missing or broken.
    """
    header = read_header(folder / HEADER, FeaturesHeader, hint)
    network: nn.Module
    if header.kind == "inception":
        network = Inception()
    else:
        network = ImageCNN(header.shape, header.num_features, header.num_outputs)
    network.load_state_dict(load_weights(folder / WEIGHTS, network.state_dict(), hint))
    return network.to(device).eval(), header
