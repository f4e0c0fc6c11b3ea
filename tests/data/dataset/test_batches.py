"""Training batches: pure functions of (seed, step, example)."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.training_batches import training_batch

reuse_the_dataset = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
seeds = st.integers(0, 2**63 - 1)
steps = st.integers(0, 10**7)
batch_sizes = st.integers(1, 70)


@pytest.fixture(params=["text_dataset", "image_dataset"])
def dataset(request):
    return EncodedDataset.open(request.getfixturevalue(request.param), "train")


@reuse_the_dataset
@given(seed=seeds, step=steps, batch_size=batch_sizes, data=st.data())
def test_any_split_of_rows_among_workers_gives_the_batch(dataset, seed, step, batch_size, data):
    whole = training_batch(dataset, seed, step, batch_size)
    assert whole.shape == (batch_size, dataset.seq_len)
    assert whole.dtype == np.int64
    cuts = sorted(data.draw(st.lists(st.integers(0, batch_size), max_size=4)))
    contiguous = [range(*ends) for ends in zip([0, *cuts], [*cuts, batch_size], strict=True)]
    workers = data.draw(st.integers(1, batch_size))
    for rows in [*contiguous, *(range(worker, batch_size, workers) for worker in range(workers))]:
        part = training_batch(dataset, seed, step, batch_size, rows)
        assert np.array_equal(part, whole[list(rows)].reshape(len(rows), dataset.seq_len))


@reuse_the_dataset
@given(seed=seeds, step=steps)
def test_a_batch_does_not_depend_on_earlier_batches(dataset, seed, step):
    first = training_batch(dataset, seed, step, 8)
    for other in (0, step + 1, step // 2):
        training_batch(dataset, seed + 1, other, 8)
    assert np.array_equal(training_batch(dataset, seed, step, 8), first)


def test_seeds_and_steps_give_different_batches(dataset):
    batches = {training_batch(dataset, seed, step, 16).tobytes() for seed in range(5) for step in range(20)}
    assert len(batches) == 100


@reuse_the_dataset
@given(seed=seeds, step=steps)
def test_a_row_of_text_is_a_window_of_the_stream(text_dataset, seed, step):
    dataset = EncodedDataset.open(text_dataset, "train")
    stream = bytes(dataset.tokens)
    for row in training_batch(dataset, seed, step, 4):
        assert bytes(row.astype(np.uint8)) in stream


def with_tokens(directory, tokens):
    """The dataset with other tokens in its training split."""
    return EncodedDataset.open(directory, "train").model_copy(update={"tokens": tokens})


def test_offsets_are_uniform_over_all_there_are(text_dataset):
    """A stream that counts 0, 1, ..., so that a row's first token is its offset; the chi-square test's limit is
    crossed by chance less than once in a million times.
    """
    dataset = with_tokens(text_dataset, np.arange(32 + 9, dtype=np.uint8))
    offsets = np.concatenate([training_batch(dataset, 0, step, 100)[:, 0] for step in range(200)])
    observed = np.bincount(offsets, minlength=10)
    assert len(observed) == 10  # 41 tokens have 10 windows of 32, the first and the last included
    assert ((observed - 2000) ** 2 / 2000).sum() < 45.1


@reuse_the_dataset
@given(seed=seeds, batch_size=batch_sizes, start=st.integers(0, 5))
def test_each_order_has_every_image_once(image_dataset, seed, batch_size, start):
    dataset = EncodedDataset.open(image_dataset, "train")
    count = len(dataset.tokens)
    steps = range(start * count // batch_size, (start + 2) * count // batch_size + 2)
    rows = np.concatenate([training_batch(dataset, seed, step, batch_size) for step in steps])
    begin = start * count - steps.start * batch_size
    everything = sorted(map(tuple, dataset.tokens.tolist()))
    for first in (begin, begin + count):
        assert sorted(map(tuple, rows[first : first + count].tolist())) == everything


def test_orders_of_images_differ(image_dataset):
    dataset = EncodedDataset.open(image_dataset, "train")
    orders = {training_batch(dataset, seed, epoch, 24).tobytes() for seed in range(3) for epoch in range(5)}
    assert len(orders) == 15


def test_the_batches_of_a_seed_stay_the_same_between_versions(text_dataset, image_dataset):
    """Resuming or repeating an old run needs the very same batches. These rows were noted down when they were first
    made; each begins with its own offset or number.
    """
    text = with_tokens(text_dataset, np.arange(200, dtype=np.uint8))
    images = with_tokens(image_dataset, np.repeat(np.arange(17, dtype=np.uint8), 16).reshape(17, 16))
    assert training_batch(text, 1, 2, 5)[:, 0].tolist() == [133, 99, 28, 140, 42]
    assert training_batch(images, 1, 2, 10)[:, 0].tolist() == [4, 7, 2, 6, 15, 1, 14, 12, 10, 3]


@pytest.mark.parametrize("rows", [range(9), range(-1, 3), range(8, 9)])
def test_rows_outside_the_batch_are_refused(dataset, rows):
    with pytest.raises(ValueError, match="not rows of a batch of 8"):
        training_batch(dataset, 0, 0, 8, rows)


def test_no_rows_are_an_empty_batch(dataset):
    assert training_batch(dataset, 0, 0, 8, range(3, 3)).shape == (0, dataset.seq_len)


def test_text_shorter_than_a_window_is_refused_with_a_hint(text_dataset):
    short = with_tokens(text_dataset, np.zeros(31, np.uint8))
    with pytest.raises(ValueError, match=r"31 tokens, fewer than one window of seq_len = 32; lower .* params\.yaml"):
        training_batch(short, 0, 0, 2)


def test_a_token_beyond_the_vocabulary_is_refused(image_dataset):
    broken = with_tokens(image_dataset, np.full((5, 16), 17, np.uint8))
    with pytest.raises(ValueError, match=r"holds the token 17, but the vocabulary has 17"):
        training_batch(broken, 0, 0, 2)
