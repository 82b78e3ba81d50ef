"""Pools: the articles live at the time of a request, as one slate, for training and serving alike.

Whoever recommends ranks all that is live, not what an editor has put on a page. So the columns that depend on the
slate, ranks and ratios included, are computed within the whole pool, also where training keeps a sample of it.
"""

# mypy: disable-error-code="no-untyped-def"

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numba import njit

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR, Slates, candidate_rows, concatenate, large_empty
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.features.build import compute_features, halves
from ebnerd_lib.features.context import FeatureContext, feature_context
from ebnerd_lib.features.store import Features

POOL_HOURS = 24.0
"""An article is live as long as this after it was in view."""
_WEIGHT = "inviews_decay_1h"
_AT_A_TIME = 256  # requests: a mark for each article is held for so many
_NEVER = np.iinfo(np.int64).min


def pools(dataset: Dataset, requests: Slates, hours: float = POOL_HOURS) -> Slates:
    """Return the pool of each request as its slate: what was in view in [t − hours, t), less what its user has read.

    Read is what the user clicked before t, in the history of the week or in the log. One pass along the log; beside
    ids of the candidates, only what some requests need is held.

    Args:
        dataset: articles, histories and the log.
        requests: impressions in order of time. Of their own slates nothing matters but what was clicked.
        hours: how long an article is live.

    Returns:
        The same impressions, their candidates in order of the article index; there may be none. ``clicked`` is what
        was clicked of it in the request's own slate: a click on what is not in the pool is lost.

    Raises:
        ValueError: the requests are not in order of time.
    """
    if (np.diff(requests.time) < 0).any():
        raise ValueError("requests must come in order of time: they are met along the log")
    context, span = feature_context(dataset), int(hours * HOUR)
    shown, last = context.inviews, np.full(context.articles, _NEVER)
    at = np.searchsorted(shown.time, requests.time[:1] - span)
    lengths, articles, clicked = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, bool)]
    for start in range(0, len(requests), _AT_A_TIME):
        own = requests.between(start, min(start + _AT_A_TIME, len(requests)))
        live = np.zeros((len(own), context.articles), dtype=bool)
        _mark_live(own.time, span, shown.time, shown.offsets, shown.article, at, last, live)
        offsets, read = read_before(context, own)
        live[np.repeat(np.arange(len(own)), np.diff(offsets)), read] = False
        chosen = np.zeros_like(live)
        chosen[own.per_candidate(np.arange(len(own)))[own.clicked], own.article[own.clicked]] = True
        lengths.append(live.sum(axis=1))
        articles.append(np.nonzero(live)[1].astype(np.int32))
        clicked.append(chosen[live])
    article = np.concatenate(articles)
    return replace(
        requests,
        offsets=np.cumsum(np.concatenate(lengths)),
        article=article,
        article_id=dataset.articles["article_id"].to_numpy()[article].astype(np.int32),
        clicked=np.concatenate(clicked),
    )


def read_before(context: FeatureContext, requests: Slates) -> tuple[np.ndarray, np.ndarray]:
    """Return what the user of each request has read before it, in the history of the week or in the log.

    Returns:
        ``offsets`` int64 (n + 1,) and ``articles`` int32: request ``i`` has ``articles[offsets[i]:offsets[i + 1]]``,
        each known article once, ascending. Unknown users have read nothing.
    """
    index, user, time = context.by_user, requests.user, requests.time
    owner = np.repeat(np.arange(len(user)), np.diff(index.offsets)[user])
    seen = candidate_rows(index.offsets, user)
    past = index.time[seen] < time[owner]
    owner, seen = owner[past], seen[past]
    where = candidate_rows(index.slates, seen)
    hit = index.clicked[where]
    owners, articles = [np.repeat(owner, np.diff(index.slates)[seen])[hit]], [index.article[where][hit]]
    for week, history in enumerate(context.histories):
        own = np.flatnonzero((requests.week == week) & (user > 0))
        owner, before = np.repeat(own, history.lengths[user[own]]), candidate_rows(history.offsets, user[own])
        past = history.time[before] < time[owner]
        owners.append(owner[past])
        articles.append(history.article[before][past])
    article = np.concatenate(articles)
    pairs = np.unique((np.concatenate(owners) * context.articles + article)[article > 0])
    return np.searchsorted(pairs, np.arange(len(user) + 1) * context.articles), (pairs % context.articles).astype(
        np.int32
    )


@njit(cache=True, nogil=True)
def _mark_live(time, span, log_time, log_offsets, log_article, at, last, live):
    # last[a] is when article a was last in view before the request, at[0] the first impression that is not in it.
    for query in range(len(time)):
        while at[0] < len(log_time) and log_time[at[0]] < time[query]:
            for e in range(log_offsets[at[0]], log_offsets[at[0] + 1]):
                last[log_article[e]] = log_time[at[0]]
            at[0] += 1
        for article in range(1, len(last)):
            live[query, article] = last[article] >= time[query] - span


def training_pools(
    dataset: Dataset,
    columns: Sequence[str],
    impressions: int = 9_000,
    evenly: int = 60,
    by_views: int = 60,
    tuning_impressions: int = 1_000,
    warmup_hours: float = 48.0,
    hours: float = POOL_HOURS,
    seed: int = 0,
) -> tuple[Dataset, dict[str, Features]]:
    """Return what a model of the next click learns from: the same dataset with pools for slates, and their features.

    The train part becomes a sample of its impressions with a click: of each pool, what was clicked, ``by_views``
    others sampled in proportion to their recent times in view, and ``evenly`` of the rest. The tuning part becomes
    a sample of whole pools. Features are those of candidates within the whole pool, stored as float16.

    Args:
        dataset: with its log.
        columns: names of those to compute.
        impressions: of the train part, all if there are not so many.
        evenly: candidates that each have the same chance.
        by_views: candidates sampled without replacement in proportion to ``inviews_decay_1h``.
        tuning_impressions: of the tuning part, all if there are not so many.
        warmup_hours: start of the train part that is left out.
        hours: how long an article is live.
        seed: of all samples.

    Returns:
        The dataset, whose log is of no use any more, and the features of ``train`` and ``tuning``.

    Raises:
        ConfigError: the train part or the tuning part has no impression to sample.
    """
    train, tuning = dataset.parts["train"], dataset.parts["tuning"]
    ready = train.time >= train.time.min(initial=0) + int(warmup_hours * HOUR)
    rows = sample_clicked(train, ready, impressions, seed)
    tuning_rows = sample_clicked(tuning, np.ones(len(tuning), bool), tuning_impressions, seed)
    requests = concatenate([train.take(rows), tuning.take(tuning_rows)])
    whole = pools(dataset, requests, hours)
    lengths = whole.lengths
    lengths[: len(rows)] = np.minimum(lengths, whole.clicks + evenly + by_views)[: len(rows)]
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    kept = np.ones(whole.candidates, bool)
    matrix, rng = large_empty((int(offsets[-1]), len(columns)), np.float16), np.random.default_rng(seed)
    names = list(dict.fromkeys([*columns, _WEIGHT]))
    for part in compute_features(whole, feature_context(dataset), names):
        some = slice(*whole.offsets[[part.rows[0], part.rows[-1] + 1]])
        if part.rows[0] < len(rows):
            number = np.where(part.rows < len(rows), evenly, whole.candidates), by_views
            kept[some] = _sample(part.column(_WEIGHT), whole.clicked[some], part.slates, *number, rng)
        matrix[offsets[part.rows[0]] : offsets[part.rows[-1] + 1]] = halves(part.matrix(list(columns))[kept[some]])
    some = {name: getattr(whole, name)[kept] for name in ("article", "article_id", "clicked")}
    both = replace(whole, offsets=offsets, **some)
    cut = {"train": (0, len(rows)), "tuning": (len(rows), len(both))}
    parts = {part: both.between(*ends) for part, ends in cut.items()}
    features = {part: Features(matrix[offsets[start] : offsets[stop]], list(columns)) for part, (start, stop) in cut.items()}
    return replace(dataset, parts={**dataset.parts, **parts}), features


def sample_clicked(slates: Slates, ready: np.ndarray, number: int, seed: int) -> np.ndarray:
    """Sample impressions with a click among those marked: ascending rows, all where there are not so many.

    Raises:
        ConfigError: there is none.
    """
    rows = np.flatnonzero(ready & (slates.clicks > 0))
    if not len(rows):
        raise ConfigError("warmup_hours: no impression with a click is left to learn from. Lower it.")
    return np.sort(np.random.default_rng(seed).choice(rows, min(number, len(rows)), replace=False))


def _sample(
    weight: np.ndarray, clicked: np.ndarray, slates: Slates, evenly: np.ndarray, by_views: int, rng: np.random.Generator
) -> np.ndarray:
    """Mark what is kept of each slate, see ``training_pools``: bool (m,)."""
    slate, kept = slates.per_candidate(np.arange(len(slates))), clicked.copy()
    # The largest of log weight + Gumbel noise are a sample without replacement in proportion to the weights.
    with np.errstate(divide="ignore"):
        by_weight = np.log(weight) + rng.gumbel(size=len(weight))
    for number, key in ((by_views, by_weight), (evenly, rng.random(len(weight)))):
        order = np.lexsort((np.where(kept, -np.inf, -key), slate))
        place = np.arange(len(order)) - np.repeat(slates.offsets[:-1], slates.lengths)
        wanted = np.bincount(slate[kept], minlength=len(slates)) + number
        kept[order] = place < wanted[slate]
    return kept
