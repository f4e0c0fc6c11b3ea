"""`mdpipe readme`: the tables and figures of README.md and results/README.md, from the latest results."""

import shutil
from pathlib import Path

import yaml

from mdpipe.data.artifacts.files import atomic_write, write_json
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.reporting.markdown import replace_section

README = Path("README.md")
PICTURES = Path("docs/pictures")
SOURCES = PICTURES / "sources.json"
LOCK_FILE = Path("dvc.lock")
TABLES = {README: ("likelihood",), paths.RESULTS / "README.md": ("zero_shot", "samples", "samplers", "image_quality")}
FIGURES = ("likelihood", "samplers", "exponents")


def readme(params: Params) -> None:
    """Put results/*.md between the markers of both pages; copy the report's figures and the samples into docs/pictures.

    `SOURCES` then says which samples the pictures are of: the hashes in dvc.lock of the folders that they come from.

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
    replicates = params.replicates()
    folders: dict[str, list[Path]] = {
        "exponents.svg": [paths.samples(run) for run in replicates if (paths.samples(run) / paths.EXPONENTS).exists()]
    }
    for run in replicates:
        for image in ("unmasking.gif", "samples.png"):
            copies[paths.samples(run) / image] = name = f"{run}_{image}"
            folders[name] = [paths.samples(run)]
    PICTURES.mkdir(parents=True, exist_ok=True)
    hashes = locked_hashes()
    sources = {}
    for source, name in copies.items():
        if source.exists():
            shutil.copyfile(source, PICTURES / name)
            if name in folders:
                sources[name] = {str(folder): hashes.get(str(folder)) for folder in folders[name]}
    write_json(SOURCES, sources)


def locked_hashes() -> dict[str, str]:
    """Return the hash of every output in dvc.lock, by its path; none without a dvc.lock."""
    if not LOCK_FILE.exists():
        return {}
    stages = yaml.safe_load(LOCK_FILE.read_text(encoding="utf-8"))["stages"]
    return {output["path"]: output["md5"] for stage in stages.values() for output in stage.get("outs", [])}
