"""What is known of the runs of a profile: records and figures of its stages, and the state that each is in.

Standard library only: whether a page is up to date must be told in a moment.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ebnerd_lib.data.layout import generated_stamp
from ebnerd_lib.errors import EbnerdError
from ebnerd_lib.pipeline import paths as layout
from ebnerd_lib.pipeline.pages.page import plain
from ebnerd_lib.pipeline.paths import StagePaths, read_json

BY_HAND = ("interactive", "train")
"""The runs, as manifests name them, that are not the runner's: the next one of these runs the stage again."""
_LAST_LINES = 8


@dataclass(frozen=True)
class Run:
    """What is known of a stage: record and figures of its artifacts, and why its last batch run failed.

    Attributes:
        paths: where its files are.
        manifest: the record of its artifacts, ``None`` where it never ran.
        metrics: its figures, empty where there are none.
        failure: why its last batch run failed, ``None`` where it did not.
        stale: what changed since, as `plan.changes` tells; empty where nothing did or nobody looked.
    """

    paths: StagePaths
    manifest: dict[str, Any] | None
    metrics: dict[str, Any]
    failure: str | None
    stale: str

    @property
    def stage(self) -> str:
        """The name of the stage."""
        return self.paths.stage

    @cached_property
    def page(self) -> str | None:
        """The file name of the stage's report, or ``None`` where no notebook was executed."""
        if self.paths.failed.exists():
            return self.paths.failed_report.name
        return self.paths.report.name if self.paths.executed.exists() else None

    @property
    def by_hand(self) -> bool:
        """Whether the artifacts are of a run by hand."""
        return self.manifest is not None and self.manifest.get("run") in BY_HAND

    def sources(self) -> Iterator[tuple[Path, Path, bool]]:
        """Yield executed notebook, its report and whether the run failed."""
        if self.paths.executed.exists():
            yield self.paths.executed, self.paths.report, False
        if self.paths.failed.exists():
            yield self.paths.failed, self.paths.failed_report, True

    @cached_property
    def traceback(self) -> str:
        """The last lines of the traceback that the last batch run ended with; empty where there is none."""
        notebook = read_json(self.paths.failed) or {}
        outputs = [output for cell in notebook.get("cells", []) for output in cell.get("outputs", [])]
        lines = [line for output in outputs if output.get("output_type") == "error" for line in output["traceback"]]
        return "\n".join(plain("\n".join(lines)).splitlines()[-_LAST_LINES:])


def read_runs(profile: str, stages: list[str], stale: Mapping[str, str] | None = None) -> list[Run]:
    """Return what is known of the stages of a profile, in their order."""
    return [_read_run(StagePaths(profile, stage), (stale or {}).get(stage, "")) for stage in stages]


def _read_run(paths: StagePaths, stale: str) -> Run:
    failure = read_json(paths.failure)
    if failure is not None and paths.manifest.exists():
        manifest = read_json(paths.manifest) or {}
        if manifest.get("run") in BY_HAND and _is_newer(paths.manifest, paths.failure):
            failure = None
    message = None if failure is None else plain(str(failure.get("message", "")))
    metrics = read_json(paths.artifacts / "metrics.json") or {}
    return Run(paths, read_json(paths.manifest), metrics, message, stale)


def _is_newer(file: Path, other: Path) -> bool:
    return file.stat().st_mtime_ns > other.stat().st_mtime_ns


def status(run: Run, runs: list[Run]) -> tuple[str, str]:
    """Return the state of a stage and what to know of it."""
    if run.failure is not None:
        return "failed", run.failure
    if run.manifest is None:
        return "not run", ""
    if run.by_hand:
        return "by hand", "Made by hand, in Jupyter or by `train`; `make run-all` runs this stage again."
    if not run.paths.executed.exists():
        return "out of date", "Its last batch run did not finish; what it left is from an earlier one."
    if changed := _changed_inputs(run, runs):
        return "out of date", f"{', '.join(changed)} ran again since; `make run-all` runs this stage again."
    if run.stale:
        return "out of date", f"{run.stale}; `make run-all` runs this stage again."
    return "complete", ""


def _changed_inputs(run: Run, runs: list[Run]) -> list[str]:
    """Return the stages whose artifacts are no longer those that a stage read."""
    inputs = (run.manifest or {}).get("inputs", {})
    changed = []
    for other in runs:
        folder = f"outputs/{other.paths.profile}/artifacts/{other.stage}/"
        written = (other.manifest or {}).get("outputs", {})
        read = {name.removeprefix(folder): value for name, value in inputs.items() if name.startswith(folder)}
        if any(written.get(name) != value for name, value in read.items()):
            changed.append(other.stage)
    return changed


def origin(runs: list[Run]) -> dict[str, Any]:
    """Return where the data of a profile come from: the stamp of generated ones, and the bundle's folder."""
    records = [run.manifest for run in runs if run.manifest]
    bundle = next((r["parameters"]["bundle"] for r in records if "bundle" in r.get("parameters", {})), None)
    for record in records:
        if isinstance(record.get("generated"), dict):
            return {"generated": record["generated"], "bundle": bundle}
    if records:
        return {"generated": None, "bundle": bundle}
    return _declared_origin(runs)


def _declared_origin(runs: list[Run]) -> dict[str, Any]:
    """Return the origin that the parameter files declare, for a profile of which no stage is complete."""
    from ebnerd_lib.pipeline.params import load_config

    with contextlib.suppress(EbnerdError):
        for run in runs:
            if bundle := load_config(run.paths.profile, run.stage).parameters.get("bundle"):
                return {"generated": generated_stamp(layout.ROOT / bundle), "bundle": bundle}
    return {"generated": None, "bundle": None}
