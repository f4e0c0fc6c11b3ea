from dataclasses import replace
from html.parser import HTMLParser

import pytest

from mdpipe.reporting.page import PageImage, Report, SampleGallery, definitions, report_page
from mdpipe.reporting.tables import (
    datasets_table,
    likelihood_table,
    samplers_table,
    samples_table,
    training_table,
    zero_shot_table,
)
from tests.reporting.records import (
    IMAGE_RATES,
    encoding,
    evaluation,
    sample,
    scored,
    scored_frame,
    training,
    zero_shot,
)

VOID = {"meta", "img", "br"}
FIGURES = ("likelihood", "samplers", "exponents", "training")


class Outline(HTMLParser):
    """Every tag with its attributes, all text, and a check that every tag is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def images(self) -> list[tuple[str, str]]:
        """Return the type and the alternative text of every image."""
        images = [attributes for tag, attributes in self.tags if tag == "img"]
        return [(image["src"].removeprefix("data:").split(";")[0], image["alt"]) for image in images]


def report(run: str = "pieces") -> Report:
    rows = [scored(run, "ancestral", 8), scored(run, "data", None)]
    return Report(
        likelihood=likelihood_table([evaluation(run, "digits")], [encoding("digits", IMAGE_RATES)]),
        zero_shot=zero_shot_table([zero_shot(run, "numpy_docs")]),
        samples=samples_table([sample(run)]),
        training=training_table([training(run)]),
        samplers=samplers_table({run: scored_frame(rows)}),
        datasets=datasets_table([encoding("digits", [])]),
        figures={name: PageImage(b"<?xml version='1.0'?><svg/>", f"The {name} of {run}") for name in FIGURES},
        galleries=[
            SampleGallery("small", [PageImage(b"GIF89a", "Unmasking"), PageImage(b"\x89PNG\r\n", "Samples")]),
            SampleGallery(run, text="a sample", classes=["zero", "one", "zero"]),
        ],
        params="seed: 0\n",
        versions={"torch": "2.13.0", "numpy": "2.4.6"},
    )


def test_equal_reports_give_equal_pages():
    assert report_page(report()) == report_page(report())


def test_the_page_needs_no_other_file_no_network_and_no_script():
    for tag, attributes in Outline(report_page(report())).tags:
        assert tag not in {"script", "link", "iframe"}
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))


def test_every_link_leads_to_a_section():
    tags = Outline(report_page(report())).tags
    targets = [attributes["id"] for tag, attributes in tags if tag == "h2"]
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert links == [f"#{target}" for target in targets]
    assert len(links) == 9


def test_numbers_samples_versions_and_definitions_are_there():
    text = Outline(report_page(report())).text
    terms = [term for term, _ in definitions()]
    for expected in ("2.21 ± 0.02", "numpy_docs", "3.00 ± 0.03", "a sample", "seed: 0", "2.13.0", *terms):
        assert expected in text
    assert "Classes in turn, row by row: zero, one." in text


def test_images_are_embedded_with_their_type_and_alternative_text():
    figures = [("image/svg+xml", f"The {name} of pieces") for name in FIGURES]
    samples = [("image/gif", "Unmasking"), ("image/png", "Samples")]
    assert Outline(report_page(report())).images() == [*figures[:2], *samples, *figures[2:]]


def test_a_screen_reader_finds_language_regions_and_headings():
    tags = Outline(report_page(report())).tags
    assert ("html", {"lang": "en"}) in tags
    assert {"main", "nav", "h1"} <= {tag for tag, _ in tags}
    assert {attributes.get("scope") for tag, attributes in tags if tag == "th"} == {"col"}


def test_the_page_follows_the_readers_color_scheme():
    assert "@media (prefers-color-scheme: dark)" in report_page(report())


def test_rows_of_references_and_columns_of_numbers_are_marked():
    tags = Outline(report_page(replace(report(), samplers=report().samplers.clear()))).tags
    references = [attributes for tag, attributes in tags if tag == "tr" and attributes.get("class") == "reference"]
    assert len(references) == 5
    assert ("td", {"class": "number"}) in tags


def test_empty_sections_are_left_out():
    full = report()
    tables = ("likelihood", "zero_shot", "samples", "training", "samplers", "datasets")
    empty = replace(full, **{name: getattr(full, name).clear() for name in tables}, figures={}, galleries=[])
    titles = [attributes["id"] for tag, attributes in Outline(report_page(empty)).tags if tag == "h2"]
    assert titles == ["how-the-numbers-are-made", "params-and-versions"]


def test_names_and_texts_cannot_become_markup():
    evil = "<script>\"&'</script>"
    gallery = SampleGallery(evil, [PageImage(b"GIF89a", evil)], text=evil, classes=[evil])
    page = report_page(replace(report(evil), galleries=[gallery], params=evil, versions={evil: evil}))
    assert "<script" not in page
    outline = Outline(page)
    assert outline.text.count(evil) >= 12
    assert ("image/gif", evil) in outline.images()


def test_an_image_of_unknown_type_is_an_error_that_names_it():
    gallery = SampleGallery("small", [PageImage(b"JFIF", "Samples of small")])
    with pytest.raises(ValueError, match="image 'Samples of small' is neither PNG, GIF nor SVG"):
        report_page(replace(report(), galleries=[gallery]))
