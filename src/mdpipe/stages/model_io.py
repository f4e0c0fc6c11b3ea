"""A trained run as a folder: weights, what they are the weights of, and the tokenizer to use them with.

model.safetensors, network.json             the averaged weights and the network's settings
objective.safetensors                       what the objective has learned itself, where it has: GenMD4's exponents
run.json                                    objective and what the run knows of its dataset
unigram.npy                                 how often each token occurred in training
tokenizer.json, pieces.model, model.json    text: the tokenizer
"""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from mdpipe.data.artifacts.arrays import open_array
from mdpipe.data.artifacts.files import atomic_dir, read_json, write_json
from mdpipe.data.artifacts.header import Header, first_problem, read_header
from mdpipe.data.dataset import EncodedDataset
from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective, build_objective
from mdpipe.networks.base import Network, count_parameters
from mdpipe.networks.io import CONFIG_NAME, NetworkHeader, from_pretrained, load_weights, read_config, save_pretrained
from mdpipe.params import Run
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.pipeline import paths

RUN = "run.json"
OBJECTIVE = "objective.safetensors"
TOKENIZER = "tokenizer.json"
UNIGRAM = "unigram.npy"
COPIED_FILES = (UNIGRAM, TOKENIZER, "pieces.model", "model.json")
"""What a model takes along of its dataset, where the dataset has it."""

UNITS = {
    "letters": "bits/char",
    "bytes": "bits/token",
    "pieces": "bits/token",
    "json": "bits/token",
    "pixels": "bits/dim",
}
"""The unit of bits per token, by tokenizer. A token of `letters` is a character, separators included; one of `bytes`
may be a separator, which is no byte of the text, so its unit is not bits/byte."""

CLASS_LABEL = "class label"
"""The condition of a run whose network is given the class of each example."""


@dataclass(frozen=True)
class TrainedRun:
    """A model ready to be evaluated or sampled from, on the machine's GPU where it has one."""

    network: Network
    objective: Objective
    directory: Path
    """models/RUN."""
    dataset: str
    modality: str
    tokenizer: str
    """The tokenizer's kind."""
    shape: tuple[int, ...]
    """(L,) for text, (H, W, C) for pictures."""
    classes: int
    """Number of classes that the model is told of; 0 for none."""
    class_names: tuple[str, ...]
    """What they are called, where the dataset has names for them."""

    @property
    def name(self) -> str:
        """The run's name in params.yaml."""
        return self.directory.name

    @property
    def denoiser(self) -> Denoiser:
        """The network, as objectives and samplers know it."""
        return cast("Denoiser", self.network)

    @property
    def schedule(self) -> Any:
        """The masking schedule to sample by: one for all tokens, GenMD4's vector, or None left to right."""
        return getattr(self.objective, "schedule", None)

    @property
    def length(self) -> int:
        """Tokens of an example."""
        return math.prod(self.shape)

    @property
    def parameters(self) -> int:
        """Number of weights, those of the objective among them."""
        return count_parameters(self.network) + count_parameters(self.objective)

    @property
    def condition(self) -> str | None:
        """What the model is given besides the data, as tables name it; None for nothing."""
        return CLASS_LABEL if self.classes else None

    @property
    def unit(self) -> str:
        """The unit of bits per token."""
        return UNITS[self.tokenizer]


def compute_device() -> torch.device:
    """Where networks run: the GPU if torch sees one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def num_classes(settings: Run, dataset: EncodedDataset) -> int:
    """Return the number of classes that the run's network is conditioned on: the dataset's, or 0 for none."""
    if settings.class_cond is None:
        return 0
    dataset.require_labels()
    return dataset.classes


def save_run(
    name: str, settings: Run, weights: dict[str, Tensor], objective_weights: dict[str, Tensor], dataset: EncodedDataset
) -> None:
    """Write models/RUN."""
    described: dict[str, Any] = {
        "objective": settings.objective.model_dump(),
        "dataset": settings.dataset,
        "modality": dataset.modality,
        "tokenizer": dataset.tokenizer,
    }
    classes = num_classes(settings, dataset)
    if classes and dataset.class_names:
        described["class_names"] = list(dataset.class_names)
    with atomic_dir(paths.model(name)) as folder:
        save_pretrained(
            folder,
            weights,
            settings.network,
            dataset.vocab_size,
            dataset.shape,
            num_classes=classes,
            causal=settings.objective.is_causal,
        )
        if objective_weights:
            save_file(objective_weights, folder / OBJECTIVE)
        write_json(folder / RUN, described)
        for file in COPIED_FILES:
            if (dataset.directory / file).exists():
                shutil.copyfile(dataset.directory / file, folder / file)


class DescribedRun(Header):
    """run.json."""

    objective: dict[str, Any]
    """Kind and settings of the objective."""
    dataset: str
    modality: Literal["text", "image"]
    tokenizer: str
    """The tokenizer's kind."""
    class_names: tuple[str, ...] = ()


def load_run(name: str) -> TrainedRun:
    """Read models/RUN.

    Raises:
        ValueError: a file of it is missing or broken, or contradicts another; the message says which and what to do.
    """
    directory = paths.model(name)
    cure = f"run `dvc repro train@{name}`"
    described = read_header(directory / RUN, DescribedRun, cure)
    described_network = read_config(directory)
    config = _read_objective(directory, described, described_network, cure)
    _check_tokens(directory, described, described_network, cure)
    objective = build_objective(config, described_network.vocab_size)
    if expected := objective.state_dict():
        objective.load_state_dict(load_weights(directory / OBJECTIVE, expected, cure))
    if objective.is_causal != described_network.causal:
        raise ValueError(
            f"{directory / CONFIG_NAME}: causal = {described_network.causal} does not fit the objective"
            f" {config.kind} of {RUN}; {cure}"
        )
    device = compute_device()
    return TrainedRun(
        network=from_pretrained(directory).to(device).eval(),
        objective=objective.to(device),
        directory=directory,
        dataset=described.dataset,
        modality=described.modality,
        tokenizer=described.tokenizer,
        shape=described_network.shape,
        classes=described_network.num_classes,
        class_names=described.class_names,
    )


def _read_objective(directory: Path, described: DescribedRun, network: NetworkHeader, cure: str) -> ObjectiveConfig:
    """Return the objective's settings; they and the network's keep the rules of params.yaml."""
    file = RUN
    try:
        objective = ObjectiveConfig.parse(described.objective)
        file = CONFIG_NAME
        _ = network.config
    except ValidationError as error:
        raise ValueError(f"{directory / file}: {first_problem(error)}; {cure}") from None
    return objective


def _check_tokens(directory: Path, described: DescribedRun, network: NetworkHeader, cure: str) -> None:
    """Check that modality, shape, tokenizer and vocabulary are those of one dataset."""
    is_image = described.tokenizer == "pixels"
    if described.tokenizer not in UNITS:
        raise ValueError(
            f"{directory / RUN}: tokenizer = {described.tokenizer!r} is not one of {', '.join(UNITS)}; {cure}"
        )
    if (described.modality == "image") != is_image or (len(network.shape) == 3) != is_image:
        raise ValueError(
            f"{directory / RUN}: modality = {described.modality!r} does not fit the tokenizer {described.tokenizer!r}"
            f" and the shape {list(network.shape)} of {CONFIG_NAME}; {cure}"
        )
    if not is_image:
        tokenizer = read_json(directory / TOKENIZER, cure)
        for key, wanted in (("kind", described.tokenizer), ("vocabulary", network.vocab_size)):
            if tokenizer.get(key) != wanted:
                raise ValueError(
                    f"{directory / TOKENIZER}: {key} = {tokenizer.get(key)!r} is not that of the model, {wanted!r};"
                    f" {cure}"
                )
    unigram = open_array(directory / UNIGRAM, cure)
    if unigram.dtype != np.int64 or unigram.shape != (network.vocab_size,):
        raise ValueError(
            f"{directory / UNIGRAM} should be int64 ({network.vocab_size},), not {unigram.dtype} {unigram.shape};"
            f" {cure}"
        )
