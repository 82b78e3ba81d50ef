"""The pipeline from a terminal, on a copy of the project: what runs, what does not, and what a failure leaves."""

import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from runs import STAGES, artifacts, command, copy_of, manifest, metrics, python

from ebnerd_lib.pipeline import run as runner
from ebnerd_lib.pipeline.run import interruptible


def run(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return command(project, "run", "--profile", "smoke", *words, **environment)


def ran(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.split(":")[0] for line in result.stdout.splitlines() if ": started" in line]


@pytest.fixture
def project(finished, tmp_path):
    """A copy of a finished project, for a test to change."""
    return copy_of(finished, tmp_path / "p", "data", "outputs")


def test_a_run_leaves_artifacts_reports_and_an_index(finished):
    outputs = finished / "outputs" / "smoke"
    assert (outputs / "index.html").exists()
    for stage in STAGES:
        assert (outputs / "notebooks" / f"{stage}.ipynb").exists()
        assert (outputs / "reports" / f"{stage}.html").stat().st_size < 3_000_000
        noted = manifest(finished, stage)
        assert (noted["status"], noted["run"], noted["profile"]) == ("complete", "batch", "smoke")
        assert noted["duration_seconds"] > 0 and noted["peak_memory_mb"] > 0 and noted["inputs"]
        assert set(noted["outputs"]) == set(artifacts(finished, stage))
        assert str(finished) not in json.dumps(noted)
    assert not list((outputs / "artifacts").glob(".*"))
    # Trainings are done with when their stage is: the next run of it trains anew.
    assert len(list((outputs / "logs").rglob("best.ckpt"))) >= 3
    assert not list((outputs / "logs").rglob("last.ckpt"))


def test_metrics_hold_every_model_with_its_tier(finished):
    found = {}
    for stage in STAGES[:-3]:
        own = metrics(finished, stage)
        found |= own.get("models", {}) | own.get("baselines", {})
    assert {"random", "newest", "popularity", "clicks_6h", "clicks_24h", "mf_ids", "mf_features", "mlp"} <= set(found)
    keys = {"auc", "auc_ci", "mrr", "ndcg@5", "ndcg@10", "logloss", "f1", "accuracy", "impressions"}
    for entry in found.values():
        assert entry["tier"] in ("ids", "content", "exposure", "clicks")
        assert keys <= set(entry["validation"]) and keys <= set(entry["tuning"])


def test_scores_cover_every_candidate_in_file_order_with_raw_ids(finished):
    root, keys = finished / "outputs" / "smoke" / "artifacts", ["impression_id", "article_ids_inview"]
    behaviors = pd.read_parquet(finished / "data" / "smoke" / "validation" / "behaviors.parquet", columns=keys)
    wanted = behaviors.explode("article_ids_inview").to_numpy(int)
    for stage, name in {"02_train_mf.ids": "mf_ids", "03_train_mlp.exposure": "mlp_exposure"}.items():
        scores = pd.read_parquet(root / stage / f"scores_{name}.parquet")
        assert (scores[["impression_id", "article_id"]].to_numpy(int) == wanted).all()
        assert (root / stage / f"tuning_{name}.parquet").exists()


def test_a_second_run_does_nothing_and_loads_neither_pandas_nor_papermill(finished):
    before = artifacts(finished)
    index = (finished / "outputs" / "smoke" / "index.html").stat().st_mtime_ns
    result = run(finished)
    assert result.returncode == 0 and "nothing to do" in result.stdout and not ran(result)
    assert artifacts(finished) == before
    assert (finished / "outputs" / "smoke" / "index.html").stat().st_mtime_ns == index
    code = (
        "import sys; from ebnerd_lib.pipeline.run import run; run('smoke'); "
        "print([m for m in ('pandas', 'papermill', 'pyarrow', 'numpy', 'torch') if m in sys.modules])"
    )
    done = python(finished, "-c", code)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.slow
def test_what_changed_runs_again_up_to_where_artifacts_stay_as_they_were_and_a_template_only_renders(project):
    before, notebook = artifacts(project), project / "notebooks" / "02_train_mf.ipynb"
    notebook.write_text(notebook.read_text().replace("How far does a factorisation get", "How far does it get"))
    (project / "outputs" / "smoke" / "artifacts" / "03_train_mlp" / "scores_mlp.parquet").unlink()
    assert sorted(ran(run(project))) == ["02_train_mf.features", "02_train_mf.ids", "03_train_mlp"]
    assert artifacts(project) == before
    style = project / "templates" / "style.css"
    style.write_text(style.read_text() + "\n/* changed */\n")
    result = run(project)
    assert result.returncode == 0 and not ran(result) and f"rendered {len(STAGES)} reports again" in result.stdout


@pytest.mark.slow
def test_another_folder_and_another_number_of_threads_give_the_same_bytes(finished, tmp_path):
    other = copy_of(finished, tmp_path / "elsewhere", "data")
    result = run(other, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")  # the finished one has as many as there are
    assert result.returncode == 0, result.stderr
    theirs, ours = artifacts(other), artifacts(finished)
    assert theirs.keys() == ours.keys()
    assert [name for name in ours if theirs[name] != ours[name]] == []


def test_a_missing_bundle_is_one_message(project):
    shutil.rmtree(project / "data" / "smoke")
    result = run(project)
    assert result.returncode == 1 and "data/smoke: no such folder" in result.stderr and not ran(result)
    assert "Traceback" not in result.stderr


def test_a_second_interruption_does_not_disturb_the_first_one_and_a_later_one_counts(monkeypatch):
    # A shell that starts the tests in the background has them ignore interruptions.
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    with interruptible():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        monkeypatch.setattr(runner, "AGAIN_SECONDS", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.signal(signal.SIGINT, earlier) == signal.default_int_handler


@pytest.mark.slow
def test_a_failed_stage_stops_those_that_read_it_is_marked_and_keeps_what_was_complete(project):
    before, outputs = artifacts(project), project / "outputs" / "smoke"
    notebook = project / "notebooks" / "02_train_mf.ipynb"
    kept, content = notebook.read_text(), json.loads(notebook.read_text())
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    code[-1]["source"] = ["assert not stage\n"]
    notebook.write_text(json.dumps(content))
    (outputs / "notebooks" / "03_train_mlp.ipynb").unlink()
    result = run(project)
    assert result.returncode == 1
    told = sorted(line for line in result.stderr.splitlines() if "FAILED" in line)
    assert len(told) == 2 and re.match(r"02_train_mf\.ids: FAILED: AssertionError.*[a-z]{3}", told[1])
    assert "03_train_mlp: complete in" in result.stdout and "05_compare: started" not in result.stdout
    assert "05_compare: not run" in result.stderr
    assert (outputs / "reports" / "02_train_mf.ids.html").exists(), "of the run before"
    assert (outputs / "notebooks" / "02_train_mf.ids.failed.ipynb").exists()
    assert "AssertionError" in (outputs / "reports" / "02_train_mf.ids.failed.html").read_text()
    assert "failed" in (outputs / "index.html").read_text() and artifacts(project) == before
    notebook.write_text(kept)
    assert run(project).returncode == 0 and not list(outputs.rglob("*.failed.*"))


@pytest.mark.slow
def test_an_experiment_is_one_command_and_touches_nothing_else(project):
    before = artifacts(project)
    file = project / "params" / "smoke" / "03_train_mlp.wide.yaml"
    new = ("--new", "03_train_mlp.wide", "--set", "hidden=[24]")
    assert sorted(ran(run(project, *new))) == ["03_train_mlp.wide", "05_compare", "06_explore"]
    assert file.read_text() == "hidden: [24]  # widths of the hidden layers\n" and not ran(run(project, *new))
    after = artifacts(project)
    changed = {name for name in before if after[name] != before[name]}
    assert "05_compare/metrics.json" in changed and changed <= {"05_compare/metrics.json", "06_explore/metrics.json"}
    compared = metrics(project, "05_compare")
    assert "mlp_wide" in compared["models"] and "mlp_wide" in compared["differences"]["scorers"]
    file.write_text("training: {warmup_hours: 336.0}  # all there is\n")
    result = run(project)
    assert result.returncode == 1 and ran(result) == ["03_train_mlp.wide"] and "warmup_hours" in result.stderr
    assert (
        "05_compare: not run, since it reads 03_train_mlp.wide (failed)" in result.stderr
        and artifacts(project) == after
    )
    file.unlink()
    result = run(project)
    assert sorted(ran(result)) == ["05_compare", "06_explore"]
    assert "left over" in (project / "outputs" / "smoke" / "index.html").read_text()
    again = artifacts(project)
    assert {name: again[name] for name in before} == before and "03_train_mlp.wide/model_mlp_wide.pt" in again


@pytest.mark.slow
def test_runs_by_hand_stand_beside_those_of_the_profile(project):
    before = artifacts(project)

    def by_hand(notebook: str, given: str) -> None:
        words = (f"notebooks/{notebook}.ipynb", "by_hand.ipynb", "-y", f"{{profile: smoke, {given}}}")
        done = python(project, "-m", "papermill", *words)
        assert done.returncode == 0, done.stderr

    by_hand("03_train_mlp", "hidden: [8], epochs: 1, embedding_size: 2")
    after = artifacts(project)
    assert {name: after[name] for name in before} == before
    assert manifest(project, "03_train_mlp.lab1")["parameters"]["hidden"] == [8]
    assert not ran(run(project)), "no batch run reads it"
    by_hand("05_compare", "importance: [], reference: mlp_lab1")
    assert {"mlp", "mlp_lab1"} <= set(metrics(project, "05_compare.lab1")["models"])
