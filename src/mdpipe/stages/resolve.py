"""Stage `resolve`: params.yaml with all defaults filled in, which all other stages read and DVC watches.

A run with `seeds` becomes one run per seed. The first has the name that params.yaml has, where DVC's templates find it;
they find the others in params.replicates.yaml. DVC fills in its templates before it runs any stage, so that a changed
list of seeds needs another start of `dvc repro`.

A setting that params.yaml leaves out is a value like any other: a new default in the code changes the resolved file,
and makes exactly the stages stale that use it.
"""

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mdpipe.data.artifacts.files import atomic_write
from mdpipe.params import RESOLVED_PARAMS_FILE, Params, dump_params
from mdpipe.params.root import PARAMS_FILE, REPLICATES_FILE, ParamsError, dump_replicates, read_params
from mdpipe.params.strict_yaml import read_yaml
from mdpipe.pipeline import paths
from mdpipe.pipeline.preflight import missing_paths, unfit_sources
from mdpipe.processes import DVC_MARK

BASELINE = "DVC_EXP_BASELINE_REV"
"""DVC's variable for the commands of an experiment: the commit that it starts from."""

logger = logging.getLogger(__name__)


def resolve(params: Params) -> None:
    """Write params.resolved.yaml and params.replicates.yaml, unless they are up to date.

    Sources whose files are missing or do not fit their settings are logged: DVC itself names neither the key nor a
    remedy when it cannot read a dependency, and may train for hours before it reads a source. They are not refused,
    since DVC may be asked for stages that read others.

    Raises:
        ParamsError: DVC runs the stage, and has read its templates with another list of runs, or it has set a param of
            an experiment without effect.
    """
    if BASELINE in os.environ:
        log_experiment(os.environ[BASELINE])
    unread = [name for name in params.sources if not paths.raw(name).exists()]
    for problem in (*missing_paths(params, unread), *unfit_sources(params, unread)):
        logger.warning("%s", problem)
    write_if_changed(RESOLVED_PARAMS_FILE, dump_params(params))
    if write_replicates(params) and DVC_MARK in os.environ:
        raise ParamsError(
            f"`seeds` asks for other runs than {REPLICATES_FILE} had when DVC started; it has them now: run the same"
            " command again"
        )


def log_experiment(baseline: str) -> None:
    """Log which params of a DVC experiment differ from those of the commit that it starts from.

    DVC writes the value of `-S KEY=VALUE` into a mapping that YAML aliases (`*name`) share for each place in turn: the
    value may be replaced by the former one of another place, or apply to all of them.

    Raises:
        ParamsError: params.yaml was written, and all values are as before.
    """
    found = subprocess.run(["git", "show", f"{baseline}:{PARAMS_FILE}"], capture_output=True, check=False)
    if found.returncode or found.stdout == PARAMS_FILE.read_bytes():
        return
    before, after = (dict(flatten_params(content)) for content in (read_yaml(found.stdout), read_params()))
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    if not changed:
        raise ParamsError(
            f"the experiment changes no param: DVC does not change a value in a mapping that {PARAMS_FILE} shares by an"
            " alias (`*name`); write this mapping out, without the alias"
        )
    for key in changed:
        logger.info("%s: %s, before %s", key, after.get(key, "absent"), before.get(key, "absent"))


def flatten_params(content: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a params file with their dotted keys."""
    if isinstance(content, dict) and content:
        for name, value in content.items():
            yield from flatten_params(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, content


def write_replicates(params: Params) -> bool:
    """Write params.replicates.yaml, and return True if it was not up to date."""
    return write_if_changed(REPLICATES_FILE, dump_replicates(params, read_params()))


def write_if_changed(file: Path, content: str) -> bool:
    """Write a file unless it has this content, and return True if it was written."""
    if file.exists() and file.read_bytes() == content.encode():
        return False
    atomic_write(file, content.encode())
    return True
