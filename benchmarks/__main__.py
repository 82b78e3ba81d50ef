"""``python -m benchmarks``: measure, write ``outputs/bench/{results.json,report.html}``, say what is met.

Every group of rows is measured in a process of its own, so that no group inherits memory or caches of another. A
group that fails is named in the results, and the exit code is 1; a bar that is not met is a result, not a failure.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import bundles, machine
from benchmarks.context import Context
from benchmarks.row import not_measured
from benchmarks.rows import NAMES
from ebnerd_lib.pipeline.json_file import read_json, write_json
from ebnerd_lib.pipeline.layout import ROOT, relative
from ebnerd_lib.pipeline.pages.page import plain
from ebnerd_lib.pipeline.runner import DETERMINISM
from ebnerd_lib.sample import GENERATOR_VERSION

OUT = ROOT / "outputs" / "bench"


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; return 1 where a group failed."""
    options = _parser().parse_args(arguments)
    if options.measure:
        _measure(options.measure, options)
        return 0
    from benchmarks.report import render, summary

    names = options.rows or [name for name, quick in NAMES.items() if quick or not options.quick]
    start, groups = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        for name in names:
            print(f"{name} …", end=" ", flush=True)
            groups[name] = _group(name, options, Path(scratch))
            print(f"{groups[name]['seconds']:.0f} s", flush=True)
    results = _results(options.quick, groups, time.monotonic() - start)
    write_json(options.out / "results.json", results)
    render(options.out / "report.html", results)
    print("\n".join(summary(results)))
    print(f"{relative(options.out / 'report.html')}")
    return int(any(group["failed"] for group in groups.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, and only the rows that take seconds")
    parser.add_argument("--rows", type=_names, help=f"of {','.join(NAMES)} (default: all)")
    parser.add_argument(
        "--large", action="store_true", help="let growth include ebnerd_large's size: half an hour, 40 GB"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write (default: outputs/bench)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}. Use {', '.join(NAMES)}.")
    return names


def _group(name: str, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure a group in a process of its own."""
    file = scratch / f"{name}.json"
    words = [sys.executable, "-m", "benchmarks", "--measure", name, "--into", str(file)]
    words += ["--quick"] * options.quick + ["--large"] * (options.large or (ROOT / "data" / "bench" / "large").exists())
    start = time.monotonic()
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, **DETERMINISM}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    found = read_json(file)
    if done.returncode or found is None:
        print(done.stderr, file=sys.stderr)
        last = (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]
        found = {"rows": [not_measured(name, None, plain(last)).plain()], "stages": [], "failed": True}
    return {"failed": False, **found, "seconds": round(time.monotonic() - start, 1)}


def _measure(name: str, options: argparse.Namespace) -> None:
    module = importlib.import_module(f"benchmarks.rows.{name}")
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=_scratch()) as work:
        found = module.measure(Context(options.quick, options.large, Path(work)))
    options.into.write_text(json.dumps({"rows": [row.plain() for row in found.rows], "stages": found.stages}))


def _scratch() -> Path:
    """Return a folder on the disk of the data: features are large, and a temporary folder may be memory."""
    folder = ROOT / "data" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _results(quick: bool, groups: dict[str, dict[str, Any]], seconds: float) -> dict[str, Any]:
    return {
        "quick": quick,
        "generated": {"generator_version": GENERATOR_VERSION, "seed": bundles.SEED},
        "machine": machine.machine(),
        "versions": machine.versions(),
        "seconds": round(seconds, 1),
        "seconds_by_group": {name: group["seconds"] for name, group in groups.items()},
        "rows": [{"group": name, **row} for name, group in groups.items() for row in group["rows"]],
        "stages": [stage for group in groups.values() for stage in group["stages"]],
    }


if __name__ == "__main__":
    sys.exit(main())
