"""What is known of the runs of a profile: the record and results of each stage, its state, and the scorers.

Standard library only, so that the doctor, the terminal and the check whether a page is up to date start at once.
"""

import contextlib
import re
import site
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ebnerd_lib.data.layout import generated_stamp
from ebnerd_lib.errors import EbnerdError
from ebnerd_lib.pipeline import paths as layout
from ebnerd_lib.pipeline.paths import StagePaths, read_json

BY_HAND = ("interactive", "train")
"""The runs, as manifests name them, that are not the runner's: the next one of these runs the stage again."""
_TRACEBACK_LINES = 8


@dataclass
class Run:
    """What is known of a stage.

    Attributes:
        paths: where its files are.
        manifest: the record of its artifacts, empty if it never ran.
        metrics: its results, empty if there are none.
        state: ``complete``, ``out of date``, ``by hand``, ``not run`` or ``failed``, see `read_runs`.
        message: why it is in this state and what to do; empty if it is complete or was not run.
    """

    paths: StagePaths
    manifest: dict[str, Any]
    metrics: dict[str, Any] = field(default_factory=dict)
    state: str = "not run"
    message: str = ""

    @property
    def stage(self) -> str:
        """The name of the stage."""
        return self.paths.stage

    @property
    def by_hand(self) -> bool:
        """Whether the artifacts are of a run by hand."""
        return self.manifest.get("run") in BY_HAND

    @cached_property
    def page(self) -> str | None:
        """The file name of the stage's report, ``None`` if no notebook was executed."""
        if self.paths.failed.exists():
            return self.paths.failed_report.name
        return self.paths.report.name if self.paths.executed.exists() else None

    def sources(self) -> Iterator[tuple[Path, Path, bool]]:
        """Yield each executed notebook, its report and whether that run failed."""
        if self.paths.executed.exists():
            yield self.paths.executed, self.paths.report, False
        if self.paths.failed.exists():
            yield self.paths.failed, self.paths.failed_report, True

    @cached_property
    def traceback(self) -> str:
        """The last lines of the traceback with which the last batch run ended; empty if there is none."""
        notebook = read_json(self.paths.failed) or {}
        outputs = [output for cell in notebook.get("cells", []) for output in cell.get("outputs", [])]
        lines = [line for output in outputs if output.get("output_type") == "error" for line in output["traceback"]]
        return "\n".join(plain("\n".join(lines)).splitlines()[-_TRACEBACK_LINES:])


def read_runs(profile: str, stages: list[str], stale: Mapping[str, str] | None = None) -> list[Run]:
    """Return what is known of the stages of a profile, in their order.

    Args:
        profile: a folder of ``outputs``; stages without files there are ``not run``.
        stages: the stages of the profile.
        stale: by stage, what changed since it ran, see `stale.stale_stages`; nobody looked if not given.
    """
    runs = []
    for stage in stages:
        paths = StagePaths(profile, stage)
        metrics = read_json(paths.artifacts / "metrics.json") or {}
        runs.append(Run(paths, read_json(paths.manifest) or {}, metrics))
    for run in runs:
        run.state, run.message = _state(run, runs, (stale or {}).get(run.stage, ""))
    return runs


def _state(run: Run, runs: list[Run], stale: str) -> tuple[str, str]:
    failure = read_json(run.paths.failure)
    if failure is not None and not (run.by_hand and _is_newer(run.paths.manifest, run.paths.failure)):
        return "failed", plain(str(failure.get("message", "")))
    if not run.manifest:
        return "not run", ""
    if run.by_hand:
        return "by hand", "Made by hand, in Jupyter or by `train`; `make run-all` runs this stage again."
    if not run.paths.executed.exists():
        return "out of date", "Its last batch run did not finish; what it left is from an earlier one."
    if changed := _changed_inputs(run, runs):
        return "out of date", f"{', '.join(changed)} ran again since; `make run-all` runs this stage again."
    if stale:
        return "out of date", f"{stale}; `make run-all` runs this stage again."
    return "complete", ""


def _is_newer(file: Path, other: Path) -> bool:
    return file.stat().st_mtime_ns > other.stat().st_mtime_ns


def _changed_inputs(run: Run, runs: list[Run]) -> list[str]:
    """Return the stages whose artifacts are no longer those that a stage read."""
    inputs, changed = run.manifest.get("inputs", {}), []
    for other in runs:
        folder = f"outputs/{other.paths.profile}/artifacts/{other.stage}/"
        written = other.manifest.get("outputs", {})
        read = {name.removeprefix(folder): value for name, value in inputs.items() if name.startswith(folder)}
        if any(written.get(name) != value for name, value in read.items()):
            changed.append(other.stage)
    return changed


def origin(runs: list[Run]) -> dict[str, Any]:
    """Return where the data of a profile come from: ``generated``, the stamp of generated data, and ``bundle``.

    Either is ``None`` if it is unknown. The parameter files are asked where no stage is complete.
    """
    records = [run.manifest for run in runs if run.manifest]
    if records:
        bundle = next((r["parameters"]["bundle"] for r in records if "bundle" in r.get("parameters", {})), None)
        stamps = (record.get("generated") for record in records)
        return {"generated": next((stamp for stamp in stamps if isinstance(stamp, dict)), None), "bundle": bundle}
    from ebnerd_lib.pipeline.params import load_config

    with contextlib.suppress(EbnerdError):
        for run in runs:
            if bundle := load_config(run.paths.profile, run.stage).parameters.get("bundle"):
                return {"generated": generated_stamp(layout.ROOT / bundle), "bundle": bundle}
    return {"generated": None, "bundle": None}


# --- scorers -----------------------------------------------------------------------------------------------


def scorers(runs: list[Run]) -> list[dict[str, Any]]:
    """Return every scorer with its results on validation, best AUC first; equal ones by name.

    Stages that failed are left out: what lies in their folder is from another run. A name that occurs in
    several stages counts once, where it comes first.
    """
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        for kind in ("models", "baselines"):
            entries = run.metrics.get(kind)
            for name, entry in entries.items() if isinstance(entries, dict) else ():
                results = entry.get("validation") if isinstance(entry, dict) else None
                if run.state != "failed" and name not in found and results and is_number(results.get("auc")):
                    found[name] = {
                        **results,
                        "name": name,
                        "kind": kind.removesuffix("s"),
                        "tier": str(entry.get("tier", "")),
                        "page": run.page,
                        "note": "" if run.state == "complete" else run.state,
                        "interval": _interval(results.get("auc_ci")),
                    }
    return sorted(found.values(), key=lambda scorer: (-scorer["auc"], scorer["name"]))


def _interval(ends: Any) -> tuple[float, float] | None:
    if isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends)):
        return ends[0], ends[1]
    return None


def own_scorers(run: Run, runs: list[Run]) -> list[dict[str, Any]]:
    """Return the models that a stage evaluated, or its baselines if it has none, each with the baseline to beat.

    ``against`` is the baseline of the same or a lower tier with the highest AUC: its ``name`` and ``tier``, the
    ``difference`` to it, and whether the two intervals lie apart: ``above``, ``below`` or
    ``overlaps``, also if one is not known. It is ``None`` for baselines, and where there is no such baseline.
    """
    baselines = [scorer for scorer in scorers(runs) if scorer["kind"] == "baseline"]
    own = scorers([run])
    told = [scorer for scorer in own if scorer["kind"] == "model"] or own
    return [{**scorer, "against": _against(scorer, baselines)} for scorer in told]


def _against(scorer: dict[str, Any], baselines: list[dict[str, Any]]) -> dict[str, Any] | None:
    from ebnerd_lib.features.registry import TIERS

    if scorer["kind"] == "baseline" or scorer["tier"] not in TIERS:
        return None
    known = TIERS[: TIERS.index(scorer["tier"]) + 1]
    best = max((b for b in baselines if b["tier"] in known), key=lambda b: b["auc"], default=None)
    if best is None:
        return None
    verdict = "overlaps"
    if scorer["interval"] and best["interval"]:
        if scorer["interval"][0] > best["interval"][1]:
            verdict = "above"
        elif scorer["interval"][1] < best["interval"][0]:
            verdict = "below"
    return {"name": best["name"], "tier": best["tier"], "difference": scorer["auc"] - best["auc"], "verdict": verdict}


def headline(profile: str, stages: list[str]) -> list[str]:
    """Return a table of every scorer as lines for the terminal, best AUC first; none if there are none."""
    rows = [["scorer", "tier", "AUC", "95 % interval", "nDCG@10"]]
    for scorer in scorers(read_runs(profile, stages)):
        name = scorer["name"] + (" (baseline)" if scorer["kind"] == "baseline" else "")
        rows.append(
            [
                f"{name} [{scorer['note']}]" if scorer["note"] else name,
                scorer["tier"],
                f"{scorer['auc']:.4f}",
                "[{:.4f}, {:.4f}]".format(*scorer["interval"]) if scorer["interval"] else "–",
                f"{scorer['ndcg@10']:.4f}" if is_number(scorer.get("ndcg@10")) else "–",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in padded] if len(rows) > 1 else []


def is_number(value: Any) -> bool:
    """Say whether a value read from JSON is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- text without commands and local paths -----------------------------------------------------------------

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_OVERWRITTEN = re.compile(r"^[^\n]*\r(?=[^\r\n])", re.MULTILINE)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")
_PREFIXES = [
    (re.compile(r"[^\s\"'`<>(=,]*/ipykernel_\d+/\d+\.py"), "(cell)"),
    (re.compile(r"[^\s\"'`<>(=,]*/(?:site|dist)-packages/"), "…/"),
    (re.compile(r"[^\s\"'`<>(=,]*/lib/python3\.\d+/"), "…/"),
]
_HOMES = re.compile(r"(?<![\w.~-])/(?:home|Users)/[^/\s\"'`<>:]+")


def printable(text: str) -> str:
    r"""Drop what would command a terminal: its escapes, other control characters, lines that were written over.

    >>> printable("\x1b[31mred\x1b[0m\a 10 %\r100 %")
    '100 %'
    """
    return _CONTROLS.sub("", _OVERWRITTEN.sub("", _ESCAPES.sub("", text)))


def plain(text: str) -> str:
    r"""Drop terminal escapes, lines that were written over, and the prefixes of local paths.

    >>> plain("\x1b[31mred\x1b[0m, " + str(layout.ROOT / "ebnerd_lib" / "errors.py") + ", /home/ann/x")
    'red, ebnerd_lib/errors.py, ~/x'
    """
    text = printable(text)
    for pattern, short in _PREFIXES:
        text = pattern.sub(short, text)
    for prefix, short in _local_prefixes():
        text = re.sub(rf"(?<![\w.~-]){re.escape(prefix)}(?:(?=[^\w.-])|$)/?", short, text)
    return _HOMES.sub("~", text)


def _local_prefixes() -> list[tuple[str, str]]:
    """Return the folders of this machine, longest first, each with what to write instead."""
    root, home = str(layout.ROOT), str(Path.home())
    pairs = {home: "~/", sys.prefix: "…/", sys.base_prefix: "…/", site.getuserbase(): "…/", root: ""}
    if root.startswith(home + "/"):
        pairs["~" + root.removeprefix(home)] = ""
    return [(prefix, pairs[prefix]) for prefix in sorted(pairs, key=len, reverse=True) if len(prefix) > 1]
