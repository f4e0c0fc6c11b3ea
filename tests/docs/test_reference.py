"""The pages that docs/generate.py makes: every key and command has its meaning, and links hold in the site."""

import pytest
from typer.main import get_group

from docs.generate import commands_page, params_page, places, site_links
from mdpipe.cli import app
from mdpipe.params import Params


def test_every_key_of_the_schema_has_an_entry_with_a_meaning() -> None:
    schema = Params.model_json_schema()
    models = {name: model for name, model in schema["$defs"].items() if "properties" in model} | {"Params": schema}
    wanted = {(model["title"], key) for model in models.values() for key in model["properties"]}
    fixed = {
        (model["title"], key)
        for model in models.values()
        for key, value in model["properties"].items()
        if "const" in value  # The key that chooses a kind is in the heading, and the kind's meaning below it.
    }
    found = {}
    for place in places():
        for kind in place.kinds:
            assert kind.description, kind.model
            found |= {(kind.model, key.name): key.meaning for key in [*place.common, *kind.keys]}
    assert set(found) == wanted - fixed
    assert not [key for key, meaning in found.items() if not meaning]


def test_every_row_of_the_reference_has_a_type_and_a_default() -> None:
    rows = [line.split(" | ") for line in params_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 100
    assert all(len(row) == 5 and row[1] and row[2] for row in rows)


def test_every_command_is_in_the_reference() -> None:
    page = commands_page()
    group = get_group(app)
    assert all(f"## mdpipe {name}\n" in page for name in group.commands)
    assert all(f"## mdpipe bench {name}\n" in page for name in group.commands["bench"].commands)


@pytest.mark.parametrize(
    ("page", "link", "in_the_site"),
    [
        ("data.md", "[a](../results/speed/data.md)", "[a](results/speed/data.md)"),
        ("data.md", "[a](engines.md#locks)", "[a](engines.md#locks)"),
        ("results/README.md", "![a](../docs/images/samplers.svg)", "![a](../images/samplers.svg)"),
        ("results/README.md", "[a](datasets.md)", "[a](datasets.md)"),
        ("CONTRIBUTING.md", "[a](docs/extending.md)", "[a](extending.md)"),
        ("CONTRIBUTING.md", "[a](README.md)", "a"),
        ("api/networks.md", "[a](https://example.org/x.md)", "[a](https://example.org/x.md)"),
    ],
)
def test_links_lead_to_the_places_of_files_in_the_site(page: str, link: str, in_the_site: str) -> None:
    assert site_links(link, page) == in_the_site
