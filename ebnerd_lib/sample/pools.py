"""What the site may show at each moment, and how strongly each article is shown, read and clicked."""

import numpy as np
from numpy.typing import NDArray

from ebnerd_lib.sample.articles import DAY, END, HISTORY_BEGIN, HOUR, TRAIN_BEGIN, WARM_UP_BEGIN, WEEK, Articles
from ebnerd_lib.sample.simulate import Pools

SLOT = 540  # seconds
BLOCK = 3600  # seconds
FRESH = (49.0, 55.0)  # hours after which an article leaves the fresh pool, even between the two

# Fitted to the ages in view and at click. By age in hours, straight lines between on the logarithm of the age.
AGES = (0.15, 0.45, 0.8, 1.2, 1.7, 2.4, 3.3, 5.0, 9.0, 14.0, 20.0, 34.0)
SHOWN = (1.05, 2.03, 2.35, 2.31, 1.82, 1.68, 0.77, -0.53, -1.60, -4.22, -5.07, -7.44)  # log weight in slates
SHOWN_APPEAL = (0.12, 0.16, 0.22, 0.28, 0.33, 0.33, 0.38, 0.38, 0.44, 0.5, 0.7, 0.9)  # what appeal adds to it
READ = (1.48, 1.48, 1.26, 1.09, 0.49, -0.11, -0.53, -0.95, -2.13, -3.84, -4.62, -5.51)  # log weight in histories
PULL = (-1.17, -0.82, -0.49, 0.06, 0.19, 0.46, 0.60, 0.78, 0.71, 0.80, -0.62, -1.10)  # utility
APPEAL_PULL = 0.6  # utility of a unit of appeal
# What being premium adds to the three above.
PREMIUM_SHOWN, PREMIUM_PULL, PREMIUM_READ = 0.44, -1.39, -1.44
LEANING_HOURS = 3.0  # age that neither favours
LEANING = 1.0  # by how much a slate leans to the latest or to the settled news, on the logarithm of the age
STEADY = 0.4  # strength of what an article's appeal keeps all its life
EDITORS_LAG = 1.0  # hours by which what is shown follows what is liked
TIDE, TIDE_HOURS = 2.2, 13.0  # strength and period of the rise and fall of interest

# Old articles come back for a while. Classes by age in hours, and by class: share of the returns,
OLD_AGES = (50.0, 96.0, 240.0, 720.0, 3600.0, 155_000.0)
OLD_SHARES = (0.12, 0.12, 0.14, 0.07, 0.55)
OLD_MASS = (0.13, 0.15, 0.08, 0.095, 0.44)  # share of what is shown of old articles, beside the evergreens,
OLD_PULL = (-1.46, -1.69, -2.47, -2.44, -2.57)  # and utility.
OLD_PREMIUM = 0.3  # share of premium articles in each class
OLD_APPEAL_PULL = 0.6
RETURNS_A_WEEK = 2450
RETURN_HOURS, RETURN_SPREAD = 3.5, 1.2  # median and log-normal spread
RETURN_WEIGHT = 2.3  # log-normal spread
EVERGREEN_HOURS = 3351  # their age at the end of the train week
EVERGREENS = (0.07, 0.025, 0.01)  # each one's share of what is shown of old articles
EVERGREEN_PULL = (-3.13, -2.03, -2.63)


def _by_age(hours: NDArray[np.float64], values: tuple[float, ...]) -> NDArray[np.float64]:
    return np.interp(np.log(np.maximum(hours, AGES[0])), np.log(AGES), values)


def _flatten(first: NDArray[np.integer], past: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row and the position of each number of the ranges ``[first, past)``, one range a row."""
    sizes = past - first
    row = np.repeat(np.arange(first.size), sizes)
    start = np.cumsum(sizes) - sizes
    return row, np.arange(sizes.sum()) - start[row] + first[row]


def _cumulative(weights: NDArray[np.float64], start: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return cumulative weights that restart at each ``start`` and end at 1."""
    total = np.concatenate([[0.0], np.cumsum(weights)])
    base = np.repeat(total[start[:-1]], np.diff(start))
    return (total[1:] - base) / np.repeat(total[start[1:]] - total[start[:-1]], np.diff(start))


def build_pools(rng: np.random.Generator, catalogue: Articles, begin: int = HISTORY_BEGIN, end: int = END) -> Pools:
    """Build the pools of some weeks, by default three before the train week and the two weeks of the splits.

    Args:
        rng: Source of chance.
        catalogue: The articles.
        begin: Start of the first week, seconds.
        end: End of the last.
    """
    begins = np.arange(begin, end, SLOT)
    published = catalogue.published
    first = np.searchsorted(published, begins - int(FRESH[1] * HOUR))
    past = np.searchsorted(published, begins, side="right")
    start = np.concatenate([[0], np.cumsum(past - first)])
    slot, article = _flatten(first, past)
    age = (begins[slot] - published[article]) / HOUR
    base, phase = STEADY * catalogue.appeal[article], catalogue.tide[article]
    appeal = base + TIDE * np.sin(2 * np.pi * (age / TIDE_HOURS + phase))
    # Editors move an article a while after its readers have come or gone.
    standing = base + TIDE * np.sin(2 * np.pi * ((age - EDITORS_LAG) / TIDE_HOURS + phase))
    premium = catalogue.premium[article]
    gone = age > FRESH[0] + (FRESH[1] - FRESH[0]) * catalogue.tide[article]
    shown = np.exp(_by_age(age, SHOWN) + _by_age(age, SHOWN_APPEAL) * standing + PREMIUM_SHOWN * premium)
    read = np.exp(_by_age(age, READ) + APPEAL_PULL * appeal + PREMIUM_READ * premium)
    # A trace of weight keeps the cumulative sums of a slot valid where everything is gone.
    shown[gone] = read[gone] = 1e-9
    lean = np.maximum(age / LEANING_HOURS, 0.02) ** LEANING
    pull = _by_age(age, PULL) + APPEAL_PULL * appeal + PREMIUM_PULL * premium

    old_start, old_article, old_shown, old_pull = _old_pool(rng, catalogue, begin, end)
    return Pools(
        begin=begin,
        slot_seconds=SLOT,
        first=first.astype(np.int32),
        start=start,
        latest=_cumulative(shown / lean, start),
        settled=_cumulative(shown * lean, start),
        read=_cumulative(read, start),
        pull=pull,
        block_seconds=BLOCK,
        old_start=old_start,
        old_article=old_article,
        old_shown=_cumulative(old_shown, old_start),
        old_pull=old_pull,
    )


def joined_pools(former: Pools, later: Pools) -> Pools:
    """Join pools of which the second begin where the first end."""
    return former._replace(
        first=np.concatenate([former.first, later.first]),
        start=np.concatenate([former.start, former.start[-1] + later.start[1:]]),
        latest=np.concatenate([former.latest, later.latest]),
        settled=np.concatenate([former.settled, later.settled]),
        read=np.concatenate([former.read, later.read]),
        pull=np.concatenate([former.pull, later.pull]),
        old_start=np.concatenate([former.old_start, former.old_start[-1] + later.old_start[1:]]),
        old_article=np.concatenate([former.old_article, later.old_article]),
        old_shown=np.concatenate([former.old_shown, later.old_shown]),
        old_pull=np.concatenate([former.old_pull, later.old_pull]),
    )


def _old_pool(
    rng: np.random.Generator, catalogue: Articles, first: int, end: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
    """Return for each block its first entry, and for each entry the article, its weight and its pull."""
    blocks = (end - first) // BLOCK
    returns = RETURNS_A_WEEK * (end - first + DAY) // WEEK
    opened = first + rng.random(returns) * (end - first + DAY) - DAY
    hours = np.minimum(RETURN_HOURS * rng.lognormal(0.0, RETURN_SPREAD, returns), 240.0)
    kind = rng.choice(len(OLD_SHARES), returns, p=OLD_SHARES)
    weight = rng.lognormal(0.0, RETURN_WEIGHT, returns)
    youngest = np.array(OLD_AGES[:-1])[kind]
    oldest = np.array(OLD_AGES[1:])[kind]
    last = np.searchsorted(catalogue.published, opened - youngest * HOUR)
    least = np.minimum(np.searchsorted(catalogue.published, opened - oldest * HOUR), last - 1)
    article = (least + rng.random(returns) * (last - least)).astype(np.int64).clip(0)
    # What is months old comes back once: an article's past rate says nothing about later weeks.
    archive = max(1, int(np.searchsorted(catalogue.published, first - OLD_AGES[-2] * HOUR)))
    deep = np.flatnonzero(kind == len(OLD_SHARES) - 1)
    article[deep] = rng.permutation(archive)[np.arange(deep.size) % archive]
    pull = np.array(OLD_PULL)[kind] + OLD_APPEAL_PULL * catalogue.appeal[article]
    pull += PREMIUM_PULL * catalogue.premium[article]

    begin = np.clip(((opened - first) // BLOCK).astype(np.int64), 0, blocks)
    past = np.clip(((opened - first + hours * HOUR) // BLOCK).astype(np.int64) + 1, 0, blocks)
    entry, block = _flatten(begin, np.maximum(begin, past))
    order = np.argsort(block, kind="stable")
    entry, block = entry[order], block[order]
    # Each class has its share in every block, and premium articles theirs of it, so that a few strong returns
    # shift neither the ages shown nor the share of premium.
    paid = catalogue.premium[article[entry]]
    group = (block * len(OLD_MASS) + kind[entry]) * 2 + paid
    mass = np.array(OLD_MASS)[kind[entry]] * np.where(paid, OLD_PREMIUM, 1.0 - OLD_PREMIUM)
    heavy = weight[entry] / np.bincount(group, weight[entry])[group] * mass
    share = np.array(EVERGREENS)
    plain = np.flatnonzero(~catalogue.premium[catalogue.published < WARM_UP_BEGIN])
    middle = np.searchsorted(catalogue.published, TRAIN_BEGIN + WEEK - EVERGREEN_HOURS * HOUR)
    evergreen = plain[np.argsort(np.abs(plain - middle), kind="stable")[: share.size]]

    sizes = np.bincount(block, minlength=blocks) + share.size
    start = np.concatenate([[0], np.cumsum(sizes)])
    at = np.arange(entry.size) + share.size * (block + 1)
    green = (start[:-1, None] + np.arange(share.size)).ravel()
    articles = np.empty(start[-1], np.int32)
    weights = np.empty(start[-1])
    pulls = np.empty(start[-1])
    articles[at], weights[at], pulls[at] = article[entry], heavy, pull[entry]
    articles[green] = np.tile(evergreen, blocks)
    weights[green] = np.tile(share, blocks)
    pulls[green] = np.tile(EVERGREEN_PULL, blocks)
    return start, articles, weights, pulls


def expected_totals(
    pools: Pools, articles: int, traffic: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how often each article is expected in view and clicked on the whole site.

    Args:
        pools: The pools.
        articles: Number of articles.
        traffic: Share of the site's week by hour.
    """
    sizes = np.diff(pools.start)
    slot = np.repeat(np.arange(sizes.size), sizes)
    article = np.arange(pools.pull.size) - np.repeat(pools.start[:-1], sizes) + pools.first[slot]
    shown = (pools.latest + pools.settled) / 2
    share = np.diff(shown, prepend=0.0)
    share[pools.start[:-1]] = shown[pools.start[:-1]]
    hour = ((pools.begin + slot * SLOT - HISTORY_BEGIN) // HOUR) % traffic.size
    views = np.bincount(article, share * traffic[hour] * 4.0e7 * SLOT / HOUR, articles)
    clicks = np.bincount(article, share * traffic[hour] * 3.4e6 * SLOT / HOUR * np.exp(pools.pull), articles)
    floor = 10.0 + (np.arange(articles) % 97)
    return views + 40 * floor, clicks + floor
