from itertools import combinations
from math import gcd

import numpy as np
import pytest

from mdpipe.reporting import svg
from mdpipe.reporting.page_style import STYLE as PAGE_STYLE

GROUNDS = ("#ffffff", "#12151b")

SEEN = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
"""What an eye sees of linear RGB: the two commonest kinds of colour blindness (Machado, Oliveira, Fernandes, 2009)."""

TO_CONES = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883, 0.2817, 0.6300]]
)
TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259, 0.7828, -0.8087],
    ]
)
"""Ottosson's space in which equal distances look alike, 1 from black to white."""

LEAST_DISTANCE = 0.12
LEAST_CONTRAST = 2.5


def linear(colour: str) -> np.ndarray:
    levels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def oklab(light: np.ndarray) -> np.ndarray:
    return TO_OKLAB @ np.cbrt(TO_CONES @ light.clip(0, 1))


def luminance(colour: str) -> float:
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("ground", [0, 1])
@pytest.mark.parametrize("eye", SEEN)
def test_lines_have_colours_that_every_eye_tells_apart(ground, eye):
    seen = [oklab(SEEN[eye] @ linear(pair[ground])) for pair in svg.SERIES]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) >= LEAST_DISTANCE


@pytest.mark.parametrize("ground", [0, 1])
def test_lines_stand_out_from_the_page(ground):
    assert f"--ground: {GROUNDS[ground]}" in PAGE_STYLE
    for pair in svg.SERIES:
        darker, lighter = sorted((luminance(pair[ground]), luminance(GROUNDS[ground])))
        assert (lighter + 0.05) / (darker + 0.05) >= LEAST_CONTRAST


def test_colours_and_shapes_go_round_without_meeting_early():
    assert gcd(len(svg.SERIES), len(svg.SHAPES)) == 1


@pytest.mark.parametrize("shape", svg.SHAPES)
def test_a_marker_is_drawn_around_its_point(shape):
    at, moved = svg.marker(0, 0, shape, kind="marker"), svg.marker(10, 20, shape, kind="marker")
    assert at != moved
    assert 'class="marker"' in at
