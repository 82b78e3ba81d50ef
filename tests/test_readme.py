"""What the README says is so."""

import re

from ebnerd_lib.pipeline.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_results_name_a_tier_in_every_row():
    rows = re.findall(r"^\| .* \| (\w+) \| 0\.\d{4} \[0\.\d{4}, 0\.\d{4}\] \|", README, re.MULTILINE)
    assert len(rows) >= 5 and set(rows) <= {"ids", "content", "exposure", "clicks"}
