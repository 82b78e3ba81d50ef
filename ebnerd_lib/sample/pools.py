"""What the site may show at each moment, and how strongly each article is shown, read and clicked."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebnerd_lib.sample.articles import DAY, END, HISTORY_BEGIN, HOUR, WEEK, Articles, Floats, Ids, Places, starts_of

SLOT = 540  # seconds
BLOCK = 3600  # seconds

# Share of a day's impressions by hour as stored, percent, and of the week's days from Thursday on.
HOURS = (
    0.7, 0.5, 0.7, 2.0, 4.4, 6.3, 6.8, 6.2, 5.0, 4.7, 4.6, 4.6, 4.5, 4.4, 4.5, 4.7, 5.0, 5.5, 5.8, 6.0, 5.7,
    4.3, 2.7, 1.5,
)  # fmt: skip
DAYS = (1.0, 0.97, 0.93, 1.0, 1.04, 1.03, 1.03)
# Share of a week's impressions in each of its 168 hours, the first being Thursday 07:00.
TRAFFIC = np.roll(np.outer(DAYS, HOURS).ravel(), -7)
TRAFFIC /= TRAFFIC.sum()
SITE_VIEWS, SITE_CLICKS = 4.0e7, 3.4e6  # articles in view, and clicks at utility 0, in a week on the whole site
FRESH = (49.0, 55.0)  # hours after which an article leaves the fresh pool, even between the two

# Fitted to the ages in view and at click. By age in hours, straight lines between on the logarithm of the age.
AGES = (0.15, 0.45, 0.8, 1.2, 1.7, 2.4, 3.3, 5.0, 9.0, 14.0, 20.0, 34.0)
SHOWN = (1.05, 2.03, 2.35, 2.31, 1.82, 1.68, 0.77, -0.53, -1.60, -4.22, -5.07, -7.44)  # log weight in slates
SHOWN_APPEAL = (0.12, 0.16, 0.22, 0.28, 0.33, 0.33, 0.38, 0.38, 0.44, 0.5, 0.7, 0.9)  # what appeal adds to it
READ = (1.48, 1.48, 1.26, 1.09, 0.49, -0.11, -0.53, -0.95, -2.13, -3.84, -4.62, -5.51)  # log weight in histories
PULL = (-1.17, -0.82, -0.49, 0.06, 0.19, 0.46, 0.60, 0.78, 0.71, 0.80, -0.62, -1.10)  # utility
APPEAL_PULL = 0.54  # utility of a unit of appeal
# What being premium adds to the three above.
PREMIUM_SHOWN, PREMIUM_PULL, PREMIUM_READ = 0.44, -1.39, -1.44
LEANING_HOURS = 3.0  # age that neither favours
LEANING = 1.0  # by how much a slate leans to the latest or to the settled news, on the logarithm of the age
EDITORS_LAG = 1.0  # hours by which what is shown follows what is liked
TIDE, TIDE_HOURS = 1.8, 13.0  # strength and period of the rise and fall of interest

# Old articles come back for a while. Classes by age in hours, and by class: share of the returns,
OLD_AGES = (50.0, 96.0, 240.0, 720.0, 3600.0, 155_000.0)
OLD_SHARES = (0.12, 0.12, 0.14, 0.07, 0.55)
OLD_MASS = (0.13, 0.15, 0.08, 0.095, 0.44)  # share of what is shown of old articles, beside the evergreens,
OLD_PULL = (-1.46, -1.69, -2.47, -2.44, -2.57)  # and utility.
OLD_PREMIUM = 0.3  # share of premium articles in each class
OLD_APPEAL_PULL = 0.6  # of an article's own appeal, which does not pass as a tide does
RETURNS_A_WEEK = 2450
RETURN_HOURS, RETURN_SPREAD = 3.5, 1.2  # median and log-normal spread
RETURN_WEIGHT = 2.3  # log-normal spread
EVERGREEN_HOURS = 3351  # their age at the end of the train week
EVERGREENS = (0.07, 0.025, 0.01)  # each one's share of what is shown of old articles
EVERGREEN_PULL = (-3.13, -2.03, -2.63)


class Pools(NamedTuple):
    """What may be shown in each slot, and of old articles in each block; weights are cumulative in it, up to 1."""

    first: Ids  # slot -> its first article
    size: Places  # slot -> how many of the entries below are its own; they are of articles one after the other
    latest: Floats  # weight in slates that lean to the latest news,
    settled: Floats  # in slates that lean to settled news,
    read: Floats  # and in histories
    pull: Floats  # utility
    old_size: Places  # block -> how many of the entries below are its own
    old_article: Ids
    old_shown: Floats  # weight
    old_pull: Floats


def _by_age(hours: Floats, values: tuple[float, ...]) -> Floats:
    return np.interp(np.log(np.maximum(hours, AGES[0])), np.log(AGES), values)


def _flatten(first: NDArray[np.integer], past: NDArray[np.integer]) -> tuple[Places, Places]:
    """Return the row and the position of each number of the ranges ``[first, past)``, one range a row."""
    sizes = past - first
    row = np.repeat(np.arange(first.size), sizes)
    start = np.cumsum(sizes) - sizes
    return row, np.arange(sizes.sum()) - start[row] + first[row]


def _cumulative(weights: Floats, sizes: Places) -> Floats:
    """Return cumulative weights that start anew in each part of the given sizes and end at 1."""
    total = np.concatenate([[0.0], np.cumsum(weights)])
    bounds = total[starts_of(sizes)]
    return (total[1:] - np.repeat(bounds[:-1], sizes)) / np.repeat(np.diff(bounds), sizes)


def build_pools(rng: np.random.Generator, articles: Articles, *, test: bool = False) -> Pools:
    """Build the pools of the hidden test week, or of the two weeks of the splits and the three before these."""
    begin, end = (END, END + WEEK) if test else (HISTORY_BEGIN, END)
    begins = np.arange(begin, end, SLOT)
    published = articles.published
    first = np.searchsorted(published, begins - int(FRESH[1] * HOUR))
    past = np.searchsorted(published, begins, side="right")
    slot, article = _flatten(first, past)
    age = (begins[slot] - published[article]) / HOUR
    phase = articles.tide[article]
    appeal = TIDE * np.sin(2 * np.pi * (age / TIDE_HOURS + phase))
    # Editors move an article a while after its readers have come or gone.
    standing = TIDE * np.sin(2 * np.pi * ((age - EDITORS_LAG) / TIDE_HOURS + phase))
    premium = articles.premium[article]
    gone = age > FRESH[0] + (FRESH[1] - FRESH[0]) * articles.tide[article]
    shown = np.exp(_by_age(age, SHOWN) + _by_age(age, SHOWN_APPEAL) * standing + PREMIUM_SHOWN * premium)
    read = np.exp(_by_age(age, READ) + APPEAL_PULL * appeal + PREMIUM_READ * premium)
    # A trace of weight keeps the cumulative sums of a slot valid where everything is gone.
    shown[gone] = read[gone] = 1e-9
    lean = np.maximum(age / LEANING_HOURS, 0.02) ** LEANING
    pull = _by_age(age, PULL) + APPEAL_PULL * appeal + PREMIUM_PULL * premium
    size = past - first
    return Pools(
        first.astype(np.int32),
        size,
        _cumulative(shown / lean, size),
        _cumulative(shown * lean, size),
        _cumulative(read, size),
        pull,
        *_old_pool(rng, articles, begin, end),
    )


def _old_pool(rng: np.random.Generator, articles: Articles, first: int, end: int) -> tuple[Places, Ids, Floats, Floats]:
    """Return each block's number of entries, and of each entry the article, its cumulative weight and its utility."""
    blocks = (end - first) // BLOCK
    returns = RETURNS_A_WEEK * (end - first + DAY) // WEEK
    opened = first + rng.random(returns) * (end - first + DAY) - DAY
    hours = np.minimum(RETURN_HOURS * rng.lognormal(0.0, RETURN_SPREAD, returns), 240.0)
    kind = rng.choice(len(OLD_SHARES), returns, p=OLD_SHARES)
    weight = rng.lognormal(0.0, RETURN_WEIGHT, returns)
    last, least = (np.searchsorted(articles.published, opened - np.array(OLD_AGES)[kind + i] * HOUR) for i in (0, 1))
    least = np.minimum(least, last - 1)
    article = (least + rng.random(returns) * (last - least)).astype(np.int64).clip(0)
    # What is months old comes back once: an article's past rate says nothing about later weeks.
    archive = max(1, int(np.searchsorted(articles.published, first - OLD_AGES[-2] * HOUR)))
    deep = np.flatnonzero(kind == len(OLD_SHARES) - 1)
    article[deep] = rng.permutation(archive)[np.arange(deep.size) % archive]
    pull = np.array(OLD_PULL)[kind] + OLD_APPEAL_PULL * articles.appeal[article]
    pull += PREMIUM_PULL * articles.premium[article]

    begin = np.clip(((opened - first) // BLOCK).astype(np.int64), 0, blocks)
    past = np.clip(((opened - first + hours * HOUR) // BLOCK).astype(np.int64) + 1, 0, blocks)
    entry, block = _flatten(begin, np.maximum(begin, past))
    # Each class has its share in every block, and premium articles theirs of it, so that a few strong returns
    # shift neither the ages shown nor the share of premium.
    paid = articles.premium[article[entry]]
    group = (block * len(OLD_MASS) + kind[entry]) * 2 + paid
    mass = np.array(OLD_MASS)[kind[entry]] * np.where(paid, OLD_PREMIUM, 1.0 - OLD_PREMIUM)
    heavy = weight[entry] / np.bincount(group, weight[entry])[group] * mass
    plain = np.flatnonzero(~articles.premium)
    middle = np.searchsorted(articles.published, END - WEEK - EVERGREEN_HOURS * HOUR)
    evergreen = plain[np.argsort(np.abs(plain - middle), kind="stable")[: len(EVERGREENS)]]

    # The evergreens come first in every block.
    block = np.concatenate([np.repeat(np.arange(blocks), len(EVERGREENS)), block])
    order = np.argsort(block, kind="stable")
    sizes = np.bincount(block, minlength=blocks)
    shown = np.concatenate([np.tile(evergreen, blocks), article[entry]])[order].astype(np.int32)
    weights = np.concatenate([np.tile(EVERGREENS, blocks), heavy])[order]
    pulls = np.concatenate([np.tile(EVERGREEN_PULL, blocks), pull[entry]])[order]
    return sizes, shown, _cumulative(weights, sizes), pulls


def expected_totals(pools: Pools, articles: int) -> tuple[Floats, Floats]:
    """Return how often each of a number of articles is expected in view and clicked on the whole site."""
    slot, article = _flatten(pools.first, pools.first + pools.size)
    shown = (pools.latest + pools.settled) / 2
    share = np.diff(shown, prepend=0.0)
    starts = starts_of(pools.size)[:-1]
    share[starts] = shown[starts]
    # Pools begin when a week does, as the traffic does.
    share *= TRAFFIC[slot * SLOT // HOUR % TRAFFIC.size]
    views = np.bincount(article, share * SITE_VIEWS * SLOT / HOUR, articles)
    clicks = np.bincount(article, share * SITE_CLICKS * SLOT / HOUR * np.exp(pools.pull), articles)
    floor = 10.0 + (np.arange(articles) % 97)
    return views + 40 * floor, clicks + floor
