"""The k best of the live articles for a request: with reasons, re-ranked for diversity, and those of many users."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numba import njit

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.schema import SENTIMENT_LABELS
from ebnerd_lib.data.slates import HOUR, Slates
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation.baselines import click_counts
from ebnerd_lib.evaluation.diversity import (
    ArticleSpace,
    intralist_diversity,
    mean_interval,
    mean_over_list,
    self_information,
    serendipity,
)
from ebnerd_lib.evaluation.evaluate import with_intervals
from ebnerd_lib.features.build import CHUNK
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.features.live import read_before
from ebnerd_lib.recommend.next_click import DEPTH, RULES, NextClicks, by_rule
from ebnerd_lib.recommend.requests import Requests
from ebnerd_lib.training.model_file import TrainedModel

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Weights of diversity whose cost is measured."""
REASONS = 3
_WEEK = 7 * 24 * HOUR
_AT_A_TIME = 1 << 11  # slates: memory is bounded by these, not by all


# --- picking -------------------------------------------------------------------------------------------------


def pick(slates: Slates, scores: np.ndarray, space: ArticleSpace, k: int, diversity: float = 0.0) -> np.ndarray:
    """Pick the k best of every slate one after the other, each by its score and by how new it is to the list.

    Each step picks the candidate with the largest (1 − λ) · s − λ · max over the picked of the cosine similarity,
    with λ the ``diversity``, 0 to 1, and s the score scaled to 0 (the slate's lowest) to 1 (its highest), so that both
    are of one size (Carbonell and Goldstein, 1998, who write λ for what is 1 − λ here). The first pick is the best
    score whatever λ; λ = 0 gives the order of the scores. Ties go to the higher score, then to the earlier candidate.
    A candidate whose similarity is unknown, as it or all of the picked lack a vector, is taken to be as similar as
    the mean of those left whose similarity is known; with nothing known, similarity plays no part.

    Scores are float (m,), finite, one a candidate of the slates.

    Returns:
        int64 (n, k), positions among the candidates in order of rank; −1 where a slate is shorter.
    """
    scores, offsets = np.asarray(scores, dtype=np.float64), slates.offsets
    relevance, out = scaled(scores, offsets), np.full((len(offsets) - 1, k), -1)
    for start in range(0, len(out), _AT_A_TIME):
        ends = offsets[start : start + _AT_A_TIME + 1]
        own = slice(ends[0], ends[-1])
        articles, place = np.unique(slates.article[own], return_inverse=True)
        unit = space.vectors[articles].astype(np.float64)
        similar = np.round(unit @ unit.T, 9)  # so that articles alike tie, in whatever order a library adds
        unknown = ~unit.any(axis=1)
        similar[unknown], similar[:, unknown] = np.nan, np.nan
        _pick(scores, relevance, ends, place, similar, float(diversity), out[start : start + len(ends) - 1])
    return out


@njit(cache=True, nogil=True)
def _pick(scores, relevance, ends, article, similar, weight, out):  # type: ignore[no-untyped-def]
    """Pick for some slates, see ``pick``, into ``out``; ``article`` are rows of ``similar``, NaN where unknown."""
    for slate in range(len(out)):
        begin, size = ends[slate], ends[slate + 1] - ends[slate]
        own = article[begin - ends[0] : begin - ends[0] + size]
        left, nearest = np.ones(size, np.bool_), np.full(size, np.nan)  # similarity to the most similar one picked
        for rank in range(min(size, out.shape[1])):
            total, known = 0.0, 0
            for i in range(size):
                if left[i] and not np.isnan(nearest[i]):
                    total += nearest[i]
                    known += 1
            typical = total / max(known, 1)
            best, highest = -1, -np.inf
            for i in range(size):
                if left[i]:
                    likeness = typical if np.isnan(nearest[i]) else nearest[i]
                    value = (1.0 - weight) * relevance[begin + i] - weight * likeness
                    if value > highest or (value == highest and scores[begin + i] > scores[begin + best]):
                        best, highest = i, value
            left[best], out[slate, rank] = False, begin + best
            for i in range(size):
                nearest[i] = np.fmax(nearest[i], similar[own[best], own[i]])


def scaled(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Scale the scores of each slate to 0 (its lowest) to 1 (its highest): float64 (m,), 0 where all are alike.

    Examples:
        >>> scaled(np.array([1.0, 3.0, 2.0, 7.0]), np.array([0, 3, 4, 4]))
        array([0. , 1. , 0.5, 0. ])
    """
    wide, edges = np.asarray(scores, dtype=np.float64), np.unique(offsets)  # of slates that have candidates
    low, high = (np.repeat(f.reduceat(wide, edges[:-1]), np.diff(edges)) for f in (np.minimum, np.maximum))
    return np.divide(wide - low, high - low, out=np.zeros_like(wide), where=high > low)


def live_trained(models: list[TrainedModel]) -> list[TrainedModel]:
    """Return the models that make lists: those trained on what was live.

    Raises:
        ConfigError: there is none: a model of logged slates never saw most of what is live.
    """
    found = [model for model in models if model.trained_on == "live"]
    if not found:
        raise ConfigError(
            f"models: {', '.join(model.name for model in models)} learned from pages of the log and cannot rank all "
            "that is live. Name a model of a stage with `slates: live`."
        )
    return found


def score(model: TrainedModel, dataset: Dataset, requests: Requests) -> np.ndarray:
    """Score the candidates of every user, each pool one slate: float32 (m,).

    Raises:
        ConfigError: the model was trained on logged slates, see ``live_trained``.
    """
    live_trained([model])
    slates, out = requests.slates, []
    for rows in slates.chunks(np.arange(len(slates)), CHUNK):
        own = slice(slates.offsets[rows[0]], slates.offsets[rows[-1] + 1])
        out.append(model.score(dataset, slates.take(rows), requests.matrix[own], requests.columns))
    return np.concatenate(out)


def articles_of(slates: Slates, picked: np.ndarray) -> np.ndarray:
    """Return the article indices of lists of positions, −1 where they have none."""
    return np.where(picked >= 0, slates.article[picked], -1)


# --- lists ---------------------------------------------------------------------------------------------------


def recommend(
    model: TrainedModel, dataset: Dataset, requests: Requests, scores: np.ndarray, picked: np.ndarray
) -> pd.DataFrame:
    """Describe the articles that were picked for every user by the scores of a model.

    Returns:
        One row a recommendation: ``user_id``, ``model``, ``tier``, ``rank`` (1 best), ``article_id``, ``title``,
        ``category``, ``age_hours``, ``score`` and ``reasons``, the feature groups that raise the score most over what
        it would be with the group at the mean of the pool.
    """
    user, place = np.nonzero(picked >= 0)
    rows = picked[user, place]
    effects = group_effects(model, dataset, requests)
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
            "age_hours": requests.column("age_hours")[rows],
            "score": scores[rows],
            "reasons": _in_words(effects.iloc[rows]),
        }
    )


def group_effects(model: TrainedModel, dataset: Dataset, requests: Requests) -> pd.DataFrame:
    """Return by how much each feature group changes each candidate's score.

    One column a group, one row a candidate: the score less the score with the group's features at their means over
    the pool, unknown values left out.
    """
    base, effects = score(model, dataset, requests), {}
    pool = requests.slates.per_candidate(np.arange(len(requests)))
    means = pd.DataFrame(requests.matrix).groupby(pool).transform("mean").to_numpy()
    for group, places in model.groups(requests.columns).items():
        changed = requests.matrix.copy()
        changed[:, places] = means[:, places]
        effects[group] = base - score(model, dataset, replace(requests, matrix=changed))
    return pd.DataFrame(effects, index=range(len(base)))


def overlap(lists: pd.DataFrame) -> pd.DataFrame:
    """Return, for each user, how many of the recommended articles every two models share."""
    rows = []
    for user, own in lists.groupby("user_id", sort=True):
        by_model = [(name, set(articles)) for name, articles in own.groupby("model", sort=False)["article_id"]]
        for (first, one), (second, other) in combinations(by_model, 2):
            rows.append((user, f"{first} and {second}", len(one & other), max(len(one), len(other))))
    return pd.DataFrame(rows, columns=["user_id", "models", "shared", "of"])


def _in_words(effects: pd.DataFrame) -> list[str]:
    """Name the groups that raise a score most, largest first; "nothing in particular" where none does."""
    words = []
    for row in effects.to_numpy():
        best = [at for at in np.argsort(-row, kind="stable")[:REASONS] if row[at] > 0.005]
        words.append(", ".join(f"{effects.columns[at]} {row[at]:+.2f}" for at in best) or "nothing in particular")
    return words


# --- lists of many users --------------------------------------------------------------------------------------


def rules(requests: Requests, seed: int) -> dict[str, tuple[str, np.ndarray]]:
    """Return scorers without training: name to information tier and scores (m,).

    ``clicks_1h`` is the clicks of the hour before; ``newest`` puts articles without a time of publication last;
    ``random`` is sampled with the seed, for each user anew.
    """
    found = {rule: (RULES[rule], by_rule(rule, requests.column)) for rule in ("clicks_1h", "newest")}
    return found | {"random": (RULES["random"], np.random.default_rng(seed).random(len(requests.matrix)))}


def beyond_table(
    dataset: Dataset, requests: Requests, lists: Mapping[str, tuple[str, np.ndarray]], space: ArticleSpace, seed: int
) -> pd.DataFrame:
    """Describe the lists of each scorer, given with its tier as ``pick`` returns them, the mean over users.

    Returns:
        One row a scorer: ``list``, ``tier``; the mean over users, its 95 % interval (``…_ci``) and the number of users
        with a value (``…_users``) of ``diversity``, ``serendipity``, ``novelty`` (bits, by clicks of the
        train week) and ``novelty_week`` (by those of the seven days before the moment); ``unclicked``, the share of
        recommendations without a click in the train week; ``without_vector``, how many have no place in ``space`` and
        are left out of distances; ``coverage``, how many articles there are, and ``coverage_share`` of the pool.
    """
    time, log, read = int(requests.slates.time[0]), dataset.log, read_before(feature_context(dataset), requests.slates)
    clicks = click_counts([dataset.parts["train"], dataset.parts["tuning"]], len(dataset.articles))
    recent = click_counts([log.take((log.time >= time - _WEEK) & (log.time < time))], len(clicks))
    rows = []
    for name, (tier, picked) in lists.items():
        articles = articles_of(requests.slates, picked)
        values = {
            "diversity": intralist_diversity(articles, space.vectors),
            "serendipity": serendipity(articles, *read, space.vectors),
            "novelty": mean_over_list(articles, self_information(clicks)),
            "novelty_week": mean_over_list(articles, self_information(recent)),
        }
        given = articles[articles >= 0]
        covered = len(np.unique(given))
        row: dict[str, Any] = {"list": name, "tier": tier}
        for what, value in values.items():
            row |= mean_interval(what, value, seed) | {f"{what}_users": int((~np.isnan(value)).sum())}
        row["unclicked"] = float((clicks[given] == 0).mean())
        row["without_vector"] = int((~space.vectors[given].any(axis=1)).sum())
        rows.append(row | {"coverage": covered, "coverage_share": covered / len(requests.pool)})
    return pd.DataFrame(rows)


def distribution_table(
    dataset: Dataset, requests: Requests, lists: Mapping[str, tuple[str, np.ndarray]], time: int, hours: float
) -> pd.DataFrame:
    """Return of what kinds the recommended articles are, vs. what was shown to everybody in the hours before.

    Returns:
        One row a category, largest share shown first, then one a sentiment: ``kind`` (category or sentiment),
        ``value``, and the shares of ``shown`` and of each scorer's lists, an article counted as often as it occurs.
        Shares of categories, the unknown one among them, add up to 1, or are NaN without an article; sentiments are
        means of the articles' shares, articles without any left out.
    """
    log, meta = dataset.log, dataset.metadata
    shown = log.article[log.per_candidate((log.time >= time - int(hours * HOUR)) & (log.time < time))]
    given = {"shown": shown[shown > 0]}
    given |= {name: requests.slates.article[picked[picked >= 0]] for name, (_, picked) in lists.items()}
    names = ["unknown", *(str(name) for name in _category_names(dataset))]
    counts = {name: np.bincount(meta.category[own], minlength=len(names)) for name, own in given.items()}
    category = pd.DataFrame(counts)
    category = (category / category.sum()).assign(kind="category", value=names)[category.gt(0).any(axis=1)]
    category = category.sort_values("shown", ascending=False, kind="stable")
    mood = pd.DataFrame({name: _mood(meta.sentiment, own) for name, own in given.items()})
    mood = mood.assign(kind="sentiment", value=[label.lower() for label in SENTIMENT_LABELS])
    return pd.concat([category, mood], ignore_index=True)[["kind", "value", *given]]


def _category_names(dataset: Dataset) -> list[str]:
    """Return the name of each category in the order of ``Metadata.category``, from 1."""
    table = dataset.articles[["category", "category_str"]].dropna(subset=["category"])
    first = table.drop_duplicates("category").sort_values("category")
    return first["category_str"].fillna(first["category"].astype(str)).tolist()


def _mood(sentiment: np.ndarray, articles: np.ndarray) -> np.ndarray:
    """Return the mean sentiment shares of articles: float64 (3,), NaN where none has any."""
    own = sentiment[articles].astype(np.float64)
    own = own[~np.isnan(own[:, 0])]
    return own.mean(axis=0) if len(own) else np.full(sentiment.shape[1], np.nan)


# --- what diversity costs ------------------------------------------------------------------------------------


def on_next_click(found: NextClicks, model: str, space: ArticleSpace, seed: int) -> pd.DataFrame:
    """Re-rank the pools of next clicks that a model has ranked, and evaluate the new order by where the clicks stand.

    Returns:
        One row a weight: ``diversity_weight``; ``ndcg@10`` and ``diversity``, the intra-list diversity of the first
        ten, means over impressions with intervals over users (``…_ci``).
    """
    live, scores, table = found.live, found.scores[model], []
    for weight in WEIGHTS:
        order = pick(live, scores, space, DEPTH, weight)
        new = scaled(scores, live.offsets)
        slate, rank = np.nonzero(order >= 0)
        new[order[slate, rank]] = 2.0 + DEPTH - rank
        row: dict[str, Any] = {"diversity_weight": weight}
        for name, values in (
            ("ndcg@10", found.values(found.place(new))[:, 0]),
            ("diversity", intralist_diversity(articles_of(live, order), space.vectors)),
        ):
            row |= with_intervals(values[:, None], live.user_id, seed, [name])
        table.append(row)
    return pd.DataFrame(table)


def on_live(requests: Requests, scores: np.ndarray, space: ArticleSpace, k: int, seed: int) -> pd.DataFrame:
    """Re-rank the live articles of every user and compare with the lists by score alone.

    Returns:
        One row a weight: ``diversity_weight``; ``diversity``, the mean intra-list diversity, with its interval over
        users (``diversity_ci``); ``score``, the mean score scaled to 0 (the user's lowest live article) to 1 (the
        highest); and ``kept``, the share of the list by score alone that is still in it.
    """
    relative = np.append(scaled(scores, requests.slates.offsets), np.nan)  # an empty place, −1, takes the last
    slates, table = requests.slates, []
    base = pick(slates, scores, space, k)
    for weight in WEIGHTS:
        picked = pick(slates, scores, space, k, weight)
        table.append(
            {
                "diversity_weight": weight,
                **mean_interval("diversity", intralist_diversity(articles_of(slates, picked), space.vectors), seed),
                "score": float(np.nanmean(relative[picked])),
                "kept": float(np.isin(picked[picked >= 0], base[base >= 0]).mean()),
            }
        )
    return pd.DataFrame(table)
