"""Scorers side by side over the same impressions: figures, paired differences to a reference, slices, calibration."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.evaluation.baselines import BASELINES
from ebnerd_lib.evaluation.calibration import expected_calibration_error, fit_calibration, reliability
from ebnerd_lib.evaluation.judge import candidates_as_saved, judge, load_scores, with_intervals
from ebnerd_lib.evaluation.metrics import METRICS, per_slate
from ebnerd_lib.evaluation.slices import Slice, slice_figures
from ebnerd_lib.features.store import Features


@dataclass(frozen=True)
class Scorer:
    """The scores of one scorer.

    Attributes:
        name: in tables.
        tier: its information tier.
        scores: float (m,) by part, one a candidate in the order of the part's slates; ``tuning`` may be absent.
        parameters: number of trained parameters, ``None`` where it is not known.
    """

    name: str
    tier: str
    scores: Mapping[str, np.ndarray]
    parameters: int | None = None


@dataclass(frozen=True)
class Judged:
    """A scorer with its figures.

    Attributes:
        scorer: the scorer.
        figures: its entry of ``metrics.json``.
        values: float64 (n, metrics) by part: ``per_slate`` of its scores.
        probability: float64 (m,) by part: of a click, by the logistic curve of the tuning day; empty without one.
    """

    scorer: Scorer
    figures: dict[str, Any]
    values: dict[str, np.ndarray]
    probability: dict[str, np.ndarray]


def saved_scorers(folder: Path, dataset: Dataset) -> list[Scorer]:
    """Read every model that a training stage left: its scores, tier and number of parameters.

    Args:
        folder: artifacts of the stage; one without models gives none.
        dataset: whose slates were scored.

    Raises:
        StageError: a scores file is missing or is not of these slates.
    """
    models = json.loads((folder / "metrics.json").read_text(encoding="utf-8")).get("models", {})
    return [
        Scorer(
            name,
            entry["tier"],
            {
                part: _saved_scores(folder / f"{kind}_{name}.parquet", dataset.parts[part])
                for part, kind in (("tuning", "tuning"), ("validation", "scores"))
            },
            entry.get("parameters"),
        )
        for name, entry in models.items()
    ]


def baseline_scorers(dataset: Dataset, features: Mapping[str, Features], seed: int = 0) -> list[Scorer]:
    """Return the baselines' scores, computed anew from the saved features and rounded as saved scores are."""
    return [
        Scorer(
            name,
            tier,
            {
                part: np.asarray(score(dataset, features[part], part, seed), dtype=np.float32)
                for part in ("tuning", "validation")
            },
        )
        for name, (tier, score) in BASELINES.items()
    ]


def judge_scorer(scorer: Scorer, parts: Mapping[str, Slates], seed: int = 0) -> Judged:
    """Compute the figures of a scorer on each part that it scored.

    Probabilities come from a logistic curve fitted on the tuning day; without scores of it there are no
    figures of probabilities.
    """
    tuning = scorer.scores.get("tuning")
    calibration = None if tuning is None else fit_calibration(tuning, parts["tuning"].clicked)
    figures: dict[str, Any] = {"tier": scorer.tier}
    if scorer.parameters is not None:
        figures["parameters"] = scorer.parameters
    values, probability = {}, {}
    for part, scores in scorer.scores.items():
        slates = parts[part]
        figures[part] = judge(scores, slates, calibration, seed)
        values[part] = per_slate(scores, slates.clicked, slates.offsets)
        if calibration is not None:
            probability[part] = calibration.probability(scores)
    return Judged(scorer, figures, values, probability)


def find_reference(judged: list[Judged], name: str) -> Judged:
    """Return the scorer of a name. Raises ``ConfigError`` where there is none, with the names there are."""
    for each in judged:
        if each.scorer.name == name:
            return each
    known = ", ".join(each.scorer.name for each in judged)
    raise ConfigError(f"reference: there is no scorer '{name}' to compare with. Use one of {known}.")


def differences(
    judged: list[Judged], reference: str, slates: Slates, part: str = "validation", seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return what each scorer's metrics exceed the reference's by, impression by impression.

    The intervals draw the same users for both. A scorer with equal scores differs by exactly 0, interval [0, 0].

    Returns:
        By name of every other scorer: its ``tier``, the mean difference of each metric and its ``<metric>_ci``.

    Raises:
        ConfigError: there is no scorer of the reference's name.
    """
    base = find_reference(judged, reference)
    return {
        each.scorer.name: {
            "tier": each.scorer.tier,
            **with_intervals(each.values[part] - base.values[part], slates.user_id, seed),
        }
        for each in judged
        if each is not base
    }


def compare_slices(
    judged: list[Judged], reference: str, slices: list[Slice], slates: Slates, part: str = "validation", seed: int = 0
) -> list[dict[str, Any]]:
    """Return the AUC of every scorer on every slice, see ``slice_figures``."""
    find_reference(judged, reference)
    auc = {each.scorer.name: each.values[part][:, 0] for each in judged}
    return slice_figures(slices, auc, slates.user_id, reference, seed)


def calibration_curves(judged: list[Judged], slates: Slates, part: str = "validation") -> dict[str, dict[str, Any]]:
    """Return the calibration curve and its expected error of every scorer that has probabilities.

    Returns:
        By name: ``ece`` and ``curve``, one record a bin with ``candidates``, ``probability`` and ``click_rate``.
    """
    found = {}
    for each in judged:
        if part in each.probability:
            curve = reliability(each.probability[part], slates.clicked)
            found[each.scorer.name] = {"ece": expected_calibration_error(curve), "curve": curve.to_dict("records")}
    return found


# --- tables ------------------------------------------------------------------------------------------------


def comparison_table(
    entries: Mapping[str, Mapping[str, Any]],
    difference: Mapping[str, Mapping[str, Any]],
    reference: str,
    part: str = "validation",
) -> pd.DataFrame:
    """Tabulate scorers, best AUC first: tier, parameters, AUC of the tuning day, all metrics with 95 % intervals.

    Args:
        entries: of ``metrics.json``, by name.
        difference: see ``differences``; empty where nothing is compared.
        reference: the name that differences refer to.
        part: whose figures to show.
    """
    rows = []
    for name, entry in sorted(entries.items(), key=lambda item: -item[1][part]["auc"]):
        figures = entry[part]
        row = {"scorer": name, "tier": entry["tier"], "parameters": entry.get("parameters")}
        if part != "tuning":
            row["auc, tuning day"] = entry.get("tuning", {}).get("auc")
        row |= {metric: with_interval(figures[metric], figures[f"{metric}_ci"]) for metric in METRICS}
        if difference:
            own = difference.get(name)
            row[f"auc less {reference}'s"] = with_interval(own["auc"], own["auc_ci"], "+") if own else "reference"
        row |= {key: figures.get(key) for key in ("logloss", "f1", "accuracy")}
        rows.append(row | {"impressions": figures["impressions"]})
    table = pd.DataFrame(rows)
    numbers = [c for c in table.columns if c in ("auc, tuning day", "logloss", "f1", "accuracy")]
    return table.astype({"parameters": "Int64"} | dict.fromkeys(numbers, float))


def difference_table(difference: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Tabulate paired differences of all metrics with 95 % intervals, largest in AUC first."""
    rows = [
        {"scorer": name, "tier": entry["tier"]}
        | {metric: with_interval(entry[metric], entry[f"{metric}_ci"], "+") for metric in METRICS}
        for name, entry in sorted(difference.items(), key=lambda item: -item[1]["auc"])
    ]
    return pd.DataFrame(rows, columns=["scorer", "tier", *METRICS])


def slice_table(records: list[dict[str, Any]], figure: str = "auc") -> pd.DataFrame:
    """Tabulate slices against scorers: ``auc`` or ``difference`` with its 95 % interval; – where there is none."""
    sign = "+" if figure == "difference" else ""
    return pd.DataFrame(
        [
            {"": record["dimension"], "slice": record["slice"]}
            | {key: record[key] for key in ("impressions", "users")}
            | {
                name: with_interval(own[figure], own[f"{figure}_ci"], sign)
                for name, own in record["scorers"].items()
                if figure in own
            }
            for record in records
        ]
    )


def calibration_table(
    entries: Mapping[str, Mapping[str, Any]], curves: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """Tabulate expected calibration errors, smallest first."""
    rows = [
        {"scorer": name, "tier": entries[name]["tier"], "calibration error": curve["ece"]}
        for name, curve in sorted(curves.items(), key=lambda item: item[1]["ece"])
    ]
    return pd.DataFrame(rows, columns=["scorer", "tier", "calibration error"])


def run_table(manifests: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Tabulate what runs of stages took, from their manifests."""
    return pd.DataFrame(
        [
            {
                "stage": stage,
                "seconds": float(manifest["duration_seconds"]),
                "peak MB": float(manifest["peak_memory_mb"]),
                "threads": manifest["threads"],
                "device": manifest["device"],
            }
            for stage, manifest in manifests.items()
        ]
    )


def with_interval(value: float, interval: list[float] | None, sign: str = "") -> str:
    """Write a figure with its interval, in four digits.

    >>> with_interval(0.78749, [0.7845, 0.79052]), with_interval(0.004, None, "+")
    ('0.7875 [0.7845, 0.7905]', '+0.0040')
    """
    if interval is None:
        return f"{value:{sign}.4f}"
    return f"{value:{sign}.4f} [{interval[0]:{sign}.4f}, {interval[1]:{sign}.4f}]"


def _saved_scores(path: Path, slates: Slates) -> np.ndarray:
    if not path.exists():
        raise StageError(f"{path}: no such file. Run the training stage for this profile again.")
    table = pq.read_table(path, columns=["impression_id", "article_id"])
    same = all(np.array_equal(table[name], ids) for name, ids in candidates_as_saved(slates).items())
    if not same:
        raise StageError(
            f"{path}: its {table.num_rows} rows are not the {slates.candidates} candidates of these slates in their "
            "order. Run the training stage for this profile again."
        )
    return load_scores(path, slates)
