"""Static checks of the notebooks: short, without definitions, with a question and checks; `make lint` sees outputs."""

import ast
import json

import pytest

from ebnerd_lib.pipeline.params import code_cells, read_defaults
from ebnerd_lib.pipeline.paths import ROOT, profile_stages, profiles

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def cells(notebook):
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def test_at_most_twenty_code_cells_without_definitions(notebook):
    code = code_cells(notebook)
    assert len(code) <= 20
    for cell in code:
        kinds = {type(node) for node in ast.walk(ast.parse(cell["source"]))}
        assert not {ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef} & kinds


def test_title_question_inputs_and_outputs_come_first(notebook):
    first = cells(notebook)[0]
    text = "".join(first["source"])
    assert first["cell_type"] == "markdown" and text.startswith(f"# {notebook.stem[:2]} · ")
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
