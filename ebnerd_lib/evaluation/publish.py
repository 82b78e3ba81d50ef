"""Publish a trained model: its file, its scores, and its figures computed from the scores as saved."""

from pathlib import Path

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.evaluation.judge import judge_saved
from ebnerd_lib.features.store import Features
from ebnerd_lib.training.model_file import TrainedModel, save_model


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
    entry = judge_saved(model.name, model.tier, scores, dataset, folder, seed)
    return {**entry, "parameters": model.parameters}
