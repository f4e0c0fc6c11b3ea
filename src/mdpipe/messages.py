"""Text for people: what files and servers contain, in messages and logs, without harm and without secrets."""

import re

MAX_REASON = 300
"""Characters of a library's message that are worth quoting: some quote a whole row of a file."""
SHOWN_NAMES = 10
"""Names that a message lists."""

_URL = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s/?#]*@)?(?P<rest>[^\s?#'\"<>]*)(?:[?#][^\s'\"<>]*)?")
_REQUEST_TARGET = re.compile(r"(?P<path>(?<=url: )/[^\s?]*)\?[^\s'\"]*")
"""urllib3's name for the target of a request, without its host."""
_PLURAL = re.compile(r"\b(class|document|file|image|row)e?s\b")
_MEMORY_ADDRESS = re.compile(r"\s*<[\w. ]+ (?:object )?at 0x[0-9a-fA-F]+>:?")


def printable(text: str) -> str:
    """Return text in one line whose control, formatting and surrogate characters are escaped as in a Python string.

    So a name from an archive cannot move the cursor, change the colors or forge a line of a log.
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in text)


def printable_lines(text: str) -> str:
    """Return text as `printable` does, with its line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def without_secrets(text: str) -> str:
    """Return text whose URLs have lost user, password, query and fragment, where access tokens are."""
    return _URL.sub(r"\g<scheme>\g<rest>", text)


def reason(error: BaseException) -> str:
    """Return what a library says of an error: one line, without secrets and memory addresses."""
    text = _MEMORY_ADDRESS.sub("", without_secrets(str(error)))
    text = printable(" ".join(_REQUEST_TARGET.sub(r"\g<path>", text).split()))
    return f"{text[:MAX_REASON]}..." if len(text) > MAX_REASON else text or type(error).__name__


def listed_names(names: list[str]) -> str:
    """Return names as a message lists them: quoted, in their order, and at most `SHOWN_NAMES`."""
    shown = ", ".join(map(repr, names[:SHOWN_NAMES])) or "none"
    return f"{shown} and {len(names) - SHOWN_NAMES:,} more" if len(names) > SHOWN_NAMES else shown


def counted(count: int, nouns: str) -> str:
    """Return a count and what is counted, given in the plural: "1 file" and "2,000 files" of "files"."""
    return f"{count:,} {nouns}" if count != 1 else "1 " + _PLURAL.sub(r"\1", nouns, count=1)
