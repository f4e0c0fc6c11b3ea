"""The style of all figures: matplotlib's settings, light and dark colors, SVG with stable bytes, panels and legends.

Layout uses the font that comes with matplotlib, and text stays text: bytes depend on no installed font, and names can
be searched and read aloud. Lengths are in pixels: one point of matplotlib is one unit of the SVG's view box.
"""

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import matplotlib.style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

WIDTH = 760
PIXELS_PER_INCH = 72
COLUMNS = 2
MAX_TICKS = 6
ROUND_STEPS = (1, 2, 5, 10)

INK, MUTED, GRID, GRAY = "#1f2430", "#656d7d", "#e3e6ed", "#b9c0cf"
MODEL, MEAN = "#4c5fd7", "#8a93a5"
SERIES = ("#6c71f8", "#cc9443", "#337c8c", "#ab4c01", "#502ab1", "#77a4d5", "#552501", "#460d5b")
"""Colors of lines that all eyes can tell apart, color-blind ones too."""
MARKERS = ("o", "s", "^", "D", "v")
"""As many as have no common divisor with the colors, so that 40 pairs differ."""

DARK = {
    INK: "#e4e7ee",
    MUTED: "#98a1b3",
    GRID: "#2b313c",
    GRAY: "#4d5566",
    MODEL: "#8b9bff",
    MEAN: "#7b8496",
    **dict(
        zip(
            SERIES,
            ("#8996f4", "#b3d90b", "#3a8387", "#ad550b", "#4167d5", "#bbc7ff", "#84b68c", "#bdf9c8"),
            strict=True,
        )
    ),
}
"""The color on a dark background that each color becomes."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mdpipe",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],  # no installed font may win
    "font.size": 11.5,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": "medium",
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 14,
    "axes.titleweight": "bold",
    "axes.edgecolor": GRAY,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "grid.color": GRID,
    "xtick.color": GRAY,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRAY,
    "ytick.labelcolor": MUTED,
    "ytick.left": False,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.wspace": 0.04,
}

PANEL_HEIGHT = 240
HEADING_HEIGHT = 74
"""Pixels for a panel's title, ticks and axis label."""
LEGEND_HEIGHT = 24
LEGEND_LINE_WIDTH, LETTER_WIDTH = 56, 7
"""Pixels of a legend's entry: its line with the gaps around it, and a letter of its name."""

MARGIN = 0.05
"""Fraction of the range that stays free on either side of an axis."""

Parameters = ParamSpec("Parameters")


@dataclass(frozen=True)
class Chart:
    """A figure, and the text that says what it shows where it cannot be seen."""

    figure: Figure
    alt: str

    def to_svg(self) -> str:
        """Return an SVG document: equal charts give equal bytes, and its colors follow the reader's color scheme."""
        buffer = io.StringIO()
        metadata = {"Title": self.alt, "Date": None, "Creator": None, "Format": None, "Type": None}
        with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
            # The reader's fonts may have the glyphs that matplotlib's lacks, and layout can do without.
            warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
            self.figure.savefig(buffer, format="svg", metadata=metadata)
        colored = re.sub(
            r"\b(fill|stroke): (#[0-9a-f]{6})",
            lambda found: f"{found[1]}: var(--c{found[2][1:]})" if found[2] in DARK else found[0],
            buffer.getvalue(),
        )
        light, dark = (
            "; ".join(f"--c{color[1:]}: {shown}" for color, shown in shades.items())
            for shades in (dict(zip(DARK, DARK, strict=True)), DARK)
        )
        scheme = f":root {{{light}}} @media (prefers-color-scheme: dark) {{:root {{{dark}}}}}"
        return colored.replace('<style type="text/css">', f'<style type="text/css">{scheme} ', 1)


def in_style(draw: Callable[Parameters, Chart]) -> Callable[Parameters, Chart]:
    """Draw in our style, whatever a matplotlibrc says."""

    @wraps(draw)
    def styled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Chart:
        with matplotlib.style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return styled


def axis_range(values: Sequence[float], least: float) -> tuple[float, float]:
    """Return the ends of an axis that shows all values with a margin, at least `least` apart."""
    middle = (min(values) + max(values)) / 2
    reach = max(max(values) - min(values), least) * (0.5 + MARGIN)
    return middle - reach, middle + reach


def new_figure(height: float) -> Figure:
    """Return an empty figure of `WIDTH` by `height` pixels."""
    return Figure(figsize=(WIDTH / PIXELS_PER_INCH, height / PIXELS_PER_INCH))


def new_panels(count: int, legend_rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` panels in rows of `COLUMNS` and room for a legend; a single panel has the width."""
    columns = min(COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = new_figure(rows * PANEL_HEIGHT + legend_rows * LEGEND_HEIGHT)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def set_titles(axes: Axes, name: str, note: str = "") -> None:
    """Put the name above the left end of a panel, and a note above its right end."""
    axes.set_title(name)
    axes.set_title(note, loc="right", color=MUTED, size="medium", weight="normal")


def add_legend(figure: Figure, entries: Sequence[Artist]) -> None:
    """Put the legend below all panels; layout makes room for it."""
    figure.legend(handles=entries, loc="outside lower left", ncols=legend_columns(entries))


def legend_columns(entries: Sequence[Artist]) -> int:
    """Return how many entries fit side by side."""
    longest = max(len(str(entry.get_label())) for entry in entries)
    return max(1, WIDTH // (LEGEND_LINE_WIDTH + LETTER_WIDTH * longest))


def format_whole_numbers(axis: Axis) -> None:
    """Write the ticks in full with thousands separators."""
    axis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:,.0f}"))


def round_ticks(axis: Axis, *, integer: bool = False) -> None:
    """Put ticks at round numbers: 1, 2 or 5 times a power of ten."""
    axis.set_major_locator(MaxNLocator(MAX_TICKS, steps=ROUND_STEPS, integer=integer))
