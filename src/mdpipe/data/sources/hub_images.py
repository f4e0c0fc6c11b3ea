"""Pictures of a data set on a hub, by its name and through `datasets`: one a row."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mdpipe.data.raw.material import Pictures
from mdpipe.data.sources.hub import HubRows, hub_tables
from mdpipe.data.sources.image_table import picture_batches
from mdpipe.data.sources.pictures import Mode, Wanted


@dataclass(frozen=True)
class HubPictures:
    """Some rows with pictures."""

    table: HubRows
    image: str
    label: str | None
    class_names: tuple[str, ...]
    wanted: Wanted

    @property
    def split(self) -> str:
        """The split's name on the hub."""
        return self.table.split

    @property
    def size(self) -> int:
        """Bytes, about."""
        return self.table.size

    def read(self, counts: Counter[str]) -> Iterator[Pictures]:  # noqa: ARG002
        """The pictures in order, in batches.

        Raises:
            ValueError: as `picture_batches`.
        """
        rows = ((name, {**values, self.image: _content(values[self.image])}) for name, values in self.table.rows())
        yield from picture_batches(rows, self.image, self.label, self.class_names, self.wanted)


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
) -> list[HubPictures]:
    """The pictures of these splits.

    Raises:
        ValueError: the data set cannot be had, or has no such configuration, split or column.
    """
    columns = [image] if label is None else [image, label]
    tables = hub_tables(downloads, name, config, splits, columns, revision)
    found = []
    for table in tables:
        names = () if label is None else tuple(getattr(table.table.features[label], "names", ()))
        found.append(HubPictures(table, image, label, names, Wanted(mode, resize)))
    return found


def _content(value: object) -> object:
    """Of a data set that consists of picture files, `datasets` keeps no more than where they are."""
    if isinstance(value, dict) and value.get("bytes") is None and value.get("path") is not None:
        return Path(value["path"]).read_bytes()
    return value
