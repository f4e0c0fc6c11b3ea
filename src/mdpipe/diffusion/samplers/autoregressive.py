"""Autoregressive sampling: left to right, each token drawn from what a causal network says of those before it."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.samplers.base import OnStep, Sampler
from mdpipe.diffusion.samplers.conditionals import Conditionals


@dataclass(frozen=True)
class Autoregressive(Sampler[object]):
    """x^l ~ p(x^l | x^1, ..., x^(l-1)), with as many network calls as tokens, each on the tokens so far alone.

    The network reads the sequence shifted right by one, the mask standing in front as the token that begins it, so
    its hidden state at position l tells of token l. The schedule is of no concern, and the time is 0.

    Raises:
        ValueError: a token is given to the right of an unknown one: what was drawn before could not heed it.
    """

    causal: ClassVar[bool] = True

    def fill(
        self,
        conditionals: Conditionals,
        schedule: object,  # noqa: ARG002
        tokens: Tensor,
        noise: Noise,
        examples: Tensor,
        on_step: OnStep,
    ) -> Tensor:
        """All from step 0 of the noise, one uniform a token."""
        unknown = tokens == conditionals.mask
        if (unknown[:, :-1] & ~unknown[:, 1:]).any():
            raise ValueError(
                "sample.sampler.kind is 'autoregressive', which cannot fill a gap: tokens may be given at the"
                " beginning of a sequence only, not to the right of an unknown one"
            )
        length = tokens.shape[1]
        given_to_all = length - int(unknown.sum(dim=1).max()) if len(tokens) else length
        uniforms = noise.uniform(0, examples, length)
        begin = torch.full_like(tokens[:, :1], conditionals.mask)
        for position in range(given_to_all, length):
            hidden = conditionals.hidden(torch.cat([begin, tokens[:, :position]], dim=1), 0.0)
            drawn = conditionals.draw(hidden[:, position], uniforms[:, position])
            tokens = tokens.clone()
            tokens[:, position] = torch.where(unknown[:, position], drawn, tokens[:, position])
            on_step(position + 1 - given_to_all, length - given_to_all, tokens)
        return tokens
