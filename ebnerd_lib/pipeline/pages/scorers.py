"""The figures of all scorers of a profile, as indexes, reports and the terminal show them. Standard library only."""

from typing import Any

from ebnerd_lib.pipeline.pages.page import TIERS, is_number
from ebnerd_lib.pipeline.pages.runs import Run, read_runs, status

_SCALE = 128
"""Width of the interval bars in px."""


def scorers(runs: list[Run]) -> list[dict[str, Any]]:
    """Return every scorer with its figures on validation, best AUC first; equal ones by name.

    Stages that failed are left out: what lies in their folder is from another run. A name that occurs in
    several stages counts once, where it comes first.
    """
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        state, _ = status(run, runs)
        for kind in ("models", "baselines"):
            entries = run.metrics.get(kind)
            for name, entry in entries.items() if isinstance(entries, dict) else ():
                figures = entry.get("validation") if isinstance(entry, dict) else None
                if state != "failed" and name not in found and figures and is_number(figures.get("auc")):
                    found[name] = {
                        **figures,
                        "name": name,
                        "kind": kind.removesuffix("s"),
                        "tier": str(entry.get("tier", "")),
                        "stage": run.stage,
                        "page": run.page,
                        "note": "" if state == "complete" else state,
                        "interval": interval(figures),
                    }
    return sorted(found.values(), key=lambda scorer: (-scorer["auc"], scorer["name"]))


def interval(figures: dict[str, Any]) -> tuple[float, float] | None:
    """Return the ends of a scorer's 95 % interval of the AUC, ``None`` where it has none."""
    ends = figures.get("auc_ci")
    if isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends)):
        return ends[0], ends[1]
    return None


def own_scorers(run: Run, runs: list[Run]) -> list[dict[str, Any]]:
    """Return the models that a stage judged, or its baselines where it has none, each with the baseline to beat.

    A model may be compared with the baselines that know no more than it does. ``against`` names the one of them with
    the highest AUC, the difference to it, and whether the two intervals lie apart: ``above``, ``below`` or ``not told
    apart``; it is ``None`` where there is none.
    """
    baselines = [scorer for scorer in scorers(runs) if scorer["kind"] == "baseline"]
    own = scorers([run])
    told = [scorer for scorer in own if scorer["kind"] == "model"] or own
    return [{**scorer, "against": _against(scorer, baselines)} for scorer in told]


def _against(scorer: dict[str, Any], baselines: list[dict[str, Any]]) -> dict[str, Any] | None:
    order = list(TIERS)
    if scorer["kind"] == "baseline" or scorer["tier"] not in order:
        return None
    known = order[: order.index(scorer["tier"]) + 1]
    best = max((b for b in baselines if b["tier"] in known), key=lambda b: b["auc"], default=None)
    if best is None:
        return None
    verdict = "not told apart"
    if scorer["interval"] and best["interval"]:
        if scorer["interval"][0] > best["interval"][1]:
            verdict = "above"
        elif scorer["interval"][1] < best["interval"][0]:
            verdict = "below"
    return {"name": best["name"], "tier": best["tier"], "difference": scorer["auc"] - best["auc"], "verdict": verdict}


def headline(profile: str, stages: list[str]) -> list[str]:
    """Return a table of every scorer as lines for the terminal, best AUC first; none if there are none."""
    found = scorers(read_runs(profile, stages))
    if not found:
        return []
    rows = [["scorer", "tier", "AUC", "95 % interval", "nDCG@10"]]
    for scorer in found:
        ends = scorer["interval"]
        name = scorer["name"] + (" (baseline)" if scorer["kind"] == "baseline" else "")
        rows.append(
            [
                name + (f" [{scorer['note']}]" if scorer["note"] else ""),
                scorer["tier"],
                f"{scorer['auc']:.4f}",
                f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "–",
                f"{scorer['ndcg@10']:.4f}" if is_number(scorer.get("ndcg@10")) else "–",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in padded]


def scale(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the ends of a scale that holds every interval and chance, and a function from AUC to px."""
    ends = [0.5, *(end for s in found for end in (s["interval"] or (s["auc"], s["auc"])))]
    margin = max(0.05 * (max(ends) - min(ends)), 0.005)
    low, high = min(ends) - margin, max(ends) + margin
    per_unit = _SCALE / (high - low)
    return {"low": low, "high": high, "width": _SCALE, "x": lambda auc: round((auc - low) * per_unit, 1)}
