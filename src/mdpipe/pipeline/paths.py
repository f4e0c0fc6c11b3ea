"""Paths of artifacts and state, as in dvc.yaml. No other module knows them."""

from pathlib import Path

RESULTS = Path("results")
REPORT = Path("report")
SPEEDS = Path("results/speed/samplers.csv")
"""Speeds of the samplers, measured from the command line and kept in git."""
PUBLISHED = Path("results/published.csv")
"""Published results, with their sources."""
COSTS = Path("results/speed/stages.json")
"""Time and memory of every stage of one run of the whole graph, collected from the command line and kept in git."""

DOWNLOADS = Path(".mdpipe/downloads")
"""Downloaded files, which git ignores and DVC does not track."""

HASH_DIGITS = 16
"""Hexadecimal digits of a run hash in the name of a folder: 64 bits, short enough for a name."""

ENGINE_LOCK = Path(".mdpipe/engine.lock")
"""Locked by the Snakemake that runs in this folder."""
REQUEUE_DIR = Path(".mdpipe/requeue")
"""A stage that asks to be run again creates a file of its name here."""
JOBS_DIR = Path(".mdpipe/jobs")
"""A job records its stage in a file of the stage's name here: CPU seconds, commit, hashes of the outputs."""
RUN_SCRIPT = Path(".mdpipe/run.js")
"""Facts on the run of all stages in this clone, which the page shows in place of the recorded run."""

INFILLED_TEXTS, INFILLED_IMAGES = "infilling.json", "infilling.png"
"""Files of a run's samples: held-out texts with a filled span, or images with a filled half."""
EXPONENTS = "exponents.csv"
"""File of a run's samples: GenMD4's exponents, one per token."""


class PathTemplate(str):
    """A path with {} for each name of a stage, dataset, run or source that it is called with."""

    def __call__(self, *names: str) -> Path:
        """Return the path with these names, in their order."""
        return Path(self.format(*names))


raw = PathTemplate("data/raw/{}")
"""Folder of a source's raw text or images."""
tokenizer = PathTemplate("data/tokenizers/{}")
"""Folder of a dataset's tokenizer."""
encoded = PathTemplate("data/encoded/{}")
"""Folder of a dataset's splits as tokens."""
model = PathTemplate("models/{}")
"""Folder of a run's trained model and its configuration."""
samples = PathTemplate("samples/{}")
"""Folder of a model's samples."""
evaluation = PathTemplate("evaluations/{}.npy")
"""Array of a model's bounds, one per evaluated example."""
zero_shot_evaluation = PathTemplate("evaluations/zero_shot/{}-{}.npy")
"""Array of a model's bounds on a source, one per window; of a run and a source."""
events = PathTemplate("logs/events/{}")
"""Folder of what a run's training logs: `tensorboard --logdir logs/events`."""
checkpoint_dir = PathTemplate(".mdpipe/checkpoints/{}-{}")
"""Folder of the checkpoints of a run and its run hash, which git ignores and DVC does not track."""
work_dir = PathTemplate(".mdpipe/shards/{}-{}-{}")
"""Folder of the shards that a stage has finished of a dataset or source, by its run hash; as checkpoints."""
metrics = PathTemplate("metrics/{}/{}.json")
"""Results of a stage for one run or (run, source), which DVC shows as metrics."""
record = PathTemplate("records/{}/{}.json")
"""Description of the results of a stage for one run, dataset or (run, source)."""
features = PathTemplate("data/features/{}")
"""Folder of a feature network, and of the features of its dataset's splits."""
neighbors = PathTemplate("records/image_quality/{}.png")
"""Image of a run's samples next to the training images that are nearest to them."""
plot = PathTemplate("metrics/{}/{}.csv")
"""Table of a run that DVC plots: of its curves, samplers, mask_fraction, position or calibration."""


def trained_runs() -> list[str]:
    """Return the names of the runs that have a trained model, sorted."""
    return sorted(folder.name for folder in Path("models").glob("*") if (folder / "run.json").exists())


def checkpoint_dirs(run: str) -> list[Path]:
    """Return the checkpoint folders of a run under all its hashes."""
    # Not `RUN-*`, which is also that of RUN-seed1.
    return sorted(Path().glob(checkpoint_dir.format(run, "[0-9a-f]" * HASH_DIGITS)))


def work_dirs(stage: str, name: str) -> list[Path]:
    """Return the work folders of a stage under all run hashes."""
    return sorted(Path().glob(work_dir.format(stage, name, "*")))
