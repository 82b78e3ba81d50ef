"""The machine: threads, memory and disk against what a profile of its size takes."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ebnerd_lib.pipeline.doctor.finding import OK, WARN, WRONG, Finding, gigabytes
from ebnerd_lib.pipeline.layout import ROOT


@dataclass(frozen=True)
class Needs:
    """Bytes that a profile takes, about: of memory, of disk for its outputs, and of temporary files."""

    rows: int
    memory: float
    outputs: float
    temporary: float


NEEDS = {
    "smoke": Needs(5_000, 2e9, 0.1e9, 0.1e9),
    "demo": Needs(100_000, 3e9, 0.5e9, 0.5e9),
    "small": Needs(1_000_000, 4e9, 3e9, 2e9),
    "large": Needs(10**12, 8e9, 40e9, 10e9),
}
"""By size, each for bundles of up to so many impressions a week; the README says what was measured."""


def size_of(bundle: str, rows: int | None) -> str:
    """Return the size that a bundle counts as.

    Args:
        bundle: name of its folder.
        rows: impressions of its train week, ``None`` where they are not known: the name tells then.

    >>> size_of("mine", 24_724), size_of("ebnerd_large", None), size_of("mine", None)
    ('demo', 'large', 'demo')
    """
    if rows is None:
        return next((size for size in NEEDS if bundle.endswith(size)), "demo")
    return next(size for size, needs in NEEDS.items() if rows <= needs.rows)


def check_threads() -> list[Finding]:
    """Tell the cores, and see that OMP_NUM_THREADS is no more than those."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS")
    if given is None:
        return [Finding(OK, "threads", f"{cores} cores; a run shares them between its stages")]
    if not given.isdecimal() or not int(given):
        return [
            Finding(WRONG, "threads", f"OMP_NUM_THREADS is {given!r}, no number of threads", "unset OMP_NUM_THREADS")
        ]
    if int(given) > cores:
        text = f"{cores} cores, OMP_NUM_THREADS={given}: threads wait for each other"
        return [Finding(WARN, "threads", text, "unset OMP_NUM_THREADS")]
    return [Finding(OK, "threads", f"{cores} cores, OMP_NUM_THREADS={given}: as many for each stage")]


def check_memory(profile: str, size: str) -> list[Finding]:
    """Compare free memory with what the profile's size takes."""
    total, free = _memory()
    needed = NEEDS[size].memory
    text = f"{gigabytes(free)} free of {gigabytes(total)}; a bundle of size {size} takes up to {gigabytes(needed)}"
    if free >= needed:
        return [Finding(OK, "memory", text)]
    one = f"close other programs, or run one stage at a time: python -m ebnerd_lib run --profile {profile} --jobs 1"
    return [Finding(WARN, "memory", text, one)]


def check_disk(profile: str, size: str) -> list[Finding]:
    """Compare free disk with what the profile's size takes beyond what is there of it already."""
    needs = NEEDS[size]
    outputs, data, temporary = ROOT / "outputs", ROOT / "data", Path(tempfile.gettempdir())
    there = _bytes_below(outputs / profile)
    wanted = {
        "data/": (data, 0.0),
        "outputs/": (outputs, max(needs.outputs - there, 0.0)),
        "TMPDIR": (temporary, needs.temporary),
    }
    by_disk: dict[int, list[str]] = {}
    for name, (folder, _) in wanted.items():
        by_disk.setdefault(_existing(folder).stat().st_dev, []).append(name)
    findings = []
    for names in by_disk.values():
        free = shutil.disk_usage(_existing(wanted[names[0]][0])).free
        needed = sum(wanted[name][1] for name in names)
        text = f"{', '.join(names)}: {gigabytes(free)} free; size {size} takes about {gigabytes(needed)} more there"
        if free >= needed:
            findings.append(Finding(OK, "disk", text))
        else:
            remedy = "free space, make outputs/ a link to a larger disk, or set TMPDIR to a folder on one"
            findings.append(Finding(WRONG, "disk", text, remedy))
    return findings


def _memory() -> tuple[float, float]:
    """Return all memory and what is free of it, bytes; a container's limit counts as all."""
    try:
        import psutil

        found = psutil.virtual_memory()
        total, free = float(found.total), float(found.available)
    except ImportError:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = float(page * os.sysconf("SC_PHYS_PAGES")), float(page * os.sysconf("SC_AVPHYS_PAGES"))
    try:
        limit = float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = float(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        total, free = min(total, limit), min(free, max(limit - used, 0.0))
    except (OSError, ValueError):  # no container, or one without a limit: "max"
        pass
    return total, free


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above that exists."""
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
