"""Measurements of preparing data, side by side."""

from collections.abc import Sequence

from mdpipe.benchmarks.table import Columns, Result, hardware, markdown

SAME = {True: "yes", False: "NO", None: ""}

COLUMNS: Columns = {
    "tokenizer": lambda result: result["tokenizer"],
    "MB": lambda result: f"{result['size']:,}",
    "workers": lambda result: str(result["workers"]),
    "read MB/s (CPU)": lambda result: _speed(result, "read", "bytes"),
    "read MiB": lambda result: f"{result['read_peak_mib']:,.0f} / {result['read_peak_together_mib']:,.0f}",
    "encode MB/s (CPU)": lambda result: _speed(result, "encode", "text_bytes"),
    "tokens/s": lambda result: f"{result['tokens_per_second']:,.0f}",
    "encode MiB": lambda result: f"{result['encode_peak_mib']:,.0f} / {result['encode_peak_together_mib']:,.0f}",
    "after a kill": lambda result: _after_kill(result),
    "same bytes": lambda result: SAME[result["same_bytes"]],
    "training tokens/s": lambda result: f"{result['training_tokens_per_second']:,.0f}",
    "pictures/s": lambda result: f"{result['pictures_per_second']:,.0f}",
}


def compared(results: Sequence[Result]) -> list[Result]:
    """The results with `same_bytes`: whether whoever encoded this text with this tokenizer wrote the same files, a
    killed process included; None where only one did.
    """
    return [{**result, "same_bytes": _same([other for other in results if _like(other, result)])} for result in results]


def page(machine: Result, command: str, results: Sequence[Result]) -> str:
    """The table, and what it takes to judge and to repeat it."""
    first = results[0]
    return f"""# Speed of preparing data

    {command}

{hardware(machine)}
Made-up text as JSON lines in eight files, written at {first["write_mb_per_second"]:,.0f} MB/s: documents of \
log-normal length, 2 kB in the median, of words from a Zipf distribution over 50,000.

{markdown(results, COLUMNS)}
Read: the files to raw shards, as `download` does, in MB of JSON lines. Encode: raw shards to tokens, with the splits, \
the search for leaks and the manifest, in MB of text. In parentheses: MB for each second that some core worked on it, \
which is what it costs while others work on the machine too.
MiB: the largest resident set of any one process / the largest sum over all at once, sampled, where what they share \
counts for each.
After a kill: all processes were killed halfway through encoding; how many shards were then encoded and how many were \
searched for leaks, which was not done again, and the seconds that the second run took, beside those without a kill. \
Same bytes: whether all rows of one text and tokenizer, killed ones included, wrote the same files.
Training tokens/s: batches of 64 random windows of 1,024 tokens from the memory-mapped shards; pictures/s: batches of \
256 out of 50,000 pictures of 32 x 32 x 3. One process reads, and what it reads was written just before: no cold disk.
"""


def _speed(result: Result, step: str, what: str) -> str:
    a_cpu_second = result[what] / 1e6 / result[f"{step}_cpu_seconds"]
    return f"{result[f'{step}_mb_per_second']:,.1f} ({a_cpu_second:,.1f})"


def _after_kill(result: Result) -> str:
    if result["again_seconds"] is None:
        return ""
    kept = f"{result['shards_kept']} + {result['searches_kept']} of {result['shards']}"
    return f"{kept}, {result['again_seconds']:,.1f} / {result['encode_seconds']:,.1f} s"


def _like(one: Result, other: Result) -> bool:
    return all(one[key] == other[key] for key in ("size", "tokenizer", "path", "seed"))


def _same(results: Sequence[Result]) -> bool | None:
    written = [result[key] for result in results for key in ("sha256", "sha256_after_kill") if result[key] is not None]
    return len(set(written)) == 1 if len(written) > 1 else None
