"""The fingerprint of a training run: all that its weights depend on. A checkpoint is only used where it fits."""

import hashlib
import json
from pathlib import Path

import torch

import mdpipe
from mdpipe.data.encoded import EncodedDataset
from mdpipe.params import Params

CODE = ("data", "diffusion", "networks", "training", "stages/train.py")
"""What dvc.yaml names as the training stage's code."""

LENGTH = 16
"""Hexadecimal digits kept: 64 bits, and short enough for a folder's name."""


def training_fingerprint(params: Params, run: str, dataset: EncodedDataset) -> str:
    """Hash of the seed, the run's settings, the training data, the code and torch's version."""
    settings = params.runs[run].model_dump(exclude={"sample", "evaluate"})
    # How often the state is saved does not change it: a run may go on with another interval.
    for key in ("checkpoint_every", "keep_checkpoints"):
        del settings["train"][key]
    # A run may also go on among other processes: that changes the order of sums and so the last digits, no more.
    for key in ("processes", "strategy", "micro_batches"):
        del settings["hardware"][key]
    stated = {"seed": params.seed, "run": settings, "torch": torch.__version__}
    digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
    for path in [*_code_files(), *dataset.files]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:LENGTH]


def _code_files() -> list[Path]:
    package = Path(mdpipe.__file__).parent
    places = [package / part for part in CODE]
    return sorted(path for place in places for path in ([place] if place.is_file() else place.rglob("*.py")))
