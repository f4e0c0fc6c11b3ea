"""Evaluation windows found in the training text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.data.tokenize import manifest
from mdpipe.data.tokenize.manifest import WINDOW, find_hashes, window_hashes

SENTENCE = "The quick brown fox jumps over the lazy dog, and then it sleeps until noon."


def texts(letters="ab\U0001f600"):
    """Texts of few letters with runs and periods, so that windows recur within a text and between two."""
    runs = st.builds(lambda word, times: word * times, st.text(letters, min_size=1, max_size=3), st.integers(1, 60))
    return st.lists(runs, max_size=5).map("".join)


def windows_of(text, step):
    return [text[start : start + WINDOW] for start in range(0, len(text) - WINDOW + 1, step)]


def hashes_of(windows):
    return np.array([window_hashes(window, 1)[0] for window in windows], np.uint64)


def looked_for(*documents):
    return np.concatenate([window_hashes(document) for document in documents] or [np.empty(0, np.uint64)])


def wanted(windows):
    """Their hashes as `find_hashes` takes them."""
    return np.unique(windows)


@given(text=texts(), step=st.integers(1, 120), block=st.integers(WINDOW, 200))
def test_a_window_has_its_hash_at_any_position(text, step, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "HASHED_CHARS", block)
        assert np.array_equal(window_hashes(text, step), hashes_of(windows_of(text, step)))


@given(window=st.text(min_size=WINDOW, max_size=WINDOW))
def test_the_hash_is_the_polynomial_of_the_mixed_characters(window):
    """In integers of any size, brought below 2^64 at the end of each step."""

    def mixed(character):
        number = (ord(character) + 1) * 0x9E3779B97F4A7C15 % 2**64
        number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        number = (number ^ (number >> 27)) * 0x94D049BB133111EB % 2**64
        return number ^ (number >> 31)

    expected = sum(mixed(character) * 0xD1342543DE82EF95**power for power, character in enumerate(window)) % 2**64
    assert window_hashes(window, 1).tolist() == [expected]


@given(text=texts())
def test_different_windows_have_different_hashes(text):
    assert len(np.unique(window_hashes(text, 1))) == len(set(windows_of(text, 1)))


@given(
    documents=st.lists(texts(), max_size=3),
    training=texts(),
    copied=st.integers(0, 200),
    block=st.integers(WINDOW, 200),
)
def test_the_fraction_is_that_of_the_windows_that_are_substrings(documents, training, copied, block):
    training += "".join(documents)[copied:]
    windows = looked_for(*documents)
    expected = [window for document in documents for window in windows_of(document, WINDOW)]
    present = [window for window in expected if window in training]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "HASHED_CHARS", block)
        found = find_hashes(training, wanted(windows))
    assert np.array_equal(found, np.unique(hashes_of(present)))
    assert np.isin(windows, found).sum() == len(present)


@pytest.mark.parametrize("before", range(2 * WINDOW))
def test_a_window_that_spans_a_block_boundary_is_found(before, monkeypatch):
    monkeypatch.setattr(manifest, "HASHED_CHARS", WINDOW + 14)
    windows = looked_for(SENTENCE[:WINDOW])
    assert len(find_hashes("x" * before + SENTENCE + "x" * WINDOW, wanted(windows))) == 1


def test_a_window_is_found_in_a_text_of_many_blocks():
    windows = looked_for(SENTENCE)
    filler = "x" * (2 * manifest.HASHED_CHARS)
    assert len(find_hashes(filler, wanted(windows))) == 0
    assert len(find_hashes(filler + SENTENCE + filler, wanted(windows))) == 1


def test_characters_beyond_the_basic_plane_and_surrogates_count():
    window = "\U0001f600\U00010348\ud800" * WINDOW
    windows = looked_for(window[:WINDOW])
    assert len(windows) == 1
    assert len(find_hashes("a" + window, wanted(windows))) == 1
    assert len(find_hashes(window.replace("\U0001f600", "\uf600"), wanted(windows))) == 0


def test_a_character_more_or_less_is_another_window():
    windows = looked_for(SENTENCE[:WINDOW])
    assert len(find_hashes(SENTENCE[:WINDOW], wanted(windows))) == 1
    assert len(find_hashes(SENTENCE[: WINDOW - 1], wanted(windows))) == 0
    assert len(find_hashes(SENTENCE[1:], wanted(windows))) == 0


@pytest.mark.parametrize("text", ["", "a", "a" * (WINDOW - 1)])
def test_a_text_shorter_than_a_window_has_none(text):
    windows = looked_for(text)
    assert len(windows) == len(wanted(windows)) == 0
    assert len(find_hashes(text, wanted(looked_for(SENTENCE)))) == 0
    assert len(find_hashes(SENTENCE, wanted(windows))) == 0


@pytest.mark.parametrize(("length", "count"), [(WINDOW, 1), (2 * WINDOW - 1, 1), (2 * WINDOW, 2), (7 * WINDOW + 3, 7)])
def test_windows_follow_each_other_and_a_rest_is_none(length, count):
    assert len(looked_for("a" * length)) == count


def test_windows_do_not_reach_from_a_document_into_the_next():
    assert len(looked_for("a" * (WINDOW - 1), "a" * (WINDOW - 1))) == 0


def test_repeated_windows_count_as_often_as_they_occur():
    windows = looked_for("a" * (3 * WINDOW), SENTENCE[:WINDOW])
    assert len(windows) == 4
    assert len(wanted(windows)) == 2
    assert np.isin(windows, find_hashes("a" * WINDOW, wanted(windows))).mean() == 3 / 4
