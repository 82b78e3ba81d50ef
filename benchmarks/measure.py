"""How things are measured: contestants take turns, memory is watched from outside, and a bar decides about a row."""

import gc
import importlib
import io
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from ebnerd_lib.pipeline.paths import ROOT

FOLDER = ROOT / "data" / "bench"
"""Where generated bundles are kept and groups work, on the disk of the data: a temporary folder may be memory."""
RUNS = 5
"""Runs that count; each contestant warms up once before them."""

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """What was asked for: an empty folder to work in, everything on the smallest size, and the large size as well."""

    work: Path
    quick: bool = False
    large: bool = False

    def size(self, full: str) -> str:
        """Return the size of the bundle to measure on, where ``full`` is the one that counts."""
        return "smoke" if self.quick else full


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what is measured, and against what.
        ours: our value, ``None`` if it was not measured.
        unit: of both values.
        bar: ``rival / ours ≥ 50``, ``ours / rival ≤ 1.15``, or ``ours ≤ 3`` without a rival; empty for none.
        rival: the rival's value, ``None`` if there is none or its package is not installed.
        note: sizes and shares, or why nothing was measured.
    """

    name: str
    ours: float | None
    unit: str
    bar: str
    rival: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """The quotient that the bar names; ``None`` unless both values are there."""
        if not self.ours or not self.rival:
            return None
        return self.rival / self.ours if self.bar.startswith("rival / ours") else self.ours / self.rival

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; ``None`` where there is nothing to compare with it."""
        value = self.ratio if "rival" in self.bar else self.ours
        if not self.bar or value is None:
            return None
        sign, limit = self.bar.split()[-2:]
        return value >= float(limit) if sign == "≥" else value <= float(limit)

    def plain(self) -> dict[str, Any]:
        """Return the row in the types of JSON; one that lacks its rival says what to install."""
        lacks = "rival" in self.bar and self.rival is None
        note = "the rival is not installed: `pip install polars lightgbm`" if lacks else self.note
        return {**vars(self), "ratio": self.ratio, "met": self.met, "note": note}


# Not in __main__: a fresh process does not find what is defined there.
def measure_group(name: str, quick: bool, large: bool) -> list[dict[str, Any]]:
    """Measure the rows of a module of this package, in a temporary folder; what it prints is left out."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=FOLDER) as work, redirect_stdout(io.StringIO()):
        rows = importlib.import_module(f"benchmarks.{name}").measure(Run(Path(work), quick, large))
    return [row.plain() for row in rows]


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes, or what it measured itself if it returns a float."""
    gc.collect()  # what earlier calls left is none of its time
    start = time.perf_counter()
    own = work()
    return own if isinstance(own, float) else time.perf_counter() - start


def alternate(**contestants: Callable[[], object] | None) -> dict[str, float]:
    """Run contestants in turn, once to warm up and then ``RUNS`` times, and return the median of each.

    Every other round goes backwards, so what else the machine does meets all of them alike.

    Args:
        contestants: calls that do all of the task, see ``seconds``; ``None`` for one that is not installed.
    """
    present = [(name, work) for name, work in contestants.items() if work is not None]
    found: dict[str, list[float]] = {name: [] for name, _ in present}
    for number in range(RUNS + 1):
        for name, work in present[:: -1 if number % 2 else 1]:
            found[name].append(seconds(work))
    return {name: statistics.median(values[1:]) for name, values in found.items()}


def in_child(work: Callable[..., T], *arguments: object) -> tuple[T, float]:
    """Call a function of a module in a fresh process; return its result and the peak of its memory in GB.

    Memory is what the process allocates itself, imports included and pages of mapped files left out. Where the
    platform does not tell the two apart (all but Linux), mapped files count too.
    """
    peak = 0
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        child = psutil.Process(executor.submit(os.getpid).result())
        future = executor.submit(work, *arguments)
        while not future.done():
            with suppress(psutil.NoSuchProcess):  # it was killed, and the future is about to say so
                memory = child.memory_info()
                peak = max(peak, memory.rss - getattr(memory, "shared", 0))
            wait([future], timeout=0.01)
    return future.result(), peak / 1e9
