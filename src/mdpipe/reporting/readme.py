"""Generated sections of a hand-written text: what stands between two marker comments is made from the metrics."""


def replace_section(text: str, name: str, body: str) -> str:
    """Put `body` between `<!-- name:begin -->` and `<!-- name:end -->`, each marker on a line of its own.

    Doing it twice changes nothing.

    Raises:
        ValueError: a marker is missing, stands there twice, or the end comes first.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    for marker in (begin, end):
        if (times := text.count(marker)) != 1:
            raise ValueError(f"the text has {times} markers {marker}; it must have exactly one")
    head, rest = text.split(begin)
    if end not in rest:
        raise ValueError(f"the marker {end} stands before {begin}; it must come after")
    tail = rest.split(end)[1]
    return f"{head}{begin}\n{body.strip(chr(10))}\n{end}{tail}"
