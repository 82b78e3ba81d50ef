"""Documents point to what exists; their versions are those of the project."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from ebnerd_lib.__main__ import verbs
from ebnerd_lib.pipeline.paths import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md"), *ROOT.glob("outputs/*.md")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(document: Path) -> set[str]:
    """The sections of a document as a link names them."""
    heads = re.findall(
        r"^#+ (.*)$", re.sub(r"(?ms)^```.*?^```$", "", document.read_text(encoding="utf-8")), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def links(document: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_to_a_file_and_a_section(document):
    for link in links(document):
        if link.startswith("https://"):
            continue
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
