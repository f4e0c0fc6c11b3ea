"""Build a sampler by its name in params.yaml."""

from dataclasses import MISSING, fields
from typing import Any

from mdpipe.diffusion.samplers.base import Sampler
from mdpipe.kinds import find_kind


def build_sampler(kind: str, **settings: Any) -> Sampler[Any]:
    """Build the sampler that params.yaml calls `kind`, with its settings there.

    Raises:
        ValueError: if there is no such kind, a setting is unknown or missing, or a value is not allowed.
    """
    sampler = sampler_class(kind)
    known = {field.name: field.default is MISSING for field in fields(sampler)}
    for name in settings:
        if name not in known:
            allowed = ", ".join(known) or "no settings"
            raise ValueError(f"sample.sampler.{name} is not a setting of {kind!r}, which takes {allowed}")
    for name, required in known.items():
        if required and name not in settings:
            raise ValueError(f"sample.sampler.{name} is missing; {kind!r} needs it")
    return sampler(**settings)


def sampler_class(kind: str) -> type[Sampler[Any]]:
    """Return the class of a sampler.

    Raises:
        ValueError: if there is no such kind.
    """
    return find_kind("mdpipe.diffusion.samplers", kind, Sampler, "sample.sampler.kind")
