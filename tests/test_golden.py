"""Headline figures kept in git: those of smoke always, those of sample where they were made with this code."""

import json
import shutil
import subprocess
import sys

import pytest

from ebnerd_lib.errors import EbnerdError
from ebnerd_lib.pipeline.golden import TOLERANCES, differences, figures, golden_file, require_fresh
from ebnerd_lib.pipeline.layout import ROOT, StagePaths


def kept(profile):
    return json.loads(golden_file(profile).read_text(encoding="utf-8"))


def test_smoke_has_the_figures_that_are_kept(finished):
    found = figures(finished / "outputs" / "smoke" / "artifacts")
    assert differences(kept("smoke"), found) == []
    assert len(found["measured"]) > 300 and len(found["trained"]) > 40


def test_sample_has_the_figures_that_are_kept():
    try:
        require_fresh("sample")
    except EbnerdError as error:
        pytest.skip(f"needs `make run-all` with this code: {error}")
    assert differences(kept("sample"), figures(StagePaths("sample", "").outputs / "artifacts")) == []


@pytest.mark.parametrize("profile", ["smoke", "sample"])
def test_figures_are_kept_of_counts_features_baselines_and_models(profile):
    own = kept(profile)
    assert set(own) == set(TOLERANCES)
    assert {name.split("/")[0] for name in own["measured"]} >= {"counts", "features", "random", "newest", "popularity"}
    assert {name.split("/")[0] for name in own["trained"]} >= {"mf_ids", "mf_features", "mlp"}
    assert 0.5 < own["trained"]["mlp/validation/auc"] < 1


@pytest.mark.parametrize("kind, name", [("measured", "clicks_24h/validation/auc"), ("trained", "mlp/validation/auc")])
def test_a_figure_outside_its_tolerance_is_told(kind, name):
    own, moved = kept("smoke"), kept("smoke")
    moved[kind][name] += 0.9 * TOLERANCES[kind]
    assert differences(own, moved) == []
    moved[kind][name] = own[kind][name] - 1.1 * TOLERANCES[kind]
    (line,) = differences(own, moved)
    assert line.startswith(f"{name}: ") and f"{TOLERANCES[kind]:g} allowed" in line


def test_large_figures_may_move_by_a_share():
    own = {"measured": {"counts/candidates": 5e6}, "trained": {}}
    assert differences(own, {"measured": {"counts/candidates": 5e6 + 4}, "trained": {}}) == []
    assert len(differences(own, {"measured": {"counts/candidates": 5e6 + 6}, "trained": {}})) == 1


def test_figures_that_come_or_go_and_those_that_are_no_number_are_told():
    own = {"measured": {"a": 1.0, "b": 2.0}, "trained": {"c": 0.5}}
    found = {"measured": {"a": 1.0, "d": 2.0}, "trained": {"c": float("nan")}}
    assert [line.split(",")[0] for line in differences(own, found)] == ["b: not found", "d: not kept", "c: nan"]


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project, for a test to change; artifacts keep their times."""
    shutil.copytree(finished, tmp_path / "p", copy_function=shutil.copy2)
    return tmp_path / "p"


def golden(project, *more):
    words = [sys.executable, "-m", "ebnerd_lib", "golden", "--profile", "smoke", *more]
    return subprocess.run(words, cwd=project, capture_output=True, text=True, env={"PYTHONPATH": str(project)})


def test_figures_are_kept_on_purpose_and_compared(project):
    file = project / "tests" / "golden" / "smoke.json"
    missing = golden(project)
    assert missing.returncode == 1 and "Keep them with `make golden PROFILE=smoke RENEW=1`" in missing.stderr
    assert golden(project, "--renew").returncode == 0
    assert json.loads(file.read_text()).keys() == TOLERANCES.keys()
    same = golden(project)
    assert same.returncode == 0 and same.stdout.endswith("figures, 0 differ\n")
    file.write_text(file.read_text().replace('"counts/clicks": ', '"counts/clicks": 1'))
    other = golden(project)
    assert other.returncode == 1 and "counts/clicks: " in other.stdout and "figures, 1 differ" in other.stdout


def test_figures_of_outdated_outputs_are_neither_compared_nor_kept(project):
    file = project / "params" / "smoke" / "03_train_mlp.yaml"
    file.write_text(file.read_text() + "dropout: 0.2  # share of hidden units that training drops\n")
    refused = golden(project, "--renew")
    assert (
        refused.returncode == 1 and "03_train_mlp is not up to date. Run `make run-all PROFILE=smoke`" in refused.stderr
    )
    assert not (project / "tests").exists()


def test_make_renews_in_one_line():
    words = ["make", "-n", "--no-print-directory", "golden", "PROFILE=smoke", "RENEW=1", f"PYTHON={sys.executable}"]
    shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.strip().endswith("-m ebnerd_lib golden --profile smoke --renew")
