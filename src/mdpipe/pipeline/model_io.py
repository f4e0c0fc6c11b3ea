"""A trained model as a folder, models/RUN.

model.safetensors, network.json             the EMA weights and the network's settings
objective.safetensors                       learned parameters of the objective, if any: GenMD4's exponents
run.json                                    the objective, and the dataset with its modality, tokenizer and class names
unigram.npy                                 how often each token occurred in training
tokenizer.json, sentencepiece.model, model.json    text: the tokenizer
"""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from mdpipe.data.artifacts.arrays import open_array
from mdpipe.data.artifacts.files import Header, atomic_dir, first_problem, read_header, read_json, write_json
from mdpipe.data.dataset import EncodedDataset
from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.objectives.base import Objective
from mdpipe.networks.base import (
    CONFIG_NAME,
    Network,
    NetworkHeader,
    count_parameters,
    from_pretrained,
    load_weights,
    read_config,
    save_pretrained,
)
from mdpipe.networks.runtime import compute_device
from mdpipe.params import Run
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.pipeline import paths

RUN = "run.json"
OBJECTIVE = "objective.safetensors"
TOKENIZER = "tokenizer.json"
UNIGRAM = "unigram.npy"
DATASET_FILES = (UNIGRAM, TOKENIZER, "sentencepiece.model", "model.json")
"""Files that a model copies from its dataset, if the dataset has them."""

UNITS = {
    "text8": "bits/char",
    "bytes": "bits/token",
    "sentencepiece": "bits/token",
    "hf_tokenizer": "bits/token",
    "pixels": "bits/dim",
}
"""The unit of bits per token, by tokenizer. A token of `text8` is a character, separators included; one of `bytes`
may be a separator, which is not a byte of the text, so its unit is not bits/byte."""


class ModelHeader(Header):
    """Content of run.json."""

    objective: dict[str, Any]
    """Kind and settings."""
    dataset: str
    modality: Literal["text", "image"]
    tokenizer: str
    """The tokenizer's kind."""
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainedModel:
    """A model ready for evaluation or sampling, on the machine's GPU if it has one."""

    network: Network
    objective: Objective
    directory: Path
    """Folder of the model, models/RUN."""
    dataset: str
    modality: str
    tokenizer: str
    """The tokenizer's kind."""
    shape: tuple[int, ...]
    """(L,) for text, (H, W, C) for images."""
    num_classes: int
    """Number of classes that the model is conditioned on; 0 for none."""
    class_names: tuple[str, ...]
    """Empty if the dataset has no names for its classes."""

    @property
    def name(self) -> str:
        """Return the run's name in params.yaml."""
        return self.directory.name

    @property
    def denoiser(self) -> Denoiser:
        """Return the network with the type that objectives and samplers use."""
        return cast("Denoiser", self.network)

    @property
    def schedule(self) -> Any:
        """Return the masking schedule: one for all tokens, GenMD4's per-token one, or None for left to right."""
        return getattr(self.objective, "schedule", None)

    @property
    def seq_len(self) -> int:
        """Return the tokens of an example."""
        return math.prod(self.shape)

    @property
    def num_parameters(self) -> int:
        """Return the number of weights, including those of the objective."""
        return count_parameters(self.network) + count_parameters(self.objective)

    @property
    def class_cond(self) -> str | None:
        """Return what the model is conditioned on, as tables name it."""
        return "class label" if self.num_classes else None

    @property
    def unit(self) -> str:
        """Return the unit of bits per token."""
        return UNITS[self.tokenizer]


def num_classes(settings: Run, dataset: EncodedDataset) -> int:
    """Return the number of classes that the run's network is conditioned on: the dataset's, or 0 for none."""
    if settings.class_cond is None:
        return 0
    dataset.require_labels()
    return dataset.classes


def save_model(
    name: str,
    settings: Run,
    network: Network,
    weights: dict[str, Tensor],
    objective_weights: dict[str, Tensor],
    dataset: EncodedDataset,
) -> None:
    """Write models/RUN, with these weights of the network and of the objective."""
    header: dict[str, Any] = {
        "objective": settings.objective.model_dump(),
        "dataset": settings.dataset,
        "modality": dataset.modality,
        "tokenizer": dataset.tokenizer,
    }
    if network.num_classes and dataset.class_names:
        header["class_names"] = list(dataset.class_names)
    with atomic_dir(paths.model(name)) as folder:
        save_pretrained(folder, network, weights)
        if objective_weights:
            save_file(objective_weights, folder / OBJECTIVE)
        write_json(folder / RUN, header)
        for file in DATASET_FILES:
            if (dataset.directory / file).exists():
                shutil.copyfile(dataset.directory / file, folder / file)


def load_model(run: str) -> TrainedModel:
    """Read models/RUN.

    Raises:
        ValueError: One of its files is missing or broken, or contradicts another; the message says which.
    """
    directory = paths.model(run)
    hint = f"run `dvc repro train@{run}`"
    header, network = read_header(directory / RUN, ModelHeader, hint), read_config(directory)
    file = RUN
    try:
        config = ObjectiveConfig.parse(header.objective)
        file = CONFIG_NAME
        _ = network.spec  # The settings of both follow the rules of params.yaml.
    except ValidationError as error:
        raise ValueError(f"{directory / file}: {first_problem(error)}; {hint}") from None
    if problem := next(_contradictions(directory, header, network, config, hint), None):
        raise ValueError(f"{directory}/{problem}; {hint}")
    objective = Objective.build(config, network.vocab_size)
    if expected := objective.state_dict():
        objective.load_state_dict(load_weights(directory / OBJECTIVE, expected, hint))
    device = compute_device()
    return TrainedModel(
        network=from_pretrained(directory).to(device).eval(),
        objective=objective.to(device),
        directory=directory,
        dataset=header.dataset,
        modality=header.modality,
        tokenizer=header.tokenizer,
        shape=network.shape,
        num_classes=network.num_classes,
        class_names=header.class_names,
    )


def _contradictions(
    directory: Path, header: ModelHeader, network: NetworkHeader, config: ObjectiveConfig, hint: str
) -> Iterator[str]:
    """Yield, after a file's name, why modality, shape, tokenizer, vocabulary and objective are not those of one run."""
    is_image = header.tokenizer == "pixels"
    if header.tokenizer not in UNITS:
        yield f"{RUN}: tokenizer = {header.tokenizer!r} is not one of {', '.join(UNITS)}"
    if (header.modality == "image") != is_image or (len(network.shape) == 3) != is_image:
        yield (
            f"{RUN}: modality = {header.modality!r} does not fit the tokenizer {header.tokenizer!r} and the shape"
            f" {list(network.shape)} of {CONFIG_NAME}"
        )
    if not is_image:
        tokenizer = read_json(directory / TOKENIZER, hint)
        for key, expected in (("kind", header.tokenizer), ("vocab_size", network.vocab_size)):
            if tokenizer.get(key) != expected:
                yield f"{TOKENIZER}: {key} = {tokenizer.get(key)!r} does not fit the model, {expected!r}"
    unigram = open_array(directory / UNIGRAM, hint)
    if unigram.dtype != np.int64 or unigram.shape != (network.vocab_size,):
        yield f"{UNIGRAM} should be int64 ({network.vocab_size},), not {unigram.dtype} {unigram.shape}"
    if config.is_causal != network.causal:
        yield f"{CONFIG_NAME}: causal = {network.causal} does not fit the objective {config.kind} of {RUN}"
