"""The description of a machine, where the package is not installed and there is no git."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mdpipe
from mdpipe.benchmarks import runner


def test_a_checkout_without_installation_and_git_is_described(monkeypatch):
    monkeypatch.setattr(runner, "PACKAGES", ("no-such-package", "numpy"))
    monkeypatch.setenv("PATH", "")
    described = runner.describe_machine("cpu", threads=1)
    assert described["no-such-package"] is None and described["commit"] is None
    assert described["numpy"] and described["device"] == "cpu"


def test_a_commit_is_marked_if_code_has_changed_not_tables(tmp_path):
    package = tmp_path / "src/mdpipe"
    shutil.copytree(Path(mdpipe.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "results.csv").write_text("1\n")
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")
    for command in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "all")):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True).stdout.strip()

    def described() -> str:
        program = "from mdpipe.benchmarks.runner import describe_machine; print(describe_machine('cpu', 1)['commit'])"
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
        done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
        return done.stdout.strip()

    assert described() == commit
    (tmp_path / "results.csv").write_text("2\n")
    assert described() == commit
    with (package / "cli.py").open("a") as code:
        code.write("# changed\n")
    assert described() == f"{commit}-dirty"
