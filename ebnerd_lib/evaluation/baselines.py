"""Scorers without training, which every model is compared with."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.evaluation.evaluate import SCORED, Scorer, evaluate_scorer
from ebnerd_lib.features.build import Features
from ebnerd_lib.features.catalogue import PRIOR_INVIEWS

Baseline = Callable[[Dataset, Features, str, int], np.ndarray]
_BEFORE = {"tuning": ("train",), "validation": ("train", "tuning")}


def random(dataset: Dataset, features: Features, part: str, seed: int) -> np.ndarray:
    """Score at random."""
    return np.random.default_rng(seed).random(dataset.parts[part].candidates)


def by_recency(age: np.ndarray) -> np.ndarray:
    """Score ages in hours, of any shape: the younger the higher, unknown (NaN) last."""
    return -np.nan_to_num(age, nan=np.nanmax(age, initial=0.0) + 1.0)


def popularity(dataset: Dataset, features: Features, part: str, seed: int) -> np.ndarray:
    """Score by the clicks of the train week before the part begins, frozen there."""
    counts = click_counts([dataset.parts[earlier] for earlier in _BEFORE[part]], len(dataset.articles))
    return counts[dataset.parts[part].article]


def click_counts(slates: Iterable[Slates], articles: int) -> np.ndarray:
    """Count the clicks on each known article: int64 (articles,), 0 for the unknown one."""
    clicks = sum((np.bincount(own.article[own.clicked], minlength=articles) for own in slates), np.zeros(1, np.int64))
    clicks[0] = 0
    return clicks


def click_rate(dataset: Dataset, features: Features, part: str, seed: int) -> np.ndarray:
    """Score by the click rate of the week before t, near that of the train part where little was in view."""
    prior = PRIOR_INVIEWS * dataset.parts["train"].clicked.mean()
    return (features.column("clicks_week") + prior) / (features.column("inviews_week") + PRIOR_INVIEWS)


def _column(name: str, score: Callable[[np.ndarray], np.ndarray] = np.nan_to_num) -> Baseline:
    return lambda dataset, features, part, seed: score(features.column(name))


BASELINES: dict[str, tuple[str, tuple[str, ...], Baseline]] = {
    "random": ("ids", (), random),
    "newest": ("content", ("age_hours",), _column("age_hours", by_recency)),
    # Few click what is minutes or days old.
    "four_hours_old": ("content", ("age_hours",), _column("age_hours", lambda age: by_recency(np.abs(age - 4.0)))),
    "history_category": ("content", ("history_category",), _column("history_category")),
    "popularity": ("ids", (), popularity),
    "inviews_6h": ("exposure", ("inviews_6h",), _column("inviews_6h")),
    "clicks_6h": ("clicks", ("clicks_6h",), _column("clicks_6h")),
    "clicks_24h": ("clicks", ("clicks_24h",), _column("clicks_24h")),
    "click_rate_24h": ("clicks", ("rate_24h",), _column("rate_24h")),
    "click_rate_week": ("clicks", ("clicks_week", "inviews_week"), click_rate),
}
"""Name to information tier, features needed and scorer ``(dataset, features of the part, part, seed) -> (m,)``."""


def baseline_scorers(dataset: Dataset, features: Mapping[str, Features], seed: int = 0) -> list[Scorer]:
    """Return the scores of baselines on the tuning day and on validation, rounded as saved scores are.

    Baselines whose features are not stored are left out.
    """
    return [
        Scorer(name, tier, {part: score(dataset, features[part], part, seed).astype(np.float32) for part in SCORED})
        for name, (tier, columns, score) in BASELINES.items()
        if all({*columns} <= {*features[part].columns} for part in SCORED)
    ]


def evaluate_baselines(dataset: Dataset, features: Mapping[str, Features], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Evaluate the baselines on the tuning day and on validation: the ``baselines`` of ``metrics.json``."""
    return {
        each.name: evaluate_scorer(each, dataset.parts, seed).metrics
        for each in baseline_scorers(dataset, features, seed)
    }
