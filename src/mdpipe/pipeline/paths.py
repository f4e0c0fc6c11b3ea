"""Where the pipeline keeps things, as dvc.yaml says: the only module that knows."""

from pathlib import Path

RESULTS = Path("results")
REPORT = Path("report")
SPEEDS = Path("results/speed/samplers.csv")
"""How fast the samplers are: measured by hand on some machine, and kept in git."""

DOWNLOADS = Path(".mdpipe/downloads")
"""What sources fetched, as it came. No artifact: git ignores it and DVC does not know it."""


ENGINE_LOCK = Path(".mdpipe/engine.lock")
"""Locked by the Snakemake that is at work in this folder."""


def raw(source: str) -> Path:
    """Raw text or pictures of a source."""
    return Path("data/raw") / source


def tokenizer(dataset: str) -> Path:
    """The tokenizer of a dataset."""
    return Path("data/tokenizers") / dataset


def encoded(dataset: str) -> Path:
    """A dataset's splits as tokens."""
    return Path("data/encoded") / dataset


def model(run: str) -> Path:
    """A trained model and all it takes to use it."""
    return Path("models") / run


def trained_runs() -> list[str]:
    """Return the names of the runs that have a trained model, sorted."""
    return sorted(folder.name for folder in Path("models").glob("*") if (folder / "run.json").exists())


def samples(run: str) -> Path:
    """What a model drew."""
    return Path("samples") / run


def sampled_classes(run: str) -> Path:
    """The name of each sample's class, where the classes have names."""
    return samples(run) / "classes.json"


def exponents(run: str) -> Path:
    """GenMD4: the exponent of every token's schedule."""
    return samples(run) / "exponents.csv"


def evaluation(run: str) -> Path:
    """What every held-out example costs under a model."""
    return Path("evaluations") / f"{run}.npy"


def events(run: str) -> Path:
    """TensorBoard's files of a run's training: `tensorboard --logdir logs/events`."""
    return Path("logs/events") / run


def checkpoint_dir(run: str, run_hash: str) -> Path:
    """Return the folder of a training run's checkpoints, which git ignores and DVC does not track."""
    return Path(".mdpipe/checkpoints") / f"{run}-{run_hash}"


def checkpoint_dirs(run: str) -> list[Path]:
    """Return the checkpoint folders of a run under all its hashes."""
    return sorted(Path(".mdpipe/checkpoints").glob(f"{run}-*"))


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


def samplers(run: str) -> Path:
    """The comparison of samplers on a run."""
    return Path("metrics/samplers") / f"{run}.csv"


def curve(run: str) -> Path:
    """The training curve of a run."""
    return Path("metrics/curves") / f"{run}.csv"
