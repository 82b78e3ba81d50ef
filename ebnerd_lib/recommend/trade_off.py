"""What diversity costs: re-rank for a range of weights, and see what the lists gain and lose."""

from pathlib import Path

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.evaluation import beyond
from ebnerd_lib.evaluation.intervals import user_bootstrap
from ebnerd_lib.evaluation.judge import load_scores
from ebnerd_lib.evaluation.metrics import METRICS, per_slate
from ebnerd_lib.evaluation.space import ArticleSpace
from ebnerd_lib.recommend.lists import articles_of, pick
from ebnerd_lib.recommend.mmr import rerank, scaled
from ebnerd_lib.recommend.requests import Requests

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
TOP = 5
"""Diversity on validation is that of the first five: most slates have about ten, which are all there is to pick."""
_DEEPEST = 10


def draw_impressions(dataset: Dataset, number: int, seed: int) -> np.ndarray:
    """Return rows of validation impressions that can be judged, drawn by seed, all of them where there are fewer.

    Raises:
        ConfigError: none is asked for.
    """
    if number < 1:
        raise ConfigError(f"tradeoff_impressions: {number} impressions cannot be judged. Draw at least 1.")
    able = np.flatnonzero(dataset.parts["validation"].has_choice)
    return np.sort(np.random.default_rng(seed).choice(able, min(number, len(able)), replace=False))


def saved_scores(name: str, dataset: Dataset, folders: list[Path]) -> np.ndarray:
    """Return the scores of validation that a model's stage saved, from the first of some folders that has them.

    A model that learns on has seen validation by now: what it scored on the way is in this file, and nowhere else.

    Raises:
        StageError: no folder has them.
    """
    for folder in folders:
        if (folder / f"scores_{name}.parquet").exists():
            return load_scores(folder / f"scores_{name}.parquet", dataset.parts["validation"])
    raise StageError(f"models: there are no saved scores of '{name}'. Run the stage that trains it again.")


def on_validation(
    dataset: Dataset,
    scores: np.ndarray,
    rows: np.ndarray,
    space: ArticleSpace,
    seed: int,
    weights: tuple[float, ...] = WEIGHTS,
) -> pd.DataFrame:
    """Re-rank slates that were really shown and judge the new order by what was clicked.

    Args:
        dataset: whose validation part.
        scores: float (m,), of every candidate of validation.
        rows: which impressions.
        space: tells how similar articles are.
        seed: of the bootstrap.
        weights: of diversity.

    Returns:
        One row a weight: ``diversity_weight``; ``ndcg@5`` and ``ndcg@10``, means over impressions, with intervals over
        users (``…_ci``); ``diversity``, the intra-list diversity of the first five, with its own.
    """
    validation = dataset.parts["validation"]
    slates = validation.take(rows)
    own = scores[candidate_rows(validation.offsets, rows)]
    table = []
    for weight in weights:
        order = rerank(own, slates.article, slates.offsets, space.vectors, _DEEPEST, weight)
        figures = _ndcg(order, own, slates.clicked, slates.offsets)
        top = order[:, :TOP]
        listed = np.where(top >= 0, slates.article[top], -1)
        values = np.column_stack([figures, beyond.intralist_diversity(listed, space.vectors)])
        row: dict[str, object] = {"diversity_weight": weight}
        for place, name in enumerate(("ndcg@5", "ndcg@10", "diversity")):
            known = values[~np.isnan(values[:, place]), place]
            ends = user_bootstrap(values[:, [place]], slates.user_id, seed=seed)[0]
            row |= {name: float(known.mean()) if len(known) else np.nan}
            row |= {f"{name}_ci": [float(end) for end in ends] if len(known) else None}
        table.append(row)
    return pd.DataFrame(table)


def on_live(
    requests: Requests,
    scores: np.ndarray,
    space: ArticleSpace,
    k: int,
    seed: int,
    weights: tuple[float, ...] = WEIGHTS,
) -> pd.DataFrame:
    """Re-rank the live articles of every user and compare with the lists by score alone.

    Returns:
        One row a weight: ``diversity_weight``; ``diversity``, the mean intra-list diversity, with its interval over
        users (``diversity_ci``); ``score``, the mean score scaled to 0 (the user's lowest live article) to 1 (the
        highest); and ``kept``, the share of the list by score alone that is still in it.
    """
    relative = np.append(_scaled_unread(requests, scores), np.nan)  # −1, an empty place, takes the last
    table = []
    base = pick(requests, scores, space, k)
    for weight in weights:
        picked = pick(requests, scores, space, k, weight)
        own = beyond.mean_interval(beyond.intralist_diversity(articles_of(requests, picked), space.vectors), seed=seed)
        table.append(
            {
                "diversity_weight": weight,
                "diversity": own.mean,
                "diversity_ci": [own.low, own.high] if own.users else None,
                "score": float(np.nanmean(relative[picked])),
                "kept": float(np.isin(picked[picked >= 0], base[base >= 0]).mean()),
            }
        )
    return pd.DataFrame(table)


def _ndcg(order: np.ndarray, scores: np.ndarray, clicked: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Judge slates in the order given, and by score behind it: float64 (n, 2), nDCG@5 and nDCG@10."""
    new = scaled(scores, offsets)
    rank = np.broadcast_to(np.arange(order.shape[1]), order.shape)
    new[order[order >= 0]] = 2.0 + order.shape[1] - rank[order >= 0]
    values = per_slate(new, clicked, offsets)
    return values[:, [METRICS.index("ndcg@5"), METRICS.index("ndcg@10")]]


def _scaled_unread(requests: Requests, scores: np.ndarray) -> np.ndarray:
    """Scale the scores of each user's unread articles to 0 to 1: float64 (n · p,), NaN for what was read."""
    counts = requests.unread.reshape(len(requests), -1).sum(axis=1)
    out = np.full(len(requests.unread), np.nan)
    out[requests.unread] = scaled(scores.ravel()[requests.unread], np.concatenate(([0], np.cumsum(counts))))
    return out
