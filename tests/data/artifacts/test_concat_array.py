"""ConcatArray arrays read like their concatenation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdpipe.data.artifacts.arrays import ConcatArray, concat_arrays

lengths = st.lists(st.integers(0, 5), min_size=1, max_size=6)
row_shapes = st.sampled_from([(), (3,), (2, 1)])
positions = st.none() | st.integers(-30, 30)


def shards_of(lengths, row_shape):
    """Shards of these lengths whose elements are all different."""
    whole = np.arange(sum(lengths) * int(np.prod(row_shape))).reshape(sum(lengths), *row_shape)
    return np.split(whole, np.cumsum(lengths)[:-1])


@given(lengths=lengths, row_shape=row_shapes, first=positions, end=positions)
def test_a_slice_is_that_of_the_concatenation(lengths, row_shape, first, end):
    shards = shards_of(lengths, row_shape)
    found = ConcatArray(shards)[first:end]
    assert np.array_equal(found, np.concatenate(shards)[first:end])
    assert found.shape[1:] == row_shape


@given(lengths=lengths, row_shape=row_shapes, data=st.data())
def test_rows_by_index_are_those_of_the_concatenation(lengths, row_shape, data):
    shards = shards_of(lengths, row_shape)
    count = sum(lengths)
    indices = st.integers(0, max(count - 1, 0))
    rows = np.array(data.draw(st.lists(indices, max_size=12 if count else 0)), dtype=np.int64)
    found = ConcatArray(shards)[rows]
    assert np.array_equal(found, np.concatenate(shards)[rows])
    assert found.shape == (len(rows), *row_shape)


@given(lengths=lengths, row_shape=row_shapes)
def test_length_shape_size_and_type_are_of_the_concatenation(lengths, row_shape):
    shards = shards_of(lengths, row_shape)
    whole, found = np.concatenate(shards), ConcatArray(shards)
    assert (len(found), found.shape, found.size, found.dtype) == (len(whole), whole.shape, whole.size, whole.dtype)
    assert np.array_equal(np.asarray(found), whole)
    assert np.asarray(found, dtype=np.float32).dtype == np.float32


def test_a_slice_within_a_shard_is_not_copied():
    shards = shards_of([4, 4], ())
    assert np.shares_memory(ConcatArray(shards)[5:7], shards[1])


def test_a_single_array_is_given_as_it_is():
    array = np.arange(3)
    assert concat_arrays([array]) is array


@pytest.mark.parametrize("other", [np.zeros(2, np.uint16), np.zeros((2, 3), np.uint8)])
def test_arrays_of_different_types_or_row_shapes_are_refused(other):
    with pytest.raises(ValueError, match="cannot be concatenated"):
        concat_arrays([np.zeros(2, np.uint8), other])


@pytest.mark.parametrize("step", [2, -1])
def test_steps_are_refused(step):
    """They would be taken for a step of one."""
    with pytest.raises(ValueError, match=f"not read in steps of {step}"):
        ConcatArray(shards_of([2, 2], ()))[::step]


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_that_is_no_row_is_refused(index):
    with pytest.raises(IndexError):
        ConcatArray(shards_of([2, 2], ()))[np.array([index])]
