"""Bytes to text, under a policy for what is broken."""

import re
from collections import Counter
from typing import Literal

Policy = Literal["error", "replace", "skip"]
"""What to do with bytes that are no UTF-8, and with half a surrogate pair in JSON: refuse them, put U+FFFD, or leave
the document out. The last two are counted."""
HALF_A_PAIR = re.compile("[\ud800-\udfff]")
"""Of surrogates. Escapes can spell one, but UTF-8 cannot."""


def decoded(raw: bytes, policy: Policy, counts: Counter[str], where: str, first_byte: int = 0) -> str | None:
    """The text of bytes that stand at `first_byte` of a file, or None where it is to be left out.

    Raises:
        ValueError: they are not UTF-8 and the policy is "error"; the message begins with `where` and names the byte.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if policy != "error":
            return _mended(raw.decode("utf-8", errors="replace"), policy, counts)
        raise ValueError(
            f"{where} is not UTF-8: byte {first_byte + error.start} is 0x{raw[error.start]:02x} ({error.reason});"
            " convert it, for example with `iconv -f ENCODING -t UTF-8`, or set the source's `broken_utf8` in"
            " params.yaml to replace or skip"
        ) from None


def without_half_pairs(text: str, policy: Policy, counts: Counter[str], where: str) -> str | None:
    """Return a text that escapes were resolved in, or None if it is to be left out.

    Raises:
        ValueError: it has half a surrogate pair and the policy is "error"; the message begins with `where`.
    """
    if not HALF_A_PAIR.search(text):
        return text
    if policy != "error":
        return _mended(HALF_A_PAIR.sub("\ufffd", text), policy, counts)
    raise ValueError(
        f"{where} has half a surrogate pair, which UTF-8 cannot hold; correct it, or set the source's `broken_utf8` in"
        " params.yaml to replace or skip"
    )


def _mended(text: str, policy: Policy, counts: Counter[str]) -> str | None:
    counts[f"documents with broken UTF-8 {'replaced' if policy == 'replace' else 'left out'}"] += 1
    return text if policy == "replace" else None
