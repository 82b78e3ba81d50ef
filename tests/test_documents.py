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
LONGEST_ANSWER = 6


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


def test_there_are_documents_with_links():
    names = set(map(name_of, DOCUMENTS))
    wanted = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/design.md", "docs/extending.md", "docs/faq.md"}
    assert wanted <= names and sum(len(links(document)) for document in DOCUMENTS) >= 20


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


def test_documents_name_most_verbs():
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    named = set(re.findall(r"-m ebnerd_lib ([a-z][\w-]*)", text))
    assert {"train", "sample", "unpack", "evaluate", "submit", "check-submission"} <= named


def test_every_question_has_an_answer_of_a_few_lines():
    text = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    parts = re.split(r"^(#{2,3}) (.*)\n", text, flags=re.MULTILINE)[1:]
    questions = [
        (title, body) for level, title, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True) if level == "###"
    ]
    assert len(questions) >= 20
    for title, body in questions:
        lines = [
            line for line in body.splitlines() if line.strip() and not line.startswith("|")
        ]  # tables may be longer
        assert 1 <= len(lines) <= LONGEST_ANSWER, title


def test_answers_name_values_and_files_that_exist():
    text = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:docs|ebnerd_lib|params|tests)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name
    declared = [*(ROOT / "notebooks").glob("*.ipynb"), ROOT / "ebnerd_lib" / "configs.py"]
    source = "\n".join(path.read_text(encoding="utf-8") for path in declared)
    for key, value in re.findall(r'`(\w+): "?(\w+)"?`', text):
        assert re.search(rf"\b{key}: \w.*\b{value}\b", source), f"{key}: {value}"


def test_the_citation_is_of_this_version_and_of_form_1_2_0():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert found["cff-version"] == "1.2.0" and found["type"] == "software" and found["message"]
    assert found["version"] == PROJECT["version"] and found["license"] == PROJECT["license"]
    assert found["authors"] == [{"name": "The ebnerd-lib contributors"}]
    for work in found["references"]:
        assert work["type"] == "conference-paper" and work["authors"][0]["family-names"] == "Kruse"
        assert re.fullmatch(r"10\.\d{4,9}/\S+", work["doi"]) and work["start"] < work["end"]


def test_the_newest_entry_of_the_changelog_is_of_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## \[([^\]]+)\](?: - (\d{4}-\d{2}-\d{2}))?$", text, re.MULTILINE)
    released = [version for version, day in entries if day]
    assert released and released[0] == PROJECT["version"] and all(day or name == "Unreleased" for name, day in entries)
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds and kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_results_of_the_readme_name_a_tier_in_every_row():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \| (\w+) \| 0\.\d{4} \[0\.\d{4}, 0\.\d{4}\] \|", text, re.MULTILINE)
    assert len(rows) >= 5 and set(rows) <= {"ids", "content", "exposure", "clicks"}
