"""The tables of a study, one function a part, made of the rows of its cells."""

import statistics
from typing import Any

from ebnerd_lib.pipeline.study.claims import check, claims
from ebnerd_lib.pipeline.study.configuration import Configuration
from ebnerd_lib.pipeline.study.differences import Interval, step
from ebnerd_lib.pipeline.study.parts import left_out, reseeded, scorers, seeds_of_training, shares_of_days
from ebnerd_lib.pipeline.study.profile import main_model, models
from ebnerd_lib.pipeline.study.search import changes_of

Row = dict[str, Any]
Rows = dict[tuple[str, int], Row]
"""The rows of cells, by name of the configuration and seed of the bundle."""


def spread(values: list[float]) -> dict[str, float]:
    """Return mean and spread, the largest less the smallest.

    >>> spread([0.5, 0.75, 1.0])
    {'mean': 0.75, 'spread': 0.5}
    """
    return {"mean": statistics.fmean(values), "spread": max(values) - min(values)}


def scorer_table(rows: Rows, seeds: list[int], profile: str) -> list[Row]:
    """Return every scorer with its AUC on each bundle, best mean first."""
    table = [_line(each.name, rows, seeds) for each in scorers(profile) if (each.name, seeds[0]) in rows]
    return sorted(table, key=lambda line: (-line["mean"], line["name"]))


def check_table(rows: Rows, seeds: list[int], profile: str, interval: Interval) -> list[Row]:
    """Return the claims with their verdicts."""
    return [check(claim, _auc(rows), seeds, interval) for claim in claims(models(profile))]


def group_table(rows: Rows, seeds: list[int], profile: str, interval: Interval) -> list[Row]:
    """Return what each group is worth: AUC with all columns less AUC without it, most first. See ``verdict``."""
    auc, table, noise = _auc(rows), [], training_noise(rows, seeds, profile)
    for entry in left_out(profile):
        steps = [step(entry.name, entry.full, auc, seed, interval) for seed in seeds]
        mean = statistics.fmean(each["difference"] for each in steps)
        table.append(
            {
                "title": entry.title,
                "columns": entry.columns,
                "left": len(entry.columns),
                "seen": rows[entry.name, seeds[0]]["columns"],
                "name": entry.name,
                "tier": rows[entry.name, seeds[0]]["tier"],
                "auc": [auc[entry.name][seed] for seed in seeds],
                "steps": steps,
                "mean": mean,
                "verdict": verdict(mean, [each["difference_ci"] for each in steps], noise),
            }
        )
    return sorted(table, key=lambda line: -line["mean"])


def training_noise(rows: Rows, seeds: list[int], profile: str) -> float:
    """Return how far the main model's AUC moves with the seed of training alone: its spread, mean over bundles."""
    names = [each.name for each in reseeded(main_model(profile))]
    return statistics.fmean(spread([rows[n, seed]["validation"]["auc"] for n in names])["spread"] for seed in seeds)


def verdict(mean: float, intervals: list[list[float]], noise: float) -> str:
    """Say what a worth shows.

    Intervals over users know nothing of what another seed of training would have given, so they do not decide alone: a
    group helps where its mean worth is above ``noise`` and the interval lies above 0 on every bundle, and hurts
    where both are so on the other side.

    Args:
        mean: worth in AUC, mean over bundles.
        intervals: of the worth, one a bundle.
        noise: see ``training_noise``.

    Examples:
        >>> verdict(0.1, [[0.01, 0.02], [0.001, 0.2]], 0.01), verdict(-0.15, [[-0.2, -0.1]], 0.01)
        ('helps', 'hurts')
        >>> verdict(0.1, [[0.05, 0.2], [-0.01, 0.1]], 0.01), verdict(0.02, [[0.01, 0.03]], 0.05)
        ('not shown', 'not shown')
    """
    if mean > noise and all(low > 0 for low, _ in intervals):
        return "helps"
    return "hurts" if mean < -noise and all(high < 0 for _, high in intervals) else "not shown"


def training_table(rows: Rows, seed: int, profile: str) -> list[Row]:
    """Return how far each scorer moves with the seed of training on the bundle ``seed``."""
    table = []
    for scorer in seeds_of_training(profile):
        if (scorer[0].name, seed) in rows:
            auc = [rows[each.name, seed]["validation"]["auc"] for each in scorer]
            about = {"name": scorer[0].name, "tier": rows[scorer[0].name, seed]["tier"]}
            seeds = [each.parameters["seed"] for each in scorer]
            table.append({**about, "seeds": seeds, "auc": auc, **spread(auc), "deviation": statistics.stdev(auc)})
    return table


def days_table(rows: Rows, seeds: list[int], profile: str) -> list[Row]:
    """Return the learning curve of each scorer: its AUC by share of the training days."""
    table = []
    for scorer in shares_of_days(profile):
        for share, each in scorer.items():
            if (each.name, seeds[0]) in rows:
                size = [rows[each.name, seed]["training"] for seed in seeds]
                days, impressions = ([entry[what] for entry in size] for what in ("days", "impressions"))
                about = {"scorer": scorer[1.0].name, "share": share}
                means = {"days": statistics.fmean(days), "impressions": statistics.fmean(impressions)}
                table.append({**_line(each.name, rows, seeds), **about, **means})
    return table


def search_table(rows: Rows, seeds: list[int], candidates: list[Configuration], profile: str) -> list[Row]:
    """Return the candidates of a search by their AUC on the tuning day, best mean first, of equal ones as they came."""
    table = []
    for each in candidates:
        auc = [rows[each.name, seed]["tuning"]["auc"] for seed in seeds]
        about = {"name": each.name, "model": each.parameters["model"], "changes": changes_of(each, profile)}
        table.append({**about, "tier": rows[each.name, seeds[0]]["tier"], "tuning": auc, **spread(auc)})
    return sorted(table, key=lambda line: -line["mean"])


def choice(rows: Rows, seeds: list[int], candidate: str, judged: str) -> Row:
    """Return the chosen candidate with its figures on validation, the only ones that a search looks at."""
    figures = [rows[judged, seed]["validation"] for seed in seeds]
    ends = [{"seed": seed, "auc": f["auc"], "auc_ci": f["auc_ci"]} for seed, f in zip(seeds, figures, strict=True)]
    tier = rows[judged, seeds[0]]["tier"]
    return {"candidate": candidate, "name": judged, "tier": tier, "seeds": ends, **spread([f["auc"] for f in figures])}


def _line(name: str, rows: Rows, seeds: list[int]) -> Row:
    auc = [rows[name, seed]["validation"]["auc"] for seed in seeds]
    return {"name": name, "tier": rows[name, seeds[0]]["tier"], "auc": auc, **spread(auc)}


def _auc(rows: Rows) -> dict[str, dict[int, float]]:
    auc: dict[str, dict[int, float]] = {}
    for (name, seed), row in rows.items():
        if "validation" in row:
            auc.setdefault(name, {})[seed] = row["validation"]["auc"]
    return auc
