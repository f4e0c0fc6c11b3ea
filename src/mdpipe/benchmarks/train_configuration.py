"""What is measured of training. Without torch, so that a process that only starts others stays small."""

from dataclasses import dataclass
from typing import Any, ClassVar

from mdpipe.benchmarks.configuration import DTYPES


@dataclass(frozen=True)
class Shape:
    """A network and what it is trained on."""

    kind: str
    network: dict[str, Any]
    vocabulary: int
    shape: tuple[int, ...]
    batch: int


def _transformer(
    layers: int, heads: int, width: int, vocabulary: int, length: int, batch: int, time_conditioning: bool = True
) -> Shape:
    network = {"layers": layers, "heads": heads, "width": width, "time_conditioning": time_conditioning, "dropout": 0.0}
    return Shape("transformer", network, vocabulary, (length,), batch)


def _unet(width: int, blocks: int, batch: int) -> Shape:
    network = {"width": width, "blocks": blocks, "time_conditioning": True, "dropout": 0.0}
    return Shape("unet", network, 256, (32, 32, 3), batch)


def _uvit(width: int, blocks: int, middle_width: int, layers: int, heads: int, batch: int) -> Shape:
    network = {
        "width": width,
        "blocks": blocks,
        "middle_width": middle_width,
        "layers": layers,
        "heads": heads,
        "time_conditioning": True,
        "dropout": 0.0,
    }
    return Shape("uvit", network, 256, (64, 64, 3), batch)


SHAPES = {
    "letters": _transformer(4, 4, 128, 27, 128, 8, time_conditioning=False),
    "text8-11m": _transformer(6, 6, 384, 27, 256, 8),
    "text8": _transformer(12, 12, 768, 27, 256, 8),
    "gpt2-small": _transformer(12, 12, 768, 50257, 1024, 8),
    "cifar10-small": _unet(64, 4, 4),
    "cifar10": _unet(128, 32, 4),
    "imagenet64": _uvit(256, 24, 768, 12, 12, 1),
}
"""letters is the default suite's; text8, gpt2-small, cifar10 and imagenet64 are the paper's; the others are of their
kind for a small machine."""
OPTIMIZERS = ("adamw", "muon")


@dataclass(frozen=True)
class TrainConfiguration:
    """A network of `SHAPES` and the machine's part in training it.

    Raises:
        ValueError: an unknown shape, precision, objective or optimizer, Muon for a U-Net, or a number below 1.
    """

    shape: str
    batch: int
    objective: str
    optimizer: str
    precision: str
    compile: bool
    recompute: bool
    steps: int
    """Steps timed, each by itself."""
    warm_up: int
    """Steps before them."""
    threads: int
    device: str
    seed: int
    program: ClassVar[str] = "mdpipe.benchmarks.training"
    """The module that measures it."""

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"--shape must be one of {', '.join(SHAPES)}, not {self.shape!r}")
        if self.precision not in DTYPES:
            raise ValueError(f"--precision must be one of {', '.join(DTYPES)}, not {self.precision!r}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"--objective must be one of {', '.join(OBJECTIVES)}, not {self.objective!r}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"--optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}")
        if self.optimizer == "muon" and SHAPES[self.shape].kind == "unet":
            raise ValueError(f"--optimizer muon is for matrices, and the layers of {self.shape} are convolutions")
        for name in ("batch", "steps", "warm_up", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")

    @property
    def title(self) -> str:
        """What it is called where it could not be measured."""
        return f"{self.shape} by {self.optimizer} in {self.precision} at batch {self.batch}"


OBJECTIVES: dict[str, dict[str, Any]] = {
    "md4": {"schedule": {"kind": "linear"}},
    "genmd4": {"initial_exponent": 1.0},
}
"""What can be measured, with settings; GenMD4 calls its network twice a step."""
