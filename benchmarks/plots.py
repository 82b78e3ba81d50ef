"""The figures of the report of benchmarks."""

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from ebnerd_lib.plots import BLUE, GREY, ORANGE, STYLE


@mpl.rc_context(STYLE)
def against_bars(rows: list[dict[str, Any]]) -> Figure:
    """Draw how many times its bar each measured row reaches, on a logarithmic axis; short of it in another colour."""
    reached = [(row["name"], _reached(row)) for row in rows if row["met"] is not None][::-1]
    figure = Figure(figsize=(9.0, 0.9 + 0.3 * max(len(reached), 1)), layout="constrained")
    axis = figure.subplots()
    for place, (_, value) in enumerate(reached):
        colour = BLUE if value >= 1 else ORANGE
        axis.plot([1, value], [place, place], color=colour, linewidth=2)
        axis.plot(value, place, "o", color=colour, markersize=5)
        side, align = (5, "left") if value >= 1 else (-5, "right")
        axis.annotate(
            f"{value:.3g}", (value, place), xytext=(side, 0), textcoords="offset points", va="center", ha=align,
            fontsize=8,
        )  # fmt: skip
    axis.axvline(1, color=GREY, linewidth=1, linestyle=":")
    axis.set_xscale("log")
    axis.set_yticks(range(len(reached)), [name for name, _ in reached], fontsize=8, parse_math=False)
    axis.margins(x=0.12)
    axis.grid(axis="y", visible=False)
    axis.set(xlabel="times the bar; to the right of the dotted line it is met")
    return figure


@mpl.rc_context(STYLE)
def growth(stages: list[dict[str, Any]], limits: dict[str, float]) -> Figure:
    """Draw time a candidate and peak memory of preprocessing by the size of the bundle, one dot a run.

    Args:
        stages: of preprocessing, see ``benchmarks.stages.run``.
        limits: the memory in GB that each size may take.
    """
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(
        [each["candidates"] for each in stages], [each["seconds"] / each["candidates"] * 1e6 for each in stages], "o",
        color=BLUE, markersize=4,
    )  # fmt: skip
    told = [each for each in stages if each["peak_mb"] is not None]
    right.plot(
        [each["candidates"] for each in told], [each["peak_mb"] / 1024 for each in told], "o", color=BLUE, markersize=4
    )
    sizes = {each["size"]: each["candidates"] for each in stages}
    for size, candidates in sizes.items():
        right.plot(candidates, limits[size], "_", color=ORANGE, markersize=18)
    left.set(title="Time a candidate", ylabel="µs", xscale="log")
    right.set(title="Peak anonymous memory; dashes are bars", ylabel="GB", xscale="log")
    for axis in (left, right):
        axis.margins(x=0.2)
        axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
        axis.set_xticks(list(sizes.values()), [f"{size}\n{n / 1e6:.3g} million" for size, n in sizes.items()])
        axis.set_xticks([], minor=True)
        axis.set_xlabel("candidates")
    return figure


@mpl.rc_context(STYLE)
def memory(stages: list[dict[str, Any]]) -> Figure:
    """Draw the peak memory of each stage and size, the largest of its runs."""
    peaks: dict[str, float] = {}
    for each in stages:
        name = f"{each['stage']} ({each['size']})"
        peaks[name] = max(peaks.get(name, 0.0), (each["peak_mb"] or 0.0) / 1024)
    figure = Figure(figsize=(8.0, 0.9 + 0.3 * max(len(peaks), 1)), layout="constrained")
    axis = figure.subplots()
    names = list(peaks)[::-1]
    axis.barh(range(len(names)), [peaks[name] for name in names], color=BLUE, height=0.7)
    axis.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axis.grid(axis="y", visible=False)
    axis.set(xlabel="peak anonymous memory, GB")
    return figure


def _reached(row: dict[str, Any]) -> float:
    """Return how many times its bar a row reaches: 1 and more where it is met."""
    bar = row["bar"]
    value, limit = row["ratio"] if bar["of"] == "ratio" else row["ours"], bar["limit"]
    if bar["sign"] == "≥":
        return value / limit if limit else 1.0
    return limit / value if value else 1.0
