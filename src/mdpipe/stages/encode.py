"""Stage `encode`: split and tokenize a source, and measure general-purpose compressors on it."""

import sys
from typing import Any

import numpy as np

from mdpipe.data.artifacts.files import read_json, write_record
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.splits import SPLITS
from mdpipe.data.tokenize.images import encode_images
from mdpipe.data.tokenize.text import encode_text
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.evaluation.references import reference_rates
from mdpipe.messages import without_secrets
from mdpipe.params import Params
from mdpipe.params.catalog import find_entry
from mdpipe.params.data import ImageDataset, modality_of
from mdpipe.params.sources import CatalogSource
from mdpipe.pipeline import paths
from mdpipe.pipeline.run_hash import hash_encoding, unfinished_work

MAX_LISTED = 10
"""Classes in a line of the log."""


def encode(params: Params, dataset: str) -> None:
    """Write data/encoded/DATASET and the record encode/DATASET.

    Raises:
        ValueError: A split would be empty, or the raw data are missing or broken.
    """
    settings = params.datasets[dataset]
    raw, directory = paths.raw(settings.source), paths.encoded(dataset)
    metadata = _provenance(params, dataset)
    with unfinished_work("encode", dataset, hash_encoding(params, dataset)) as work_dir:
        if isinstance(settings, ImageDataset):
            encode_images(raw, settings, params.seed, directory, work_dir, metadata)
        else:
            tokenizer = load_tokenizer(paths.tokenizer(dataset))
            encode_text(raw, tokenizer, settings, params.seed, directory, work_dir, metadata)
    splits = {split: EncodedDataset.open(directory, split) for split in SPLITS}
    for split in splits.values():
        _log_missing_classes(split)
    manifest = read_json(directory / "manifest.json", "run the stage again")
    for split_counts in manifest["splits"].values():
        split_counts.pop("lengths", None)  # thirty numbers, only for the manifest
    record = {
        "dataset": dataset,
        "modality": modality_of(settings),
        **manifest,
        "references": [rate for split in ("validation", "test") for rate in reference_rates(splits[split])],
    }
    write_record(record, paths.record("encode", dataset))


def _log_missing_classes(split: EncodedDataset) -> None:
    """Log which classes have no example in a split: a model cannot learn them, or is not measured on them."""
    if split.labels is None:
        return
    missing = np.setdiff1d(np.arange(split.classes), np.asarray(split.labels)).tolist()
    if missing:
        named = [f"{number} ({split.class_names[number]})" if split.class_names else str(number) for number in missing]
        listed = ", ".join(named[:MAX_LISTED]) + ", ..." * (len(named) > MAX_LISTED)
        sys.stderr.write(
            f"{split.directory.name}: {len(missing):,} of {split.classes:,} classes have no example in the"
            f" {split.split} split: {listed}\n"
        )


def _provenance(params: Params, dataset: str) -> dict[str, Any]:
    """Return the origin of the data, for the manifest."""
    name = params.datasets[dataset].source
    source = params.sources[name]
    resolved = source.resolve().model_dump()
    match resolved["kind"]:
        case "huggingface":
            origin = " ".join(filter(None, [resolved["name"], resolved["config"]]))
        case "docstrings":
            origin = ", ".join(resolved["packages"])
        case "digits" | "photos":
            origin = "scikit-learn"
        case "url":
            origin = without_secrets(resolved["url"])
        case _:
            origin = str(resolved["path"])
    header = read_json(paths.raw(name) / "source.json", f"run `dvc repro download@{name}` again")
    entry = find_entry(source.name) if isinstance(source, CatalogSource) else None
    return {
        "source": name,
        "catalog": source.name if isinstance(source, CatalogSource) else None,
        "kind": resolved["kind"],
        "origin": origin,
        "revision": resolved.get("revision") or resolved.get("sha256"),
        "license": entry.license if entry else None,
        "read": header["read"],
    }
