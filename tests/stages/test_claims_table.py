"""The claims of params.yaml: each kind of measure from the results of stages, and wrong names refused by their keys."""

import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from mdpipe.data.artifacts.files import write_record
from mdpipe.params import Params, ParamsError, load_params, parse_params
from mdpipe.params.claims import MeasureConfig
from mdpipe.pipeline import paths
from mdpipe.pipeline.evaluations import read_evaluations, read_fids
from mdpipe.reporting.claims import Measures, claims_markdown, claims_table

PRESET = Path(__file__).parents[2] / "workflow/presets/claims.yaml"
CONTENT = yaml.safe_load(PRESET.read_text())
N = 40
THREE = "{,-seed1,-seed2}"


@pytest.fixture
def claims() -> Params:
    return load_params(PRESET)


@pytest.fixture
def place(claims: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results of all stages that the claims need, with known effects and a little noise over trainings and examples."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    hard = random.uniform(1, 3, N)
    for run, names in claims.replicates().items():
        for name in names:
            bits = 2 + len(run) / 10 + 0.001 * claims.seed_of(name) + random.normal(0, 0.001, N) + hard
            columns = [bits * 64 * math.log(2), np.full(N, 64.0), np.arange(N) // 2]
            for bound, settings in claims.runs[run].evaluate.bounds.items():
                steps = getattr(settings.objective, "timesteps", None)
                mean = bits + (0 if steps is None else 1 / steps)
                spread = {"linear": 0.1, "cosine": 0.2}.get(bound, 0.0)
                columns += [(mean + sign * spread) * 64 * math.log(2) for sign in (1, -1)]
            save(paths.evaluation(name), columns)
            if name in claims.zero_shot.runs:
                save(paths.zero_shot_evaluation(name, "rich_docs"), [bits * 64 * math.log(2) * 2, *columns[1:3]])
    for name, measured in claims.image_quality.runs.items():
        rows = [
            {"images": sampler, "reference": reference, "fid": factor * (16 if sampler.startswith("uniform") else 4)}
            for sampler in ("samples", *measured.samplers)
            for reference, factor in (("held_out", 100.0), ("training", 1.0 + 0.01 * claims.seed_of(name)))
        ]
        write_record({"rows": rows}, paths.record("image_quality", name))
    return tmp_path


def save(path: Path, columns: list[NDArray[np.float64]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.stack(columns, axis=1))


@pytest.fixture
def rows(claims: Params, place: Path) -> dict[str, dict[str, Any]]:
    return {
        row["claim"]: row for row in claims_table(Measures(claims, read_evaluations, read_fids)).iter_rows(named=True)
    }


def test_every_kind_of_measure_is_the_effect_put_in(rows: dict[str, dict[str, Any]]) -> None:
    assert {row["kind"] for row in rows.values()} == set(MeasureConfig.kinds)
    value = {name: row["value"] for name, row in rows.items()}
    assert value["md4_sedd"] == pytest.approx((len("md4") - len("sedd")) / 10, abs=0.005)
    assert value["md4_sedd_zero_shot"] == pytest.approx(2 * (len("md4") - len("sedd")) / 10, abs=0.005)
    # The held-out split has a difference of its own, and zero-shot has twice the difference.
    assert value["genmd4_zero_shot"] == pytest.approx((len("genmd4") - len("md4_2masks")) / 10, abs=0.005)
    assert value["bound_cosine"] == pytest.approx(0, abs=1e-9)
    assert value["variance_cosine"] == pytest.approx(4)
    assert value["finite_steps"] == pytest.approx(-1)
    assert (value["grid"], value["schedule"], value["steps"]) == pytest.approx((1 / 4, 4, 1))


def test_verdicts_follow_from_the_regions(rows: dict[str, dict[str, Any]]) -> None:
    expected = {"md4_sedd": "agrees", "ar_text": "agrees", "ar_images": "disagrees", "bound_cosine": "agrees"}
    expected |= {"variance_cosine": "agrees", "finite_steps": "agrees", "grid": "agrees", "schedule": "disagrees"}
    assert {name: rows[name]["verdict"] for name in expected} == expected
    assert rows["steps"]["verdict"] == "cannot tell"
    assert all(row["p_holm"] >= row["p"] for row in rows.values())
    assert all(row["low"] <= row["value"] <= row["high"] and row["seeds"] == 3 for row in rows.values())


def test_a_row_says_which_command_makes_it(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["md4_sedd"]["command"] == f"snakemake evaluate@{{md4,sedd}}{THREE} report"
    assert rows["bound_cosine"]["command"] == f"snakemake evaluate@md4{THREE} report"
    both = "snakemake measure_images@{digits_cosine,digits_md4}{,-seed1,-seed2} report"
    assert rows["schedule"]["command"] == both
    assert rows["genmd4_zero_shot"]["command"].split()[1:3] == [
        f"evaluate@{{genmd4,md4_2masks}}{THREE}",
        f"zero_shot@{{genmd4,md4_2masks}}{THREE}-rich_docs",
    ]


def test_the_page_of_claims_has_a_row_per_claim(claims: Params, place: Path) -> None:
    lines = claims_markdown(claims_table(Measures(claims, read_evaluations, read_fids))).splitlines()
    assert len(lines) == 2 + len(claims.claims)
    line = next(line for line in lines if "FID of the linear one with" in line)
    assert "0.8 to 1.25" in line and "disagrees" in line and "1.02: 47.46/42.07" in line


def test_a_missing_result_names_the_stage(claims: Params, place: Path) -> None:
    paths.evaluation("sedd-seed1").unlink()
    with pytest.raises(ValueError, match="run `dvc repro evaluate@sedd-seed1` again"):
        claims_table(Measures(claims, read_evaluations, read_fids))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("md4_sedd.measure.baseline", "sed", "claims.md4_sedd.measure.baseline: .*did you mean 'sedd'"),
        ("bound_cosine.measure.bound", "cosin", "claims.bound_cosine.measure.bound: .*evaluate.bounds .*'cosine'"),
        ("genmd4_zero_shot.measure.run", "ar", "claims.genmd4_zero_shot.measure.run: .*zero_shot.runs"),
        ("finite_steps.measure.bounds", ["steps_8", "linear"], "claims.finite_steps.measure.bounds.1: .*timesteps"),
        ("grid.measure.samplers", ["cosine_4"], "claims.grid.measure.baseline_samplers: .*as many as `samplers`, 1"),
        ("steps.measure.samplers", ["x"], "claims.steps.measure.samplers.0: .*image_quality.runs.digits_md4"),
        ("ar_text.measure.baseline", "digits_ar", "claims.ar_text.measure.baseline: .*not evaluated on the same split"),
        ("grid.expect.below", -1.0, "claims.grid.expect.below: .*a ratio is positive"),
        ("grid.expect", {}, "claims.grid.expect: .*any number would agree"),
        ("md4_sedd.measure.kind", "diff", "claims.md4_sedd.measure.kind: .*one of difference"),
    ],
)
def test_a_wrong_claim_is_refused_with_its_key(key: str, value: Any, message: str) -> None:
    content = deepcopy(CONTENT)
    *path, last = key.split(".")
    section = content["claims"]
    for name in path:
        section = section[name]
    section[last] = value
    with pytest.raises(ParamsError, match=message):
        parse_params(content)


def test_a_claim_about_one_training_is_refused() -> None:
    content = deepcopy(CONTENT)
    content["runs"]["flat"] = {**content["runs"]["flat"], "seeds": None}
    with pytest.raises(ParamsError, match=r"claims.flat_weight.measure.run: .*write `seeds: \[0, 1, 2\]` in runs.flat"):
        parse_params(content)
