"""Scorers without training, for every model to be measured against."""

from collections.abc import Callable

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.evaluation.evaluate import evaluate_both
from ebnerd_lib.features.store import Features

Baseline = Callable[[Dataset, Features, str, int], np.ndarray]
_BEFORE = {"tuning": ("train",), "validation": ("train", "tuning")}


def random(dataset: Dataset, features: Features, part: str, seed: int) -> np.ndarray:
    """Score by chance."""
    return np.random.default_rng(seed).random(dataset.parts[part].candidates)


def newest(dataset: Dataset, features: Features, part: str, seed: int) -> np.ndarray:
    """Score by recency of publication; articles without a time of publication come last."""
    age = features.column("age_hours")
    return -np.nan_to_num(age, nan=np.nanmax(age, initial=0.0) + 1.0)


def popularity(dataset: Dataset, features: Features, part: str, seed: int) -> np.ndarray:
    """Score by the clicks of the train week before the part begins, frozen there."""
    counts = np.zeros(len(dataset.articles))
    for earlier in _BEFORE[part]:
        slates = dataset.parts[earlier]
        counts += np.bincount(slates.article[slates.clicked], minlength=len(counts))
    counts[0] = 0
    return counts[dataset.parts[part].article]


def _column(name: str) -> Baseline:
    def scorer(dataset: Dataset, features: Features, part: str, seed: int) -> np.ndarray:
        return features.column(name)

    return scorer


BASELINES: dict[str, tuple[str, Baseline]] = {
    "random": ("ids", random),
    "newest": ("content", newest),
    "popularity": ("ids", popularity),
    "clicks_6h": ("clicks", _column("clicks_6h")),
    "clicks_24h": ("clicks", _column("clicks_24h")),
    "click_rate_24h": ("clicks", _column("rate_24h")),
}
"""Name to information tier and scorer ``(dataset, features of the part, part, seed) -> (candidates,)``."""


def evaluate_baselines(dataset: Dataset, features: dict[str, Features], seed: int = 0) -> dict[str, dict[str, object]]:
    """Judge every baseline on the tuning day and on validation: the ``baselines`` of ``metrics.json``."""
    entries = {}
    for name, (tier, scorer) in BASELINES.items():
        tuning, validation = (scorer(dataset, features[part], part, seed) for part in ("tuning", "validation"))
        entries[name], _ = evaluate_both(
            tier, tuning, dataset.parts["tuning"], validation, dataset.parts["validation"], seed
        )
    return entries
