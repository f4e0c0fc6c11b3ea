"""How a likelihood bound stands in a metrics file."""

from collections.abc import Mapping
from typing import Any

from mdpipe.evaluation.likelihood import Likelihood
from mdpipe.stages.model_io import TrainedRun


def bound_metrics(trained: TrainedRun, likelihood: Likelihood, counts: Mapping[str, int]) -> dict[str, Any]:
    """The bound in bits per token with its errors and parts; for text also what any tokenizer can be compared by.

    Args:
        trained: the model.
        likelihood: its bound on a split or corpus.
        counts: of that split; for text its `bytes` and `characters`.
    """
    bits = likelihood.bits_per_token()
    metrics: dict[str, Any] = {
        "modality": trained.modality,
        "condition": trained.condition,
        "unit": trained.unit,
        "value": bits.value,
        "stderr": bits.stderr,
        "stderr_draws": bits.stderr_draws,
        "parts": {"reconstruction": bits.reconstruction, "prior": bits.prior, "diffusion": bits.diffusion},
        "examples": likelihood.examples,
        "tokens": likelihood.tokens,
        "draws": likelihood.draws,
        "estimator": trained.objective.estimator,
        "parameters": trained.parameters,
    }
    if trained.modality == "text":
        per_byte, per_character = likelihood.bits_per(counts["bytes"]), likelihood.bits_per(counts["characters"])
        perplexity = likelihood.perplexity()
        metrics |= {
            "bytes": counts["bytes"],
            "bits_per_byte": per_byte.value,
            "bits_per_byte_stderr": per_byte.stderr,
            "bits_per_char": per_character.value,
            "bits_per_char_stderr": per_character.stderr,
            "perplexity": perplexity.value,
            "perplexity_stderr": perplexity.stderr,
        }
    return metrics
