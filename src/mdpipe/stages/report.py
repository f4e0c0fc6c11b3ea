"""Stage `report`: the tables and figures of all runs, the page that shows them, and a card for each model."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from hashlib import md5
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np
import polars as pl
import yaml

from mdpipe.data.artifacts.files import atomic_dir, atomic_write, read_json, read_record
from mdpipe.data.dataset import EncodedDataset, evenly_spaced
from mdpipe.data.pixels import to_images
from mdpipe.evaluation.estimate import SeedsEstimate, paired_difference, seeds_estimate
from mdpipe.params import RESOLVED_PARAMS_FILE, Params
from mdpipe.params.data import modality_of
from mdpipe.params.runs import Run
from mdpipe.params.suites import Comparison
from mdpipe.pipeline import paths
from mdpipe.pipeline.evaluations import read_evaluations, read_fids
from mdpipe.pipeline.provenance import DVC_FILE
from mdpipe.reporting import schemas, tables
from mdpipe.reporting.charts import Chart, curves_table, exponents_chart, likelihood_chart, training_charts
from mdpipe.reporting.claims import DISPLAYED_CLAIMS, Measures, claims_markdown, claims_table
from mdpipe.reporting.evaluation_charts import calibration_chart, profile_chart, samplers_chart
from mdpipe.reporting.graph import graph_chart
from mdpipe.reporting.images import class_by_class, contact_sheet, encode_png, sheet_columns
from mdpipe.reporting.page import (
    PageImage,
    Report,
    SampleGallery,
    Sourced,
    model_card,
    report_page,
    settings_table,
)
from mdpipe.reporting.published import compare_with_published
from mdpipe.reporting.schemas import FILE, Schema, to_markdown, to_texts, without_replicates, write_table
from mdpipe.reporting.seeds import pair_trainings
from mdpipe.reporting.steps_to_bound import DISPLAYED_STEPS, RunSteps, changed_settings, first_crossing, steps_table

PACKAGES = ("mdpipe", "torch", "numpy", "sentencepiece", "scikit-learn", "pillow", "dvc", "snakemake")
"""The packages that the numbers depend on."""

DISPLAYED_CHARACTERS = 1200
"""Characters of the text samples that the page shows."""

NEIGHBORS_CAPTION = "Samples of {run}, and the training images nearest to each by features and by pixels"


def _path(path: Path, *columns: str | pl.Expr) -> pl.Expr:
    return pl.format(str(path), *columns)


def _file_of_means(table: str, *of_rows: pl.Expr) -> pl.Expr:
    """Return the CSV file for means over seeds, and otherwise the first file that a row has."""
    return pl.when(pl.col("seeds") > 1).then(pl.lit(f"{paths.RESULTS}/{table}.csv")).otherwise(pl.coalesce(*of_rows))


def _first_run(*columns: str) -> pl.Expr:
    """Return the row's run, or the first one with the same columns, whose file a row without a run is in, too."""
    return pl.col("run").fill_null(pl.col("run").drop_nulls().first().over(columns))


FILES = {
    "likelihood": _file_of_means(
        "likelihood", _path(paths.metrics("evaluate", "{}"), "run"), _path(paths.record("encode", "{}"), "dataset")
    ),
    "zero_shot": _file_of_means(
        "zero_shot",
        _path(paths.metrics("zero_shot", "{}-{}"), "run", "source"),
        _path(paths.record("zero_shot", "{}-{}"), _first_run("source", "dataset"), "source"),
    ),
    "datasets": _path(paths.record("encode", "{}"), "dataset"),
    "samples": _path(paths.metrics("sample", "{}"), "run"),
    "samplers": _path(paths.plot("samplers", "{}"), "run"),
    "image_quality": _path(paths.record("image_quality", "{}"), _first_run("dataset", "features")),
    "steps_to_bound": _path(paths.plot("curves", "{}"), "run"),
    "training": _path(paths.metrics("train", "{}"), "run"),
    "published": pl.lit(str(paths.PUBLISHED)),
    "costs": pl.lit(str(paths.COSTS)),
}
"""The file of the numbers of each row of a table."""


def report(params: Params) -> None:
    """Write the tables of results/ (.csv and .md each; curves.csv is for `dvc plots`), and report/.

    index.html          the page
    NAME.svg            its figures without the training curves
    cards/RUN.md        a model card for each run
    steps_to_bound.md   the runs of `steps_to_bound`, if params.yaml has it; steps_to_bound.csv has all numbers
    claims.md           the verdict on each claim, if params.yaml has claims; claims.csv has all numbers

    Raises:
        MetricsError: A metrics file or a record is missing or broken.
    """
    costs = read_json(paths.COSTS, "`mdpipe bench stages` writes it again") if paths.COSTS.exists() else {}
    if costs and costs["params"] != params.md5:
        costs = {}  # They are of another suite, or of this one before it was changed.
    results = _results(params)
    curves = {run: _read_csv(paths.plot("curves", run), run) for run in params.runs}
    steps = steps_table(list(_steps_to_bound(params, curves, costs)))
    claims = claims_table(Measures(params, read_evaluations, read_fids))
    notes = {"likelihood": tables.worse_than_unigram(without_replicates(results["likelihood"]))}
    for name, table in results.items():
        write_table(table, paths.RESULTS / name, notes.get(name, ()))
    trained = tables.table_of_runs(_records("train", params.runs), schemas.TRAINING, "train").with_columns(
        dataset=pl.col("run").replace_strict({name: run.dataset for name, run in params.runs.items()}),
        training_loss=pl.col("run").replace_strict({name: _training_loss(run) for name, run in params.runs.items()}),
    )
    losses = curves_table(curves, trained)
    atomic_write(paths.RESULTS / "curves.csv", losses.write_csv().encode())

    shown = {name: without_replicates(table) for name, table in results.items()}
    shown["steps_to_bound"] = to_texts(steps, DISPLAYED_STEPS)
    unit = pl.when(training_loss=schemas.BOUND_LOSS).then("unit")  # Only a bound is in bits.
    shown["training"] = trained.select(*schemas.TRAINING, "training_loss").with_columns(unit=unit)
    if paths.PUBLISHED.exists():
        published = pl.read_csv(paths.PUBLISHED, infer_schema_length=None)
        shown["published"] = compare_with_published(shown["likelihood"], shown["zero_shot"], published, params)
    shown["costs"] = pl.DataFrame(costs.get("results", []), schema=schemas.COSTS)
    shown = {name: table.with_columns(FILES[name].alias(FILE)) for name, table in shown.items()}
    shown["claims"] = to_texts(claims, DISPLAYED_CLAIMS)
    runs = list(params.replicates())
    trained = trained.sort("dataset", "run")
    content = Report(
        facts=_facts(params, costs),
        tables=shown,
        settings=settings_table({run: _settings(params.runs[run]) for run in runs}),
        figures=_figures(params, shown),
        by_dataset={"curves": training_charts(curves, trained), **_profiles(trained.filter(pl.col("run").is_in(runs)))},
        galleries=[_gallery(params, run) for run in runs],
        params=yaml.safe_dump(params.model_dump(mode="json")),
        params_file=str(RESOLVED_PARAMS_FILE),
        md5=cache(lambda file: md5(Path(file).read_bytes()).hexdigest()),
    )
    files = {"index.html": report_page(content)}
    files |= {f"{name}.svg": figure.to_svg() for name, figure in content.figures.items()}
    files |= {f"cards/{run}.md": model_card(run, content) for run in runs}
    if params.steps_to_bound:
        files |= {"steps_to_bound.csv": steps.write_csv(), "steps_to_bound.md": to_markdown(shown["steps_to_bound"])}
    if params.claims:
        files |= {"claims.csv": claims.write_csv(), "claims.md": claims_markdown(claims)}
    with atomic_dir(paths.REPORT) as folder:
        (folder / "cards").mkdir()
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")


def _results(params: Params) -> dict[str, pl.DataFrame]:
    """Return the tables of results/."""
    replicates = params.replicates()
    encodings = [read_record(paths.record("encode", dataset)) for dataset in params.datasets]
    differences = [_difference(params, pair) for pair in params.comparisons]
    likelihood = tables.likelihood_table(_records("evaluate", params.runs), encodings, differences)
    errors = {run: _estimate_over_seeds(names).stderr_evaluation for run, names in replicates.items() if len(names) > 1}
    pairs = [f"{run}-{source}" for run in params.zero_shot.runs for source in params.zero_shot.sources]
    zero_shot = tables.zero_shot_table(_records("zero_shot", pairs))
    compared = {run: pl.read_csv(paths.plot("samplers", run)) for run in params.samplers.runs}
    speeds = pl.read_csv(paths.SPEEDS, schema_overrides=schemas.SPEEDS) if paths.SPEEDS.exists() else None
    measured = [read_record(paths.record("image_quality", run)) for run in params.image_quality.runs]
    return {
        "likelihood": tables.with_means(likelihood, replicates, schemas.HELD_OUT_COLUMNS, errors),
        "datasets": tables.datasets_table(encodings),
        "zero_shot": tables.with_means(zero_shot, replicates, schemas.OTHER_TEXT_COLUMNS),
        "samples": tables.table_of_runs(_records("sample", params.runs), schemas.SAMPLES, "sample"),
        "samplers": tables.samplers_table(compared, speeds),
        "image_quality": tables.image_quality_table(measured),
    }


def _records(stage: str, names: Iterable[str]) -> list[dict[str, Any]]:
    return [read_record(paths.record(stage, name), paths.metrics(stage, name)) for name in names]


def _read_csv(file: Path, run: str, schema: Schema | None = None) -> pl.DataFrame:
    """Return a table of a run with the columns `run` and `FILE`."""
    frame = pl.read_csv(file, schema_overrides=schema, infer_schema_length=None)
    return frame.with_columns(pl.lit(run).alias("run"), pl.lit(str(file)).alias(FILE))


def _settings(run: Run) -> dict[str, Any]:
    """Return the settings of a run, with one seed for each of its trainings."""
    seeds = [run.seed] if run.seeds is None else run.seeds
    return run.model_dump(mode="json", exclude={"seed", "seeds"}) | {"seed": ", ".join(map(str, seeds))}


def _training_loss(run: Run) -> str:
    """Return `BOUND_LOSS`, or how the training loss of a run differs from the bound, as `flat weight`."""
    objective = run.objective.model_dump()
    weight, times = objective.get("loss_weight", "bound"), objective.get("time_distribution", {"kind": "uniform"})
    changes = [f"{weight} weight"] * (weight != "bound") + [f"{times['kind']} times"] * (times["kind"] != "uniform")
    return " and ".join(changes) or schemas.BOUND_LOSS


def _difference(params: Params, pair: Comparison) -> dict[str, Any]:
    """Return bits per token of a run minus those of its baseline, on the same examples and between equal seeds.

    The errors cover trainings and examples if both have `seeds`. Otherwise it is the difference of one training each,
    of equal seeds if there are any, whose only error is that of the evaluation.
    """
    names, baselines = pair_trainings(params, pair.run, pair.baseline)
    if len(names) > 1:
        estimate, trainings = _estimate_over_seeds(names, baselines), f"{len(names)} trainings each"
        names_of_errors = ("stderr", "stderr_evaluation", "stderr_seeds")
        errors = {f"difference_{name}": getattr(estimate, name) for name in names_of_errors}
        return pair.model_dump() | {"difference": estimate.value, "trainings": trainings} | errors
    totals, baseline = (read_evaluations(runs).totals for runs in (names or [pair.run], baselines or [pair.baseline]))
    nats = paired_difference(totals.nats[0], baseline.nats[0], totals.sizes, totals.clusters)
    bits = nats.scale(1 / math.log(2))
    found = {"difference": bits.value, "difference_stderr_evaluation": bits.stderr, "trainings": "one training each"}
    return pair.model_dump() | found


def _steps_to_bound(params: Params, curves: Mapping[str, pl.DataFrame], costs: Mapping[str, Any]) -> Iterator[RunSteps]:
    """Yield the rows of `steps_to_bound`, the baseline first; nothing without that section."""
    if (section := params.steps_to_bound) is None:
        return
    seconds = {stage["stage"]: stage["cpu_seconds"] for stage in costs.get("results", [])}
    for name, changed in {section.baseline: section.baseline, **section.runs}.items():
        run, (baselines, names) = params.runs[name], pair_trainings(params, section.baseline, name)
        points = [curves[each].select("step", "validation/loss").drop_nulls() for each in names]
        known = [seconds[f"train@{each}"] for each in names if f"train@{each}" in seconds]
        has_seeds, is_baseline = len(names) > 1, name == section.baseline
        yield RunSteps(
            run=name,
            changed_from="" if is_baseline else changed,
            changes=changed_settings(_get_training_settings(run), _get_training_settings(params.runs[changed])),
            train_steps=run.train.steps,
            steps=[first_crossing(list(at), list(bits), section.bits) for at, bits in points],
            cpu_seconds=known if len(known) == len(names) else [],
            final=_estimate_over_seeds(names) if has_seeds else read_record(paths.metrics("evaluate", name))["value"],
            difference=_estimate_over_seeds(names, baselines) if has_seeds and not is_baseline else None,
        )


def _get_training_settings(run: Run) -> dict[str, Any]:
    """Return the settings that define a training method."""
    validation = {"train": {"validation", "save_every", "save_total_limit"}}
    return run.model_dump(mode="json", include={"objective", "class_cond", "network", "train"}, exclude=validation)


def _estimate_over_seeds(names: Sequence[str], baselines: Sequence[str] = ()) -> SeedsEstimate:
    """Return the bits per token of trainings, or minus those of their baselines."""
    totals = read_evaluations(names).totals
    nats = totals.nats - read_evaluations(baselines).totals.nats if baselines else totals.nats
    return seeds_estimate(nats, totals.sizes, totals.clusters).scale(1 / math.log(2))


def _facts(params: Params, costs: Mapping[str, Any]) -> dict[str, Sourced]:
    """Return facts on the run of `COSTS`, not on this one, since equal results give equal pages; seeds and versions."""
    facts = {}
    if costs:
        machine, stages = costs["machine"], costs["results"]
        minutes = sum(stage["seconds"] for stage in stages) / 60
        training = [stage for stage in stages if stage["stage"].startswith("train@")]
        tokens, seconds = (sum(stage[key] for stage in training) for key in ("tokens", "seconds"))
        facts["recorded run"] = "made with these params; this page may come from a later run"
        facts |= {"commit": str(machine["commit"]), "date": costs["date"]}
        facts["machine"] = "{processor}, {cores} cores, {memory_gib} GiB, {device}".format_map(machine)
        if "wall_seconds" in costs:
            facts["wall time"] = f"{costs['wall_seconds'] / 60:,.0f} minutes"
        facts["time of stages"] = f"{minutes:,.0f} minutes, the sum of {len(stages)} stages"
        if training:
            rate = f"{tokens / seconds:,.0f} tokens/s, over {len(training)} runs"
            facts["training"] = f"{rate}, including the start and end of each process"
    missing = "none with these params. After a run, `mdpipe bench stages` records its times, machine and commit, and "
    missing += "`snakemake report` shows them here."
    trainings = [f"{len(names)} trainings of {run}" for run, names in params.replicates().items() if len(names) > 1]
    packages = [f"Python {python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    return {
        "recorded run": Sourced(missing),
        **{name: Sourced(text, str(paths.COSTS)) for name, text in facts.items()},
        "seed": Sourced(", ".join([str(params.seed), *trainings]), str(RESOLVED_PARAMS_FILE)),
        "packages": Sourced(", ".join(packages)),
    }


def _profiles(trained: pl.DataFrame) -> dict[str, dict[str, Chart]]:
    """Return, by dataset, bits by masked fraction and by position, and reliability diagrams."""
    charts: dict[str, dict[str, Chart]] = {"profiles": {}, "calibration": {}}
    columns = {
        "mask_fraction": schemas.MASK_FRACTIONS,
        "position": schemas.POSITIONS,
        "calibration": schemas.CALIBRATION,
    }
    for frame in trained.partition_by("dataset", maintain_order=True):
        dataset, unit = frame.select("dataset", "unit").row(0)
        mask_fractions, positions, calibration = (
            pl.concat([_read_csv(paths.plot(part, run), run, schema) for run in frame["run"]])
            for part, schema in columns.items()
        )
        charts["profiles"][dataset] = profile_chart(mask_fractions, positions, unit)
        charts["calibration"][dataset] = calibration_chart(calibration)
    return charts


def _figures(params: Params, shown: Mapping[str, pl.DataFrame]) -> dict[str, Chart]:
    """Return each figure for which there are results."""
    figures = {}
    if DVC_FILE.exists():
        stages = yaml.safe_load(DVC_FILE.read_text(encoding="utf-8"))["stages"]
        figures["graph"] = replace(graph_chart(stages, params.model_dump(mode="json")), files=[str(DVC_FILE)])
    for name, draw in (("likelihood", likelihood_chart), ("samplers", samplers_chart)):
        if shown[name].height:
            figures[name] = draw(shown[name])
    exponents = {
        run: _read_csv(path, run, schemas.EXPONENTS)
        for run in params.replicates()
        if (path := paths.samples(run) / paths.EXPONENTS).exists()
    }
    if exponents:
        # Gray levels are ordered, tokens of text are not.
        is_image = {run: modality_of(params.datasets[params.runs[run].dataset]) == "image" for run in exponents}
        figures["exponents"] = exponents_chart(exponents, is_image)
    return figures


def _gallery(params: Params, run: str) -> SampleGallery:
    """Return samples, their unmasking and, for images, as many real ones of the evaluated split."""
    settings = params.runs[run]
    names = ("samples.txt", "samples.png", "unmasking.gif", paths.INFILLED_IMAGES, paths.INFILLED_TEXTS)
    text, sheet, animation, filled, infilling = files = [paths.samples(run) / name for name in names]
    images = []
    if sheet.exists():
        real = EncodedDataset.open(paths.encoded(settings.dataset), settings.evaluate.split)
        count, classes = min(settings.sample.count, len(real.tokens)), real.classes if settings.class_cond else 0
        if classes and real.labels is not None:
            shown = class_by_class(np.asarray(real.labels[:]), count)
        else:
            shown = evenly_spaced(len(real.tokens), count)
        class_names = real.class_names or tuple(map(str, range(real.classes)))
        pixels = to_images(np.asarray(real.tokens[shown]), real.vocab_size, real.shape)
        labels = [] if real.labels is None else [class_names[label] for label in real.labels[shown]]
        columns = sheet_columns(classes)
        grid = encode_png(contact_sheet(pixels, columns))
        images.append(PageImage(grid, f"Real images of {settings.dataset}", labels, columns))
        sampled = [class_names[at % real.classes] for at in range(settings.sample.count)] if settings.class_cond else []
        images.append(PageImage(sheet.read_bytes(), f"Samples of {run}", sampled, columns))
    action = "Sampling" if settings.objective.is_causal else "Unmasking of samples"
    captions = {
        animation: f"{action} of {run}",
        filled: f"Held-out images, their masked lower half, and what {run} fills in",
    }
    captions = {file: caption for file, caption in captions.items() if file.exists()}
    if run in params.image_quality.runs:
        captions[paths.neighbors(run)] = NEIGHBORS_CAPTION.format(run=run)
    images += [PageImage(file.read_bytes(), caption) for file, caption in captions.items()]
    return SampleGallery(
        run,
        images,
        text.read_text(encoding="utf-8")[:DISPLAYED_CHARACTERS] if text.exists() else "",
        read_json(infilling, f"run `dvc repro sample@{run}` again")["texts"] if infilling.exists() else [],
        [str(file) for file in files if file.exists()],
    )
