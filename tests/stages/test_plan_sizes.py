"""The sizes in a plan: what is published, what files say, and what the stages then leave behind."""

import copy
import csv
import json
import math

import pytest
from dvc.utils.serialize import dump_yaml

from mdpipe.commands.plan import Plan, describe, num_function_evaluations
from mdpipe.data.artifacts import files
from mdpipe.data.artifacts.files import folder_size
from mdpipe.networks.base import NetworkSpec, build_uninitialized
from mdpipe.params import parse_params
from mdpipe.pipeline import paths
from mdpipe.stages.compare_samplers import compare_samplers
from mdpipe.stages.download import download
from mdpipe.stages.train import train
from mdpipe.training.performance import forward_flops
from tests.stages.plan_rows import owt_small, rows_of, smoke, with_source


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A folder without data."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without_classes():
    """The smoke preset whose images have no classes."""
    content = smoke()
    content["runs"]["digits"]["class_cond"] = None
    content["runs"]["digits"]["sample"]["guidance_scale"] = None
    return content


def test_openwebtext_counts_what_is_published_of_it_and_no_more(empty):
    rows = rows_of(owt_small())
    for figure in (rows["download@owt"].download, rows["encode@owt"].tokens, rows["evaluate@owt"].flops):
        assert math.isnan(figure)
    assert not math.isnan(rows["train@owt"].disk)


def test_letters_of_a_published_length_count_as_a_token_each(empty):
    rows = rows_of(
        with_source(
            {"kind": "catalog", "name": "text8", "path": "constraints.txt"},
            splits={"validation": {"last_characters": 5_000_000}, "test": {"last_characters": 5_000_000}},
        )
    )
    assert rows["evaluate@chars_md4"].tokens == 5_000_000 and rows["evaluate@chars_md4"].is_estimate
    assert rows["encode@docs_chars"].tokens == 100_000_000 and rows["encode@docs_chars"].is_estimate
    assert math.isnan(rows["download@pydantic_docs"].download)  # It is a zip, of which only the content is published.


def test_images_of_the_catalog_are_counted_from_its_splits(empty):
    content = smoke()
    content["sources"]["digits"] = {"kind": "catalog", "name": "cifar10", "path": "constraints.txt"}
    content["datasets"]["digits"] |= {"image_size": 32, "stride": 32, "splits": {"validation": 0.1, "test": "test"}}
    row = rows_of(content)
    assert row["encode@digits"].tokens == 60_000 * 3072
    assert row["evaluate@digits"].tokens == 10_000 * 3072
    assert not math.isnan(row["train@digits"].flops)


def test_photos_are_counted_square_by_square_and_tile_by_tile(empty):
    """Of 2 x 6 x 10 squares of 64 pixels 12 and 24 are held out, in 4 tiles each; of the rest there are 9 x 9 tiles."""
    content = without_classes()
    content["sources"]["digits"] = {"kind": "photos", "region": 64, "path": "constraints.txt"}
    content["datasets"]["digits"] |= {"image_size": 32, "stride": 4, "splits": {"validation": 0.1, "test": 0.2}}
    rows = rows_of(content)
    tile = 32 * 32 * 3
    assert rows["encode@digits"].tokens == (84 * 81 + (12 + 24) * 4) * tile
    assert rows["evaluate@digits"].tokens == 24 * 4 * tile


def test_settings_of_flat_rows_say_the_shape_and_the_classes(empty):
    """So the network's operations are exact before the files are there."""
    content = smoke()
    labels = {"field": "labels", "first": 1, "num_classes": 10}
    source = {"kind": "npz_flat", "path": ".", "pattern": "*.npz", "field": "data", "shape": [3, 8, 8]}
    content["sources"]["digits"] = source | {"labels": labels}
    rows = rows_of(content)
    assert math.isnan(rows["encode@digits"].tokens)
    network = build_uninitialized(
        NetworkSpec(parse_params(content).runs["digits"].network, 17, (8, 8, 3), num_classes=10)
    )
    steps, batch_size = (content["runs"]["digits"]["train"][key] for key in ("steps", "batch_size"))
    assert rows["train@digits"].flops == 3 * steps * batch_size * forward_flops(network, 192)


@pytest.mark.parametrize(
    ("name", "held_out", "images"), [("imagenet64", 49_999, 1_331_148), ("imagenet64_box", 50_000, 1_331_167)]
)
def test_imagenet_is_counted_before_its_files_are_there(empty, name, held_out, images):
    content = without_classes()
    content["sources"]["digits"] = {"kind": "catalog", "name": name, "path": "my"}
    content["datasets"]["digits"] |= {"image_size": 64, "splits": {"validation": 0.01, "test": "validation"}}
    rows = rows_of(content)
    assert rows["encode@digits"].tokens == images * 12_288
    assert rows["evaluate@digits"].tokens == held_out * 12_288
    assert rows["download@digits"].download == 0


def test_the_stages_leave_what_the_plan_says(place, params):
    download(params, "typer_docs")
    rows = rows_of(params)
    for name in params.datasets:
        header = json.loads((paths.encoded(name) / "dataset.json").read_text())
        assert rows[f"encode@{name}"].disk == folder_size(paths.encoded(name))
        assert rows[f"encode@{name}"].tokens == sum(split["tokens"] for split in header["splits"].values())
        assert rows[f"fit_tokenizer@{name}"].disk == folder_size(paths.tokenizer(name))
    for name in params.sources:
        assert rows[f"download@{name}"].disk == folder_size(paths.raw(name))


def test_what_is_planned_without_data_is_near_what_the_data_are(place, params, tmp_path_factory, monkeypatch):
    there = rows_of(params)
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    before = rows_of(params)
    assert before["encode@digits"].tokens == there["encode@digits"].tokens
    assert before["evaluate@digits"].flops == there["evaluate@digits"].flops
    assert before["encode@digits"].disk == pytest.approx(there["encode@digits"].disk, rel=0.2)
    for run in params.runs:
        assert before[f"train@{run}"].flops == there[f"train@{run}"].flops


ADAMW = {"kind": "adamw", "beta2": 0.99, "weight_decay": 0.0}
MUON = {"kind": "muon", "momentum": 0.95, "beta2": 0.99, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("optimizer", "every", "keep", "states", "left"),
    [(ADAMW, 2, 2, 3, 2), (MUON, 2, 2, 3, 2), (ADAMW, 2, 1_000_000, 3, 3), (ADAMW, 4, 1, 2, 1), (ADAMW, 100, 9, 1, 1)],
)
def test_a_run_keeps_as_many_bytes_as_planned(place, capsys, monkeypatch, optimizer, every, keep, states, left):
    """Of its states one is in the making, unless there are fewer than it may keep."""
    monkeypatch.setattr(files, "MIN_REPORTED_BYTES", 0)
    content = smoke()
    run = copy.deepcopy(content["runs"]["chars_md4"])
    run["network"] |= {"num_layers": 2, "hidden_size": 128}
    run["train"] |= {
        "optimizer": optimizer,
        "steps": 6,
        "warmup_steps": 1,
        "save_every": every,
        "save_total_limit": keep,
    }
    content["runs"]["chars_md4"] = run
    params = parse_params(content)
    train(params, "chars_md4")
    [checkpoint_dir] = place.glob(".mdpipe/checkpoints/chars_md4-*")
    assert f"training chars_md4 with {states} states to write" in capsys.readouterr().err
    kept = folder_size(checkpoint_dir) * states / left + folder_size(paths.model("chars_md4"))
    planned = rows_of(params)["train@chars_md4"].disk
    if optimizer is ADAMW:
        assert kept == pytest.approx(planned, rel=0.02)
    else:  # Muon has one moment for matrices.
        assert 0.75 * planned < kept < planned
    train(params, "chars_md4")
    assert "training chars_md4 with 0 states to write" in capsys.readouterr().err


def test_a_run_that_goes_on_needs_room_for_what_is_not_there_yet():
    train = parse_params(smoke()).runs["chars_md4"].train
    train = train.model_copy(update={"steps": 10, "save_every": 2, "save_total_limit": 2})
    assert [train.most_checkpoints(newest, kept) for newest, kept in [(0, 0), (2, 1), (4, 2), (8, 2)]] == [3, 3, 3, 3]
    assert train.most_checkpoints(newest=8, kept=1) == 2
    assert train.most_checkpoints(newest=10, kept=2) == 2


def test_samplers_are_called_as_often_as_planned(place, params):
    compare_samplers(params, "chars_md4")
    with paths.plot("samplers", "chars_md4").open() as file:
        counted = {(row["sampler"], row["steps"]): row["nfe"] for row in csv.DictReader(file)}
    for config in params.samplers.samplers_for(params.runs["chars_md4"].objective):
        calls = int(counted[config.kind, str(getattr(config, "steps", ""))])
        planned = num_function_evaluations(config, 32)
        assert calls <= planned if config.kind == "ancestral" else calls == planned


def test_temperatures_add_samples_at_the_most_steps(place):
    """Of smoke's five rows three are at the most steps or without a grid; a pretrained model has unknown FLOPs."""
    content = smoke()
    one = rows_of(content)["compare_samplers@chars_md4"]
    content["samplers"]["temperatures"] = [0.7, 1.0]
    two = rows_of(content)["compare_samplers@chars_md4"]
    assert two.tokens - one.tokens == 3 * content["samplers"]["count"] * 32
    assert two.flops > one.flops
    content["samplers"]["runs"]["chars_md4"]["causal_lm"] = "gpt2"
    assert math.isnan(rows_of(content)["compare_samplers@chars_md4"].flops)


def test_a_header_that_is_broken_is_named(place, params):
    (paths.encoded("digits") / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"data/encoded/digits/dataset\.json is not JSON"):
        Plan(params)


def record(params):
    """Leave a dvc.lock that has these sources and datasets, as DVC writes it."""
    content = params.model_dump(mode="json")
    stages = {
        f"{stage}@{name}": {
            "cmd": "",
            "params": {"params.resolved.yaml": {"seed": 0, f"{section}.{name}": content[section][name]}},
        }
        for stage, section in (("download", "sources"), ("encode", "datasets"))
        for name in content[section]
    }
    dump_yaml("dvc.lock", {"schema": "2.0", "stages": stages})


def test_sizes_of_an_older_definition_do_not_count(place, params):
    record(params)
    there = rows_of(params)
    assert there["download@pydantic_docs"].disk == folder_size(paths.raw("pydantic_docs"))
    texts = {"kind": "text", "path": "nowhere", "pattern": "*", "sample_by": "document", "decode_errors": "strict"}
    moved = with_source(texts | {"empty_documents": "error", "detokenizer": None})
    rows = rows_of(moved)
    for stage in ("download@pydantic_docs", "encode@docs_chars", "encode@docs_subwords"):
        assert math.isnan(rows[stage].disk)
    assert rows["encode@digits"] == there["encode@digits"]
    assert math.isnan(rows["evaluate@chars_md4"].tokens)
    assert "? is unknown until" in describe(parse_params(moved), 0.4, 989.0, 50)


def test_a_dataset_of_another_definition_is_counted_anew(place, params):
    record(params)
    content = smoke()
    content["datasets"]["digits"]["stride"] = 4
    content["datasets"]["digits"]["image_size"] = 4
    rows = rows_of(content)
    assert rows["encode@digits"].disk != folder_size(paths.encoded("digits"))
    assert rows["download@digits"] == rows_of(params)["download@digits"]


@pytest.mark.parametrize("broken", [b"", b"stages: [", b"- 1\n", b"stages: {download@digits: null}\n"])
def test_a_plan_is_made_beside_a_broken_lock_file(place, params, broken):
    (place / "dvc.lock").write_bytes(broken)
    assert rows_of(params)["download@digits"].disk == folder_size(paths.raw("digits"))


def test_an_unknown_vocabulary_leaves_only_tokens_known(empty):
    tokenizer = {"kind": "hf_tokenizer", "path": "someone/something", "eos_token": "</s>"}
    content = smoke()
    content["datasets"]["docs_subwords"]["tokenizer"] = tokenizer
    rows = rows_of(content)
    assert math.isnan(rows["train@subwords_genmd4"].flops)
    assert rows["train@subwords_genmd4"].tokens == 30 * 8 * 16
