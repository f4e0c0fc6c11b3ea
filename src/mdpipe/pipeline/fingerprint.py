"""The fingerprint of a training run: all that its weights depend on. A checkpoint is only used where it fits."""

import torch

from mdpipe.data.dataset import EncodedDataset
from mdpipe.params import Params
from mdpipe.pipeline.hashing import code_files, digest_of

CODE = (
    "data/artifacts",
    "data/dataset.py",
    "diffusion",
    "networks",
    "training",
    "stages/model_io.py",
    "pipeline/fingerprint.py",
    "stages/train.py",
)
"""What dvc.yaml names as the training stage's code."""


def training_fingerprint(params: Params, run: str, dataset: EncodedDataset) -> str:
    """Hash of the seed, the run's settings, the training data, the code and torch's version."""
    settings = params.runs[run].model_dump(exclude={"sample", "evaluate"})
    # How often the state is saved does not change it: a run may go on with another interval.
    for key in ("save_every", "save_total_limit"):
        del settings["train"][key]
    # A run may also go on among other processes: that changes the order of sums and so the last digits, no more.
    for key in ("num_processes", "strategy", "gradient_accumulation_steps"):
        del settings["hardware"][key]
    stated = {"seed": params.seed, "run": settings, "torch": torch.__version__}
    return digest_of(stated, [*code_files(CODE), *dataset.files])
