"""Options of `mdpipe generate` and `mdpipe infill`, which default to the run's `sample` in params.yaml."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from mdpipe.diffusion.samplers.base import Sampler, build_sampler
from mdpipe.diffusion.token_sampling import TokenSampler
from mdpipe.params import PARAMS_FILE, SampleConfig, load_params, parse_value
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.errors import did_you_mean, rule_of
from mdpipe.params.sampling import DiscreteTimeSamplerConfig, SamplerConfig, compatible_samplers, is_compatible


@dataclass(frozen=True)
class SamplingOptions:
    """Options of sampling; None means as in params.yaml, or else the default."""

    sampler: str | None
    settings: Sequence[str]
    """Settings of the sampler as KEY=VALUE, with values as in params.yaml."""
    steps: int | None
    time_grid: str | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    label: str | None
    """Name or number of a class."""
    guidance_scale: float | None
    seed: int
    threads: int

    def require_in_range(self) -> None:
        """Check the values by the rules of params.yaml.

        Raises:
            ValueError: one is out of range, or there is a guidance scale and no class; the message names its option.
        """
        keys = ("temperature", "top_k", "top_p", "guidance_scale")
        try:
            SampleConfig.model_validate({key: value for key in keys if (value := getattr(self, key)) is not None})
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            option = str(problem["loc"][0])
            rule = rule_of(problem)
            raise ValueError(f"--{option.replace('_', '-')} {problem['input']} is refused: {rule}") from None
        if self.guidance_scale is not None and self.label is None:
            raise ValueError("--guidance-scale needs a class; give one with --label")

    def build_token_sampler(self, run: str) -> TokenSampler:
        """Return temperature, top-k and top-p."""
        stated = stated_sampling(run) or SampleConfig()
        return TokenSampler(
            temperature=stated.temperature if self.temperature is None else self.temperature,
            top_k=stated.top_k if self.top_k is None else self.top_k,
            top_p=stated.top_p if self.top_p is None else self.top_p,
        )

    def stated_guidance_scale(self, run: str) -> float | None:
        """Return the scale of classifier-free guidance; None without a class."""
        if self.label is None or self.guidance_scale is not None:
            return self.guidance_scale
        stated = stated_sampling(run)
        return None if stated is None else stated.guidance_scale

    def build_sampler(self, run: str, objective: ObjectiveConfig) -> Sampler[Any]:
        """Build the sampler.

        Its kind comes from --sampler, else from the run in params.yaml, else from the objective's default. Settings
        that are not on the command line come from the run's sampler if it is of the same kind, else from the sampler
        of this kind in the comparison of samplers, else from the defaults.

        Raises:
            ValueError: the sampler does not exist or does not fit the objective, or a setting is unknown or wrong.
        """
        stated = stated_sampling(run)
        allowed = compatible_samplers(type(objective))
        kind = self.sampler
        if kind is None:
            is_usable = stated is not None and is_compatible(stated.sampler.kind, type(objective))
            kind = stated.sampler.kind if stated is not None and is_usable else allowed[0]
        config = SamplerConfig.find(kind)
        if config is None or not is_compatible(kind, type(objective)):
            hint = "" if kind in SamplerConfig.kinds else SamplerConfig.hint(kind, allowed)
            raise ValueError(
                f"--sampler {kind!r} does not fit a run of {objective.kind}{hint}; allowed: {', '.join(allowed)}"
            )
        given = self._given(config, kind)
        settings = {"kind": kind, **_stated_settings(run, kind), **{key: value for key, (_, value) in given.items()}}
        try:
            return build_sampler(config.model_validate(settings))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            key = str(problem["loc"][0])
            if key not in given:
                raise ValueError(
                    f"the sampler {kind} needs its setting {key!r}; give it with --set {key}=VALUE"
                ) from None
            rule = rule_of(problem)
            raise ValueError(f"{given[key][0]} is refused: {rule}") from None

    def _given(self, config: type[SamplerConfig], kind: str) -> dict[str, tuple[str, Any]]:
        """Return how each setting was given on the command line, and its value."""
        known = [key for key in config.model_fields if key != "kind"]
        given: dict[str, tuple[str, Any]] = {}
        for assignment in self.settings:
            key, sign, text = assignment.partition("=")
            if not sign:
                raise ValueError(f"--set {assignment} sets nothing; write --set KEY=VALUE")
            if key not in known:
                raise ValueError(
                    f"--set {assignment}: the sampler {kind} has no setting {key!r}{did_you_mean(key, known)};"
                    f" it has: {', '.join(known) or 'none'}"
                )
            given[key] = (f"--set {key}={text}", parse_value(text, name=f"--set {assignment}"))
        options = {"steps": ("--steps", self.steps), "time_grid": ("--time-grid", self.time_grid)}
        for key, (option, value) in options.items():
            if value is not None and key not in known:
                sys.stderr.write(f"mdpipe: {option} {value} is ignored: the sampler {kind} has no grid of steps\n")
            elif value is not None:
                given.setdefault(key, (f"{option} {value}", value))
        return given


def stated_sampling(run: str) -> SampleConfig | None:
    """Return the run's `sample` in params.yaml; None if there is no such run."""
    params = load_params() if PARAMS_FILE.exists() else None
    return params.runs[run].sample if params is not None and run in params.runs else None


def _stated_settings(run: str, kind: str) -> dict[str, Any]:
    """Return the settings that params.yaml has for this kind of sampler: the run's, or else the comparison's."""
    if not PARAMS_FILE.exists():
        return {}
    params = load_params()
    own = params.runs[run].sample.sampler if run in params.runs else None
    if own is not None and own.kind == kind:
        return own.model_dump(exclude={"kind"})
    compared = next((config for config in params.samplers.samplers if config.kind == kind), None)
    settings = {} if compared is None else compared.model_dump(exclude={"kind", "steps"})
    if isinstance(own, DiscreteTimeSamplerConfig) and "steps" in SamplerConfig.kinds[kind].model_fields:
        settings["steps"] = own.steps
    return settings
