"""Evaluate the scores of one scorer: every metric that a table shows of it, in the form of ``metrics.json``."""

from collections.abc import Mapping
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

Metrics = dict[str, float | int | list[float]]
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
class Evaluation:
    """The scores of one part, evaluated.

    ``metrics`` holds the mean of each ranking metric over impressions and its 95 % interval over users
    (``<metric>_ci``), the pooled ``logloss``, ``f1`` and ``accuracy`` where there are probabilities, and how many
    ``impressions`` were evaluated and ``left_out``.
    """

    metrics: Metrics
    values: np.ndarray  # float64 (n, metrics), ``per_slate`` of the scores
    probability: np.ndarray | None  # float64 (m,), of a click; ``None`` without a calibration


@dataclass(frozen=True)
class Evaluated:
    """A scorer with the evaluation of each part that it scored."""

    scorer: Scorer
    parts: dict[str, Evaluation]

    @property
    def metrics(self) -> dict[str, Any]:
        """The scorer's entry of ``metrics.json``."""
        known = {} if self.scorer.parameters is None else {"parameters": self.scorer.parameters}
        return {"tier": self.scorer.tier, **known, **{part: own.metrics for part, own in self.parts.items()}}


def with_intervals(values: np.ndarray, user: np.ndarray, seed: int = 0) -> Metrics:
    """Return the mean of each metric and its 95 % interval over users (int (n,)), ``<metric>_ci``.

    ``values`` are float64 (n, metrics), as ``per_slate`` returns them, or the differences of two such arrays.
    """
    metrics: Metrics = {}
    for (name, mean), ends in zip(mean_metrics(values).items(), user_bootstrap(values, user, seed), strict=True):
        metrics |= {name: mean, f"{name}_ci": ends.tolist()}
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
    found = {}
    for part, scores in scorer.scores.items():
        slates = parts[part]
        values = per_slate(scores, slates.clicked, slates.offsets)
        metrics, probability = with_intervals(values, slates.user_id, seed), None
        if calibration is not None:
            probability = calibration.probability(scores)
            metrics |= classification(probability, slates.clicked, calibration.threshold)
        evaluated = int((~np.isnan(values[:, 0])).sum())
        metrics |= {"impressions": evaluated, "left_out": len(slates) - evaluated}
        found[part] = Evaluation(metrics, values, probability)
    return Evaluated(scorer, found)


def save_scorer(scorer: Scorer, parts: Mapping[str, Slates], folder: Path, seed: int = 0) -> Evaluated:
    """Write the scores of a scorer and evaluate them as saved, float32.

    Writes ``scores_<name>.parquet`` (validation) and ``tuning_<name>.parquet``; ``seed`` is of the bootstrap.

    Raises:
        ValueError: scores are missing or not finite.
    """
    saved = {}
    for part, kind in SCORED.items():
        saved[part] = np.asarray(scorer.scores[part], dtype=np.float32)
        save_scores(folder / f"{kind}_{scorer.name}.parquet", parts[part], saved[part])
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


def find_scores(name: str, part: str, folders: list[Path]) -> Path:
    """Return the scores file of a model in the first of some folders that has it.

    Raises:
        StageError: no folder has it.
    """
    file = f"{SCORED[part]}_{name}.parquet"
    for folder in folders:
        if (folder / file).exists():
            return folder / file
    raise StageError(f"models: there is no {file}, the scores of '{name}'. Run the stage that trains it again.")


def load_scores(path: Path, slates: Slates) -> np.ndarray:
    """Read the scores of a file that ``save_scores`` wrote, in the order of its slates: float32 (m,).

    Raises:
        StageError: the candidates of the file are not those of the slates.
    """
    table = pq.read_table(path, columns=["impression_id", "article_id", "score"])
    if not all(np.array_equal(table[name], ids) for name, ids in _candidates_as_saved(slates).items()):
        raise StageError(
            f"{path}: its {table.num_rows} rows are not the {slates.candidates} candidates of these slates in their "
            "order. Run the training stage for this profile again."
        )
    order = slates.file_order
    offsets = np.concatenate(([0], np.cumsum(slates.lengths[order])))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return lists_of(table["score"].to_numpy(), offsets, place)


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
