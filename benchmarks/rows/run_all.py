"""``make run-all`` on a copy of the project, so that nobody's outputs are touched."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import bundles
from benchmarks.context import Context, Measured
from benchmarks.offline import pages
from benchmarks.row import Bar, Row
from benchmarks.rows.reading import judged
from ebnerd_lib.pipeline.layout import ROOT

COPIED = ("ebnerd_lib", "notebooks", "params", "templates", "Makefile", "pyproject.toml", "requirements.lock")
AGAIN = 5


def measure(context: Context) -> Measured:
    """Time a run from nothing and runs with nothing to do; the reports of the former are looked at too."""
    profile, size = ("smoke", "smoke") if context.quick else ("sample", "demo")
    project = copy(context.work / "project", profile, size)
    first = make(project, profile)
    again = [make(project, profile) for _ in range(AGAIN)]
    about = (
        f"Profile {profile}, one run; the environment is installed and the bundle generated, kernels are compiled anew."
    )
    return Measured(
        [
            Row(f"make run-all on {profile}, from nothing", first, "s", bar=Bar("ours", "≤", 120), runs=1, note=about),
            Row(
                f"make run-all on {profile}, nothing to do", sorted(again)[AGAIN // 2], "s", bar=Bar("ours", "≤", 1),
                runs=AGAIN, spread={"ours": [min(again), max(again)]},
            ),
            *judged(f"reports of {profile} from this run", pages(project / "outputs" / profile)),
        ]
    )  # fmt: skip


def copy(project: Path, profile: str, size: str) -> Path:
    """Copy the project without outputs and caches, and a generated bundle that is newer than its generator."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
        else:
            shutil.copy2(source, project / name)
    shutil.copytree(bundles.bundle(size), project / "data" / profile)
    (project / "data" / profile / "generated.json").touch()
    return project


def make(project: Path, profile: str) -> float:
    """Return the seconds that ``make run-all`` takes.

    Raises:
        RuntimeError: it failed.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    start = time.perf_counter()
    done = subprocess.run(
        ["make", "run-all", f"PROFILE={profile}", f"PYTHON={sys.executable}"],
        cwd=project, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"make run-all PROFILE={profile} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return time.perf_counter() - start
