"""`mdpipe readme`: the tables and images of README.md from the latest results, so that no number is typed by hand."""

import shutil
from pathlib import Path

from mdpipe.data.artifacts.aside import write_aside
from mdpipe.params import Params
from mdpipe.reporting.markdown import replace_section
from mdpipe.stages import paths

README = Path("README.md")
PICTURES = Path("docs/pictures")
TABLES = ("likelihood", "zero_shot", "samples", "samplers")
FIGURES = ("likelihood", "samplers", "exponents")


def readme(params: Params) -> None:
    """Put results/*.md between README.md's markers; copy the report's figures and the samples into docs/pictures.

    Raises:
        ValueError: README.md lacks a marker.
        FileNotFoundError: a table of results/ is missing.
    """
    text = README.read_text(encoding="utf-8")
    for name in TABLES:
        text = replace_section(text, name, (paths.RESULTS / f"{name}.md").read_text(encoding="utf-8"))
    copies = {paths.REPORT / f"{name}.svg": f"{name}.svg" for name in FIGURES}
    for run in params.runs:
        copies |= {paths.samples(run) / image: f"{run}_{image}" for image in ("unmasking.gif", "samples.png")}
    PICTURES.mkdir(parents=True, exist_ok=True)
    for source, name in copies.items():
        if source.exists():
            shutil.copyfile(source, PICTURES / name)
    write_aside(README, text.encode())
