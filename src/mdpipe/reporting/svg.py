"""What every figure is drawn with: SVG text with stable bytes that reads well on a light and on a dark ground.

Coordinates are in pixels of a figure `WIDTH` wide, y downwards. A figure has no dates, no ids and no fonts of its own,
so that several of them can stand in one page and each of them alone as a file.
"""

from html import escape

WIDTH = 760

SERIES = (
    ("#6c71f8", "#8996f4"),
    ("#cc9443", "#b3d90b"),
    ("#337c8c", "#3a8387"),
    ("#ab4c01", "#ad550b"),
    ("#502ab1", "#4167d5"),
    ("#77a4d5", "#bbc7ff"),
    ("#552501", "#84b68c"),
    ("#460d5b", "#bdf9c8"),
)
"""Colours of lines that must be told apart, on a light and on a dark ground, by colour-blind eyes too."""

SHAPES = ("circle", "square", "up", "diamond", "down")
"""Markers of such lines: as many as have no common divisor with the colours, so that 40 pairs differ."""

_BASE = """
.mdpipe-figure { font: 13px ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
.mdpipe-figure text { fill: #1f2430; font-variant-numeric: tabular-nums; }
.mdpipe-figure .title { font-weight: 600; font-size: 14px; }
.mdpipe-figure .muted { fill: #656d7d; }
.mdpipe-figure .small { font-size: 11.5px; }
.mdpipe-figure .model { fill: #4c5fd7; }
.mdpipe-figure .reference { fill: #b9c0cf; }
.mdpipe-figure .error { stroke: #1f2430; stroke-width: 1.5; }
.mdpipe-figure .grid { stroke: #e3e6ed; stroke-width: 1; }
.mdpipe-figure .axis { stroke: #b9c0cf; stroke-width: 1; }
.mdpipe-figure .level { stroke: #8a93a5; stroke-width: 1.5; }
.mdpipe-figure .series { stroke: currentColor; stroke-width: 1.75; fill: none; stroke-linejoin: round; }
.mdpipe-figure .marker { fill: currentColor; }
.mdpipe-figure .curve { stroke: #4c5fd7; stroke-width: 2; fill: none; stroke-linejoin: round; }
.mdpipe-figure .raw { stroke: #4c5fd7; stroke-width: 1; stroke-opacity: 0.3; fill: none; stroke-linejoin: round; }
@media (prefers-color-scheme: dark) {
  .mdpipe-figure text { fill: #e4e7ee; }
  .mdpipe-figure .muted { fill: #98a1b3; }
  .mdpipe-figure .model { fill: #8b9bff; }
  .mdpipe-figure .reference { fill: #4d5566; }
  .mdpipe-figure .error { stroke: #f2f4f8; }
  .mdpipe-figure .level { stroke: #7b8496; }
  .mdpipe-figure .grid { stroke: #2b313c; }
  .mdpipe-figure .axis { stroke: #4d5566; }
  .mdpipe-figure .curve, .mdpipe-figure .raw { stroke: #8b9bff; }
}
""".strip()


def _series(ground: int) -> str:
    return "\n".join(f".mdpipe-figure .series{at} {{ color: {pair[ground]}; }}" for at, pair in enumerate(SERIES))


STYLE = f"{_BASE}\n{_series(0)}\n@media (prefers-color-scheme: dark) {{\n{_series(1)}\n}}"


def figure(body: str, height: float, description: str) -> str:
    """A whole SVG document; `description` is what a person who cannot see it is told."""
    box = f"0 0 {WIDTH} {number(height)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="mdpipe-figure" viewBox="{box}" role="img">\n'
        f"<title>{escape(description)}</title>\n<style>\n{STYLE}\n</style>\n{body}</svg>\n"
    )


def text(x: float, y: float, content: str, *, kind: str = "", anchor: str = "start") -> str:
    """A line of text whose baseline is at y."""
    return f'<text x="{number(x)}" y="{number(y)}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>\n'


def bar(x: float, y: float, width: float, height: float, *, kind: str) -> str:
    """A filled rectangle with slightly rounded corners."""
    size = f'width="{number(width)}" height="{number(height)}"'
    return f'<rect x="{number(x)}" y="{number(y)}" {size} rx="2" class="{kind}"/>\n'


def line(points: list[tuple[float, float]], *, kind: str) -> str:
    """Straight lines from point to point."""
    path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    return f'<polyline points="{path}" class="{kind}"/>\n'


def marker(x: float, y: float, shape: str, *, kind: str) -> str:
    """One of `SHAPES` around a point, all of about the same area."""
    if shape == "circle":
        return f'<circle cx="{number(x)}" cy="{number(y)}" r="3.4" class="{kind}"/>\n'
    corners = {
        "square": ((-3, -3), (3, -3), (3, 3), (-3, 3)),
        "up": ((0, -4.4), (4.2, 3), (-4.2, 3)),
        "diamond": ((0, -4.6), (4.6, 0), (0, 4.6), (-4.6, 0)),
        "down": ((0, 4.4), (4.2, -3), (-4.2, -3)),
    }[shape]
    path = " ".join(f"{number(x + right)},{number(y + below)}" for right, below in corners)
    return f'<polygon points="{path}" class="{kind}"/>\n'


def number(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{round(value, 1) + 0.0:g}" if abs(value) < 1e5 else f"{value:.0f}"
