"""The description of a machine, where the package is not installed and there is no git."""

from mdpipe.benchmarks import runner


def test_a_checkout_without_installation_and_git_is_described(monkeypatch):
    monkeypatch.setattr(runner, "PACKAGES", ("no-such-package", "numpy"))
    monkeypatch.setenv("PATH", "")
    described = runner.describe_machine("cpu", threads=1)
    assert described["no-such-package"] is None and described["commit"] is None
    assert described["numpy"] and described["device"] == "cpu"
