"""``python -m benchmarks``: measure groups of rows, print one table and write ``outputs/bench/results.json``.

Each group is measured in a process of its own, so that none inherits memory or caches of another. A group that fails
is a row with its error, and the exit code is 1; a bar that is not met is a result, not a failure.
"""

import argparse
import json
import platform
import subprocess
import sys
import traceback
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measure import Row, in_child, measure_group
from ebnerd_lib.pipeline.paths import ROOT

GROUPS = ("slates", "features", "evaluation", "training", "scoring", "pipeline")
"""Modules of this package that have ``measure(run)``, in the order of the table."""
PACKAGES = ("numpy", "pandas", "pyarrow", "numba", "torch", "pytorch-lightning", "scikit-learn", "polars", "lightgbm")


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; return 1 where a group failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", default=",".join(GROUPS), help="groups with commas between (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, to see that everything works")
    parser.add_argument("--large", action="store_true", help="also the size of ebnerd_large: half an hour, 40 GB")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "bench", help="folder (default: outputs/bench)")
    options = parser.parse_args(arguments)
    names = options.rows.split(",")
    if unknown := [name for name in names if name not in GROUPS]:
        parser.error(f"--rows: {', '.join(unknown)} is unknown. Use {', '.join(GROUPS)}.")
    rows: list[dict[str, Any]] = []
    for name in names:
        print(f"measuring {name}", flush=True)
        try:
            rows += in_child(measure_group, name, options.quick, options.large)[0]
        except Exception as error:  # whatever stops a group, the others are measured
            traceback.print_exc()
            rows.append(Row(name, None, "", "", note=f"failed with {type(error).__name__}: {error}").plain())
    results = {"quick": options.quick, **environment(), "rows": rows}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(table(rows))
    return int(any(row["ours"] is None for row in rows))


def environment() -> dict[str, dict[str, Any]]:
    """Return what times depend on, and nothing that names a host or a folder; the commit is empty without git."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    packages = {each.name: each.version for each in distributions() if each.name in PACKAGES}
    memory = round(psutil.virtual_memory().total / 1e9, 1)
    machine = {"system": platform.system(), "cores": psutil.cpu_count(), "memory_gb": memory}
    commit, python = git.stdout.strip(), platform.python_version()
    return {"machine": machine, "versions": {"commit": commit, "python": python, **packages}}


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as one aligned table, with the notes below it."""
    marks = {True: "met", False: "not met", None: "–"}
    lines = [("", "ours", "rival", "unit", "ratio", "bar", "")]
    for row in rows:
        ours, rival, ratio = (_number(row[each]) for each in ("ours", "rival", "ratio"))
        lines.append((row["name"], ours, rival, row["unit"], ratio, row["bar"], marks[row["met"]]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([*shown, "", *(f"{row['name']} – {row['note']}" for row in rows if row["note"])])


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
