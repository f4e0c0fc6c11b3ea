"""`mdpipe plan`: its figures are those of a count by hand, and it says which are not known."""

import math
import re
import subprocess
import sys

import pytest
import torch

from mdpipe.networks.build import empty_network
from mdpipe.params import load_params, parse_params
from mdpipe.stages.plan import Plan, describe, summed
from mdpipe.stages.plan_costs import forward_flops, prefix_flops
from mdpipe.stages.plan_figures import UNKNOWN, Figure, at_least, counted, in_bytes, in_hours
from mdpipe.training import peak
from tests.stages.planning import FILES, asked_for, owt_small, rows_of, smoke, with_source

COLUMNS = ("download", "disk", "tokens", "flops")
FINEWEB = {"kind": "catalogue", "name": "fineweb_edu_100bt", "path": "constraints.txt"}


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    """Of each file its params and the rows of its plan, where no data are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("empty"))
        loaded = {name: load_params(file) for name, file in FILES.items()}
        return {name: (params, list(Plan.of(params).rows())) for name, params in loaded.items()}


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
    assert [row.stage for row in rows] == asked_for(params)


def test_totals_are_the_sums_of_the_rows(planned):
    _, rows = planned
    last = summed(rows)
    for column in COLUMNS:
        assert getattr(last, column).value == sum(getattr(row, column).value for row in rows)
        assert getattr(last, column).unknown == any(getattr(row, column).unknown for row in rows)
    assert last.hours(0.4, 989).value == pytest.approx(math.fsum(row.hours(0.4, 989).value for row in rows))


def test_training_costs_what_a_count_by_hand_gives(default_suite):
    """A transformer of width D with a gated MLP of hidden width H = 8/3 D, rounded up to a multiple of 32, takes

    2 L (3 D D + D D + 2 D H + H D) + 4 L^2 D

    operations a layer for L tokens, the head 2 L D V; backward costs twice that.
    """
    params, rows = default_suite
    run = params.runs["letters"]
    layers, width, length, vocabulary = run.network.layers, run.network.width, 128, 27
    hidden = 32 * math.ceil(8 * width / 3 / 32)
    layer = 2 * length * (4 * width**2 + 3 * width * hidden) + 4 * length**2 * width
    forward = layers * layer + 2 * length * width * vocabulary
    assert rows["train@letters"].flops == Figure(3 * forward * run.train.batch_size * run.train.steps)
    assert rows["train@letters"].tokens == Figure(run.train.steps * run.train.batch_size * length)


def test_openwebtext_takes_the_hours_of_six_operations_a_weight_and_token(empty):
    """6 N D by hand: N = 12 layers of 12 D^2 and the head, D = 512 x 1024 x 1,000,000 tokens."""
    row = rows_of(owt_small())["train@owt"]
    weights, tokens = 12 * 12 * 768**2 + 768 * 50_257, 512 * 1024 * 1_000_000
    assert row.tokens == Figure(tokens)
    assert row.hours(0.4, 989).value == pytest.approx(6 * weights * tokens / (0.4 * 989e12) / 3600, rel=0.3)


def test_twice_the_steps_take_twice_the_operations(empty):
    content = smoke()
    once = rows_of(content)["train@letters"]
    content["runs"]["letters"]["train"]["steps"] *= 2
    twice = rows_of(content)["train@letters"]
    assert twice.flops.value == 2 * once.flops.value
    assert twice.tokens.value == 2 * once.tokens.value


def test_half_the_share_of_the_peak_takes_twice_the_hours(planned):
    _, rows = planned
    for row in rows:
        assert row.hours(0.2, 989).value == pytest.approx(2 * row.hours(0.4, 989).value)
        assert row.hours(0.4, 494.5).value == pytest.approx(2 * row.hours(0.4, 989).value)


def test_every_mask_of_an_example_is_a_network_call(empty):
    content = smoke()
    once = rows_of(content)["train@letters"].flops.value
    content["runs"]["letters"]["diffusion"]["masks"] = 3
    assert rows_of(content)["train@letters"].flops.value == 3 * once
    content["runs"]["letters"] |= {
        "objective": "genmd4",
        "diffusion": content["runs"]["pieces"]["diffusion"],
        "sample": content["runs"]["pieces"]["sample"],
    }
    assert rows_of(content)["train@letters"].flops.value == 2 * once


def test_guidance_doubles_the_cost_of_a_sample(empty):
    content = smoke()
    guided = rows_of(content)["sample@digits"].flops.value
    content["runs"]["digits"]["sample"]["guidance"] = None
    assert guided == 2 * rows_of(content)["sample@digits"].flops.value


def test_an_exact_likelihood_needs_one_draw(empty):
    rows, content = rows_of(smoke()), smoke()
    content["runs"]["letters_ar"]["evaluate"]["draws"] = 20
    assert rows_of(content)["evaluate@letters_ar"].flops == rows["evaluate@letters_ar"].flops


@pytest.mark.parametrize(("length", "classes"), [(1, 0), (2, 0), (7, 0), (24, 10)])
def test_left_to_right_costs_the_sum_over_what_each_call_reads(length, classes):
    settings = {"layers": 2, "heads": 2, "width": 32, "time_conditioning": False, "dropout": 0.0}
    network = empty_network("transformer", 17, (24,), classes=classes, causal=True, **settings)
    assert prefix_flops(network, length) == sum(forward_flops(network, tokens) for tokens in range(1, length + 1))


def test_what_is_not_known_shows_and_the_totals_say_at_least(empty):
    printed = describe(parse_params(with_source(FINEWEB)), 0.4, 989)
    lines = {line.split()[0]: line for line in printed.splitlines() if line}
    assert re.fullmatch(r"download@pydantic_docs +\? +\? +- +- +-", lines["download@pydantic_docs"])
    assert "at least" in lines["total"]
    assert "download@pydantic_docs (download, disk)" in " ".join(printed.split())
    assert "evaluate@letters (disk, tokens, FLOPs)" in " ".join(printed.split())


def test_where_all_is_known_no_total_says_at_least(empty):
    printed = describe(load_params(FILES["smoke"]), 0.4, 989)
    assert "at least" not in printed
    assert "Nothing is unknown" in printed


@pytest.mark.skipif(torch.cuda.is_available(), reason="runs would train on the GPU")
def test_runs_in_bfloat16_are_named_where_it_is_slow(empty, monkeypatch):
    content = smoke()
    content["runs"]["pieces"]["hardware"]["precision"] = "bfloat16"
    for problem in ("", "bfloat16 is slow"):
        monkeypatch.setattr(peak, "bfloat16_problem", lambda device, problem=problem: problem)
        printed = describe(parse_params(content), 0.4, 989)
        assert printed.endswith("Trained here, without a GPU (pieces): bfloat16 is slow.") == bool(problem)
    assert "Trained here" not in describe(load_params(FILES["smoke"]), 0.4, 989)


@pytest.mark.parametrize(
    ("figure", "write", "text"),
    [
        (Figure(), counted, "-"),
        (UNKNOWN, counted, "?"),
        (Figure(999), counted, "999"),
        (Figure(999.6), counted, "1 k"),
        (Figure(1_536_000), counted, "1.54 M"),
        (Figure(4.48e20), counted, "448 E"),
        (Figure(31_344_016, estimated=True), in_bytes, "~31.3 MB"),
        (Figure(2.5e12), in_bytes, "2.5 TB"),
        (Figure(0.004), in_hours, "<0.01 h"),
        (Figure(0.256), in_hours, "0.26 h"),
        (Figure(12.4), in_hours, "12 h"),
        (Figure(314.4), in_hours, "310 h"),
        (Figure(31_440, estimated=True), in_hours, "~31,000 h"),
    ],
)
def test_figures_are_written_for_people(figure, write, text):
    assert write(figure) == text


def test_a_sum_of_known_and_unknown_says_what_there_is_at_least():
    assert at_least(in_bytes, Figure(5e9, estimated=True) + UNKNOWN) == "at least ~5 GB"
    assert at_least(in_bytes, UNKNOWN) == "?"
    assert at_least(in_hours, Figure(0.001, unknown=True)) == "?"
    assert at_least(in_bytes, Figure(5e9)) == "5 GB"


def mdpipe(place, *arguments):
    command = [sys.executable, "-m", "mdpipe", *map(str, arguments)]
    return subprocess.run(command, cwd=place, capture_output=True, text=True)


def test_the_command_prints_all_rows(empty):
    done = mdpipe(empty, "plan", FILES["smoke"], "--mfu", "0.5", "--peak", "312")
    assert done.returncode == 0, done.stderr
    first = [line.split()[0] for line in done.stdout.splitlines() if line]
    names = [*asked_for(load_params(FILES["smoke"])), "total"]
    assert first[1 : 1 + len(names)] == names
    assert "50% of 312 TFLOP/s" in done.stdout


@pytest.mark.parametrize("file", ["missing.yaml", "wrong.yaml"])
def test_wrong_params_are_told_as_check_tells_them(empty, file):
    (empty / "wrong.yaml").write_text(FILES["smoke"].read_text().replace("steps: 30", "steps: -1"))
    done = mdpipe(empty, "plan", file)
    assert (done.returncode, done.stderr) == (1, mdpipe(empty, "check", file).stderr)


@pytest.mark.parametrize(("option", "value"), [("--mfu", "0"), ("--mfu", "1.5"), ("--peak", "0")])
def test_a_share_or_peak_out_of_range_is_refused_in_a_line(empty, option, value):
    done = mdpipe(empty, "plan", FILES["smoke"], option, value)
    assert done.returncode == 1
    assert done.stderr.startswith(f"mdpipe: {option} = ")
    assert done.stderr.count("\n") == 1
