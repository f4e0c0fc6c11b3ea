"""Checks of the working copy before anything runs: the sources' paths, and the folders that stages write to."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mdpipe.params import Params
from mdpipe.params.sources import Source
from mdpipe.pipeline import paths

MAX_LISTED = 3
"""Read-only paths that the error lists by name; the others are counted."""


def require_usable(params: Params, *, with_sources: bool) -> None:
    """Raise ValueError with a line for each problem of the working copy and of the sources' paths.

    Args:
        params: what would run.
        with_sources: whether the sources' files must be here, too. They are not needed if the artifacts were fetched.
    """
    missing = missing_paths(params, params.sources) if with_sources else ()
    if problems := [
        *home_problems(),
        *working_copy_problems(params),
        *_circular_paths(params),
        *_ignored_paths(params),
        *missing,
    ]:
        raise ValueError("\n".join(problems))


def home_problems() -> Iterator[str]:
    """Yield why DVC, git or Snakemake cannot keep in HOME what they do: they end in a traceback."""
    home = Path.home()
    if not (there := nearest_existing(home)).is_dir():
        yield f"HOME is {str(home)!r}, and {there} is a file; set HOME to a folder, which DVC, git and Snakemake need"
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache", "snakemake")
    if not os.access(nearest_existing(cache), os.W_OK):
        yield f"Snakemake cannot write its cache to {str(cache)!r}; set XDG_CACHE_HOME to a folder that can be written"


def nearest_existing(path: Path) -> Path:
    """Return the path, or the nearest folder or file above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if os.path.exists(place))  # noqa: PTH110 (pathlib raises where it may not look)


def require_writable(places: Iterable[Path]) -> None:
    """Pass if files can be made in the folders, or where they will be, and the files among the places can be written.

    Raises:
        ValueError: some are read-only, which an engine would notice late, or report without a remedy.
    """
    existing = set(map(nearest_existing, places))
    if closed := sorted(os.path.relpath(place) for place in existing if not os.access(place, _modes(place))):
        more = f" and {len(closed) - MAX_LISTED} more" if len(closed) > MAX_LISTED else ""
        raise ValueError(
            f"cannot write in {', '.join(closed[:MAX_LISTED])}{more}, where stages keep files: change owner or mode,"
            " or, on a read-only disk, how it is mounted"
        )


def state_folders() -> list[Path]:
    """Return .mdpipe and its folders, which every stage may write to."""
    state = paths.ENGINE_LOCK.parent
    return [state, *(path for path in state.glob("*") if path.is_dir())]


def dvc_places() -> list[Path]:
    """Return what DVC writes after a stage: its cache, its state and dvc.lock."""
    from dvc.config import Config  # A machine without DVC can run stages, too.

    folder = Path(".dvc")
    cache = Path(Config(dvc_dir=str(folder))["cache"].get("dir") or folder / "cache")
    objects = [cache / "runs", cache / "files" / "md5", *(cache / "files" / "md5").glob("*")]
    return [cache, *objects, folder / "tmp", Path("dvc.lock")]


def working_copy_problems(params: Params) -> Iterator[str]:
    """Yield what keeps DVC from recording any stage: it says so only after the stage has run."""
    here = Path.cwd()
    if set("{}") & set(str(here)):
        yield f"the working copy is at {str(here)!r}: DVC takes no braces in a path; rename the folder that has them"
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
    """Yield which sources are read from what is made from them."""
    artifacts = list(_artifacts(params))
    for name, source in params.sources.items():
        before, seen = _maker(params, name), set[str]()
        while before is not None and before not in seen | {name}:
            seen.add(before)
            before = _maker(params, before)
        inside = [artifact for artifact, _ in artifacts if _is_inside(artifact, source.path)]
        if before is not None:
            yield f"{_key(name, source)} is made from the source itself; name files that are not"
        elif inside and not seen:
            yield f"{_key(name, source)} contains {inside[0]}, which the pipeline writes; put its files elsewhere"


def _ignored_paths(params: Params) -> Iterator[str]:
    """Yield which sources are hidden from DVC; on a machine without DVC, none."""
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
            yield f"{_key(name, source)} is hidden from DVC by {rule}; change that line, or put the files elsewhere"


def missing_paths(params: Params, names: Iterable[str]) -> Iterator[str]:
    """Yield which of the named sources have no files, and will have none."""
    for name in names:
        source = params.sources[name]
        if not Path(source.path).exists() and _maker(params, name) is None:
            yield f"{_key(name, source)} does not exist; correct it, or put the files there"


def _key(name: str, source: Source) -> str:
    return f"sources.{name}.path: {source.path!r}"


def _maker(params: Params, source: str) -> str | None:
    """Return the source from whose data the pipeline makes the path of this one; None where it is a user's."""
    path = params.sources[source].path
    return next((owner for artifact, owner in _artifacts(params) if _is_inside(path, artifact)), None)


def _artifacts(params: Params) -> Iterator[tuple[Path, str | None]]:
    """Yield what the stages write, with the source that it is made from where it is one."""
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
    yield paths.RESULTS / "likelihood.csv", None  # The other tables are beside it.


def _is_inside(path: str | Path, folder: str | Path) -> bool:
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


def _modes(place: Path) -> int:
    return os.W_OK | os.X_OK if place.is_dir() else os.W_OK
