"""`mdpipe clean` removes exactly what no params ask for, and lists it first."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.lock import LockError
from dvc.repo import Repo

from mdpipe.commands.upkeep import clean
from mdpipe.data.dataset import EncodedDataset
from mdpipe.data.sources.download import destination
from mdpipe.params import Params, parse_params
from mdpipe.pipeline import paths
from mdpipe.pipeline.run_hash import hash_encoding, hash_source, hash_training
from mdpipe.stages.resolve import write_replicates

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NOTHING = "nothing is left over: params.yaml asks for all that is here"


def smoke() -> Any:
    return yaml.safe_load((ROOT / "workflow/presets/smoke.yaml").read_text())


@pytest.fixture(scope="module")
def repository(trained_place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke suite in a repository of DVC, with everything in the places that dvc.yaml says."""
    folder = tmp_path_factory.mktemp("clean") / "suite"
    shutil.copytree(trained_place, folder, ignore=shutil.ignore_patterns(".mdpipe"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("dvc.yaml", "params.replicates.yaml"):
            shutil.copy(ROOT / name, name)
        Repo.init(no_scm=True)
        use(smoke(), make=True)
    return folder


@pytest.fixture
def suite(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The params of a copy of that repository, in which the test runs."""
    shutil.copytree(repository, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return parse_params(smoke())


def use(content: Any, *, make: bool = False) -> Params:
    """Take these as the params; `make` puts something wherever a stage writes and nothing is."""
    Path("params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    if make:
        stages = Repo().index.stages
        for out in (out for stage in stages for out in stage.outs):
            path = Path(out.def_path)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch() if path.suffix else path.mkdir()
        entries = {stage.addressing: {"cmd": stage.cmd} for stage in stages}
        Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": entries}))
        for stage in entries:
            for note in (f"logs/{stage}.log", f"benchmarks/{stage}.tsv", f".mdpipe/requests/{stage}"):
                Path(note).parent.mkdir(parents=True, exist_ok=True)
                Path(note).touch()
    return parse_params(content)


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*") if ".dvc" not in path.parts}


def entries() -> set[str]:
    return set(yaml.safe_load(Path("dvc.lock").read_text())["stages"])


def without_run(content: Any) -> None:
    """The GenMD4 run on pieces, whose name no other run's begins with."""
    del content["runs"]["subwords_genmd4"]
    del content["zero_shot"]["runs"]["subwords_genmd4"]


def without_dataset(content: Any) -> None:
    without_run(content)
    del content["datasets"]["docs_subwords"]


def without_source(content: Any) -> None:
    del content["sources"]["typer_docs"]
    content["zero_shot"] |= {"runs": {}, "sources": {}}


def without_comparison_of_samplers(content: Any) -> None:
    content["samplers"]["runs"] = {}


def test_what_params_ask_for_is_left_alone(suite):
    before = files()
    assert clean(suite, force=False) == NOTHING
    assert clean(suite, force=True) == NOTHING
    assert files() == before


@pytest.mark.parametrize(
    ("edit", "stages"),
    [
        (
            without_run,
            {
                "train@subwords_genmd4",
                "sample@subwords_genmd4",
                "evaluate@subwords_genmd4",
                "zero_shot@subwords_genmd4-typer_docs",
            },
        ),
        (
            without_dataset,
            {
                "train@subwords_genmd4",
                "sample@subwords_genmd4",
                "evaluate@subwords_genmd4",
                "zero_shot@subwords_genmd4-typer_docs",
            }
            | {"fit_tokenizer@docs_subwords", "encode@docs_subwords"},
        ),
        (
            without_source,
            {"download@typer_docs", "zero_shot@subwords_genmd4-typer_docs", "zero_shot@chars_md4-typer_docs"},
        ),
        (without_comparison_of_samplers, {"compare_samplers@chars_md4"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_exactly_the_outputs_of_removed_params_are_removed(
    suite: Params, edit: Callable[[Any], None], stages: set[str]
):
    made = {stage.addressing: {str(out.def_path) for out in stage.outs} for stage in Repo().index.stages}
    gone = {path for stage in stages for path in made[stage]}
    gone |= {note for stage in stages for note in (f"logs/{stage}.log", f"benchmarks/{stage}.tsv")}
    gone |= {f".mdpipe/requests/{stage}" for stage in stages}
    gone |= {f"logs/events/{stage.removeprefix('train@')}" for stage in stages if stage.startswith("train@")}
    content = smoke()
    edit(content)
    params, before, recorded = use(content), files(), entries()

    listed = clean(params, force=False)
    assert files() == before
    assert entries() == recorded
    assert {line.split()[-1] for line in listed.splitlines()[:-1]} == gone | stages
    assert listed.endswith("B that nothing needs any more; `mdpipe clean --force` removes it")

    clean(params, force=True)
    assert before - files() == {path for path in before if any(Path(path).is_relative_to(each) for each in gone)}
    assert recorded - entries() == stages
    assert clean(params, force=False) == NOTHING


def test_trainings_of_a_removed_seed_are_left_over(suite):
    content = smoke()
    content["runs"]["chars_md4"]["seeds"] = [0, 1]
    assert write_replicates(use(content))
    params = use(content, make=True)
    assert clean(params, force=False) == NOTHING
    listed = clean(use(smoke()), force=False)
    found = {line.split()[-1] for line in listed.splitlines()[:-1]}
    names = {"models/chars_md4-seed1", "records/zero_shot/chars_md4-seed1-typer_docs.json", "train@chars_md4-seed1"}
    assert names <= found
    assert all("chars_md4-seed1" in name for name in found)


def test_files_that_no_stage_writes_stay(suite):
    """A user's data may lie in the folders of the pipeline, and editors leave files there."""
    content = smoke()
    for path in (
        "data/raw/mine/a.txt",
        "data/novels/a.txt",
        "models/README.md",
        "models/notes.txt",
        "metrics/mine.json",
    ):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("mine")
    Path("logs/mine.log").touch()
    Path("evaluations/.gitkeep").touch()
    content["sources"]["mine"] = {"kind": "text", "path": "data/raw/mine", "pattern": "*", "sample_by": "document"}
    content["sources"]["mine"] |= {"decode_errors": "strict", "empty_documents": "error", "detokenizer": None}
    before = files()
    clean(use(content), force=True)
    assert before - files() == set()


def test_leftovers_of_a_kill_go_only_with_their_run(suite):
    for name in ("models/.gone.partial", "metrics/train/.gone.json.partial", "data/encoded/.gone.scratch"):
        Path(name).mkdir()
    Path("models/.chars_md4.partial").mkdir()
    clean(suite, force=True)
    assert not list(Path().rglob(".gone*"))
    assert Path("models/.chars_md4.partial").is_dir()


def test_checkpoints_of_the_current_params_stay_others_go(suite):
    dataset = EncodedDataset.open(paths.encoded("docs_chars"), "train")
    now = paths.checkpoint_dir("chars_md4", hash_training(suite, "chars_md4", dataset))
    earlier, abandoned = paths.checkpoint_dir("chars_md4", "0" * 16), paths.checkpoint_dir("gone", "0" * 16)
    busy, discarded = paths.checkpoint_dir("chars_ar", "1" * 16), paths.checkpoint_dir("chars_ar", "2" * 16)
    discarded = discarded.with_name(f"{discarded.name}.discarded")
    for folder in (now, earlier, abandoned, busy, discarded):
        folder.mkdir(parents=True)
        (folder / "lock").touch()
    with (busy / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        clean(suite, force=True)
    assert [folder.exists() for folder in (now, earlier, abandoned, busy, discarded)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_checkpoints_of_finished_runs_are_listed(suite, monkeypatch):
    """Finished: dvc.lock records the run's training with the present params, code and data."""
    dataset = EncodedDataset.open(paths.encoded("docs_chars"), "train")
    folder = paths.checkpoint_dir("chars_md4", hash_training(suite, "chars_md4", dataset))
    folder.mkdir(parents=True)
    assert str(folder) not in clean(suite, force=False)
    monkeypatch.setattr(Repo, "status", lambda self, targets: {} if targets == ["train@chars_md4"] else {"x": []})
    assert str(folder) in clean(suite, force=False)
    clean(suite, force=True)
    assert not folder.exists()


def test_checkpoints_stay_while_their_data_is_missing(suite):
    folder = paths.checkpoint_dir("chars_md4", "0" * 16)
    folder.mkdir(parents=True)
    shutil.rmtree(paths.encoded("docs_chars"))
    clean(suite, force=True)
    assert folder.exists()


def test_finished_shards_stay_if_their_stage_goes_on_from_them(suite):
    kept = [
        paths.work_dir("download", "digits", hash_source(suite, "digits")),
        paths.work_dir("encode", "digits", hash_encoding(suite, "digits")),
    ]
    gone = [paths.work_dir("download", "gone", "0" * 16), paths.work_dir("encode", "digits", "0" * 16)]
    for folder in (*kept, *gone):
        folder.mkdir(parents=True)
    clean(suite, force=True)
    assert [folder.exists() for folder in (*kept, *gone)] == [True, True, False, False]


def test_downloads_stay_as_long_as_a_source_has_their_address(suite):
    content = smoke()
    settings = {"kind": "url", "url": "http://localhost/a.txt", "sha256": None, "member": None, "columns": None}
    settings |= {"sample_by": "document", "decode_errors": "strict", "empty_documents": "error", "detokenizer": None}
    content["sources"]["mine"] = {**settings, "path": "constraints.txt"}
    Path("constraints.txt").touch()
    kept = destination("http://localhost/a.txt", paths.DOWNLOADS)
    gone = destination("http://localhost/b.txt", paths.DOWNLOADS)
    hub = paths.DOWNLOADS / "hub"
    hub.mkdir(parents=True)
    for file in (kept, gone):
        file.touch()
        Path(f"{file}.partial").touch()
        file.with_name(f".{file.name}.lock").touch()
    clean(use(content), force=True)
    assert len(list(paths.DOWNLOADS.iterdir())) == 4
    assert kept.exists()
    assert hub.exists()


def test_nothing_is_removed_while_an_engine_is_at_work(suite):
    content = smoke()
    without_run(content)
    params = use(content)
    before = files()
    paths.ENGINE_LOCK.write_text("process 7\n")
    with paths.ENGINE_LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"snakemake is running in this folder \(process 7\); wait"):
            clean(params, force=True)
        assert "models/subwords_genmd4" in clean(params, force=False)
    assert before <= files()


def test_a_lock_of_dvc_is_reported_in_one_line(suite, monkeypatch):
    def locked(*_, **__):
        raise LockError("Unable to acquire lock. Most likely another DVC process is running")

    monkeypatch.setattr("mdpipe.commands.upkeep.Repo", locked)
    with pytest.raises(ValueError, match=r"^DVC or snakemake is running in this folder; wait until it ends"):
        clean(suite, force=True)


def test_outside_of_a_repository_the_commands_say_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="not inside of a DVC repository"):
        clean(parse_params(smoke()), force=False)
