"""Stage `report`: the tables and figures of all runs, the page that shows them, and a card for each model."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import md5
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np
import polars as pl
import yaml

from mdpipe.data.artifacts.files import atomic_dir, atomic_write, read_json, read_record
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.pixels import dequantize
from mdpipe.evaluation.estimate import SeedsEstimate, paired_difference, ratio_estimate, seeds_estimate
from mdpipe.params import RESOLVED_PARAMS_FILE, Params
from mdpipe.params.data import modality_of
from mdpipe.params.runs import Run
from mdpipe.params.suites import Comparison
from mdpipe.pipeline import paths
from mdpipe.pipeline.provenance import DVC_FILE
from mdpipe.reporting import schemas, tables
from mdpipe.reporting.charts import Chart, exponents_chart, likelihood_chart, training_charts
from mdpipe.reporting.evaluation_charts import calibration_chart, profile_chart, samplers_chart
from mdpipe.reporting.graph import graph_chart
from mdpipe.reporting.images import class_by_class, contact_sheet, encode_png, sheet_columns
from mdpipe.reporting.markdown import format_measurement
from mdpipe.reporting.page import (
    PageImage,
    Report,
    SampleGallery,
    Sourced,
    Table,
    model_card,
    report_page,
    settings_table,
)
from mdpipe.reporting.published import compare_with_published, read_published
from mdpipe.reporting.schemas import to_markdown, without_replicates, write_table
from mdpipe.reporting.seeds import RunSteps, changed_settings, first_crossing, readable_steps, steps_table
from mdpipe.reporting.tables import with_means
from mdpipe.stages.claims import claims_markdown, claims_table, read_costs, readable_claims

PACKAGES = ("mdpipe", "torch", "numpy", "sentencepiece", "scikit-learn", "pillow", "dvc", "snakemake")
"""The packages that the numbers depend on."""

DISPLAYED_CHARACTERS = 1200
"""Characters of the text samples that the page shows."""

NEIGHBORS_CAPTION = "Samples of {run}, and the training images nearest to each by features and by pixels"

PROFILES = {"mask_share": schemas.SHARES, "position": schemas.POSITIONS, "calibration": schemas.CALIBRATION}
"""The plots of a run that the stage evaluate writes, with their columns."""

SOURCES = {
    "likelihood": (paths.metrics("evaluate", "{run}"), paths.record("encode", "{dataset}")),
    "datasets": 2 * (paths.record("encode", "{dataset}"),),
    "zero_shot": (paths.metrics("zero_shot", "{run}-{source}"), paths.record("zero_shot", "{run}-{source}")),
    "samples": 2 * (paths.metrics("sample", "{run}"),),
    "samplers": 2 * (paths.plot("samplers", "{run}"),),
    "image_quality": 2 * (paths.record("image_quality", "{run}"),),
    "steps_to_bound": 2 * (paths.plot("curves", "{run}"),),
    "training": 2 * (paths.metrics("train", "{run}"),),
    "published": 2 * (paths.PUBLISHED,),
    "costs": 2 * (paths.COSTS,),
}
"""The files of a table's numbers: of a run's row, and of a row without a run."""
SHARED_BY = {"zero_shot": ("source", "dataset"), "image_quality": ("dataset", "features")}
"""Tables whose rows without a run are in the files of all runs that have these columns in common."""


def report(params: Params) -> None:
    """Write the tables of results/ (.csv and .md each; curves.csv is for `dvc plots`), and report/.

    index.html          the page
    NAME.svg            its figures without the training curves
    cards/RUN.md        a model card for each run
    steps_to_bound.md   the runs of `steps_to_bound`, if params.yaml has it; steps_to_bound.csv has all numbers
    claims.md           the verdict on each claim, if params.yaml has claims; claims.csv has all numbers

    Raises:
        MetricsError: a metrics file or a record is missing or broken.
    """
    pairs = [f"{run}-{source}" for run in params.zero_shot.runs for source in params.zero_shot.sources]
    encodings = [read_record(paths.record("encode", dataset)) for dataset in params.datasets]
    speeds = pl.read_csv(paths.SPEEDS, schema_overrides=schemas.SPEEDS) if paths.SPEEDS.exists() else None
    replicates = params.replicates()
    measured = params.image_quality.runs
    compared = {run: pl.read_csv(paths.plot("samplers", run)) for run in params.samplers.runs}
    differences = [_difference(params, pair) for pair in params.comparisons]
    likelihood = tables.likelihood_table(_records("evaluate", params.runs), encodings, differences)
    errors = {run: _evaluation_error(names) for run, names in replicates.items() if len(names) > 1}
    zero_shots = tables.zero_shot_table(_records("zero_shot", pairs))
    results = {
        "likelihood": with_means(likelihood, replicates, schemas.HELD_OUT, errors),
        "datasets": tables.datasets_table(encodings),
        "zero_shot": with_means(zero_shots, replicates, schemas.OTHER_TEXT),
        "samples": tables.table_of_runs(_records("sample", params.runs), schemas.SAMPLES, "sample"),
        "samplers": tables.samplers_table(compared, speeds),
        "image_quality": tables.image_quality_table(
            read_record(paths.record("image_quality", run)) for run in measured
        ),
    }
    costs = read_json(paths.COSTS, "`mdpipe bench stages` writes it again") if paths.COSTS.exists() else {}
    if costs and costs["params"] != params.md5:
        costs = {}  # Of another suite, or of this one before it was changed.
    curves = {run: pl.read_csv(paths.plot("curves", run)) for run in params.runs}
    steps = steps_table(list(_steps_to_bound(params, curves, costs)))
    for name, table in results.items():
        write_table(table, paths.RESULTS / name)
    results = {name: without_replicates(table) for name, table in results.items()}
    results["steps_to_bound"] = readable_steps(steps)
    results["training"] = tables.table_of_runs(_records("train", params.runs), schemas.TRAINING, "train")
    if paths.PUBLISHED.exists():
        bounds = (results["likelihood"], results["zero_shot"])
        results["published"] = compare_with_published(*bounds, read_published(), params)
    results["costs"] = pl.DataFrame(costs.get("results", []), schema=schemas.COSTS)
    claims = claims_table(params)
    sourced = {
        name: Table(table, [_source(name, row, table) for row in table.iter_rows(named=True)])
        for name, table in results.items()
    }
    sourced["claims"] = Table(readable_claims(claims), [])
    losses = [
        curve.select(run=pl.lit(run), dataset=pl.lit(params.runs[run].dataset), step="step", loss="train/loss")
        for run, curve in curves.items()
    ]
    atomic_write(paths.RESULTS / "curves.csv", pl.concat(losses).write_csv().encode())
    trained = results["training"].join(likelihood.select("run", "dataset"), on="run").sort("dataset", "run")
    figures = _figures(params, results, sourced)
    by_dataset = {"curves": training_charts(curves, trained, {run: paths.plot("curves", run) for run in curves})}
    by_dataset |= _profiles(trained.filter(pl.col("run").is_in(list(replicates))))
    galleries = [_gallery(params, run) for run in replicates]
    headline = list(_headline(results["likelihood"]))
    facts = dict(_facts(params, costs))
    stated = [part.file for part in (*headline, *facts.values()) if part.file]
    charts = chain(figures.values(), *(charts.values() for charts in by_dataset.values()))
    with_files: Iterable[Table | Chart | SampleGallery] = (*sourced.values(), *charts, *galleries)
    content = Report(
        headline=headline,
        made_by=facts,
        tables=sourced,
        settings=settings_table({name: _settings(params.runs[name]) for name in replicates}),
        figures=figures,
        by_dataset=by_dataset,
        galleries=galleries,
        params=yaml.safe_dump(params.model_dump(mode="json")),
        hashes={
            file: md5(file.read_bytes()).hexdigest()
            for file in {RESOLVED_PARAMS_FILE, *stated, *chain(*(part.files for part in with_files))}
        },
        params_file=RESOLVED_PARAMS_FILE,
    )
    with atomic_dir(paths.REPORT) as folder:
        (folder / "index.html").write_text(report_page(content), encoding="utf-8")
        for name, figure in content.figures.items():
            (folder / f"{name}.svg").write_text(figure.to_svg(), encoding="utf-8")
        (folder / "cards").mkdir()
        for run in replicates:
            (folder / "cards" / f"{run}.md").write_text(model_card(run, content), encoding="utf-8")
        if params.steps_to_bound:
            (folder / "steps_to_bound.csv").write_text(steps.write_csv(), encoding="utf-8")
            (folder / "steps_to_bound.md").write_text(to_markdown(readable_steps(steps)), encoding="utf-8")
        if params.claims:
            (folder / "claims.csv").write_text(claims.write_csv(), encoding="utf-8")
            (folder / "claims.md").write_text(claims_markdown(claims), encoding="utf-8")


def _records(stage: str, names: Iterable[str]) -> list[dict[str, Any]]:
    return [read_record(paths.record(stage, name), paths.metrics(stage, name)) for name in names]


def _settings(run: Run) -> dict[str, Any]:
    """Return the settings of a run, with one seed for each of its trainings."""
    seeds = [run.seed] if run.seeds is None else run.seeds
    return run.model_dump(mode="json", exclude={"seed", "seeds"}) | {"seed": ", ".join(map(str, seeds))}


def _difference(params: Params, pair: Comparison) -> dict[str, Any]:
    """Return bits per token of a run minus those of its baseline, on the same examples and between equal seeds.

    The errors cover trainings and examples if both have `seeds`. Otherwise it is the difference of one training each,
    of equal seeds if there are any, whose only error is that of the evaluation.
    """
    names, baselines = _paired(params, pair.run, pair.baseline)
    pairs = list(zip(names, baselines, strict=True)) or [(pair.run, pair.baseline)]
    record = read_record(paths.record("evaluate", pair.run))
    data = {name: record[name] for name in ("dataset", "split")}
    first, second = zip(*pairs, strict=True)
    result = {"run": pair.run, "baseline": pair.baseline, **data}
    if estimate := _over_seeds(first, second):
        return result | vars(estimate) | {"trainings": f"{len(pairs)} trainings each"}
    costs, baseline = read_costs(first), read_costs(second)
    nats = paired_difference(costs.nats[0], baseline.nats[0], costs.sizes, costs.clusters)
    bits = nats.scaled(1 / math.log(2))
    return result | {"value": bits.value, "stderr_evaluation": bits.stderr, "trainings": "one training each"}


def _paired(params: Params, run: str, baseline: str) -> tuple[list[str], list[str]]:
    """Return the trainings of two runs with equal seeds, in the order of the run's."""
    first, second = (
        {params.seed_of(name): name for name in params.replicates().get(each, [each])} for each in (run, baseline)
    )
    seeds = [seed for seed in first if seed in second]
    return [first[seed] for seed in seeds], [second[seed] for seed in seeds]


def _steps_to_bound(params: Params, curves: Mapping[str, pl.DataFrame], costs: Mapping[str, Any]) -> Iterator[RunSteps]:
    """Yield the rows of `steps_to_bound`, the baseline first; nothing without that section."""
    if (section := params.steps_to_bound) is None:
        return
    seconds = {stage["stage"]: stage["cpu_seconds"] for stage in costs.get("results", [])}
    for name, changed in {section.baseline: section.baseline, **section.runs}.items():
        run, (baselines, names) = params.runs[name], _paired(params, section.baseline, name)
        validated = [curves[each].select("step", "validation/loss").drop_nulls() for each in names]
        points = [(curve["step"].to_list(), curve["validation/loss"].to_list()) for curve in validated]
        known = [seconds[f"train@{each}"] for each in names if f"train@{each}" in seconds]
        yield RunSteps(
            run=name,
            changed_from="" if name == section.baseline else changed,
            changes=changed_settings(_compared(run), _compared(params.runs[changed])),
            train_steps=run.train.steps,
            steps=[first_crossing(steps, bits, section.bits) for steps, bits in points],
            cpu_seconds=known if len(known) == len(names) else [],
            final=_over_seeds(names) or read_record(paths.metrics("evaluate", name))["value"],
            difference=None if name == section.baseline else _over_seeds(names, baselines),
        )


def _compared(run: Run) -> dict[str, Any]:
    """Return the settings that make a way to train."""
    validation = {"train": {"validation", "save_every", "save_total_limit"}}
    return run.model_dump(mode="json", include={"objective", "class_cond", "network", "train"}, exclude=validation)


def _over_seeds(names: Sequence[str], baselines: Sequence[str] = ()) -> SeedsEstimate | None:
    """Return the bits per token of trainings, or minus those of their baselines; None for one training."""
    if len(names) == 1:
        return None
    costs = read_costs(names)
    nats = costs.nats - read_costs(baselines).nats if baselines else costs.nats
    return seeds_estimate(nats, costs.sizes, costs.clusters).scaled(1 / math.log(2))


def _evaluation_error(trainings: Sequence[str]) -> float:
    """Return the standard error over examples of the mean bits per token of trainings on the same examples."""
    costs = read_costs(trainings)
    return ratio_estimate(costs.nats.mean(0), costs.sizes, costs.clusters).scaled(1 / math.log(2)).stderr


def _source(table: str, row: Mapping[str, Any], frame: pl.DataFrame) -> Path:
    """Return the file that has the numbers of a table's row; references come from the stage that encoded the data."""
    run = row.get("run")
    if table in ("likelihood", "zero_shot") and run is not None and row["seeds"] > 1:
        return paths.RESULTS / f"{table}.csv"
    of_run, of_reference = SOURCES[table]
    if table in SHARED_BY and run is None:
        of_same = frame.filter(**{name: row[name] for name in SHARED_BY[table]}).drop_nulls("run")
        return Path(str(of_reference).format_map({**row, "run": of_same["run"][0]}))
    return Path(str(of_reference if run is None else of_run).format_map(row))


def _headline(likelihood: pl.DataFrame) -> Iterator[Sourced]:
    """Yield the parts of the text that says what was run, the run with the fewest bits on each dataset and split, and
    the references that need fewer bits.
    """
    models = likelihood.drop_nulls("run")
    best = models.sort("value").unique(["dataset", "split"], keep="first").sort("dataset", "split")
    references = likelihood.filter(pl.col("run").is_null()).sort("value")
    yield Sourced(f"Runs: {models.height}. Fewest bits on held-out data: ")
    for at, row in enumerate(best.iter_rows(named=True), start=1):
        yield Sourced(format_measurement(row["value"], row["stderr"]), file=_source("likelihood", row, likelihood))
        given = f" given the {row['class_cond']}" if row["class_cond"] else ""
        yield Sourced(f" {row['unit']} on {row['dataset']}{given} ({row['run']}")
        of_data = references.filter(pl.col("value") < row["value"], dataset=row["dataset"], split=row["split"])
        for place, reference in enumerate(of_data.iter_rows(named=True)):
            yield Sourced(f"{', ' if place else '; fewer: '}{reference['estimator']} with ")
            number = format_measurement(reference["value"], reference["stderr"])
            yield Sourced(number, file=_source("likelihood", reference, likelihood))
        yield Sourced(")." if at == best.height else "), ")


def _facts(params: Params, costs: Mapping[str, Any]) -> Iterator[tuple[str, Sourced]]:
    """Yield what made the results; time and machine are those of `COSTS`, as equal results must give equal pages."""
    if costs:
        machine, stages = costs["machine"], costs["results"]
        hardware = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['device']}"
        time = f"{sum(stage['seconds'] for stage in stages) / 60:,.0f} minutes, the sum of {len(stages)} stages"
        measured = {"commit": machine["commit"], "date": costs["date"], "machine": hardware, "time": time}
        if training := [stage for stage in stages if stage["stage"].startswith("train@")]:
            tokens, seconds = (sum(stage[key] for stage in training) for key in ("tokens", "seconds"))
            rate = f"{tokens / seconds:,.0f} tokens/s"
            measured["training"] = f"{rate}, {len(training)} runs, with start and end of the process"
        yield from ((name, Sourced(text, paths.COSTS)) for name, text in measured.items())
    else:
        missing = "`mdpipe bench stages` records them, and the next `snakemake` shows them here"
        yield "time and machine", Sourced(missing)
    trainings = [f"{len(names)} trainings of {run}" for run, names in params.replicates().items() if len(names) > 1]
    yield "seed", Sourced(", ".join([str(params.seed), *trainings]), RESOLVED_PARAMS_FILE)
    packages = [f"Python {python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    yield "packages", Sourced(", ".join(packages))


def _profiles(trained: pl.DataFrame) -> dict[str, dict[str, Chart]]:
    """Return, by dataset, bits by share of hidden tokens and by position, and reliability diagrams."""
    profiles, calibration = {}, {}
    for frame in trained.partition_by("dataset", maintain_order=True):
        dataset, unit, runs = frame["dataset"][0], frame["unit"][0], frame["run"].to_list()
        files = {part: {run: paths.plot(part, run) for run in runs} for part in PROFILES}
        shares, positions, reliability = (
            {run: pl.read_csv(file, schema=schema) for run, file in files[part].items()}
            for part, schema in PROFILES.items()
        )
        profiles[dataset] = profile_chart(shares, positions, unit, (files["mask_share"], files["position"]))
        calibration[dataset] = calibration_chart(reliability, files["calibration"])
    return {"profiles": profiles, "calibration": calibration}


def _figures(params: Params, results: Mapping[str, pl.DataFrame], sourced: Mapping[str, Table]) -> dict[str, Chart]:
    """Return each figure for which there are results, with the files of its numbers."""
    figures = {}
    if DVC_FILE.exists():
        stages = yaml.safe_load(DVC_FILE.read_text(encoding="utf-8"))["stages"]
        figures["graph"] = replace(graph_chart(stages, params.model_dump(mode="json")), files=[DVC_FILE])
    for name, draw in (("likelihood", likelihood_chart), ("samplers", samplers_chart)):
        if results[name].height:
            figures[name] = draw(results[name], sourced[name].files)
    exponents = {
        run: pl.read_csv(path, schema_overrides=schemas.EXPONENTS)
        for run in params.replicates()
        if (path := paths.samples(run) / paths.EXPONENTS).exists()
    }
    if exponents:
        # Gray levels are ordered, tokens of text are not.
        is_image = {run: modality_of(params.datasets[params.runs[run].dataset]) == "image" for run in exponents}
        files = {run: paths.samples(run) / paths.EXPONENTS for run in sorted(exponents)}
        figures["exponents"] = exponents_chart(exponents, is_image, files)
    return figures


def _gallery(params: Params, run: str) -> SampleGallery:
    """Return samples, their unmasking and, for images, as many real ones of the evaluated split."""
    folder, settings = paths.samples(run), params.runs[run]
    text = folder / "samples.txt"
    images = []
    if (sheet := folder / "samples.png").exists():
        real = EncodedDataset.open(paths.encoded(settings.dataset), settings.evaluate.split)
        count, classes = min(settings.sample.count, len(real.tokens)), real.classes if settings.class_cond else 0
        spread = np.linspace(0, len(real.tokens) - 1, count).astype(np.int64)
        shown = class_by_class(np.asarray(real.labels[:]), count) if classes and real.labels is not None else spread
        names = real.class_names or tuple(map(str, range(real.classes)))
        pixels = dequantize(np.asarray(real.tokens[shown]), real.vocab_size).reshape(-1, *real.shape)
        labels = [] if real.labels is None else [names[label] for label in real.labels[shown]]
        columns = sheet_columns(classes)
        grid = encode_png(contact_sheet(pixels, columns))
        images.append(PageImage(grid, f"Real images of {settings.dataset}", labels, columns))
        sampled = [names[at % real.classes] for at in range(settings.sample.count)] if settings.class_cond else []
        images.append(PageImage(sheet.read_bytes(), f"Samples of {run}", sampled, columns))
    if run in params.image_quality.runs:
        images.append(PageImage(paths.neighbors(run).read_bytes(), NEIGHBORS_CAPTION.format(run=run)))
    if (animation := folder / "unmasking.gif").exists():
        action = "Sampling" if settings.objective.is_causal else "Unmasking of samples"
        images.append(PageImage(animation.read_bytes(), f"{action} of {run}"))
    if (filled := paths.samples(run) / paths.INFILLED_IMAGES).exists():
        caption = f"Held-out images, their masked lower half, and what {run} fills in"
        images.append(PageImage(filled.read_bytes(), caption))
    infilling = paths.samples(run) / paths.INFILLED_TEXTS
    texts = read_json(infilling, f"run `dvc repro sample@{run}` again")["texts"] if infilling.exists() else []
    return SampleGallery(
        run,
        images,
        text.read_text(encoding="utf-8")[:DISPLAYED_CHARACTERS] if text.exists() else "",
        texts,
        [file for file in (text, sheet, animation, filled, infilling) if file.exists()],
    )
