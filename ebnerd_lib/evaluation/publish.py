"""Publish a trained model: its file, its scores, and its figures computed from the scores as saved."""

from pathlib import Path

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.evaluation.judge import judge_both, load_scores, save_scores
from ebnerd_lib.features.store import Features
from ebnerd_lib.training.model_file import TrainedModel, save_model


def publish(
    model: TrainedModel, dataset: Dataset, features: dict[str, Features], folder: Path, seed: int = 0
) -> dict[str, object]:
    """Write a trained model's file and scores and judge the scores as saved: its entry of ``metrics.json``.

    Writes ``model_<name>.pt``, ``scores_<name>.parquet`` (validation) and ``tuning_<name>.parquet``.
    """
    save_model(model, folder)
    saved = {}
    for part, kind in (("tuning", "tuning"), ("validation", "scores")):
        slates, path = dataset.parts[part], folder / f"{kind}_{model.name}.parquet"
        save_scores(path, slates, model.score(dataset, slates, features[part].matrix, features[part].columns))
        saved[part] = load_scores(path)
    entry, _ = judge_both(
        model.tier, saved["tuning"], dataset.parts["tuning"], saved["validation"], dataset.parts["validation"], seed
    )
    return {**entry, "parameters": model.parameters}
