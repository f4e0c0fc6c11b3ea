"""The repository of the current folder, as DVC knows it."""

from collections.abc import Iterator
from contextlib import contextmanager

from dvc.exceptions import DvcException
from dvc.repo import Repo


@contextmanager
def open_repository() -> Iterator[Repo]:
    """Open the repository and read its dvc.yaml and dvc.lock where they are needed.

    Raises:
        ValueError: this is no repository, or DVC cannot read it or is at work in it.
    """
    try:
        with Repo() as repo:
            yield repo
    except DvcException as error:
        raise ValueError(f"DVC: {' '.join(str(error).split())}") from None
