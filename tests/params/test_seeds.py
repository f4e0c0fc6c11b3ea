"""`seed` and `seeds` of a run: one run per seed, in every place that names a run."""

from copy import deepcopy

import pytest
import yaml

from mdpipe.params import ParamsError, dump_params, load_params, parse_params
from mdpipe.params.root import dump_replicates
from tests.params.refusals import SMOKE, error_of

RUN = "chars_md4"


def refused_whole(data):
    """Return the error of the content of a params file."""
    with pytest.raises(ParamsError) as error:
        parse_params(data)
    return str(error.value)


def with_seeds(**changes):
    """Return the content of the smoke preset with changes of a run."""
    data = deepcopy(SMOKE)
    data["runs"][RUN] |= changes
    return data


def test_seeds_make_a_run_each_and_the_first_keeps_its_name():
    plain, params = parse_params(SMOKE), parse_params(with_seeds(seeds=[3, 1, 2]))
    names = [RUN, f"{RUN}-seed1", f"{RUN}-seed2"]
    assert params.replicates()[RUN] == names
    assert [name for name in params.runs if name.startswith(f"{RUN}-") or name == RUN] == names
    assert [params.seed_of(name) for name in names] == [3, 1, 2]
    assert all(names == [run] for run, names in params.replicates().items() if run != RUN)
    for name in names:
        same = {"seed": plain.runs[RUN].seed, "seeds": None}
        assert params.runs[name].model_copy(update=same) == plain.runs[RUN]


def test_a_run_without_a_seed_has_that_of_the_root():
    params = parse_params({**with_seeds(seed=7), "seed": 5})
    assert {name: run.seed for name, run in params.runs.items() if name != RUN} == dict.fromkeys(
        [name for name in params.runs if name != RUN], 5
    )
    assert (params.seed_of(RUN), params.replicates()[RUN]) == (7, [RUN])


def test_resolved_params_mean_the_same_when_read_again():
    data = with_seeds(seeds=[0, 4])
    data["zero_shot"] = {"runs": {RUN: None}, "sources": {}}
    params = parse_params(data)
    assert list(params.zero_shot.runs) == [RUN, f"{RUN}-seed4"]
    resolved = yaml.safe_load(dump_params(params))
    assert parse_params(resolved) == params
    assert dump_params(parse_params(resolved)) == dump_params(params)
    assert (resolved["runs"][RUN]["seed"], resolved["runs"][f"{RUN}-seed4"]["seed"]) == (0, 4)
    # DVC merges this with params.yaml, and accepts no key twice.
    run = {"dataset": "docs_chars", "network": {"kind": "transformer"}}
    added = {"runs": {f"{RUN}-seed4": run}, "zero_shot": {"runs": {f"{RUN}-seed4": None}}}
    none = {"image_quality": {"runs": {}}}
    assert yaml.safe_load(dump_replicates(params, data)) == added | none
    assert yaml.safe_load(dump_replicates(params, resolved)) == {"runs": {}, "zero_shot": {"runs": {}}} | none


def test_a_new_seed_leaves_the_params_of_other_trainings():
    before, after = (parse_params(with_seeds(seeds=seeds)).runs for seeds in ([0, 1], [0, 1, 2]))
    keys = {"seeds"}
    for name in before:
        assert after[name].model_dump(exclude=keys) == before[name].model_dump(exclude=keys)
    assert after.keys() - before.keys() == {f"{RUN}-seed2"}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"seeds": [1]}, ["runs.chars_md4.seeds: [1] is refused", "for one, write `seed: N`"]),
        ({"seeds": [1, 1]}, ["runs.chars_md4.seeds: [1, 1] is refused", "must be distinct"]),
        ({"seeds": [1, -1]}, ["runs.chars_md4.seeds.1: -1 is refused", "must be at least 0"]),
        ({"seeds": 3}, ["runs.chars_md4.seeds: 3 is refused", "must be a list; write [3]"]),
        (
            {"seed": 2, "seeds": [1, 2]},
            ["runs.chars_md4.seed: 2 is refused", "`seeds` begins with 1: leave `seed` out"],
        ),
        ({"seed": 1.0}, ["runs.chars_md4.seed: 1.0 is refused", "must be a whole number; write 1"]),
        ({"seeds": [0, 2**63]}, ["runs.chars_md4.seeds.1: 9223372036854775808 is refused"]),
    ],
)
def test_seeds_that_cannot_be_are_refused_by_key(changes, parts):
    message = error_of({f"runs.{RUN}.{key}": value for key, value in changes.items()})
    assert all(part in message for part in parts)


def test_the_name_of_a_replicate_is_kept_for_it():
    data = with_seeds(seeds=[0, 1])
    data["runs"][f"{RUN}-seed1"] = {**data["runs"][RUN], "seeds": None, "seed": 2}
    message = refused_whole(data)
    assert f"runs.{RUN}-seed1" in message and f"write `seeds: [...]` in runs.{RUN}" in message
    data = deepcopy(SMOKE)
    data["runs"]["a" * 60] = {**data["runs"][RUN], "seeds": [0, 1]}
    assert f"makes the name '{'a' * 60}-seed1', and a name has at most 64 characters" in refused_whole(data)


def test_a_comparison_needs_equal_seeds_or_names_one_training():
    data = with_seeds(seeds=[0, 1])
    other = next(
        name for name, run in data["runs"].items() if name != RUN and run["dataset"] == data["runs"][RUN]["dataset"]
    )
    data["comparisons"] = [{"run": RUN, "baseline": other}, {"run": f"{RUN}-seed1", "baseline": RUN}]
    parse_params(data)
    data["runs"][other]["seeds"] = [1, 2]
    assert f"'{RUN}' and '{other}' need the same `seeds`" in refused_whole(data)
    data["runs"][other]["seeds"] = [1, 0]
    parse_params(data)


def test_runs_of_the_suites_have_no_other_seed():
    """Params without seeds stay what they were."""
    params = load_params()
    assert {run.seed for run in params.runs.values()} == {params.seed}
    assert list(params.replicates()) == list(params.runs)


def test_images_of_a_run_are_measured_once_per_seed():
    data = deepcopy(SMOKE)
    data["runs"]["digits"]["seeds"] = [0, 4]
    params = parse_params(data)
    (first, again), names = params.image_quality.runs.values(), list(params.image_quality.runs)
    assert (names, first) == (["digits", "digits-seed4"], again)
    assert parse_params(yaml.safe_load(dump_params(params))) == params
    added = yaml.safe_load(dump_replicates(params, data))["image_quality"]["runs"]
    assert added == {"digits-seed4": {"features": "digits", "dataset": "digits"}}
