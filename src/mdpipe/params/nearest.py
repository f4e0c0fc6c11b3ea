"""The name that was probably meant, of those that exist."""

import difflib
from collections.abc import Iterable

SHORTEST_BEGINNING = 3
"""Letters from which on the beginning of a name is taken for it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'chars_md4'?)`, or nothing where no known name is close; case makes no difference."""
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), list(by_lower_case), n=1)
    if not near and len(name) >= SHORTEST_BEGINNING:
        near = [candidate for candidate in by_lower_case if candidate.startswith(name.lower())]
    return f" (did you mean {by_lower_case[near[0]]!r}?)" if near else ""
