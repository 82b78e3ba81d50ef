"""Notebooks as scripts: each compiles, has its profile's parameters, and runs to the bytes of a batch run."""

import ast
import json
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ebnerd_lib.pipeline.config import load_config
from ebnerd_lib.pipeline.layout import ROOT, profile_stages


def exported(project: Path, profile: str) -> list[Path]:
    """Export where no program is on the path: nothing like pandoc is needed."""
    words = [sys.executable, "-m", "ebnerd_lib", "scripts", "--profile", profile]
    environment = {**os.environ, "PYTHONPATH": str(project), "PATH": str(project / "nothing")}
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return [project / name for name in done.stdout.split()]


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory):
    """A copy of a finished project with its scripts for the profile smoke."""
    root = tmp_path_factory.mktemp("scripts") / "p"
    for name in ("ebnerd_lib", "notebooks", "params", "templates", "data", "outputs"):
        shutil.copytree(finished / name, root / name, copy_function=shutil.copy2)
    (root / "outputs" / "scripts").mkdir()
    (root / "outputs" / "scripts" / "09_of_another_profile.py").touch()
    exported(root, "smoke")
    return root


def test_every_stage_of_the_profile_is_a_script_and_nothing_else_is(project):
    stages = profile_stages("smoke")
    assert sorted(file.name for file in (project / "outputs" / "scripts").iterdir()) == [f"{s}.py" for s in stages]


@pytest.mark.parametrize("stage", profile_stages("smoke"))
def test_a_script_compiles_and_has_the_parameters_of_its_profile(project, stage, tmp_path):
    file = project / "outputs" / "scripts" / f"{stage}.py"
    py_compile.compile(str(file), str(tmp_path / "compiled"), doraise=True)
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert "get_ipython" not in source and "In[" not in source
    values = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id not in values:
            values[node.targets[0].id] = ast.unparse(node.value)
    for name, value in {**load_config("smoke", stage).given, "profile": "smoke"}.items():
        assert ast.literal_eval(values[name]) == value, name
    title = "".join(json.loads((ROOT / "notebooks" / f"{stage}.ipynb").read_text())["cells"][0]["source"])
    assert f"# {title.splitlines()[0]}" in source, "prose stays, as comments"


def test_exporting_again_writes_the_same(project):
    folder = project / "outputs" / "scripts"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    exported(project, "smoke")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("stage", ["01_preprocess", "03_train_mlp"])
def test_a_script_runs_and_writes_the_bytes_of_a_batch_run(project, stage, finished):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MKL_CBWR")}
    words = [sys.executable, f"outputs/scripts/{stage}.py"]
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours, theirs = (root / "outputs" / "smoke" / "artifacts" / stage for root in (project, finished))
    manifest = json.loads((ours / "manifest.json").read_text())
    assert manifest["run"] == "interactive" and str(project) not in json.dumps(manifest)
    assert manifest["outputs"] == json.loads((theirs / "manifest.json").read_text())["outputs"]


def test_an_unknown_profile_is_refused_in_one_line():
    words = [sys.executable, "-m", "ebnerd_lib", "scripts", "--profile", "smok"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "params/smok: no such profile" in done.stderr and "Traceback" not in done.stderr
