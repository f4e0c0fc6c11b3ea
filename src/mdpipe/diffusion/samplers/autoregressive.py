"""Autoregressive sampling: from left to right, each token from a causal network's prediction given those before it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mdpipe.diffusion.denoiser import ConditionalModel
from mdpipe.diffusion.samplers.base import Sampler, Start
from mdpipe.params.sampling import AutoregressiveSamplerConfig


@dataclass(frozen=True)
class NextToken:
    """A position, and the uniforms (B,) that decide its tokens."""

    position: int
    u: Tensor


class Autoregressive(Sampler[object], config=AutoregressiveSamplerConfig):
    """x^l ~ p(x^l | x^1, ..., x^(l-1)), with one network call per token, each on the tokens so far only.

    The network reads the sequence shifted right by one, with the mask as the start token, so its hidden state at
    position l predicts token l. The schedule is not used, and the time is 0.

    Raises:
        ValueError: if a token is given to the right of a mask, which could not depend on it.
    """

    is_causal: ClassVar[bool] = True

    def plan(self, schedule: object, start: Start) -> list[NextToken]:  # noqa: ARG002
        """Return the positions from the first that is unknown in any row; step 0 of the source has all uniforms."""
        is_masked, length = start.is_masked, start.tokens.shape[1]
        if (is_masked[:, :-1] & ~is_masked[:, 1:]).any():
            raise ValueError(
                "the autoregressive sampler cannot fill a gap: tokens may be given at the"
                " beginning of a sequence only, not to the right of an unknown one"
            )
        first = length - int(is_masked.sum(dim=1).max()) if len(is_masked) else length
        (u,) = start.uniform(0)
        return [NextToken(position, u[:, position]) for position in range(first, length)]

    def step(self, model: ConditionalModel, x_t: Tensor, step: NextToken, start: Start) -> Tensor:
        """Return x_t with the next token where it is unknown."""
        begin = torch.full_like(x_t[:, :1], model.mask_id)
        hidden = model.hidden(torch.cat([begin, x_t[:, : step.position]], dim=1), 0.0)
        samples = model.sample(hidden[:, step.position], step.u)
        x_t = x_t.clone()
        x_t[:, step.position] = torch.where(start.is_masked[:, step.position], samples, x_t[:, step.position])
        return x_t
