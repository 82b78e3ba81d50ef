"""Beyond accuracy: how diverse, new and covering recommended lists are.

``lists`` is int (n, k): a row a user, article indices, −1 where a list is shorter than others.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ebnerd_lib.data.dataset import Dataset, Metadata
from ebnerd_lib.evaluation.intervals import DRAWS, TAILS


@dataclass(frozen=True)
class ArticleSpace:
    """Where each article lies."""

    name: str  # what the vectors are made of, for captions
    vectors: np.ndarray  # float32 (articles, size), of length 1, zeros for an article of which nothing is known


def article_space(dataset: Dataset) -> ArticleSpace:
    """Return the bundle's article vectors, or, where it has none, categories and topics."""
    if dataset.vectors is not None and dataset.vectors.any():
        return ArticleSpace("article vectors", dataset.vectors)
    return ArticleSpace("categories and topics", category_vectors(dataset.metadata))


def category_vectors(metadata: Metadata) -> np.ndarray:
    """Describe each article by its category and its topics: float32 (articles, categories + topics), of length 1.

    The category has one half of the weight and all topics together the other. The cosine of two articles that have both
    is the mean of 1 for the same category, 0 for another, and of the cosine of their sets of topics. Zeros where
    neither is known.
    """
    category = np.eye(int(metadata.category.max(initial=0)) + 1, dtype=np.float32)[metadata.category, 1:]
    topic = np.zeros((len(category), metadata.topic_count), np.float32)
    topic[np.repeat(np.arange(len(category)), np.diff(metadata.topic_starts)), metadata.topics] = 1.0
    return _unit(np.concatenate([category, _unit(topic)], axis=1))


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def intralist_diversity(lists: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Mean cosine distance of the pairs i ≠ j of each list: float64 (n,), 0 (all alike) to 2.

    Ziegler et al. (2005), with 1 − cosine for the distance. NaN for a list with fewer than two articles with vectors.
    ``vectors`` are float (articles, size), of any length; zeros where there is none.

    Examples:
        >>> vectors = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
        >>> intralist_diversity(np.array([[1, 2], [1, 3], [1, 1], [1, 0]]), vectors)
        array([ 1.,  2.,  0., nan])
    """
    rows, known = _unit_rows(lists, vectors)
    count = known.sum(axis=1)
    total = rows.sum(axis=1)
    # Σ over i ≠ j of cosines = |Σ v|² − Σ |v|², and each known vector has length 1.
    similar = (total * total).sum(axis=1) - count
    pairs = count * (count - 1)
    mean = np.divide(similar, pairs, out=np.full(len(lists), np.nan), where=pairs > 0)
    return np.clip(1.0 - mean, 0.0, 2.0)


def serendipity(lists: np.ndarray, offsets: np.ndarray, history: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Mean cosine distance between the articles of each list and those of its user's history: float64 (n,), 0 to 2.

    NaN where either holds no article with a vector, so for every user without a history. User ``i`` has read the
    articles ``history[offsets[i]:offsets[i + 1]]``; ``vectors`` are as for ``intralist_diversity``.

    Examples:
        >>> vectors = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> serendipity(np.array([[1, 2], [1, 2]]), np.array([0, 1, 1]), np.array([1]), vectors)
        array([0.5, nan])
    """
    rows, known = _unit_rows(lists, vectors)
    user = np.repeat(np.arange(len(lists)), np.diff(offsets))
    user_profile = np.zeros((len(lists), vectors.shape[1]))
    read = np.zeros(len(lists), dtype=np.int64)
    for start in range(0, len(history), 1 << 14):  # bounded memory: a history may hold a thousand articles
        part = slice(start, start + (1 << 14))
        own, has = _unit_rows(history[part, None], vectors)
        starts = np.flatnonzero(np.diff(user[part], prepend=-1))
        user_profile[user[part][starts]] += np.add.reduceat(own[:, 0], starts)
        read[user[part][starts]] += np.add.reduceat(has[:, 0].astype(np.int64), starts)
    pairs = known.sum(axis=1) * read
    similar = (rows.sum(axis=1) * user_profile).sum(axis=1)
    mean = np.divide(similar, pairs, out=np.full(len(lists), np.nan), where=pairs > 0)
    return np.clip(1.0 - mean, 0.0, 2.0)


def self_information(clicks: np.ndarray) -> np.ndarray:
    """Return −log2 of each article's share of the clicks, in bits: float64 (articles,).

    One click is added to each article (Laplace): most of tomorrow's articles have none today, and would be
    infinitely novel. They all get the largest value.

    Examples:
        >>> self_information(np.array([0, 1, 5]))
        array([3.169925  , 2.169925  , 0.5849625])
    """
    smooth = clicks.astype(np.float64) + 1.0
    return -np.log2(smooth / smooth.sum())


def mean_over_list(lists: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean of a value by article over each list, NaNs left out: float64 (n,), NaN where nothing is left.

    Of ``self_information`` this is novelty (Zhou et al., 2010).

    Examples:
        >>> mean_over_list(np.array([[0, 1, -1], [2, 2, -1]]), np.array([1.0, 4.0, np.nan]))
        array([2.5, nan])
    """
    own = np.where(lists >= 0, values[np.maximum(lists, 0)].astype(np.float64), np.nan)
    known = ~np.isnan(own)
    total, count = np.where(known, own, 0.0).sum(axis=1), known.sum(axis=1)
    return np.divide(total, count, out=np.full(len(lists), np.nan), where=count > 0)


def mean_interval(name: str, values: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """Return the mean over users (float (n,)), NaNs left out, and its 95 % percentile interval by bootstrap over users.

    With one value a user the mean is a plain one, not the ratio that ``intervals.user_bootstrap`` is made for.

    Examples:
        >>> mean_interval("novelty", np.array([0.5, np.nan, 0.5]))
        {'novelty': 0.5, 'novelty_ci': [0.5, 0.5]}
        >>> mean_interval("novelty", np.array([np.nan]))
        {'novelty': nan, 'novelty_ci': None}
    """
    known = values[~np.isnan(values)].astype(np.float64)
    if not len(known):
        return {name: float("nan"), f"{name}_ci": None}
    rng = np.random.default_rng(seed)
    means = np.array([known[rng.integers(0, len(known), len(known))].mean() for _ in range(DRAWS)])
    return {name: float(known.mean()), f"{name}_ci": np.quantile(means, TAILS).tolist()}


def _unit_rows(lists: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the vectors of lists at length 1, zeros where there is none: (n, k, size), and where there is one."""
    rows = vectors[np.maximum(lists, 0)].astype(np.float64)
    length = np.sqrt((rows * rows).sum(axis=2))
    known = (length > 0) & (lists >= 0)
    return np.where(known[:, :, None], rows / np.where(known, length, 1.0)[:, :, None], 0.0), known
