"""The report page: one HTML file with every table, figure and sample in it, for phones and dark mode too."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mdpipe.reporting.tables_io import to_display

FOLDER = Path(__file__).parent

MEDIA_TYPES = {b"\x89PNG": "image/png", b"GIF8": "image/gif", b"<?xm": "image/svg+xml"}
"""By the first bytes of a file."""


@dataclass(frozen=True)
class PageImage:
    """The bytes of a PNG, GIF or SVG file, and the text for readers who do not see it."""

    content: bytes
    alt: str

    @property
    def data_uri(self) -> str:
        """The image as an address that needs no other file.

        Raises:
            ValueError: it is neither PNG, GIF nor SVG.
        """
        if (media := MEDIA_TYPES.get(self.content[:4])) is None:
            raise ValueError(f"the image {self.alt!r} is neither PNG, GIF nor SVG: it starts with {self.content[:4]!r}")
        return f"data:{media};base64,{b64encode(self.content).decode('ascii')}"


@dataclass(frozen=True)
class SampleGallery:
    """The samples of a run: images and text, either of which may be empty."""

    run: str
    images: Sequence[PageImage] = ()
    text: str = ""
    classes: Sequence[str] = ()
    """The name of each sample's class, in the order of the samples; empty if classes have no names."""


@dataclass(frozen=True)
class Report:
    """The content of the page; an empty table or a missing figure is left out."""

    likelihood: pl.DataFrame
    zero_shot: pl.DataFrame
    samples: pl.DataFrame
    training: pl.DataFrame
    samplers: pl.DataFrame
    datasets: pl.DataFrame
    figures: Mapping[str, PageImage]
    """Any of likelihood, samplers, exponents and training."""
    galleries: Sequence[SampleGallery]
    params: str
    """The content of params.yaml without its comments, which must not change the page."""
    versions: Mapping[str, str]
    """Version of each package that the numbers depend on."""


def definitions() -> list[tuple[str, str]]:
    """Return the terms that tables and figures use, with their meanings."""
    _, _, *paragraphs = (FOLDER / "definitions.md").read_text(encoding="utf-8").split("\n\n")
    pairs = (" ".join(paragraph.split()).removeprefix("**").split("**: ") for paragraph in paragraphs)
    return [(term, meaning) for term, meaning in pairs]


def report_page(report: Report) -> str:
    """Render page.html.j2; the page needs no other file and no network, and equal reports give equal bytes.

    Raises:
        ValueError: an image is neither PNG, GIF nor SVG.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["display"] = to_display
    return environment.get_template("page.html.j2").render(report=report, definitions=definitions())
