"""Options of `mdpipe generate` and `mdpipe infill`, which default to the run's `sample` in params.yaml."""

import sys
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from mdpipe.options import option
from mdpipe.params import PARAMS_FILE, Params, SampleConfig, load_params, parse_assignments
from mdpipe.params.diffusion import ObjectiveConfig
from mdpipe.params.errors import did_you_mean, rule_of
from mdpipe.params.sampling import DiscreteTimeSamplerConfig, SamplerConfig, compatible_samplers, is_compatible

TIME_STEPS = ("steps", "time_grid")
"""Options that are settings of samplers with a grid of times."""
TOKEN_SAMPLING = ("temperature", "top_k", "top_p", "guidance_scale")
"""Options that are settings of a run's `sample`, too, and have their rules."""


def _inherited(text: str, default: str) -> dict[str, str]:
    """Return the help of an option whose default is the run's setting, or else this."""
    return {"help": text, "show_default": f"the run's in params.yaml, or else {default}"}


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """Options of sampling; None means as in params.yaml, or else the default."""

    sampler: str | None = option(
        None,
        f"One of {', '.join(SamplerConfig.kinds)}, or the name of an added one. By default, the run's in params.yaml,"
        " or else ancestral: exact, and the fastest",
        metavar="KIND",
    )
    settings: list[str] | None = option(  # noqa: RUF009
        None,
        "A setting of the sampler; may be given several times. ancestral, ancestral_stepwise and two_stage have decode"
        " (sample or argmax), maskgit has noise_scale, remdm has eta, predictor_corrector has num_corrector_steps."
        " By default as in params.yaml: the run's, if its sampler is of this kind, or the comparison's; or else the"
        " sampler's own default",
        name="set",
        metavar="KEY=VALUE",
        show_default=False,
    )
    steps: int | None = option(None, **_inherited("Steps of a sampler with a time grid", "128"), min=1)
    time_grid: str | None = option(
        None,
        "Spacing of these steps; by default as in params.yaml (see --set), or else cosine",
        metavar="uniform|cosine",
    )
    temperature: float | None = option(None, **_inherited("Temperature: below 1 sharpens, above 1 flattens", "1"))
    top_k: int | None = option(None, **_inherited("Sample from the K most likely tokens", "all"))
    top_p: float | None = option(
        None,
        **_inherited("Sample from the smallest set of most likely tokens with this total probability; 1 for all", "1"),
    )
    label: str | None = option(None, "Name or number of the class, for a class-conditional run")
    guidance_scale: float | None = option(
        None,
        **_inherited(
            "Scale s of classifier-free guidance: log-probabilities are (1 + s) conditional - s unconditional, so 0 is"
            " the conditional model. Needs --label",
            "none",
        ),
    )
    seed: int = option(0, "The same seed gives the same bytes", min=0)
    threads: int = option(1, "CPU threads; with another number, last digits may differ", min=1)

    def resolve(self, run: str, objective: ObjectiveConfig) -> SampleConfig:
        """Return what to sample with: the command line's values, else those of the run in params.yaml, else defaults.

        The sampler's kind comes from --sampler, else from the run in params.yaml, else from the objective's default.
        Settings that are not on the command line come from the run's sampler if it is of the same kind, else from the
        sampler of this kind in the comparison of samplers, else from the defaults.

        Raises:
            ValueError: The sampler does not exist or does not fit the objective, a setting is unknown or wrong, a value
                is out of range, or there is a guidance scale and no class; the message names the option.
        """
        if self.guidance_scale is not None and self.label is None:
            raise ValueError("--guidance-scale needs a class; give one with --label")
        params = load_params() if PARAMS_FILE.exists() else None
        own = params.runs[run].sample if params is not None and run in params.runs else None
        allowed = compatible_samplers(type(objective))
        kind = self.sampler
        if kind is None:
            kind = own.sampler.kind if own and is_compatible(own.sampler.kind, type(objective)) else allowed[0]
        config = SamplerConfig.find(kind)
        if config is None or not is_compatible(kind, type(objective)):
            hint = "" if kind in SamplerConfig.kinds else SamplerConfig.hint(kind, allowed)
            raise ValueError(
                f"--sampler {kind!r} does not fit a run of {objective.kind}{hint}; allowed: {', '.join(allowed)}"
            )
        given = self._given_settings(config, kind)
        data = own.model_dump() if own else {}
        data["sampler"] = {"kind": kind, **({} if params is None else _stated_settings(params, own, kind))}
        if self.label is None:
            data["guidance_scale"] = None
        for (*section, key), (_, value) in given.items():
            (data["sampler"] if section else data)[key] = value
        try:
            return SampleConfig.model_validate(data)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            keys = tuple(map(str, problem["loc"][:2]))
            if keys not in given:
                raise ValueError(
                    f"the sampler {kind} needs its setting {keys[-1]!r}; give it with --set {keys[-1]}=VALUE"
                ) from None
            raise ValueError(f"{given[keys][0]} is refused: {rule_of(problem)}") from None

    def _given_settings(self, config: type[SamplerConfig], kind: str) -> dict[tuple[str, ...], tuple[str, Any]]:
        """Return how each setting was given on the command line, and its value, by its path in `sample`."""
        known = [key for key in config.model_fields if key != "kind"]
        given: dict[tuple[str, ...], tuple[str, Any]] = {}
        for key, (assignment, value) in parse_assignments("--set", self.settings or []).items():
            if key not in known:
                raise ValueError(
                    f"{assignment}: the sampler {kind} has no setting {key!r}{did_you_mean(key, known)};"
                    f" it has: {', '.join(known) or 'none'}"
                )
            given["sampler", key] = assignment, value
        for key in (*TIME_STEPS, *TOKEN_SAMPLING):
            text, value = f"--{key.replace('_', '-')} {getattr(self, key)}", getattr(self, key)
            if value is not None and key in TIME_STEPS and key not in known:
                sys.stderr.write(f"mdpipe: {text} is ignored: the sampler {kind} has no grid of steps\n")
            elif value is not None:
                given.setdefault(("sampler", key) if key in TIME_STEPS else (key,), (text, value))
        return given


def _stated_settings(params: Params, own: SampleConfig | None, kind: str) -> dict[str, Any]:
    """Return the settings that params.yaml has for this kind of sampler: the run's, or else the comparison's."""
    sampler = None if own is None else own.sampler
    if sampler is not None and sampler.kind == kind:
        return sampler.model_dump(exclude={"kind"})
    compared = next((config for config in params.samplers.samplers if config.kind == kind), None)
    settings = {} if compared is None else compared.model_dump(exclude={"kind", "steps"})
    if isinstance(sampler, DiscreteTimeSamplerConfig) and "steps" in SamplerConfig.kinds[kind].model_fields:
        settings["steps"] = sampler.steps
    return settings
