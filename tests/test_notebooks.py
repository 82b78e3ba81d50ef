"""Static checks of the notebooks: short, without definitions, with a question and checks, in short sentences."""

import ast
import json
import re

import pytest

from ebnerd_lib.pipeline.params import code_cells, read_defaults
from ebnerd_lib.pipeline.paths import ROOT, profile_stages, profiles

LONGEST_SENTENCE = 25
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def markdown(notebook) -> list[str]:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "markdown"]


def test_at_most_twenty_code_cells_without_definitions(notebook):
    code = code_cells(notebook)
    assert len(code) <= 20
    for cell in code:
        kinds = {type(node) for node in ast.walk(ast.parse(cell["source"]))}
        assert not {ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef} & kinds


def test_title_question_inputs_and_outputs_come_first(notebook):
    text = markdown(notebook)[0]
    assert text.startswith(f"# {notebook.stem[:2]} · ")
    assert "**Question.**" in text and "**In:**" in text and "**Out:**" in text


def test_a_notebook_opened_in_lab_runs_the_sample(notebook):
    assert read_defaults(notebook)["profile"] == "sample"


def test_what_the_prose_claims_is_checked_whatever_the_shell_says(notebook):
    nodes = [node for cell in code_cells(notebook) for node in ast.walk(ast.parse(cell["source"]))]
    assert any(isinstance(node, ast.Call) and ast.unparse(node.func) == "check" for node in nodes)
    assert not [node for node in nodes if isinstance(node, ast.Assert)], "PYTHONOPTIMIZE leaves these out"


def test_every_notebook_is_run_by_a_profile_but_the_search_and_what_needs_an_extra():
    stages = {stage.partition(".")[0] for profile in profiles() for stage in profile_stages(profile)}
    others = {"03_train_trees", "07_tune"}
    assert stages | others == {path.stem for path in NOTEBOOKS} and not stages & others


def sentences(markdown: str) -> list[str]:
    """The sentences of a cell: headings, formulas, tables and code are none, and each item of a list has its own."""
    text = re.sub(r"(?ms)^```.*?^```$|^#.*?$|^[>|].*?$", "", markdown)
    text = re.sub(r"`[^`]*`", "Code", re.sub(r"\]\([^)]*\)", "]", text))
    parts = re.split(r"\n\s*\n|\n(?=[-*] )", re.sub(r"\b(et al|e\.g|i\.e|vs)\.", r"\1", text))
    blocks = [" ".join(part.split()).removeprefix("- ") for part in parts]
    return [each for block in blocks for each in re.split(r"(?<=[.!?:])\**\s+(?=[^a-z\s])", block) if each]


def words(sentence: str) -> int:
    return sum(any(letter.isalpha() for letter in word) for word in sentence.split())


def test_sentences_are_short(notebook):
    found = [each for cell in markdown(notebook) for each in sentences(cell)]
    assert len(found) > 10
    assert [each for each in found if words(each) > LONGEST_SENTENCE] == []


def test_sentences_are_found_and_counted():
    assert sentences("# No\n\nOne `a b`, two. Three:\n\n- four\n- five") == ["One Code, two.", "Three:", "four", "five"]
    assert words("a [0.1, 0.2] long sentence = 3") == 3
