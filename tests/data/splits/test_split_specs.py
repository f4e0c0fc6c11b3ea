"""What is held out, for every way to say it; how a source is cut in shards changes nothing."""

import re
from collections import Counter
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdpipe.data.parallel import WORKERS
from mdpipe.data.raw import Document, ImageBatch
from mdpipe.data.splits import MIN_PASSAGES, require_documents, single_split, training_texts
from mdpipe.params.data import Splits
from tests.data.builders import last, last_characters, plan_splits, windows
from tests.data.shards import by_split, in_parts, make_documents, text_shard, write_all, write_image_shards, write_texts

FALSE_ALARM_Z = 5.0
"""Standard errors that a correct fraction crosses less than once in a million times."""

tiny_texts = st.lists(st.text("ab ", max_size=6), min_size=1, max_size=12)
shard_counts = st.integers(1, 5)


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    monkeypatch.setenv(WORKERS, "1")


def make_plan(directory, documents, validation, test, shards=1, seed=0):
    return plan_splits(write_texts(directory, documents, shards), "text", seed, validation, test)


def of_the_source(directory, **splits):
    """A raw folder of a source that has these splits itself."""
    parts = [
        text_shard(tuple(Document(f"{split}:{text}", text) for text in texts), split) for split, texts in splits.items()
    ]
    return write_all(directory, parts)


def texts_of(plan):
    return {split: [document.text for document in documents] for split, documents in by_split(plan).items()}


class TestNamed:
    def test_a_split_of_the_source_is_taken_as_it_is(self, tmp_path):
        raw = of_the_source(tmp_path / "r", train=["a", "b"], dev=["a", "c"], test=["d"], more=["e"])
        plan = plan_splits(raw, "text", 0, "dev", "test")
        assert texts_of(plan) == {"train": ["a", "b"], "validation": ["a", "c"], "test": ["d"]}

    def test_without_a_train_split_all_unnamed_is_trained_on(self, tmp_path):
        raw = of_the_source(tmp_path / "r", one=["a"], two=["b"], three=["c"], four=["d"])
        plan = plan_splits(raw, "text", 0, "two", "three")
        assert texts_of(plan) == {"train": ["a", "d"], "validation": ["b"], "test": ["c"]}

    def test_with_a_fraction_no_document_of_the_pool_is_on_two_sides(self, tmp_path):
        """Every text of the pool is there twice, far apart."""
        pool = [f"text {number}" for number in range(50)]
        documents = make_documents([*pool, *pool])
        raw = write_all(
            tmp_path / "r",
            [
                text_shard(tuple(documents[:60]), "train"),
                text_shard((Document("t", "tested"),), "test"),
                text_shard(tuple(documents[60:]), "train"),
            ],
        )
        found = texts_of(plan_splits(raw, "text", 1, 0.1, "test"))
        assert found["test"] == ["tested"]
        assert not set(found["train"]) & set(found["validation"])
        assert Counter(found["train"] + found["validation"]) == dict.fromkeys(pool, 2)
        assert len(set(found["validation"])) == 5

    @pytest.mark.parametrize(("validation", "test", "wrong"), [("dev", "test", "validation"), (0.1, "dev", "test")])
    def test_a_wrong_name_is_refused_with_the_splits_there_are(self, tmp_path, validation, test, wrong):
        raw = of_the_source(tmp_path / "r", train=["a"], test=["b"])
        with pytest.raises(ValueError, match=f"{wrong}: the source has no split 'dev'; it has test, train"):
            plan_splits(raw, "text", 0, validation, test)

    def test_a_source_without_splits_has_none_to_choose_from(self, tmp_path):
        with pytest.raises(ValueError, match="no split 'test'; it has none"):
            make_plan(tmp_path / "r", make_documents(["a", "b"]), 0.1, "test")

    def test_one_split_cannot_be_both(self):
        """One of the two would be empty, and blamed on the tokenizer."""
        with pytest.raises(ValueError, match=r"validation and test are the same split of the source"):
            Splits(validation="test", test="test")

    @pytest.mark.parametrize(
        ("own", "expected"),
        [
            ([], [0.05, 0.05]),
            (["train"], [0.05, 0.05]),
            (["train", "test"], [0.05, "test"]),
            (["train", "validation", "test"], ["validation", "test"]),
        ],
    )
    def test_the_default_is_the_source_s_own_split_or_five_percent(self, own, expected):
        assert [*Splits().resolve(own).values()] == expected

    def test_the_default_is_no_split_that_is_named_for_the_other(self):
        assert Splits(test="validation").resolve(["train", "validation"]) == {"validation": 0.05, "test": "validation"}


class TestLast:
    @settings(max_examples=25)
    @given(texts=tiny_texts, shards=shard_counts, validation=st.integers(1, 6), test=st.integers(1, 6))
    def test_they_are_the_last_ones_and_the_test_split_follows(self, tmp_path_factory, texts, shards, validation, test):
        documents, raw = make_documents(texts), tmp_path_factory.mktemp("last") / "r"
        trained = len(texts) - validation - test
        if trained < 1:
            with pytest.raises(ValueError, match=r"leaves nothing to train on; lower it in params\.yaml"):
                make_plan(raw, documents, last(validation), last(test), shards)
            return
        found = by_split(make_plan(raw, documents, last(validation), last(test), shards))
        assert found["train"] == documents[:trained]
        assert found["validation"] == documents[trained : trained + validation]
        assert found["test"] == documents[trained + validation :]

    @settings(max_examples=25)
    @given(parts=st.lists(st.integers(1, 4), min_size=3, max_size=8), shards=shard_counts, data=st.data())
    def test_a_document_in_parts_is_one_document_and_on_one_side(self, tmp_path_factory, parts, shards, data):
        validation = data.draw(st.integers(1, len(parts) - 2))
        test = data.draw(st.integers(1, len(parts) - 1 - validation))
        documents = [
            part for name, count in enumerate(parts) for part in in_parts("same text", range(1, count), str(name))
        ]
        raw = tmp_path_factory.mktemp("parts") / "r"
        found = by_split(make_plan(raw, documents, last(validation), last(test), shards))
        trained = len(parts) - validation - test
        assert {split: sorted({int(part.name) for part in specs}) for split, specs in found.items()} == {
            "train": list(range(trained)),
            "validation": list(range(trained, trained + validation)),
            "test": list(range(trained + validation, len(parts))),
        }

    def test_the_last_images_are_counted_one_by_one(self, tmp_path):
        images = np.zeros((10, 2, 2, 1), np.uint8)  # all of one key
        raw = write_image_shards(tmp_path / "r", ImageBatch(images, None, 255), shards=3)
        plan = plan_splits(raw, "image", 0, last(3), last(2))
        splits = chain.from_iterable(plan.of_shard(index) for index in range(3))
        assert list(splits) == ["train"] * 5 + ["validation"] * 3 + ["test"] * 2

    def test_the_last_for_validation_and_a_fraction_for_testing(self, tmp_path):
        documents = make_documents([f"text {number}" for number in range(100)])
        found = by_split(make_plan(tmp_path / "r", documents, last(20), 0.1, shards=3))
        assert found["validation"] == documents[80:]
        assert 1 <= len(found["test"]) <= 10
        assert sorted(found["train"] + found["test"], key=lambda document: document.name) == documents[:80]

    def test_the_last_of_the_pool_beside_a_split_of_the_source(self, tmp_path):
        raw = of_the_source(tmp_path / "r", train=["a", "b", "c"], test=["d"])
        plan = plan_splits(raw, "text", 0, last(1), "test")
        assert texts_of(plan) == {"train": ["a", "b"], "validation": ["c"], "test": ["d"]}


class TestLastCharacters:
    @given(texts=tiny_texts, shards=shard_counts, validation=st.integers(1, 8), test=st.integers(1, 8))
    def test_the_three_splits_are_the_whole_text_with_exact_lengths(
        self, tmp_path_factory, texts, shards, validation, test
    ):
        text, raw = "".join(texts), tmp_path_factory.mktemp("characters") / "r"
        trained = len(text) - validation - test
        specs = last_characters(validation), last_characters(test)
        if trained < 1:
            with pytest.raises(ValueError, match=r"leaves nothing to train on; lower it in params\.yaml"):
                make_plan(raw, make_documents(texts), *specs, shards)
            return
        found = {
            split: "".join(texts)
            for split, texts in texts_of(make_plan(raw, make_documents(texts), *specs, shards)).items()
        }
        assert found["train"] == text[:trained]
        assert found["validation"] == text[trained : trained + validation]
        assert found["test"] == text[trained + validation :]

    def test_a_document_that_is_cut_goes_on_in_the_next_split(self, tmp_path):
        found = by_split(
            make_plan(tmp_path / "r", make_documents(["ab", "cdefgh"]), last_characters(2), last_characters(3))
        )
        assert found == {
            "train": [Document("000000", "ab"), Document("000001", "c", 0, True)],
            "validation": [Document("000001", "de", 1, True)],
            "test": [Document("000001", "fgh", 2, False)],
        }

    def test_a_part_that_is_cut_stays_a_continuation(self, tmp_path):
        parts = in_parts("abcdefgh", [2, 5])
        found = by_split(make_plan(tmp_path / "r", parts, last_characters(1), last_characters(3), shards=3))
        assert found == {
            "train": [Document("text", "ab", 0, True), Document("text", "cd", 1, True)],
            "validation": [Document("text", "e", 2, True)],
            "test": [Document("text", "fgh", 2, False)],
        }

    def test_the_split_of_a_document_does_not_change_as_data_grow(self, tmp_path):
        documents = make_documents([f"text {number:02d}" for number in range(40)])
        found = texts_of(make_plan(tmp_path / "r", documents, 0.2, last_characters(10), shards=3))
        assert found["test"] == [" 38", "text 39"]
        by_fraction = set(texts_of(make_plan(tmp_path / "s", documents, 0.2, 0.1))["validation"])
        assert set(found["validation"]) == {text for text in by_fraction if text not in ("text 38", "text 39")}

    def test_beside_a_split_of_the_source(self, tmp_path):
        raw = of_the_source(tmp_path / "r", train=["abcd", "efg"], test=["hi"])
        found = texts_of(plan_splits(raw, "text", 0, last_characters(5), "test"))
        assert found == {"train": ["ab"], "validation": ["cd", "efg"], "test": ["hi"]}

    @pytest.mark.parametrize("specs", [(last(1), last_characters(1)), (last_characters(1), last(1))])
    def test_documents_and_characters_cannot_both_be_last(self, specs):
        with pytest.raises(ValueError, match=r"are both to be last; count both in documents or both in characters"):
            Splits(validation=specs[0], test=specs[1])


@pytest.mark.parametrize(
    ("validation", "test"),
    [
        (0.1, 0.2),
        (last(7), last(5)),
        (last(7), 0.1),
        (0.1, last(7)),
        (last_characters(33), last_characters(20)),
        (0.1, last_characters(33)),
        (last_characters(33), 0.1),
    ],
    ids=str,
)
def test_splits_do_not_depend_on_how_the_source_is_cut_in_shards(tmp_path, texts, validation, test):
    one = by_split(make_plan(tmp_path / "one", make_documents(texts), validation, test))
    assert all(one.values())
    for shards in (2, 5):
        assert by_split(make_plan(tmp_path / f"in{shards}", make_documents(texts), validation, test, shards)) == one


def test_the_parts_of_a_text_share_its_split(tmp_path):
    documents = [part for number in range(30) for part in in_parts("abcdef", [2, 4], f"{number:02d}")]
    found = by_split(make_plan(tmp_path / "r", documents, 0.2, 0.2, shards=7))
    names = [{document.name for document in documents} for documents in found.values()]
    assert sum(map(len, names)) == len(set.union(*names)) == 30


def test_the_whole_of_a_source_is_one_split(tmp_path):
    raw = of_the_source(tmp_path / "r", train=["a"], test=["b"])
    assert texts_of(single_split(raw, "text", "test")) == {"train": [], "validation": [], "test": ["a", "b"]}


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (last(1), last(2), "nothing to train on"),
        (last_characters(5), last_characters(4), "nothing to train on"),
        (0.4, 0.4, "cannot be split"),
    ],
    ids=str,
)
def test_what_leaves_nothing_to_train_on_is_refused(tmp_path, validation, test, message):
    with pytest.raises(ValueError, match=rf"{message}.*params\.yaml"):
        make_plan(tmp_path / "r", make_documents(["abc", "def", "ghi"]), validation, test)


@settings(max_examples=40)
@given(
    counts=st.dictionaries(st.sampled_from(["train", "test", "dev"]), st.integers(1, 4), min_size=1)
    | st.integers(1, 6).map(lambda count: {None: count}),
    specs=st.tuples(*2 * [st.sampled_from([None, 0.1, "test", "train", last(1), last(2), windows(0.1)])]),
)
def test_different_documents_are_refused_early_as_later(tmp_path_factory, counts, specs):
    """And no less with these fractions, which one document more never makes impossible; with the same message."""
    if {"test", "train"} & set(specs) - counts.keys() or (isinstance(specs[0], str) and specs[0] == specs[1]):
        return  # Params do not allow these.
    directory, chosen = tmp_path_factory.mktemp("early") / "r", Splits(validation=specs[0], test=specs[1])
    texts = {split: [f"{split} {number} " * 9 for number in range(count)] for split, count in counts.items()}
    if None in counts:
        raw = write_texts(directory, make_documents(texts[None]), 1)
    else:
        raw = of_the_source(directory, **texts)
    try:
        require_documents(chosen, counts, "text")
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            plan_splits(raw, "text", 0, *specs)
    else:
        plan_splits(raw, "text", 0, *specs)


@pytest.mark.parametrize("specs", [(last(1), last(1)), (last(1), 0.1), (0.1, 0.1)], ids=str)
def test_one_document_is_split_by_characters_or_chunks(tmp_path, specs):
    with pytest.raises(ValueError, match=r"use \{last_characters: N\}, which cuts a document, or \{windows: 0\.1\}"):
        make_plan(tmp_path / "r", make_documents(["abc " * 100]), *specs)


@pytest.mark.parametrize(
    ("specs", "stated"),
    [
        (last(7), "{last_documents: 7}"),
        (last_characters(7), "{last_characters: 7}"),
        (windows(0.1), "{windows: 0.1}"),
    ],
)
def test_messages_say_the_split_as_params_do(specs, stated):
    assert str(specs) == stated


def test_held_out_windows_leave_some_to_train_on():
    with pytest.raises(ValueError, match="the windows of validation and test leave nothing to train on"):
        Splits(validation=windows(0.6), test=windows(0.4))


def test_naming_all_that_the_source_has_is_refused(tmp_path):
    raw = of_the_source(tmp_path / "r", dev=["a"], test=["b"])
    with pytest.raises(ValueError, match=r"all of the source is for validation and testing; correct them"):
        plan_splits(raw, "text", 0, "dev", "test")


class TestTrainingTexts:
    def test_they_end_where_held_out_characters_begin(self, tmp_path):
        plan = make_plan(tmp_path / "r", make_documents(["abc", "def"]), last_characters(1), last_characters(1))
        assert list(training_texts(plan)) == ["abc", "d"]

    @pytest.mark.parametrize("lengths", [[200_000], [150_000, 50_000], [150_000, *[50] * 1000]], ids=str)
    @pytest.mark.parametrize("sample", [2000, 20_000])
    def test_a_sample_of_few_long_documents_has_about_this_size(self, tmp_path, lengths, sample):
        """One passage in a hundred would be none or all of a corpus in one document."""
        words = "".join(f"{number:04d} " for number in range(40_000))
        ends = np.cumsum(lengths)
        documents = [words[end - length : end] for end, length in zip(ends, lengths, strict=True)]
        plan = make_plan(
            tmp_path / "r", make_documents(documents), last_characters(1000), last_characters(1000), shards=2
        )
        passages = list(training_texts(plan, sample))
        size = sum(map(len, passages))
        assert abs(size - sample) < FALSE_ALARM_Z * sample * (2 / MIN_PASSAGES) ** 0.5
        assert all(any(passage in document for document in documents) for passage in passages)
        positions = [words.index(passage) for passage in passages]
        assert positions == sorted(positions)
        assert all(words[raw] == " " or raw in {0, *ends.tolist()} for raw in positions)
        assert max(positions) - min(positions) > 100_000

    @pytest.mark.parametrize("parts", [False, True], ids=["documents", "parts of one text"])
    def test_a_sample_has_about_this_size_from_all_over(self, tmp_path, parts):
        text = "".join(f"{number:05d}" for number in range(2000))
        passages = [text[start : start + 10] for start in range(0, len(text), 10)]
        documents = in_parts(text, range(10, len(text), 10)) if parts else make_documents(passages)
        plan = make_plan(tmp_path / "r", documents, last_characters(10), last_characters(10), shards=3)
        sample = list(training_texts(plan, max_chars=3000))
        deviation = (1000 * 0.3 * 0.7) ** 0.5
        assert abs(len(sample) - 300) < FALSE_ALARM_Z * deviation
        assert sample == [passage for passage in passages if passage in set(sample)]
        assert all(any(passage in sample for passage in passages[start : start + 200]) for start in range(0, 1000, 200))
        assert list(training_texts(plan, max_chars=10**6)) == passages[:-2]
