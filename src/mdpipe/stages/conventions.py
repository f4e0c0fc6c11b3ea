"""From what params say of splits and packing to what `data` knows."""

from mdpipe.data import packing, splits
from mdpipe.params.data import Chunks, Held, Last, LastCharacters, Packing


def held_out(stated: Held) -> splits.Held:
    """What is held out."""
    match stated:
        case float():
            return stated
        case str():
            return splits.Named(stated)
        case Last():
            return splits.Last(stated.last)
        case LastCharacters():
            return splits.LastCharacters(stated.last_characters)
        case Chunks():
            return splits.Chunks(stated.chunks)


def packed(stated: Packing) -> packing.Packing:
    """How documents become windows."""
    return packing.CONVENTIONS[stated] if isinstance(stated, str) else packing.Packing(**stated.model_dump())
