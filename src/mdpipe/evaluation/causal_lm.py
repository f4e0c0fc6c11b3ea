"""Likelihood of texts under a causal language model of the library `transformers`, an optional extra.

Shapes: N texts, L tokens of one, D width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


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
        model: torch.nn.Module = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, use_safetensors=True)
        self._model: Any = model.to(device).eval()

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
        for row, text in enumerate(texts):
            tokens = self._encode(text)
            if len(tokens) < 2:
                continue
            logits = self._model(tokens[None]).logits[0, :-1]
            surprisal = torch.nn.functional.cross_entropy(logits.double(), tokens[1:], reduction="none")
            is_eos = tokens == (-1 if self._tokenizer.eos_token_id is None else self._tokenizer.eos_token_id)
            is_counted = (~is_eos | (is_eos.cumsum(0) == 1))[1:]
            counts[row] = int(is_counted.sum())
            bits[row] = float(surprisal[is_counted].mean()) / np.log(2) if counts[row] else 0
        return bits, counts

    @torch.inference_mode()
    def features(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the last layer's hidden state at the last token of each text, (N, D); 0 for a text without tokens."""
        width = self._model.get_input_embeddings().weight.shape[1]
        states = torch.zeros(len(texts), width)
        for row, text in enumerate(texts):
            if len(tokens := self._encode(text)):
                states[row] = self._model(tokens[None], output_hidden_states=True).hidden_states[-1][0, -1]
        features: NDArray[np.float32] = states.numpy()
        return features

    def _encode(self, text: str) -> Tensor:
        """Return the tokens (L,) of a text, cut to the model's context."""
        limit = getattr(self._model.config, "max_position_embeddings", None)
        ids = self._tokenizer(text, truncation=limit is not None, max_length=limit)["input_ids"]
        return torch.tensor(ids, dtype=torch.int64, device=self._device)
