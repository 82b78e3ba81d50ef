"""The doctor on a sound project, and on projects that are broken in the ways that it looks for."""

import fcntl
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from runs import copy_of, python

from ebnerd_lib.pipeline import doctor, paths
from ebnerd_lib.pipeline.doctor import OK, WARN, WRONG, Finding

NUMPY = metadata.version("numpy")


@pytest.fixture
def project(tmp_path, smoke_bundle, monkeypatch) -> Path:
    """A project with the bundle of the profile smoke, to break."""
    root = tmp_path / "project"
    copy_of(paths.ROOT, root)
    shutil.copytree(smoke_bundle, root / "data" / "smoke")
    shutil.copy(paths.ROOT / "pyproject.toml", root)
    (root / "requirements.lock").write_text(f"numpy=={NUMPY}\n")
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setenv("PYTHON", sys.executable)  # an environment of one's own: `make` makes no .venv
    return root


def found(check: str, profile: str = "smoke") -> dict[str, Finding]:
    return {finding.name: finding for finding in getattr(doctor, f"check_{check}")(profile)}


def names(told: str) -> str:
    return " ".join(line[7:].split()[0] for line in told.splitlines() if line.startswith((OK, WARN, WRONG)))


def test_nothing_is_wrong_with_a_sound_project(project, capsys):
    assert doctor.doctor("smoke") == 0
    told = capsys.readouterr().out
    assert names(told) == "python packages imports torch memory disk disk parameters stages outputs/ locks data/smoke"
    assert f"{pq.read_metadata(project / 'data/smoke/train/behaviors.parquet').num_rows:,}" in told
    assert str(project) not in told


def test_a_missing_bundle_is_made_or_fetched_and_a_broken_one_stops_only_the_profile_that_reads_it(project):
    generated, fetched = found("data", "original")["data/sample"], found("data", "ebnerd_demo")["data/ebnerd_demo"]
    assert generated.state == OK and "make run-all PROFILE=sample" in generated.text
    assert fetched.state == WRONG and "make data BUNDLE=ebnerd_demo" in fetched.text
    (project / "data/smoke/validation/behaviors.parquet").write_bytes(b"PAR1")
    broken = found("data")["data/smoke"]
    assert broken.state == WRONG and "validation/behaviors.parquet" in broken.text
    assert found("data", "original")["data/smoke"].state == WARN


def test_parameters_that_do_not_fit_stop_a_run_and_a_check_that_raises_does_not(project, monkeypatch):
    (project / "params/smoke/03_train_mlp.yaml").write_text("epoch: 3\n")
    monkeypatch.setattr(doctor, "check_imports", lambda profile: 1 / 0)
    assert doctor.doctor("original") == 0 and doctor.doctor("smoke") == 1
    assert "03_train_mlp.yaml" in found("profile")["parameters"].text
    assert found("profile", "smok")["parameters"].state == WRONG


def test_packages_are_compared_with_the_lock_and_declared_ones_must_be_there(project, monkeypatch):
    lines = {"numpy==1.0.0": WARN, f"numpy=={NUMPY}+cpu": OK, "nowhere==1": WARN, "nowhere==1 ; os_name == 'x'": OK}
    for line, state in lines.items():
        (project / "requirements.lock").write_text(f"{line}\n")
        assert found("packages")["packages"].state == state, line
    declared = project / "pyproject.toml"
    declared.write_text(declared.read_text().replace('"numpy>=', '"nowhere-lib",\n    "numpy>='))
    assert found("packages")["packages"].state == WRONG
    monkeypatch.delenv("PYTHON")
    assert found("packages")["packages"].state == WARN, "make installs it"


@pytest.mark.parametrize("code", ["raise OSError('lib.so')", "import os; os.abort()"])
def test_a_package_that_cannot_be_loaded_stops_a_run(project, monkeypatch, code):
    (project / "broken.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(project))
    monkeypatch.setattr(doctor, "COMPILED", ("json", "broken", "torch"))
    finding = found("imports")["imports"]
    assert finding.state == WRONG and "broken" in finding.text


def test_a_held_lock_stops_its_profile_and_a_failed_stage_is_named(project):
    file = project / "outputs/smoke/logs/run.lock"
    file.parent.mkdir(parents=True)
    (project / "outputs/smoke/index.html").touch()
    assert found("outputs")["outputs/"].state == OK
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert found("outputs")["locks"].state == WRONG and found("outputs", "original")["locks"].state == OK
    assert found("outputs")["locks"].state == OK
    failure = file.parent / "03_train_mlp" / "failure.json"
    failure.parent.mkdir()
    failure.write_text('{"message": "x"}')
    finding = found("profile")["stages"]
    assert finding.state == WARN and "failed: 03_train_mlp" in finding.text


def test_a_python_without_packages_says_what_it_can_and_goes_on(project, monkeypatch):
    (project / "numpy.py").write_text("import nowhere")
    for code in (1, 0):  # an environment of one's own stays as it is, .venv is still to be made
        done = python(project, "-S", "-m", "ebnerd_lib", "doctor", "--profile", "smoke")
        assert done.returncode == code and not done.stderr, done.stderr + done.stdout
        assert names(done.stdout) == "python packages imports machine profile outputs/ locks data"
        monkeypatch.delenv("PYTHON", raising=False)
    assert done.stdout.count("→ there is no .venv yet") == done.stdout.count("Error: No module named")


def test_compiled_code_finds_a_place_where_neither_the_project_nor_a_home_can_be_written(tmp_path):
    """Files stand where folders would be made, as to root nothing is read-only."""
    copy_of(paths.ROOT, tmp_path)
    for module in tmp_path.glob("ebnerd_lib/*/__init__.py"):
        shutil.rmtree(module.with_name("__pycache__"), ignore_errors=True)
        module.with_name("__pycache__").touch()
    (tmp_path / "outputs").mkdir()
    code = "import os, numpy; from ebnerd_lib.data.vocabulary import Vocabulary as V; V(numpy.arange(9)).index_of([3])"
    code += "; print(os.environ['NUMBA_CACHE_DIR'])"
    done = python(tmp_path, "-c", code, HOME="/dev/null", XDG_CACHE_HOME="/dev/null")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == tmp_path / "outputs" and any(tmp_path.glob("outputs/.numba/**/*.nbi"))
