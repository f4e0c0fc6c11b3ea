import re
from itertools import combinations
from math import gcd
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context

from mdpipe.reporting import style

BACKGROUNDS = ("#ffffff", "#12151b")
SERIES = (style.SERIES, tuple(style.DARK[color] for color in style.SERIES))
"""On a light and on a dark background."""

SVG = "{http://www.w3.org/2000/svg}"

SEEN = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
"""What an eye sees of linear RGB: the two commonest kinds of color blindness (Machado, Oliveira, Fernandes, 2009)."""

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
"""Ottosson's space in which equal distances look equal, 1 from black to white."""

LEAST_DISTANCE = 0.12
LEAST_CONTRAST = 2.5


def linear(color: str) -> np.ndarray:
    levels = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)


def oklab(light: np.ndarray) -> np.ndarray:
    return TO_OKLAB @ np.cbrt(TO_CONES @ light.clip(0, 1))


def luminance(color: str) -> float:
    return float(linear(color) @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("background", [0, 1])
@pytest.mark.parametrize("eye", SEEN)
def test_lines_have_colors_that_every_eye_tells_apart(background, eye):
    seen = [oklab(SEEN[eye] @ linear(color)) for color in SERIES[background]]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) >= LEAST_DISTANCE


@pytest.mark.parametrize("background", [0, 1])
def test_lines_stand_out_from_the_page(background):
    assert f"--background: {BACKGROUNDS[background]}" in Path(style.__file__).with_name("page.html.j2").read_text()
    for color in SERIES[background]:
        darker, lighter = sorted((luminance(color), luminance(BACKGROUNDS[background])))
        assert (lighter + 0.05) / (darker + 0.05) >= LEAST_CONTRAST


def test_colors_and_markers_repeat_as_late_as_possible():
    assert gcd(len(style.SERIES), len(style.MARKERS)) == 1


def a_chart() -> style.Chart:
    @style.in_style
    def draw() -> style.Chart:
        figure, (axes,) = style.new_panels(1)
        axes.plot([1, 2], [3, 4], color=style.SERIES[0])
        axes.set_xlabel("$x$ & <b> 世")
        return style.Chart(figure, "A line & <more>.")

    return draw()


def test_equal_charts_give_equal_bytes_whatever_the_rcparams():
    svg = a_chart().to_svg()
    assert a_chart().to_svg() == svg
    with rc_context({"font.size": 30, "svg.fonttype": "path", "lines.linewidth": 9, "figure.dpi": 30}):
        assert a_chart().to_svg() == svg


def test_an_svg_has_no_date_and_says_what_it_shows():
    root = ElementTree.fromstring(a_chart().to_svg())
    assert root.findtext(f"{SVG}title") == "A line & <more>."
    assert not [element for element in root.iter() if element.tag.endswith(("date", "creator"))]


def test_text_is_text_as_it_was_given():
    texts = [element.text for element in ElementTree.fromstring(a_chart().to_svg()).iter(f"{SVG}text")]
    assert "$x$ & <b> 世" in texts


def test_every_color_follows_the_readers_color_scheme():
    svg = a_chart().to_svg()
    assert "prefers-color-scheme: dark" in svg
    assert f"--c{style.SERIES[0][1:]}: {style.DARK[style.SERIES[0]]}" in svg
    assert not re.search(r"(fill|stroke): #", svg)
