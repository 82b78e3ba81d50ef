"""Judge scores that come from elsewhere as our own are judged: the same figures, table and report."""

import datetime
import time
from pathlib import Path
from typing import Any

import pandas as pd

from ebnerd_lib import plots
from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.errors import BundleError, ConfigError
from ebnerd_lib.evaluation import compare
from ebnerd_lib.evaluation.compare import Scorer
from ebnerd_lib.evaluation.metrics import METRICS
from ebnerd_lib.evaluation.scores_file import read_scores
from ebnerd_lib.evaluation.slices import slices_of
from ebnerd_lib.features.registry import TIERS
from ebnerd_lib.pipeline.fingerprint import sha256
from ebnerd_lib.pipeline.json_file import write_json
from ebnerd_lib.pipeline.layout import ROOT, relative
from ebnerd_lib.pipeline.manifest import environment
from ebnerd_lib.pipeline.pages.body import Body
from ebnerd_lib.pipeline.pages.page import TIERS as MEANING
from ebnerd_lib.pipeline.pages.page import fill, page_key, write_page
from ebnerd_lib.tables import show

PARTS = ("validation", "tuning")
UNDECLARED = "not declared"


def evaluate(
    scores: Path,
    bundle: Path,
    part: str = "validation",
    tier: str = UNDECLARED,
    tuning: Path | None = None,
    reference: Path | None = None,
    out: Path | None = None,
    cut: str = "official",
    seed: int = 0,
) -> dict[str, Any]:
    """Judge a scores file and write ``metrics.json``, ``manifest.json`` and ``report.html``.

    Args:
        scores: the file, see ``ebnerd_lib.evaluation.scores_file``: every candidate of every impression of the part.
        bundle: folder of the bundle that was scored.
        part: ``validation`` or ``tuning``, the last 24 h of the train week.
        tier: what the scorer knows, one of the information tiers; shown beside its figures.
        tuning: the same scorer's scores of the tuning day. Without it there are no probabilities, so no log loss, F1,
            accuracy and calibration; scores of the tuning day itself are calibrated on themselves.
        reference: scores of the part by a scorer to compare with, impression by impression.
        out: folder to write; ``outputs/evaluate/<name of the file>`` if not given.
        cut: how the bundle is cut into parts, ``official`` or ``quantile``.
        seed: of the bootstrap.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        BundleError: the bundle or a scores file is wrong.
        ConfigError: part, tier or cut are unknown, or two files have one name.
    """
    started, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    if part not in PARTS:
        raise ConfigError(f"split '{part}' is unknown. Use one of {', '.join(PARTS)}.")
    if tier not in (*TIERS, UNDECLARED):
        raise ConfigError(f"tier '{tier}' is unknown. Use one of {', '.join(TIERS)}.")
    data = datasets.prepare(opened := open_bundle(bundle), cut)[0]
    scorers = [_scorer(scores, data, part, tier, tuning)]
    if reference is not None:
        scorers.append(_scorer(reference, data, part, UNDECLARED, None))
        if scorers[0].name == scorers[1].name:
            raise ConfigError(f"{reference}: has the name of {scores}, by which tables tell scorers. Rename one.")
    metrics = _figures(scorers, data, part, seed)
    manifest = {
        "command": "evaluate",
        "parameters": {"split": part, "tier": tier, "cut": cut, "seed": seed, "bundle": relative(bundle)},
        "inputs": {relative(file): sha256(file) for file in (scores, tuning, reference) if file is not None},
        "generated": opened.generated,
        **environment(),
        "started": started.isoformat(timespec="seconds"),
        "duration_seconds": round(time.monotonic() - clock, 2),
    }
    out = out or ROOT / "outputs" / "evaluate" / scorers[0].name
    write_json(out / "metrics.json", metrics)
    write_json(out / "manifest.json", manifest)
    write_page(out / "report.html", _page(metrics, manifest, part), page_key(metrics, manifest))
    for line in summary(metrics, part):
        print(line)
    print(f"report: {out / 'report.html'}")
    return metrics


def _scorer(file: Path, data: Dataset, part: str, tier: str, tuning: Path | None) -> Scorer:
    scores = {part: read_scores(file, data.parts[part])}
    if tuning is not None and part != "tuning":
        scores["tuning"] = read_scores(tuning, data.parts["tuning"])
    name = file.stem.removeprefix("scores_").removeprefix("tuning_") or file.stem
    return Scorer(name, tier, scores)


def _figures(scorers: list[Scorer], data: Dataset, part: str, seed: int) -> dict[str, Any]:
    slates = data.parts[part]
    if not slates.has_choice.any():
        raise BundleError(
            f"{part}: none of the {len(slates)} impressions has a click and something beside it, nothing to "
            "judge by. Use a bundle whose clicks are not hidden."
        )
    judged = [compare.judge_scorer(each, data.parts, seed) for each in scorers]
    base = scorers[-1].name
    return {
        "models": {each.scorer.name: each.figures for each in judged},
        "differences": {
            "reference": base if len(judged) > 1 else None,
            "scorers": compare.differences(judged, base, slates, part, seed),
        },
        "slices": compare.compare_slices(judged, base, slices_of(data, part), slates, part, seed),
        "calibration": compare.calibration_curves(judged, slates, part),
    }


def summary(metrics: dict[str, Any], part: str) -> list[str]:
    """Return the table of scorers as lines for the terminal."""
    rows = [["scorer", "tier", "AUC", "95 % interval", *METRICS[1:], "impressions"]]
    for name, entry in metrics["models"].items():
        own = entry[part]
        low, high = own["auc_ci"]
        figures = [f"{own[metric]:.4f}" for metric in METRICS[1:]]
        count = f"{own['impressions']:,}"
        rows.append([name, entry["tier"], f"{own['auc']:.4f}", f"{low:.4f} to {high:.4f}", *figures, count])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _page(metrics: dict[str, Any], manifest: dict[str, Any], part: str) -> str:
    """Render the report: the tables and figures of 05_compare that scores alone allow."""
    entries, difference = metrics["models"], metrics["differences"]["scorers"]
    reference = metrics["differences"]["reference"] or ""
    where = "the tuning day" if part == "tuning" else part
    table = compare.comparison_table(entries, difference, reference, part)
    pieces = [
        "<h2>Scorers</h2>",
        _table(table, f"Figures on {where}: means over impressions with 95 % intervals over users"),
        _picture(plots.intervals(entries, part), f"AUC on {where} with 95 % intervals; the table gives the figures."),
    ]
    if difference:
        pieces += [
            "<h2>Differences</h2>",
            _table(compare.difference_table(difference), f"Less {reference}, paired over impressions, 95 % intervals"),
        ]
    pieces += ["<h2>Slices</h2>", _table(compare.slice_table(metrics["slices"]), "AUC by slice with 95 % intervals")]
    if difference:
        caption = f"AUC less {reference}'s by slice, paired, with 95 % intervals"
        pieces.append(_table(compare.slice_table(metrics["slices"], "difference"), caption))
    panels = plots.slices(metrics["slices"], list(entries)[:4])
    pieces.append(_picture(panels, "AUC by slice, one panel a dimension; the table gives the figures."))
    for name, curve in metrics["calibration"].items():
        caption = f"Calibration of {name}: expected calibration error {curve['ece']:.4f} in bins of equal count"
        bins = pd.DataFrame(curve["curve"])
        pieces += ["<h2>Calibration</h2>", _table(bins, caption, {"probability": 4, "click_rate": 4})]
        pieces.append(_picture(plots.calibration({name: curve}), "Click rate against predicted probability."))
    body = Body("".join(pieces), {})
    return fill(
        "evaluate.html.j2",
        body=body.html,
        record=manifest,
        generated=manifest["generated"],
        bundle=manifest["parameters"]["bundle"],
        tiers=MEANING,
    )


def _table(table: Any, caption: str, decimals: dict[str, int] | None = None) -> str:
    # Without its random id, the same table gives the same bytes.
    return str(show(table, caption, decimals).set_uuid("t").to_html(exclude_styles=True))


def _picture(figure: Any, alt: str) -> str:
    return f'<figure class="picture"><img alt="{alt}" src="{plots.address(figure)}"></figure>'
