"""Pools: the articles live at the time of a request, as one slate, for training and serving alike.

Whoever recommends ranks all that is live, not what an editor has put on a page. So the columns that depend on the
slate, ranks and ratios included, are computed within the whole pool, also where training keeps a sample of it.
"""

# mypy: disable-error-code="no-untyped-def"

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numba import njit

from ebnerd_lib.configs import Pools
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR, Slates, candidate_rows, concatenate, large_zeros
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.features.build import Features, compute_features, halves
from ebnerd_lib.features.context import FeatureContext, feature_context

POOL_HOURS = 24.0
"""An article is live as long as this after it was in view."""
_VIEWS = "inviews_decay_1h"
_AT_A_TIME = 256  # requests: a mark for each article is held for so many
_NEVER, _LATEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max >> 1


def pools(
    dataset: Dataset, requests: Slates, hours: float = POOL_HOURS, context: FeatureContext | None = None
) -> Slates:
    """Return the pool of each request as its slate: what was in view in [t − hours, t), less what its user has read.

    Read is what the user clicked before t, in the history of the week or in the log. One pass along the log; beside
    ids of the candidates, only what some requests need is held. Requests come in order of time; of their own slates
    nothing matters but what was clicked. ``context`` is that of the dataset, where it is known already.

    Returns:
        The same impressions, their candidates in order of the article index; there may be none. ``clicked`` is what
        was clicked of it in the request's own slate: a click on what is not in the pool is lost.

    Raises:
        ValueError: the requests are not in order of time.
    """
    if (np.diff(requests.time) < 0).any():
        raise ValueError("requests must come in order of time: they are met along the log")
    context, span = context or feature_context(dataset), int(hours * HOUR)
    log, last = context.log, np.full(context.articles, _NEVER)
    at = np.searchsorted(log.time, requests.time[:1] - span)
    lengths, articles, clicked = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, bool)]
    for start in range(0, len(requests), _AT_A_TIME):
        own = requests.between(start, min(start + _AT_A_TIME, len(requests)))
        live = np.zeros((len(own), context.articles), dtype=bool)
        _mark_live(own.time, span, log.time, log.offsets, log.article, at, last, live)
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
    offsets = np.searchsorted(pairs, np.arange(len(user) + 1) * context.articles)
    return offsets, (pairs % context.articles).astype(np.int32)


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
    dataset: Dataset, columns: Sequence[str], settings: Pools, warmup_hours: float = 48.0, seed: int = 0
) -> tuple[Dataset, dict[str, Features]]:
    """Return what a model of the next click learns from: the same dataset with pools for slates, and their features.

    The train part, less ``warmup_hours`` at its start, becomes a sample of its impressions with a click: of each pool,
    what was clicked, others sampled without replacement in proportion to ``inviews_decay_1h``, and others that each
    have the same chance. The tuning part becomes a sample of whole pools. Features are the ``columns`` of candidates
    within the whole pool, stored as float16.

    Returns:
        The dataset, whose log is of no use any more, and the features of ``train`` and ``tuning``; those of ``train``
        say by ``log_chance`` how likely each candidate was to be kept.

    Raises:
        ConfigError: the train part or the tuning part has no impression to sample.
    """
    train, tuning = dataset.parts["train"], dataset.parts["tuning"]
    since = int(train.time.min(initial=_LATEST)) + int(warmup_hours * HOUR)
    of_train = train.take(sample_clicked(train, settings.impressions, seed, since))
    of_tuning = tuning.take(sample_clicked(tuning, settings.tuning_impressions, seed))
    context, cut = feature_context(dataset), len(of_train)
    whole = pools(dataset, concatenate([of_train, of_tuning]), settings.hours, context)
    lengths = whole.lengths
    lengths[:cut] = np.minimum(lengths, whole.clicks + settings.evenly + settings.by_views)[:cut]
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    matrix = large_zeros((int(offsets[-1]), len(columns)), np.float16)
    kept, log_chance = np.ones(whole.candidates, bool), np.zeros(whole.candidates, np.float32)
    sampled, rng = int(whole.offsets[cut]), np.random.default_rng(seed)
    for rows, _, found in compute_features(whole, context, list(dict.fromkeys([*columns, _VIEWS]))):
        first, end = int(rows[0]), int(rows[-1]) + 1
        own = slice(whole.offsets[first], min(whole.offsets[end], sampled))
        if first < cut:
            slates = whole.between(first, min(end, cut))
            views = found.column(_VIEWS)[: slates.candidates]
            kept[own], log_chance[own] = _sample(slates, views, settings, rng)
        here = kept[whole.offsets[first] : whole.offsets[end]]
        matrix[offsets[first] : offsets[end]] = halves(found.select(list(columns))[here])
    both, log_chance = whole.keep(kept), log_chance[kept]
    parts = {"train": both.between(0, cut), "tuning": both.between(cut, len(both))}
    ends = {"train": slice(0, offsets[cut]), "tuning": slice(offsets[cut], None)}
    features = {part: Features(matrix[own], list(columns), log_chance[own]) for part, own in ends.items()}
    return replace(dataset, parts={**dataset.parts, **parts}), features


def sample_clicked(slates: Slates, number: int, seed: int, since: int = _NEVER) -> np.ndarray:
    """Sample impressions with a click from a time on: ascending rows, all where there are not so many.

    Raises:
        ConfigError: there is none.
    """
    rows = np.flatnonzero((slates.time >= since) & (slates.clicks > 0))
    if not len(rows):
        raise ConfigError(
            f"warmup_hours: of {len(slates)} impressions none with a click is left to sample. Lower warmup_hours."
        )
    return np.sort(np.random.default_rng(seed).choice(rows, min(number, len(rows)), replace=False))


def _sample(
    slates: Slates, views: np.ndarray, settings: Pools, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sample each slate, see ``training_pools``: what is kept, bool (m,), and the log of its chance, float64 (m,).

    The largest of log weight + Gumbel noise are a sample without replacement in proportion to the weights. Given the
    largest κ that is left out, a candidate of weight w had the chance 1 − exp(−w · exp(−κ)) (Kool, van Hoof and
    Welling, 2019). What was clicked is kept in any case; its chance is that of an equal candidate without a click.
    """
    slate, kept, missed = slates.per_candidate(np.arange(len(slates))), slates.clicked.copy(), np.ones(len(views))
    place = np.arange(len(views)) - np.repeat(slates.offsets[:-1], slates.lengths)
    for number, weight in ((settings.by_views, np.maximum(views, 1e-6)), (settings.evenly, np.ones(len(views)))):
        if not number:
            continue
        key = np.log(weight) + rng.gumbel(size=len(weight))
        order = np.lexsort((np.where(kept, -np.inf, -key), slate))
        wanted = (np.bincount(slate[kept], minlength=len(slates)) + number)[slate]
        left, largest = order[place == wanted], np.full(len(slates), -np.inf)
        largest[slate[left]] = key[left]
        kept[order[place < wanted]] = True
        missed *= np.exp(-weight * np.exp(-largest)[slate])
    return kept, np.log1p(-missed)
