"""Saved networks: equal bytes for equal networks, and errors that name the file and a hint."""

import json

import pytest
import torch

from mdpipe.networks.base import from_pretrained, save_pretrained
from tests.networks.conftest import SMALL


@pytest.fixture
def saved(perturbed, tmp_path):
    """Save a transformer and return its folder."""
    network = perturbed("transformer")
    save_pretrained(tmp_path, network, network.state_dict())
    return tmp_path


def test_a_loaded_network_equals_the_saved_one(kind, perturbed, tmp_path, tokens, times):
    network = perturbed(kind, dropout=0.1)
    save_pretrained(tmp_path, network, network.state_dict())
    loaded = from_pretrained(tmp_path)
    assert type(loaded) is type(network)
    assert (loaded.config, loaded.vocab_size, loaded.shape) == (network.config, 5, network.shape)
    assert loaded.dropout == 0.1
    assert all(torch.equal(weight, loaded.state_dict()[name]) for name, weight in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    with torch.no_grad():
        assert torch.equal(loaded(tokens, times), network(tokens, times))


def test_classes_and_causality_are_saved(perturbed, tmp_path, tokens, times):
    network = perturbed("transformer", num_classes=3, causal=True)
    save_pretrained(tmp_path, network, network.state_dict())
    labels = torch.tensor([0, 1, 2, 3, 1, 0])
    with torch.no_grad():
        assert torch.equal(from_pretrained(tmp_path)(tokens, times, labels), network(tokens, times, labels))


def test_equal_networks_are_saved_as_equal_bytes(kind, perturbed, tmp_path):
    config, _ = SMALL[kind]
    for folder, order in (("first", 1), ("second", -1)):
        (tmp_path / folder).mkdir()
        network = perturbed(kind)
        state = dict(list(network.state_dict().items())[::order])
        network.config = config.model_validate(dict(list(config.model_dump().items())[::order]))
        save_pretrained(tmp_path / folder, network, state)
    for name in ("model.safetensors", "network.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_config_is_readable_json(saved):
    config = json.loads((saved / "network.json").read_text())
    assert config == {
        "kind": "transformer",
        "vocab_size": 5,
        "shape": [12],
        "num_classes": 0,
        "causal": False,
        "settings": {
            "num_layers": 2,
            "num_heads": 2,
            "hidden_size": 16,
            "time_conditioning": False,
            "dropout": 0.0,
            "embed_dim": None,
            "qk_norm": False,
            "zero_init": False,
            "mlp": "glu",
            "value_embeddings": 0,
            "unet_skips": False,
        },
    }


@pytest.mark.parametrize("name", ["model.safetensors", "network.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "garbage"])
def test_a_damaged_file_is_named_with_a_hint(saved, name, damage):
    path = saved / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "truncated": content[:-20], "garbage": b"\x93" * 100}[damage])
    with pytest.raises(ValueError, match=rf"{name} (does not|is broken|is not JSON) .*dvc repro train@RUN"):
        from_pretrained(saved)


def test_weights_of_another_network_are_an_error(saved, perturbed):
    wider = perturbed("transformer", hidden_size=32).state_dict()
    save_pretrained(saved, perturbed("transformer"), wider)
    with pytest.raises(
        ValueError, match=r"model.safetensors holds \S+ as float32 \(.*32.*\) where float32 \(.*16.*\) is"
    ):
        from_pretrained(saved)


def test_an_impossible_config_is_an_error(saved):
    config = json.loads((saved / "network.json").read_text())
    for changes in ({"num_heads": 3}, {"color": "red"}):
        impossible = config | {"settings": config["settings"] | changes}
        (saved / "network.json").write_text(json.dumps(impossible))
        with pytest.raises(ValueError, match=r"network.json does not describe a network \(.*(num_heads|color)"):
            from_pretrained(saved)


def test_a_config_of_another_version_names_the_new_keys(saved):
    config = json.loads((saved / "network.json").read_text())
    config["settings"]["layers"] = config["settings"].pop("num_layers")
    (saved / "network.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"unknown key 'layers', now `num_layers`.*dvc repro train@RUN"):
        from_pretrained(saved)


def test_weights_that_are_not_finite_are_an_error(saved, perturbed):
    state = perturbed("transformer").state_dict()
    state["head.weight"][0, 0] = torch.nan
    save_pretrained(saved, perturbed("transformer"), state)
    with pytest.raises(ValueError, match=r"model.safetensors holds values that are not finite in head.weight; .*dvc"):
        from_pretrained(saved)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_weights_of_another_dtype_are_an_error(saved, perturbed, dtype):
    state = {name: tensor.to(dtype) for name, tensor in perturbed("transformer").state_dict().items()}
    save_pretrained(saved, perturbed("transformer"), state)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ValueError, match=rf"model.safetensors holds \S+ as {name} .* where float32 .*; .*dvc repro"):
        from_pretrained(saved)


@pytest.mark.parametrize("change", ["missing", "more"])
def test_weights_with_other_names_are_an_error(saved, perturbed, change):
    state = perturbed("transformer").state_dict()
    if change == "missing":
        del state["head.weight"]
    else:
        state["head.scale"] = torch.ones(1)
    save_pretrained(saved, perturbed("transformer"), state)
    with pytest.raises(ValueError, match=r"model.safetensors (lacks|holds the unexpected) head\.(weight|scale); ") as e:
        from_pretrained(saved)
    assert "\n" not in str(e.value)


WRONG = (None, "true", 1.5, -1, [], [0], [1, 1], {"a": 1})
"""A value of each JSON type; where it has the key's type, it is out of range."""


@pytest.mark.parametrize("key", ["kind", "vocab_size", "shape", "num_classes", "causal", "settings"])
@pytest.mark.parametrize("value", WRONG, ids=str)
def test_every_key_of_the_config_has_its_type(saved, key, value):
    config = json.loads((saved / "network.json").read_text())
    (saved / "network.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(ValueError, match=rf"network.json(: {key}| does not describe).*; train it again") as error:
        from_pretrained(saved)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["kind", "vocab_size", "shape", "num_classes", "causal", "settings"])
def test_missing_and_unknown_keys_of_the_config_are_errors(saved, key):
    config = json.loads((saved / "network.json").read_text())
    remaining = {name: value for name, value in config.items() if name != key}
    for changed in (remaining, remaining | {f"{key}_": config[key]}, config | {"other": 1}):
        (saved / "network.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=r"network.json: \w+( = .*)?: "):
            from_pretrained(saved)
