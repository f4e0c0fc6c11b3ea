"""What every figure is drawn with: SVG text with stable bytes that reads well on a light and on a dark ground.

Coordinates are in pixels of a figure `WIDTH` wide, y downwards. A figure has no dates, no ids and no fonts of its own,
so that several of them can stand in one page and each of them alone as a file.
"""

from html import escape

WIDTH = 760

STYLE = """
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
.mdpipe-figure .curve { stroke: #4c5fd7; stroke-width: 2; fill: none; stroke-linejoin: round; }
.mdpipe-figure .raw { stroke: #4c5fd7; stroke-width: 1; stroke-opacity: 0.3; fill: none; stroke-linejoin: round; }
@media (prefers-color-scheme: dark) {
  .mdpipe-figure text { fill: #e4e7ee; }
  .mdpipe-figure .muted { fill: #98a1b3; }
  .mdpipe-figure .model { fill: #8b9bff; }
  .mdpipe-figure .reference { fill: #4d5566; }
  .mdpipe-figure .error { stroke: #f2f4f8; }
  .mdpipe-figure .grid { stroke: #2b313c; }
  .mdpipe-figure .axis { stroke: #4d5566; }
  .mdpipe-figure .curve, .mdpipe-figure .raw { stroke: #8b9bff; }
}
""".strip()


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


def number(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{round(value, 1) + 0.0:g}" if abs(value) < 1e5 else f"{value:.0f}"
