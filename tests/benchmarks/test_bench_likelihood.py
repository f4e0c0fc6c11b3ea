"""The table and the figure of `mdpipe bench likelihood`, from given variances."""

from typing import Any

import pytest
from typer.testing import CliRunner

from mdpipe.benchmarks.likelihood import BENCHMARK, compare, to_svg
from mdpipe.benchmarks.runner import to_table
from mdpipe.benchmarks.settings import ESTIMATORS, LikelihoodSettings
from mdpipe.cli import app


def results() -> list[dict[str, Any]]:
    variances = dict(zip(ESTIMATORS, (0.01, 0.2, 0.4), strict=True))
    common = {"run": "a", "unit": "bits/char", "value": 3.0, "value_stderr": 0.1, "variance_stderr": 0.01}
    return compare(
        [
            {
                **common,
                "estimator": name,
                "num_mc_samples": calls,
                "variance": variance * 4 / calls,
                "variance_stated": 0.1,
            }
            for calls in (4, 16)
            for name, variance in variances.items()
        ]
    )


def test_ratios_are_those_of_the_variances() -> None:
    """Independent draws have the variance 1.6 / D, so that 0.01 takes 160 of them, and a quarter of it 640."""
    assert [one["times_less"] for one in results()] == pytest.approx([20, 1, 0.5] * 2)
    assert [one["equal_samples"] for one in results()] == pytest.approx([160, 8, 4, 640, 32, 16])


def test_table_and_figure_have_every_estimator() -> None:
    for name in ESTIMATORS:
        assert name in to_table(results(), BENCHMARK.columns)
        assert name in to_svg(results())


def test_what_has_no_variance_is_refused() -> None:
    with pytest.raises(ValueError, match="--estimator must be one of exact_counts"):
        LikelihoodSettings(estimator="exact")
    done = CliRunner().invoke(app, ["bench", "likelihood", "--repeats", "1"])
    assert done.exit_code == 2 and "--repeats" in done.output
