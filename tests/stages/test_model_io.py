"""A model folder from elsewhere is checked once, when it is loaded, and refused in one line that names the file."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mdpipe.pipeline.model_io import load_model

LETTERS, PIECES, DIGITS = Path("models/chars_md4"), Path("models/subwords_genmd4"), Path("models/digits")


def error_of(run: str) -> str:
    with pytest.raises(ValueError, match=r"; .*(dvc repro|run the stage)") as error:
        load_model(run)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("run", ["chars_md4", "chars_ar", "subwords_genmd4", "digits"])
def test_what_training_wrote_is_taken(place, run):
    assert load_model(run).directory == Path("models") / run


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("run", "file"), [("chars_md4", "model"), ("subwords_genmd4", "objective")])
def test_weights_of_another_type_are_refused(place, run, file, dtype):
    path = Path("models") / run / f"{file}.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(path).items()}, path)
    assert f"{path} holds" in error_of(run)


@pytest.mark.parametrize("key", ["objective", "dataset", "modality", "tokenizer"])
def test_every_key_of_a_run_is_there_and_has_its_type(place, key):
    path = LETTERS / "run.json"
    whole = json.loads(path.read_text())
    for value in (None, True, 1, 1.5, [], ["md4"], {"kind": 1}, "none_such"):
        if key == "dataset" and isinstance(value, str):
            continue
        path.write_text(json.dumps(whole | {key: value}))
        assert str(path) in error_of("chars_md4")
    path.write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
    assert f"{path}: {key}: Field required" in error_of("chars_md4")
    path.write_text(json.dumps(whole | {"other": 1}))
    assert f"{path}: other" in error_of("chars_md4")
    for content in ("", "[]", "{", "3"):
        path.write_text(content)
        assert str(path) in error_of("chars_md4")


@pytest.mark.parametrize(
    "settings",
    [{"timesteps": "8"}, {"timesteps": 0}, {"schedule": "none"}, {"schedule": {"kind": "none"}}, {"unknown": 1}],
    ids=str,
)
def test_the_settings_of_an_objective_are_those_of_params(place, settings):
    path = LETTERS / "run.json"
    edit(path, objective=json.loads(path.read_text())["objective"] | settings)
    assert str(path) in error_of("chars_md4")


@pytest.mark.parametrize(
    "settings",
    [{"num_heads": 0}, {"num_heads": 3}, {"num_layers": "2"}, {"dropout": 2.0}, {"hidden_size": None}, {"unknown": 1}],
    ids=str,
)
def test_the_settings_of_a_network_are_those_of_params(place, settings):
    path = LETTERS / "network.json"
    edit(path, settings=json.loads(path.read_text())["settings"] | settings)
    assert str(path) in error_of("chars_md4")


@pytest.mark.parametrize("run", ["chars_md4", "digits"])
def test_a_modality_that_contradicts_the_tokenizer_is_refused(place, run):
    path = Path("models") / run / "run.json"
    other = {"text": "image", "image": "text"}[json.loads(path.read_text())["modality"]]
    edit(path, modality=other)
    assert f"{path}: modality = {other!r} does not fit" in error_of(run)


@pytest.mark.parametrize(
    ("run", "tokenizer"), [("chars_md4", "pixels"), ("digits", "chars_md4"), ("chars_md4", "bytes")]
)
def test_a_tokenizer_of_another_kind_is_refused(place, run, tokenizer):
    edit(Path("models") / run / "run.json", tokenizer=tokenizer)
    error_of(run)


def test_the_tokenizer_of_another_run_is_refused(place):
    for path in (PIECES / "tokenizer.json", PIECES / "unigram.npy"):
        shutil.copy(path, LETTERS / path.name)
    assert "models/chars_md4/tokenizer.json: kind = 'sentencepiece' does not fit the model, 'text8'" in error_of(
        "chars_md4"
    )


def test_a_vocabulary_that_is_not_the_model_s_is_refused(place):
    edit(PIECES / "tokenizer.json", vocab_size=27)
    assert f"{PIECES}/tokenizer.json: vocab_size = 27 does not fit the model" in error_of("subwords_genmd4")


@pytest.mark.parametrize(
    "counts", [np.zeros(3, np.int64), np.zeros(27, np.float64), np.zeros((27, 1), np.int64)], ids=str
)
def test_frequencies_of_other_tokens_are_refused(place, counts):
    (LETTERS / "unigram.npy").unlink()
    np.save(LETTERS / "unigram.npy", counts)
    assert "models/chars_md4/unigram.npy should be int64 (27,)" in error_of("chars_md4")


def test_a_causal_network_belongs_to_a_causal_objective(place):
    edit(LETTERS / "network.json", causal=True)
    assert "causal = True does not fit the objective md4" in error_of("chars_md4")
