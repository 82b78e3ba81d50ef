"""Bugs planted by hand into a copy of the project: the test named for each has to fail there, and to pass without."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from bugs import BUGS, Bug
from share import ROOT, amount, record

NEEDED = ("ebnerd_lib", "tests", "notebooks", "params", "templates", "pyproject.toml")
TRIED = BUGS[: amount(2, len(BUGS))]
FAILED = 1  # pytest's exit code for failed tests; 2 and more mean that they could not be run


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of the project in which the tests that are named for the bugs pass."""
    folder = tmp_path_factory.mktemp("planted") / "copy"
    folder.mkdir()
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("*.pyc"))
        else:
            shutil.copy2(source, folder / name)
    done = run(folder, *dict.fromkeys(bug.test for bug in TRIED))
    assert done.returncode == 0, f"the tests fail without a bug:\n{done.stdout[-4000:]}"
    return folder


def run(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests in a copy of the project. No bytecode is kept: it is told apart by the second alone."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, "-m", "pytest", "-x", "--no-header", *tests]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("bug", TRIED, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(copy, bug: Bug):
    file = copy / bug.file
    sound, times = file.read_text(encoding="utf-8"), file.stat()
    start = time.monotonic()
    try:
        file.write_text(sound.replace(bug.old, bug.new), encoding="utf-8")
        done = run(copy, bug.test)
    finally:
        file.write_text(sound, encoding="utf-8")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # kernels kept of the sound file count again
    assert done.returncode == FAILED, f"{bug.name}: not caught\n{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    seconds = round(time.monotonic() - start, 1)
    figures = {"file": bug.file, "breaks": bug.breaks, "caught_by": bug.test, "seconds": seconds}
    record(f"planted_{re.sub(r'[^a-z]+', '_', bug.name.lower())}", figures)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_each_bug_has_its_place(bug: Bug):
    text = (ROOT / bug.file).read_text(encoding="utf-8")
    assert text.count(bug.old) == 1, (
        f"{bug.file} has {text.count(bug.old)} times:\n{bug.old}\nMend tests/faults/bugs.py."
    )
    assert bug.new != bug.old
    file, _, name = bug.test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_bugs_are_many_different_and_of_every_kind():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 20
    rooms = Counter(Path(bug.file).parts[1] for bug in BUGS)
    assert set(rooms) >= {"data", "features", "models", "training", "evaluation", "recommend", "pipeline"}
