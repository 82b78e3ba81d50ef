"""Locks that name their holder and end with it, and stages whose artifacts appear whole or not at all."""

import hashlib
import io
import json
import os
import threading
from types import SimpleNamespace

import pytest
from runs import start_holder
from tqdm import tqdm

from ebnerd_lib.errors import LockedError, StageError
from ebnerd_lib.pipeline import paths as lock
from ebnerd_lib.pipeline import stage, stale
from ebnerd_lib.pipeline.params import StageConfig
from ebnerd_lib.pipeline.paths import StagePaths

PROJECT = stage.ROOT
SCORES = {"train/loss": 1.0, "val/loss": 1.1, "val/auc": 0.6}


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """The files of a stage of a project without data."""
    for module in (lock, stage, stale):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    yield StagePaths("smoke", "04_recommend")
    lock.release(StagePaths("smoke", "04_recommend").lock)


def config(*reads: str) -> StageConfig:
    return StageConfig("04_recommend", "smoke", {"seed": 0, "reads": list(reads)}, {}, reads)


def begin(*reads: str) -> stage.Stage:
    return stage.Stage(config(*reads), "batch", "f")


def test_a_held_lock_is_refused_with_its_holder_and_free_once_that_is_killed(paths):
    file = paths.lock
    with start_holder(file) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=rf"04_recommend/stage\.lock .*a test, pid {process.pid} since 2"):
            lock.acquire(file, "this test", wait=0.1)
        assert f"pid {process.pid}" in lock.holder(file)
        threading.Timer(0.1, process.kill).start()
        lock.acquire(file, "this test", wait=60)
    lock.acquire(file, "this test")  # a process does not wait for itself
    assert lock.holder(file) == lock.OURSELVES
    lock.release(file)
    assert lock.holder(file) == "" and not list(file.parent.glob("*.holder"))


def test_a_stage_is_one_processes_alone_from_its_start_until_it_is_finished(paths):
    with pytest.raises(StageError, match="01_preprocess"):
        begin("01_preprocess")
    assert not paths.lock.exists(), "what cannot start holds no lock"
    running, again = begin(), begin()
    assert running.folder == again.folder, "the first cell of a notebook may be run again"
    _, errors = start_holder(paths.lock).communicate("")
    assert "LockedError" in errors and f"pid {os.getpid()}" in errors
    again.finish()
    assert start_holder(paths.lock).communicate("") == ("held\n", "")
    with pytest.raises(StageError, match="is finished"):
        again.finish()
    assert paths.manifest.exists()


def test_what_dead_runs_left_is_cleared_and_what_they_moved_aside_is_put_back(paths):
    others = [".04_recommend.more.3.partial", ".04_recommend.more.4.old", ".05_compare.3.partial"]
    for name in (".04_recommend.1.partial", ".04_recommend.2.old", *others):
        (paths.artifacts.parent / name).mkdir(parents=True)
    (paths.artifacts.parent / ".04_recommend.2.old" / "manifest.json").write_text("last")
    stage.clear_partial(paths)
    assert sorted(path.name for path in paths.artifacts.parent.iterdir()) == [*others, "04_recommend"]
    assert (paths.artifacts / "manifest.json").read_text() == "last"


def test_artifacts_appear_whole_or_not_at_all_and_leave_no_training_to_resume(paths):
    begun, checkpoint = begin(), paths.logs / "mlp" / "0123" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    (begun.folder / "scores.txt").write_text("1")
    begun.metrics = {"auc": float("nan")}
    with pytest.raises(ValueError, match="JSON"):
        begun.finish()
    assert not paths.artifacts.exists() and checkpoint.exists(), "a stage that failed resumes"
    begun.metrics = {"auc": 0.5}
    begun.finish()
    assert {path.name for path in paths.artifacts.iterdir()} == {"scores.txt", "metrics.json", "manifest.json"}
    sums = {
        name: hashlib.sha256((paths.artifacts / name).read_bytes()).hexdigest()
        for name in ("metrics.json", "scores.txt")
    }
    assert json.loads(paths.manifest.read_text())["outputs"] == sums
    assert list(paths.artifacts.parent.iterdir()) == [paths.artifacts] and not checkpoint.exists()


def test_runs_by_hand_are_numbered_and_the_last_five_are_kept_and_stand_in_the_index(paths):
    (lock.ROOT / "templates").symlink_to(PROJECT / "templates")
    for notebook in ("04_recommend", "04_recommender"):
        for _ in range(7 if notebook == paths.stage else 1):
            name = stage._next_lab(StageConfig(notebook, "smoke", {}, {}))
            begun = stage.Stage(StageConfig(name, "smoke", {}, {}), "interactive", None)
            assert stage._next_lab(StageConfig(notebook, "smoke", {}, {})) == name, "it goes on where it is begun"
            begun.finish()
    kept = [f"04_recommend.lab{number}" for number in range(3, 8)] + ["04_recommender.lab1"]
    assert sorted(path.name for path in paths.artifacts.parent.iterdir()) == kept
    assert sorted(path.name for path in paths.logs.parent.iterdir()) == kept
    index = (paths.outputs / "index.html").read_text()
    assert "04_recommend.lab7" in index and "04_recommend.lab2" not in index


@pytest.mark.parametrize(("asked", "threads"), [("4,2", 4), (" 2", 2), ("0", 3), ("-1", 3), ("all", 3), ("", 3)])
def test_a_number_of_threads_is_taken_from_the_shell_where_it_is_one(monkeypatch, asked, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert lock.threads(3) == threads


def test_progress_goes_to_the_runner_or_is_shown_to_who_runs_it_by_hand(paths, monkeypatch):
    shown, bars = [], []
    place = SimpleNamespace(update=shown.append)
    monkeypatch.setattr("IPython.display.display", lambda what, display_id: place)
    monkeypatch.setattr(
        "tqdm.auto.tqdm", lambda **options: bars.append(tqdm(**options, file=io.StringIO())) or bars[-1]
    )
    epochs = [{"model": "mlp", "epoch": number, "epochs": 2, "best_by": "val/auc", **SCORES} for number in (1, 2)]
    lines = ["mlp 50%", "mlp epoch 1/2, val/auc 0.6000, loss 1.0000", "mlp 100%"]
    told = [{"step": "mlp", "share": 0.5}, epochs[0], {"step": "mlp", "share": 1.0}, epochs[1], {"step": "mlp_online"}]
    for run in ("batch", "interactive"):
        begun = stage.Stage(config(), run, None)
        for what in told:
            begun.progress(what)
        begun.finish()
        assert paths.progress.read_text().splitlines()[:3] == lines and bool(shown) == (run == "interactive")
    assert len(shown) == 2 and all("svg" in picture.data for picture in shown)
    assert [bar.n for bar in bars] == [1.0] and "left" in bars[0].fp.getvalue()
