"""From what params say of packing to what `data` knows."""

from mdpipe.data.encoding.packing import CONVENTIONS
from mdpipe.data.encoding.packing import Packing as Convention
from mdpipe.params.data import Packing


def packed(stated: Packing) -> Convention:
    """How documents become windows."""
    return CONVENTIONS[stated] if isinstance(stated, str) else Convention(**stated.model_dump())
