"""The examples in docs/extending.md, run as they stand in a copy of the project."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from bs4 import BeautifulSoup
from runs import copy_of, metrics, python

from ebnerd_lib.pipeline.paths import DETERMINISM, ROOT

pytestmark = pytest.mark.slow

TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
LONGEST = 40
"""Lines of code that an example may take, its test and parameters included."""
BLOCK = re.compile(
    r"^(?:(?P<how>Append to|New file) `(?P<path>[^`]+)`[^\n]*:\n\n)?```(?P<kind>[^\n]+)\n(?P<code>.*?)^```$",
    re.M | re.S,
)


def blocks(heading: str) -> list[re.Match]:
    """The blocks under a heading, down to the next one of any level; the top's under ``#``."""
    sections = re.split(r"^(#+ .*)\n", TEXT, flags=re.M)
    (place,) = [i for i, text in enumerate(sections) if re.fullmatch(rf"#+ {re.escape(heading)}", text)]
    return list(BLOCK.finditer(sections[place + 1]))


TOP, FEATURE, LEAK, MODEL, EXPERIMENT, METRIC = map(
    blocks,
    (
        "Adding a feature, a model, an experiment, a metric", "A feature", "Does it look at the future?", "A model",
        "An experiment", "A metric",
    ),
)  # fmt: skip


def copy_of_the_project(folder: Path) -> Path:
    copy_of(ROOT, folder)
    (folder / "tests").mkdir()
    for name in ("tests/conftest.py", "tests/oracle.py", "tests/runs.py", "tests/test_features.py", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder / name)
    return folder


def put(project: Path, some: list[re.Match]) -> None:
    for block in some:
        if block["path"] is not None:
            file = project / block["path"]
            assert file.exists() == (block["how"] == "Append to"), block["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            before = file.read_text(encoding="utf-8") + "\n\n" if file.exists() else ""
            file.write_text(before + block["code"], encoding="utf-8")


def call(project: Path, line: str) -> subprocess.CompletedProcess[str]:
    return python(project, *shlex.split(line.removeprefix("python ")), **DETERMINISM)


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Path:
    """A copy with all examples in it, in which every command of the text has run, each once."""
    project = copy_of_the_project(tmp_path_factory.mktemp("extended") / "a")
    every = [*TOP, *FEATURE, *MODEL, *EXPERIMENT, *METRIC]
    put(project, every)
    lines = dict.fromkeys(line for block in every if block["kind"] == "sh" for line in block["code"].splitlines())
    assert len(lines) == 6, "the bundle, a test for each example, the tests of all features, and one run"
    for line in sorted(lines, key=lambda line: "run --profile" in line):
        done = call(project, line)
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        if "pytest" in line:
            assert re.search(r"\d+ passed", done.stdout), line
    return project


def report(project: Path, stage: str) -> str:
    """The text of a report."""
    page = (project / "outputs/mine/reports" / f"{stage}.html").read_text(encoding="utf-8")
    return BeautifulSoup(page, "html.parser").get_text(" ", strip=True)


@pytest.mark.parametrize("example", [FEATURE, MODEL, METRIC], ids=["feature", "model", "metric"])
def test_an_example_is_short_and_touches_one_module(example):
    lines = [line for block in example if block["path"] for line in block["code"].splitlines() if line.strip()]
    assert 10 < len(lines) < LONGEST
    paths = [block["path"] for block in example if block["path"]]
    folders = [path.partition("/")[0] for path in paths if not path.startswith("params/")]
    assert sorted(folders) == ["ebnerd_lib", "tests"]


def test_every_block_of_the_text_is_used():
    assert TEXT.count("\n```") == 2 * len([*TOP, *FEATURE, *LEAK, *MODEL, *EXPERIMENT, *METRIC])


def test_the_feature_has_a_column_and_stands_in_the_report(extended):
    folder = extended / "outputs/mine/artifacts/01_preprocess"
    names = [column["name"] for column in json.loads((folder / "features.json").read_text(encoding="utf-8"))]
    stored = np.load(folder / "features_validation.npy", mmap_mode="r")
    assert stored.shape[1] == len(names)
    column = stored[:, names.index("hours_since_inview")]
    assert np.nanmin(column) >= 0 and 0.5 < (~np.isnan(column)).mean() < 1
    assert "hours_since_inview exposure" in report(extended, "01_preprocess")


@pytest.mark.parametrize(("name", "tier"), [("linear", "clicks"), ("linear_content", "content")])
def test_the_model_and_the_experiment_are_trained_and_stand_in_report_and_index(extended, name, tier):
    stage = f"03_train_news.{name}"
    folder = extended / "outputs/mine/artifacts" / stage
    models = metrics(extended, stage, "mine")["models"]
    assert {name: entry["tier"] for name, entry in models.items()} == {name: tier}
    chance = metrics(extended, "01_preprocess", "mine")["baselines"]["random"]["validation"]["auc"]
    assert models[name]["validation"]["auc"] > chance, "it has learnt something"
    assert (folder / f"model_{name}.pt").exists() and (folder / f"tuning_{name}.parquet").exists()
    assert pq.read_metadata(folder / f"scores_{name}.parquet").num_rows > 1000
    assert name in (extended / "outputs/mine/index.html").read_text(encoding="utf-8")
    assert report(extended, stage).count(f" {name} ") >= 2, "validation and tuning day"


@pytest.mark.parametrize("stage", ["01_preprocess", "03_train_news.linear"])
def test_the_metric_is_in_every_entry_with_its_interval_and_in_the_results_table(extended, stage):
    found = metrics(extended, stage, "mine")
    page = report(extended, stage)
    assert "hit@1" in page
    for entry in (found.get("models") or found["baselines"]).values():
        for part in ("validation", "tuning"):
            low, high = entry[part]["hit@1_ci"]
            assert 0 < low < entry[part]["hit@1"] < high < 1
        assert f"{entry['validation']['hit@1']:.4f}" in page


def test_a_feature_that_looks_at_the_future_is_caught_by_name(tmp_path):
    project = copy_of_the_project(tmp_path / "leaky")
    put(project, LEAK)
    (block,) = [block for block in LEAK if block["kind"].startswith("sh")]
    name = block["kind"].removeprefix("sh fails: ")
    done = call(project, block["code"].strip())
    assert done.returncode == 1 and "1 failed" in done.stdout
    assert re.search(rf"AssertionError[^$]*\b{name}\b", done.stdout), done.stdout[-2000:]
