"""Stage `resolve`: params.yaml with all defaults filled in, which all other stages read and DVC watches.

A setting that params.yaml leaves out is a value like any other: a new default in the code changes the resolved file,
and makes exactly the stages stale that use it.
"""

import logging

from mdpipe.data.artifacts.files import atomic_write
from mdpipe.params import RESOLVED_PARAMS_FILE, Params, dump_params
from mdpipe.pipeline import paths
from mdpipe.pipeline.preflight import missing_paths

logger = logging.getLogger(__name__)


def resolve(params: Params) -> None:
    """Write params.resolved.yaml, unless it is up to date, and warn of sources whose files are missing.

    DVC itself names neither the key nor a remedy when it cannot read a dependency.
    """
    for problem in missing_paths(params, [name for name in params.sources if not paths.raw(name).exists()]):
        logger.warning("%s", problem)
    content = dump_params(params).encode()
    if not RESOLVED_PARAMS_FILE.exists() or RESOLVED_PARAMS_FILE.read_bytes() != content:
        atomic_write(RESOLVED_PARAMS_FILE, content)
