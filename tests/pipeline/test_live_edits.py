"""A stage whose input is edited while it runs ends as stale, and the next run makes everything right.

The edits come at the worst moment: the stage has loaded and computed everything, but not put its first output in place.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.pipeline.conftest import RUN, WorkingCopy, pause_stages

pytestmark = pytest.mark.pipeline

ENGINES = (("snakemake",), ("dvc", "repro", "--keep-going"))
DOWNLOAD, FIT, ENCODE = "download@notes", "fit_tokenizer@docs_chars", "encode@docs_chars"
EVALUATE, SAMPLE = f"evaluate@{RUN}", f"sample@{RUN}"
OUTPUTS = {
    DOWNLOAD: "data/raw/notes",
    FIT: "data/tokenizers/docs_chars",
    ENCODE: "data/encoded/docs_chars",
    EVALUATE: f"evaluations/{RUN}.npy",
    SAMPLE: f"samples/{RUN}",
}
"""The first output that each stage puts in place."""
TEXT = "notes.txt"
MODEL = f"models/{RUN}/model.safetensors"
EVALUATE_CODE = "src/mdpipe/evaluation/likelihood.py"
FORMER, NEW = b"A text of before.\n", b"Another text.\n"


@pytest.fixture
def copy(uninterrupted: WorkingCopy, tmp_path: Path) -> Iterator[WorkingCopy]:
    """Yield a copy with one more source, a text file of the user, which is not downloaded yet."""
    copy = uninterrupted.twin(tmp_path)
    (copy.root / TEXT).write_bytes(FORMER)
    copy.edit_params("sources.notes", {"kind": "text", "path": TEXT})
    yield copy
    shutil.rmtree(copy.root)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine[0])
def test_edits_undone_after_the_stage_give_the_former_lock(copy, uninterrupted, engine):
    copy.forget(EVALUATE)
    edits = {DOWNLOAD: (TEXT,), EVALUATE: (MODEL, EVALUATE_CODE)}
    former = edit_while_running(copy, engine, edits)
    for name, content in former.items():
        copy.rewrite(name, content)
    copy.run(*engine, *edits)
    assert copy.is_up_to_date(*edits)
    assert have_run(copy, edits)
    assert locked(copy, EVALUATE) == locked(uninterrupted, EVALUATE)
    assert_downloaded(copy, FORMER)


@pytest.mark.parametrize("stage", [FIT, ENCODE, SAMPLE])
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine[0])
def test_edits_kept_after_the_stage_are_in_the_next_lock(copy, uninterrupted, engine, stage):
    copy.forget(stage)
    code_of_stage = f"src/mdpipe/stages/{stage.partition('@')[0]}.py"
    edits = {DOWNLOAD: (TEXT,), stage: (code_of_stage,)}
    edit_while_running(copy, engine, edits)
    copy.run(*engine, *edits)
    assert copy.is_up_to_date(*edits)
    assert have_run(copy, edits)
    assert_downloaded(copy, NEW)
    # The edited code only has one more line break, so all else is as before.
    expected = locked(uninterrupted, stage)
    (code,) = [dependency for dependency in expected["deps"] if dependency["path"] == code_of_stage]
    code |= digest_and_size(copy.root / code_of_stage)
    assert locked(copy, stage) == expected


def edit_while_running(
    copy: WorkingCopy, engine: tuple[str, ...], edits: dict[str, tuple[str, ...]]
) -> dict[str, bytes]:
    """Run stages, edit files of each while it runs, and check that it ends as stale; return the former contents."""
    with pause_stages(copy, [OUTPUTS[stage] for stage in edits]) as marks:
        former = {name: (copy.root / name).read_bytes() for names in edits.values() for name in names}
        process = copy.start(*engine, *edits)
        waiting = {marks[OUTPUTS[stage]]: names for stage, names in edits.items()}
        while waiting:
            assert process.poll() is None, "the engine ended before a stage was paused"
            for mark in [mark for mark in waiting if mark.exists()]:
                for name in waiting.pop(mark):
                    copy.rewrite(name, NEW if name == TEXT else former[name] + b"\n")
                mark.unlink()
            time.sleep(0.02)
        assert process.wait() != 0
    said = (copy.root.parent / "output.log").read_text().splitlines()
    for stage, names in edits.items():
        # Snakemake prints the reason of a failed stage again at its end.
        (stale,) = {line.strip().removeprefix(f"{stage} failed: ") for line in said if f"{stage} is stale: " in line}
        assert f"{', '.join(sorted(names))} changed while it ran" in stale
        assert stage not in yaml.safe_load(copy.lock())["stages"]
    assert have_run(copy, edits)
    return former


def have_run(copy: WorkingCopy, stages: Iterable[str]) -> bool:
    """Whether the commands of exactly these stages have run since the last call."""
    parts = [stage.partition("@") for stage in stages]
    return sorted(copy.stages_run()) == sorted(f"{name.replace('_', '-')} {item}" for name, _, item in parts)


def locked(copy: WorkingCopy, stage: str) -> dict:
    """Return what dvc.lock records of a stage."""
    return yaml.safe_load(copy.lock())["stages"][stage]


def assert_downloaded(copy: WorkingCopy, content: bytes) -> None:
    """The raw text is that of the file, and dvc.lock records this file."""
    (line,) = (copy.root / OUTPUTS[DOWNLOAD] / "documents-00000.jsonl").read_text().splitlines()
    assert json.loads(line)["text"].encode() == content
    (recorded,) = [dependency for dependency in locked(copy, DOWNLOAD)["deps"] if dependency["path"] == TEXT]
    assert recorded == {"path": TEXT, "hash": "md5", **digest_and_size(copy.root / TEXT)}
    assert (copy.root / TEXT).read_bytes() == content


def digest_and_size(path: Path) -> dict[str, str | int]:
    """Return what dvc.lock records of the content of a file."""
    content = path.read_bytes()
    return {"md5": hashlib.md5(content).hexdigest(), "size": len(content)}
