"""The project's own files: they agree with each other and say nothing about the machine they were written on."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ebnerd_lib.__main__ import verbs
from ebnerd_lib.pipeline.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = re.findall(r"(?m)^[^#\n]+", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
LOCK = [Requirement(line) for line in PINS]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md"), *ROOT.glob("outputs/*.md")])
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DECLARED = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]


def tracked():
    names = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
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
    *plain, by_pip = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    python = next(each for each in plain if each.startswith("python"))
    assert by_pip == {"pip": ["-r requirements.lock"]} and {"make", "pip"} < set(plain)
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(PROJECT["requires-python"])


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
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        fenced = "\n".join(re.findall(r"(?ms)^```[^\n]*\n(.*?)^```$", text))
        named = set(re.findall(r"`make ([a-z][\w-]*)", text)) | set(re.findall(r"(?m)^make ([a-z][\w-]*)", fenced))
        assert named <= targets or path.name == "CHANGELOG.md", (path.name, named - targets)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(document: Path) -> set[str]:
    """The sections of a document as a link names them."""
    text = re.sub(r"(?ms)^```.*?^```$", "", document.read_text(encoding="utf-8"))
    heads = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("document", DOCUMENTS + NOTEBOOKS, ids=name_of)
def test_every_link_leads_to_a_file_and_a_section(document):
    for link in re.findall(r"\]\((?!https://)([^)\s]+)\)", document.read_text(encoding="utf-8")):
        name, _, section = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists() and target.is_relative_to(ROOT), link
        assert not section or section in anchors(target), f"{link}: sections are {sorted(anchors(target))}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_verb_and_option_that_a_document_names_exists(document):
    known = verbs.commands
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    for verb, rest in re.findall(r"-m ebnerd_lib ([a-z][\w-]*)([^`\n#]*)", text):
        assert verb in known, f"there is no verb {verb}: {', '.join(known)}"
        options = {name for option in known[verb].params for name in option.opts}
        named = set(re.findall(r"(?<!\S)--[a-z][\w-]*", rest))
        assert named <= options, f"{verb} has no {named - options}"
    assert "python -m ebnerd_lib" not in text or ".venv/bin/python" in text or document.name == "CHANGELOG.md"


def test_citation_and_changelog_are_of_this_version():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (found["version"], found["license"]) == (PROJECT["version"], PROJECT["license"])
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"(?m)^## \[([\d.]+)\] - \d{4}-\d{2}-\d{2}$", changes)[1] == PROJECT["version"]


def test_the_results_of_the_readme_name_a_tier_in_every_row():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \| (\w+) \| 0\.\d{4} \[0\.\d{4}, 0\.\d{4}\] \|", text, re.MULTILINE)
    assert len(rows) >= 5 and set(rows) <= {"ids", "content", "exposure", "clicks"}
