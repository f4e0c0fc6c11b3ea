"""Text behind a URL with a checksum: a plain file, a packed one, or a member of a zip archive."""

from pathlib import Path

from mdpipe.data.sources.archives import member_of
from mdpipe.data.sources.decoding import Policy
from mdpipe.data.sources.fetch import fetch
from mdpipe.data.sources.files import Found
from mdpipe.data.sources.jsonl import JsonLines
from mdpipe.data.sources.lines import line_ranges
from mdpipe.data.sources.rows import Empty, Rows
from mdpipe.data.sources.text_files import Files, Lines, Unit, text_parts
from mdpipe.data.work.progress import Progress
from mdpipe.messages import without_secrets


def parts(
    downloads: Path,
    url: str,
    sha256: str | None,
    member: str | None,
    field: str | None,
    documents: Unit,
    broken_utf8: Policy,
    empty_rows: Empty,
    detokenizer: str | None,
) -> list[JsonLines] | list[Files] | list[Lines]:
    """Fetch it, unless it is there already, and cut it into parts.

    Args:
        downloads: where it is kept.
        url: http or https.
        sha256: of what is fetched, in hexadecimal; None to take it as it comes.
        member: the file of a zip archive that is meant, or None for no archive.
        field: for JSON lines the key of the text, or None for plain text.
        documents: whether a plain text or each of its lines is a document.
        broken_utf8: what to do with bytes that are no UTF-8.
        empty_rows: what to do with lines without text.
        detokenizer: a name in `DETOKENIZERS`, or None.

    Raises:
        ValueError: it cannot be fetched, is not what it should be, or the archive has no such member.
    """
    with Progress(f"fetching {without_secrets(url)}", None) as progress:

        def told(done: int, total: int | None) -> None:
            progress.total = total
            progress.advance(done - progress.done)

        file = fetch(url, sha256, downloads, progress=told)
    if member is not None:
        file = member_of(file, member, downloads)
    found = [Found(file.name.partition("-")[2] or file.name, file, None)]
    rows = Rows(empty_rows, detokenizer)
    if field is not None:
        return [JsonLines(lines, broken_utf8, rows, field) for lines in line_ranges(found)]
    return text_parts(found, documents, broken_utf8, rows)
