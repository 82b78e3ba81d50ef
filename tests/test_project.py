"""The project's own files: they agree with each other and say nothing about the machine they were written on."""

import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ebnerd_lib.pipeline.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = [
    Requirement(line.split("#")[0])
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if line.split("#")[0].strip()
]
DECLARED = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]


def tracked():
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def test_the_lock_has_exact_versions_and_none_of_torchs_cuda_packages():
    assert LOCK
    for entry in LOCK:
        assert [s.operator for s in entry.specifier] == ["=="], entry
        assert not re.match(r"nvidia-|cuda-|triton", entry.name), entry


@pytest.mark.parametrize("python", ["3.11.0", "3.12.0", "3.13.0"])
def test_the_lock_meets_the_declared_ranges_on_every_python(python):
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    environment = {"python_full_version": python, "python_version": python[:4]}
    locked = {canonicalize_name(e.name): e for e in LOCK if e.marker is None or e.marker.evaluate(environment)}
    for wanted in DECLARED:
        pinned = next(iter(locked[canonicalize_name(wanted.name)].specifier)).version
        assert wanted.specifier.contains(pinned), (wanted, pinned)


def test_conda_gives_python_make_and_pip_and_installs_the_lock():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert conda["channels"][0] == "conda-forge"
    *plain, by_pip = conda["dependencies"]
    assert by_pip == {"pip": ["-r requirements.lock"]}
    assert {"make", "pip"} < set(plain)
    assert SpecifierSet(next(e for e in plain if e.startswith("python")).removeprefix("python")) == SpecifierSet(
        PROJECT["requires-python"]
    )


def test_no_path_of_a_machine_and_no_registry_stands_in_the_repo():
    bad = re.compile(r"(^|[^\w.])/(root|work|farm)/\w|files\.pythonhosted|pypi\.org|extra-index-url|find-links")
    for path in tracked():
        if path.suffix in {".png", ".lock"} or path.name == "test_project.py":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not bad.search(line), f"{path.relative_to(ROOT)}:{number}: {line[:120]}"


def test_no_data_is_tracked():
    assert not [path for path in tracked() if path.suffix in {".parquet", ".npy", ".pt", ".html", ".zip"}]
    assert {p.name for p in tracked() if p.parent in (ROOT / "data", ROOT / "outputs")} == {"README.md"}


def test_make_explains_every_target_in_a_group():
    told = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    head, *groups = told.stdout.split("\n\n")[:-1]
    assert head.startswith("make TARGET") and not told.stderr
    assert [group.splitlines()[0] for group in groups] == ["Run", "Explore", "Data", "Check", "Maintain"]
    targets = [re.match(r"  ([a-z-]+) +\w", line) for group in groups for line in group.splitlines()[1:]]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY:")).split()[1:]
    assert all(targets) and sorted(target[1] for target in targets) == sorted(phony)


def test_every_make_target_that_a_document_names_exists():
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for path in (p for p in tracked() if p.suffix == ".md" and p.name != "CHANGELOG.md"):  # which names those that went
        text = path.read_text(encoding="utf-8")
        fenced = "\n".join(re.findall(r"(?ms)^```[^\n]*\n(.*?)^```$", text))
        named = set(re.findall(r"`make ([a-z][\w-]*)", text)) | set(re.findall(r"(?m)^make ([a-z][\w-]*)", fenced))
        assert named <= targets, (path.name, named - targets)
