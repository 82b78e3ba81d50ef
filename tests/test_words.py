"""Words are the field's, and sentences of notebooks are short."""

import json
import re

import pytest

from ebnerd_lib.pipeline.paths import ROOT

LONGEST_SENTENCE = 25
# Words that only this house used, where readers search for the field's.
AVOIDED = re.compile(
    r"(?<![.\w])(learn(s|t|ing)? on(?! (the|a|it|these)\b)|judge[sd]?|judging|mended|of late|told apart|strangers?"
    r"|dearer|less mlp)\b",
    re.IGNORECASE,
)
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
KINDS = ("README.md", "docs/*.md", "templates/**/*.j2", "ebnerd_lib/**/*.py", "notebooks/*.ipynb")
SHOWN = sorted(path for kind in KINDS for path in ROOT.glob(kind))


def cells(notebook, kind: str = "") -> list[str]:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if kind in cell["cell_type"]]


def sentences(markdown: str) -> list[str]:
    """The sentences of a cell: headings, formulas, tables and code are none, and each item of a list has its own."""
    text = re.sub(r"(?ms)^```.*?^```$|^#.*?$|^[>|].*?$", "", markdown)
    text = re.sub(r"`[^`]*`", "Code", re.sub(r"\]\([^)]*\)", "]", text))
    parts = re.split(r"\n\s*\n|\n(?=[-*] )", re.sub(r"\b(et al|e\.g|i\.e|vs)\.", r"\1", text))
    blocks = [" ".join(part.split()).removeprefix("- ") for part in parts]
    return [each for block in blocks for each in re.split(r"(?<=[.!?:])\**\s+(?=[^a-z\s])", block) if each]


def words(sentence: str) -> int:
    return sum(any(letter.isalpha() for letter in word) for word in sentence.split())


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_words_are_the_fields(path):
    text = "\n".join(cells(path)) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    assert [found[0] for found in AVOIDED.finditer(text)] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_sentences_of_notebooks_are_short(notebook):
    found = [each for cell in cells(notebook, "markdown") for each in sentences(cell)]
    assert len(found) > 10
    assert [each for each in found if words(each) > LONGEST_SENTENCE] == []


def test_sentences_are_found_and_counted():
    assert sentences("# No\n\nOne `a b`, two. Three:\n\n- four\n- five") == ["One Code, two.", "Three:", "four", "five"]
    assert words("a [0.1, 0.2] long sentence = 3") == 3
    assert AVOIDED.search("it learns on clicks") and not AVOIDED.search("it learned on the tuning day")
