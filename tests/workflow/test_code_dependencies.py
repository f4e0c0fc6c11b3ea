"""dvc.yaml names all the code that a stage runs: what it imports, directly or through others, makes it stale."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

from mdpipe.params.networks import NetworkConfig
from mdpipe.params.registry import KindConfig

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
KIND = "${item.network.kind}"
INSTANCES = [
    (stage, kind)
    for stage, entry in sorted(STAGES.items())
    for kind in ([*NetworkConfig.kinds, *NetworkConfig.added_kinds()] if KIND in str(entry) else [None])
]
"""Stages, each with the kinds of a run's network if it depends on the file of that kind only."""

NO_INFLUENCE = (
    "mdpipe/params",
    "mdpipe/file_formats.py",
    "mdpipe/processes.py",
    "mdpipe/progress.py",
    "mdpipe/pipeline/paths.py",
    "mdpipe/pipeline/run_hash.py",
    "mdpipe/pipeline/provenance.py",
    "mdpipe/pipeline/preflight.py",
)
"""Params are watched by their values, and DVC watches the paths themselves.
By the format of a file a source is refused, and never read otherwise.
The memory that a process takes and its progress are logged, and never written to an artifact.
Run hashes name work folders, of which no trace is in an artifact. The provenance of a stage decides whether its
artifacts are recorded, and never what is in them. Preflight checks refuse and warn."""

BUILT = {
    "Network.build": "mdpipe/networks",
    "Objective.build": "mdpipe/diffusion/objectives",
    "Sampler.build": "mdpipe/diffusion/samplers",
    "Schedule.build": "mdpipe/diffusion/schedules",
}
"""Calls that load the file of a configuration's kind, and its package."""

PREFLIGHT = SOURCE / "mdpipe/pipeline/preflight.py"
"""Nor is what its checks import: they read the beginnings of a source's files by the code that downloads them."""


def has_code(file: Path) -> bool:
    """False for an `__init__.py` that is nothing but a docstring."""
    return [type(node) for node in ast.parse(file.read_text()).body] != [ast.Expr]


def module_file(name: str) -> Path | None:
    """The file of a module of the package; None for what is not a module."""
    path = SOURCE / name.replace(".", "/")
    if path.with_suffix(".py").exists():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").exists() else None


@cache
def syntax_tree(path: Path) -> tuple[ast.AST, ...]:
    """Return all nodes of a file, without those under `if TYPE_CHECKING`, which never runs."""
    nodes = tuple(ast.walk(ast.parse(path.read_text())))
    guards = (node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    only_for_types = {node for guard in guards for node in ast.walk(guard)}
    return tuple(node for node in nodes if node not in only_for_types)


def files_of(names: set[str]) -> set[Path]:
    """Return the files of those names that are modules of the package."""
    files = {module_file(name) for name in names if name.startswith("mdpipe.")}
    return {file for file in files if file is not None}


def imported_by_statement(path: Path) -> set[Path]:
    """Return the package's files that a file imports by `import` and `from`, in functions as well."""
    names: set[str] = set()
    for node in syntax_tree(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return files_of(names)


@cache
def imported(path: Path, kind: str | None = None) -> set[Path]:
    """Return the package's files that a file imports, also by name, for a run with a kind of network."""
    calls = (node for node in syntax_tree(path) if isinstance(node, ast.Call))
    return imported_by_statement(path) | files_of({name for call in calls for name in by_name(call, path, kind)})


def by_name(call: ast.Call, path: Path, kind: str | None) -> set[str]:
    """All modules of a package, where the call may load any of them by its name; of networks, that of the kind."""
    match ast.unparse(call.func), call.args:
        case "Network.build", _ if kind:
            return {f"mdpipe.networks.{kind}"}
        case name, _ if name in BUILT:
            folder = SOURCE / BUILT[name]
        case "import_module", [ast.JoinedStr([ast.FormattedValue(ast.Name("__name__")), *_])]:
            folder = path.parent
        case _:
            return set()
    return {".".join(file.relative_to(SOURCE).with_suffix("").parts) for file in folder.glob("*.py")}


def closure(stage: str, kind: str | None = None) -> set[Path]:
    """All files of the package that a stage needs, itself included, for a run with a kind of network."""
    found: set[Path] = set()
    waiting = [SOURCE / f"mdpipe/stages/{stage}.py"]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            waiting += imported(file, kind) if file != PREFLIGHT else ()
    return found


def code_of(stage: str, kind: str | None = None) -> list[str]:
    """The code that dvc.yaml names for a stage, relative to the package, for a run with a kind of network."""
    entry = STAGES[stage].get("do", STAGES[stage])
    named = [name.replace(KIND, kind or KIND) for name in entry["deps"] if name.startswith("src/")]
    return [name.removeprefix("src/mdpipe/") for name in named]


@pytest.mark.parametrize(("stage", "kind"), INSTANCES)
def test_every_imported_file_is_among_the_dependencies(stage, kind):
    declared = [SOURCE / "mdpipe" / name for name in code_of(stage, kind)]
    undeclared = {
        str(file.relative_to(SOURCE))
        for file in closure(stage, kind)
        if has_code(file) and not any(file.is_relative_to(place) for place in declared)
    }
    assert {name for name in undeclared if not name.startswith(NO_INFLUENCE)} == set()


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_a_stage_depends_on_no_package_that_it_does_not_import(stage):
    if stage == "resolve":
        pytest.skip("it imports kinds of a user, which may be there or not")
    kinds = [kind for other, kind in INSTANCES if other == stage]
    needed = set().union(*(closure(stage, kind) for kind in kinds))
    declared = [
        SOURCE / "mdpipe" / name for kind in kinds for name in code_of(stage, kind) if not name.endswith(".yaml")
    ]
    assert [place for place in declared if not any(file.is_relative_to(place) for file in needed)] == []


@pytest.mark.parametrize(("stage", "kind"), INSTANCES)
def test_every_code_dependency_exists(stage, kind):
    assert all((SOURCE / "mdpipe" / name).exists() for name in code_of(stage, kind))


@pytest.mark.parametrize("stage", ["train", "sample", "evaluate"])
def test_an_edit_of_a_network_leaves_runs_of_other_kinds_alone(stage):
    for kind in NetworkConfig.kinds:
        assert [other for other in NetworkConfig.kinds if f"networks/{other}.py" in code_of(stage, kind)] == [kind]
        assert "networks" not in code_of(stage, kind)


@pytest.mark.parametrize("stage", ["train", "sample", "evaluate", "compare_samplers"])
def test_an_edit_of_what_prepares_data_leaves_models_alone(stage):
    """A repaired source is read again, and only what comes out otherwise is trained on again."""
    preparing = {f"data/{package}" for package in ("sources", "raw.py", "splits.py", "parallel.py", "tokenize")}
    assert preparing <= {f"data/{place.name}" for place in (SOURCE / "mdpipe/data").iterdir()}
    assert not any(name in {"data", *preparing} for name in code_of(stage))


LAYERS = {
    "mdpipe": [
        {"file_formats", "messages", "options", "processes", "progress"},
        {"params"},
        {"data", "diffusion"},
        {"networks"},
        {"training", "evaluation"},
        {"reporting", "console"},
        {"pipeline"},
        {"stages", "benchmarks"},
        {"commands"},
        {"cli_bench"},
        {"cli"},
        {"__main__"},
    ],
    "mdpipe/data": [
        {"artifacts", "pixels"},
        {"dataset", "parallel", "raw", "tokenizers"},
        {"splits", "training_batches"},
        {"sources", "tokenize"},
    ],
}
"""The parts of a package, from the lowest layer up: each imports only what is in layers below its own."""


@pytest.mark.parametrize("package", LAYERS)
def test_imports_go_down_the_layers_of_a_package(package):
    """Kinds of networks, objectives and samplers are loaded by their names, and are no imports in this sense."""
    folder = SOURCE / package
    layer_of = {part: number for number, layer in enumerate(LAYERS[package]) for part in layer}
    layer_of["__init__"] = -1  # It has no code, and whoever imports a part of the package imports it.

    def part_of(file: Path) -> str:
        return file.relative_to(folder).parts[0].removesuffix(".py")

    upward = {
        f"{file.relative_to(SOURCE)} imports {other.relative_to(SOURCE)}"
        for file in folder.rglob("*.py")
        for other in imported_by_statement(file)
        if other.is_relative_to(folder) and part_of(other) != part_of(file)
        if layer_of[part_of(other)] >= layer_of[part_of(file)]
    }
    assert upward == set()


def test_networks_use_only_the_random_numbers_of_diffusion():
    used = set().union(*map(imported_by_statement, (SOURCE / "mdpipe/networks").glob("*.py")))
    folder = SOURCE / "mdpipe/diffusion"
    assert {file for file in used if file.is_relative_to(folder)} == {folder / "rng.py"}


def test_no_modules_import_each_other_in_a_circle():
    TopologicalSorter({file: imported_by_statement(file) for file in (SOURCE / "mdpipe").rglob("*.py")}).prepare()


def test_stages_are_those_of_dvc_yaml():
    """`claims` is a part of `report`."""
    modules = {file.stem for file in (SOURCE / "mdpipe/stages").glob("*.py")}
    assert modules - {"__init__", "claims"} == set(STAGES)


def test_an_edit_of_a_source_makes_only_downloads_stale():
    assert [stage for stage in STAGES if "data/sources" in code_of(stage)] == ["download"]


def test_only_resolve_watches_the_code_of_the_defaults():
    """Their values are watched instead, in the resolved params: else a new default would make every stage stale."""
    watching = {stage for stage in STAGES if any(name == "params" for name in code_of(stage))}
    assert watching == {"resolve"}


def test_resolve_watches_all_packages_with_kinds_of_users():
    packages = {family.package for family in KindConfig.__subclasses__() if family.package}
    folders = {name.replace("/", ".") for name in code_of("resolve")}
    assert packages
    assert all(any(f"{package}.".startswith(f"mdpipe.{folder}.") for folder in folders) for package in packages)
