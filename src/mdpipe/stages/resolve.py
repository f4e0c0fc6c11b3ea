"""Stage `resolve`: params.yaml with all defaults filled in, which all other stages read and DVC watches.

A setting that params.yaml leaves out is a value like any other: a new default in the code changes the resolved file,
and makes exactly the stages stale that use it.
"""

from mdpipe.data.artifacts.files import atomic_write
from mdpipe.params import RESOLVED_PARAMS_FILE, Params, dump_params


def resolve(params: Params) -> None:
    """Write params.resolved.yaml; leave the file alone if it is as it should be."""
    content = dump_params(params).encode()
    if not RESOLVED_PARAMS_FILE.exists() or RESOLVED_PARAMS_FILE.read_bytes() != content:
        atomic_write(RESOLVED_PARAMS_FILE, content)
