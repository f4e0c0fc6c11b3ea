"""A run as a model of lm-evaluation-harness, which is optional: pip install lm-eval.

    from mdpipe.commands.harness import register

    register()
    lm_eval.simple_evaluate("mdpipe", "run=subwords_md4", tasks=["hellaswag"])

Log-likelihoods are lower bounds, in nats.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mdpipe.commands.interactive import load_run
from mdpipe.commands.score import bound_requests, encode_request
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.diffusion.rng import CounterRNG
from mdpipe.evaluation.conditional import is_greedy
from mdpipe.params.sampling import SampleConfig, SamplerConfig, compatible_samplers
from mdpipe.stages import sampling

Instance = Any
"""An `lm_eval.api.instance.Instance`: `args` are (context, continuation), (text,) or (context, settings)."""
MAX_GEN_TOKS = 256
"""Tokens that lm-evaluation-harness generates at most where a task does not say."""


class RunLM:
    """A trained run with the methods of `lm_eval.api.model.LM`.

    Args:
        run: its name in models/.
        num_mc_samples: Monte Carlo samples of each request, even.
        batch_size: samples in a network call.
        seed: of masks and samples.
    """

    def __init__(self, run: str, num_mc_samples: int = 32, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.model = load_run(run, threads=torch.get_num_threads())
        self.tokenizer = load_tokenizer(self.model.directory)
        self.num_mc_samples, self.batch_size, self.seed = num_mc_samples, batch_size, seed

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Return log p of each continuation, and if greedy generation would give it."""
        model = self.model
        pairs = [
            encode_request(self.tokenizer, context, continuation, model.seq_len)
            for context, continuation in (request.args for request in requests)
        ]
        greedy = [is_greedy(model.objective, model.denoiser, tokens, is_target) for tokens, is_target in pairs]
        return list(zip(self._log_likelihoods(pairs), greedy, strict=True))

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """Return log p of each text after an end-of-text token, every token given as many before it as fit."""
        windows: list[tuple[NDArray[np.int64], NDArray[np.bool_]]] = []
        counts = []
        for request in requests:
            ids = np.concatenate([[self.tokenizer.eos_id], self.tokenizer.encode(request.args[0])])
            of_text = rolling_windows(ids, self.model.seq_len)
            windows += of_text
            counts.append(len(of_text))
        ends = np.cumsum(counts)[:-1]
        return [float(parts.sum()) for parts in np.split(np.array(self._log_likelihoods(windows)), ends)]

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Continue each context, greedily by default, and cut the text before the first of the `until` strings.

        The run's sampler fills as many tokens as the task asks for, up to half of the model's window.
        """
        model = self.model
        sampler = SamplerConfig.parse(compatible_samplers(type(model.objective.config))[0])
        texts = []
        for index, (context, settings) in enumerate(request.args for request in requests):
            count = min(settings.get("max_gen_toks", MAX_GEN_TOKS), model.seq_len // 2)
            known = self.tokenizer.encode(context)[count - model.seq_len :]
            tokens = torch.cat([torch.from_numpy(known)[None], sampling.all_masked(model, 1, count)], dim=1)
            is_random = settings.get("do_sample", False)
            choice = {"temperature": settings.get("temperature", 1.0)} if is_random else {"top_k": 1}
            rng = CounterRNG(self.seed, f"generate/{index}")
            config = SampleConfig(sampler=sampler, **choice)
            filled = sampling.sample(model, config, tokens, rng).tokens
            text = self.tokenizer.decode(filled[0, len(known) :].numpy())
            ends = [text.find(stop) for stop in settings.get("until", []) if stop in text]
            texts.append(text[: min(ends, default=len(text))])
        return texts

    def _log_likelihoods(self, requests: Sequence[tuple[NDArray[np.int64], NDArray[np.bool_]]]) -> list[float]:
        bounds = bound_requests(self.model, requests, self.num_mc_samples, self.batch_size, self.seed)
        return [-bound.value * math.log(2) for bound in bounds]


def rolling_windows(ids: NDArray[np.int64], window: int) -> list[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Return windows of tokens whose targets are all but the first token, each once.

    Each window begins with one token of context, apart from the last: it is as long as the others where it can be.
    """
    windows = []
    for first in range(1, len(ids), window - 1):
        end = min(first + window - 1, len(ids))
        begin = max(0, end - window)
        windows.append((ids[begin:end], np.arange(begin, end) >= first))
    return windows


def register() -> None:
    """Make `mdpipe` a model of lm-evaluation-harness in this process.

    Raises:
        ImportError: lm-evaluation-harness is not installed.
    """
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model

    register_model("mdpipe")(type("MdpipeLM", (RunLM, LM), {}))
