"""Counter-based dropout: the rate, independent bits, and a pure function of key, site and element."""

import math

import pytest
import torch
from torch import Tensor

from mdpipe.diffusion.rng import CounterRNG, philox
from mdpipe.networks.base import DenoiserWithDropout
from mdpipe.networks.layers import (
    NUM_LEVELS,
    PHILOX_ROUNDS,
    channel_dropout,
    dropout,
    dropout_mask,
    split_keys,
)

RATE = 0.25


def keys(examples: int, step: int = 0) -> Tensor:
    return CounterRNG(0, "test/dropout").keys(step, torch.arange(examples))


def test_philox_gives_the_known_answers_of_random123() -> None:
    """Test vectors of philox4x32 with 7 rounds from Random123's kat_vectors."""
    top = 0xFFFF_FFFF
    known = {
        ((0, 0, 0, 0), (0, 0)): (0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48),
        ((top, top, top, top), (top, top)): (0x5207DDC2, 0x45165E59, 0x4D8EE751, 0x8C52F662),
    }
    for (counter, key), answer in known.items():
        words = (torch.tensor([word]) for word in counter)
        found = philox(tuple(words), tuple(torch.tensor([word]) for word in key), PHILOX_ROUNDS)
        assert tuple(word.item() for word in found) == answer


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_fraction_of_dropped_elements_is_the_rate(rate: float) -> None:
    """Within five standard errors (false-alarm rate 6e-7) of the rate rounded to 2^-16."""
    mask = dropout_mask(keys(64), rate, 10_001)
    rounded = round(rate * NUM_LEVELS) / NUM_LEVELS
    assert rounded == pytest.approx(rate, abs=2**-17)
    error = math.sqrt(rounded * (1 - rounded) / mask.numel())
    assert abs((~mask).double().mean().item() - rounded) < 5 * error


def standardize(mask: Tensor) -> Tensor:
    """Scale and shift a mask to mean 0 and variance 1."""
    return (mask.double() - (1 - RATE)) / math.sqrt(RATE * (1 - RATE))


def test_masks_of_sites_steps_and_examples_are_uncorrelated() -> None:
    """For all pairs of 24 masks of 40,000 elements and each mask with itself shifted, sums of products are normal."""
    count = 40_000
    masks = []
    for step in range(2):
        for site in split_keys(keys(4, step), 3):
            assert site is not None
            masks.append(dropout_mask(site, RATE, count))
    all_masks = standardize(torch.cat(masks))
    correlations = (all_masks @ all_masks.T / math.sqrt(count)).triu(1)
    assert correlations.abs().max() < 5
    assert correlations.abs().max() > 1, "masks are constant"
    for shift in (*range(1, 9), count // 8, count // 4, count // 2):
        autocorrelation = (all_masks[:, shift:] * all_masks[:, :-shift]).sum(dim=1) / math.sqrt(count - shift)
        assert autocorrelation.abs().max() < 5


def test_runs_of_eight_elements_have_their_binomial_frequencies() -> None:
    """Chi-squared test of the 256 patterns of eight adjacent elements, and of one element from each eighth."""
    patterns = torch.arange(256)
    bits = (patterns[:, None] >> torch.arange(8)) & 1
    probability = torch.where(bits == 1, 1 - RATE, RATE).double().prod(dim=1)
    for layout in ((-1, 8), (8, -1)):
        mask = dropout_mask(keys(32), RATE, 32_000).unflatten(1, layout).long()
        code = (mask << torch.arange(8)).sum(-1) if layout[1] == 8 else (mask << torch.arange(8)[:, None]).sum(1)
        counts = code.flatten().bincount(minlength=256).double()
        expected = probability * counts.sum()
        statistic = ((counts - expected) ** 2 / expected).sum().item()
        assert abs(statistic - 255) < 5 * math.sqrt(2 * 255)


def test_a_mask_does_not_depend_on_the_batch() -> None:
    full = dropout_mask(keys(6), RATE, 21)
    parts = [
        dropout_mask(CounterRNG(0, "test/dropout").keys(0, torch.arange(a, b)), RATE, 21) for a, b in ((0, 2), (2, 6))
    ]
    assert torch.equal(full, torch.cat(parts))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_preserves_the_mean(dtype: torch.dtype) -> None:
    x = torch.ones(64, 5, 401, dtype=dtype)
    for dropped in (dropout(x, keys(64), RATE), channel_dropout(x, keys(64), RATE)):
        assert dropped.dtype == dtype
        assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.75, dtype=dtype).item()}
        assert dropped.double().mean().item() == pytest.approx(1, abs=0.02)


def test_a_channel_is_dropped_at_all_positions() -> None:
    dropped = channel_dropout(torch.ones(4, 9, 33), keys(4), RATE)
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert 0 < (dropped == 0).float().mean() < 0.5


def test_without_keys_or_rate_nothing_is_computed() -> None:
    x = torch.ones(2, 3, 4)
    for drop in (dropout, channel_dropout):
        assert drop(x, None, RATE) is x
        assert drop(x, keys(2), 0.0) is x


def test_networks_without_keys_apply_no_dropout(kind, perturbed, tokens, times) -> None:
    """In training mode too, so that a forgotten .eval() cannot change a result."""
    with torch.no_grad():
        plain = perturbed(kind)(tokens, times)
        assert torch.equal(perturbed(kind, dropout=0.5).train()(tokens, times), plain)
        assert torch.equal(perturbed(kind, dropout=0.5).eval()(tokens, times), plain)


def test_keys_of_a_network_without_dropout_change_nothing(kind, perturbed, tokens, times) -> None:
    network = perturbed(kind)
    with torch.no_grad():
        assert torch.equal(network(tokens, times, None, keys(6)), network(tokens, times))


def test_dropout_of_an_example_depends_only_on_its_key(kind, perturbed, tokens, times) -> None:
    network, own_keys = perturbed(kind, dropout=0.5), keys(6)
    with torch.no_grad():
        first = DenoiserWithDropout(network, own_keys)(tokens, times, None)
        assert torch.equal(first, DenoiserWithDropout(network, own_keys)(tokens, times, None))
        own_keys[3] += 1
        changed = (DenoiserWithDropout(network, own_keys)(tokens, times, None) - first).abs().amax(dim=(1, 2)) > 1e-4
    assert changed.tolist() == [False, False, False, True, False, False]
    assert (first - network(tokens, times)).abs().max() > 1e-3


SITES = {
    ("transformer", None): ["embedding", *["probabilities", "attention", "mlp"] * 2],
    ("transformer", 8): ["probabilities", "attention", "mlp"] * 2,
    ("unet", None): ["block"] * 5,
    ("uvit", None): ["block", "probabilities", "attention", "hidden", "mlp", *["block"] * 2],
}
SHAPES = {
    "transformer": {"embedding": (12, 16), "probabilities": (2, 12, 12), "attention": (16,), "mlp": (16,)},
    "unet": {"block": (3, 2, 8)},
    "uvit": {"block": (2, 2, 8), "probabilities": (2, 1, 1), "attention": (8,), "hidden": (1, 32), "mlp": (1, 8)},
}


@pytest.mark.parametrize(("kind", "embed_dim"), sorted(SITES, key=str))
def test_sites_are_those_of_the_official_implementation(
    kind: str, embed_dim: int | None, perturbed, tokens, times, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, with the number of independent elements, and with different keys."""
    seen: list[tuple[int, Tensor]] = []

    def record(site: Tensor, rate: float, count: int) -> Tensor:
        assert rate == 0.1
        seen.append((count, site[0]))
        return dropout_mask(site, rate, count)

    monkeypatch.setattr("mdpipe.networks.layers.dropout_mask", record)
    settings = {} if embed_dim is None else {"embed_dim": embed_dim}
    perturbed(kind, dropout=0.1, **settings)(tokens, times, None, keys(6))
    assert [count for count, _ in seen] == [math.prod(SHAPES[kind][site]) for site in SITES[kind, embed_dim]]
    assert torch.stack([key for _, key in seen]).unique(dim=0).shape[0] == len(seen)


@pytest.mark.parametrize("kind", ["transformer", "unet", "uvit"])
def test_dropout_at_every_site_changes_the_output(
    kind: str, perturbed, tokens, times, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropping the first half of the elements at one site changes the output, at each site."""
    network, one_site = perturbed(kind, dropout=1e-5), 0

    def drop_half(site: Tensor, rate: float, count: int) -> Tensor:
        nonlocal one_site
        one_site -= 1
        return torch.full((len(site), count), True) if one_site else (torch.arange(count) >= count / 2)[None]

    monkeypatch.setattr("mdpipe.networks.layers.dropout_mask", drop_half)
    outputs = []
    with torch.no_grad():
        for chosen in range(len(SITES[kind, None]) + 1):
            one_site = chosen
            outputs.append(network(tokens, times, None, keys(6)))
    assert torch.allclose(outputs[0], network(tokens, times), rtol=1e-3, atol=1e-3)
    for dropped in outputs[1:]:
        assert (dropped - outputs[0]).abs().amax(dim=(1, 2)).min() > 1e-3


def test_denoiser_with_dropout_has_the_networks_head(kind, perturbed) -> None:
    network, hidden = perturbed(kind), torch.ones(2, 16 if kind == "transformer" else 8)
    assert torch.equal(DenoiserWithDropout(network, keys(2)).head(hidden), network.head(hidden))
