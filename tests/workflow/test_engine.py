"""What the main process of Snakemake does first, and what it says where it cannot."""

import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from workflow.engine import open_repo


def test_a_folder_that_git_does_not_know_says_to_run_git_init(tmp_path: Path) -> None:
    Repo.init(str(tmp_path), no_scm=True)
    (tmp_path / ".dvc/config").write_text("")  # As in an archive of the repository, which has git elsewhere.
    with pytest.raises(ValueError, match=r"is not a git repository, which DVC needs: run `git init` there"):
        open_repo(tmp_path)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert open_repo(tmp_path).root_dir == str(tmp_path)


def test_a_folder_without_dvcs_settings_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no folder \.dvc"):
        open_repo(tmp_path)
