"""What is known of the runs of a profile: the record and results of each stage, its state, and the scorers.

Loads no library of numbers, so that the terminal and the check whether a page is up to date start at once.
"""

import contextlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ebnerd_lib.data.layout import generated_stamp
from ebnerd_lib.errors import EbnerdError
from ebnerd_lib.pipeline import paths as layout
from ebnerd_lib.pipeline.params import StageConfig, base_config, differences, load_profile
from ebnerd_lib.pipeline.paths import StagePaths, lab_number, read_json
from ebnerd_lib.pipeline.stale import stale_stages


@dataclass
class Run:
    """What is known of a stage."""

    paths: StagePaths  # where its files are
    manifest: dict[str, Any]  # the record of its artifacts, empty if it never ran
    metrics: dict[str, Any]  # its results, empty if there are none
    # the parameters that its own file changes, those of a run by hand that were changed there
    changes: dict[str, Any] = field(default_factory=dict)
    # ``complete``, ``out of date``, ``not run`` or ``failed``; of what is no stage of the profile, ``by hand`` or
    # ``left over``
    state: str = ""
    message: str = ""  # why it is in this state and what to do; empty if it is complete or was not run

    @property
    def stage(self) -> str:
        """The name of the stage."""
        return self.paths.stage

    @property
    def belongs(self) -> bool:
        """Whether it is a stage of the profile."""
        return self.state not in ("by hand", "left over")

    @property
    def by_hand(self) -> bool:
        """Whether the artifacts are not of the runner, so that an executed notebook is of an earlier run."""
        return bool(self.manifest) and self.manifest.get("run") != "batch"

    @cached_property
    def sources(self) -> list[tuple[Path, Path, bool]]:
        """Each executed notebook, its report and whether that run failed; the failed one last."""
        paths = self.paths
        known = [(paths.executed, paths.report, False), (paths.failed, paths.failed_report, True)]
        return [source for source in known if source[0].exists()]

    @property
    def page(self) -> str | None:
        """The file name of the stage's report, ``None`` if no notebook was executed."""
        return self.sources[-1][1].name if self.sources else None

    @cached_property
    def failure(self) -> str | None:
        """Why the last batch run failed; ``None`` if it did not."""
        told = read_json(self.paths.failure)
        return None if told is None else plain(str(told.get("message", "")))


def read_runs(profile: str) -> list[Run]:
    """Return what is known of the stages of a profile, in their order, then of other runs that left artifacts.

    Where the parameters are wrong, the stages are those that left artifacts, and the error stands as their message.
    """
    outputs, configs = StagePaths(profile, "").outputs, dict[str, StageConfig]()
    there = sorted(file.parent.name for file in outputs.glob("artifacts/[!.]*/manifest.json"))
    try:
        configs = load_profile(profile)
        stale = stale_stages(profile, configs)
    except EbnerdError as error:
        stale = dict.fromkeys(there, plain(str(error)))
    stages = list(configs) or [stage for stage in there if not lab_number(stage)]
    runs = []
    for stage in dict.fromkeys([*stages, *there]):
        paths = StagePaths(profile, stage)
        run = Run(paths, read_json(paths.manifest) or {}, read_json(paths.artifacts / "metrics.json") or {})
        if stage in stages:
            run.changes = configs[stage].changes if stage in configs else {}
            run.state, run.message = _state(run, stale.get(stage, ""))
        else:
            run.state, run.message = _other(run)
        runs.append(run)
    return runs


def _other(run: Run) -> tuple[str, str]:
    """Return the state of a run that is no stage of the profile, and note what its parameters changed."""
    with contextlib.suppress(EbnerdError):
        base = base_config(run.paths.profile, run.stage)
        run.changes = differences(base.parameters, run.manifest.get("parameters", {}))
    if lab_number(run.stage) or run.stage.startswith("07_"):
        return "by hand", ""
    profile, stage = run.paths.profile, run.stage
    remedy = f"`make clean PROFILE={profile} STAGE={stage}`"
    return "left over", f"params/{profile}/{stage}.yaml is gone. Restore it, or remove what it left: {remedy}."


def _state(run: Run, stale: str) -> tuple[str, str]:
    failure, manifest = run.paths.failure, run.paths.manifest
    if run.failure is not None and not (run.manifest and manifest.stat().st_mtime_ns > failure.stat().st_mtime_ns):
        return "failed", run.failure
    if not run.manifest:
        return "not run", ""
    if not run.by_hand and not run.paths.is_reported:
        return "out of date", "Its last batch run did not finish; what it left is from an earlier one."
    return ("out of date", f"{stale}; `make run-all` runs this stage again.") if stale else ("complete", "")


def origin(runs: list[Run]) -> dict[str, Any]:
    """Return where the data of a profile come from: ``generated``, the stamp of generated data, and ``bundle``.

    Either is ``None`` if it is unknown. The parameter files are asked where no stage is complete.
    """
    records = [run.manifest for run in runs if run.manifest]
    stamp = next((record["generated"] for record in records if record.get("generated")), None)
    bundle = next((r["parameters"]["bundle"] for r in records if "bundle" in r.get("parameters", {})), None)
    if not records and runs:
        with contextlib.suppress(EbnerdError):
            found = (config.parameters.get("bundle") for config in load_profile(runs[0].paths.profile).values())
            if bundle := next(filter(None, found), None):
                stamp = generated_stamp(layout.ROOT / bundle)
    return {"generated": stamp, "bundle": bundle}


# --- scorers -----------------------------------------------------------------------------------------------


def scorers(runs: list[Run]) -> list[dict[str, Any]]:
    """Return every scorer with its results on validation, best AUC first; equal ones by name.

    Stages that failed are left out, as what lies in their folder is from another run, and what is no stage of the
    profile. A name that occurs in several stages counts once, where it comes first.
    """
    found: dict[str, dict[str, Any]] = {}
    for run in (run for run in runs if run.belongs and run.state != "failed"):
        for kind in ("model", "baseline"):
            for name, entry in run.metrics.get(f"{kind}s", {}).items():
                results, vs_baseline = entry.get("validation") or {}, run.metrics.get("vs_baseline") or {}
                if name not in found and is_number(results.get("auc")):
                    found[name] = {
                        **results,
                        "name": name,
                        "kind": kind,
                        "tier": entry.get("tier", ""),
                        "page": run.page,
                        "note": "" if run.state == "complete" else run.state,
                        "against": vs_baseline.get(name),
                    }
    return sorted(found.values(), key=lambda scorer: (-scorer["auc"], scorer["name"]))


def own_scorers(run: Run, runs: list[Run]) -> list[dict[str, Any]]:
    """Return the models that a stage evaluated; its baselines if it has no models.

    Each model has its paired difference to the best baseline of the same or a lower tier, ``against``, as its training
    stage found it (see ``save_results``), ``None`` where there is none.
    """
    against = {each["name"]: each["against"] for each in scorers(runs)}
    own = [{**each, "against": against.get(each["name"])} for each in scorers([run])]
    return [each for each in own if each["kind"] == "model"] or own


def headline(profile: str) -> list[str]:
    """Return a table of every scorer as lines for the terminal, best AUC first; none if there are none."""
    rows = [["scorer", "tier", "AUC", "95 % interval", "nDCG@10"]]
    for each in scorers(read_runs(profile)):
        kind = " (baseline)" if each["kind"] == "baseline" else ""
        note = f" [{each['note']}]" if each["note"] else ""
        interval = "[{:.4f}, {:.4f}]".format(*each["auc_ci"]) if each.get("auc_ci") else "–"
        ndcg = f"{each['ndcg@10']:.4f}" if is_number(each.get("ndcg@10")) else "–"
        rows.append([f"{each['name']}{kind}{note}", each["tier"], f"{each['auc']:.4f}", interval, ndcg])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in padded] if len(rows) > 1 else []


def is_number(value: Any) -> bool:
    """Say whether a value read from JSON is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


# --- text without commands and local paths -----------------------------------------------------------------

_OVERWRITTEN = re.compile(r"^[^\n]*\r(?=[^\r\n])", re.MULTILINE)
_COMMANDS = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)"
)
"""Escapes of a terminal, other control characters, and returns that end no line."""
_CELL = re.compile(r"[^\s\"'`<>(=,]*/ipykernel_\d+/\d+\.py")
_LIBRARIES = re.compile(r"[^\s\"'`<>(=,]*/(?:site-packages|dist-packages|lib/python3\.\d+)/")
_HOMES = re.compile(r"(?<![\w.~-])/(?:home|Users)/[^/\s\"'`<>:]+")


def printable(text: str) -> str:
    r"""Drop what would command a terminal: its escapes, other control characters, lines that were written over.

    >>> printable("\x1b[31mred\x1b[0m\a 10 %\r100 %")
    '100 %'
    """
    return _COMMANDS.sub("", _OVERWRITTEN.sub("", text))


def plain(text: str) -> str:
    r"""Drop terminal escapes, lines that were written over, and the prefixes of local paths.

    >>> plain("\x1b[31mred\x1b[0m, " + str(layout.ROOT / "ebnerd_lib" / "errors.py") + ", /home/ann/x")
    'red, ebnerd_lib/errors.py, ~/x'
    """
    text = _LIBRARIES.sub("…/", _CELL.sub("(cell)", printable(text)))
    root, home = str(layout.ROOT), str(Path.home())
    for folder, short in ((root, ""), (root.replace(home, "~", 1), ""), (home, "~/")):
        if len(folder) > 1:
            text = re.sub(rf"(?<![\w.~-]){re.escape(folder)}(?![\w.-])/?", short, text)
    return _HOMES.sub("~", text)
