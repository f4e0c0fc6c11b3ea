"""Command `mdpipe clean`: what earlier params have left, and params.yaml and dvc.yaml no longer ask for.

A renamed or deleted run, dataset or source leaves artifacts, metrics, logs, unfinished work and entries in dvc.lock.
DVC's cache keeps the artifacts, so that earlier params give them back, until `dvc gc --workspace` removes them there.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from dvc.utils.serialize import dumps_yaml, load_yaml
from filelock import FileLock, Timeout

from mdpipe.commands.unlock import lock_holders, open_repository
from mdpipe.data.artifacts.files import atomic_write, folder_size
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.sources.download import URL_DIGITS, destination
from mdpipe.params import Params
from mdpipe.params.sources import UrlSource
from mdpipe.pipeline import paths
from mdpipe.pipeline.fingerprint import encoding_fingerprint, source_fingerprint
from mdpipe.pipeline.provenance import DVC_FILE, output_patterns
from mdpipe.stages.resolve import write_replicates

LOCK_FILE = Path("dvc.lock")

ANY = "*"

NAME = re.compile(r"\.?(?P<whole>[a-z][a-z0-9_]*(-[a-z][a-z0-9_]*){0,2}(\.(npy|json|csv|png))?)(\.partial|\.scratch)?")
"""Names of stages' outputs, finished or not. Other files in the same folders are the user's."""

DOWNLOAD = re.compile(rf"\.?(?P<url>[0-9a-f]{{{URL_DIGITS}}})-")
"""Name of a downloaded file. The cache of `datasets`, in the same folder, is kept."""

BY_STAGE = {"logs": ".log", "benchmarks": ".tsv"} | dict.fromkeys(
    (".mdpipe/requests", ".mdpipe/requeue", ".mdpipe/cpu_seconds"), ""
)
"""Folders with a file for each stage, and what its name ends with."""


def clean(params: Params, *, force: bool) -> str:
    """Return a list of what nothing asks for, with sizes; with `force`, remove it.

    Raises:
        ValueError: it is to be removed, and an engine is at work.
    """
    with open_repository() as repo:
        write_replicates(params)  # DVC reads it to tell which stages there are.
        stages = {stage.addressing for stage in repo.index.stages}
        outputs = {Path(out.def_path) for stage in repo.index.stages for out in stage.outs}
        found = sorted({*_artifacts(params, outputs), *_by_stage(stages), *_state(params, repo)})
        entries = [name for name in _recorded().get("stages", {}) if name not in stages]
        sizes = [folder_size(path) for path in found]
        if force and (found or entries):
            with _no_engine(repo):
                for path in found:
                    _remove(path)
                _forget(entries)
    if not found and not entries:
        return "nothing is left over: params.yaml asks for all that is here"
    end = "removed" if force else "that params.yaml does not ask for; `mdpipe clean --force` removes it"
    return "\n".join(
        [
            *(f"{_megabytes(size)}  {path}" for path, size in zip(found, sizes, strict=True)),
            *(f"{LOCK_FILE}: {name}" for name in entries),
            f"{_megabytes(sum(sizes))} {end}",
        ]
    )


def _artifacts(params: Params, outputs: set[Path]) -> Iterator[Path]:
    """Yield outputs, whole or not, of stages that there are no more."""
    tokenizers = (getattr(dataset.tokenizer, "path", None) for dataset in params.datasets.values())
    own = {Path(path) for path in (*(source.path for source in params.sources.values()), *tokenizers) if path}
    for pattern in output_patterns():
        for path in pattern.parent.glob(ANY):
            name = NAME.fullmatch(path.name)
            if name is None or Path(name["whole"]).suffix != pattern.suffix:
                continue
            whole = path.with_name(name["whole"])
            is_own = any(path.is_relative_to(kept) or kept.is_relative_to(path) for kept in own)
            if whole not in outputs and not is_own:
                yield path


def _by_stage(stages: set[str]) -> Iterator[Path]:
    """Yield logs and notes of stages that there are no more."""
    kinds = load_yaml(str(DVC_FILE))["stages"]
    for folder, end in BY_STAGE.items():
        for path in Path(folder).glob(f"*{end}"):
            stage = path.name.removesuffix(end)
            if stage not in stages and stage.partition("@")[0] in kinds:
                yield path


def _state(params: Params, repo: Repo) -> Iterator[Path]:
    """Yield downloads, unfinished work, checkpoints and events that no source, dataset or run goes on from."""
    resolved = [source.resolve() for source in params.sources.values()]
    addresses = [source.url for source in resolved if isinstance(source, UrlSource)]
    wanted = {destination(url, paths.DOWNLOADS).name[:URL_DIGITS] for url in addresses}
    for path in paths.DOWNLOADS.glob(ANY):
        fetched = DOWNLOAD.match(path.name)
        if fetched is not None and fetched["url"] not in wanted:
            yield path

    unfinished = {
        "download": {name: source_fingerprint(params, name) for name in params.sources},
        "encode": {name: encoding_fingerprint(params, name) for name in params.datasets},
    }
    for stage, fingerprints in unfinished.items():
        kept = {paths.work_dir(stage, name, fingerprint) for name, fingerprint in fingerprints.items()}
        yield from (path for path in paths.work_dirs(stage, ANY) if path not in kept)

    kept = set()
    for name in params.runs:
        if _is_recorded(repo, name):
            continue  # The model is in DVC's cache; another run starts from the beginning.
        fingerprint = _training_fingerprint(params, name)
        kept |= set(paths.checkpoint_dirs(name)) if fingerprint is None else {paths.checkpoint_dir(name, fingerprint)}
    yield from (path for path in paths.checkpoint_dirs(ANY) if path not in kept and not _is_training(path))
    yield from (path for path in paths.events(ANY).parent.glob(ANY) if path.name not in params.runs)


def _is_recorded(repo: Repo, run: str) -> bool:
    """Return True if dvc.lock has the run's model as params, code and data are now."""
    stage = f"train@{run}"
    return stage in _recorded().get("stages", {}) and not repo.status(targets=[stage])


def _training_fingerprint(params: Params, run: str) -> str | None:
    """Return the fingerprint that a run's checkpoints have now, or None while there are no data to compute it from."""
    from mdpipe.pipeline.fingerprint import training_fingerprint  # It loads torch.

    try:
        return training_fingerprint(params, run, EncodedDataset.open(paths.encoded(params.runs[run].dataset), "train"))
    except ValueError:
        return None


def _is_training(checkpoint_dir: Path) -> bool:
    """Return True if a process trains in the folder of checkpoints."""
    from mdpipe.training.checkpoint import LOCK_FILE as TRAINING_LOCK  # It loads torch.

    if (checkpoint_dir / TRAINING_LOCK).exists():
        try:
            FileLock(checkpoint_dir / TRAINING_LOCK, blocking=False).acquire().lock.release()
        except Timeout:
            return True
    return False


@contextmanager
def _no_engine(repo: Repo) -> Iterator[None]:
    """Keep Snakemake out while the block runs; raise ValueError if it or DVC is at work."""
    paths.ENGINE_LOCK.parent.mkdir(exist_ok=True)
    lock = FileLock(paths.ENGINE_LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        engine = paths.ENGINE_LOCK.read_text().strip()
        raise ValueError(f"snakemake is running in this folder ({engine}); wait until it ends") from None
    try:
        if holders := lock_holders(repo):
            raise ValueError(f"DVC is running in this folder ({', '.join(holders)}); wait until it ends")
        yield
    finally:
        lock.release()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _recorded() -> dict[str, Any]:
    return dict(load_yaml(str(LOCK_FILE))) if LOCK_FILE.exists() else {}


def _forget(entries: list[str]) -> None:
    """Remove entries of dvc.lock."""
    if not entries:
        return
    lock = _recorded()
    lock["stages"] = {name: entry for name, entry in lock["stages"].items() if name not in entries}
    atomic_write(LOCK_FILE, dumps_yaml(lock).encode())


def _megabytes(size: int) -> str:
    """Return a size in megabytes, or in kilobytes where it is less than one."""
    return f"{size / 1e6:10,.1f} MB" if size >= 1e6 else f"{size / 1e3:10,.1f} kB"
