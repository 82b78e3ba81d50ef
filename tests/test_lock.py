"""Locks that name their holder and end with it, and what stages do under them."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from ebnerd_lib.errors import LockedError, StageError, StorageError
from ebnerd_lib.pipeline import layout, lock, stage
from ebnerd_lib.pipeline.config import StageConfig
from ebnerd_lib.pipeline.layout import StagePaths

HOLD = """
import sys, time
from pathlib import Path
from ebnerd_lib.pipeline import lock
lock.acquire(Path(sys.argv[1]), "a test")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a lock, and the lock's file."""
    file = tmp_path / "logs" / "run.lock"
    environment = {**os.environ, "PYTHONPATH": str(layout.ROOT)}
    words = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout.readline() == "held\n"
        yield process, file
        process.kill()


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """The files of a stage of a project without data."""
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    yield StagePaths("smoke", "04_recommend")
    lock.release(StagePaths("smoke", "04_recommend").lock)


def config() -> StageConfig:
    return StageConfig("04_recommend", "smoke", parameters={"seed": 0, "reads": []}, given={})


def test_a_lock_is_taken_given_back_and_taken_again(tmp_path):
    file = tmp_path / "a" / "lock"
    for _ in range(2):
        assert lock.acquire(file, "a test") is None
        assert f'"pid": {os.getpid()}' in file.read_text()
        assert lock.acquire(file, "a test") is None, "a process does not wait for itself"
        lock.release(file)
        assert file.read_text() == ""
    lock.release(file)


def test_a_held_lock_is_refused_with_its_holder_named(holder):
    process, file = holder
    with pytest.raises(LockedError) as refused:
        lock.acquire(file, "this test", wait=0.1)
    message = str(refused.value)
    assert f"held by a test, pid {process.pid} since 2" in message and " UTC. " in message
    assert f"`kill {process.pid}`" in message and "\n" not in message


def test_the_lock_of_a_killed_process_is_taken_over_at_once(holder):
    process, file = holder
    process.send_signal(signal.SIGKILL)
    process.wait()
    last = lock.acquire(file, "this test")
    assert last is not None and (last.pid, last.task) == (process.pid, "a test")
    lock.release(file)
    assert lock.acquire(file, "this test") is None, "whoever gave it back is nobody to take over from"
    lock.release(file)


def test_waiting_is_rewarded_when_the_holder_ends(holder):
    process, file = holder
    with subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {process.pid}"]):
        assert lock.acquire(file, "this test", wait=10) is not None
    lock.release(file)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": 1}', '{"pid": 1, "since": "", "task": "", "more": 1}'])
def test_an_unreadable_name_of_a_holder_does_not_matter(tmp_path, content):
    file = tmp_path / "lock"
    file.write_text(content)
    assert lock.acquire(file, "a test") is None
    lock.release(file)


def test_a_system_without_kernel_locks_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    with pytest.raises(StorageError, match="Windows has no `fcntl` locks"):
        lock.acquire(tmp_path / "lock", "a test")


def test_a_stage_is_one_processes_alone_until_it_is_finished(paths):
    running = stage.Stage(config())
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from ebnerd_lib.errors import LockedError
        from ebnerd_lib.pipeline import lock
        try:
            lock.acquire(Path({str(paths.lock)!r}), "another")
            print("taken")
        except LockedError as error:
            print(error)
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(stage.ROOT)}

    def elsewhere() -> str:
        return subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert f"held by 04_recommend by hand, pid {os.getpid()} since" in elsewhere()
    again = stage.Stage(config())
    assert running.folder == again.folder, "the first cell of a notebook may be run again"
    assert f"pid {os.getpid()}" in elsewhere()
    again.finish()
    assert elsewhere() == "taken\n"


def test_a_stage_that_cannot_start_holds_no_lock(paths):
    wrong = StageConfig("04_recommend", "smoke", parameters={"reads": ["01_preprocess"]}, given={})
    with pytest.raises(StageError):
        stage.Stage(wrong)
    assert not paths.lock.exists()


def test_the_folders_of_dead_runs_are_cleared(paths):
    for name in (".04_recommend.1.partial", ".04_recommend.2.old", ".05_compare.3.partial"):
        (paths.artifacts.parent / name).mkdir(parents=True)
    paths.artifacts.mkdir()
    (paths.artifacts / "last").touch()
    running = stage.Stage(config())
    assert sorted(path.name for path in paths.artifacts.parent.iterdir()) == [
        f".04_recommend.{os.getpid()}.partial", ".05_compare.3.partial", "04_recommend",
    ]  # fmt: skip
    running.finish()
    assert {path.name for path in paths.artifacts.iterdir()} == {"metrics.json", "manifest.json"}


def test_artifacts_that_a_kill_left_aside_are_put_back(paths):
    aside = paths.artifacts.with_name(".04_recommend.7.old")
    aside.mkdir(parents=True)
    (aside / "manifest.json").write_text("last")
    paths.artifacts.with_name(".04_recommend.7.partial").mkdir()
    stage.clear_partial(paths)
    assert [path.name for path in paths.artifacts.parent.iterdir()] == ["04_recommend"]
    assert (paths.artifacts / "manifest.json").read_text() == "last"
