"""MAUVE of samples and held-out data, by the package `mauve-text`, an optional extra.

The package gets hidden states, so that it loads no model and needs no network. Shapes: N texts, D features.
"""

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

MIN_SAMPLES = 1000
"""Samples from which MAUVE is meaningful: its histograms have a bin for each ten, and with few it is far too high. The
paper has 5,000."""


def why_not(count: int) -> str | None:
    """Return why there is no MAUVE of this number of samples, or None."""
    if count < MIN_SAMPLES:
        return f"it needs {MIN_SAMPLES:,} samples and as many windows of held-out text, and there are {count:,}"
    if find_spec("mauve") is None:
        return "it needs the package mauve-text; pip install 'mdpipe[mauve]'"
    return None


def mauve(data: NDArray[np.floating], samples: NDArray[np.floating], seed: int) -> float:
    """Compute MAUVE (Pillutla et al. 2021, eq. 2), from 0 to 1; 1 if samples are distributed as the data.

    The features are quantized together by k-means, and MAUVE is the area below the curve of divergences of both
    histograms from their mixtures. The package's settings are the paper's.

    Args:
        data: features of held-out texts, (N, D).
        samples: features of as many samples, (N, D).
        seed: of k-means.
    """
    import faiss
    from mauve import compute_mauve

    faiss.omp_set_num_threads(1)  # The result is the same on any number of cores.
    found = compute_mauve(p_features=data.astype(np.float32), q_features=samples.astype(np.float32), seed=seed)
    return float(found.mauve)
