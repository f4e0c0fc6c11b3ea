"""Records as the stages write them, for the tests of tables, figures and the page."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from mdpipe.reporting.schemas import EXPONENTS, SAMPLERS


def evaluation(run: str, dataset: str, modality: str = "image", **changes: Any) -> dict[str, Any]:
    """Return the record of a run of stage evaluate."""
    record = {
        "run": run,
        "dataset": dataset,
        "split": "test",
        "class_cond": None,
        "modality": modality,
        "unit": "bits/dim",
        "value": 2.2134,
        "stderr": 0.021,
        "stderr_mc": 0.004,
        "reconstruction": 0.0001,
        "prior": 0.0002,
        "diffusion": 2.2131,
        "examples": 180,
        "clusters": 180,
        "clustered_by": "image",
        "tokens": 11520,
        "num_mc_samples": 16,
        "nfe": 16,
        "estimator": "md4 bound",
        "mc_estimator": "exact_counts",
        "num_parameters": 905000,
        "seed": 0,
    }
    if modality == "text":
        record |= {
            "unit": "bits/token",
            "clusters": 37,
            "clustered_by": "document",
            "bytes": 104711,
            "words": 17000,
            "bits_per_word": 13.05,
            "bits_per_word_stderr": 0.0758,
            "word_perplexity": 8481.0,
            "word_perplexity_stderr": 445.6,
            "bits_per_byte": 2.1181,
            "bits_per_byte_stderr": 0.0123,
            "bits_per_char": 2.12,
            "bits_per_char_stderr": 0.0123,
            "perplexity": 74.21,
            "perplexity_stderr": 1.6,
        }
    return record | changes


def rate(reference: str, unit: str, value: float, stderr: float | None = None, split: str = "test") -> dict[str, Any]:
    """Return one of the references of a record."""
    return {"reference": reference, "split": split, "unit": unit, "value": value, "stderr": stderr}


IMAGE_RATES = [rate("png", "bits/dim", 4.12), rate("webp", "bits/dim", 3.7), rate("unigram", "bits/dim", 3.3, 0.02)]
TEXT_RATES = [
    rate("xz", "bits/byte", 2.31),
    rate("xz", "bits/word", 14.2),
    rate("unigram", "bits/byte", 2.9, 0.004),
    rate("unigram", "bits/token", 8.2, 0.011),
]


def encoding(dataset: str, references: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the record of a dataset of stage encode."""
    sizes = {"images": 180, "examples": 180, "tokens": 11520}
    splits = {"test": {**sizes, "duplicates": 0, "duplicates_of_training": 0, "content_hash": "c0ffee"}}
    about = {"source": "digits", "origin": "scikit-learn", "revision": None, "license": None, "tokenizer": "pixels"}
    return {
        "dataset": dataset,
        "modality": "image",
        "vocab_size": 17,
        "seq_len": 64,
        **about,
        "splits": splits,
        "references": references,
    }


def difference(run: str, baseline: str, **changes: Any) -> dict[str, Any]:
    """Return the difference of a run to another."""
    return {
        "run": run,
        "baseline": baseline,
        "difference": -0.0123,
        "difference_stderr_evaluation": 0.0031,
        "trainings": "one training each",
    } | changes


def zero_shot(run: str, source: str, dataset: str = "docs", **changes: Any) -> dict[str, Any]:
    """Return the record of a run and a source of stage zero_shot."""
    bound = evaluation(run, dataset, "text", split="all")
    names = {name: bound.pop(name) for name in ("run", "dataset", "split", "seed")}
    references = [rate | {"split": "all"} for rate in TEXT_RATES]
    bound |= {"protocol": "stream", "references": references}
    record = names | {"source": source, "tokenizer": "sentencepiece", "content_hash": "0123"}
    return record | {"bounds": [bound | {name: changes.pop(name) for name in bound if name in changes}]} | changes


def sample(run: str, **changes: Any) -> dict[str, Any]:
    """Return the record of a run of stage sample."""
    return {
        "run": run,
        "dataset": "docs",
        "modality": "text",
        "samples": 8,
        "steps": 64,
        "time_grid": "cosine",
        "nfe": 65,
        "sampler": "ancestral",
        "temperature": 1.0,
        "top_k": None,
        "top_p": None,
        "class_cond": None,
        "guidance_scale": None,
        "seed": 0,
        "unit": "bits/token",
        "entropy": 4.0,
    } | changes


def training(run: str, **changes: Any) -> dict[str, Any]:
    """Return the record of a run of stage train."""
    return {
        "run": run,
        "steps": 1500,
        "tokens": 3072000,
        "num_parameters": 905000,
        "final_loss": 2.4,
        "final_loss_rows": 20,
        "unit": "bits/dim",
    } | changes


def scored(run: str, sampler: str, steps: int | None, **changes: Any) -> dict[str, Any]:
    """Return one row of metrics/samplers."""
    numbers = [name for name, dtype in SAMPLERS.items() if dtype == pl.Float64]
    return {
        **dict.fromkeys(numbers, 0.5),
        "run": run,
        "dataset": "docs",
        "reference_model": "critic",
        "sampler": sampler,
        "steps": steps,
        "temperature": None if sampler == "data" else 1.0,
        "nfe": None if sampler == "data" else (steps or 64),
        "samples": 32,
        "unit": "bits/char",
        "bits": 2.0 if sampler == "data" else 2.0 + 8 / (steps or 64),
        "bits_stderr": 0.03,
        "entropy": 4.1,
        "entropy_stderr": 0.01,
        "network_dtype": None if sampler == "data" else "float32",
        "sampling_dtype": None if sampler == "data" else "float64",
        "num_parameters": 809856,
    } | changes


def scored_frame(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Return the table of a run in metrics/samplers."""
    return pl.DataFrame(list(rows), schema=SAMPLERS)


def exponents_frame(symbols: Sequence[str | None], exponents: Sequence[float]) -> pl.DataFrame:
    """Return a learned schedule; tokens are numbered in the order of their symbols."""
    return pl.DataFrame([range(len(symbols)), symbols, exponents], schema=EXPONENTS)
