"""Picture files of the user's own: 8 bits a channel, grey or RGB, all of one size."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

import numpy as np

from mdpipe.data.raw.material import Pictures
from mdpipe.data.sources.extents import PartOf
from mdpipe.data.sources.files import FileGroup, Found, in_groups, matching_files
from mdpipe.data.sources.pictures import BATCH, Alike, Mode, Wanted

SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing")
"""Names of folders, in lower case, that are splits and no classes."""


@dataclass(frozen=True)
class PictureFiles(PartOf[FileGroup]):
    """Some picture files."""

    labels: tuple[int, ...] | None
    class_names: tuple[str, ...]
    wanted: Wanted

    def read(self, counts: Counter[str]) -> Iterator[Pictures]:
        """The pictures in order, in batches.

        Raises:
            ValueError: one cannot be read, or differs from the first in size or mode.
        """
        counts["files"] += len(self.extent.files)
        alike = Alike(self.wanted, counts)
        for start in range(0, len(self.extent.files), BATCH):
            files = [found.file for found in self.extent.files[start : start + BATCH]]
            images = alike.stacked((str(file), file) for file in files)
            labels = None if self.labels is None else np.array(self.labels[start : start + BATCH], dtype=np.int64)
            yield Pictures(images, None, 255, labels, self.class_names)


def parts(
    path: Path,
    pattern: str | Mapping[str, str],
    labels: Literal["folder"] | None,
    mode: Mode | None,
    resize: int | None,
) -> list[PictureFiles]:
    """The pictures of a folder, or a single one, in the order of their names.

    Args:
        path: the folder, or a single picture.
        pattern: a glob of the files that count, or one for each of the source's own splits.
        labels: "folder" for the name of the sub-folder that a picture lies in, however deep, or None for pictures
            without labels. Classes are numbered in the order of these names.
        mode: what pictures are converted to, or None to refuse those that are neither grey nor RGB.
        resize: edge of the squares that they are cut and shrunk to, or None for pictures of one size.

    Raises:
        ValueError: no file fits, one that needs a label lies in no sub-folder, or sub-folders are splits.
    """
    files = matching_files(path, pattern)
    names = [_folder(path, found, pattern) for found in files] if labels else []
    classes = sorted(set(names))
    _refuse_splits(path, pattern, classes)
    number_of = {name: number for number, name in enumerate(classes)}
    found_parts = []
    for group in in_groups(files):
        numbers = tuple(number_of[_folder(path, found, pattern)] for found in group.files) if labels else None
        found_parts.append(PictureFiles(group, numbers, tuple(classes), Wanted(mode, resize)))
    return found_parts


def _folder(path: Path, found: Found, pattern: str | Mapping[str, str]) -> str:
    """The first folder below what the pattern states: cat for "train/*/*.png" and train/cat/7.png."""
    stated = pattern if isinstance(pattern, str) else pattern.get(found.split or "", "")
    folders = found.name.split("/")[len(_stated_folders(stated)) : -1]
    if not folders:
        raise ValueError(
            f"{found.name} in {path} lies in no sub-folder that could be its label; move it into one, narrow the"
            " source's `pattern` in params.yaml to '*/*', or set its `labels` to null"
        )
    return folders[0]


def _stated_folders(pattern: str) -> list[str]:
    """The folders that a pattern names."""
    return list(takewhile(lambda part: not set(part) & set("*?["), pattern.split("/")[:-1]))


def _refuse_splits(path: Path, pattern: str | Mapping[str, str], classes: Sequence[str]) -> None:
    """Pass unless the splits of a source would be its classes; among others, a class may well be called train."""
    splits = [name for name in classes if name.lower() in SPLIT_NAMES]
    if not splits or (len(splits) == 1 and len(classes) > 1):
        return
    glob = pattern if isinstance(pattern, str) else next(iter(pattern.values()))
    below, file = _stated_folders(glob), glob.rpartition("/")[2]
    written = ", ".join(f'{name}: "{"/".join([*below, name, "*", file])}"' for name in splits)
    raise ValueError(
        f"the folders {', '.join(splits)} in {path} would be the classes, but are splits by their names; to have the"
        f" folders below them as classes, set the source's `pattern` in params.yaml to {{{written}}}"
    )
