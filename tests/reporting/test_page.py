from dataclasses import replace
from html.parser import HTMLParser

import polars as pl
import pytest

from mdpipe.reporting.conventions import CONVENTIONS
from mdpipe.reporting.page import Exhibit, Report, report_page
from mdpipe.reporting.samplers_table import samplers_comparison
from mdpipe.reporting.tables import likelihood_table, samples_table, training_table, zero_shot_table
from tests.reporting.records import (
    IMAGE_RATES,
    encoding,
    evaluation,
    exponents_frame,
    judged,
    judged_frame,
    sample,
    training,
    zero_shot,
)

VOID = {"meta", "img", "br"}


class Outline(HTMLParser):
    """Every tag with its attributes, all text, and a check that what opens closes."""

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

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


LEVELS = exponents_frame([str(level) for level in range(64)], [1.0 + level / 64 for level in range(64)])
PIECES = exponents_frame([f"piece{token}" for token in range(64)], [1.0 + token / 64 for token in range(64)])


def samplers(run: str) -> pl.DataFrame:
    return samplers_comparison({run: judged_frame([judged(run, "ancestral", 8), judged(run, "data", None)])})


def report() -> Report:
    return Report(
        likelihood=likelihood_table([evaluation("small", "digits")], [encoding("digits", IMAGE_RATES)]),
        zero_shot=zero_shot_table([zero_shot("pieces", "numpy_docs")]),
        samples=samples_table([sample("pieces")]),
        training=training_table([training("small")]),
        curves={"small": pl.DataFrame({"step": [10, 20], "loss": [3.0, 2.5]})},
        exhibits=[Exhibit("small", pictures=[b"\x89PNG\r\n", b"GIF89a"]), Exhibit("pieces", text="a sample")],
        params="seed: 0\n",
        versions={"torch": "2.13.0", "numpy": "2.4.6"},
        samplers=samplers("pieces"),
        exponents={"small": LEVELS, "pieces": PIECES},
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
    targets = {attributes.get("id") for _, attributes in tags}
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert len(links) == 8
    assert all(link.removeprefix("#") in targets for link in links)


def test_numbers_samples_params_versions_and_conventions_are_there():
    text = Outline(report_page(report())).text
    terms = [term for term, _ in CONVENTIONS]
    for expected in ("2.21 ± 0.02", "numpy_docs", "3.00 ± 0.03", "a sample", "seed: 0", "2.13.0", *terms):
        assert expected in text


def test_pictures_are_embedded_with_their_type():
    sources = [attributes["src"] for tag, attributes in Outline(report_page(report())).tags if tag == "img"]
    assert [source.split(";")[0] for source in sources] == ["data:image/png", "data:image/gif"]


def test_what_is_empty_is_left_out():
    empty = Report(
        *(frame.clear() for frame in (report().likelihood, report().zero_shot, report().samples)),
        report().training.clear(),
        {},
        [],
        "",
        {},
    )
    text = Outline(report_page(empty)).text
    for title in ("Zero-shot", "Samplers", "Learned schedules"):
        assert title not in text
    assert "Params and versions" in text


def test_grey_levels_are_drawn_in_their_order_and_pieces_are_not():
    text = Outline(report_page(report())).text
    assert "the 15 largest" in text
    assert "piece63" in text
    curves_alone = Outline(report_page(replace(report(), exponents={"small": LEVELS}))).text
    assert "revealed early" in curves_alone
    assert "the 15 largest" not in curves_alone


def test_nothing_that_is_shown_can_become_markup():
    evil = "<script>\"&'</script>"
    page = report_page(
        replace(
            report(),
            likelihood=likelihood_table([evaluation(evil, evil)], [encoding(evil, IMAGE_RATES)]),
            training=training_table([training(evil)]),
            curves={evil: report().curves["small"]},
            samplers=samplers(evil),
            exponents={evil: exponents_frame([evil[:12]], [1.0])},
            exhibits=[Exhibit(evil, pictures=[b"GIF89a"], text=evil)],
            params=evil,
            versions={evil: evil},
        )
    )
    assert "<script" not in page
    outline = Outline(page)
    assert outline.text.count(evil) >= 12
    assert outline.text.count(evil[:12]) > outline.text.count(evil)
    assert [attributes["alt"] for tag, attributes in outline.tags if tag == "img"] == [f"Samples of {evil}"]


def test_a_picture_of_unknown_type_is_refused_with_its_run():
    with pytest.raises(ValueError, match="picture of run 'small' is neither PNG nor GIF"):
        report_page(replace(report(), exhibits=[Exhibit("small", pictures=[b"JFIF"])]))
