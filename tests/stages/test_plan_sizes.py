"""The sizes in a plan: what is published, what files say, and what the stages then leave behind."""

import copy
import csv
import json

import numpy as np
import pytest
from dvc.utils.serialize import dump_yaml

from mdpipe.data.artifacts import room
from mdpipe.params import parse_params
from mdpipe.params.sampling import OnGrid
from mdpipe.stages import paths
from mdpipe.stages.download import download
from mdpipe.stages.plan import Plan, describe
from mdpipe.stages.plan_costs import network_calls
from mdpipe.stages.plan_figures import UNKNOWN, Figure
from mdpipe.stages.plan_sizes import folder_size
from mdpipe.stages.sample import sample
from mdpipe.stages.samplers import samplers
from mdpipe.stages.train import train
from tests.stages.planning import GPT2, owt_small, rows_of, smoke, with_source


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A folder without data."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without_classes():
    """The smoke preset whose pictures have no classes."""
    content = smoke()
    content["runs"]["digits"]["condition"] = None
    content["runs"]["digits"]["sample"]["guidance"] = None
    return content


def test_openwebtext_counts_what_is_published_of_it_and_no_more(empty):
    rows = rows_of(owt_small())
    assert rows["tokenizer@owt"].download == Figure(1_498_619)
    for figure in (rows["download@owt"].download, rows["encode@owt"].tokens, rows["evaluate@owt"].flops):
        assert figure.unknown
    assert not rows["train@owt"].disk.unknown


def test_letters_of_a_published_length_count_as_a_token_each(empty):
    rows = rows_of(
        with_source(
            {"kind": "catalogue", "name": "text8", "path": "constraints.txt"},
            validation={"last_characters": 5_000_000},
            test={"last_characters": 5_000_000},
        )
    )
    assert rows["evaluate@letters"].tokens == Figure(5_000_000, estimated=True)
    assert rows["encode@docs_letters"].tokens == Figure(100_000_000, estimated=True)
    assert rows["download@pydantic_docs"].download.value == pytest.approx(31_344_016, rel=0.02)


def test_pictures_of_the_catalogue_are_counted_from_its_splits(empty):
    content = smoke()
    content["sources"]["digits"] = {"kind": "catalogue", "name": "cifar10", "path": "constraints.txt"}
    content["datasets"]["digits"] |= {"size": 32, "stride": 32, "test": "test"}
    row = rows_of(content)
    assert row["encode@digits"].tokens.value == 60_000 * 3072
    assert row["evaluate@digits"].tokens == Figure(10_000 * 3072)
    assert not row["train@digits"].flops.unknown


def test_photos_are_counted_square_by_square_and_tile_by_tile(empty):
    """Of 2 x 6 x 10 squares of 64 pixels 12 and 24 are held out, in 4 tiles each; of the rest there are 9 x 9 tiles."""
    content = without_classes()
    content["sources"]["digits"] = {"kind": "photos", "region": 64, "path": "constraints.txt"}
    content["datasets"]["digits"] |= {"size": 32, "stride": 4, "test": 0.2}
    rows = rows_of(content)
    tile = 32 * 32 * 3
    assert rows["encode@digits"].tokens == Figure((84 * 81 + (12 + 24) * 4) * tile)
    assert rows["evaluate@digits"].tokens == Figure(24 * 4 * tile)


def test_files_of_ones_own_are_as_long_as_they_are_large(empty):
    (empty / "texts").mkdir()
    for name in ("train-a", "train-b", "test"):
        (empty / f"texts/{name}.txt").write_text("x" * 43_000)
    source = {
        "kind": "text_files",
        "path": "texts",
        "pattern": {"train": "train-*.txt", "test": "test.txt"},
        "documents": "file",
        "broken_utf8": "error",
        "empty_rows": "error",
        "detokenizer": None,
    }
    content = with_source(source, test="test")
    content["datasets"]["docs_pieces"]["tokenizer"] = GPT2
    rows = rows_of(content)
    assert rows["evaluate@letters"].tokens == Figure(43_000, estimated=True)
    assert rows["encode@docs_letters"].tokens == Figure(129_000, estimated=True)
    # Without a split of its own named, only what is called train is used.
    assert rows["encode@docs_pieces"].tokens.value == pytest.approx(86_000 / 4.3)
    assert rows["download@pydantic_docs"].download == Figure()
    assert rows["download@pydantic_docs"].disk == Figure(129_000 + 3 * 64, estimated=True)


def test_arrays_say_how_many_pictures_they_have(empty):
    np.save(empty / "pictures.npy", np.zeros((50, 8, 8), dtype=np.uint8))
    content = without_classes()
    content["sources"]["digits"] = {"kind": "arrays", "path": "pictures.npy", "field": "x", "labels": None}
    assert rows_of(content)["encode@digits"].tokens.value == 50 * 64


def test_flat_rows_say_how_many_pictures_they_have_by_split_and_how_many_classes(empty):
    """Of two training files and one held out, without unpacking them."""
    for name, count in (("train_1", 20), ("train_2", 30), ("val", 10)):
        np.savez_compressed(empty / f"{name}.npz", data=np.zeros((count, 192), np.uint8), labels=np.ones(count, int))
    content = smoke()
    source = {"kind": "planar_arrays", "path": ".", "pattern": {"train": "train_*.npz", "test": "val.npz"}}
    labels = {"field": "labels", "first": 1, "classes": 10}
    content["sources"]["digits"] = source | {"field": "data", "shape": [3, 8, 8], "labels": labels}
    content["datasets"]["digits"] |= {"test": "test"}
    there = rows_of(content)
    assert there["encode@digits"].tokens.value == 60 * 192
    assert there["evaluate@digits"].tokens == Figure(10 * 192)
    assert not there["train@digits"].flops.estimated
    content["sources"]["digits"]["path"] = "elsewhere"
    assert rows_of(content)["encode@digits"].tokens.unknown


@pytest.mark.parametrize(
    ("name", "held_out", "pictures"), [("imagenet64", 49_999, 1_331_148), ("imagenet64_box", 50_000, 1_331_167)]
)
def test_imagenet_is_counted_before_its_files_are_there(empty, name, held_out, pictures):
    content = without_classes()
    content["sources"]["digits"] = {"kind": "catalogue", "name": name, "path": "my"}
    content["datasets"]["digits"] |= {"size": 64, "stride": 64, "validation": 0.01, "test": "validation"}
    rows = rows_of(content)
    assert rows["encode@digits"].tokens.value == pictures * 12_288
    assert rows["evaluate@digits"].tokens == Figure(held_out * 12_288)
    assert rows["download@digits"].download == Figure()


def test_the_stages_leave_what_the_plan_says(place, params):
    sample(params, "letters")
    download(params, "typer_docs")
    rows = rows_of(params)
    for name in params.datasets:
        header = json.loads((paths.encoded(name) / "dataset.json").read_text())
        assert rows[f"encode@{name}"].disk == Figure(folder_size(paths.encoded(name)))
        assert rows[f"encode@{name}"].tokens == Figure(sum(split["tokens"] for split in header["splits"].values()))
        assert rows[f"tokenizer@{name}"].disk == Figure(folder_size(paths.tokenizer(name)))
    for name in params.sources:
        assert rows[f"download@{name}"].disk == Figure(folder_size(paths.raw(name)))
    for name in params.runs:
        assert rows[f"evaluate@{name}"].disk == Figure(paths.evaluation(name).stat().st_size)
    assert rows["sample@letters"].disk == Figure((paths.samples("letters") / "tokens.npy").stat().st_size)


def test_what_is_planned_without_data_is_near_what_the_data_are(place, params, tmp_path_factory, monkeypatch):
    there = rows_of(params)
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    before = rows_of(params)
    assert before["encode@digits"].tokens == there["encode@digits"].tokens
    assert before["evaluate@digits"].flops == there["evaluate@digits"].flops
    for stage in ("download@digits", "download@pydantic_docs", "encode@digits", "encode@docs_letters"):
        assert before[stage].disk.value == pytest.approx(there[stage].disk.value, rel=0.2)
    assert before["encode@docs_letters"].tokens.value == pytest.approx(
        there["encode@docs_letters"].tokens.value, rel=0.2
    )


ADAMW = {"kind": "adamw", "beta2": 0.99, "weight_decay": 0.0}
MUON = {"kind": "muon", "momentum": 0.95, "beta2": 0.99, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("optimizer", "every", "keep", "states", "left"),
    [(ADAMW, 2, 2, 3, 2), (MUON, 2, 2, 3, 2), (ADAMW, 2, 1_000_000, 3, 3), (ADAMW, 4, 1, 2, 1), (ADAMW, 100, 9, 1, 1)],
)
def test_a_run_keeps_as_many_bytes_as_planned(place, capsys, monkeypatch, optimizer, every, keep, states, left):
    """Of its states one is in the making, unless there are fewer than it may keep."""
    monkeypatch.setattr(room, "WORTH_SAYING", 0)
    content = smoke()
    run = copy.deepcopy(content["runs"]["letters"])
    run["network"] |= {"layers": 2, "width": 128}
    run["train"] |= {
        "optimizer": optimizer,
        "steps": 6,
        "warmup_steps": 1,
        "checkpoint_every": every,
        "keep_checkpoints": keep,
    }
    content["runs"]["letters"] = run
    params = parse_params(content)
    train(params, "letters")
    [scratch] = place.glob(".mdpipe/scratch/letters-*")
    assert f"training letters with {states} states to write" in capsys.readouterr().err
    kept = folder_size(scratch) * states / left + folder_size(paths.model("letters"))
    planned = rows_of(params)["train@letters"].disk
    assert kept == pytest.approx(planned.value, rel=0.02)
    train(params, "letters")
    assert "training letters with 0 states to write" in capsys.readouterr().err


def test_a_run_that_goes_on_needs_room_for_what_is_not_there_yet():
    train = parse_params(smoke()).runs["letters"].train
    train = train.model_copy(update={"steps": 10, "checkpoint_every": 2, "keep_checkpoints": 2})
    assert [train.most_checkpoints(newest, kept) for newest, kept in [(0, 0), (2, 1), (4, 2), (8, 2)]] == [3, 3, 3, 3]
    assert train.most_checkpoints(newest=8, kept=1) == 2
    assert train.most_checkpoints(newest=10, kept=2) == 2


def test_samplers_are_called_as_often_as_planned(place, params):
    suite = params.samplers
    samplers(params, "letters")
    with paths.samplers("letters").open() as file:
        told = {(row["sampler"], row["steps"]): row["network_calls"] for row in csv.DictReader(file)}
    for settings in suite.samplers:
        for steps in suite.steps if isinstance(settings, OnGrid) else [None]:
            calls = int(told[settings.kind, str(steps or "")])
            planned = network_calls(settings, steps, 32)
            assert calls <= planned if settings.kind == "reveal_first" else calls == planned


def test_a_header_that_is_broken_is_named(place, params):
    (paths.encoded("digits") / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"data/encoded/digits/dataset\.json is broken"):
        Plan.of(params)


def record(params):
    """Leave a dvc.lock that has these sources and datasets, as DVC writes it."""
    content = params.model_dump(mode="json")
    stages = {
        f"{stage}@{name}": {
            "cmd": "",
            "params": {"params.yaml": {"seed": 0, f"{section}.{name}": content[section][name]}},
        }
        for stage, section in (("download", "sources"), ("encode", "datasets"))
        for name in content[section]
    }
    dump_yaml("dvc.lock", {"schema": "2.0", "stages": stages})


def test_sizes_of_an_older_definition_are_not_those_of_the_new_one(place, params):
    record(params)
    there = rows_of(params)
    assert there["download@pydantic_docs"].disk == Figure(folder_size(paths.raw("pydantic_docs")))
    texts = {"kind": "text_files", "path": "nowhere", "pattern": "*", "documents": "file", "broken_utf8": "error"}
    moved = with_source(texts | {"empty_rows": "error", "detokenizer": None})
    rows = rows_of(moved)
    for stage in ("download@pydantic_docs", "encode@docs_letters", "encode@docs_pieces"):
        assert rows[stage].disk.unknown
    assert rows["encode@digits"] == there["encode@digits"]
    assert rows["evaluate@letters"].tokens.unknown
    assert "Not known (?)" in describe(parse_params(moved), 0.4, 989.0)


def test_a_dataset_of_another_definition_is_counted_anew(place, params):
    record(params)
    content = smoke()
    content["datasets"]["digits"]["stride"] = 4
    content["datasets"]["digits"]["size"] = 4
    rows = rows_of(content)
    assert rows["encode@digits"].disk != Figure(folder_size(paths.encoded("digits")))
    assert rows["download@digits"] == rows_of(params)["download@digits"]


@pytest.mark.parametrize("broken", [b"", b"stages: [", b"- 1\n", b"stages: {download@digits: null}\n"])
def test_a_plan_is_made_beside_a_broken_lock_file(place, params, broken):
    (place / "dvc.lock").write_bytes(broken)
    assert rows_of(params)["download@digits"].disk == Figure(folder_size(paths.raw("digits")))


def test_a_vocabulary_that_is_yet_to_be_fetched_leaves_only_tokens_known(empty):
    tokenizer = {"kind": "json", "path": "someone/something", "revision": None, "end_of_text": "</s>"}
    content = smoke()
    content["datasets"]["docs_pieces"]["tokenizer"] = tokenizer
    rows = rows_of(content)
    assert rows["train@pieces"].flops.unknown
    assert rows["tokenizer@docs_pieces"].download == UNKNOWN
    assert rows["train@pieces"].tokens == Figure(30 * 8 * 16)
