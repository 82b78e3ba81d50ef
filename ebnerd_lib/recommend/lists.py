"""The k best of the live articles for a request, with reasons, and re-ranked for diversity."""

from pathlib import Path

import numpy as np
import pandas as pd
from numba import njit

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.evaluation import diversity as beyond
from ebnerd_lib.evaluation.diversity import ArticleSpace
from ebnerd_lib.evaluation.evaluate import load_scores
from ebnerd_lib.evaluation.intervals import user_bootstrap
from ebnerd_lib.evaluation.metrics import METRICS, per_slate
from ebnerd_lib.recommend.candidate_slates import CandidateSlates, group_effects
from ebnerd_lib.recommend.requests import Requests
from ebnerd_lib.training.model_file import TrainedModel

# mypy: disable-error-code="no-untyped-def"


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


REASONS = 3


def pick(requests: Requests, scores: np.ndarray, space: ArticleSpace, k: int, diversity: float = 0.0) -> np.ndarray:
    """Pick the k best unread articles of every user, ties by article index.

    Args:
        requests: n users over p live articles.
        scores: float (n, p), finite.
        space: tells how similar articles are.
        k: articles a list.
        diversity: weight of diversity against the score, see ``ebnerd_lib.recommend.lists.rerank``.

    Returns:
        int64 (n, k), rows of the requests in order of rank; −1 where fewer are unread.

    Raises:
        ConfigError: ``diversity`` lies outside 0 to 1.
    """
    rows = np.flatnonzero(requests.unread)
    counts = requests.unread.reshape(len(requests), -1).sum(axis=1)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    places = rerank(scores.ravel()[rows], requests.slates.article[rows], offsets, space.vectors, k, diversity)
    return np.where(places >= 0, rows[places], -1)


def articles_of(requests: Requests, picked: np.ndarray) -> np.ndarray:
    """Return the article indices of lists of rows, −1 where they have none."""
    return np.where(picked >= 0, requests.slates.article[picked], -1)


def recommend(
    model: TrainedModel,
    dataset: Dataset,
    requests: Requests,
    competition: CandidateSlates,
    scores: np.ndarray,
    picked: np.ndarray,
) -> pd.DataFrame:
    """Describe the picked articles of every user.

    Args:
        model: which scored them.
        dataset: the articles.
        requests: of the users.
        competition: the slates in which the articles were scored.
        scores: float32 (users, pool), see ``score_live``.
        picked: int (users, k), see ``pick``.

    Returns:
        One row a recommendation: ``user_id``, ``model``, ``tier``, ``rank`` (1 best), ``article_id``,
        ``title``, ``category``, ``age_hours``, ``score`` and ``reasons``, the feature groups that raise the score
        most over what it would be if the group were at the mean of the slates.
    """
    user, place = np.nonzero(picked >= 0)
    rows = picked[user, place]
    effects = group_effects(model, dataset, requests, competition)
    articles = dataset.articles.iloc[requests.slates.article[rows]]
    return pd.DataFrame(
        {
            "user_id": requests.slates.user_id[user],
            "model": model.name,
            "tier": model.tier,
            "rank": place + 1,
            "article_id": requests.slates.article_id[rows],
            "title": articles["title"].to_numpy(),
            "category": articles["category_str"].to_numpy(),
            "age_hours": requests.column("age_hours").ravel()[rows],
            "score": scores.ravel()[rows],
            "reasons": _in_words(effects.iloc[rows]),
        }
    )


def join_lists(lists: list[pd.DataFrame]) -> pd.DataFrame:
    """Join the lists of several models, sorted by user, model in the order given, and rank."""
    every = pd.concat(lists, ignore_index=True)
    return every.sort_values(["user_id"], kind="stable", ignore_index=True)


def mean_score_by_rank(lists: pd.DataFrame, model: str) -> np.ndarray:
    """Return by how much each rank's score exceeds the lowest one of its list, the mean over users."""
    own = lists[lists["model"] == model]
    above = own["score"] - own.groupby("user_id")["score"].transform("min")
    return above.groupby(own["rank"]).mean().to_numpy()


def overlap(lists: pd.DataFrame) -> pd.DataFrame:
    """Return, for each user, how many of the recommended articles every two models share."""
    rows = []
    for user, own in lists.groupby("user_id", sort=True):
        by_model = {name: set(articles) for name, articles in own.groupby("model", sort=False)["article_id"]}
        names = list(by_model)
        for place, first in enumerate(names):
            for second in names[place + 1 :]:
                shared, size = len(by_model[first] & by_model[second]), max(len(by_model[first]), len(by_model[second]))
                rows.append(
                    {"user_id": user, "models": " and ".join((str(first), str(second))), "shared": shared, "of": size}
                )
    return pd.DataFrame(rows, columns=["user_id", "models", "shared", "of"])


def _in_words(effects: pd.DataFrame) -> list[str]:
    """Name the groups that raise a score most, largest first; "nothing in particular" where none does."""
    names, values = np.array(effects.columns), effects.to_numpy()
    words = []
    for row in values:
        best = [at for at in np.argsort(-row, kind="stable")[:REASONS] if row[at] > 0.005]
        words.append(", ".join(f"{names[at]} {row[at]:+.2f}" for at in best) or "nothing in particular")
    return words
