"""`mdpipe plan`: its numbers are those of a count by hand, and it marks estimates and what is unknown."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mdpipe.cli import app
from mdpipe.commands.plan import Plan, describe, format_number, format_sum
from mdpipe.networks.base import NetworkSpec, build_uninitialized
from mdpipe.params import load_params, parse_params
from mdpipe.pipeline import paths
from mdpipe.training.performance import forward_flops
from tests.stages.plan_rows import FILES, names_in_check, owt_small, rows_of, smoke, with_source

ROOT = Path(__file__).parents[2]

HOUR = 0.4 * 989e12 * 3600
FINEWEB = {"kind": "catalog", "name": "fineweb_edu_100bt", "path": "constraints.txt"}


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """Of each file its params and the rows of its plan, where no data are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        loaded = {name: load_params(file) for name, file in FILES.items()}
        return {name: (params, list(Plan(params).rows())) for name, params in loaded.items()}


@pytest.fixture(params=list(FILES))
def planned(request, plans):
    """The same of one file after the other."""
    return plans[request.param]


@pytest.fixture
def default_suite(plans):
    """Params and rows by stage of params.yaml."""
    params, rows = plans["params"]
    return params, {row.stage: row for row in rows}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A folder without data."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_stage_that_would_run_has_a_row(planned):
    params, rows = planned
    assert [row.stage for row in rows] == names_in_check(params)


def test_totals_are_the_sums_of_the_rows(planned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Without data, as the rows are.
    params, rows = planned
    flops = sum(row.flops for row in rows if not math.isnan(row.flops))
    printed = next(line for line in describe(params, 0.4, 989, 50).splitlines() if line.startswith("total"))
    assert format_number(flops) in printed
    assert ("≥" in printed) == any(math.isnan(row.disk + row.tokens) for row in rows)


def test_training_costs_what_a_count_by_hand_gives(default_suite):
    """A transformer of width D with a squared-ReLU MLP of hidden width 4 D takes

    2 L (3 D D + D D + 4 D D + 4 D D) + 4 L^2 D

    operations a layer for L tokens, the head 2 L D V; backward costs twice that.
    """
    params, rows = default_suite
    run = params.runs["chars_md4"]
    layers, width, length, vocabulary = run.network.num_layers, run.network.hidden_size, 128, 27
    layer = 2 * length * 12 * width**2 + 4 * length**2 * width
    forward = layers * layer + 2 * length * width * vocabulary
    assert rows["train@chars_md4"].flops == 3 * forward * run.train.batch_size * run.train.steps
    assert rows["train@chars_md4"].tokens == run.train.steps * run.train.batch_size * length


def test_openwebtext_takes_six_flops_per_weight_and_token(empty):
    """6 N D by hand: N = 12 layers of 12 D^2 and the head, D = 512 x 1024 x 1,000,000 tokens."""
    row = rows_of(owt_small())["train@owt"]
    weights, tokens = 12 * 12 * 768**2 + 768 * 50_257, 512 * 1024 * 1_000_000
    assert row.tokens == tokens
    assert row.flops / HOUR == pytest.approx(6 * weights * tokens / HOUR, rel=0.3)


def test_twice_the_steps_take_twice_the_operations(empty):
    content = smoke()
    once = rows_of(content)["train@chars_md4"]
    content["runs"]["chars_md4"]["train"]["steps"] *= 2
    twice = rows_of(content)["train@chars_md4"]
    assert twice.flops == 2 * once.flops
    assert twice.tokens == 2 * once.tokens


def test_half_the_peak_takes_twice_the_hours(empty):
    content = smoke()
    content["runs"]["chars_md4"]["train"] |= {"steps": 10**9}
    params = parse_params(content)

    def hours(mfu, peak):
        line = next(
            line for line in describe(params, mfu, peak, 50).splitlines() if line.startswith("train@chars_md4 ")
        )
        return float(line.split()[-4].replace(",", ""))

    assert hours(0.2, 989) == hours(0.4, 494.5) == pytest.approx(2 * hours(0.4, 989), rel=0.1)


def test_cpu_hours_of_the_default_suite_are_near_the_measured_ones(default_suite, capsys):
    """Within a factor of two for every training, at the speed that the command assumes."""
    measured = {result["stage"]: result for result in json.loads((ROOT / paths.COSTS).read_text())["results"]}
    with pytest.raises(SystemExit):
        app(["plan", str(FILES["params"])])
    lines = capsys.readouterr().out.splitlines()
    trainings = {line.split()[0]: line.split()[-2:] for line in lines if line.startswith("train@")}
    assert len(trainings) == 10
    for stage, (hours, unit) in trainings.items():
        spent = measured[stage]["cpu_seconds"] / 3600
        assert unit == "h"
        assert 0.5 * spent < float(hours) < 2 * spent, stage


def test_no_number_is_cut_off():
    """Names of stages are folded before that."""
    printed = describe(load_params(ROOT / "workflow/presets/paper_openwebtext.yaml"), 0.4, 989, 50)
    assert "…" not in printed


def test_every_mask_of_an_example_is_a_network_call(empty):
    content = smoke()
    once = rows_of(content)["train@chars_md4"].flops
    content["runs"]["chars_md4"]["objective"] = {"kind": "md4", "num_mask_samples": 3}
    assert rows_of(content)["train@chars_md4"].flops == 3 * once
    content["runs"]["chars_md4"] |= {
        "objective": "genmd4",
        "sample": content["runs"]["subwords_genmd4"]["sample"],
    }
    assert rows_of(content)["train@chars_md4"].flops == 2 * once


def test_guidance_doubles_the_cost_of_a_sample(empty):
    content = smoke()
    guided = rows_of(content)["sample@digits"].flops
    content["runs"]["digits"]["sample"]["guidance_scale"] = None
    assert guided == 2 * rows_of(content)["sample@digits"].flops


def test_an_exact_likelihood_needs_one_sample(empty):
    models = Plan(parse_params(smoke())).models
    once, often = (models["chars_ar"].evaluation(samples, 7) for samples in (1, 20))
    assert once == often
    assert models["chars_md4"].evaluation(20, 7) == 20 * models["chars_md4"].evaluation(1, 7)


def test_left_to_right_costs_little_more_than_its_calls_read(empty):
    params = parse_params(smoke())
    run, data = params.runs["chars_ar"], Plan(params).datasets["docs_chars"]
    network = build_uninitialized(NetworkSpec(run.network, 27, data.shape, causal=True))
    once = sum(forward_flops(network, length) for length in range(1, data.length + 1))
    assert once < rows_of(params)["sample@chars_ar"].flops / run.sample.count < 1.5 * once


def test_what_is_not_known_shows_and_the_totals_say_at_least(empty):
    printed = describe(parse_params(with_source(FINEWEB)), 0.4, 989, 50)
    lines = {line.split()[0]: line for line in printed.splitlines() if line}
    assert re.fullmatch(r"download@pydantic_docs +\? +\? +- +- +- +-", lines["download@pydantic_docs"])
    assert "≥" in lines["total"]
    assert re.fullmatch(r"evaluate@chars_md4 +- +- +\? +\? +\? +\?", lines["evaluate@chars_md4"])
    assert "? is unknown until the data are downloaded and encoded" in printed


def test_a_folder_that_does_not_exist_is_named(empty):
    """Its size is unknown, and `?` alone would not say why."""
    content = smoke()
    content["sources"]["mine"] = {"kind": "text", "path": "my/texts"}
    printed = " ".join(describe(parse_params(content), 0.4, 989, 50).split())
    assert "sources.mine.path: 'my/texts' does not exist" in printed


def test_where_all_is_known_no_total_says_at_least(empty):
    content = smoke()
    content["runs"] = {"digits": content["runs"]["digits"]}
    content["datasets"], content["sources"] = ({"digits": content[key]["digits"]} for key in ("datasets", "sources"))
    del content["zero_shot"], content["samplers"], content["comparisons"], content["image_quality"]
    printed = describe(parse_params(content), 0.4, 989, 50)
    assert "≥" not in printed
    assert "Nothing is unknown" in printed


@pytest.mark.parametrize(
    ("number", "unit", "text"),
    [
        (0, "", "-"),
        (math.nan, "B", "?"),
        (999, "", "999"),
        (999.6, "", "1 k"),
        (1_536_000, "", "1.54 M"),
        (4.48e20, "", "448 E"),
        (31_344_016, "B", "31.3 MB"),
        (2.5e12, "B", "2.5 TB"),
        (0.004, "h", "<0.01 h"),
        (0.256, "h", "0.26 h"),
        (12.4, "h", "12 h"),
        (314.4, "h", "310 h"),
        (31_440, "h", "31,000 h"),
    ],
)
def test_numbers_are_formatted_for_people(number, unit, text):
    assert format_number(number, unit) == text


def test_a_sum_of_known_and_unknown_says_at_least():
    unknown = (math.nan, True)
    assert format_sum([(5e9, True), unknown], "B") == "≥ ~5 GB"
    assert format_sum([unknown], "B") == format_sum([(0.001, False), unknown], "h") == "?"
    assert format_sum([(2e9, False), (3e9, False)], "B") == "5 GB"


def test_a_sum_is_an_estimate_if_a_part_is():
    assert format_sum([(2e9, True), (3e9, False)], "B") == "~5 GB"
    assert format_sum([(0, True), (3e9, False)], "B") == "3 GB"
    assert format_sum([(0, True)], "B") == "-" and format_sum([(0.001, True)], "h") == "<0.01 h"


def exit_code(*arguments):
    """Run a command in this process; a text is what Python would print to stderr before it exits with status 1."""
    with pytest.raises(SystemExit) as ended:
        app(list(map(str, arguments)))
    return ended.value.code


def test_the_command_prints_all_rows(empty, capsys):
    assert exit_code("plan", FILES["smoke"], "--mfu", "0.5", "--peak", "312") == 0
    printed = capsys.readouterr().out
    first = [line.split()[0] for line in printed.splitlines() if line]
    names = [*names_in_check(load_params(FILES["smoke"])), "total"]
    assert first[1 : 1 + len(names)] == names
    assert "50% of 312 TFLOP/s" in printed


@pytest.mark.parametrize("file", ["missing.yaml", "wrong.yaml"])
def test_wrong_params_are_reported_as_by_check(empty, file):
    (empty / "wrong.yaml").write_text(FILES["smoke"].read_text().replace("steps: 30", "steps: -1"))
    told = exit_code("plan", file)
    assert told.startswith("mdpipe: ") and told == exit_code("check", file)


@pytest.mark.parametrize(
    ("option", "value"), [("--mfu", "0"), ("--mfu", "1.5"), ("--peak", "0"), ("--cpu-gflops", "0")]
)
def test_a_fraction_or_peak_out_of_range_is_refused(empty, option, value):
    told = exit_code("plan", FILES["smoke"], option, value)
    assert told.startswith(f"mdpipe: {option} = ")
    assert "\n" not in told


def test_memory_of_training_is_that_of_its_tensors(empty):
    """Weights, gradients, averages and two moments in float32: 20 bytes per weight."""
    params = parse_params(smoke())
    weights = Plan(params).models["chars_md4"].weights
    assert f"chars_md4 {format_number(weights * 20, 'B')}, " in " ".join(describe(params, 0.4, 989, 50).split())


@pytest.mark.slow
def test_a_plan_does_not_import_the_compiler_or_the_optimizers(empty):
    code = (
        "import sys, pathlib; from mdpipe.params import load_params; from mdpipe.commands.plan import describe;"
        f"describe(load_params(pathlib.Path({str(FILES['params'])!r})), 0.4, 989, 50); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch._dynamo", "torch.distributed.tensor", "polars", "datasets"} & set(done.stdout.split())
