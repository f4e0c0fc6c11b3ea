"""From what params say of splits to what `data` knows."""

from mdpipe.data.splits import held
from mdpipe.params.data import Chunks, Held, Last, LastCharacters


def held_out(stated: Held) -> held.Held:
    """What is held out."""
    match stated:
        case float():
            return stated
        case str():
            return held.Named(stated)
        case Last():
            return held.Last(stated.last)
        case LastCharacters():
            return held.LastCharacters(stated.last_characters)
        case Chunks():
            return held.Chunks(stated.chunks)
