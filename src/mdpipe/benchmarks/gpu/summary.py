"""The results of all parts as Markdown."""

from collections.abc import Sequence
from typing import Any

from mdpipe.benchmarks.table import Columns, Result, hardware, markdown

Document = dict[str, Any]


def _format_number(result: Result, key: str, form: str) -> str:
    value = result.get(key)
    return "" if value is None else format(value, form)


def _describe_problem(result: Result) -> str:
    for key in ("error", "skipped", "not_deterministic"):
        if key in result:
            return f"{key.replace('_', ' ')}: {result[key]}".replace("|", "/").replace("\n", " ")[:160]
    return ""


def _describe_result(result: Result) -> str:
    if "skipped" in result:
        return "skipped"
    return "passed" if _is_passed(result) else "FAILED"


def _is_passed(result: Result) -> bool:
    """Return whether a check passed, with deterministic kernels: mdpipe stops where one is missing."""
    return bool(result.get("passed")) and "not_deterministic" not in result


CHECKS: Columns = {
    "check": lambda result: result["check"],
    "variant": lambda result: result["variant"],
    "result": _describe_result,
    "loss": lambda result: _format_difference(result, "loss"),
    "gradient": lambda result: _format_difference(result, "gradient"),
    "worst parameter": lambda result: _format_difference(result, "parameter"),
    "note": _describe_problem,
}
SPEED: Columns = {
    "network": lambda result: result["network"],
    "batch": lambda result: str(result["batch"]),
    "compiled": lambda result: "yes" if result["compiled"] else "no",
    "chunk": lambda result: f"{result['chunk_bytes'] / 2**20:,.3g} MiB" if "chunk_bytes" in result else "",
    "tokens/s": lambda result: _format_number(result, "tokens_per_second", ",.0f"),
    "examples/s": lambda result: _format_number(result, "examples_per_second", ",.4g"),
    "MFU, measured peak": lambda result: _format_number(result, "share_of_peak", ".1%"),
    "MFU, data sheet": lambda result: _format_number(result, "share_of_data_sheet_peak", ".1%"),
    "peak MiB": lambda result: _format_number(result, "memory_mib", ",.0f"),
    "first step s": lambda result: _format_number(result, "first_step_seconds", ",.1f"),
    "note": _describe_problem,
}
SAMPLERS: Columns = {
    "sampler": lambda result: result["sampler"],
    "batch": lambda result: str(result["batch"]),
    "tokens/s": lambda result: _format_number(result, "tokens_per_second", ",.4g"),
    "seconds": lambda result: _format_number(result, "seconds", ",.4g"),
    "network calls": lambda result: _format_number(result, "network_calls", ",.0f"),
    "MFU, measured peak": lambda result: _format_number(result, "share_of_peak", ".1%"),
    "peak MiB": lambda result: _format_number(result, "memory_mib", ",.0f"),
    "steps measured": lambda result: _format_number(result, "steps_measured", ","),
    "note": _describe_problem,
}
TRAINING: Columns = {
    "when": lambda result: result["what"],
    "bits per character, at most": lambda result: _format_number(result, "bits_per_character", ".4f"),
    "standard error": lambda result: _format_number(result, "stderr", ".4f"),
    "of the draws": lambda result: _format_number(result, "stderr_draws", ".4f"),
    "steps": lambda result: (
        _format_number(result, "steps", ",") + (", clock" if result.get("stopped_by_the_clock") else "")
    ),
    "epochs": lambda result: _format_number(result, "epochs", ".1f"),
    "tokens/s": lambda result: _format_number(result, "tokens_per_second", ",.0f"),
    "note": _describe_problem,
}
COLUMNS: dict[str, Columns] = {
    "correctness": CHECKS,
    "parallel": CHECKS,
    "speed": SPEED,
    "samplers": SAMPLERS,
    "training": TRAINING,
}
NOTES = {
    "correctness": "Relative differences from a CPU in float32 (tolerance): of the losses of three steps, of the first"
    " gradient, and of the parameter's gradient that differs most. Small networks, dropout on.",
    "parallel": "DDP and FSDP2 in a group of one process, against a CPU process without a group.",
    "speed": "The training step of `mdpipe train` on random tokens, by MD4 and AdamW. FLOP/s count the network's dense"
    " products, forward and backward, over all positions; the head runs at masked positions only, so the MFU credits"
    " what that saves. Memory is the most that tensors took (on a CPU, the process).",
    "samplers": "The plain ancestral sampler and two_stage were measured over a few steps and scaled to all, since all"
    " their steps cost the same. Kernels need not be deterministic.",
    "training": "The text is made of docstrings of Python's standard library in text8's alphabet. It is not text8:"
    " the bounds are not comparable with published ones.",
}


def summarize(documents: Sequence[Document]) -> str:
    """Return the page."""
    machine = next((document["machine"] for document in documents if "machine" in document), None)
    lines = ["# GPU run", ""]
    if any(document.get("tiny") for document in documents):
        lines += ["A rehearsal with tiny sizes: no figure below is a result.", ""]
    if machine is not None:
        gpu = f"CUDA {machine['cuda']}, GPU memory {machine['gpu_memory_gib']} GiB.\n" if "cuda" in machine else ""
        lines += [hardware(machine), gpu]
    lines += [markdown(documents, PARTS)]
    for document in documents:
        lines += [f"## {document['part'].capitalize()}", "", NOTES.get(document["part"], ""), ""]
        if document["results"] and document["part"] in COLUMNS:
            lines += [markdown(document["results"], COLUMNS[document["part"]])]
    return "\n".join(lines)


def find_failed_checks(document: Document) -> list[Result]:
    """Return the checks of a part that did not pass."""
    checks = [result for result in document["results"] if "check" in result]
    return [result for result in checks if "skipped" not in result and not _is_passed(result)]


PARTS: Columns = {
    "part": lambda document: document["part"],
    "status": lambda document: document["status"],
    "seconds": lambda document: f"{document['seconds']:.0f}",
    "failed checks": lambda document: str(len(find_failed_checks(document))),
    "note": lambda document: (document["error"] or "").replace("|", "/"),
}


def _format_difference(result: Result, key: str) -> str:
    return f"{result[key]:.1e} ({result[f'{key}_tolerance']:.0e})" if key in result else ""
