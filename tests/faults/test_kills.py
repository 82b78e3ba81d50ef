"""SIGKILL at random moments of a run: nothing is lost, nothing half-done looks done, and a rerun mends all."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from itertools import cycle

import psutil
from runs import STAGES, Project, wait_until
from share import amount, record

TARGETS = ("runner", "kernel", "make and runner", "runner and kernels")
CHAINS = (2, 3)
"""Kills in a row, the later ones while the run goes on from what the one before left."""
SECONDS_BETWEEN = (8.0, 5.0, 8.0, 4.0, 7.0, 6.0, 1.5)
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
    project, rng, wanted = Project(finished, tmp_path / "p"), random.Random(21), amount(5, 30)
    killed: Counter[str] = Counter()
    moments: Counter[str] = Counter()
    compared, waits = [], []
    target, lengths, firsts = cycle(TARGETS), cycle(CHAINS), cycle(rng.sample(range(len(STAGES)), len(STAGES)))
    while killed.total() < wanted:
        shutil.rmtree(project.outputs, ignore_errors=True)
        for place in range(min(next(lengths), wanted - killed.total())):
            name, before = next(target), project.complete()
            complete = next(firsts) if place == 0 else min(before + rng.randint(0, 2), len(STAGES))
            with project.start(make=name == "make and runner") as process:
                wait_until(lambda complete=complete: project.complete() >= complete, process)
                hit = _kill_after(project, process, name, rng.uniform(0, SECONDS_BETWEEN[complete]))
                waits.append(project.assert_no_orphans())
            killed[name] += hit
            moments[f"{complete} stages complete"] += hit
            project.assert_nothing_half_done()
        code, text = project.run()
        assert code == 0, text
        project.assert_no_orphans()
        compared.append(project.assert_finished())
    record(
        "kills",
        {
            "kills by target": dict(sorted(killed.items())),
            "kills by moment": dict(sorted(moments.items())),
            "reruns to the end": len(compared),
            "files compared": sum(files for files, _ in compared),
            "bytes compared": sum(size for _, size in compared),
            "longest life of an orphan kernel in seconds": round(max(waits), 2),
        },
    )


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
