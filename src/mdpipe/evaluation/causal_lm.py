"""Likelihood of texts under a causal language model of the library `transformers`, an optional extra.

Shapes: N texts, L tokens of one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray


class CausalLM:
    """A pretrained model and its tokenizer, in float32.

    Args:
        path: a folder, or the name of a model of the Hugging Face Hub.
        device: where the model computes.

    Raises:
        ValueError: `transformers` is not installed.
    """

    def __init__(self, path: str, device: torch.device) -> None:
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError:
            raise ValueError(
                f"samplers: causal_lm {path!r} needs the library transformers; pip install 'mdpipe[transformers]'"
            ) from None
        self._tokenizer = AutoTokenizer.from_pretrained(path)
        self._device = device
        model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        self._model = model.to(device).eval()

    @torch.inference_mode()
    def generative_bits(self, texts: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Compute -log2 p(x) / L of each text, as MDLM and Duo do for generative perplexity.

        A text is tokenized by the model's tokenizer and cut to the model's context. Its first token is a condition
        only. The first end-of-text token is counted, later ones are not. Texts are scored one by one: with padding, a
        text's bits would depend on the lengths of the others.

        Returns:
            (N,) bits per counted token, and (N,) counted tokens; 0 and 0 for a text of less than two tokens.
        """
        bits, counts = np.zeros(len(texts)), np.zeros(len(texts), dtype=np.int64)
        limit = getattr(self._model.config, "max_position_embeddings", None)
        for row, text in enumerate(texts):
            ids = self._tokenizer(text, truncation=limit is not None, max_length=limit)["input_ids"]
            if len(ids) < 2:
                continue
            tokens = torch.tensor(ids, device=self._device)
            logits = self._model(tokens[None]).logits[0, :-1]
            surprisal = torch.nn.functional.cross_entropy(logits.double(), tokens[1:], reduction="none")
            is_eos = tokens == (-1 if self._tokenizer.eos_token_id is None else self._tokenizer.eos_token_id)
            is_counted = (~is_eos | (is_eos.cumsum(0) == 1))[1:]
            counts[row] = int(is_counted.sum())
            bits[row] = float(surprisal[is_counted].mean()) / np.log(2) if counts[row] else 0
        return bits, counts
