"""Variance of the estimators of the likelihood bound, at equal network calls, on trained runs.

Shapes: N examples, R seeds.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from mdpipe.benchmarks.runner import Benchmark, Result
from mdpipe.data.dataset import EncodedDataset
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import likelihood_bound
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import EstimatorConfig
from mdpipe.pipeline import paths
from mdpipe.reporting.markdown import Columns
from mdpipe.stages.model_io import load_model

ESTIMATORS: tuple[str, ...] = get_args(EstimatorConfig.model_fields["estimator"].annotation)
FORMER, PAPER = "stratified_times", "independent_times"
"""The estimators that the others are compared with: mdpipe's before exact counts, and the paper's."""


@dataclass(frozen=True)
class _Examples:
    """Examples of one length, which `likelihood_bound` reads in their order."""

    tokens: NDArray[np.int64]
    """(N, L)."""
    vocab_size: int

    @property
    def examples(self) -> int:
        """Return N."""
        return len(self.tokens)

    def evaluation_batches(self, batch_size: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the indices (B,) and tokens (B, L) of batches."""
        for start in range(0, len(self.tokens), batch_size):
            indices = np.arange(start, min(start + batch_size, len(self.tokens)))
            yield indices, self.tokens[indices]


@dataclass(frozen=True)
class LikelihoodBenchmark(Benchmark):
    """One estimator of one run's bound, with several seeds on the same examples, spread over the test split.

    `examples` and `repeats` are at least 2, for a variance.
    """

    run: str
    estimator: str
    num_mc_samples: int = 16
    examples: int = 32
    repeats: int = 6
    threads: int = 1
    seed: int = 0

    title: ClassVar[str] = "{estimator} of {run}"
    heading: ClassVar[str] = "Estimators of the likelihood bound"
    columns: ClassVar[Columns] = {
        "run": "{run}",
        "estimator": "{estimator}",
        "calls": "{num_mc_samples}",
        "bound": "{value:.4f} ± {value_stderr:.4f}",
        "variance": "{variance:.5f} ± {variance_stderr:.5f}",
        "stated": "{variance_stated:.5f}",
        "times less": "{times_less:.1f}",
        "equal draws": "{equal_draws:,.0f}",
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {"estimator": ESTIMATORS}
    has_own_process: ClassVar[bool] = False

    def measure(self) -> Result:
        """Return the mean bound and the variance of an example's estimate over the seeds, in bits per token.

        `variance_stderr` is its standard error over the examples; `variance_stated` is the one by `stderr_mc`.
        """
        configure_runtime(self.threads)
        model = load_model(self.run)
        dataset = EncodedDataset.open(paths.encoded(model.dataset), "test")
        tokens, labels = dataset.spaced_examples(self.examples)
        examples = _Examples(tokens, dataset.vocab_size)
        settings = EstimatorConfig.model_validate(
            {"estimator": self.estimator, "num_mc_samples": self.num_mc_samples, "batch_size": 16}
        )
        labels = labels if model.num_classes else None
        found = [
            likelihood_bound(
                model.objective, model.network, examples, settings, CounterRNG(seed, "bench likelihood"), labels
            )
            for seed in range(self.seed, self.seed + self.repeats)
        ]
        bits_RN = np.stack([one.per_example / one.sizes for one in found]) / math.log(2)
        variance_N = bits_RN.var(axis=0, ddof=1)
        stated = np.mean([(one.stderr_mc / math.log(2)) ** 2 for one in found]) * len(tokens)
        return {
            "unit": model.unit,
            "value": float(bits_RN.mean()),
            "value_stderr": float(np.sqrt(variance_N.mean() / bits_RN.size)),
            "variance": float(variance_N.mean()),
            "variance_stderr": float(variance_N.std(ddof=1) / math.sqrt(len(tokens))),
            "variance_stated": float(stated),
        }

    @classmethod
    def compare(cls, results: Sequence[Result]) -> list[Result]:
        """Add `times_less`, the former estimator's variance by this one's at equal calls, and `equal_draws`.

        The latter is the number of independent draws of the paper's estimator with the same variance, which is their
        variance by the number of draws.
        """
        variances = {(one["run"], one["estimator"], one["num_mc_samples"]): one["variance"] for one in results}

        def per_draw(run: str) -> float:
            return float(np.mean([key[2] * value for key, value in variances.items() if key[:2] == (run, PAPER)]))

        return [
            {
                **one,
                "times_less": variances[one["run"], FORMER, one["num_mc_samples"]] / one["variance"],
                "equal_draws": per_draw(one["run"]) / one["variance"],
            }
            for one in results
        ]

    @classmethod
    def describe(cls, first: Result, table: str) -> str:
        """Return the page's text."""
        return f"""\
The bound of at most {first["examples"]} examples of each run's test split, by each estimator at equal network calls \
per example, with {first["repeats"]} seeds.

{table}
Variance: of one example's estimate over the seeds, (bits/token)^2, with its standard error over the examples; "stated"
is the one that stderr_mc states. "Times less": the variance of {FORMER} at the same number of calls by this one.
"Equal draws": draws of {PAPER}, the paper's estimator, with the same variance.

![Standard deviation by network calls](estimators.svg)
"""


def to_svg(results: Sequence[Result]) -> str:
    """Return a figure of the standard deviation by network calls, one panel per run."""
    import altair as alt  # Not above: a GPU node has neither of them.
    import polars as pl

    from mdpipe.reporting.charts import SERIES, Chart

    def panel(run: str) -> Any:
        rows = [
            {"estimator": one["estimator"], "calls": one["num_mc_samples"], "deviation": one["variance"] ** 0.5}
            for one in results
            if one["run"] == run
        ]
        unit = next(one["unit"] for one in results if one["run"] == run)
        axis = alt.Axis(values=sorted({row["calls"] for row in rows}))
        base = alt.Chart(pl.DataFrame(rows)).encode(
            x=alt.X("calls:Q", title="network calls per example", scale=alt.Scale(type="log", base=2), axis=axis),
            y=alt.Y("deviation:Q", title=f"standard deviation, {unit}", scale=alt.Scale(type="log")),
            color=alt.Color("estimator:N", scale=alt.Scale(domain=[*ESTIMATORS], range=SERIES[: len(ESTIMATORS)])),
        )
        return alt.layer(base.mark_line(), base.mark_point(filled=True, opacity=1, size=60), title=run)

    runs = dict.fromkeys(one["run"] for one in results)
    alternative = "Standard deviation of an example's bound by network calls, one line per estimator."
    return Chart([panel(run) for run in runs], alternative).to_svg()
