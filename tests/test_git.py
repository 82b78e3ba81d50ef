"""`make setup-git` in a clone of its own: what running a notebook writes into it stays out of git."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from ipykernel.ipkernel import IPythonKernel

from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline.paths import ROOT

pytestmark = pytest.mark.slow

SOURCE = ROOT / "notebooks" / "04_recommend.ipynb"
NAME = "notebooks/04_recommend.ipynb"


def git(clone: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def set_up(clone: Path, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    words = ["make", "--no-print-directory", "setup-git", f"PYTHON={python}"]
    return subprocess.run(words, cwd=clone, capture_output=True, text=True)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with the project's notebooks and attributes, without a user's own configuration of git."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    root = tmp_path / "clone"
    root.mkdir()
    for name in ("Makefile", ".gitattributes", ".gitignore"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    git(root, "init", "--quiet")
    git(root, "config", "user.name", "a test")
    git(root, "config", "user.email", "test@localhost")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "Begin")
    return root


def run_by_hand(path: Path) -> None:
    """Write into a notebook what JupyterLab and papermill write when its first code cell is run."""
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("stream", text="an output that nobody wants in git")]
    cell.execution_count, cell.metadata["papermill"] = 1, {"duration": 1.5}
    notebook.metadata["language_info"] = IPythonKernel.language_info
    notebook.metadata["papermill"] = {"input_path": "x"}
    nbformat.write(notebook, path)


def test_what_running_writes_is_no_change_and_what_was_edited_is_added_without_it(clone):
    before = (clone / NAME).read_bytes()
    run_by_hand(clone / NAME)
    assert git(clone, "status", "--porcelain").split() == ["M", NAME], "without the filter it is one"
    assert set_up(clone).returncode == 0
    git(clone, "add", "--renormalize", ".")
    assert git(clone, "status", "--porcelain") == "", "nor is any notebook that is in git"
    assert git(clone, "show", f":{NAME}").encode() == before
    assert "an output" in (clone / NAME).read_text(), "the file itself is left as it is"
    notebook = nbformat.read(clone / NAME, as_version=4)
    notebook.cells[0].source += "\n\nAnother sentence."
    nbformat.write(notebook, clone / NAME)
    changed = [line for line in git(clone, "diff").splitlines() if re.match(r"[+-](?![+-])", line)]
    assert any("Another sentence." in line for line in changed) and len(changed) == 4, changed
    git(clone, "add", NAME)
    added, kept = (json.loads(text) for text in (git(clone, "show", f":{NAME}"), before))
    assert added["cells"][0].pop("source") != kept["cells"][0].pop("source") and added == kept


def test_setting_up_twice_is_setting_up_once_with_the_python_that_is_named_if_it_has_the_filter(clone):
    for name, options in (("env", ""), ("bare", "-S -I")):
        (clone / name).write_text(f'#!/bin/sh\nexec {sys.executable} {options} "$@"\n')
        (clone / name).chmod(0o755)
    before = (clone / ".git" / "config").read_text()
    done = set_up(clone, "./bare")
    assert done.returncode and "No module named nbstripout" in done.stderr
    outcomes = [(clone / ".git" / "config").read_text()]
    for python in (sys.executable, sys.executable, "./env"):
        done = set_up(clone, python)
        assert done.returncode == 0 and python in done.stdout, done.stderr
        outcomes.append((clone / ".git" / "config").read_text())
    assert outcomes[0] == before and outcomes[1] == outcomes[2]
    assert outcomes[3] == outcomes[1].replace(sys.executable, "./env"), "a path of the project stays one"


def test_a_project_in_the_repository_of_something_else_has_no_commit(clone, monkeypatch):
    for root, known in ((clone, True), (clone / "notebooks", False)):
        monkeypatch.setattr(paths, "ROOT", root)
        monkeypatch.setenv("GIT_DIR", str(clone / "nowhere"))
        assert (paths.environment()["git"]["commit"] is not None) == known
