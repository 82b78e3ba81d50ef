"""Ctrl-C, kills, a second run at once, and a notebook by hand: nothing is lost, nothing half-done looks done."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time

import psutil
import pytest
from runs import KERNEL, MAKE, RUN, STAGES, Project, start_holder, wait_until

pytestmark = pytest.mark.slow

WAYS = [
    ("group", signal.SIGINT), ("kernel", signal.SIGKILL), ("runner", signal.SIGTERM), ("make", signal.SIGKILL),
    ("group", signal.SIGHUP), ("runner", signal.SIGKILL), ("runner", signal.SIGINT), ("kernels", signal.SIGKILL),
]  # fmt: skip
"""What is hit: the runner with all in its group or alone, make with the runner, one kernel, all with the runner."""


@pytest.fixture
def project(finished, tmp_path):
    return Project(finished, tmp_path / "p")


def test_runs_that_are_hit_at_random_moments_lose_nothing_and_a_rerun_gives_the_same_bytes(project):
    """Each run goes on from what the one before left; the last one is hit while it renders."""
    rng, ways = random.Random(21), list(WAYS)
    while ways:
        complete = min(project.complete() + rng.randint(0, 1), len(STAGES) - 1) if ways[1:] else len(STAGES)
        with project.start(*(MAKE if ways[0][0] == "make" else RUN)) as process:
            assert f"profile smoke: {len(STAGES)} stages" in process.stdout.readline()  # it has begun
            wait_until(lambda complete=complete: project.complete() >= complete, process)
            time.sleep(rng.uniform(0, 0.5 if complete == len(STAGES) else 5.0))
            if was_hit(project, process, *ways[0]):
                ways.pop(0)
            project.assert_no_orphans()
        project.assert_nothing_half_done()
        if ways and project.complete() == len(STAGES):
            shutil.rmtree(project.outputs)
    project.assert_reruns()


def was_hit(project: Project, process: subprocess.Popen[str], whom: str, number: signal.Signals) -> bool:
    """Hit a run and see what it says. Says whether it was there to be hit."""
    if whom == "kernel":
        wait_until(lambda: project.processes(KERNEL), process)
    kernels = project.processes(KERNEL)
    with contextlib.suppress(ProcessLookupError):
        if whom in ("group", "make"):
            os.killpg(process.pid, number)
        elif whom != "kernel":
            process.send_signal(number)
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in {"kernel": kernels[:1], "kernels": kernels}.get(whom, []):
            each.kill()
    text, _ = process.communicate(timeout=120)
    assert "Traceback" not in text, text
    if process.returncode == 0:  # it was through before it heard, or on its way out
        return False
    if whom == "kernel":
        assert re.search(r"FAILED: .*Kernel died.*then rerun the command", text), text
    if number == signal.SIGKILL:
        return True
    assert process.returncode == 130 and "FAILED" not in text and "Error" not in text, text
    count, names = re.search(r"interrupted: (\d+) stages are complete and kept(?: \((.*)\))?\. Rerun", text).groups()
    complete = {name for name in STAGES if (project.outputs / "notebooks" / f"{name}.ipynb").exists()}
    kept = set(names.split(", ")) if names else set()
    assert len(kept) == int(count) and kept <= complete, text
    assert text.rstrip().endswith("Rerun the command to resume.")
    return True


def test_a_second_run_at_once_is_refused_with_the_first_one_named(project):
    project.fill(("05_compare",))
    with project.start() as first:
        wait_until((project.outputs / "logs" / "run.holder").exists, first)
        code, text = project.run()
        assert code == 1
        assert f"outputs/smoke/logs/run.lock is held by a run of profile smoke, pid {first.pid} since 2" in text
        assert len(text.splitlines()) == 1, text
        first.communicate()
    assert first.returncode == 0
    project.assert_finished()


def test_a_stage_that_is_run_by_hand_is_left_to_it(project):
    project.fill(("05_compare",))
    begun = project.outputs / "artifacts" / ".05_compare.1.partial"
    begun.mkdir()
    with start_holder(project.outputs / "logs" / "05_compare" / "stage.lock") as by_hand:
        assert by_hand.stdout.readline() == "held\n"
        code, text = project.run()
        assert code == 1 and f"05_compare/stage.lock is held by a test, pid {by_hand.pid} since" in text, text
        assert begun.exists()
        by_hand.kill()
    project.assert_reruns()
