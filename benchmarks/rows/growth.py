"""How time, memory and disk grow with the bundle."""

import math
import shutil
import statistics
from typing import Any

from benchmarks import stages
from benchmarks.context import Context, Measured
from benchmarks.row import Bar, Row, not_measured

RUNS = 5
MEMORY_GB = {"smoke": 1.5, "demo": 1.5, "small": 2.5, "large": 8.0}
DISK_GB = 40.0


def measure(context: Context) -> Measured:
    """Preprocess bundles of several sizes, each run in a process of its own; run the other stages once."""
    sizes = ["smoke", "demo"] if context.quick else ["demo", "small"] + (["large"] if context.large else [])
    found, disk = [], 0.0
    for size in sizes:
        for _ in range(1 if size == "large" else RUNS):
            found.append(stages.run("preprocess", size, context.work))
            folder = context.work / size
            disk = sum(file.stat().st_size for file in folder.glob("features_*.npy")) / 1e9
            shutil.rmtree(folder)
    rows = [*_time(found, sizes), *(_memory(found, size) for size in sizes)]
    if context.large:
        rows.append(Row("growth: disk of the features of large", disk, "GB", bar=Bar("ours", "≤", DISK_GB), runs=1))
    else:
        for what, unit, limit in (("memory", "GB", MEMORY_GB["large"]), ("disk of the features", "GB", DISK_GB)):
            reason = "half an hour and 40 GB; `python -m benchmarks --rows growth --large` measures it"
            rows.append(not_measured(f"growth: {what} of large", Bar("ours", "≤", limit), reason, unit))
    others = [name for name in stages.OF_THE_PACKAGE if name != "preprocess"]
    return Measured(rows, found + [stages.run(name, context.size, context.work) for name in others])


def per_candidate(found: list[dict[str, Any]], size: str) -> float:
    """Return the median microseconds a candidate of a size."""
    return statistics.median(each["seconds"] / each["candidates"] * 1e6 for each in found if each["size"] == size)


def exponent(found: list[dict[str, Any]], sizes: list[str]) -> float:
    """Return by which power of the number of candidates time grows: the slope of a line through the logarithms."""
    candidates = {each["size"]: each["candidates"] for each in found}
    x = [math.log(candidates[size]) for size in sizes]
    y = [math.log(per_candidate(found, size) * candidates[size]) for size in sizes]
    return statistics.linear_regression(x, y).slope


def _time(found: list[dict[str, Any]], sizes: list[str]) -> list[Row]:
    each = {size: per_candidate(found, size) for size in sizes}
    mean = statistics.fmean(each.values())
    apart = max(abs(value / mean - 1) for value in each.values())
    times = ", ".join(f"{size} {value:.2f} µs" for size, value in each.items())
    note = f"Time a candidate: {times}; time grows with the {exponent(found, sizes):.2f}th power of the candidates."
    if "large" not in sizes:
        note += " Large was not measured."
    name = "growth: time a candidate of preprocessing, furthest from its mean"
    return [Row(name, apart, "share", bar=Bar("ours", "≤", 0.15), runs=RUNS, note=note)]


def _memory(found: list[dict[str, Any]], size: str) -> Row:
    peaks = [each["peak_mb"] for each in found if each["size"] == size]
    name, bar = f"growth: peak memory of preprocessing {size}", Bar("ours", "≤", MEMORY_GB[size])
    if None in peaks:
        return not_measured(name, bar, "the platform does not tell anonymous memory", "GB")
    gigabytes = sorted(peak / 1024 for peak in peaks)
    return Row(
        name, statistics.median(gigabytes), "GB", bar=bar, runs=len(peaks), note="Anonymous memory, imports included.",
        spread={"ours": [gigabytes[0], gigabytes[-1]]},
    )  # fmt: skip
