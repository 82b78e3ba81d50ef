"""Evaluate the scores of one scorer: every metric that a table shows of it, in the form of ``metrics.json``."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates, lists_of
from ebnerd_lib.data.summary import cold_start, seen_candidates
from ebnerd_lib.evaluation.calibration import Calibration, classification, fit_calibration
from ebnerd_lib.evaluation.intervals import user_bootstrap
from ebnerd_lib.evaluation.metrics import METRICS, mean_metrics, per_slate
from ebnerd_lib.features.store import Features
from ebnerd_lib.training.fit import TrainResult
from ebnerd_lib.training.model_file import TrainedModel, save_model
from ebnerd_lib.training.online import OnlineResult

Figures = dict[str, float | int | list[float]]


def evaluate(scores: np.ndarray, slates: Slates, calibration: Calibration | None, seed: int = 0) -> Figures:
    """Compute all figures of scores on slates.

    Args:
        scores: float (m,), one a candidate in the order of ``slates``, finite.
        slates: with their clicks.
        calibration: fitted on the tuning day; without it there are no figures of probabilities.
        seed: seed of the bootstrap.

    Returns:
        The mean of each ranking metric over impressions and its 95 % interval over users (``<metric>_ci``), the
        pooled ``logloss``, ``f1`` and ``accuracy``, and how many ``impressions`` were judged and ``left_out``.
    """
    values = per_slate(scores, slates.clicked, slates.offsets)
    figures = with_intervals(values, slates.user_id, seed)
    if calibration is not None:
        figures.update(classification(calibration.probability(scores), slates.clicked, calibration.threshold))
    evaluated = int((~np.isnan(values[:, 0])).sum())
    return {**figures, "impressions": evaluated, "left_out": len(slates) - evaluated}


def with_intervals(values: np.ndarray, user: np.ndarray, seed: int = 0) -> Figures:
    """Return the mean of each metric and its 95 % interval over users, ``<metric>_ci``.

    Args:
        values: float64 (n, metrics), as ``per_slate`` returns them, or the differences of two such arrays.
        user: int (n,), whose impression it is.
        seed: seed of the bootstrap.
    """
    intervals = user_bootstrap(values, user, seed=seed)
    figures: Figures = {}
    for place, (name, mean) in enumerate(mean_metrics(values).items()):
        figures[name] = mean
        figures[f"{name}_ci"] = [float(end) for end in intervals[place]]
    return figures


def evaluate_both(
    tier: str, tuning_scores: np.ndarray, tuning: Slates, scores: np.ndarray, validation: Slates, seed: int = 0
) -> tuple[dict[str, object], Calibration]:
    """Calibrate on the tuning day and judge there and on validation: one entry of ``metrics.json``."""
    tuning_scores, scores = (np.asarray(each, dtype=np.float32) for each in (tuning_scores, scores))  # as saved
    calibration = fit_calibration(tuning_scores, tuning.clicked)
    entry: dict[str, object] = {
        "tier": tier,
        "validation": evaluate(scores, validation, calibration, seed),
        "tuning": evaluate(tuning_scores, tuning, calibration, seed),
    }
    return entry, calibration


def save_scores(path: Path, slates: Slates, scores: np.ndarray) -> None:
    """Write a scores file: every candidate of every impression in the order of the bundle's file, raw ids, float32.

    Raises:
        ValueError: a score is missing or not finite as float32.
    """
    narrow = np.asarray(scores, dtype=np.float32)
    if len(narrow) != slates.candidates or not np.isfinite(narrow).all():
        raise ValueError(f"{path.name}: needs {slates.candidates} finite scores, got {int(np.isfinite(narrow).sum())}")
    columns = {
        **candidates_as_saved(slates),
        "clicked": lists_of(slates.clicked, slates.offsets, slates.file_order),
        "score": lists_of(narrow, slates.offsets, slates.file_order),
    }
    pq.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}), path, compression="zstd")


def candidates_as_saved(slates: Slates) -> dict[str, np.ndarray]:
    """Return ``impression_id`` and ``article_id`` of every candidate, each (m,), in the order of a scores file."""
    order = slates.file_order
    return {
        "impression_id": np.repeat(slates.impression_id[order], slates.lengths[order]),
        "article_id": lists_of(slates.article_id, slates.offsets, order),
    }


def load_scores(path: Path, slates: Slates) -> np.ndarray:
    """Read the scores of a file that ``save_scores`` wrote, in the order of its slates: float32 (m,)."""
    scores = pq.read_table(path, columns=["score"])["score"].to_numpy()
    order = slates.file_order
    offsets = np.concatenate(([0], np.cumsum(slates.lengths[order])))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return lists_of(scores, offsets, place)


def evaluate_saved(
    name: str, tier: str, scores: dict[str, np.ndarray], dataset: Dataset, folder: Path, seed: int = 0
) -> dict[str, object]:
    """Write the scores of ``tuning`` and ``validation`` and judge them as saved: an entry of ``metrics.json``.

    Writes ``scores_<name>.parquet`` (validation) and ``tuning_<name>.parquet``; ``seed`` is of the bootstrap.
    """
    saved = {}
    for part, kind in (("tuning", "tuning"), ("validation", "scores")):
        path = folder / f"{kind}_{name}.parquet"
        save_scores(path, dataset.parts[part], scores[part])
        saved[part] = load_scores(path, dataset.parts[part])
    tuning, validation = dataset.parts["tuning"], dataset.parts["validation"]
    return evaluate_both(tier, saved["tuning"], tuning, saved["validation"], validation, seed)[0]


def results_table(entries: dict[str, dict[str, object]], split: str = "validation") -> pd.DataFrame:
    """Tabulate entries of ``metrics.json``: one row a scorer with its tier, best AUC first."""
    rows = []
    for name, entry in entries.items():
        figures = entry[split]
        assert isinstance(figures, dict)
        low, high = figures["auc_ci"]
        rows.append(
            {"scorer": name, "tier": entry["tier"], "auc": figures["auc"], "95 % interval": f"{low:.4f} – {high:.4f}"}
            | {key: figures[key] for key in (*METRICS[1:], "logloss", "f1", "accuracy", "impressions")}
        )
    return pd.DataFrame(rows).sort_values("auc", ascending=False, kind="stable", ignore_index=True)


def save_and_evaluate(
    model: TrainedModel,
    dataset: Dataset,
    features: dict[str, Features],
    folder: Path,
    seed: int = 0,
    scores: dict[str, np.ndarray] | None = None,
) -> dict[str, object]:
    """Write a trained model's file and scores and judge the scores as saved: its entry of ``metrics.json``.

    Writes ``model_<name>.pt``, ``scores_<name>.parquet`` (validation) and ``tuning_<name>.parquet``.

    Args:
        model: the model.
        dataset: the slates.
        features: of the parts ``tuning`` and ``validation``.
        folder: existing, where to write.
        seed: of the bootstrap.
        scores: of both parts in the order of their slates, where they were given on the way, as by a model that learns
            on; its file holds the last state, which has seen what it would score. Scored here if not given.

    Raises:
        ValueError: scores are missing or not finite.
    """
    save_model(model, folder)
    if scores is None:
        scores = {
            part: model.score(dataset, dataset.parts[part], features[part].matrix, features[part].columns)
            for part in ("tuning", "validation")
        }
    entry = evaluate_saved(model.name, model.tier, scores, dataset, folder, seed)
    return {**entry, "parameters": model.parameters}


def save_results(
    fits: list[TrainResult],
    learned: list[OnlineResult],
    dataset: Dataset,
    features: dict[str, Features],
    folder: Path,
    seed: int,
) -> dict[str, Any]:
    """Publish all models of a training stage, see ``save_and_evaluate``.

    Args:
        fits: the trained models.
        learned: those that have learnt on, with the scores they gave on the way.
        dataset: the slates.
        features: of the parts ``tuning`` and ``validation``.
        folder: existing, where to write.
        seed: of the bootstrap.

    Returns:
        What the stage's ``metrics.json`` holds: ``models``, an entry a model, and, where one of them knows articles by
        their ids alone, ``ids``, what such a model can tell apart on validation.
    """
    entries = {fit.model.name: save_and_evaluate(fit.model, dataset, features, folder, seed) for fit in fits}
    for walk in learned:
        entries[walk.model.name] = save_and_evaluate(walk.model, dataset, features, folder, seed, walk.scores)
    known = {**cold_start(dataset), **seen_candidates(dataset, "validation")}
    return {"models": entries} | ({"ids": known} if any(fit.model.tier == "ids" for fit in fits) else {})
