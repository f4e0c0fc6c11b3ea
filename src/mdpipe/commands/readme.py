"""`mdpipe readme`: the tables and figures of README.md and results/README.md, from the latest results."""

import shutil
from pathlib import Path

from mdpipe.data.artifacts.files import atomic_write
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.reporting.markdown import replace_section

README = Path("README.md")
PICTURES = Path("docs/pictures")
TABLES = {README: ("likelihood",), paths.RESULTS / "README.md": ("zero_shot", "samples", "samplers", "image_quality")}
FIGURES = ("likelihood", "samplers", "exponents")


def readme(params: Params) -> None:
    """Put results/*.md between the markers of both pages; copy the report's figures and the samples into docs/pictures.

    Raises:
        ValueError: a page lacks a marker.
        FileNotFoundError: a table of results/ is missing.
    """
    for page, names in TABLES.items():
        text = page.read_text(encoding="utf-8")
        for name in names:
            text = replace_section(text, name, (paths.RESULTS / f"{name}.md").read_text(encoding="utf-8"))
        atomic_write(page, text.encode())
    copies = {paths.REPORT / f"{name}.svg": f"{name}.svg" for name in FIGURES}
    for run in params.runs:
        copies |= {paths.samples(run) / image: f"{run}_{image}" for image in ("unmasking.gif", "samples.png")}
    PICTURES.mkdir(parents=True, exist_ok=True)
    for source, name in copies.items():
        if source.exists():
            shutil.copyfile(source, PICTURES / name)
