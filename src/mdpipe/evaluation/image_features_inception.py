"""Inception v3 as in the FID paper (Heusel et al. 2017): TensorFlow's network of 2015-12-05 in PyTorch.

The names of layers are those of torch-fidelity's and pytorch-fid's file of weights. The network is our own for two
reasons: torch-fidelity needs torchvision, and it unpickles a file without `weights_only`.

It differs from torchvision's Inception v3: averages ignore padding, the last block takes a maximum, images are resized
as in TensorFlow 1, and there are 1008 classes.

Shapes: B images, H x W pixels, C channels.
"""

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from mdpipe.data.artifacts.files import hash_file

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
EDGE = 299
"""Images are resized to this many pixels."""
NUM_FEATURES, NUM_CLASSES = 2048, 1008
BATCH_NORM_EPS = 1e-3
PROBLEM_LENGTH = 200
"""Characters of the problem with a file: torch names all layers that are missing."""

Kernel = int | tuple[int, int]


@dataclass(frozen=True)
class Conv:
    """A convolution with batch normalization: its name in the file, channels, kernel and stride."""

    name: str
    channels: int
    kernel: Kernel = 1
    stride: int = 1


@dataclass(frozen=True)
class Pool:
    """A 3 x 3 pooling: "avg" and "max" keep the size, "halve" takes the maximum with stride 2."""

    kind: str


@dataclass(frozen=True)
class Fork:
    """Two convolutions of the same input, whose outputs are concatenated."""

    first: Conv
    second: Conv


Branch = tuple[Conv | Pool | Fork, ...]


def _block_a(pooled: int) -> tuple[Branch, ...]:
    return (
        (Conv("branch1x1", 64),),
        (Conv("branch5x5_1", 48), Conv("branch5x5_2", 64, 5)),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, 3), Conv("branch3x3dbl_3", 96, 3)),
        (Pool("avg"), Conv("branch_pool", pooled)),
    )


def _block_c(inner: int) -> tuple[Branch, ...]:
    row, column = (1, 7), (7, 1)
    return (
        (Conv("branch1x1", 192),),
        (Conv("branch7x7_1", inner), Conv("branch7x7_2", inner, row), Conv("branch7x7_3", 192, column)),
        (
            Conv("branch7x7dbl_1", inner),
            Conv("branch7x7dbl_2", inner, column),
            Conv("branch7x7dbl_3", inner, row),
            Conv("branch7x7dbl_4", inner, column),
            Conv("branch7x7dbl_5", 192, row),
        ),
        (Pool("avg"), Conv("branch_pool", 192)),
    )


def _block_e(pooling: str) -> tuple[Branch, ...]:
    row, column = (1, 3), (3, 1)
    return (
        (Conv("branch1x1", 320),),
        (Conv("branch3x3_1", 384), Fork(Conv("branch3x3_2a", 384, row), Conv("branch3x3_2b", 384, column))),
        (
            Conv("branch3x3dbl_1", 448),
            Conv("branch3x3dbl_2", 384, 3),
            Fork(Conv("branch3x3dbl_3a", 384, row), Conv("branch3x3dbl_3b", 384, column)),
        ),
        (Pool(pooling), Conv("branch_pool", 192)),
    )


BLOCKS: dict[str, tuple[Branch, ...]] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": (
        (Conv("branch3x3", 384, 3, 2),),
        (Conv("branch3x3dbl_1", 64), Conv("branch3x3dbl_2", 96, 3), Conv("branch3x3dbl_3", 96, 3, 2)),
        (Pool("halve"),),
    ),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": (
        (Conv("branch3x3_1", 192), Conv("branch3x3_2", 320, 3, 2)),
        (
            Conv("branch7x7x3_1", 192),
            Conv("branch7x7x3_2", 192, (1, 7)),
            Conv("branch7x7x3_3", 192, (7, 1)),
            Conv("branch7x7x3_4", 192, 3, 2),
        ),
        (Pool("halve"),),
    ),
    "Mixed_7b": _block_e("avg"),
    "Mixed_7c": _block_e("max"),
}


class ConvBN(nn.Module):
    """A convolution, batch normalization and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, stride: int, padding: Kernel) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return feature maps (B, outputs, H, W)."""
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Branches of the same input, whose outputs are concatenated."""

    def __init__(self, inputs: int, branches: tuple[Branch, ...]) -> None:
        super().__init__()
        self.branches, self.channels = branches, 0
        for branch in branches:
            channels = inputs
            for step in branch:
                match step:
                    case Conv():
                        channels = self._add(step, channels)
                    case Fork(first, second):
                        channels = self._add(first, channels) + self._add(second, channels)
            self.channels += channels

    def _add(self, conv: Conv, inputs: int) -> int:
        height, width = conv.kernel if isinstance(conv.kernel, tuple) else (conv.kernel, conv.kernel)
        padding = (height // 2, width // 2) if conv.stride == 1 else 0
        self.add_module(conv.name, ConvBN(inputs, conv.channels, conv.kernel, conv.stride, padding))
        return conv.channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the concatenated outputs (B, channels, H, W)."""
        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                y = self._apply_step(step, y)
            outputs.append(y)
        return torch.cat(outputs, 1)

    def _apply_step(self, step: Conv | Pool | Fork, x: Tensor) -> Tensor:
        match step:
            case Conv(name):
                return cast("Tensor", self.get_submodule(name)(x))
            case Fork(first, second):
                return torch.cat([self._apply_step(first, x), self._apply_step(second, x)], 1)
            case Pool("avg"):
                return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
            case Pool("max"):
                return F.max_pool2d(x, 3, stride=1, padding=1)
            case Pool(_):
                return F.max_pool2d(x, 3, stride=2)


class Inception(nn.Module):
    """Inception v3; its features are the 2048 averages before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvBN(3, 32, 3, 2, 0)
        self.Conv2d_2a_3x3 = ConvBN(32, 32, 3, 1, 0)
        self.Conv2d_2b_3x3 = ConvBN(32, 64, 3, 1, 1)
        self.Conv2d_3b_1x1 = ConvBN(64, 80, 1, 1, 0)
        self.Conv2d_4a_3x3 = ConvBN(80, 192, 3, 1, 0)
        channels = 192
        for name, branches in BLOCKS.items():
            block = Block(channels, branches)
            self.add_module(name, block)
            channels = block.channels
        self.fc = nn.Linear(channels, NUM_CLASSES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, 2048) and logits without their bias (B, 1008) of images (B, C, H, W) uint8, C = 1 or 3.

        The Inception score leaves the bias out, as the original code does.
        """
        x = (resize(images.float().expand(-1, 3, -1, -1), EDGE) - 128) / 128
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, stride=2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, stride=2)
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
        features = x.mean((2, 3))
        return features, features @ self.fc.weight.T


def resize(images: Tensor, edge: int) -> Tensor:
    """Resize images (B, C, H, W) to edge x edge bilinearly as TensorFlow 1 does: output i reads at i * H / edge.

    PyTorch's interpolate reads at (i + 1/2) * H / edge - 1/2 instead, which changes FID.
    """
    rows, columns = (_weights(size, edge).to(images) for size in images.shape[2:])
    return rows @ images @ columns.T


def _weights(size: int, edge: int) -> Tensor:
    """Return the matrix (edge, size) of bilinear interpolation, whose rows have sum 1."""
    at = torch.arange(edge, dtype=torch.float64) * size / edge
    low = at.long()
    fraction = at - low
    weights = torch.zeros(edge, size, dtype=torch.float64)
    index = torch.arange(edge)
    weights[index, low] += 1 - fraction
    weights[index, (low + 1).clamp(max=size - 1)] += fraction
    return weights


def load_inception(path: Path, sha256: str) -> Inception:
    """Return the network with the weights of a file, .safetensors or .pth; of the latter, only tensors are unpickled.

    Raises:
        ValueError: The file is missing, has another hash, or does not hold these weights.
    """
    source = f"the network of the FID paper is {URL} with SHA-256 6726825d...29b2 (`sha256` has all of it)"
    if not path.is_file():
        raise ValueError(f"`path` of the feature network: {path} is missing; {source}")
    if (digest := hash_file(path)) != sha256:
        raise ValueError(f"{path} has the SHA-256 {digest}, and `sha256` of the feature network is {sha256}; {source}")
    network = Inception()
    try:
        is_safe = path.suffix == ".safetensors"
        network.load_state_dict(load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, EOFError, RuntimeError, TypeError, SafetensorError, UnpicklingError) as error:
        problem = " ".join(str(error).split())[:PROBLEM_LENGTH]
        raise ValueError(f"{path} holds no weights of it ({problem}); {source}") from error
    return network
