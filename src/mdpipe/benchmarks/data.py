"""Speed and memory of preparing data: from synthetic JSON lines to training batches.

Each step runs in a group of processes; this one starts them, samples their memory and hashes what they wrote. The
`peak_mib` of a step is the largest resident set of any single process, as the system recorded it (ru_maxrss), which has
to fit in a core's part of the memory. `peak_together_mib` is the largest sum over all processes, sampled ten times per
second.

The data are synthetic, and a function of the seed. Words follow Zipf's law, p(r) ~ 1 / r for the word of rank r = 1,
..., 50,000, and documents have log-normal lengths, as text on the web does roughly.
"""

import fileinput
import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice, product
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, cast

import numpy as np
import psutil

from mdpipe.benchmarks.runner import Benchmark, Result, run_alone
from mdpipe.benchmarks.settings import DataSettings
from mdpipe.data.artifacts.files import check_disk_space, hash_file, read_json
from mdpipe.data.dataset import DatasetHeader, EncodedDataset, write_header
from mdpipe.data.parallel import WORKERS
from mdpipe.data.sources import open_source
from mdpipe.data.sources.writer import write_shards
from mdpipe.data.tokenize.text import encode_text
from mdpipe.data.tokenizers import build_tokenizer, load_tokenizer
from mdpipe.data.training_batches import training_batch
from mdpipe.params.data import TextDataset, TextTokenizer, TokenizerConfig
from mdpipe.params.sources import JsonLinesSource
from mdpipe.processes import MEBIBYTE, peak_rss_mib

MEGABYTE = 10**6
DISK_FACTOR = 5
"""Approximate bytes on disk per byte of text: JSON lines, raw shards, tokens, tokens after the kill, and images."""
SEQ_LEN = 1024
SPLIT_FRACTION = 0.005
"""Fraction of the documents for validation, and the same for testing."""
SENTENCEPIECE_VOCAB_SIZE, SENTENCEPIECE_DOCUMENTS = 4096, 1000
"""The tokenizer that is fitted, and the documents that it learns from, some three million characters."""
MAX_IMAGES, IMAGES_PER_MEGABYTE = 50_000, 5_000
"""Images that batches are read from: fewer with little text, where seconds would go into writing them."""
TEXT_BATCH, IMAGE_BATCH = 64, 256
BATCHES = 500
"""Batches to read of text and of images, after a warm-up batch."""
FILES = 8
"""Files of a text, so that even a small one has several shards."""
VOCABULARY = 50_000
"""Made-up words, of one syllable or two; the short ones are the frequent ones."""
MEDIAN_WORDS, SIGMA = 395, 1.0
"""Median of the documents' lengths, which are then 2 kB, and the standard deviation of their logarithm."""
SYLLABLES = ["".join(parts) for parts in product("bcdfghjklmnprstvwxyz", "aeiou", ("", "n", "s"))]
ENDINGS = {" ": 0.83, ", ": 0.07, ". ": 0.07, " – ": 0.01, ".\n": 0.02}
"""Endings of a word and their probabilities: one is not ASCII, one is escaped in JSON."""
IMAGE_SHAPE = (32, 32, 3)
KILLED = ("shards_kept", "searches_kept", "again_seconds", "sha256_after_kill")
"""Columns of encoding that was killed."""


def measure(settings: DataSettings) -> Result:
    """Write, read, encode and load batches; optionally encode once more with a kill halfway.

    Raises:
        ValueError: A step failed, or the folder exists.
    """
    with TemporaryDirectory(prefix="mdpipe-") as temporary:
        folder = Path(settings.folder or temporary) / f"{settings.tokenizer}-{settings.size}-{settings.workers}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # Finished shards in it would be taken for this benchmark's.
            raise ValueError(f"{folder} exists; remove it") from None
        check_disk_space(folder, DISK_FACTOR * settings.size * MEGABYTE, "measuring")
        result = run_step(write, settings, folder) | run_step(read, settings, folder)
        result |= run_step(encode, settings, folder)
        result["sha256"] = hash_folder(folder / "encoded")
        result |= kill_and_encode(settings, folder, result) if settings.kill else dict.fromkeys(KILLED)
        result |= run_step(load, settings, folder)
    for step, what in (("write", "bytes"), ("read", "bytes"), ("encode", "text_bytes")):
        result[f"{step}_mb_per_second"] = result[what] / MEGABYTE / result[f"{step}_seconds"]
    return {**result, "tokens_per_second": result["tokens"] / result["encode_seconds"]}


def compare(results: Sequence[Result]) -> list[Result]:
    """Add `same_bytes`: True if all rows with this text and tokenizer, killed ones included, wrote the same files.

    It is None where nothing else encoded this text with this tokenizer.
    """
    hashes: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for one in results:
        hashes[_content(one)] += [one[key] for key in ("sha256", "sha256_after_kill") if one[key] is not None]
    return [
        {**one, "same_bytes": len(set(same)) == 1 if len(same := hashes[_content(one)]) > 1 else None}
        for one in results
    ]


def _content(result: Result) -> tuple[Any, ...]:
    """Return what decides the encoded files."""
    return tuple(result[key] for key in ("size", "tokenizer", "path", "seed"))


def _format_speed(result: Result, step: str, what: str) -> str:
    per_cpu_second = result[what] / MEGABYTE / result[f"{step}_cpu_seconds"]
    return f"{result[f'{step}_mb_per_second']:,.1f} ({per_cpu_second:,.1f})"


BENCHMARK = Benchmark(
    measure=measure,
    heading="Speed of preparing data",
    title="{size} MB by {tokenizer} (workers: {workers})",
    columns={
        "tokenizer": "{tokenizer}",
        "MB": "{size:,}",
        "workers": "{workers}",
        "read MB/s (CPU)": lambda result: _format_speed(result, "read", "bytes"),
        "read MiB": "{read_peak_mib:,.0f} / {read_peak_together_mib:,.0f}",
        "encode MB/s (CPU)": lambda result: _format_speed(result, "encode", "text_bytes"),
        "tokens/s": "{tokens_per_second:,.0f}",
        "encode MiB": "{encode_peak_mib:,.0f} / {encode_peak_together_mib:,.0f}",
        "after a kill": "{shards_kept} + {searches_kept} of {shards}, {again_seconds:,.1f} / {encode_seconds:,.1f} s",
        "same bytes": lambda result: {True: "yes", False: "NO", None: ""}[result["same_bytes"]],
        "training tokens/s": "{training_tokens_per_second:,.0f}",
        "images/s": "{images_per_second:,.0f}",
    },
    compare=compare,
    has_own_process=False,
    page="""\
Synthetic text as JSON lines in eight files, written at {write_mb_per_second:,.0f} MB/s: documents of log-normal \
length, 2 kB in the median, of words from a Zipf distribution over 50,000.

{table}
Read: the files to raw shards, as `download` does, in MB of JSON lines. Encode: raw shards to tokens, with the splits, \
the search for contamination and the manifest, in MB of text. In parentheses: MB per second of CPU time, which is the \
cost while others use the machine too.
MiB: the largest resident set of any one process / the largest sum over all at once, sampled, where shared pages count \
for each.
After a kill: all processes were killed halfway through encoding; how many shards were then encoded and how many were \
searched, which was not repeated, and the seconds that the second run took, next to those without a kill. \
Same bytes: all rows of one text and tokenizer, killed ones included, wrote the same files.
Training tokens/s: batches of 64 random windows of 1,024 tokens from the memory-mapped shards; images/s: batches of \
256 out of images of 32 x 32 x 3. One process reads files that were just written: no cold disk.
""",
)


def run_step(step: Callable[..., Result], settings: DataSettings, folder: Path, *name: str) -> Result:
    """Run a step in a process and return its columns, its memory, and the seconds that the process took."""
    start, sizes, column = perf_counter(), [0], step.__name__
    try:
        result = run_alone(measure_step, step, settings, folder, *name, watch=lambda pid: sizes.append(_rss(pid)))
    except ValueError as error:
        raise ValueError(f"the step {column!r} failed: {error}") from error
    # The peak may have been between two samples.
    result[f"{column}_peak_together_mib"] = max(max(sizes) / MEBIBYTE, result[f"{column}_peak_mib"])
    return {**result, f"{column}_process_seconds": perf_counter() - start}


def kill_and_encode(settings: DataSettings, folder: Path, whole: Result) -> Result:
    """Encode, kill it after half of the time that `whole` took, and then encode to the end."""
    shards = folder / "again-shards"
    delay = whole["encode_process_seconds"] - whole["encode_seconds"] / 2
    with suppress(TimeoutError):
        while True:
            run_alone(measure_step, encode, settings, folder, "again", limit=delay)
            rmtree(shards, ignore_errors=True)  # It was faster this time.
            delay /= 2
    kept = [len(list((shards / name).glob("[0-9]*"))) for name in ("tokens", "contamination")]
    again = run_step(encode, settings, folder, "again")
    return dict(zip(KILLED, (*kept, again["encode_seconds"], hash_folder(folder / "again")), strict=True))


def measure_step(step: Callable[..., Result], settings: DataSettings, folder: Path, *name: str) -> Result:
    """Run a step in this process and add its CPU seconds and the largest resident set of one of its processes."""
    os.environ[WORKERS] = str(settings.workers)
    before = sum(os.times()[:4])  # User and system, of this process and its children that have ended.
    result = step(settings, folder, *name)
    result[f"{step.__name__}_cpu_seconds"] = sum(os.times()[:4]) - before
    return {**result, f"{step.__name__}_peak_mib": peak_rss_mib(include_children=True)}


def _rss(pid: int) -> int:
    """Return the bytes that a process and its descendants hold together."""
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += member.memory_info().rss
    return total


def hash_folder(directory: Path) -> str:
    """Return a hash of the names and bytes of all files in a folder."""
    found = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(directory).as_posix()} {hash_file(path)}\n".encode())
    return found.hexdigest()


def write(settings: DataSettings, folder: Path) -> Result:
    """Write the text as JSON lines, a pure function of size and seed; fit the tokenizer, which is not timed."""
    start = perf_counter()
    size = write_text(folder / "text", settings.size * MEGABYTE, settings.seed)
    seconds = perf_counter() - start
    own: dict[str, dict[str, Any]] = {
        "sentencepiece": {"vocab_size": SENTENCEPIECE_VOCAB_SIZE},
        "gpt2": {"path": settings.path},
    }
    config = TokenizerConfig.parse({"kind": settings.tokenizer, **own.get(settings.tokenizer, {})})
    with fileinput.input(sorted((folder / "text").iterdir()), encoding="utf-8") as lines:
        texts = (json.loads(line)["text"] for line in islice(lines, SENTENCEPIECE_DOCUMENTS))
        tokenizer = build_tokenizer(cast("TextTokenizer", config), texts)
    (folder / "tokenizer").mkdir()
    tokenizer.save(folder / "tokenizer")
    return {"bytes": size, "vocab_size": tokenizer.vocab_size, "write_seconds": seconds}


def read(settings: DataSettings, folder: Path) -> Result:  # noqa: ARG001
    """Do the work of the stage `download` for local files."""
    source = JsonLinesSource(kind="jsonl", path=str(folder / "text"))
    start = perf_counter()
    write_shards(folder / "raw", source.kind, open_source(source, folder), folder / "raw-shards")
    seconds = perf_counter() - start
    header = read_json(folder / "raw" / "source.json", "measure again")
    counts = {"text_bytes": header["bytes"], "documents": header["documents"], "shards": len(header["shards"])}
    return {**counts, "read_seconds": seconds}


def encode(settings: DataSettings, folder: Path, name: str = "encoded") -> Result:
    """Do the work of the stage `encode`: splits, tokens, the search for contamination, the manifest."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    splits = {"validation": SPLIT_FRACTION, "test": SPLIT_FRACTION}
    content = {"source": "text", "tokenizer": settings.tokenizer, "seq_len": SEQ_LEN, "splits": splits}
    dataset = TextDataset.model_validate(content)
    start = perf_counter()
    encode_text(folder / "raw", tokenizer, dataset, settings.seed, folder / name, folder / f"{name}-shards", {})
    seconds = perf_counter() - start
    counts = read_json(folder / name / "dataset.json", "measure again")["splits"].values()
    return {"tokens": sum(count["tokens"] for count in counts), "encode_seconds": seconds}


def load(settings: DataSettings, folder: Path) -> Result:
    """Read training batches from the memory-mapped shards: random windows of text, and images in random orders."""
    write_images(folder / "images", min(MAX_IMAGES, settings.size * IMAGES_PER_MEGABYTE), settings.seed)
    rows_per_second = []
    for name, batch in (("encoded", TEXT_BATCH), ("images", IMAGE_BATCH)):
        dataset = EncodedDataset.open(folder / name, "train")
        training_batch(dataset, settings.seed, 0, batch)
        start = perf_counter()
        for step in range(1, BATCHES + 1):
            training_batch(dataset, settings.seed, step, batch)
        rows_per_second.append(BATCHES * batch / (perf_counter() - start))
    windows, images = rows_per_second
    return {"training_tokens_per_second": windows * SEQ_LEN, "images_per_second": images}


def write_text(directory: Path, size: int, seed: int) -> int:
    """Write about `size` bytes of JSON lines into the files of a new folder; return their exact number.

    A file ends with the document that reaches its part.
    """
    directory.mkdir()
    random = np.random.default_rng(seed)
    singles = random.permutation(SYLLABLES).tolist()
    pairs = random.permutation([first + second for first, second in product(SYLLABLES, repeat=2)]).tolist()
    words = np.array([*singles, *pairs][:VOCABULARY], dtype=object)
    # Every word with every ending, and the probability of all entries up to each.
    spelled = np.add.outer(words, np.array([*ENDINGS], dtype=object)).ravel()
    below = np.cumsum(np.outer(1 / np.arange(1, VOCABULARY + 1), [*ENDINGS.values()]))
    written = 0
    for number in range(FILES):
        random = np.random.default_rng([seed, number])
        with (directory / f"text-{number}.jsonl").open("wb") as file:
            while file.tell() < size // FILES:
                count = int(random.lognormal(np.log(MEDIAN_WORDS), SIGMA)) + 1
                text = "".join(spelled[np.searchsorted(below, below[-1] * random.random(count))].tolist())
                file.write(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n")
            written += file.tell()
    return written


def write_images(directory: Path, count: int, seed: int) -> None:
    """Write an encoded dataset with only a training split, of images with 256 levels, to a new folder."""
    directory.mkdir()
    length = math.prod(IMAGE_SHAPE)
    images = np.random.default_rng(seed).integers(256, size=(count, length), dtype=np.uint8)
    np.save(directory / "train-00000.npy", images)
    header = DatasetHeader(
        modality="image",
        tokenizer="pixels",
        vocab_size=256,
        shape=IMAGE_SHAPE,
        seq_len=length,
        classes=0,
        splits={"train": {"images": count, "tokens": count * length}},
    )
    write_header(directory, header)
