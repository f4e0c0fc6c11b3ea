"""The columns of the tables of results, with their types.

A record is what a stage wrote about one run, dataset or (run, source), or one of its `references`. A schema has the
fields of a record, or the columns of a table.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

Record = Mapping[str, Any]
Schema = dict[str, type[pl.String | pl.Int64 | pl.Float64]]


def texts(*names: str) -> Schema:
    """Return columns of texts."""
    return dict.fromkeys(names, pl.String)


def integers(*names: str) -> Schema:
    """Return columns of whole numbers."""
    return dict.fromkeys(names, pl.Int64)


def numbers(*names: str) -> Schema:
    """Return columns of numbers."""
    return dict.fromkeys(names, pl.Float64)


def estimates(*names: str) -> Schema:
    """Return columns of numbers, each followed by its standard error."""
    return numbers(*(f"{name}{suffix}" for name in names for suffix in ("", "_stderr")))


TEXT_RATES = estimates("bits_per_byte", "bits_per_char", "perplexity")
WORD_RATES = estimates("bits_per_word", "word_perplexity")
TEXT_ONLY = {*TEXT_RATES, *WORD_RATES, "bytes", "words"}
BOUND = {
    **texts("split", "class_cond", "modality", "unit"),
    **numbers("value", "stderr", "stderr_mc", "reconstruction", "prior", "diffusion"),
    **TEXT_RATES,
    **WORD_RATES,
    **integers("examples", "clusters", "num_mc_samples", "nfe", "tokens", "bytes", "words"),
    **texts("estimator", "mc_estimator", "clustered_by"),
    **integers("num_parameters", "seed"),
}
LIKELIHOOD = {**texts("run", "dataset"), **BOUND}
ZERO_SHOT = {**texts("run", "source", "protocol", "dataset", "tokenizer"), **BOUND, **texts("content_hash")}
"""One row per run, source and protocol, the packing of the source; `content_hash` is of the source's documents."""

HELD_OUT, OTHER_TEXT = ("dataset", "split"), ("source", "protocol", "dataset", "tokenizer", "split")
"""The columns that say what a bound is of, with its run."""

DIFFERENCE_ERRORS = numbers("stderr", "stderr_evaluation", "stderr_seeds")
COMPARISON = texts("baseline", "baseline_class_cond") | numbers("difference")
COMPARISON |= numbers(*(f"difference_{name}" for name in DIFFERENCE_ERRORS)) | texts("trainings")
"""Difference to another run on the same examples; null if params.yaml asks for no comparison. If `class_cond` and
`baseline_class_cond` differ, the difference includes the effect of the class labels."""

DIFFERENCE = texts("run", "baseline", "dataset", "split", "trainings") | numbers("value") | DIFFERENCE_ERRORS
"""Bits of `run` minus bits of `baseline`, in the unit of the run's row, from the differences example by example.
`stderr` covers trainings and evaluation, and is null for one training each, as `stderr_seeds` is."""

REFERENCE = {**texts("reference", "split", "unit"), **numbers("value", "stderr")}
"""A rate that comes from no model: `stderr` is null if it is exact."""

DATASET = {
    **texts("dataset", "modality", "source", "origin", "revision", "license", "tokenizer"),
    **integers("vocab_size", "seq_len"),
}
SPLIT = {
    **texts("split"),
    **integers("documents", "images", "classes", "examples", "tokens", "bytes", "characters", "words"),
    **integers("unk_tokens", "longest_document", "duplicates", "duplicates_of_training", "contamination_windows"),
    **numbers("ngram_overlap"),
    **texts("content_hash"),
}
"""`classes` counts the classes that have images in the split. `examples` are the units of evaluation: images, or
consecutive windows of `seq_len` tokens. `ngram_overlap` is the fraction of the split's `contamination_windows`, of 50
characters each, that also occur in the training text."""

SAMPLES = {
    **texts("run", "dataset", "modality"),
    **integers("samples", "steps"),
    **texts("time_grid"),
    **integers("nfe"),
    **texts("sampler"),
    **numbers("temperature"),
    **integers("top_k"),
    **numbers("top_p"),
    **texts("class_cond"),
    **numbers("guidance_scale"),
    **integers("seed"),
    **texts("unit"),
    **numbers("entropy"),
}
"""`unit` is the unit of the entropy. `steps` and `time_grid` are null for a sampler without a time grid."""

TRAINING = {
    **texts("run"),
    **integers("steps", "tokens", "num_parameters"),
    **numbers("final_loss"),
    **integers("final_loss_rows"),
    **texts("unit"),
}
"""`final_loss` is the mean of the last `final_loss_rows` rows of the training curve."""

NGRAM_STATISTICS = estimates("distinct_1", "distinct_2", "distinct_3", "distinct_4", "repetition", "longest_run")
SAMPLERS = {
    **texts("run", "dataset", "reference_model", "sampler"),
    **integers("steps"),
    **numbers("temperature"),
    **integers("nfe", "samples"),
    **texts("unit"),
    **estimates("bits", "generative_perplexity", "generative_perplexity_per_sample", "entropy", "entropy_per_sample"),
    **NGRAM_STATISTICS | numbers("mauve"),
    **texts("network_dtype", "sampling_dtype"),
    **integers("num_parameters"),
}
"""The columns of metrics/samplers: one row per sampler and reference model, and one for the held-out data as the
sampler `DATA`. Images have no n-grams. `mauve` is null without its package or with few samples."""

DATA = "data"

SPEEDS = texts("run", "sampler") | integers("steps", "num_parameters") | numbers("tokens_per_second")
SPEED_KEY = ("run", "sampler", "steps", "num_parameters")
"""Identifies a speed: a network of another size has another one."""

EXPONENTS = {**integers("token"), **texts("symbol"), **numbers("exponent")}
"""A learned schedule alpha_i(t) = 1 - t^w_i: the exponent w_i and the text or gray level of each token i."""

IMAGE_SETS = texts("images") | integers("num_images") | texts("reference") | integers("num_reference")
"""A set of images and the real images that it is compared with: samples, those of a further sampler by its name,
training, held_out or noise."""
IMAGE_MEASURES = estimates(
    *("fid", "precision", "recall", "inception_score", "class_accuracy", "nearer_features", "nearer_pixels")
)
IMAGE_RUN = {
    **texts(
        "run", "dataset", "split", "features", "feature_network", "feature_network_sha256", "sampler", "class_cond"
    ),
    **integers("k", "nfe", "seed"),
}
"""`split` is the held-out split. Only rows with equal `feature_network_sha256` and numbers of images compare."""
IMAGE_QUALITY = texts("run", "dataset") | IMAGE_SETS | IMAGE_MEASURES | IMAGE_RUN
NOT_OF_A_RUN = {"training", "held_out", "noise"}
"""Sets of images that no run made: their rows have no fields of one."""

COSTS = {
    **texts("stage"),
    **numbers("seconds", "cpu_seconds", "peak_mib"),
    **integers("tokens"),
    **numbers("tflop"),
}
"""Time and memory of a stage as measured, tokens and TFLOP (10^12 operations) as `mdpipe plan` estimates them."""

NULLABLE = frozenset({"class_cond", "top_k", "top_p", "guidance_scale", "steps", "time_grid", *WORD_RATES})
"""Fields of all schemas that are null where they do not apply."""

SEEDS = texts("replicate_of") | integers("seeds") | numbers("seeds_stderr")
"""The run whose training a row is of, the number of trainings that a row is the mean of, and the standard error of its
value over them: their standard deviation divided by the root of their number."""
