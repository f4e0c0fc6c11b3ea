"""docs/numbers.md says what the report page says."""

from pathlib import Path

from mdpipe.reporting.page import FOLDER, definitions

PAGE = Path(__file__).parents[2] / "docs/numbers.md"


def test_the_docs_have_the_definitions_of_the_report_page() -> None:
    assert PAGE.read_bytes() == (FOLDER / "definitions.md").read_bytes()
    assert all(term and meaning and "*" not in term + meaning for term, meaning in definitions())


def test_no_wrapped_line_is_a_list_by_accident() -> None:
    """A sign at the start of a line would be markup."""
    assert not [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(("- ", "+ ", "* ", ">"))
    ]
