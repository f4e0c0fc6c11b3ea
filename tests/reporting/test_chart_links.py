"""Points and bars of charts link to the files of their numbers."""

from xml.etree import ElementTree

import polars as pl
import pytest
import vl_convert

from mdpipe.reporting.charts import exponents_chart, likelihood_chart, training_charts
from mdpipe.reporting.evaluation_charts import calibration_chart, profile_chart, samplers_chart
from mdpipe.reporting.schemas import FILE
from tests.reporting.records import exponents_frame, scored
from tests.reporting.test_charts import EVIL, LETTERS, SPREAD, compared, curve, likelihood, trained

pytestmark = pytest.mark.slow

MASK_FRACTION_ROWS = pl.DataFrame({"mask_fraction": [0.1, 1.0], "bits": [1.5, 4.0], "bits_stderr": [0.1, None]})
POSITION_ROWS = pl.DataFrame(
    {"first": [1, 2], "last": [1, 3], "bits": [3.0, 2.0], "bits_stderr": [0.1, 0.1], "tokens": [9, 18]}
)
CALIBRATION_ROWS = pl.DataFrame(
    {"mask_fraction": ["0 to 1", "0 to 1/3"], "confidence": [0.5, 0.4], "frequency": [0.5, 0.5], "stderr": [0.1, None]}
).with_columns(weight=1.0, calibration_error=0.1)
BASE_URL = "https://vega.github.io/vega-datasets/"
"""The converter to SVG puts this in front of relative links."""
FILES = {EVIL: "metrics/it's.csv", "b": "metrics/b.csv"}
ROW_FILES = [f"metrics/{at}.json" for at in range(likelihood().height)]


def of_run(frame: pl.DataFrame, run: str = EVIL) -> pl.DataFrame:
    return frame.with_columns(pl.lit(run).alias("run"), pl.lit(FILES[run]).alias(FILE))


LINKED = {
    "likelihood": lambda: likelihood_chart(likelihood(EVIL).with_columns(pl.Series(FILE, ROW_FILES))),
    "training": lambda: training_charts({EVIL: of_run(curve([3.0, 2.0]))}, trained(**{EVIL: "digits"}))["digits"],
    "samplers": lambda: samplers_chart(of_run(compared(scored("b", "euler", 8), scored("b", "data", None)), "b")),
    "exponents": lambda: exponents_chart({EVIL: of_run(exponents_frame(LETTERS, SPREAD))}, {EVIL: False}),
    "profiles": lambda: profile_chart(of_run(MASK_FRACTION_ROWS), of_run(POSITION_ROWS), "bits/dim"),
    "calibration": lambda: calibration_chart(of_run(CALIBRATION_ROWS)),
}


@pytest.mark.parametrize("name", LINKED)
def test_points_and_bars_link_to_the_files_of_their_numbers(name):
    chart = LINKED[name]()
    links = []
    for spec in chart.to_specs():
        svg = vl_convert.vegalite_to_svg(spec)
        of_panel = [
            value for node in ElementTree.fromstring(svg).iter() for key, value in node.items() if "href" in key
        ]
        assert of_panel
        links += [link.removeprefix(BASE_URL) for link in of_panel]
    assert "href" not in chart.to_svg()
    if name == "likelihood":
        assert set(links) == {f"../{file}" for file in ROW_FILES}
    else:
        assert set(links) == {f"../{FILES['b' if name == 'samplers' else EVIL]}"}
