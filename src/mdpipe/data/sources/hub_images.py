"""Pictures of a data set on a hub, by its name and through `datasets`: one a row."""

from collections.abc import Sequence
from pathlib import Path

from mdpipe.data.sources.hub import hub_tables
from mdpipe.data.sources.image_table import PictureRows
from mdpipe.data.sources.pictures import Mode, Wanted


def parts(
    downloads: Path,
    name: str,
    config: str | None,
    splits: Sequence[str],
    image: str,
    label: str | None,
    revision: str | None,
    mode: Mode | None,
    resize: int | None,
) -> list[PictureRows]:
    """The pictures of these splits.

    Raises:
        ValueError: the data set cannot be had, or has no such configuration, split or column.
    """
    columns = [image] if label is None else [image, label]
    tables = hub_tables(downloads, name, config, splits, columns, revision)
    found = []
    for table in tables:
        names = () if label is None else tuple(getattr(table.table.features[label], "names", ()))
        found.append(PictureRows(table, image, label, names, Wanted(mode, resize)))
    return found
