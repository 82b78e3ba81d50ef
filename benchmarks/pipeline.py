"""``make run-all`` on a copy of the project, its pages, and how preprocessing grows with the bundle."""

import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import inputs
from benchmarks.measure import RUNS, Row, Run, in_child
from ebnerd_lib.pipeline.paths import ROOT

MEMORY_GB = {"smoke": 1.5, "demo": 1.5, "small": 2.5, "large": 8.0}
FETCHED = re.compile(
    r"""(?:<(?!a\b)[^>]*?\s(?:src|srcset|href|poster|data|action)\s*=|url\(|@import)\s*["']?\s*((?:\w+:)?//[^"'\s>)]+)"""
)
"""What a page loads from another host; a link that a reader may follow is none."""


def measure(run: Run) -> list[Row]:
    """Time a run from nothing and runs with nothing to do, look at its pages, and preprocess several sizes."""
    size = run.size("demo")
    project, profile = copied(run.work / size, size), inputs.PROFILES[size]
    again = f"run-all again: {profile}, nothing to do"
    return [
        _run_all(project, profile, 153),
        Row(again, statistics.median(make(project, profile)[0] for _ in range(RUNS)), "s", "ours ≤ 2"),
        *pages(project / "outputs" / profile),
        *_growth(run),
        *([_run_all(copied(run.work / "small", "small"), "ebnerd_small", 540)] if run.large else []),
    ]


def _run_all(project: Path, profile: str, most: float) -> Row:
    took, busy = make(project, profile)
    note = f"one run; user and system time is {busy / took:.2f} times as long; kernels are compiled anew"
    return Row(f"run-all: {profile}, from nothing", took, "s", f"ours ≤ {most}", note=note)


def copied(project: Path, size: str) -> Path:
    """Copy the project without outputs and caches, and a generated bundle that is newer than its generator."""
    for name in ("ebnerd_lib", "notebooks", "params", "templates"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "Makefile", project)
    bundle = shutil.copytree(inputs.bundle(size), project / "data" / inputs.PROFILES[size])
    (bundle / "generated.json").touch()
    return project


def make(project: Path, profile: str) -> tuple[float, float]:
    """Return the seconds that ``make run-all`` takes, and those of user and system time over all its processes.

    Raises:
        RuntimeError: it failed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    words = ["make", "run-all", f"PROFILE={profile}", f"PYTHON={sys.executable}"]
    start, before = time.perf_counter(), os.times()
    done = subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, check=False)
    took, after = time.perf_counter() - start, os.times()
    if done.returncode:
        raise RuntimeError(f"make run-all PROFILE={profile} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return took, sum(after[2:4]) - sum(before[2:4])


def pages(outputs: Path) -> list[Row]:
    """Return the size of a profile's largest page, and how many of its pages load anything from another host."""
    found = [outputs / "index.html", *sorted((outputs / "reports").glob("*.html"))]
    largest = max(found, key=lambda page: page.stat().st_size)
    outside = {page.name: FETCHED.findall(page.read_text(encoding="utf-8")) for page in found}
    note = "; ".join(f"{name} loads {addresses[0]}" for name, addresses in outside.items() if addresses)
    return [
        Row("pages: the largest", largest.stat().st_size / 1e6, "MB", "ours ≤ 3", note=largest.name),
        Row("pages: that need a network", sum(map(bool, outside.values())), "pages", "ours ≤ 0", note=note),
    ]


def _growth(run: Run) -> list[Row]:
    """Preprocess bundles of several sizes, each run in a process of its own."""
    each, rows = {}, []
    for size in ["smoke"] if run.quick else ["demo", "small", *["large"] * run.large]:
        inputs.bundle(size)  # generated here, so that no run counts it
        found = [in_child(preprocessing, size, run.work) for _ in range(1 if size == "large" else RUNS)]
        each[size], peak = map(statistics.median, zip(*found, strict=True))
        rows.append(Row(f"growth: peak memory of {size}", peak, "GB", f"ours ≤ {MEMORY_GB[size]}"))
    if run.large:
        disk = sum(file.stat().st_size for file in (run.work / "large").glob("features_*.npy")) / 1e9
        rows.append(Row("growth: features of large on disk", disk, "GB", "ours ≤ 40"))
    furthest = max(abs(value / statistics.fmean(each.values()) - 1) for value in each.values())
    times = ", ".join(f"{size} {value:.2f} µs" for size, value in each.items())
    note = times if run.large else f"{times}; the size of ebnerd_large only with LARGE=1"
    return [Row("growth: time a candidate, furthest from its mean", furthest, "share", "ours ≤ 0.15", note=note), *rows]


def preprocessing(size: str, work: Path) -> float:
    """Preprocess a bundle after a warm-up on the smallest; return microseconds a candidate."""
    inputs.preprocess("smoke", work / "warm")
    start = time.perf_counter()
    candidates = inputs.preprocess(size, work / size).log.candidates
    return (time.perf_counter() - start) / candidates * 1e6
