"""A trained run as a folder: weights, what they are the weights of, and the tokenizer to use them with.

model.safetensors, network.json   the averaged weights and the network's settings
run.json                          objective, schedule, and what the run knows of its dataset
unigram.npy                       how often each token occurred in training
tokenizer.json (+ pieces.model)   text: the tokenizer
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdpipe.data.aside import folder_aside
from mdpipe.data.encoded import EncodedDataset
from mdpipe.data.stable_json import read_json, write_json
from mdpipe.diffusion.md4 import MD4
from mdpipe.diffusion.schedules import build_schedule
from mdpipe.networks.build import parameter_count
from mdpipe.networks.saved import DESCRIPTION, load_network, save_network
from mdpipe.networks.transformer import Transformer
from mdpipe.networks.unet import UNet
from mdpipe.params import Run
from mdpipe.stages import paths

UNIGRAM = "unigram.npy"
COPIED_FILES = (UNIGRAM, "tokenizer.json", "pieces.model")
"""What a model takes along of its dataset, where the dataset has it."""

UNITS = {"letters": "bits/char", "bytes": "bits/byte", "pieces": "bits/token", "pixels": "bits/dim"}
"""What a token is, for each tokenizer."""


@dataclass(frozen=True)
class TrainedRun:
    """A model ready to be evaluated or sampled from, on the machine's GPU where it has one."""

    network: Transformer | UNet
    objective: MD4
    directory: Path
    dataset: str
    modality: str
    tokenizer: str
    """The tokenizer's kind."""
    shape: tuple[int, ...]
    """(L,) for text, (H, W, C) for pictures."""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return parameter_count(self.network)

    @property
    def unit(self) -> str:
        """What bits are counted by."""
        return UNITS[self.tokenizer]


def compute_device() -> torch.device:
    """Where networks run: the GPU if torch sees one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def save_run(name: str, settings: Run, weights: dict[str, Tensor], dataset: EncodedDataset) -> None:
    """Write models/RUN."""
    network = settings.network.model_dump()
    kind = network.pop("kind")
    described: dict[str, Any] = {
        "objective": settings.objective,
        "schedule": settings.schedule.model_dump(),
        "dataset": settings.dataset,
        "modality": dataset.modality,
        "tokenizer": dataset.tokenizer,
    }
    with folder_aside(paths.model(name)) as folder:
        save_network(folder, weights, kind, dataset.vocabulary, dataset.shape, network)
        write_json(folder / "run.json", described)
        for file in COPIED_FILES:
            if (dataset.directory / file).exists():
                shutil.copy(dataset.directory / file, folder / file)


def load_run(name: str) -> TrainedRun:
    """Read models/RUN.

    Raises:
        ValueError: a file of it is missing or broken; the message says which and what to do.
    """
    directory = paths.model(name)
    cure = f"run `dvc repro train@{name}`"
    described = read_json(directory / "run.json", cure)
    described_network = read_json(directory / DESCRIPTION, cure)
    schedule = build_schedule(described["schedule"]["kind"])
    return TrainedRun(
        network=load_network(directory).to(compute_device()).eval(),
        objective=MD4(schedule, described_network["vocabulary"]),
        directory=directory,
        dataset=described["dataset"],
        modality=described["modality"],
        tokenizer=described["tokenizer"],
        shape=tuple(described_network["shape"]),
    )
