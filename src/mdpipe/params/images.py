"""The `image_quality` section of params.yaml: feature networks, and the runs whose samples they measure."""

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from mdpipe.params.errors import Keys
from mdpipe.params.kinds import AnyKind, Config, KindConfig, Name, Positive, RunName
from mdpipe.params.sampling import AnySampler

INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""SHA-256 of weights-inception-2015-12-05-6726825d.pth, the Inception v3 of the FID paper in PyTorch's format."""


class FeatureNetworkConfig(KindConfig, is_family=True):
    """The network whose features FID, precision and recall are computed from."""

    dataset: str
    """The images: a key of `datasets`. The features of all its splits are computed once."""
    max_images: Annotated[int, Field(ge=8)] = 50_000
    """The largest number of images of a split, evenly spaced, whose features are used."""


class CNNFeaturesConfig(FeatureNetworkConfig):
    """A small convolutional classifier, trained on the training split: of classes, or of rotations without labels."""

    kind: Literal["cnn"] = "cnn"
    hidden_size: Annotated[int, Field(ge=8, multiple_of=8)] = 64
    """Number of features, and of channels of the last convolutions."""
    steps: Positive = 300
    """Number of optimizer steps."""
    batch_size: Positive = 64
    """Images per step; every image is in four rotations if those are predicted."""
    learning_rate: Annotated[float, Field(gt=0, lt=math.inf)] = 2e-3
    """Peak learning rate of AdamW; it decreases to 0 with a cosine."""


class InceptionFeaturesConfig(FeatureNetworkConfig):
    """Inception v3 as in the FID paper, for numbers that compare with published ones."""

    kind: Literal["inception"] = "inception"
    path: str
    """The file of the weights, .pth or .safetensors, with the names of torch-fidelity's file."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = INCEPTION_SHA256
    """The SHA-256 of the file, which must match: it is what the features depend on."""


class MeasuredRun(Config):
    """A run whose samples are compared with real images."""

    features: str
    """The feature network, a key of `image_quality.features`."""
    dataset: str
    """The dataset of the run and of the feature network. DVC's templates need it here."""
    count: Annotated[int, Field(ge=8)] = 10_000
    """Number of samples, drawn by the run's own sampler. FID depends on it: compare only equal numbers."""
    batch_size: Positive = 128
    """Samples per batch."""
    samplers: dict[Name, AnySampler] = {}
    """Further samplers of the same model, by name, whose samples are measured as well, as many of each."""

    def broken_rules(self) -> Iterator[tuple[Keys, str]]:
        """Yield names of samplers that other images have."""
        for name in self.samplers.keys() & {"samples", "training", "held_out", "noise"}:
            yield ("samplers", name), "the name is kept for other images; choose another one"


class ImageQuality(Config):
    """Measure samples of images: FID, precision and recall, Inception score, nearest neighbors, class accuracy."""

    features: dict[Name, Annotated[FeatureNetworkConfig, AnyKind(FeatureNetworkConfig)]] = {}
    """Feature networks, by name (stage `fit_features`)."""
    runs: dict[RunName, MeasuredRun] = {}
    """The runs of images to measure, keys of `runs` (stage `measure_images`). A run with `seeds` is measured once per
    seed."""
