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


def test_a_notebook_that_was_merely_run_is_no_change_and_those_in_git_stay_as_they_are(clone):
    before = (clone / NAME).read_bytes()
    run_by_hand(clone / NAME)
    written = json.loads((clone / NAME).read_text())
    assert written["metadata"]["language_info"]["version"] and "an output" in (clone / NAME).read_text()
    assert git(clone, "status", "--porcelain").split() == ["M", NAME], "without the filter it is one"
    assert set_up(clone).returncode == 0
    git(clone, "add", "--renormalize", ".")
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "show", f":{NAME}").encode() == before
    assert "an output" in (clone / NAME).read_text(), "the file itself is left as it is"


def test_what_was_edited_is_added_without_outputs_and_keeps_its_ids(clone):
    assert set_up(clone).returncode == 0
    run_by_hand(clone / NAME)
    notebook = nbformat.read(clone / NAME, as_version=4)
    notebook.cells[0].source += "\n\nAnother sentence."
    nbformat.write(notebook, clone / NAME)
    shown = git(clone, "diff")
    changed = [line for line in shown.splitlines() if re.match(r"[+-](?![+-])", line)]
    assert any("Another sentence." in line for line in changed) and len(changed) == 4, changed
    git(clone, "add", NAME)
    staged = json.loads(git(clone, "show", f":{NAME}"))
    assert [cell["id"] for cell in staged["cells"]] == [cell["id"] for cell in notebook.cells]
    for cell in staged["cells"]:
        assert set(cell["metadata"]) <= {"tags"}
        assert cell["cell_type"] != "code" or (cell["outputs"] == [] and cell["execution_count"] is None)
    assert staged["metadata"]["language_info"] == {"name": "python"}
    assert set(staged["metadata"]) == {"kernelspec", "language_info"}
    assert len(git(clone, "diff", "--cached", "--numstat").split()) == 3


def test_setting_up_twice_is_setting_up_once_and_respects_another_python(clone):
    other = clone / "env" / "python"
    other.parent.mkdir()
    other.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    outcomes = []
    for python in (sys.executable, sys.executable, "env/python"):
        done = set_up(clone, python)
        assert done.returncode == 0 and python in done.stdout, done.stderr
        outcomes.append((clone / ".git" / "config").read_text())
    assert outcomes[0] == outcomes[1]
    assert outcomes[2] == outcomes[0].replace(sys.executable, "env/python"), "a path of the project stays one"
    assert git(clone, "config", "--get-all", "filter.nbstripout.required").split() == ["false"]


def test_a_python_without_the_filter_is_refused_and_nothing_is_set(clone):
    (clone / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')
    (clone / "python").chmod(0o755)
    before = (clone / ".git" / "config").read_text()
    done = set_up(clone, "./python")
    assert done.returncode and "No module named nbstripout" in done.stderr
    assert (clone / ".git" / "config").read_text() == before


def test_a_project_in_the_repository_of_something_else_has_no_commit(clone, monkeypatch):
    for root, known in ((clone, True), (clone / "notebooks", False)):
        monkeypatch.setattr(paths, "ROOT", root)
        monkeypatch.setenv("GIT_DIR", str(clone / "nowhere"))
        assert (paths.environment()["git"]["commit"] is not None) == known
