"""Every figure of every report's tables stands in a metrics.json of the profile, times and parameters in a manifest."""

import json
import re

import pytest
from bs4 import BeautifulSoup

from ebnerd_lib.pipeline.paths import profile_stages

STAGES = profile_stages("smoke")
ONE = r"[-−+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?"
# A number; with its interval; or an interval alone. Labels such as "50–199" are no figures.
FIGURE = re.compile(rf"{ONE}|{ONE} \[{ONE}, {ONE}\]|\[{ONE}, {ONE}\]|\[(?:\d+, )*\d+\]")
RECORDED_IN_MANIFESTS = ("Effective parameters", "Provenance", "Stages read")


def leaves(content):
    """All numbers of a JSON value."""
    if isinstance(content, dict | list):
        for inner in content.values() if isinstance(content, dict) else content:
            yield from leaves(inner)
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield content


def tables(report):
    """Caption and the figures of each table of a report, as they are written."""
    page = BeautifulSoup(report.read_text(encoding="utf-8"), "html.parser")
    for frame in page.select("main figure.table"):
        cells = [cell.get_text().strip() for cell in frame.select("tbody td, tbody th")]
        told = [cell for cell in cells if FIGURE.fullmatch(cell)]
        caption = frame.select_one(".scroll")["aria-label"].partition(". ")[2]
        yield caption, [one for cell in told for one in re.findall(ONE, cell)]


def unknown(numbers, values):
    """The numbers that none of the values is when written as precisely."""
    signs = ((1, ""), (100, "%"))
    known = {f"{scale * one:.{digits}f}{sign}" for one in values for digits in range(8) for scale, sign in signs}
    plain = (number.replace(",", "").replace("−", "-").lstrip("+") for number in numbers)
    return [one for one in plain if one not in known and ("e" not in one or float(one) not in values)]


def sources(project, stage, file):
    """The numbers in the files of a stage and of the stages that it reads."""
    root = project / "outputs" / "smoke" / "artifacts"
    reads = json.loads((root / stage / "manifest.json").read_text())["reads"]
    return {value for each in [stage, *reads] for value in leaves(json.loads((root / each / file).read_text()))}


@pytest.mark.parametrize("stage", STAGES)
def test_every_figure_of_a_report_is_recorded(finished, stage):
    metrics, manifests = (sources(finished, stage, file) for file in ("metrics.json", "manifest.json"))
    found = 0
    for caption, numbers in tables(finished / "outputs" / "smoke" / "reports" / f"{stage}.html"):
        lost = unknown(numbers, metrics | manifests if caption.startswith(RECORDED_IN_MANIFESTS) else metrics)
        assert not lost, f"{caption}: {lost[:10]}"
        found += len(numbers)
    assert found > (10 if stage.endswith(".live") else 50)  # a model of what is live is evaluated in 04


def test_no_time_stands_in_the_metrics(finished):
    for stage in STAGES:
        text = (finished / "outputs" / "smoke" / "artifacts" / stage / "metrics.json").read_text()
        assert not re.search(r'"[^"]*(seconds|duration|memory)[^"]*":', text)
