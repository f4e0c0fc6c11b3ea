"""docs/data.md and README.md: what they tell people to write into params.yaml is valid as it stands."""

import re
from pathlib import Path

import pytest
import yaml

from mdpipe.params import parse_params
from mdpipe.params.sources import AnySource

ROOT = Path(__file__).parents[1]
PAGES = ("docs/data.md", "README.md")
PIECES = [
    piece
    for page in PAGES
    for piece in re.findall(r"```yaml\n(sources:.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)
]


@pytest.mark.parametrize("piece", PIECES)
def test_every_piece_of_yaml_is_valid(piece: str) -> None:
    data = yaml.safe_load((ROOT / "workflow/presets/smoke.yaml").read_text())
    for section, entries in yaml.safe_load(piece).items():
        data[section] |= entries
    params = parse_params(data)
    assert set(yaml.safe_load(piece)["sources"]) <= set(params.sources)


def test_there_is_one_of_each_kind() -> None:
    shown = {source["kind"] for piece in PIECES for source in yaml.safe_load(piece)["sources"].values()}
    known = {section.model_fields["kind"].annotation.__args__[0] for section in AnySource.__origin__.__args__}
    assert shown >= known - {"digits", "photos"}
