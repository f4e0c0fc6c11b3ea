"""`mdpipe readme`: the tables and figures of README.md and results/README.md, from the latest results."""

import shutil
from pathlib import Path

from mdpipe.data.artifacts.files import atomic_write, write_json
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.pipeline.provenance import locked_outputs, locked_stages
from mdpipe.reporting.markdown import replace_section

README = Path("README.md")
IMAGES = Path("docs/images")
SOURCES = IMAGES / "sources.json"
TABLES = {README: ("likelihood",), paths.RESULTS / "README.md": ("zero_shot", "samples", "samplers", "image_quality")}
FIGURES = ("likelihood", "samplers", "exponents")


def readme(params: Params) -> None:
    """Put results/*.md between the markers of both pages; copy the report's figures and the samples into docs/images.

    `SOURCES` then says which samples the images are of: the hashes in dvc.lock of the folders that they come from.
    """
    for page, names in TABLES.items():
        text = page.read_text(encoding="utf-8")
        for name in names:
            text = replace_section(text, name, (paths.RESULTS / f"{name}.md").read_text(encoding="utf-8"))
        atomic_write(page, text.encode())
    samples = [paths.samples(run) for run in params.replicates()]
    with_exponents = [folder for folder in samples if (folder / paths.EXPONENTS).exists()]
    copies = [(paths.REPORT / f"{name}.svg", f"{name}.svg", with_exponents * (name == "exponents")) for name in FIGURES]
    for image in ("unmasking.gif", "samples.png"):
        copies += [(folder / image, f"{folder.name}_{image}", [folder]) for folder in samples]
    IMAGES.mkdir(parents=True, exist_ok=True)
    hashes, sources = locked_hashes(), {}
    for path, name, folders in copies:
        if path.exists():
            shutil.copyfile(path, IMAGES / name)
            if folders:
                sources[name] = {str(folder): hashes.get(str(folder)) for folder in folders}
    write_json(SOURCES, sources)


def locked_hashes() -> dict[str, str]:
    """Return the hash of every output in dvc.lock, by its path."""
    return {path: md5 for stage in locked_stages().values() for path, md5 in locked_outputs(stage).items()}
