"""Paths of artifacts and state, as in dvc.yaml. No other module knows them."""

from pathlib import Path

RESULTS = Path("results")
REPORT = Path("report")
SPEEDS = Path("results/speed/samplers.csv")
"""Speeds of the samplers, measured from the command line and kept in git."""
PUBLISHED = Path("results/published.csv")
"""Numbers of the literature, with their sources."""
COSTS = Path("results/speed/stages.json")
"""Time and memory of every stage of one run of the whole graph, collected from the command line and kept in git."""

DOWNLOADS = Path(".mdpipe/downloads")
"""Downloaded files, which git ignores and DVC does not track."""

HASH_DIGITS = 16
"""Hexadecimal digits of a fingerprint in the name of a folder: 64 bits, short enough for a name."""

ENGINE_LOCK = Path(".mdpipe/engine.lock")
"""Locked by the Snakemake that runs in this folder."""

INFILLED_TEXTS, INFILLED_IMAGES = "infilling.json", "infilling.png"
"""Among the samples of a run: held-out texts with a filled span, or images with a filled half."""
EXPONENTS = "exponents.csv"
"""Among the samples of a run: GenMD4's exponents, one per token."""


def raw(source: str) -> Path:
    """Return the folder of a source's raw text or images."""
    return Path("data/raw") / source


def tokenizer(dataset: str) -> Path:
    """Return the folder of a dataset's tokenizer."""
    return Path("data/tokenizers") / dataset


def encoded(dataset: str) -> Path:
    """Return the folder of a dataset's splits as tokens."""
    return Path("data/encoded") / dataset


def model(run: str) -> Path:
    """Return the folder of a trained model and its configuration."""
    return Path("models") / run


def trained_runs() -> list[str]:
    """Return the names of the runs that have a trained model, sorted."""
    return sorted(folder.name for folder in Path("models").glob("*") if (folder / "run.json").exists())


def samples(run: str) -> Path:
    """Return the folder of a model's samples."""
    return Path("samples") / run


def evaluation(run: str) -> Path:
    """Return the array of a model's bounds, one per evaluated example."""
    return Path("evaluations") / f"{run}.npy"


def zero_shot_evaluation(run: str, source: str) -> Path:
    """Return the array of a model's bounds on a source, one per window."""
    return Path("evaluations/zero_shot") / f"{run}-{source}.npy"


def events(run: str) -> Path:
    """Return the folder of what a run's training logs: `tensorboard --logdir logs/events`."""
    return Path("logs/events") / run


def checkpoint_dir(run: str, run_hash: str) -> Path:
    """Return the folder of a training run's checkpoints, which git ignores and DVC does not track."""
    return Path(".mdpipe/checkpoints") / f"{run}-{run_hash}"


def checkpoint_dirs(run: str) -> list[Path]:
    """Return the checkpoint folders of a run under all its hashes."""
    # Not `RUN-*`, which is also that of RUN-seed1.
    return sorted(Path(".mdpipe/checkpoints").glob(f"{run}-{'[0-9a-f]' * HASH_DIGITS}"))


def work_dir(stage: str, name: str, fingerprint: str) -> Path:
    """Return the folder of the shards that a stage has finished, which git ignores and DVC does not track."""
    return Path(".mdpipe/pieces") / f"{stage}-{name}-{fingerprint}"


def work_dirs(stage: str, name: str) -> list[Path]:
    """Return the work folders of a stage under all fingerprints."""
    return sorted(Path(".mdpipe/pieces").glob(f"{stage}-{name}-*"))


def metrics(stage: str, name: str) -> Path:
    """Return the results of a stage for one run or (run, source), which DVC shows as metrics."""
    return Path("metrics") / stage / f"{name}.json"


def record(stage: str, name: str) -> Path:
    """Return what describes the results of a stage for one run, dataset or (run, source)."""
    return Path("records") / stage / f"{name}.json"


def features(name: str) -> Path:
    """Return the folder of a feature network, and of the features of its dataset's splits."""
    return Path("data/features") / name


def neighbors(run: str) -> Path:
    """Return the picture of a run's samples next to the training images that are nearest to them."""
    return record("image_quality", run).with_suffix(".png")


def plot(kind: str, run: str) -> Path:
    """Return a table of a run that DVC plots: its curves, samplers, mask_share, position or calibration."""
    return Path("metrics") / kind / f"{run}.csv"
