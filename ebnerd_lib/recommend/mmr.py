"""Diversify lists by maximal marginal relevance (MMR; Carbonell and Goldstein, 1998)."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit

from ebnerd_lib.errors import ConfigError


def check_diversity(diversity: float) -> float:
    """Return a weight of diversity. Raises ``ConfigError`` where it lies outside 0 to 1."""
    if not 0.0 <= diversity <= 1.0:
        raise ConfigError(
            f"diversity: {diversity} lies outside 0 to 1. 0 ranks by score alone, 1 by how unlike each article is "
            "to those before it."
        )
    return diversity


def rerank(
    scores: np.ndarray, article: np.ndarray, offsets: np.ndarray, vectors: np.ndarray, k: int, diversity: float
) -> np.ndarray:
    """Pick the k best of every slate one after the other, each by its score and by how new it is to the list.

    Each step picks the candidate with the largest (1 − λ) · s − λ · max over the picked of the cosine similarity,
    with λ the ``diversity`` and s the score scaled to 0 (the slate's lowest) to 1 (its highest), so that λ weighs two
    quantities of one size: at .5 an article exactly like one in the list must score half the slate's range better
    than one at a right angle to it. Carbonell and Goldstein write λ for what is 1 − λ here.

    The first pick is the best score whatever λ. λ = 0 gives the order of the scores. Ties go to the higher
    score, then to the earlier candidate. A candidate whose similarity is unknown, as it or all of the picked lack a
    vector, is taken to be as similar as the mean of those left whose similarity is known, to be neither favoured nor
    held back; with nothing known, similarity plays no part.

    Args:
        scores: float (m,), finite.
        article: int (m,), article indices.
        offsets: int64 (n + 1,), slate ``i`` is ``offsets[i]:offsets[i + 1]``.
        vectors: float32 (articles, size), of length 1, zeros where there is none.
        k: articles a list.
        diversity: 0 to 1.

    Returns:
        int64 (n, k), positions among the candidates in order of rank; −1 where a slate is shorter.

    Raises:
        ConfigError: ``diversity`` lies outside 0 to 1.
        ValueError: a score is not finite, or the lengths do not fit.

    Examples:
        >>> vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
        >>> scores, slate = np.array([3.0, 2.9, 1.0]), np.array([0, 3])
        >>> rerank(scores, np.arange(3), slate, vectors, 3, 0.0)
        array([[0, 1, 2]])
        >>> rerank(scores, np.arange(3), slate, vectors, 3, 0.5)
        array([[0, 2, 1]])
    """
    check_diversity(diversity)
    scores = np.array(scores, dtype=np.float64)  # copies: one kernel for all callers
    if not len(scores) == len(article) == offsets[-1]:
        raise ValueError(f"{len(scores)} scores and {len(article)} articles for {offsets[-1]} candidates")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite")
    vectors = np.require(vectors, np.float32, ["C", "W"])
    return _mmr(
        scores, np.array(article, dtype=np.int64), np.array(offsets, dtype=np.int64), vectors, k, float(diversity)
    )


def scaled(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Scale the scores of each slate to 0 (its lowest) to 1 (its highest): float64 (m,), 0 where all are alike.

    Examples:
        >>> scaled(np.array([1.0, 3.0, 2.0, 7.0]), np.array([0, 3, 4]))
        array([0. , 1. , 0.5, 0. ])
    """
    wide = np.asarray(scores, dtype=np.float64)
    low, high = (np.repeat(f.reduceat(wide, offsets[:-1]), np.diff(offsets)) for f in (np.minimum, np.maximum))
    return np.divide(wide - low, high - low, out=np.zeros_like(wide), where=high > low)


@njit(cache=True, nogil=True)
def _mmr(scores, article, offsets, vectors, k, weight):
    out = np.full((len(offsets) - 1, k), -1, dtype=np.int64)
    for row in range(len(offsets) - 1):
        begin, size = offsets[row], offsets[row + 1] - offsets[row]
        if size == 0:
            continue
        own = scores[begin : begin + size]
        low, high = own.min(), own.max()
        nearest = np.full(size, np.nan)
        taken = np.zeros(size, dtype=np.bool_)
        for place in range(min(k, size)):
            typical, known = 0.0, 0
            for c in range(size):
                if not taken[c] and not np.isnan(nearest[c]):
                    typical += nearest[c]
                    known += 1
            typical = typical / known if known else 0.0
            best, best_value = -1, 0.0
            for c in range(size):
                if taken[c]:
                    continue
                relevance = (own[c] - low) / (high - low) if high > low else 0.0
                similar = typical if np.isnan(nearest[c]) else nearest[c]
                value = (1.0 - weight) * relevance - weight * similar
                if best < 0 or value > best_value or (value == best_value and own[c] > own[best]):
                    best, best_value = c, value
            taken[best] = True
            out[row, place] = begin + best
            if weight > 0.0:
                _approach(nearest, taken, article, begin, best, vectors)
    return out


@njit(cache=True, nogil=True)
def _approach(nearest, taken, article, begin, picked, vectors):
    """Raise each candidate's similarity to the list by its similarity to the article just picked."""
    b = article[begin + picked]
    if not vectors[b].any():
        return
    for c in range(len(nearest)):
        a = article[begin + c]
        if taken[c] or not vectors[a].any():
            continue
        cosine = 0.0
        for d in range(vectors.shape[1]):
            cosine += np.float64(vectors[a, d]) * np.float64(vectors[b, d])
        if np.isnan(nearest[c]) or cosine > nearest[c]:
            nearest[c] = cosine
