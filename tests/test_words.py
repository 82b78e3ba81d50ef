"""Words are the field's."""

import re

import pytest

from ebnerd_lib.pipeline.paths import ROOT

# Words that only this house used, where readers search for the field's.
AVOIDED = re.compile(
    r"(?<![.\w])(learn(s|t|ing)? on(?! (the|a|it|these)\b)|judge[sd]?|judging|mended|of late|told apart|strangers?"
    r"|dearer|less mlp)\b",
    re.IGNORECASE,
)
KINDS = ("README.md", "docs/*.md", "templates/**/*.j2", "ebnerd_lib/**/*.py", "notebooks/*.ipynb")
SHOWN = sorted(path for kind in KINDS for path in ROOT.glob(kind))


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_words_are_the_fields(path):
    text = path.read_text(encoding="utf-8").replace(r"\n", "\n")  # a line of a notebook ends so
    assert [found[0] for found in AVOIDED.finditer(text)] == []


def test_words_that_are_avoided_are_found():
    assert AVOIDED.search("it learns on clicks") and not AVOIDED.search("it learned on the tuning day")
