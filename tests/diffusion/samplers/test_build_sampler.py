"""Samplers by the names and settings of params.yaml."""

import pytest

from mdpipe.diffusion.samplers.build import build_sampler
from mdpipe.diffusion.samplers.remasking import Remasking

WALK = {"steps": 4, "grid": "uniform"}


def test_names_and_settings_of_params_build_samplers():
    assert build_sampler("remasking", steps=4, grid="cosine", eta=0.5) == Remasking(4, "cosine", 0.5)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("euler", {}, "sample.sampler.kind is 'euler'; it must be one of ancestral, autoregressive, "),
        ("ancestral", {"steps": 4}, "sample.sampler.grid is missing; 'ancestral' needs it"),
        (
            "ancestral",
            {**WALK, "eta": 1},
            "sample.sampler.eta is not a setting of 'ancestral', which takes steps",
        ),
        ("first_hitting", WALK, "sample.sampler.steps is not a setting of 'first_hitting', which takes no settings"),
        ("two_stage", {**WALK, "steps": 0}, "sample.sampler.steps must be at least 1, not 0"),
        ("two_stage", {**WALK, "grid": "square"}, "sample.sampler.grid is 'square'; it must be one of cosine, uniform"),
        ("confidence", {**WALK, "noise_scale": -1}, "sample.sampler.noise_scale must be at least 0, not -1"),
        ("remasking", {**WALK, "eta": 1.5}, r"sample.sampler.eta must lie in \[0, 1\], not 1.5"),
        ("predictor_corrector", {**WALK, "correctors": -1}, "sample.sampler.correctors must be at least 0, not -1"),
        ("predictor_corrector", {**WALK, "steps": 0}, "sample.sampler.steps must be at least 1, not 0"),
    ],
)
def test_what_no_sampler_takes_is_refused_by_its_key(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        build_sampler(kind, **settings)
