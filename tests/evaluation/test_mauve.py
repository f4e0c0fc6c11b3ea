"""MAUVE by the package, against its formula on histograms that are known."""

import pickle
import socket
from typing import Any, Never

import numpy as np
import pytest
import torch

from mdpipe.diffusion.objectives.baselines import Autoregressive
from mdpipe.evaluation.enumerated import random_table
from mdpipe.evaluation.quality import MIN_MAUVE_SAMPLES, final_features, mauve, why_no_mauve
from mdpipe.params.diffusion import AutoregressiveConfig

pytest.importorskip("mauve")


def clusters(counts: tuple[int, int]) -> np.ndarray:
    """Features in two places, as often as these."""
    noise = 1e-3 * np.random.default_rng(0).normal(size=(sum(counts), 4))
    return noise + np.repeat(np.eye(4)[:2], counts, axis=0)


def area(p: np.ndarray, q: np.ndarray) -> float:
    """The area below the curve of exp(-5 KL(q | r)), exp(-5 KL(p | r)) for r = w p + (1 - w) q, by trapezoids."""
    w = np.linspace(1e-6, 1 - 1e-6, 25)[:, None]
    mixtures = w * p + (1 - w) * q
    x, y = (np.exp(-5 * (one * np.log(one / mixtures)).sum(axis=1)) for one in (p, q))
    x, y = np.array([0, *x, 1]), np.array([1, *y, 0])
    order = np.argsort(x)
    return float(np.trapezoid(y[order], x[order]))


def test_two_histograms_have_the_area_of_their_curve() -> None:
    p, q = np.array([0.7, 0.3]), np.array([0.3, 0.7])
    assert mauve(clusters((14, 6)), clusters((6, 14)), seed=0) == pytest.approx(area(p, q), rel=1e-3)


def test_equal_samples_have_1_and_others_nearly_0() -> None:
    assert mauve(clusters((14, 6)), clusters((14, 6)), seed=0) == pytest.approx(1, abs=1e-3)
    assert mauve(clusters((20, 0)), clusters((0, 20)), seed=0) < 0.01


def test_it_neither_unpickles_nor_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Never:
        raise AssertionError

    for owner, name in ((pickle, "load"), (pickle, "loads"), (socket.socket, "connect"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    assert mauve(clusters((14, 6)), clusters((6, 14)), seed=0) > 0


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_mauve(MIN_MAUVE_SAMPLES) is None
    assert "there are 16" in str(why_no_mauve(16))
    monkeypatch.setattr("mdpipe.evaluation.quality.find_spec", lambda name: None)
    assert "pip install 'mdpipe[mauve]'" in str(why_no_mauve(MIN_MAUVE_SAMPLES))


def test_features_are_the_states_at_the_last_position() -> None:
    objective, table = Autoregressive(AutoregressiveConfig(), 3), random_table(3, 4, seed=0, is_causal=True)
    tokens = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 1]])
    expected = table(torch.cat([torch.full((2, 1), 3), tokens[:, :-1]], dim=1), torch.zeros(2), None)[:, -1]
    assert np.allclose(final_features(objective, table, tokens), expected.detach().numpy())
