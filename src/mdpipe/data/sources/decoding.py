"""Bytes to text, under a policy for what is broken."""

from collections import Counter
from typing import Literal

Policy = Literal["error", "replace", "skip"]
"""What to do with bytes that are no UTF-8: refuse them, put U+FFFD, or leave the document out. The last two are
counted."""


def decoded(raw: bytes, policy: Policy, counts: Counter[str], where: str, first_byte: int = 0) -> str | None:
    """The text of bytes that stand at `first_byte` of a file, or None where it is to be left out.

    Raises:
        ValueError: they are not UTF-8 and the policy is "error"; the message begins with `where` and names the byte.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if policy == "replace":
            counts["documents with broken UTF-8 replaced"] += 1
            return raw.decode("utf-8", errors="replace")
        if policy == "skip":
            counts["documents with broken UTF-8 left out"] += 1
            return None
        raise ValueError(
            f"{where} is not UTF-8: byte {first_byte + error.start} is 0x{raw[error.start]:02x} ({error.reason});"
            " convert it, for example with `iconv -f ENCODING -t UTF-8`, or set the source's `broken_utf8` in"
            " params.yaml to replace or skip"
        ) from None
