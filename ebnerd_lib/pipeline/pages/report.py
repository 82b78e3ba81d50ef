"""The pages of a profile, one a stage and an index, and the index over all profiles.

Whether a file is up to date is told by the standard library alone; what renders is imported when there is
work. A report is two steps: `pages.body` makes safe HTML of the cells, ``templates/report.html.j2`` puts a summary
before them.
"""

from pathlib import Path
from typing import Any

from ebnerd_lib.errors import EbnerdError
from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline.pages import body as bodies
from ebnerd_lib.pipeline.pages import runs as known
from ebnerd_lib.pipeline.pages import scorers as evaluated
from ebnerd_lib.pipeline.pages.page import TIERS, fill, is_number, is_rendered, machinery, page_key, plain, write_page
from ebnerd_lib.pipeline.pages.runs import Run, read_runs, status
from ebnerd_lib.pipeline.paths import StagePaths

_PARTS = [Path(__file__), Path(bodies.__file__), Path(known.__file__), Path(evaluated.__file__)]
"""The modules that say how pages look."""


def render_profile(profile: str, stages: list[str], stale: dict[str, str] | None = None) -> int:
    """Render what is missing or out of date of a profile's reports, and its index.

    Args:
        profile: a folder of ``outputs``; nothing is written where it holds no outputs.
        stages: the stages of the profile in order.
        stale: by stage, what changed since it ran, see `fingerprint.changes`.

    Returns:
        How many reports were rendered; the index does not count.
    """
    runs = read_runs(profile, stages, stale)
    origin, renders = known.origin(runs), machinery(*_PARTS)
    facts = [[run.stage, run.page, *status(run, runs), run.metrics.get("baselines")] for run in runs]
    rendered = 0
    for run in runs:
        for notebook, target, failed in run.sources():
            key = page_key(renders, facts, origin, run.manifest, run.metrics, notebook.read_bytes())
            if not is_rendered(target, key):
                write_page(target, _report(run, runs, origin, notebook, failed), key)
                rendered += 1
    index = StagePaths(profile, "").outputs / "index.html"
    key = page_key(renders, facts, origin, [[run.manifest, run.metrics, run.traceback] for run in runs])
    if index.parent.is_dir() and not is_rendered(index, key):
        write_page(index, _index(profile, runs, origin), key)
    return rendered


def render_all() -> list[str]:
    """Render the pages of every profile that has outputs and the index over all, without running anything.

    Returns:
        A line a profile, what was rendered or why it was not.
    """
    from ebnerd_lib.pipeline.stale import stale_stages

    lines = []
    for profile in _profiles():
        try:
            stages = paths.profile_stages(profile)
            rendered = render_profile(profile, stages, stale_stages(profile, stages))
        except EbnerdError as error:
            lines.append(f"{profile}: not rendered: {error}")
        else:
            lines.append(f"{profile}: {rendered} reports rendered, index outputs/{profile}/index.html")
    render_overview()
    return lines


def overview_file() -> Path:
    """Return the index over all profiles."""
    return paths.ROOT / "outputs" / "index.html"


def render_overview() -> None:
    """Render the index over all profiles that have outputs."""
    outputs = overview_file().parent
    rows = []
    for profile in _profiles():
        stages, stale = _stages(profile)
        runs = read_runs(profile, stages, stale)
        rows.append({"profile": profile, **_summary(runs, evaluated.scorers(runs)), **known.origin(runs)})
    key = page_key(machinery(*_PARTS), rows)
    if outputs.is_dir() and not is_rendered(overview_file(), key):
        write_page(overview_file(), fill("overview.html.j2", rows=rows), key)


def _profiles() -> list[str]:
    return [profile for profile in paths.profiles() if StagePaths(profile, "").outputs.is_dir()]


def _stages(profile: str) -> tuple[list[str], dict[str, str]]:
    """Return the stages of a profile and what changed since they ran; of one with a wrong file, what is told of it."""
    from ebnerd_lib.pipeline.stale import stale_stages

    try:
        stages = paths.profile_stages(profile)
        return stages, stale_stages(profile, stages)
    except EbnerdError as error:
        found = sorted(path.parent.name for path in StagePaths(profile, "").outputs.glob("artifacts/*/manifest.json"))
        return found, dict.fromkeys(found, plain(str(error)))


# --- a report ----------------------------------------------------------------------------------------------


def _report(run: Run, runs: list[Run], origin: dict[str, Any], notebook: Path, failed: bool) -> str:
    import nbformat

    executed = nbformat.read(notebook, as_version=4)
    body = bodies.Body(bodies.cells(executed), {other.stage: other.page for other in runs if other.page})
    place = runs.index(run)
    record = _record(run, executed, failed)
    earlier = run.by_hand and not failed
    own = [] if failed or earlier else evaluated.own_scorers(run, runs)
    return fill(
        "report.html.j2",
        stage=run.stage,
        profile=run.paths.profile,
        title=body.title or run.stage,
        question=body.question,
        body=body.html,
        contents=body.contents,
        record=record,
        given=_papermill(executed).get("parameters", {}),
        tiers=_tiers(run, record),
        generated=record.get("generated", origin["generated"]),
        bundle=record.get("parameters", {}).get("bundle", origin["bundle"]),
        status=("failed", run.failure or _error_line(executed)) if failed else status(run, runs),
        scorers=own,
        scale=evaluated.scale(own),
        headline=[] if failed or earlier else _headline(run),
        earlier=earlier,
        before=next((other for other in reversed(runs[:place]) if other.page), None),
        after=next((other for other in runs[place + 1 :] if other.page), None),
    )


def _headline(run: Run) -> list[dict[str, Any]]:
    """Return the figures that a stage itself puts first: ``what``, ``value``, and maybe ``interval`` and ``note``."""
    entries = run.metrics.get("headline")
    told = entries if isinstance(entries, list) else []
    return [entry for entry in told if isinstance(entry, dict) and {"what", "value"} <= set(entry)]


def _record(run: Run, executed: Any, failed: bool) -> dict[str, Any]:
    """Return the record of the run that a notebook shows; the artifacts may be of another one."""
    if run.manifest and not failed and not run.by_hand:
        return run.manifest
    noted = _papermill(executed)
    return {
        "parameters": noted.get("parameters", {}),
        "started": noted.get("start_time"),
        "duration_seconds": noted.get("duration"),
        "run": "batch",
    }


def _papermill(executed: Any) -> dict[str, Any]:
    noted = executed.metadata.get("papermill", {})
    return {**noted, "parameters": {k: v for k, v in noted.get("parameters", {}).items() if k != "profile"}}


def _tiers(run: Run, record: dict[str, Any]) -> list[str]:
    """Return the tiers of a run, those of its figures before those of its parameters."""
    entries = run.metrics.get("models") or run.metrics.get("baselines")
    if isinstance(entries, dict) and entries:
        found = {str(entry.get("tier")) for entry in entries.values()}
        return [tier for tier in TIERS if tier in found]
    declared = record.get("parameters", {}).get("tiers")
    return [str(tier) for tier in declared] if isinstance(declared, list) else []


def _error_line(executed: Any) -> str:
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return plain(f"{output.ename}: {output.evalue}")
    return "The run ended without an error message."


# --- the indexes -------------------------------------------------------------------------------------------


def _index(profile: str, runs: list[Run], origin: dict[str, Any]) -> str:
    records = [run.manifest for run in runs if run.manifest]
    found = evaluated.scorers(runs)
    return fill(
        "index.html.j2",
        profile=profile,
        summary=_summary(runs, found),
        rows=[(run, *status(run, runs)) for run in runs],
        scorers=found,
        scale=evaluated.scale(found),
        tiers=TIERS,
        records=records,
        latest=max(records, key=lambda record: str(record.get("started")), default=None),
        **origin,
    )


def _summary(runs: list[Run], found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is to be said of a profile and its scorers in a line or two."""
    states = [(run.stage, *status(run, runs)) for run in runs]
    records = [run.manifest for run in runs if run.manifest]
    seconds = [r["duration_seconds"] for r in records if is_number(r.get("duration_seconds"))]
    order = ("failed", "out of date", "by hand", "not run", "complete")
    return {
        "state": min((state for _, state, _ in states), key=order.index, default="not run"),
        "complete": sum(state == "complete" for _, state, _ in states),
        "stages": len(states),
        "troubles": [trouble for trouble in states if trouble[1] in ("failed", "out of date", "by hand")],
        "model": next((scorer for scorer in found if scorer["kind"] == "model"), None),
        "baseline": next((scorer for scorer in found if scorer["kind"] == "baseline"), None),
        "seconds": sum(seconds) if seconds else None,
        "started": max((str(record.get("started")) for record in records), default=None),
    }
