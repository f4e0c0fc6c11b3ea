"""Params to be planned, and the rows of their plan by stage."""

import re
from pathlib import Path
from typing import Any

import yaml

from mdpipe.commands.check import describe as checked
from mdpipe.commands.plan import Plan, Row
from mdpipe.params import Params, parse_params

ROOT = Path(__file__).parents[2]
FILES = {"smoke": ROOT / "workflow/presets/smoke.yaml", "params": ROOT / "params.yaml"}
STAGE = re.compile(r"[a-z_]+@[a-z0-9_-]+|report")
GPT2 = {"kind": "gpt2", "path": "openai-community/gpt2", "revision": None}


def smoke() -> dict[str, Any]:
    """The smoke preset as YAML has it, to be changed."""
    content: dict[str, Any] = yaml.safe_load(FILES["smoke"].read_text())
    return content


def with_source(source: dict[str, Any], **dataset: Any) -> dict[str, Any]:
    """The smoke preset with another source of text, and other settings of the dataset of its letters."""
    content = smoke()
    content["sources"]["pydantic_docs"] = source
    content["datasets"]["docs_chars"] |= dataset
    return content


def rows_of(params: Params | dict[str, Any]) -> dict[str, Row]:
    """The rows of a plan by stage."""
    checked_params = parse_params(params) if isinstance(params, dict) else params
    return {row.stage: row for row in Plan(checked_params).rows()}


def owt_small() -> dict[str, Any]:
    """GPT-2's shape on OpenWebText for a million steps."""
    content = smoke()
    content["sources"] = {"owt": {"kind": "catalog", "name": "openwebtext", "path": "constraints.txt"}}
    content["datasets"] = {
        "owt": {
            "source": "owt",
            "tokenizer": GPT2,
            "packing": "mdlm",
            "seq_len": 1024,
            "splits": {"validation": {"last_documents": 100_000}, "test": 0.001},
        }
    }
    run = content["runs"]["chars_md4"] | {"dataset": "owt"}
    run["network"] |= {"num_layers": 12, "num_heads": 12, "hidden_size": 768}
    run["train"] |= {"steps": 1_000_000, "batch_size": 512}
    content["runs"] = {"owt": run}
    del content["comparisons"], content["zero_shot"], content["samplers"], content["image_quality"]
    return content


def names_in_check(params: Params) -> list[str]:
    """The names that `mdpipe check` prints; those of one dataset or run stand together before a colon."""
    return [name for line in checked(params).splitlines() for name in STAGE.findall(line.partition(": ")[0])]
