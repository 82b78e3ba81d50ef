"""Publish a trained model: its file, its scores, and its figures computed from the scores as saved."""

from pathlib import Path

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.evaluation.judge import judge_both, load_scores, save_scores
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
        scores: of both parts in file order, where they were given on the way, as by a model that learns on; its
            file holds the last state, which has seen what it would score. Scored here if not given.

    Raises:
        ValueError: scores are missing or not finite.
    """
    save_model(model, folder)
    saved = {}
    for part, kind in (("tuning", "tuning"), ("validation", "scores")):
        slates, path = dataset.parts[part], folder / f"{kind}_{model.name}.parquet"
        given = (
            scores[part]
            if scores is not None
            else model.score(dataset, slates, features[part].matrix, features[part].columns)
        )
        save_scores(path, slates, given)
        saved[part] = load_scores(path)
    entry, _ = judge_both(
        model.tier, saved["tuning"], dataset.parts["tuning"], saved["validation"], dataset.parts["validation"], seed
    )
    return {**entry, "parameters": model.parameters}
