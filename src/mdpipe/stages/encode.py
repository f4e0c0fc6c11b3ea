"""Stage `encode`: a source, split and tokenized, and what general-purpose compressors make of its held-out parts."""

import shutil
import sys
from typing import Any

import numpy as np

from mdpipe.data.artifacts.metrics import write_metrics
from mdpipe.data.artifacts.stable_json import read_json
from mdpipe.data.encoded.dataset import EncodedDataset
from mdpipe.data.encoding.images import encode_images
from mdpipe.data.encoding.text import encode_text
from mdpipe.data.splits.held import SPLITS
from mdpipe.data.tokenizers import load_tokenizer
from mdpipe.evaluation.references import reference_rates
from mdpipe.messages import without_secrets
from mdpipe.params import Params
from mdpipe.params.catalogue import entry
from mdpipe.params.data import ImageDataset, modality_of
from mdpipe.params.sources import Catalogued, resolved
from mdpipe.pipeline import paths
from mdpipe.pipeline.data_fingerprint import encoding_fingerprint
from mdpipe.pipeline.provenance import require_unchanged_inputs
from mdpipe.stages.held_out import held_out
from mdpipe.stages.packed import packed

LISTED = 10
"""Classes in a line of the log."""


def encode(params: Params, dataset: str) -> None:
    """Write data/encoded/DATASET and metrics/encode/DATASET.json.

    Raises:
        ValueError: a split would be empty, or the raw data are missing or broken.
    """
    settings = params.datasets[dataset]
    raw, directory = paths.raw(settings.source), paths.encoded(dataset)
    held = (params.seed, held_out(settings.validation), held_out(settings.test))
    provenance = _provenance(params, dataset)
    pieces = paths.pieces("encode", dataset, encoding_fingerprint(params, dataset))
    if isinstance(settings, ImageDataset):
        cut = (settings.tokenizer.levels, settings.size, settings.stride)
        encode_images(raw, *cut, directory, *held, pieces, provenance)
    else:
        learned = load_tokenizer(paths.tokenizer(dataset))
        encode_text(raw, learned, directory, settings.length, *held, packed(settings.packing), pieces, provenance)
    require_unchanged_inputs()
    for made in paths.all_pieces("encode", dataset):
        shutil.rmtree(made)
    splits = {split: EncodedDataset.open(directory, split) for split in SPLITS}
    for split in splits.values():
        _say_missing_classes(split)
    references = [rate for split in ("validation", "test") for rate in reference_rates(splits[split])]
    manifest = read_json(directory / "manifest.json", "run the stage again")
    for counts in manifest["splits"].values():
        counts.pop("lengths", None)  # thirty numbers, for the manifest alone
    metrics = {"dataset": dataset, "modality": modality_of(settings), **manifest, "references": references}
    write_metrics(paths.metrics("encode", dataset), metrics)


def _say_missing_classes(split: EncodedDataset) -> None:
    """Log which classes have no example in a split: a model cannot learn them, or is not measured on them."""
    if split.labels is None:
        return
    missing = np.setdiff1d(np.arange(split.classes), np.asarray(split.labels)).tolist()
    if missing:
        named = [f"{number} ({split.class_names[number]})" if split.class_names else str(number) for number in missing]
        listed = ", ".join(named[:LISTED]) + ", ..." * (len(named) > LISTED)
        sys.stderr.write(
            f"{split.directory.name}: {len(missing):,} of {split.classes:,} classes have no example in the"
            f" {split.split} split: {listed}\n"
        )


def _provenance(params: Params, dataset: str) -> dict[str, Any]:
    """Where the data came from, as the manifest says it."""
    settings = params.datasets[dataset]
    source = params.sources[settings.source]
    found = resolved(source).model_dump()
    name = source.name if isinstance(source, Catalogued) else None
    header = read_json(paths.raw(settings.source) / "source.json", f"run `dvc repro download@{settings.source}` again")
    return {
        "source": settings.source,
        "catalogue": name,
        "kind": found["kind"],
        "origin": _origin(found),
        "revision": found.get("revision") or found.get("sha256"),
        "licence": _licence(name),
        "read": header["read"],
    }


def _origin(source: dict[str, Any]) -> str:
    """The address, name or path that the data were read from."""
    if source["kind"] in ("hub", "hub_images"):
        return " ".join(filter(None, [source["name"], source["config"]]))
    if source["kind"] == "docstrings":
        return ", ".join(source["packages"])
    bundled = {"digits": "scikit-learn", "photos": "scikit-learn"}
    if source["kind"] == "url":
        return without_secrets(source["url"])
    return str(bundled.get(source["kind"]) or source["path"])


def _licence(name: str | None) -> str | None:
    return None if name is None else entry(name).licence
