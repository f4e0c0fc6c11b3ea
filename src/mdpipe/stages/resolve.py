"""Stage `resolve`: params.yaml with all defaults filled in, which all other stages read and DVC watches.

A run with `seeds` becomes one run per seed. The first has the name that params.yaml has, where DVC's templates find it;
they find the others in params.replicates.yaml. DVC fills in its templates before it runs any stage, so that a changed
list of seeds needs another start of `dvc repro`.

A setting that params.yaml leaves out is a value like any other: a new default in the code changes the resolved file,
and makes exactly the stages stale that use it.
"""

import logging
import os
from pathlib import Path

from mdpipe.data.artifacts.files import atomic_write
from mdpipe.params import RESOLVED_PARAMS_FILE, Params, dump_params
from mdpipe.params.root import REPLICATES_FILE, ParamsError, dump_replicates, read_params
from mdpipe.pipeline import paths
from mdpipe.pipeline.preflight import missing_paths, unfit_sources
from mdpipe.processes import DVC_MARK

logger = logging.getLogger(__name__)


def resolve(params: Params) -> None:
    """Write params.resolved.yaml and params.replicates.yaml, unless they are up to date.

    Sources whose files are missing or do not fit their settings are logged: DVC itself names neither the key nor a
    remedy when it cannot read a dependency, and may train for hours before it reads a source. They are not refused,
    since DVC may be asked for stages that read others.

    Raises:
        ParamsError: DVC runs the stage, and has read its templates with another list of runs.
    """
    unread = [name for name in params.sources if not paths.raw(name).exists()]
    for problem in (*missing_paths(params, unread), *unfit_sources(params, unread)):
        logger.warning("%s", problem)
    write_if_changed(RESOLVED_PARAMS_FILE, dump_params(params))
    if write_replicates(params) and DVC_MARK in os.environ:
        raise ParamsError(
            f"`seeds` asks for other runs than {REPLICATES_FILE} had when DVC started; it has them now: run the same"
            " command again"
        )


def write_replicates(params: Params) -> bool:
    """Write params.replicates.yaml, and return True if it was not up to date."""
    return write_if_changed(REPLICATES_FILE, dump_replicates(params, read_params()))


def write_if_changed(file: Path, content: str) -> bool:
    """Write a file unless it has this content, and return True if it was written."""
    if file.exists() and file.read_bytes() == content.encode():
        return False
    atomic_write(file, content.encode())
    return True
