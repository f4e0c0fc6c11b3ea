"""`mdpipe datasets`: the catalog as a table, or single entries with the lines of params.yaml that use them."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from rich.table import Table

from mdpipe.console import WIDTH, table_text
from mdpipe.params.catalog import CatalogEntry, find_entry, load_catalog

COLUMNS = {"name": 26, "modality": 8, "from": 34, "splits": 11, "license": 17, "counts": 19}
TOKENIZERS = {"text": "gpt2", "image": "pixels"}
OWN_TOKENIZERS = {"text8": "text8", "tiny_shakespeare": "bytes"}


def describe(names: Sequence[str] = ()) -> str:
    """Return a table of all data sets, or all details of the named ones."""
    if names:
        return "\n".join(_describe_entry(name) for name in names)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading, width in COLUMNS.items():
        table.add_column(heading, width=width, overflow="fold")
    for name, facts in load_catalog().items():
        splits = ", ".join(facts.splits) or "one text"
        table.add_row(name, facts.modality, _origin(facts), splits, facts.license, _format_counts(facts.counts))
    return f"{table_text(table)}\n`mdpipe datasets NAME` prints all details and the lines for params.yaml.\n"


def params_entry(name: str) -> str:
    """Return the entries of params.yaml for this data set, as YAML."""
    facts = find_entry(name)
    path = "constraints.txt" if facts.files is None else f"my/{name}"
    entries: dict[str, Any] = {"sources": {name: {"kind": "catalog", "name": name, "path": path}}}
    if facts.dataset is None:
        return f"{_yaml(entries)}# It is only evaluated: name it in zero_shot.sources.\n"
    tokenizer = OWN_TOKENIZERS.get(name, TOKENIZERS[facts.modality])
    return _yaml(entries | {"datasets": {name: {"source": name, "tokenizer": tokenizer, **facts.dataset}}})


def _describe_entry(name: str) -> str:
    facts = find_entry(name)
    counts = f"Counts: {_format_counts(facts.counts)}"
    details = [facts.citation, facts.home, f"License: {facts.license}", counts, facts.note, facts.files]
    wrap = textwrap.TextWrapper(WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    lines = [wrap.fill(line) for line in details if line]
    source, ready = (textwrap.indent(part, "    ") for part in (_yaml(facts.source), params_entry(name)))
    return "\n".join([f"{name}: {facts.title}", *lines, "  It means", source, "  In params.yaml", ready])


def _origin(facts: CatalogEntry) -> str:
    if facts.files is not None:
        return "files that you get yourself"
    return facts.source.get("url") or " ".join(filter(None, [facts.source["name"], facts.source.get("config")]))


def _format_counts(counts: Mapping[str, int] | None) -> str:
    return "unknown" if counts is None else ", ".join(f"{what} {number:,}" for what, number in counts.items())


def _yaml(data: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(data, sort_keys=False, width=WIDTH, default_flow_style=None))
