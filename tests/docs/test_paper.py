"""docs/paper.md: every name that it links to exists, and every claim has the verdict of the table."""

import csv
import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"\[`([\w.]+)`\]\(\.\./((?:src|tests)/[\w/]+)\.py\)", PAGE)))
PRESETS = sorted(path.stem for path in (ROOT / "workflow/presets").glob("paper_*.yaml"))


def find(module: ModuleType, name: str) -> Any:
    """Return a class, function, method, constant or setting of a module by its dotted name."""
    found: Any = module
    for part in name.split("."):
        # A setting is not an attribute of its class unless it has a default that pydantic leaves there.
        fields = getattr(found, "model_fields", {})
        found = fields[part] if part in fields else getattr(found, part)
    return found


def read(path: str) -> list[dict[str, str]]:
    with (ROOT / path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def section(title: str) -> str:
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize(("name", "path"), NAMES, ids=[name for name, _ in NAMES])
def test_a_name_of_the_page_is_defined_in_its_file(name: str, path: str) -> None:
    module = importlib.import_module(path.removeprefix("src/").replace("/", "."))
    found = find(module, name)
    # Not a name that the file only imports.
    assert getattr(found, "__module__", module.__name__) == module.__name__ or not callable(found)


def test_every_link_to_code_with_a_name_is_checked() -> None:
    """The names are found by a pattern, which a link in another form would escape."""
    links = re.findall(r"\[`([^`]+)`\]\((\.\./[^)]+\.py)\)", PAGE)
    assert {(name, f"../{path}.py") for name, path in NAMES} == set(links)
    assert len(NAMES) > 60


def test_a_name_that_does_not_exist_is_found() -> None:
    module = importlib.import_module("mdpipe.diffusion.objectives.md4")
    with pytest.raises(AttributeError):
        find(module, "MD4.elbow")


def test_claims_have_the_verdicts_of_their_table() -> None:
    verdicts = {row["claim"]: row["verdict"] for row in read("results/claims/claims.csv")}
    stated = re.findall(r"`(\w+)`: (agrees|disagrees|cannot tell)", PAGE)
    assert dict(stated) == verdicts
    assert len(stated) == len(verdicts)


def test_every_table_and_figure_has_a_row_and_its_numbers() -> None:
    rows = re.findall(r"^\| (Table \d|Fig\. \d)", section("Tables and figures"), re.MULTILINE)
    assert rows == [*(f"Table {n}" for n in range(1, 8)), *(f"Fig. {n}" for n in range(1, 6))]
    sources = [row["source"] for row in read("results/published.csv") if "2406.04329" in row["source"]]
    numbered = {source.rpartition(", ")[2] for source in sources}
    assert numbered == {*(f"Table {n}" for n in (1, 2, 3, 5, 6, 7)), "Figure 5", "abstract"}


def test_presets_of_the_page_are_those_of_the_paper() -> None:
    named = set(re.findall(r"`(paper_\w+|claims\w*)`", PAGE))
    assert {*PRESETS} <= named <= {path.stem for path in (ROOT / "workflow/presets").glob("*.yaml")}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_of_the_paper_points_to_the_page(preset: str) -> None:
    assert "docs/paper.md" in (ROOT / f"workflow/presets/{preset}.yaml").read_text(encoding="utf-8")
