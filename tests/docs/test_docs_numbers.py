"""docs/numbers.md says what the report page says."""

from pathlib import Path

from mdpipe.reporting.definitions import DEFINITIONS

PAGE = Path(__file__).parents[2] / "docs/numbers.md"


def test_the_page_has_every_convention_in_the_reports_words_and_no_other() -> None:
    _, _, *paragraphs = PAGE.read_text(encoding="utf-8").split("\n\n")
    assert [" ".join(paragraph.split()) for paragraph in paragraphs] == [
        f"**{term}**: {meaning}" for term, meaning in DEFINITIONS
    ]


def test_no_line_of_it_is_a_list_by_accident() -> None:
    """Sentences are wrapped, and a sign at the start of a line would be markup."""
    assert not [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(("- ", "+ ", "* ", ">"))
    ]
