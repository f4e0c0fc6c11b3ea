"""A small suite through all stages: its tables, its page and its README say what each number is of."""

import csv
import json
import shutil
from base64 import b64encode
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from mdpipe.commands.readme import IMAGES, SOURCES, TABLES, readme
from mdpipe.data.artifacts.files import RESULTS
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.tokenizers import decode_for_people, load_tokenizer
from mdpipe.params import Params
from mdpipe.pipeline import paths
from mdpipe.reporting.images import GAP
from mdpipe.reporting.tables import image_quality_table
from mdpipe.stages.compare_samplers import compare_samplers
from mdpipe.stages.download import download
from mdpipe.stages.fit_features import fit_features
from mdpipe.stages.measure_images import measure_images
from mdpipe.stages.report import report
from mdpipe.stages.resolve import resolve
from mdpipe.stages.sample import sample
from mdpipe.stages.zero_shot import zero_shot
from tests.stages.conftest import SMOKE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished_place(params: Params, trained_place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage of the suite has run."""
    place = tmp_path_factory.mktemp("finished") / "suite"
    shutil.copytree(trained_place, place, ignore=shutil.ignore_patterns(".mdpipe"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for source in params.zero_shot.sources:
            download(params, source)
            for run in params.zero_shot.runs:
                zero_shot(params, run, source)
        for run in params.runs:
            sample(params, run)
        for run in params.samplers.runs:
            compare_samplers(params, run)
        for name in params.image_quality.features:
            fit_features(params, name)
        for run in params.image_quality.runs:
            measure_images(params, run)
        shutil.copy(SMOKE, "params.yaml")  # `resolve` reads which runs have seeds of their own
        resolve(params)
        report(params)
    return place


@pytest.fixture(autouse=True)
def finished(finished_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished_place)


def rows(table: str) -> list[dict[str, str]]:
    with (paths.RESULTS / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_record_and_row_says_what_it_is_of(params: Params) -> None:
    for path in Path("records/zero_shot").iterdir():
        record = json.loads(path.read_text(encoding="utf-8"))
        (bound,) = record["bounds"]
        assert {record["split"], *(rate["split"] for rate in bound["references"])} == {"all"}
        assert {rate["reference"] for rate in bound["references"]} == {"xz", "bzip2", "unigram"}
    assert {row["split"] for row in rows("zero_shot")} == {"all"}
    for table in ("likelihood", "zero_shot"):
        for row in rows(table):
            assert row["unit"] != "bits/byte"
            assert row["unit"] != "bits/char" or float(row["value"]) == float(row["bits_per_byte"])
    conditions = {row["run"]: row["class_cond"] for row in rows("likelihood") if row["run"]}
    assert conditions == {run: "class label" if settings.class_cond else "" for run, settings in params.runs.items()}
    page = (paths.REPORT / "index.html").read_text(encoding="utf-8")
    assert all(shown in page for shown in ("class label", "final loss rows", "(1 + s) × conditional"))
    assert "digits, class label" in (paths.REPORT / "likelihood.svg").read_text(encoding="utf-8")


def test_metrics_files_hold_numbers_under_shared_names_only() -> None:
    shown = [json.loads(path.read_text()) for path in Path("metrics").glob("*/*.json")]
    assert set().union(*shown) == set(RESULTS)
    assert all(isinstance(value, int | float) for results in shown for value in results.values())
    metrics, records = ({path.stem for path in Path(top).glob("*/*.json")} for top in ("metrics", "records"))
    assert metrics < records


def test_images_are_measured_against_real_images_and_noise(params: Params) -> None:
    """Real images and noise are there once per dataset; only samples of a run with classes have requested classes."""
    table = rows("image_quality")
    (samples, against_training) = [row for row in table if row["run"] == "digits"]
    assert (samples["reference"], against_training["reference"]) == ("held_out", "training")
    assert samples["num_images"] == str(params.image_quality.runs["digits"].count)
    network = json.loads(Path("data/features/digits/features.json").read_text())
    assert samples["feature_network"] == "cnn of classes, 8 features"
    assert samples["feature_network_sha256"] == network["sha256"]
    assert 0 <= float(samples["class_accuracy"]) <= 1 <= float(samples["inception_score"]) <= 10
    others = [(row["images"], row["reference"]) for row in table if not row["run"]]
    expected = [("held_out", "training"), ("noise", "held_out"), ("noise", "training"), ("training", "held_out")]
    assert others == expected
    fid = {(row["images"], row["reference"]): float(row["fid"]) for row in table}
    assert fid["held_out", "training"] < fid["noise", "training"]
    sheet = paths.neighbors("digits").read_bytes()
    assert sheet.startswith(b"\x89PNG")
    page = (paths.REPORT / "index.html").read_text(encoding="utf-8")
    assert b64encode(sheet).decode() in page and 'id="image-quality"' in page


def test_samples_to_measure_do_not_depend_on_the_batch_size(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(Path.cwd(), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    before = paths.record("image_quality", "digits").read_bytes(), paths.neighbors("digits").read_bytes()
    data = params.model_dump()
    data["image_quality"]["runs"]["digits"]["batch_size"] = 6  # 16 samples: the last batch is smaller
    measure_images(Params.model_validate(data), "digits")
    assert before == (paths.record("image_quality", "digits").read_bytes(), paths.neighbors("digits").read_bytes())


def test_measured_samples_have_the_runs_seed_noise_has_not(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(Path.cwd(), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    before = json.loads(paths.record("image_quality", "digits").read_bytes())
    data = params.model_dump()
    data["runs"]["digits"]["seed"] = params.seed + 1
    measure_images(Params.model_validate(data), "digits")
    after = json.loads(paths.record("image_quality", "digits").read_bytes())
    assert (before["seed"], after["seed"]) == (params.seed, params.seed + 1)
    is_same = {row["images"]: row == other for row, other in zip(before["rows"], after["rows"], strict=True)}
    assert is_same == {"samples": False, "noise": True, "training": True, "held_out": True}


def test_a_sampler_equal_to_the_runs_own_gives_its_numbers(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(Path.cwd(), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    record = paths.record("image_quality", "digits")
    before = json.loads(record.read_bytes())
    data = params.model_dump()
    own = data["runs"]["digits"]["sample"]["sampler"]
    data["image_quality"]["runs"]["digits"]["samplers"] = {"same": own, "short": {**own, "steps": 2}}
    measure_images(Params.model_validate(data), "digits")
    after = json.loads(record.read_bytes())
    rows = {(row["images"], row["reference"]): row for row in after["rows"]}
    assert after["rows"][: len(before["rows"])] == before["rows"]
    for reference in ("held_out", "training"):
        expected = {"images": "same", "sampler": own["kind"], "nfe": before["nfe"]}
        assert rows["same", reference] == rows["samples", reference] | expected
        assert rows["short", reference]["nfe"] == 2 < before["nfe"]
    table = image_quality_table([after]).filter(run="digits", reference="training")
    assert dict(table.select("images", "nfe").rows()) == {"samples": before["nfe"], "same": before["nfe"], "short": 2}


def test_the_array_of_a_zero_shot_bound_adds_up_to_it(params: Params) -> None:
    for run in params.zero_shot.runs:
        for source in params.zero_shot.sources:
            nats, tokens, clusters = np.load(paths.zero_shot_evaluation(run, source)).T
            record, shown = (
                json.loads(place("zero_shot", f"{run}-{source}").read_bytes())
                for place in (paths.record, paths.metrics)
            )
            assert nats.sum() / tokens.sum() / np.log(2) == pytest.approx(shown["value"], rel=1e-5)
            assert (tokens.sum(), len(set(clusters))) == (
                record["bounds"][0]["tokens"],
                record["bounds"][0]["clusters"],
            )


def test_both_readmes_have_the_remade_tables(params: Params) -> None:
    for page, names in TABLES.items():
        sections = [f"<!-- {name}:begin -->\nold\n<!-- {name}:end -->\n" for name in names]
        page.write_text("\n".join(sections), encoding="utf-8")
    readme(params)
    for page, names in TABLES.items():
        text = page.read_text(encoding="utf-8")
        assert "old" not in text
        assert all((paths.RESULTS / f"{name}.md").read_text(encoding="utf-8") in text for name in names)
    assert {path.stem for path in IMAGES.glob("*.svg")} == {"likelihood", "samplers", "exponents"}
    sources = json.loads(SOURCES.read_text(encoding="utf-8"))
    assert sources["exponents.svg"] == {"samples/subwords_genmd4": None}  # There is no dvc.lock here.
    assert sources["digits_samples.png"] == {"samples/digits": None}


def test_what_bits_are_made_of_adds_up_to_the_metric(params: Params) -> None:
    for run in params.runs:
        positions = pl.read_csv(paths.plot("position", run))
        mean = (positions["bits"] * positions["tokens"]).sum() / positions["tokens"].sum()
        assert mean == pytest.approx(json.loads(paths.metrics("evaluate", run).read_text())["value"], rel=1e-5)
        assert pl.read_csv(paths.plot("mask_fraction", run))["mask_fraction"].is_between(0, 1).all()
        weights = pl.read_csv(paths.plot("calibration", run)).group_by("mask_fraction").agg(pl.col("weight").sum())
        assert weights["weight"].to_list() == pytest.approx([1] * 4, rel=1e-5)


def test_only_what_was_masked_is_filled(params: Params) -> None:
    """Every run but the autoregressive one fills held-out examples; what it knew of them stays."""
    names = (paths.INFILLED_TEXTS, paths.INFILLED_IMAGES)
    masked = {run for run, settings in params.runs.items() if not settings.objective.is_causal}
    assert {run for run in params.runs for name in names if (paths.samples(run) / name).exists()} == masked
    for run in masked:
        dataset = EncodedDataset.open(paths.encoded(params.runs[run].dataset), params.runs[run].evaluate.split)
        if dataset.modality == "text":
            texts = json.loads((paths.samples(run) / paths.INFILLED_TEXTS).read_text())["texts"]
            tokenizer = load_tokenizer(paths.model(run))
            windows = [decode_for_people(tokenizer, window) for window in dataset.spaced_examples(len(texts))[0]]
            assert [text["before"] + text["original"] + text["after"] for text in texts] == windows
            assert any(text["filled"] != text["original"] for text in texts)
            continue
        with Image.open(paths.samples(run) / paths.INFILLED_IMAGES) as sheet:
            originals, hidden, filled = np.array_split(np.asarray(sheet)[:-GAP], 3)
        half = GAP + (len(originals) - GAP) // 2
        assert np.array_equal(originals[:half], filled[:half])
        assert np.array_equal(originals[:half], hidden[:half])
        assert not np.array_equal(originals[half:], filled[half:])
