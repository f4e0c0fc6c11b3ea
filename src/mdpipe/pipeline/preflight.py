"""Checks before anything runs: paths of sources, and the folders that stages write to."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mdpipe.console import with_full_keys
from mdpipe.params import Params
from mdpipe.params.data import modality_of
from mdpipe.params.sources import Source, files_by_split
from mdpipe.params.suites import InceptionFeaturesConfig
from mdpipe.pipeline import paths

if TYPE_CHECKING:
    from mdpipe.data.sources import Unread

MAX_LISTED = 3
"""Maximum number of read-only paths that the error lists by name."""


def require_usable(params: Params, *, with_sources: bool) -> None:
    """Check the working copy and the paths of the sources.

    Args:
        with_sources: True if the files of the sources and of feature networks must exist. They are not needed if the
            artifacts were fetched.

    Raises:
        ValueError: There are problems; the message has one line for each.
    """
    problems = [*home_problems(), *working_copy_problems(params), *_circular_paths(params), *_ignored_paths(params)]
    if with_sources:
        for find_problems in (missing_paths, linked_folders, unfit_sources):
            problems += find_problems(params, params.sources)
        problems += missing_weights(params)
    if problems:
        raise ValueError("\n".join(problems))


def home_problems() -> Iterator[str]:
    """Yield the reasons why DVC, git or Snakemake cannot write to HOME, which would end in a traceback."""
    home = Path.home()
    if not (existing := nearest_existing(home)).is_dir():
        yield f"HOME is {str(home)!r}, and {existing} is a file; set HOME to a folder for DVC, git and Snakemake"
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache", "snakemake")
    if not os.access(nearest_existing(cache), os.W_OK):
        yield f"Snakemake cannot write its cache to {str(cache)!r}; set XDG_CACHE_HOME to a writable folder"


def nearest_existing(path: Path) -> Path:
    """Return the path, or its nearest parent that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if os.path.exists(folder))  # noqa: PTH110 (pathlib raises without permission)


def require_writable(targets: Iterable[Path]) -> None:
    """Check that files are writable, that folders are, and that missing ones can be created.

    Raises:
        ValueError: Some are read-only, which an engine would report late or without a remedy.
    """
    existing = set(map(nearest_existing, targets))
    closed = [path for path in existing if not os.access(path, os.W_OK | os.X_OK if path.is_dir() else os.W_OK)]
    if read_only := sorted(map(os.path.relpath, closed)):
        more = f" and {len(read_only) - MAX_LISTED} more" if len(read_only) > MAX_LISTED else ""
        raise ValueError(
            f"cannot write in {', '.join(read_only[:MAX_LISTED])}{more}, where stages keep files: change owner or mode,"
            " or, on a read-only disk, how it is mounted"
        )


def state_folders() -> list[Path]:
    """Return .mdpipe and its subfolders, to which every stage may write."""
    state = paths.ENGINE_LOCK.parent
    return [state, *(path for path in state.glob("*") if path.is_dir())]


def dvc_targets() -> list[Path]:
    """Return the files and folders that DVC writes after a stage: its cache, its state and dvc.lock."""
    from dvc.config import Config  # Stages also run on machines without DVC.

    folder = Path(".dvc")
    cache = Path(Config(dvc_dir=str(folder))["cache"].get("dir") or folder / "cache")
    objects = [cache / "runs", cache / "files" / "md5", *(cache / "files" / "md5").glob("[0-9a-f][0-9a-f]")]
    return [cache, *objects, folder / "tmp", Path("dvc.lock")]


def working_copy_problems(params: Params) -> Iterator[str]:
    """Yield the reasons why DVC cannot record any stage, which DVC itself reports only after the stage has run."""
    root = Path.cwd()
    if set("{}") & set(str(root)):
        yield f"the working copy is at {str(root)!r}: DVC takes no braces in a path; rename the folder that has them"
    links = {
        folder
        for artifact, _ in _artifacts(params)
        for folder in (artifact if not artifact.suffix else artifact.parent, *artifact.parents)
        if folder.is_symlink()
    }
    for link in sorted(links):
        yield (
            f"{link} is a symbolic link to {str(link.readlink())!r}; DVC records nothing behind it: make it a folder"
            " and move DVC's cache there: `dvc cache dir --local FOLDER; dvc config --local cache.type symlink`"
        )


def _circular_paths(params: Params) -> Iterator[str]:
    """Yield a line for each source whose path contains, or is inside, an artifact that is made from it."""
    artifacts = list(_artifacts(params))
    for name, source in params.sources.items():
        before, seen = _maker(params, name), set[str]()
        while before is not None and before not in seen | {name}:
            seen.add(before)
            before = _maker(params, before)
        inside = [artifact for artifact, _ in artifacts if _is_inside(artifact, source.path)]
        if before is not None:
            yield f"{_key(name, source)} is made from the source itself; give the path of other files"
        elif inside and not seen:
            yield f"{_key(name, source)} contains {inside[0]}, which the pipeline writes; move its files elsewhere"


def _ignored_paths(params: Params) -> Iterator[str]:
    """Yield a line for each source that DVC ignores; none on a machine without DVC."""
    try:
        from dvc.fs import localfs
        from dvc.ignore import DvcIgnoreFilter
    except ImportError:
        return
    ignores = DvcIgnoreFilter(localfs, str(Path.cwd()))
    for name, source in params.sources.items():
        result = ignores.check_ignore(source.path)
        if result.match:
            rule = result.pattern_infos[-1].file_info or f"DVC's own rule {result.pattern_infos[-1].patterns!r}"
            yield f"{_key(name, source)} is hidden from DVC by {rule}; change that line, or move the files"


def missing_paths(params: Params, names: Iterable[str]) -> Iterator[str]:
    """Yield a line for each of the named sources whose files do not exist and are not made by a stage."""
    for name in names:
        source = params.sources[name]
        if not Path(source.path).exists() and _maker(params, name) is None:
            yield f"{_key(name, source)} does not exist; correct it, or put the files there"


def unfit_sources(params: Params, names: Iterable[str]) -> Iterator[str]:
    """Yield a line for each of the named sources whose settings do not fit its files, as far as their names and first
    bytes tell: a pattern without files, a column, field or array that is not there, another format.

    If a file is one document or image, a line follows for each dataset of the source whose `splits` need more of them.
    """
    from mdpipe.data.sources import check_source  # Most commands check no source.

    for name in names:
        source = params.sources[name]
        if not Path(source.path).exists() or _maker(params, name) is not None:
            continue
        try:
            unread = check_source(source)
        except (ValueError, OSError) as error:
            yield f"sources.{name}: {with_full_keys(str(error), params, {'sources': name})}"
            continue
        if unread is not None:
            yield from _impossible_splits(params, name, unread)


def _impossible_splits(params: Params, source: str, unread: "Unread") -> Iterator[str]:
    from mdpipe.data.splits import require_documents  # NumPy, which few checks need.

    for name, dataset in params.datasets.items():
        if dataset.source == source:
            try:
                require_documents(dataset.splits, unread.counts, modality_of(dataset), unread.max_characters)
            except ValueError as error:
                yield with_full_keys(str(error), params, {"datasets": name})


def linked_folders(params: Params, names: Iterable[str]) -> Iterator[str]:
    """Yield a line for each of the named sources that may read files behind a link to a folder.

    DVC does not follow such links, so that it would not notice a change of these files. Sources read no hidden folders,
    and none at all if the pattern has no `/`.
    """
    for name in names:
        source = params.sources[name]
        globs = files_by_split(getattr(source, "pattern", "")).values()
        if any("/" in glob for glob in globs) and (link := next(_links_to_folders(source.path), None)):
            yield (
                f"{_key(name, source)} has {link}, a link to a folder, where DVC would not notice a change of the"
                " files: put the files there, or make a source of the folder that it links to"
            )


def _links_to_folders(path: str) -> Iterator[Path]:
    for parent, folders, _ in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in folders if Path(parent, name).is_symlink())


def missing_weights(params: Params) -> Iterator[str]:
    """Yield a line for each feature network whose file of weights does not exist."""
    for name, features in params.image_quality.features.items():
        if isinstance(features, InceptionFeaturesConfig) and not Path(features.path).exists():
            yield (
                f"image_quality.features.{name}.path: {features.path!r} does not exist; correct it, or put the file"
                " there"
            )


def _key(name: str, source: Source) -> str:
    return f"sources.{name}.path: {source.path!r}"


def _maker(params: Params, source: str) -> str | None:
    """Return the source from which a stage makes the path of this source; None if no stage makes it."""
    path = params.sources[source].path
    return next((owner for artifact, owner in _artifacts(params) if _is_inside(path, artifact)), None)


def _artifacts(params: Params) -> Iterator[tuple[Path, str | None]]:
    """Yield the artifacts of all stages, each with the source that it is made from; None for several."""
    for name in params.sources:
        yield paths.raw(name), name
    for name, dataset in params.datasets.items():
        for artifact in (paths.tokenizer(name), paths.encoded(name), paths.record("encode", name)):
            yield artifact, dataset.source
    for name, run in params.runs.items():
        source = params.datasets[run.dataset].source
        for artifact in (paths.model(name), paths.samples(name), paths.evaluation(name), paths.metrics("train", name)):
            yield artifact, source
    yield paths.REPORT, None
    yield paths.RESULTS / "likelihood.csv", None  # All tables are in this folder.


def _is_inside(path: str | Path, folder: str | Path) -> bool:
    return Path(path).resolve().is_relative_to(Path(folder).resolve())
