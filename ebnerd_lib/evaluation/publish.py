"""Publish trained models: their files, their scores, and their figures computed from the scores as saved."""

from pathlib import Path
from typing import Any

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.describe import cold_start, seen_candidates
from ebnerd_lib.evaluation.judge import judge_saved
from ebnerd_lib.features.store import Features
from ebnerd_lib.training.fit import Fit
from ebnerd_lib.training.model_file import TrainedModel, save_model
from ebnerd_lib.training.online import Learned


def publish_all(
    fits: list[Fit],
    learned: list[Learned],
    dataset: Dataset,
    features: dict[str, Features],
    folder: Path,
    seed: int,
) -> dict[str, Any]:
    """Publish all models of a training stage, see ``publish``.

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
    entries = {fit.model.name: publish(fit.model, dataset, features, folder, seed) for fit in fits}
    for walk in learned:
        entries[walk.model.name] = publish(walk.model, dataset, features, folder, seed, walk.scores)
    known = {**cold_start(dataset), **seen_candidates(dataset, "validation")}
    return {"models": entries} | ({"ids": known} if any(fit.model.tier == "ids" for fit in fits) else {})


def publish(
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
        scores: of both parts in file order, where they were given on the way, as by a model that learns on; its
            file holds the last state, which has seen what it would score. Scored here if not given.

    Raises:
        ValueError: scores are missing or not finite.
    """
    save_model(model, folder)
    if scores is None:
        scores = {
            part: model.score(dataset, dataset.parts[part], features[part].matrix, features[part].columns)
            for part in ("tuning", "validation")
        }
    entry = judge_saved(model.name, model.tier, scores, dataset, folder, seed)
    return {**entry, "parameters": model.parameters}
