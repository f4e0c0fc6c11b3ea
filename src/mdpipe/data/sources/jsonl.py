"""JSON lines of the user's own, packed or not: one document a line, its text under one key."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mdpipe.data.raw.material import Document
from mdpipe.data.sources.decoding import Policy, without_half_pairs
from mdpipe.data.sources.files import matching_files
from mdpipe.data.sources.formats import refuse_other_formats
from mdpipe.data.sources.line_documents import LineDocuments
from mdpipe.data.sources.lines import line_ranges
from mdpipe.data.sources.rows import Empty, Rows
from mdpipe.messages import reason


@dataclass(frozen=True)
class JsonLines(LineDocuments):
    """Some lines of a file, each a JSON object; blank ones do not count."""

    field: str

    def document(self, name: str, line: str, counts: Counter[str]) -> Document | None:
        """The document of a line.

        Raises:
            ValueError: it is no JSON object, or has no text under the field.
        """
        if not line.strip():
            return None
        where = f"the field {self.field!r}"
        text = without_half_pairs(_text(line, self.field), self.broken_utf8, counts, where)
        return None if text is None else self.rows.document(name, text, counts, where)


def parts(
    path: Path,
    pattern: str | Mapping[str, str],
    field: str,
    broken_utf8: Policy,
    empty_rows: Empty,
    detokenizer: str | None,
) -> list[JsonLines]:
    """Ranges of lines of a file, or of a folder's files that fit.

    Raises:
        ValueError: no file is found.
    """
    rows = Rows(empty_rows, detokenizer)
    # By name and colon, as in the documents' names, because "a-b" sorts before "a:" but after "a".
    files = sorted(matching_files(path, pattern), key=lambda found: (found.split or "", f"{found.name}:"))
    refuse_other_formats(files, "jsonl")
    return [JsonLines(lines, broken_utf8, rows, field) for lines in line_ranges(files)]


class _RepeatedError(ValueError):
    """A key is in an object twice."""


def _without_repeated(field: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs) and sum(key == field for key, _ in pairs) > 1:
        raise _RepeatedError(f"there are two fields {field!r}; correct or remove the line")
    return entry


def _text(line: str, field: str) -> str:
    if line.lstrip().startswith("["):
        raise ValueError("this begins a JSON array; write one object a line, for example with `jq -c '.[]' FILE`")
    try:
        entry = json.loads(line, object_pairs_hook=partial(_without_repeated, field))
    except _RepeatedError as error:
        raise ValueError(error.args[0]) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is no JSON ({reason(error)}); correct the line") from None
    if not isinstance(entry, dict):
        raise ValueError(f"this is no JSON object but {type(entry).__name__}; write {{{field!r}: text}} a line")  # noqa: TRY004
    if field not in entry:
        keys = ", ".join(map(repr, entry)) or "none"
        raise ValueError(f"there is no field {field!r}, only {keys}; correct the source's `field` or the line")
    text = "" if entry[field] is None else entry[field]
    if not isinstance(text, str):
        raise ValueError(f"there is no text under {field!r} but {text!r:.60}; correct or remove the line")  # noqa: TRY004
    return text
