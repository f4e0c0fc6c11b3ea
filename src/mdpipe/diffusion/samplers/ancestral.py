"""Ancestral sampling: walk a grid of times from 1 to 0, revealing masked tokens on the way (Alg. 2)."""

from collections.abc import Callable

import torch
from torch import Tensor

from mdpipe.diffusion.categorical import draw
from mdpipe.diffusion.denoiser import Denoiser
from mdpipe.diffusion.noise import Noise
from mdpipe.diffusion.schedules import Schedule


@torch.inference_mode()
def ancestral(
    denoiser: Denoiser,
    schedule: Schedule,
    vocabulary: int,
    tokens: Tensor,
    grid: Tensor,
    noise: Noise,
    examples: Tensor,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Fill the masked positions; known positions stay as they are.

    From t to s < t a masked token is revealed with probability (alpha(s) - alpha(t)) / (1 - alpha(t)), whatever the
    network says, and then drawn from mu(x_t, t). Tokens left at time 0 (a share epsilon) are drawn from mu(x_0, 0).
    The two draws are apart, so the head runs at revealed positions only and the probabilities are float64 throughout.

    Args:
        denoiser: the model.
        schedule: the one that says how many tokens each step reveals.
        vocabulary: V, which is the index of the mask too.
        tokens: (B, L) int64, V where unknown.
        grid: (T + 1,) float64, increasing from 0 to 1.
        noise: the source; step i of the walk draws from its step i.
        examples: (B,) int64, global indices of the samples: a sample depends on its own, not on its batch.
        on_step: called after each of the T steps with the number of steps done and the tokens (B, L); nothing is
            masked in the last.

    Returns:
        (B, L) int64 below V.
    """
    length = tokens.shape[1]
    steps = len(grid) - 1
    alphas = schedule.alpha(grid.to(torch.float64)).tolist()
    for done, index in enumerate(range(steps, 0, -1), start=1):
        uniforms = noise.uniform(done, examples, 2 * length)
        share = (alphas[index - 1] - alphas[index]) / (1 - alphas[index])
        revealed = (tokens == vocabulary) & (uniforms[:, :length] < share)
        tokens = _reveal(denoiser, tokens, revealed, float(grid[index]), uniforms[:, length:])
        if index == 1:
            left_over = noise.uniform(done + 1, examples, length)
            tokens = _reveal(denoiser, tokens, tokens == vocabulary, 0.0, left_over)
        if on_step is not None:
            on_step(done, tokens)
    return tokens


def _reveal(denoiser: Denoiser, tokens: Tensor, revealed: Tensor, time: float, uniforms: Tensor) -> Tensor:
    """Draw the `revealed` (B, L) positions from the denoiser's distribution; a new tensor."""
    if not revealed.any():
        return tokens
    times = torch.full((len(tokens),), time, dtype=torch.float64, device=tokens.device)
    logits = denoiser.head(denoiser(tokens, times, None)[revealed])
    return tokens.masked_scatter(revealed, draw(logits, uniforms[revealed]))
