"""Variance of the estimators of the likelihood bound, at equal network calls, on trained runs.

Shapes: N examples, R seeds.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from mdpipe.benchmarks.runner import Benchmark, Result
from mdpipe.benchmarks.settings import ESTIMATORS, LikelihoodSettings
from mdpipe.data.dataset import EncodedDataset
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.likelihood import likelihood_bound
from mdpipe.networks.runtime import configure_runtime
from mdpipe.params import EstimatorConfig
from mdpipe.pipeline import paths
from mdpipe.pipeline.model_io import load_model
from mdpipe.pipeline.provenance import locked_hashes

FORMER, PAPER = "stratified_times", "independent_times"
"""The estimators that the others are compared with: mdpipe's before exact counts, and the paper's."""


def measure(settings: LikelihoodSettings) -> Result:
    """Return the mean bound and the variance of an example's estimate over the seeds, in bits per token.

    The examples are spread over the test split. `variance_stderr` is the variance's standard error over the examples,
    `variance_stated` the variance by `stderr_mc`, and `model` the hash of the model's folder in dvc.lock.
    """
    configure_runtime(settings.threads)
    model = load_model(settings.run)
    dataset = EncodedDataset.open(paths.encoded(model.dataset), "test")
    tokens, labels = dataset.spaced_examples(settings.examples)
    # Rows of equal length, which are read in their order as images are.
    examples = dataset.model_copy(update={"modality": "image", "tokens": tokens, "separate_documents": False})
    config = EstimatorConfig.model_validate(
        {"estimator": settings.estimator, "num_mc_samples": settings.num_mc_samples, "batch_size": 16}
    )
    found = [
        likelihood_bound(
            model.objective,
            model.network,
            examples,
            config,
            CounterRNG(seed, "bench likelihood"),
            labels if model.num_classes else None,
        )
        for seed in range(settings.seed, settings.seed + settings.repeats)
    ]
    bits_RN = np.stack([one.per_example / one.sizes for one in found]) / math.log(2)
    variance_N = bits_RN.var(axis=0, ddof=1)
    stated = np.mean([(one.stderr_mc / math.log(2)) ** 2 for one in found]) * len(tokens)
    return {
        "model": locked_hashes().get(str(model.directory)),
        "unit": model.unit,
        "value": float(bits_RN.mean()),
        "value_stderr": float(np.sqrt(variance_N.mean() / bits_RN.size)),
        "variance": float(variance_N.mean()),
        "variance_stderr": float(variance_N.std(ddof=1) / math.sqrt(len(tokens))),
        "variance_stated": float(stated),
    }


def compare(results: Sequence[Result]) -> list[Result]:
    """Add `times_less`, the former estimator's variance by this one's at equal calls, and `equal_samples`.

    The latter is the number of independent samples of the paper's estimator with the same variance, which is their
    variance by the number of samples. Both are None where the estimator to compare with was not measured.
    """
    former = pl.col("variance").filter(estimator=FORMER).first().over("run", "num_mc_samples")
    per_sample = (pl.col("num_mc_samples") * pl.col("variance")).filter(estimator=PAPER).mean().over("run")
    table = pl.DataFrame(results).with_columns(
        times_less=former / pl.col("variance"), equal_samples=per_sample / pl.col("variance")
    )
    return table.to_dicts()


def to_svg(results: Sequence[Result]) -> str:
    """Return a figure of the standard deviation by network calls, one panel per run."""
    import altair as alt  # Not above: it takes a second to load.

    from mdpipe.reporting.charts import SERIES, Chart

    def panel(rows: pl.DataFrame) -> Any:
        base = alt.Chart(rows).encode(
            x=alt.X(
                "num_mc_samples:Q",
                title="network calls per example",
                scale=alt.Scale(type="log", base=2),
                axis=alt.Axis(values=rows["num_mc_samples"].unique().sort().to_list()),
            ),
            y=alt.Y("deviation:Q", title=f"standard deviation, {rows['unit'][0]}", scale=alt.Scale(type="log")),
            color=alt.Color("estimator:N", scale=alt.Scale(domain=[*ESTIMATORS], range=SERIES[: len(ESTIMATORS)])),
        )
        return alt.layer(base.mark_line(), base.mark_point(filled=True, opacity=1, size=60), title=rows["run"][0])

    table = pl.DataFrame(results).with_columns(deviation=pl.col("variance").sqrt())
    alternative = "Standard deviation of an example's bound by network calls, one line per estimator."
    return Chart([panel(rows) for rows in table.partition_by("run")], alternative).to_svg()


BENCHMARK = Benchmark(
    measure=measure,
    heading="Estimators of the likelihood bound",
    title="{estimator} of {run}",
    columns={
        "run": "{run}",
        "estimator": "{estimator}",
        "calls": "{num_mc_samples}",
        "bound": "{value:.4f} ± {value_stderr:.4f}",
        "variance": "{variance:.5f} ± {variance_stderr:.5f}",
        "stated": "{variance_stated:.5f}",
        "times less": "{times_less:.1f}",
        "equal samples": "{equal_samples:,.0f}",
    },
    compare=compare,
    files={"csv": lambda results: pl.DataFrame(results).write_csv(float_precision=6), "svg": to_svg},
    has_own_process=False,
    device="auto",
    page=f"""\
The bound of at most {{examples}} examples of each run's test split, by each estimator at equal network calls per \
example, with {{repeats}} seeds.

{{table}}
Variance: of one example's estimate over the seeds, (bits/token)^2, with its standard error over the examples; "stated"
is the one that stderr_mc states. "Times less": the variance of {FORMER} at the same number of calls by this one.
"Equal samples": samples of {PAPER}, the paper's estimator, with the same variance.

![Standard deviation by network calls](estimators.svg)
""",
)
