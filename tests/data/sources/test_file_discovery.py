"""Which files of a folder a source reads: of text and of images, and for every other kind of file."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mdpipe.data.sources.files import find_files
from mdpipe.params import parse_params
from mdpipe.pipeline.run_hash import hash_source
from tests.data.sources.source_contents import documents_of, images_of

LITTER = [
    ".ipynb_checkpoints/a.txt",
    "deep/.ipynb_checkpoints/a.txt",
    ".a.txt",
    "deep/._a.txt",
    "__MACOSX/a.txt",
    "deep/__MACOSX/deeper/a.txt",
    "Thumbs.db",
    "deep/desktop.ini",
    ".git/objects/a.txt",
]


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def names(folder, pattern="**/*"):
    return [found.name for found in find_files(folder, pattern)]


@pytest.mark.parametrize("pattern", ["**/*", "**", "**/*.*", "*/*", "*", "*/*/*", "?*/**"])
def test_hidden_files_and_what_systems_leave_behind_are_no_data(tmp_path, pattern):
    put(tmp_path, "b.txt", "deep/b.txt", "deep/deeper/b.txt")
    expected = names(tmp_path, pattern)
    put(tmp_path, *LITTER)
    assert names(tmp_path, pattern) == expected


def test_a_pattern_can_name_what_is_hidden(tmp_path):
    put(tmp_path, "a/b.txt", *LITTER)
    assert names(tmp_path, ".ipynb_checkpoints/*.txt") == [".ipynb_checkpoints/a.txt"]
    assert names(tmp_path, "**/.*.txt") == [".a.txt", "deep/._a.txt"]
    assert names(tmp_path, "**/__MACOSX/**/*.txt") == ["__MACOSX/a.txt", "deep/__MACOSX/deeper/a.txt"]


def test_a_source_may_be_in_a_hidden_folder(tmp_path):
    put(tmp_path / ".cache" / "corpus", "a.txt")
    assert names(tmp_path / ".cache" / "corpus") == ["a.txt"]


def test_a_hidden_folder_is_no_class_of_images(tmp_path):
    """It would come first and move the numbers of all others."""
    for name in ("cat/a", "dog/a", ".ipynb_checkpoints/a-checkpoint", "cat/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / f"{name}.png")
    images = images_of("image_folder", tmp_path, pattern="*/*.png", labels="folder")
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 1]


@pytest.mark.parametrize("pattern", ["**/*.txt", "*/*.txt", "b/*.txt"])
def test_linked_folders_are_followed(tmp_path, pattern):
    put(tmp_path, "t/a/0.txt", "disk/1.txt", "disk/deep/2.txt")
    (tmp_path / "t" / "b").symlink_to("../disk")
    expected = {"**/*.txt": ["a/0.txt", "b/1.txt", "b/deep/2.txt"], "*/*.txt": ["a/0.txt", "b/1.txt"]}
    assert names(tmp_path / "t", pattern) == expected.get(pattern, ["b/1.txt"])
    read = [document.name for document in documents_of("text", tmp_path / "t", pattern=pattern)]
    assert read == names(tmp_path / "t", pattern)


def test_a_linked_folder_of_images_is_a_class(tmp_path):
    for name in ("t/cat/a.png", "disk/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / name)
    (tmp_path / "t" / "dog").symlink_to(tmp_path / "disk")
    images = images_of("image_folder", tmp_path / "t", pattern="**/*.png", labels="folder")
    assert images.class_names == ("cat", "dog")


def test_links_that_lead_back_end_and_give_every_file_once(tmp_path):
    put(tmp_path, "a/0.txt", "a/deep/1.txt", "2.txt")
    for link, target in (("a/up", ".."), ("a/deep/self", "."), ("again", "."), ("a/deep/top", tmp_path)):
        (tmp_path / link).symlink_to(target)
    assert names(tmp_path, "**/*.txt") == ["2.txt", "a/0.txt", "a/deep/1.txt"]


@pytest.mark.parametrize("link", ["a/gone.txt", "a/disk", "disk"])
def test_a_link_that_leads_nowhere_is_named(tmp_path, link):
    put(tmp_path, "a/0.txt")
    (tmp_path / link).symlink_to("/not/mounted")
    with pytest.raises(ValueError, match=rf"{link} is a broken link; restore"):
        names(tmp_path, "**/*.txt")


def test_a_link_that_leads_nowhere_and_does_not_fit_does_no_harm(tmp_path):
    put(tmp_path, "a/0.txt")
    (tmp_path / ".#lock").symlink_to("gone")
    (tmp_path / "gone").symlink_to("/not/mounted")
    assert names(tmp_path, "a/*.txt") == ["a/0.txt"]


PARTS = st.sampled_from(["a", "b", "ab", "*", "?", "a*", "**"])


@given(pattern=st.lists(PARTS, min_size=1, max_size=4).filter(lambda parts: parts[-1] != "**").map("/".join))
def test_patterns_choose_the_files_that_pathlib_chooses(tmp_path_factory, pattern):
    """Where nothing is hidden or linked."""
    folder = tmp_path_factory.getbasetemp() / "tree"
    if not folder.exists():
        put(folder, "a/a/a/a", "a/a/b", "a/b", "ab/a", "ab/ab/b", "b/a/ab", "c", "ba")
    expected = sorted(file.relative_to(folder).as_posix() for file in set(folder.glob(pattern)) if file.is_file())
    try:
        found = names(folder, pattern)
    except ValueError as error:
        assert "no file in the folder" in str(error)
        found = []
    assert found == expected


def test_a_changed_file_behind_a_link_changes_the_hash(tmp_path):
    put(tmp_path, "t/0.txt", "disk/1.txt")
    (tmp_path / "t" / "b").symlink_to("../disk")
    (tmp_path / "t" / "loop").symlink_to(".")
    source = {"kind": "text", "path": str(tmp_path / "t"), "pattern": "**/*.txt", "sample_by": "document"}
    source |= {"decode_errors": "strict", "empty_documents": "error", "detokenizer": None}
    params = parse_params(
        {
            "seed": 0,
            "sources": {"notes": source},
            "datasets": {},
            "runs": {},
            "comparisons": [],
        }
    )
    before = hash_source(params, "notes")
    assert hash_source(params, "notes") == before
    os.utime(tmp_path / "disk" / "1.txt", ns=(0, 0))
    assert hash_source(params, "notes") != before
