"""The report: its tables hold the metrics files, and the difference of two runs is that of their examples."""

import json
import math
import re
from hashlib import md5
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from mdpipe.data.artifacts.files import MetricsError, write_record
from mdpipe.params import RESOLVED_PARAMS_FILE, Params, parse_params
from mdpipe.pipeline import paths
from mdpipe.reporting.schemas import EXPONENTS
from mdpipe.stages.report import report
from tests.reporting import records


@pytest.fixture
def two_runs(params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Two runs on one dataset, the first compared with the second, with files written by the test."""
    monkeypatch.chdir(tmp_path)
    data: dict[str, Any] = params.model_dump(mode="json")
    names = ("chars_md4", "chars_ar")
    data["runs"] = {name: data["runs"][name] for name in names}
    data["datasets"] = {"docs_chars": data["datasets"]["docs_chars"]}
    del data["zero_shot"], data["samplers"], data["image_quality"]
    encoding = records.encoding("docs_chars", records.TEXT_RATES)
    write_record(encoding, paths.record("encode", "docs_chars"))
    for name, value in zip(names, (2.5, 2.25), strict=True):
        put_results(name, value)
    put(RESOLVED_PARAMS_FILE, "seed: 0\n")
    return parse_params(data)


def put_results(run: str, value: float, seed: int = 0) -> None:
    """Write what the stages of a run write."""
    written = {
        "evaluate": records.evaluation(run, "docs_chars", "text", unit="bits/char", value=value, seed=seed),
        "sample": records.sample(run, dataset="docs_chars", seed=seed),
        "train": records.training(run),
    }
    for stage, record in written.items():
        write_record(record, paths.record(stage, run), paths.metrics(stage, run))
    put(paths.plot("curves", run), "step,train/loss,train/grad_norm\n1,4.5,1\n2,4.25,0.5\n")
    put(paths.plot("mask_fraction", run), "mask_fraction,bits,bits_stderr\n0.5,1.5,0.1\n1,4,\n")
    put(paths.plot("position", run), "first,last,bits,bits_stderr,tokens\n1,2,2.5,0.2,10\n3,4,2,0.1,9\n")
    put(
        paths.plot("calibration", run),
        "mask_fraction,confidence,frequency,stderr,weight,calibration_error\n"
        "0 to 1,0.5,0.4,0.01,1,0.1\n0 to 1/3,0.5,0.4,0.01,1,0.1\n",
    )


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def put_costs(run: str, nats: list[float], sizes: list[float], clusters: Any = None) -> None:
    paths.evaluation(run).parent.mkdir(exist_ok=True)
    clusters = range(len(nats)) if clusters is None else clusters
    np.save(paths.evaluation(run), np.stack([nats, sizes, clusters], axis=1).astype(np.float64))


def row_of(run: str) -> dict[str, Any]:
    """Return a run's row in results/likelihood.csv, the mean one if it has seeds."""
    rows = pl.read_csv(paths.RESULTS / "likelihood.csv").filter(pl.col("replicate_of").is_null())
    return rows.row(by_predicate=pl.col("run") == run, named=True)


def difference_by_hand(
    first: NDArray[np.float64], second: NDArray[np.float64], sizes: NDArray[np.float64], clusters: NDArray[np.float64]
) -> tuple[float, float]:
    """Return bits per token, with a ratio's error: G / (G - 1) times the clusters' squared residuals, by all tokens."""
    tokens, count = sum(sizes), len(set(clusters))
    nats = (sum(first) - sum(second)) / tokens
    residuals = first - second - nats * sizes
    squares = sum(residuals[clusters == cluster].sum() ** 2 for cluster in set(clusters))
    return nats / math.log(2), math.sqrt(count / (count - 1) * squares) / tokens / math.log(2)


def test_a_constant_difference_has_no_error(two_runs: Params) -> None:
    """One bit per token, however the examples' own costs scatter; only the run that asks for it has one."""
    put_costs("chars_md4", [4 * math.log(2) + 9, 4 * math.log(2), math.log(2) + 1], [4, 4, 1])
    put_costs("chars_ar", [9, 0, 1], [4, 4, 1])
    report(two_runs)
    compared = row_of("chars_md4")
    assert compared["baseline"] == "chars_ar"
    assert compared["difference"] == pytest.approx(1)
    assert compared["difference_stderr_evaluation"] == pytest.approx(0, abs=1e-9)
    assert [row_of("chars_ar")[name] for name in ("baseline", "difference", "trainings")] == [None] * 3


def test_a_difference_is_the_one_computed_by_hand(two_runs: Params) -> None:
    random = np.random.default_rng(0)
    sizes = np.array([32.0] * 29 + [7])
    first, second = random.uniform(0, 3, (2, 30)) * sizes
    documents = np.arange(30) // 4
    put_costs("chars_md4", first, sizes, documents)
    put_costs("chars_ar", second, sizes, documents)
    report(two_runs)
    found = row_of("chars_md4")
    expected = difference_by_hand(first, second, sizes, documents)
    assert (found["difference"], found["difference_stderr_evaluation"]) == pytest.approx(expected, rel=5e-6)


def with_seeds(params: Params, **seeds: list[int]) -> Params:
    """Return the params with seeds of some runs."""
    data: dict[str, Any] = params.model_dump(mode="json", exclude={"runs": {"__all__": {"seed"}}})
    for run, values in seeds.items():
        data["runs"][run]["seeds"] = values
    return parse_params(data)


def test_a_difference_over_seeds_pairs_equal_seeds(two_runs: Params) -> None:
    """The seeds are in another order for each run, and the error covers the seeds as well as the documents."""
    random = np.random.default_rng(0)
    sizes, documents = np.array([32.0] * 29 + [7]), np.arange(30) // 4
    costs = {}
    for run, by_seed in {
        "chars_md4": {0: "chars_md4", 1: "chars_md4-seed1"},
        "chars_ar": {1: "chars_ar", 0: "chars_ar-seed0"},
    }.items():
        for seed, name in by_seed.items():
            costs[run, seed] = random.uniform(0, 3, 30) * sizes
            put_results(name, 2 + seed / 10, seed)
            put_costs(name, costs[run, seed], sizes, documents)
    report(with_seeds(two_runs, chars_md4=[0, 1], chars_ar=[1, 0]))
    found = row_of("chars_md4")
    differences = [costs["chars_md4", seed] - costs["chars_ar", seed] for seed in (0, 1)]
    by_hand = [difference_by_hand(each, 0 * each, sizes, documents)[0] for each in differences]
    mean, of_documents = difference_by_hand(sum(differences) / 2, 0 * sizes, sizes, documents)
    assert found["difference"] == pytest.approx(mean, rel=5e-6)
    assert found["difference_stderr_evaluation"] == pytest.approx(of_documents, rel=5e-6)
    assert found["difference_stderr_seeds"] == pytest.approx(abs(by_hand[0] - by_hand[1]) / 2, rel=5e-6)
    # Half the difference of the seeds has the residuals of both, with one degree of freedom.
    both = difference_by_hand((differences[0] - differences[1]) / 2, 0 * sizes, sizes, documents)[1]
    variance = of_documents**2 + max((by_hand[0] - by_hand[1]) ** 2 / 4 - both**2, 0)
    assert found["difference_stderr"] == pytest.approx(math.sqrt(variance), rel=5e-6)
    assert (found["trainings"], found["seeds"], found["value"]) == ("2 trainings each", 2, pytest.approx(2.05))
    shown = (paths.RESULTS / "likelihood.md").read_text()
    assert "2 trainings each" in shown and "-seed" not in shown
    assert sorted(path.stem for path in (paths.REPORT / "cards").iterdir()) == ["chars_ar", "chars_md4"]
    assert "mean over 2 trainings" in (paths.REPORT / "cards/chars_md4.md").read_text()


def test_seeds_of_one_run_only_leave_one_training_each(two_runs: Params) -> None:
    put_results("chars_md4-seed1", 3.0, 1)
    for run in ("chars_md4", "chars_md4-seed1", "chars_ar"):
        put_costs(run, [5.0, 8.0, 6.0], [4, 4, 4])
    report(with_seeds(two_runs, chars_md4=[0, 1]))
    found = row_of("chars_md4")
    assert (found["trainings"], found["difference_stderr"], found["seeds"]) == ("one training each", None, 2)
    assert "one training" in (paths.REPORT / "cards/chars_ar.md").read_text()


def test_a_claim_has_the_difference_of_the_likelihood_table(two_runs: Params) -> None:
    """Also if the runs list their seeds in another order; without claims there is no table of them."""
    random = np.random.default_rng(0)
    for run, seed in (("chars_md4", 0), ("chars_md4-seed1", 1), ("chars_ar", 1), ("chars_ar-seed0", 0)):
        put_results(run, 2.5, seed)
        put_costs(run, random.uniform(0, 3, 30) * 32, [32.0] * 30)
    params = with_seeds(two_runs, chars_md4=[0, 1], chars_ar=[1, 0])
    report(params)
    assert not (paths.REPORT / "claims.md").exists()
    measure = {"kind": "difference", "run": "chars_md4", "baseline": "chars_ar"}
    claim = {"statement": "MD4 has fewer bits", "where": "Table 2", "published": "no number", "measure": measure}
    data = params.model_dump(mode="json") | {"claims": {"fewer": claim | {"expect": {"below": 0.0}}}}
    report(parse_params(data))
    (row,), found = pl.read_csv(paths.REPORT / "claims.csv").rows(named=True), row_of("chars_md4")
    assert (row["value"], row["stderr"]) == pytest.approx((found["difference"], found["difference_stderr"]), rel=5e-6)
    assert (row["verdict"], row["seeds"]) == ("cannot tell", 2)
    assert "MD4 has fewer bits" in (paths.REPORT / "claims.md").read_text()


def test_costs_without_clusters_name_the_stage(two_runs: Params) -> None:
    put_costs("chars_md4", [5.0, 8.0, 6.0], [4, 4, 4])
    put_costs("chars_ar", [5.5, 7.0, 5.0], [4, 4, 4])
    np.save(paths.evaluation("chars_ar"), np.load(paths.evaluation("chars_ar"))[:, :2])
    with pytest.raises(ValueError, match=r"it is \(3, 2\); run `dvc repro evaluate@chars_ar` again"):
        report(two_runs)


def test_a_difference_of_one_training_each_has_no_error(two_runs: Params) -> None:
    put_costs("chars_md4", [5.0, 8.0, 6.0], [4, 4, 4])
    put_costs("chars_ar", [5.5, 7.0, 5.0], [4, 4, 4])
    report(two_runs)
    header, _, *lines = (paths.RESULTS / "likelihood.md").read_text().splitlines()
    headings = [heading.strip() for heading in header.split("|")]
    cells = [dict(zip(headings, [cell.strip() for cell in line.split("|")], strict=True)) for line in lines]
    compared = [row for row in cells if row["baseline"]]
    assert [row["run"] for row in compared] == ["chars_md4"]
    assert "±" not in compared[0]["difference"]
    assert compared[0]["trainings"] == "one training each"
    assert row_of("chars_md4")["difference_stderr"] is None
    assert {row["estimator"] for row in cells if not row["run"]} == {"xz", "unigram"}


def test_the_report_has_figures_and_cards_and_stale_ones_go(two_runs: Params) -> None:
    put_costs("chars_md4", [5.0, 8.0, 6.0], [4, 4, 4])
    put_costs("chars_ar", [5.5, 7.0, 5.0], [4, 4, 4])
    put(paths.samples("chars_md4") / paths.EXPONENTS, f"{','.join(EXPONENTS)}\n0, ,1.5\n1,a,0.5\n")
    report(two_runs)
    written = {str(path.relative_to(paths.REPORT)) for path in paths.REPORT.rglob("*") if path.is_file()}
    cards = {f"cards/{run}.md" for run in two_runs.runs}
    assert written == {"index.html", "likelihood.svg", "exponents.svg", *cards}
    shown = (paths.REPORT / "exponents.svg").read_text(encoding="utf-8")
    assert all(f">{text}<" in shown for text in ("chars_md4", "␣", "a", "the 1 largest of 2"))
    (paths.samples("chars_md4") / paths.EXPONENTS).unlink()
    report(two_runs)
    assert not (paths.REPORT / "exponents.svg").exists()


def test_the_headline_names_the_run_with_the_fewest_bits(two_runs: Params) -> None:
    put_costs("chars_md4", [5.0, 8.0, 6.0], [4, 4, 4])
    put_costs("chars_ar", [5.5, 7.0, 5.0], [4, 4, 4])
    report(two_runs)
    file = paths.metrics("evaluate", "chars_ar")
    number = f'<a href="../{file}" title="{file}, MD5 {md5(file.read_bytes()).hexdigest()}">2.25 ± 0.02</a>'
    page = (paths.REPORT / "index.html").read_text(encoding="utf-8")
    assert "This page compares 2 runs on 1 data set." in page
    assert f"<li>Lowest on docs_chars (test split): chars_ar with {number} bits/char.</li>" in page


def test_the_headline_names_references_with_fewer_bits(two_runs: Params) -> None:
    put_costs("chars_md4", [5.0, 8.0, 6.0], [4, 4, 4])
    put_costs("chars_ar", [5.5, 7.0, 5.0], [4, 4, 4])
    rates = [records.rate("xz", "bits/char", 2.0), records.rate("bzip2", "bits/char", 2.4)]
    write_record(records.encoding("docs_chars", rates), paths.record("encode", "docs_chars"))
    report(two_runs)
    page = (paths.REPORT / "index.html").read_text(encoding="utf-8")
    headline = re.sub("<[^>]*>", "", page[page.index("<li>") :].split("</li>")[0])
    assert headline.endswith("chars_ar with 2.25 ± 0.02 bits/char. References that are lower: xz with 2.000.")


def test_a_run_worse_than_unigram_has_a_note_in_both(two_runs: Params) -> None:
    for run in two_runs.runs:
        put_costs(run, [5.0, 8.0, 6.0], [4, 4, 4])
    for unigram, worse in ((2.6, []), (2.4, ["chars_md4"])):
        rates = [records.rate("unigram", "bits/char", unigram, 0.01)]
        write_record(records.encoding("docs_chars", rates), paths.record("encode", "docs_chars"))
        report(two_runs)
        notes = (paths.RESULTS / "likelihood.md").read_text().rpartition("|\n")[2]
        page = (paths.REPORT / "index.html").read_text(encoding="utf-8")
        for text in (notes, page):
            assert re.findall(r"(\w+) needs more bits than a model that only knows how frequent", text) == worse


def test_every_figure_links_to_the_files_that_it_shows(two_runs: Params) -> None:
    put_costs("chars_md4", [5.0, 8.0, 6.0], [4, 4, 4])
    put_costs("chars_ar", [5.5, 7.0, 5.0], [4, 4, 4])
    report(two_runs)
    page = (paths.REPORT / "index.html").read_text(encoding="utf-8")
    figures = re.findall(r"<figure class.*?</figure>", page, re.DOTALL)
    shown = [re.findall(r'href="\.\./([^"]*)"', figure) for figure in figures]
    runs = ("chars_ar", "chars_md4")
    expected = [
        [*(f"metrics/evaluate/{run}.json" for run in runs), "records/encode/docs_chars.json"],
        [f"metrics/curves/{run}.csv" for run in runs],
        [f"metrics/{part}/{run}.csv" for part in ("mask_fraction", "position") for run in runs],
        [f"metrics/calibration/{run}.csv" for run in runs],
    ]
    assert shown == expected
    for file in set(chain(*shown)):
        assert f"{file}, MD5 {md5(Path(file).read_bytes()).hexdigest()}" in page


def test_a_validation_after_many_steps_is_in_the_curves(two_runs: Params) -> None:
    """Its columns are empty in all rows that types are guessed from by default."""
    put_costs("chars_md4", [5.0, 8.0, 6.0], [4, 4, 4])
    put_costs("chars_ar", [5.5, 7.0, 5.0], [4, 4, 4])
    empty = "".join(f"{step},4.5,1,,\n" for step in range(1, 201))
    put(
        paths.plot("curves", "chars_md4"),
        f"step,train/loss,train/grad_norm,validation/loss,validation/stderr\n{empty}201,,,3.25,0.125\n",
    )
    report(two_runs)
    assert (201, "docs_chars, validation bound (bits/dim)", 3.25) in [
        (step, panel, loss) for _, step, panel, loss in pl.read_csv(paths.RESULTS / "curves.csv").rows()
    ]


def test_recorded_costs_give_the_speed_of_training(two_runs: Params) -> None:
    """Tokens of all runs by the seconds of their stages, 3,000 / 20."""
    put_costs("chars_md4", [5.0, 8.0, 6.0], [4, 4, 4])
    put_costs("chars_ar", [5.5, 7.0, 5.0], [4, 4, 4])
    costs = {"cpu_seconds": 1.0, "peak_mib": 400.0, "tflop": 1.0}
    results = [
        {"stage": "train@chars_md4", "seconds": 5.0, "tokens": 1000, **costs},
        {"stage": "train@chars_ar", "seconds": 15.0, "tokens": 2000, **costs},
        {"stage": "encode@docs_chars", "seconds": 100.0, "tokens": 9000, **costs},
    ]
    machine = {"processor": "a CPU", "cores": 2, "memory_gib": 8.0, "device": "cpu", "commit": "deadbeef"}
    put(paths.COSTS, json.dumps({"date": "2026-11-29", "params": two_runs.md5, "machine": machine, "results": results}))
    report(two_runs)
    page = (paths.REPORT / "index.html").read_text(encoding="utf-8")
    for fact in (
        "deadbeef",
        "2026-11-29",
        "a CPU, 2 cores",
        "2 minutes, the sum of 3 stages",
        "150 tokens/s, over 2 runs",
    ):
        assert fact in page
    report(two_runs.model_copy(update={"seed": 1}))
    page = (paths.REPORT / "index.html").read_text(encoding="utf-8")
    assert "deadbeef" not in page and "none with these params" in page


def put_validations(run: str, bits: list[float]) -> None:
    """Write a training curve with validations at steps 10, 20, ..., and rows without any."""
    rows = "".join(f"{10 * at},,,,{value},0.05\n" for at, value in enumerate(bits, start=1))
    put(
        paths.plot("curves", run),
        f"step,train/loss,train/lr,train/grad_norm,validation/loss,validation/stderr\n1,4,1,1,,\n{rows}",
    )


def test_steps_to_a_bound_pair_equal_seeds(two_runs: Params) -> None:
    """Curves reach 3 bits at (20, 40) steps of the run and (60, 50) of its baseline, seeds 0 and 1, in 30 steps."""
    random = np.random.default_rng(0)
    curves = {"chars_ar": [4.0, 2.0], "chars_ar-seed1": [5.0, 4.0, 3.5, 3.0]}
    curves |= {"chars_md4-seed0": [8.0, 7.0, 6.0, 5.0, 4.0, 3.0], "chars_md4": [4.0, 4.0, 4.0, 4.0, 3.0]}
    for seed, (run, bits) in zip((0, 1, 0, 1), curves.items(), strict=True):
        put_results(run, 2.5, seed)
        put_validations(run, bits)
        put_costs(run, list(random.uniform(50, 60, 8)), [32.0] * 8)
    data = with_seeds(two_runs, chars_md4=[1, 0], chars_ar=[0, 1]).model_dump(mode="json")
    for run in curves:
        data["runs"][run]["train"] |= {"steps": 30, "validation": {"every": 10}}
    data["steps_to_bound"] = {"bits": 3.0, "baseline": "chars_md4", "runs": {"chars_ar": "chars_md4"}}
    params = parse_params(data)
    stages = [{"stage": f"train@{run}", "seconds": 3.0, "cpu_seconds": 3.0, "peak_mib": 1.0} for run in curves]
    costs = [{**stage, "tokens": 1, "tflop": 1.0} for stage in stages]
    machine = {"processor": "a CPU", "cores": 2, "memory_gib": 8.0, "device": "cpu", "commit": "deadbeef"}
    put(paths.COSTS, json.dumps({"date": "2026-11-29", "params": params.md5, "machine": machine, "results": costs}))
    report(params)
    baseline, row = pl.read_csv(paths.REPORT / "steps_to_bound.csv").rows(named=True)
    assert (baseline["run"], row["run"], row["changed_from"]) == ("chars_md4", "chars_ar", "chars_md4")
    assert (baseline["steps"], row["steps"]) == (55, 27.5)
    assert row["steps_ratio"] == pytest.approx(math.sqrt(15 / 60 * 40 / 50), rel=1e-5)
    assert (row["cpu_seconds"], row["cpu_ratio"]) == pytest.approx((2.75, row["steps_ratio"]))
    assert row["changes"].startswith("objective.kind autoregressive")
    nats = {run: np.load(paths.evaluation(run))[:, 0].sum() for run in curves}
    pairs = (("chars_ar", "chars_md4-seed0"), ("chars_ar-seed1", "chars_md4"))
    expected = sum(nats[run] - nats[other] for run, other in pairs) / 2 / 256 / math.log(2)
    assert row["difference"] == pytest.approx(expected, rel=1e-5)
    assert "| chars_ar" in (paths.REPORT / "steps_to_bound.md").read_text()
    page = (paths.REPORT / "index.html").read_text(encoding="utf-8")
    assert "Steps to a bound" in page and "28 ± 12" in page


def test_the_losses_of_all_runs_are_in_one_table(two_runs: Params) -> None:
    put_costs("chars_md4", [5.0, 8.0, 6.0], [4, 4, 4])
    put_costs("chars_ar", [5.5, 7.0, 5.0], [4, 4, 4])
    report(two_runs)
    losses = pl.read_csv(paths.RESULTS / "curves.csv").rows()
    panel = "docs_chars, training loss (bits/dim)"
    assert losses == [(run, step, panel, 4.75 - step / 4) for run in sorted(two_runs.runs) for step in (1, 2)]


@pytest.mark.parametrize(
    ("objective", "loss"),
    [
        ({"loss_weight": "flat"}, "flat weight"),
        ({"time_distribution": "logit_normal"}, "logit_normal times"),
        ({"kind": "maskgit"}, "mean weight"),
        ({}, "bound"),
    ],
)
def test_a_loss_that_is_no_bound_has_no_unit(two_runs: Params, objective: dict[str, Any], loss: str) -> None:
    put_costs("chars_md4", [5.0, 8.0, 6.0], [4, 4, 4])
    put_costs("chars_ar", [5.5, 7.0, 5.0], [4, 4, 4])
    data = two_runs.model_dump(mode="json")
    data["runs"]["chars_md4"]["objective"] = {"kind": "md4"} | objective
    report(parse_params(data))
    unit = " bits/dim" if loss == "bound" else ""
    assert f"Final training loss ({loss}): 2.400{unit}." in (paths.REPORT / "cards/chars_md4.md").read_text()


def test_runs_with_other_examples_are_not_compared(two_runs: Params) -> None:
    put_costs("chars_md4", [5.0, 8.0, 6.0], [4, 4, 4])
    put_costs("chars_ar", [5.5, 7.0], [4, 4])
    with pytest.raises(ValueError, match="costs of 3 and of 2"):
        report(two_runs)
    assert not paths.RESULTS.exists()


def test_a_missing_metrics_file_is_named(two_runs: Params) -> None:
    put_costs("chars_md4", [5.0, 8.0], [4, 4])
    put_costs("chars_ar", [5.5, 7.0], [4, 4])
    paths.metrics("sample", "chars_ar").unlink()
    with pytest.raises(MetricsError, match=r"metrics/sample/chars_ar\.json does not exist; `dvc repro` makes"):
        report(two_runs)
