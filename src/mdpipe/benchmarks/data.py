"""Speed and memory of preparing data: from synthetic JSON lines to training batches.

Each step runs in a group of processes; this one starts them, samples their memory and hashes what they wrote.

Two numbers describe the memory of a step. `peak_mib` is the largest resident set of any single process, as the system
recorded it (ru_maxrss): what must fit in a core's share of the memory. `peak_together_mib` is the largest sum over all
processes seen when sampling ten times per second; pages that they share, of libraries and mapped files, count for each.

Files are read just after they were written, so mostly from the system's cache: these are speeds of the code, not of a
disk. The data are synthetic, and a function of the seed. Words follow Zipf's law, p(r) ~ 1 / r for the word of rank r =
1, ..., 50,000, and documents have log-normal lengths, as text on the web does roughly.
"""

import fileinput
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, ClassVar, cast

import numpy as np
import psutil

from mdpipe.benchmarks.runner import Benchmark, Result, run_alone
from mdpipe.data.artifacts.arrays import ArrayFile
from mdpipe.data.artifacts.files import check_disk_space, read_json
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
from mdpipe.reporting.markdown import Columns

MEGABYTE = 10**6
DISK_FACTOR = 5
"""Approximate bytes on disk per byte of text: JSON lines, raw shards, tokens, tokens after the kill, and images."""
SEQ_LEN = 1024
HELD_OUT = 0.005
"""Fraction of the documents for validation, and the same for testing."""
SENTENCEPIECE_VOCAB_SIZE, SENTENCEPIECE_DOCUMENTS = 4096, 1000
"""The tokenizer that is fitted, and the documents that it learns from, some three million characters."""
MAX_IMAGES, IMAGES_PER_MEGABYTE = 50_000, 5_000
"""Images that batches are read from: fewer with little text, where seconds would go into writing them."""
TEXT_BATCH, IMAGE_BATCH = 64, 256
BATCHES = 500
"""Batches read of each, after one that warms up."""
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
IMAGES_AT_ONCE = 1000


@dataclass(frozen=True)
class DataBenchmark(Benchmark):
    """An amount of text, a tokenizer and a number of processes.

    Raises:
        ValueError: a tokenizer that cannot be measured or has no files.
    """

    size: int
    """MB of text as JSON lines."""
    tokenizer: str
    workers: int
    """Processes that read and encode."""
    kill: bool
    """Also kill encoding halfway and run it again."""
    seed: int
    """Seed of the text, the splits and the batches."""
    path: str | None
    """The folder of GPT-2's files."""
    folder: str | None
    """Where everything is written and kept; None for a temporary folder."""

    title: ClassVar[str] = "{size} MB by {tokenizer} with {workers} workers"
    heading: ClassVar[str] = "Speed of preparing data"
    columns: ClassVar[Columns] = {
        "tokenizer": "{tokenizer}",
        "MB": "{size:,}",
        "workers": "{workers}",
        "read MB/s (CPU)": lambda result: _format_speed(result, "read", "bytes"),
        "read MiB": "{read_peak_mib:,.0f} / {read_peak_together_mib:,.0f}",
        "encode MB/s (CPU)": lambda result: _format_speed(result, "encode", "text_bytes"),
        "tokens/s": "{tokens_per_second:,.0f}",
        "encode MiB": "{encode_peak_mib:,.0f} / {encode_peak_together_mib:,.0f}",
        "after a kill": lambda result: _describe_kill(result),
        "same bytes": lambda result: {True: "yes", False: "NO", None: ""}[result["same_bytes"]],
        "training tokens/s": "{training_tokens_per_second:,.0f}",
        "pictures/s": "{pictures_per_second:,.0f}",
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {"tokenizer": ("bytes", "text8", "sentencepiece", "gpt2")}
    has_own_process: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokenizer == "gpt2" and self.path is None:
            raise ValueError("--tokenizer gpt2 needs --path, a folder with GPT-2's vocab.json and merges.txt")

    def measure(self) -> Result:
        """Write, read, encode and load batches; optionally encode once more with a kill halfway.

        Raises:
            ValueError: a step failed, or the folder exists.
        """
        with TemporaryDirectory(prefix="mdpipe-") as temporary:
            folder = Path(self.folder or temporary) / f"{self.tokenizer}-{self.size}-{self.workers}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError:  # Finished shards in it would be taken for this benchmark's.
                raise ValueError(f"{folder} exists; remove it") from None
            check_disk_space(folder, DISK_FACTOR * self.size * MEGABYTE, "measuring")
            written, read = self._run(write, folder), self._run(read_text, folder)
            encoded = self._run(encode, folder, "encoded")
            sha256 = hash_folder(folder / "encoded")
            killed = self._run_after_kill(folder, encoded) if self.kill else {}
            loaded = self._run(load, folder)
        steps = {"read": read, "encode": encoded}
        return {
            **{key: written[key] for key in ("bytes", "vocab_size")},
            **{key: read[key] for key in ("text_bytes", "documents", "shards")},
            "tokens": encoded["tokens"],
            "write_seconds": written["seconds"],
            "write_mb_per_second": written["bytes"] / MEGABYTE / written["seconds"],
            "read_mb_per_second": written["bytes"] / MEGABYTE / read["seconds"],
            "encode_mb_per_second": read["text_bytes"] / MEGABYTE / encoded["seconds"],
            **{
                f"{name}_{key}": step[key]
                for name, step in steps.items()
                for key in ("seconds", "cpu_seconds", "peak_mib", "peak_together_mib")
            },
            "tokens_per_second": encoded["tokens"] / encoded["seconds"],
            "sha256": sha256,
            **{key: killed.get(key) for key in ("shards_kept", "searches_kept", "again_seconds", "sha256_after_kill")},
            "training_tokens_per_second": loaded["tokens_per_second"],
            "pictures_per_second": loaded["images_per_second"],
        }

    @classmethod
    def compare(cls, results: Sequence[Result]) -> list[Result]:
        """Add `same_bytes`: True if all rows with this text and tokenizer, killed ones included, wrote the same files.

        It is None where nothing else encoded this text with this tokenizer.
        """
        return [{**result, "same_bytes": _is_same(result, results)} for result in results]

    @classmethod
    def describe(cls, first: Result, table: str) -> str:
        """Return the page's text."""
        return f"""\
Synthetic text as JSON lines in eight files, written at {first["write_mb_per_second"]:,.0f} MB/s: documents of \
log-normal length, 2 kB in the median, of words from a Zipf distribution over 50,000.

{table}
Read: the files to raw shards, as `download` does, in MB of JSON lines. Encode: raw shards to tokens, with the splits, \
the search for contamination and the manifest, in MB of text. In parentheses: MB per second of CPU time, which is the \
cost while others use the machine too.
MiB: the largest resident set of any one process / the largest sum over all at once, sampled, where shared pages count \
for each.
After a kill: all processes were killed halfway through encoding; how many shards were then encoded and how many were \
searched, which was not repeated, and the seconds that the second run took, next to those without a kill. \
Same bytes: all rows of one text and tokenizer, killed ones included, wrote the same files.
Training tokens/s: batches of 64 random windows of 1,024 tokens from the memory-mapped shards; pictures/s: batches of \
256 out of images of 32 x 32 x 3. One process reads files that were just written: no cold disk.
"""

    def _run(self, step: "Step", folder: Path, *name: str) -> Result:
        """Run a step and return its measurement, `peak_together_mib`, and the seconds that its process took."""
        start, sizes = perf_counter(), [0]
        try:
            measured = run_alone(measure_step, step, self, folder, *name, watch=lambda pid: sizes.append(_rss(pid)))
        except ValueError as error:
            raise ValueError(f"the step {step.__name__!r} failed: {error}") from error
        # The peak may have been between two samples.
        together = max(max(sizes) / MEBIBYTE, measured["peak_mib"])
        return {**measured, "peak_together_mib": together, "process_seconds": perf_counter() - start}

    def _run_after_kill(self, folder: Path, whole: Result) -> Result:
        """Encode, kill it after half of the time that `whole` took, and then encode to the end."""
        shards = folder / "again-shards"
        delay = whole["process_seconds"] - whole["seconds"] / 2
        with suppress(TimeoutError):
            while True:
                run_alone(measure_step, encode, self, folder, "again", limit=delay)
                rmtree(shards, ignore_errors=True)  # It was faster this time.
                delay /= 2
        kept = [len(list((shards / name).glob("[0-9]*"))) for name in ("tokens", "contamination")]
        again = self._run(encode, folder, "again")
        return {
            "shards_kept": kept[0],
            "searches_kept": kept[1],
            "again_seconds": again["seconds"],
            "sha256_after_kill": hash_folder(folder / "again"),
        }


Step = Callable[..., Result]
"""Called with the benchmark, its folder and perhaps a name in it."""


def measure_step(step: Step, settings: DataBenchmark, folder: Path, *name: str) -> Result:
    """Run a step in this process and add its CPU seconds and the largest resident set of one of its processes."""
    os.environ[WORKERS] = str(settings.workers)
    before = sum(os.times()[:4])  # User and system, of this process and its children that have ended.
    measured = step(settings, folder, *name)
    cpu_seconds = sum(os.times()[:4]) - before
    return {**measured, "cpu_seconds": cpu_seconds, "peak_mib": peak_rss_mib(include_children=True)}


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
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        found.update(f"{path.relative_to(directory).as_posix()} {content}\n".encode())
    return found.hexdigest()


def write(settings: DataBenchmark, folder: Path) -> Result:
    """Write the text as JSON lines, a pure function of size and seed; fit the tokenizer, which is not timed."""
    start = perf_counter()
    size = write_text(folder / "text", settings.size * MEGABYTE, settings.seed)
    seconds = perf_counter() - start
    own: dict[str, dict[str, Any]] = {
        "sentencepiece": {"vocab_size": SENTENCEPIECE_VOCAB_SIZE},
        "gpt2": {"path": settings.path},
    }
    config = TokenizerConfig.parse({"kind": settings.tokenizer, **own.get(settings.tokenizer, {})})
    tokenizer = build_tokenizer(cast("TextTokenizer", config), _first_texts(folder / "text"))
    (folder / "tokenizer").mkdir()
    tokenizer.save(folder / "tokenizer")
    return {"bytes": size, "seconds": seconds, "vocab_size": tokenizer.vocab_size}


def read_text(settings: DataBenchmark, folder: Path) -> Result:  # noqa: ARG001
    """Do the work of the stage `download` for local files."""
    source = JsonLinesSource(kind="jsonl", path=str(folder / "text"))
    start = perf_counter()
    write_shards(folder / "raw", source.kind, open_source(source, folder), folder / "raw-shards")
    seconds = perf_counter() - start
    header = read_json(folder / "raw" / "source.json", "measure again")
    counts = {"text_bytes": header["bytes"], "documents": header["documents"], "shards": len(header["shards"])}
    return {**counts, "seconds": seconds}


def encode(settings: DataBenchmark, folder: Path, name: str) -> Result:
    """Do the work of the stage `encode`: splits, tokens, the search for contamination, the manifest."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    splits = {"validation": HELD_OUT, "test": HELD_OUT}
    content = {"source": "text", "tokenizer": settings.tokenizer, "seq_len": SEQ_LEN, "splits": splits}
    dataset = TextDataset.model_validate(content)
    start = perf_counter()
    encode_text(folder / "raw", tokenizer, dataset, settings.seed, folder / name, folder / f"{name}-shards", {})
    seconds = perf_counter() - start
    counts = read_json(folder / name / "dataset.json", "measure again")["splits"].values()
    return {"tokens": sum(count["tokens"] for count in counts), "seconds": seconds}


def load(settings: DataBenchmark, folder: Path) -> Result:
    """Read training batches from the memory-mapped shards: random windows of text, and images in random orders."""
    write_images(folder / "images", min(MAX_IMAGES, settings.size * IMAGES_PER_MEGABYTE), settings.seed)
    windows, images = (
        _rows_per_second(EncodedDataset.open(folder / name, "train"), settings.seed, batch)
        for name, batch in (("encoded", TEXT_BATCH), ("images", IMAGE_BATCH))
    )
    return {"tokens_per_second": windows * SEQ_LEN, "images_per_second": images}


def _rows_per_second(dataset: EncodedDataset, seed: int, batch: int) -> float:
    training_batch(dataset, seed, 0, batch)
    start = perf_counter()
    for step in range(1, BATCHES + 1):
        training_batch(dataset, seed, step, batch)
    return BATCHES * batch / (perf_counter() - start)


def _first_texts(directory: Path) -> Iterator[str]:
    with fileinput.input(sorted(directory.iterdir()), encoding="utf-8") as lines:
        for line in islice(lines, SENTENCEPIECE_DOCUMENTS):
            yield json.loads(line)["text"]


def _format_speed(result: Result, step: str, what: str) -> str:
    per_cpu_second = result[what] / MEGABYTE / result[f"{step}_cpu_seconds"]
    return f"{result[f'{step}_mb_per_second']:,.1f} ({per_cpu_second:,.1f})"


def _describe_kill(result: Result) -> str:
    kept = f"{result['shards_kept']} + {result['searches_kept']} of {result['shards']}"
    return f"{kept}, {result['again_seconds']:,.1f} / {result['encode_seconds']:,.1f} s"


def _is_same(one: Result, results: Sequence[Result]) -> bool | None:
    comparable = [
        other for other in results if all(one[key] == other[key] for key in ("size", "tokenizer", "path", "seed"))
    ]
    hashes = [row[key] for row in comparable for key in ("sha256", "sha256_after_kill") if row[key] is not None]
    return len(set(hashes)) == 1 if len(hashes) > 1 else None


def write_text(directory: Path, size: int, seed: int) -> int:
    """Write about `size` bytes of JSON lines into the files of a new folder; return their exact number.

    A file ends with the document that reaches its share.
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
    random = np.random.default_rng(seed)
    length = int(np.prod(IMAGE_SHAPE))
    with ArrayFile(directory / "train-00000.npy", np.uint8, (length,)) as file:
        for _ in range(0, count, IMAGES_AT_ONCE):
            file.append(random.integers(256, size=(IMAGES_AT_ONCE, length), dtype=np.uint8))
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
