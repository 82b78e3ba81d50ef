"""Ctrl-C and its like, a second run at once, and a notebook by hand: each ends in order and says how to go on."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from itertools import cycle

import pytest
from runs import STAGES, Project, wait_until

pytestmark = pytest.mark.slow

WAYS = [("group", signal.SIGINT), ("runner", signal.SIGINT), ("runner", signal.SIGTERM), ("group", signal.SIGHUP)]


@pytest.fixture
def project(finished, tmp_path):
    return Project(finished, tmp_path / "p")


def test_an_interrupted_run_ends_in_order_and_says_what_it_kept(project):
    rng, interrupted = random.Random(11), 0
    for (whom, number), stale in zip(cycle(WAYS), cycle([("05_compare",), ("03_train_mlp",)]), strict=False):
        if interrupted == len(WAYS):
            break
        project.fill(stale)
        rendering = interrupted == len(WAYS) - 1
        with project.start() as process:
            first = process.stdout.readline()
            assert f"profile smoke: {len(STAGES)} stages" in first, first
            if rendering:
                wait_until(lambda: project.complete() == len(STAGES), process)
            time.sleep(rng.uniform(0, 0.5 if rendering else 6.0))
            if process.poll() is not None:
                continue
            (os.killpg if whom == "group" else os.kill)(process.pid, number)
            text, _ = process.communicate(timeout=60)
        if "done in" in text and "interrupted" not in text:  # it was through before it heard, or on its way out
            assert "Traceback" not in text, text
            continue
        assert process.returncode == 130, text
        count, names = re.search(r"interrupted: (\d+) stages are complete and kept \((.*)\)\. Rerun", text).groups()
        kept = names.split(", ")
        complete = [name for name in STAGES if (project.outputs / "notebooks" / f"{name}.ipynb").exists()]
        assert len(kept) == int(count) and set(kept) <= set(complete) and kept[:2] == STAGES[:2], text
        assert text.rstrip().endswith("Rerun the command to resume.")
        assert "FAILED" not in text and "Traceback" not in text and "Error" not in text, text
        project.assert_no_orphans()
        project.assert_nothing_half_done()
        assert not list(project.outputs.glob("artifacts/.*"))
        interrupted += 1
    project.assert_reruns()


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
    by_hand = (
        "from ebnerd_lib.pipeline import stage, params; "
        "own = params.load_config('smoke', '05_compare'); running = stage.Stage(own, 'interactive', None); "
        "(running.folder / 'figure').touch(); print('begun', flush=True); input()"
    )
    environment = {**os.environ, "PYTHONPATH": str(project.root)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    words = [sys.executable, "-c", by_hand]
    with subprocess.Popen(words, cwd=project.root, env=environment, **pipes) as kernel:
        assert kernel.stdout.readline() == "begun\n"
        code, text = project.run()
        assert code == 1 and f"05_compare/stage.lock is held by 05_compare by hand, pid {kernel.pid} since" in text, (
            text
        )
        assert [path.name for path in project.outputs.glob("artifacts/.*/*")] == ["figure"]
        kernel.kill()
    project.assert_reruns()
