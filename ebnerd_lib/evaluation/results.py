"""What all models of a training stage leave: their artifacts and the stage's figures."""

from pathlib import Path
from typing import Any

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.describe import cold_start, seen_candidates
from ebnerd_lib.evaluation.publish import publish
from ebnerd_lib.features.store import Features
from ebnerd_lib.training.fit import Fit
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
