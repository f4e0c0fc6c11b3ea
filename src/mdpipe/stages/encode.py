"""Stage `encode`: split and tokenize a source, and measure general-purpose compressors on it."""

import shutil
import sys
from typing import Any

import numpy as np

from mdpipe.data.artifacts.files import read_json
from mdpipe.data.artifacts.metrics import write_metrics
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
from mdpipe.pipeline.data_fingerprint import encoding_fingerprint
from mdpipe.pipeline.provenance import require_unchanged_inputs

MAX_LISTED = 10
"""Classes in a line of the log."""


def encode(params: Params, dataset: str) -> None:
    """Write data/encoded/DATASET and metrics/encode/DATASET.json.

    Raises:
        ValueError: a split would be empty, or the raw data are missing or broken.
    """
    settings = params.datasets[dataset]
    raw, directory = paths.raw(settings.source), paths.encoded(dataset)
    provenance = _provenance(params, dataset)
    shards = paths.pieces("encode", dataset, encoding_fingerprint(params, dataset))
    if isinstance(settings, ImageDataset):
        levels, size, stride = settings.tokenizer.levels, settings.size, settings.stride or settings.size
        encode_images(raw, levels, size, stride, directory, params.seed, settings.splits, shards, provenance)
    else:
        fitted, seq_len = load_tokenizer(paths.tokenizer(dataset)), settings.seq_len
        packing = settings.packing
        encode_text(raw, fitted, directory, seq_len, params.seed, settings.splits, packing, shards, provenance)
    require_unchanged_inputs()
    for folder in paths.all_pieces("encode", dataset):
        shutil.rmtree(folder)
    splits = {split: EncodedDataset.open(directory, split) for split in SPLITS}
    for split in splits.values():
        _log_missing_classes(split)
    references = [rate for split in ("validation", "test") for rate in reference_rates(splits[split])]
    manifest = read_json(directory / "manifest.json", "run the stage again")
    for counts in manifest["splits"].values():
        counts.pop("lengths", None)  # thirty numbers, for the manifest only
    metrics = {"dataset": dataset, "modality": modality_of(settings), **manifest, "references": references}
    write_metrics(paths.metrics("encode", dataset), metrics)


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
    settings = params.datasets[dataset]
    source = params.sources[settings.source]
    settings_of_source = source.resolve().model_dump()
    name = source.name if isinstance(source, CatalogSource) else None
    header = read_json(paths.raw(settings.source) / "source.json", f"run `dvc repro download@{settings.source}` again")
    return {
        "source": settings.source,
        "catalogue": name,
        "kind": settings_of_source["kind"],
        "origin": _origin(settings_of_source),
        "revision": settings_of_source.get("revision") or settings_of_source.get("sha256"),
        "licence": _licence(name),
        "read": header["read"],
    }


def _origin(source: dict[str, Any]) -> str:
    """Return the address, name or path that the data were read from."""
    if source["kind"] == "huggingface":
        return " ".join(filter(None, [source["name"], source["config"]]))
    if source["kind"] == "docstrings":
        return ", ".join(source["packages"])
    bundled = {"digits": "scikit-learn", "photos": "scikit-learn"}
    if source["kind"] == "url":
        return without_secrets(source["url"])
    return str(bundled.get(source["kind"]) or source["path"])


def _licence(name: str | None) -> str | None:
    return None if name is None else find_entry(name).license
