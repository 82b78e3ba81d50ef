"""Readers search for the field's words: README, docs, notebooks and templates avoid some that only this house used."""

import json
import re

import pytest

from ebnerd_lib.pipeline.paths import ROOT

AVOIDED = re.compile(
    r"\b(learn(s|t|ing)? on(?! (the|a|it|these)\b)|judge[sd]?|judging|mended|of late|told apart|strangers?|dearer"
    r"|less mlp)\b",
    re.IGNORECASE,
)
TEXTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("templates/**/*.j2"))]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


@pytest.mark.parametrize("path", [*TEXTS, *NOTEBOOKS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_words_are_the_fields(path):
    text = path.read_text(encoding="utf-8")
    if path in NOTEBOOKS:
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    assert [found[0] for found in AVOIDED.finditer(text)] == []
