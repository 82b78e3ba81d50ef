"""Results as a file for programs, a page for readers and lines for the terminal."""

from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.rows.growth import MEMORY_GB
from ebnerd_lib.pipeline.pages.page import fill, machinery, page_key, write_page
from ebnerd_lib.plots import address

MARKS = {True: "met", False: "not met", None: "–"}


def render(file: Path, results: dict[str, Any]) -> None:
    """Write the report; every figure in it stands in ``results``."""
    page = fill(
        "bench.html.j2",
        results=results,
        generated=results["generated"],
        rows=[shown(row) for row in results["rows"]],
        stages=results["stages"],
        pictures=pictures(results),
        environment=results["versions"],
    )
    write_page(file, page, page_key(machinery(*sorted(Path(__file__).parent.rglob("*.py"))), results))


def shown(row: dict[str, Any]) -> dict[str, str]:
    """Return the texts of a row as tables show them."""
    return {
        "group": row["group"],
        "name": row["name"],
        "ours": _with_ends(row, "ours"),
        "rival": _with_ends(row, "rival"),
        "unit": row["unit"],
        "ratio": number(row["ratio"]),
        "ratio_is": row["ratio_is"],
        "bar": "–" if row["bar"] is None else row["bar"]["text"],
        "met": "not measured" if row["ours"] is None else MARKS[row["met"]],
        "runs": str(row["runs"] or "–"),
        "note": row["note"],
    }


def summary(results: dict[str, Any]) -> list[str]:
    """Return one line a row for the terminal."""
    lines = []
    for row in map(shown, results["rows"]):
        ratio = f", {row['ratio_is']} {row['ratio']}" if row["ratio_is"] else ""
        rival = f" against {row['rival']}" if row["rival"] != "–" else ""
        lines.append(f"{row['met']:>12}  {row['name']}: {row['ours']}{rival} {row['unit']}{ratio} (bar: {row['bar']})")
    return lines


def pictures(results: dict[str, Any]) -> list[dict[str, str]]:
    """Return the figures as embedded pictures with a text for those who cannot see them."""
    rows, stages = results["rows"], results["stages"]
    grown = [each for each in stages if each["stage"] == "preprocess"]
    met = sum(row["met"] is True for row in rows)
    judged = sum(row["met"] is not None for row in rows)
    drawn = []
    if judged:
        text = f"How many times its bar each row reaches; {met} of {judged} are met. The table gives the figures."
        drawn.append((plots.against_bars(rows), text))
    if len({each["size"] for each in grown}) > 1:
        text = "Time a candidate and peak memory of preprocessing by the size of the bundle; the table below has them."
        drawn.append((plots.growth(grown, MEMORY_GB), text))
    if any(each["peak_mb"] for each in stages):
        text = "Peak anonymous memory of each stage in a process of its own; the table below gives the figures."
        drawn.append((plots.memory(stages), text))
    return [{"address": address(figure), "alt": text} for figure, text in drawn]


def number(value: float | None) -> str:
    """Write a figure to about three digits, four below 1 so that an AUC can be told from another.

    Large ones are written out: 1,234,567.
    """
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.4g}"


def _with_ends(row: dict[str, Any], side: str) -> str:
    ends = row["spread"].get(side)
    value = number(row[side])
    return value if ends is None else f"{value} [{number(ends[0])}, {number(ends[1])}]"
