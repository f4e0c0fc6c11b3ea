"""Saved networks: equal bytes for equal networks, and errors that name the file and the cure."""

import json

import pytest
import torch

from mdpipe.networks.saved import load_network, save_network

SETTINGS = {
    "transformer": (5, (12,), {"layers": 2, "heads": 2, "width": 16, "time_conditioning": False, "dropout": 0.1}),
    "unet": (5, (3, 2, 2), {"blocks": 1, "width": 8, "time_conditioning": False, "dropout": 0.1}),
    "uvit": (
        5,
        (2, 2, 3),
        {
            "blocks": 1,
            "width": 8,
            "middle_width": 8,
            "layers": 1,
            "heads": 2,
            "time_conditioning": False,
            "dropout": 0.1,
        },
    ),
}


@pytest.fixture
def saved(shaken, tmp_path):
    """A folder with a transformer in it."""
    save_network(tmp_path, shaken("transformer").state_dict(), "transformer", *SETTINGS["transformer"])
    return tmp_path


def test_a_network_comes_back_as_it_was(kind, shaken, tmp_path, tokens, times):
    network = shaken(kind, dropout=0.1)
    save_network(tmp_path, network.state_dict(), kind, *SETTINGS[kind])
    loaded = load_network(tmp_path)
    assert type(loaded) is type(network)
    assert (loaded.vocabulary, loaded.shape, loaded.dropout) == (5, network.shape, 0.1)
    assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    with torch.no_grad():
        assert torch.equal(loaded(tokens, times), network(tokens, times))


def test_classes_and_causality_come_back_too(shaken, tmp_path, tokens, times):
    network = shaken("transformer", dropout=0.1, classes=3, causal=True)
    save_network(tmp_path, network.state_dict(), "transformer", *SETTINGS["transformer"], classes=3, causal=True)
    labels = torch.tensor([0, 1, 2, 3, 1, 0])
    with torch.no_grad():
        assert torch.equal(load_network(tmp_path)(tokens, times, labels), network(tokens, times, labels))


def test_equal_networks_are_equal_files(kind, shaken, tmp_path):
    vocabulary, shape, settings = SETTINGS[kind]
    for folder, order in (("first", 1), ("second", -1)):
        (tmp_path / folder).mkdir()
        state = dict(list(shaken(kind).state_dict().items())[::order])
        save_network(tmp_path / folder, state, kind, vocabulary, shape, dict(list(settings.items())[::order]))
    for name in ("model.safetensors", "network.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_the_description_is_readable(saved):
    description = json.loads((saved / "network.json").read_text())
    assert description == {
        "kind": "transformer",
        "vocabulary": 5,
        "shape": [12],
        "classes": 0,
        "causal": False,
        "settings": SETTINGS["transformer"][2],
    }


@pytest.mark.parametrize("name", ["model.safetensors", "network.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "garbage"])
def test_a_damaged_file_is_named_with_its_cure(saved, name, damage):
    path = saved / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "truncated": content[:-20], "garbage": b"\x93" * 100}[damage])
    with pytest.raises(ValueError, match=rf"{name} (does not|is broken) .*dvc repro train@RUN"):
        load_network(saved)


def test_weights_of_another_network_are_refused(saved, shaken):
    vocabulary, shape, settings = SETTINGS["transformer"]
    wider = shaken("transformer", width=32).state_dict()
    save_network(saved, wider, "transformer", vocabulary, shape, settings)
    with pytest.raises(
        ValueError, match=r"model.safetensors holds \S+ as float32 \(.*32.*\) where float32 \(.*16.*\) is"
    ):
        load_network(saved)


def test_an_impossible_description_is_refused(saved):
    settings = SETTINGS["transformer"][2]
    for impossible in ({**settings, "heads": 3}, {**settings, "colour": "red"}):
        description = json.loads((saved / "network.json").read_text()) | {"settings": impossible}
        (saved / "network.json").write_text(json.dumps(description))
        with pytest.raises(ValueError, match=r"network.json does not describe a network \(.*(heads|colour)"):
            load_network(saved)


def test_weights_that_are_not_finite_are_refused(saved, shaken):
    state = shaken("transformer").state_dict()
    state["head.weight"][0, 0] = torch.nan
    save_network(saved, state, "transformer", *SETTINGS["transformer"])
    with pytest.raises(ValueError, match=r"model.safetensors holds .* not finite in head.weight; .*dvc repro"):
        load_network(saved)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_weights_of_another_type_are_refused(saved, shaken, dtype):
    state = {name: tensor.to(dtype) for name, tensor in shaken("transformer").state_dict().items()}
    save_network(saved, state, "transformer", *SETTINGS["transformer"])
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=rf"model.safetensors holds \S+ as {name} .* where float32 .*; .*dvc repro"):
        load_network(saved)


@pytest.mark.parametrize("change", ["missing", "more"])
def test_weights_with_other_names_are_refused(saved, shaken, change):
    state = shaken("transformer").state_dict()
    if change == "missing":
        del state["head.weight"]
    else:
        state["head.scale"] = torch.ones(1)
    save_network(saved, state, "transformer", *SETTINGS["transformer"])
    with pytest.raises(
        ValueError, match=r"model.safetensors does not hold the weights .*: head\.(weight|scale) \w+ "
    ) as e:
        load_network(saved)
    assert "\n" not in str(e.value)


WRONG = (None, "true", 1.5, -1, [], [0], [1, 1], {"a": 1})
"""A value of each type of JSON. Where a key has that type, it means nothing there."""


@pytest.mark.parametrize("key", ["kind", "vocabulary", "shape", "classes", "causal", "settings"])
@pytest.mark.parametrize("value", WRONG, ids=str)
def test_every_key_of_the_description_has_its_type(saved, key, value):
    description = json.loads((saved / "network.json").read_text())
    (saved / "network.json").write_text(json.dumps(description | {key: value}))
    with pytest.raises(ValueError, match=rf"network.json(: {key}| does not describe).*; train it again") as error:
        load_network(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["kind", "vocabulary", "shape", "classes", "causal", "settings"])
def test_a_description_without_a_key_or_with_an_unknown_one_is_refused(saved, key):
    description = json.loads((saved / "network.json").read_text())
    content = {name: value for name, value in description.items() if name != key}
    for changed in (content, content | {f"{key}_": description[key]}, description | {"other": 1}):
        (saved / "network.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=r"network.json: \w+( = .*)?: "):
            load_network(saved)
