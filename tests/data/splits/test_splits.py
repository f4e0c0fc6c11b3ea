"""Splits never overlap."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mdpipe.data.raw import KEY
from mdpipe.data.splits import SPLITS, find_thresholds, hash_keys, hash_split, require_documents, training_texts
from mdpipe.params.data import Splits
from tests.data.builders import plan_splits
from tests.data.shards import splits_of

fractions = st.integers(1, 40).map(lambda percent: percent / 100)
keys = st.lists(st.text("abc", max_size=3), min_size=8, max_size=60)


def assign_splits(keys, seed, validation, test):
    hashes = hash_keys(np.array(keys, dtype=KEY), seed)
    return hash_split(hashes, *find_thresholds(hashes, validation, test, "text")).tolist()


def enough(keys, validation, test):
    count = len(set(keys))
    return math.ceil(validation * count) + math.ceil(test * count) < count


@given(keys=keys, seed=st.integers(0, 9), validation=fractions, test=fractions)
def test_things_that_share_a_key_share_a_split(keys, seed, validation, test):
    assume(enough(keys, validation, test))
    splits = assign_splits(keys, seed, validation, test)
    by_split = {name: {key for key, split in zip(keys, splits, strict=True) if split == name} for name in SPLITS}
    assert sum(len(members) for members in by_split.values()) == len(set(keys))


@given(keys=keys, validation=fractions, test=fractions)
def test_fractions_are_rounded_up(keys, validation, test):
    assume(enough(keys, validation, test))
    distinct = sorted(set(keys))
    splits = assign_splits(distinct, 0, validation, test)
    assert splits.count("validation") == math.ceil(Fraction(str(validation)) * len(distinct))
    assert splits.count("test") == math.ceil(Fraction(str(test)) * len(distinct))


def test_a_fraction_means_its_decimal():
    """0.07 * 100 is 7.000000000000001 in floating point."""
    assert assign_splits([str(index) for index in range(100)], 0, 0.07, 0.1).count("validation") == 7


@given(keys=keys, seed=st.integers(0, 9), data=st.data())
def test_a_key_s_split_does_not_depend_on_order_or_copies(keys, seed, data):
    assume(enough(keys, 0.2, 0.2))
    split_of = dict(zip(keys, assign_splits(keys, seed, 0.2, 0.2), strict=True))
    shuffled = data.draw(st.permutations(keys + keys[:3]))
    assert assign_splits(shuffled, seed, 0.2, 0.2) == [split_of[key] for key in shuffled]


def test_seeds_differ():
    keys = [str(index) for index in range(100)]
    assert len({tuple(assign_splits(keys, seed, 0.1, 0.1)) for seed in range(20)}) == 20


@pytest.mark.parametrize(("count", "validation", "test"), [(1, 0.1, 0.1), (2, 0.1, 0.1), (0, 0.1, 0.1), (9, 0.5, 0.5)])
def test_an_empty_split_is_refused(count, validation, test):
    with pytest.raises(ValueError, match=r"cannot be split with validation = .* params\.yaml"):
        assign_splits([str(index) for index in range(count)], 0, validation, test)


@pytest.mark.parametrize(
    ("count", "validation", "test", "modality", "hint"),
    [
        (
            1,
            0.1,
            0.1,
            "text",
            "held-out bits are lower than for new documents), or give more data, in params.yaml",
        ),
        (2, 0.1, 0.1, "text", "use {last_characters: N}, which cuts a document, or {windows: 0.1} (windows of one"),
        (2, 0.6, 0.0, "text", "lower these fractions, or give more data, in params.yaml"),
        (9, 0.5, 0.5, "text", "lower these fractions, or give more data, in params.yaml"),
        (2, 0.1, 0.1, "image", "every split needs at least one; give more data, in params.yaml"),
    ],
)
def test_the_hint_for_an_empty_split_can_help(count, validation, test, modality, hint):
    hashes = hash_keys(np.array([str(index) for index in range(count)], dtype=KEY), 0)
    with pytest.raises(ValueError, match=re.escape(hint)):
        find_thresholds(hashes, validation, test, modality)


@given(count=st.integers(1, 30), validation=fractions, test=fractions)
def test_a_number_is_refused_early_if_no_smaller_one_can_be_split(count, validation, test):
    """Equal documents count once, and which are equal is not known before they are read."""

    def refused(check):
        try:
            check()
        except ValueError as error:
            return str(error)
        return None

    distinct = [[str(index) for index in range(number)] for number in range(1, count + 1)]
    late = [refused(lambda keys=keys: assign_splits(keys, 0, validation, test)) for keys in distinct]
    splits = Splits(validation=validation, test=test)
    early = refused(lambda: require_documents(splits, {None: count}, "text"))
    assert early == (late[-1] if all(late) else None)


def test_copies_of_a_document_share_its_split(raw_text, texts):
    splits = splits_of(raw_text([*texts, *texts, *texts[::2]]), seed=1, validation=0.2, test=0.2)
    assert splits[:40] == splits[40:80]
    assert splits[:40:2] == splits[80:]


def test_the_training_texts_are_those_of_the_training_split(raw_text, texts):
    raw = raw_text([*texts, *texts])
    splits = splits_of(raw, 1, 0.2, 0.2)
    training = list(training_texts(plan_splits(raw, "text", 1, 0.2, 0.2)))
    assert training == [text for text, split in zip([*texts, *texts], splits, strict=True) if split == "train"]
    held_out = {text for text, split in zip(texts, splits[:40], strict=True) if split != "train"}
    assert held_out
    assert not held_out & set(training)
