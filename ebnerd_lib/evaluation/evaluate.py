"""Evaluate the scores of one scorer: every metric that a table shows of it, in the form of ``metrics.json``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ebnerd_lib.data.slates import Slates, lists_of
from ebnerd_lib.errors import StageError
from ebnerd_lib.evaluation.calibration import classification, fit_calibration
from ebnerd_lib.evaluation.intervals import user_bootstrap, with_interval
from ebnerd_lib.evaluation.metrics import METRICS, mean_metrics, per_slate

SCORED = {"tuning": "tuning", "validation": "scores"}
"""The parts that models score, and how the names of their scores files begin."""


@dataclass(frozen=True)
class Scorer:
    """The scores of one scorer."""

    name: str  # in tables
    tier: str  # its information tier
    scores: Mapping[str, np.ndarray]  # float (m,) by part, in the order of the part's slates; ``tuning`` may be absent
    parameters: int | None = None  # number of trained ones, where it is known


@dataclass(frozen=True)
class Evaluated:
    """A scorer, evaluated on each part that it scored.

    ``metrics`` is its entry of ``metrics.json``: ``tier``, ``parameters`` where they are known, and for each part the
    mean of each ranking metric over impressions and its 95 % interval over users (``<metric>_ci``), the pooled
    ``logloss``, ``f1`` and ``accuracy`` where there are probabilities, and how many ``impressions`` were evaluated and
    ``left_out``.
    """

    name: str
    metrics: dict[str, Any]
    values: dict[str, np.ndarray]  # float64 (n, metrics) by part, ``per_slate`` of the scores
    probability: dict[str, np.ndarray]  # float64 (m,) by part, of a click; empty without scores of the tuning day


def with_intervals(
    values: np.ndarray, user: np.ndarray, seed: int = 0, names: Sequence[str] = METRICS
) -> dict[str, Any]:
    """Return the mean of each metric and its 95 % interval over users (int (n,)), ``<metric>_ci``, ``None`` of no row.

    ``values`` are float64 (n, names), as ``per_slate`` returns them, or the differences of two such arrays.
    """
    metrics: dict[str, Any] = {}
    for (name, mean), ends in zip(mean_metrics(values, names).items(), user_bootstrap(values, user, seed), strict=True):
        metrics |= {name: mean, f"{name}_ci": ends.tolist() if np.isfinite(mean) else None}
    return metrics


def evaluate_scorer(scorer: Scorer, parts: Mapping[str, Slates], seed: int = 0) -> Evaluated:
    """Compute all metrics of a scorer on each part that it scored.

    Slates without a click, or with nothing but clicks, are left out. Probabilities come from a logistic curve fitted on
    the tuning day; without scores of it there are no metrics of probabilities.

    Raises:
        ValueError: the lengths do not fit, or a score is not finite.
    """
    tuning = scorer.scores.get("tuning")
    calibration = None if tuning is None else fit_calibration(tuning, parts["tuning"].clicked)
    known = {} if scorer.parameters is None else {"parameters": scorer.parameters}
    found = Evaluated(scorer.name, {"tier": scorer.tier, **known}, {}, {})
    for part, scores in scorer.scores.items():
        slates = parts[part]
        values = per_slate(scores, slates.clicked, slates.offsets)
        metrics = with_intervals(values, slates.user_id, seed)
        if calibration is not None:
            found.probability[part] = calibration.probability(scores)
            metrics |= classification(found.probability[part], slates.clicked, calibration.threshold)
        evaluated = int((~np.isnan(values[:, 0])).sum())
        found.metrics[part] = {**metrics, "impressions": evaluated, "left_out": len(slates) - evaluated}
        found.values[part] = values
    return found


def save_scorer(scorer: Scorer, parts: Mapping[str, Slates], folder: Path, seed: int = 0) -> Evaluated:
    """Write the scores of a scorer and evaluate them as saved, float32.

    Writes ``scores_<name>.parquet`` (validation) and ``tuning_<name>.parquet``; ``seed`` is of the bootstrap.

    Raises:
        ValueError: scores are missing or not finite.
    """
    saved = {}
    for part in SCORED:
        saved[part] = np.asarray(scorer.scores[part], dtype=np.float32)
        save_scores(scores_file(folder, scorer.name, part), parts[part], saved[part])
    return evaluate_scorer(replace(scorer, scores=saved), parts, seed)


def save_scores(path: Path, slates: Slates, scores: np.ndarray) -> None:
    """Write a scores file: every candidate of every impression in the order of the bundle's file, raw ids, float32.

    Raises:
        ValueError: a score is missing or not finite as float32.
    """
    narrow = np.asarray(scores, dtype=np.float32)
    if len(narrow) != slates.candidates or not np.isfinite(narrow).all():
        raise ValueError(f"{path.name}: needs {slates.candidates} finite scores, got {int(np.isfinite(narrow).sum())}")
    columns = {
        **_candidates_as_saved(slates),
        "clicked": lists_of(slates.clicked, slates.offsets, slates.file_order),
        "score": lists_of(narrow, slates.offsets, slates.file_order),
    }
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path, compression="zstd")


def scores_file(folder: Path, name: str, part: str) -> Path:
    """Return the file with the scores of a scorer on a part, in the artifacts of the stage that trained it."""
    return folder / f"{SCORED[part]}_{name}.parquet"


def load_scores(path: Path, slates: Slates) -> np.ndarray:
    """Read the scores of a file that ``save_scores`` wrote, in the order of its slates: float32 (m,).

    Raises:
        StageError: there is no such file, or its candidates are not those of the slates.
    """
    wanted = _candidates_as_saved(slates)
    table = pq.read_table(path, columns=[*wanted, "score"]) if path.exists() else None
    if table is None or not all(np.array_equal(table[name], ids) for name, ids in wanted.items()):
        raise StageError(
            f"{path}: it does not hold the {slates.candidates} candidates of these slates in their order. Run the "
            "training stage for this profile again."
        )
    order = slates.file_order
    offsets = np.concatenate(([0], np.cumsum(slates.lengths[order])))
    return lists_of(table["score"].to_numpy(), offsets, np.argsort(order))


def results_table(entries: Mapping[str, Mapping[str, Any]], split: str = "validation") -> pd.DataFrame:
    """Tabulate entries of ``metrics.json``: a row a scorer, best AUC first, with the tier and the AUC's interval."""
    rows = []
    for name, entry in sorted(entries.items(), key=lambda item: -item[1][split]["auc"]):
        metrics = entry[split]
        row = {"scorer": name, "tier": entry["tier"], "auc": with_interval(metrics["auc"], metrics["auc_ci"])}
        rows.append(row | {key: metrics[key] for key in (*METRICS[1:], "logloss", "f1", "accuracy")})
    return pd.DataFrame(rows)


def _candidates_as_saved(slates: Slates) -> dict[str, np.ndarray]:
    """Return ``impression_id`` and ``article_id`` of every candidate, each (m,), in the order of a scores file."""
    order = slates.file_order
    return {
        "impression_id": np.repeat(slates.impression_id[order], slates.lengths[order]),
        "article_id": lists_of(slates.article_id, slates.offsets, order),
    }
