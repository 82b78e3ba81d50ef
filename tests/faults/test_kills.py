"""SIGKILL at random moments of a run: nothing is lost, nothing half-done looks done, and a rerun mends all."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
from itertools import cycle

import psutil
import pytest
from runs import STAGES, Project, wait_until

pytestmark = pytest.mark.slow

TARGETS = ("runner", "kernel", "make and runner", "runner and kernels")
KILLS = 4
SECONDS_BETWEEN = (5.0, 7.0, 2.0, 7.0, 2.0, 7.0, 2.0, 7.0, 5.0, 1.5)
"""About the time until the next stage is complete, by the number of those that are; rendering follows the last."""


def kill(target: str, process: subprocess.Popen[str], kernels: list[psutil.Process]) -> bool:
    """Kill the target. Says whether it was there to be killed."""
    if target == "make and runner":
        os.killpg(process.pid, signal.SIGKILL)
    elif target != "kernel":
        process.kill()
    victims = {"kernel": kernels[:1], "runner and kernels": kernels}.get(target, [])
    try:
        for kernel in victims:
            kernel.kill()
    except psutil.NoSuchProcess:
        return target != "kernel"
    return target != "kernel" or bool(victims)


def test_kills_at_random_moments_lose_nothing_and_a_rerun_gives_the_same_bytes(finished, tmp_path):
    """Kills in a row: each run goes on from what the one before left."""
    project, rng = Project(finished, tmp_path / "p"), random.Random(21)
    targets, killed = cycle(TARGETS), 0
    while killed < KILLS:
        name = next(targets)
        complete = min(project.complete() + rng.randint(0, 1), len(STAGES) - 1)
        with project.start(make=name == "make and runner") as process:
            wait_until(lambda complete=complete: project.complete() >= complete, process)
            killed += _kill_after(project, process, name, rng.uniform(0, SECONDS_BETWEEN[complete]))
            project.assert_no_orphans()
        project.assert_nothing_half_done()
        if project.complete() == len(STAGES):
            shutil.rmtree(project.outputs)
    project.assert_reruns()
    project.assert_no_orphans()


def _kill_after(project: Project, process: subprocess.Popen[str], target: str, seconds: float) -> bool:
    """Kill the target after some seconds and see what the run says. Says whether there was what to kill."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
        return False
    if target == "kernel":
        wait_until(project.kernels, process)
    hit = kill(target, process, project.kernels())
    if target == "kernel":
        text, _ = process.communicate(timeout=120)
        assert "Traceback" not in text
        hit = hit and process.returncode != 0
        assert not hit or "was killed, most likely because memory ran out. Free memory" in text, text
    process.wait()
    return hit
