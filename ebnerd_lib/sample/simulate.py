"""What readers do: visits, slates, clicks and histories, one reader at a time and in order of time.

Popularity is given by the pools and never fed back, so a reader's rows depend on nobody else's.
"""

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from ebnerd_lib.sample.articles import DAY, WEEK
from ebnerd_lib.sample.random import STEP, bell, mixed, uniform

VISIT_GOES_ON = 0.515  # chance that a visit has one impression more
VISIT_HABIT = 0.4  # chance that a visit comes at the hour of an earlier one
GAP_MEDIAN, GAP_SPREAD, GAP_MAX = 57.0, 0.98, 1790.0  # seconds between impressions of a visit, log-normal
LANDS_ON_ARTICLE = 0.145  # chance that a visit opens on an article page
STAYS_ON_ARTICLE = 0.445  # chance that the next impression is the page of the article just clicked
OWN_ARTICLE_SHOWN = 0.47
MAX_TRIES = 24

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
Articles = NDArray[np.int32]
Flags = NDArray[np.bool_]
State = NDArray[np.uint64]


class Pools(NamedTuple):
    """What may be shown and when. Cumulative weights run from above 0 to 1 inside each slot or block."""

    begin: int  # seconds: start of slot 0
    slot_seconds: int
    first: Articles  # slot -> its first article
    start: Places  # slot -> its first entry below
    latest: Floats  # cumulative weights in slates that lean to the latest news,
    settled: Floats  # in slates that lean to settled news,
    read: Floats  # and in histories
    pull: Floats  # utility
    block_seconds: int
    old_start: Places  # block -> its first entry below
    old_article: Articles
    old_shown: Floats
    old_pull: Floats


class Traits(NamedTuple):
    """What readers see of an article."""

    category: NDArray[np.int16]
    topic: NDArray[np.int16]
    premium: Flags


class Choice(NamedTuple):
    """Strengths of what decides a click, in units of utility."""

    category_taste: float
    topic_taste: float
    premium_subscriber: float
    fatigue: float
    clicked_before: float
    own_article: float
    clicked_hidden: float  # chance that an article already clicked is passed over when a slate is filled
    depth: float  # how much longer slates lean to settled news
    depth_spread: float  # and how much slates of a length differ in it
    history_old: float  # share of history clicks that go to the old pool
    history_repeat: float  # chance that a history click goes back to one of the last articles


@nb.njit(cache=True, nogil=True)
def find(cumulative: Floats, low: int, high: int, value: float) -> int:
    """Return the first position in ``[low, high)`` whose cumulative weight exceeds ``value``."""
    last = high - 1
    while low < last:
        middle = (low + last) // 2
        if cumulative[middle] > value:
            last = middle
        else:
            low = middle + 1
    return low


@nb.njit(cache=True, nogil=True)
def visit_times(
    state: State, times: Places, opens: Flags, begin: int, weeks: int, quiet: float, profile: Floats
) -> None:
    """Fill ``times`` (seconds, ascending) and ``opens`` (whether an impression opens a visit).

    Visits follow the site's week ``profile`` (cumulative, an entry an hour) or the reader's own earlier hours, and
    are at least ``quiet`` seconds apart.
    """
    wanted = times.size
    starts = np.empty(wanted, np.float64)
    sizes = np.empty(wanted, np.int64)
    visits = 0
    left = wanted
    end = begin + weeks * WEEK
    while left > 0:
        size = 1
        while size < left and uniform(state) < VISIT_GOES_ON:
            size += 1
        if visits > 0 and uniform(state) < VISIT_HABIT:
            model = starts[int(uniform(state) * visits)]
            start = begin + int(uniform(state) * 7 * weeks) * DAY + (model - begin) % DAY
            start = max(float(begin), start + (uniform(state) - 0.5) * 3600.0)
        else:
            hour = find(profile, 0, profile.size, uniform(state))
            start = begin + int(uniform(state) * weeks) * WEEK + (hour + uniform(state)) * 3600.0
        starts[visits] = start
        sizes[visits] = size
        visits += 1
        left -= size
    # By insertion: a reader's visits are few, and numba's own sort would double the time to compile.
    for visit in range(1, visits):
        start = starts[visit]
        place = visit
        while place > 0 and starts[place - 1] > start:
            starts[place] = starts[place - 1]
            place -= 1
        starts[place] = start
    row = 0
    now = float(begin) - quiet
    for visit in range(visits):
        now = max(starts[visit], now + quiet * (1.0 + uniform(state)))
        for step in range(sizes[visit]):
            if step > 0:
                now += min(GAP_MAX, max(1.0, GAP_MEDIAN * np.exp(GAP_SPREAD * bell(state))))
            times[row] = int(now)
            opens[row] = step == 0
            row += 1
    limit = end - 1
    for row in range(wanted - 1, -1, -1):
        times[row] = min(times[row], limit)
        limit = times[row] - 1


@nb.njit(cache=True, nogil=True)
def fill_tastes(key: np.uint64, user: int, choice: Choice, by_category: Floats, by_topic: Floats) -> None:
    """Draw a reader's tastes: the same in both weeks and in the histories."""
    state = np.empty(1, np.uint64)
    state[0] = mixed(key + np.uint64(user) * STEP)
    for i in range(by_category.size):
        by_category[i] = choice.category_taste * bell(state)
    for i in range(by_topic.size):
        by_topic[i] = choice.topic_taste * bell(state)


@nb.njit(cache=True, nogil=True)
def simulate_week(
    key: np.uint64, taste_key: np.uint64, users: Places, rows: Places, subscriber: Flags, begin: int,
    profile: Floats, old_shares: Floats, slate_start: Places, click_start: Places, pools: Pools, traits: Traits,
    choice: Choice, times: Places, opens: Flags, pages: Articles, slates: Articles, clicks: Articles,
) -> None:  # fmt: skip
    """Simulate a week of impressions of some readers; the last five arguments are filled.

    Args:
        key: Key of the week.
        taste_key: Key of the readers' tastes.
        users: Ordinals of the readers.
        rows: Reader -> its first row; one entry more than readers.
        subscriber: Whether each reader subscribes.
        begin: Start of the week, seconds.
        profile: Cumulative share of visits by hour of the week.
        old_shares: Inverse distribution function of a slate's expected share of old articles, evenly spaced.
        slate_start: Row -> its first entry in ``slates``.
        click_start: Row -> its first entry in ``clicks``.
        pools: What may be shown.
        traits: The articles.
        choice: The strengths.
        times: Seconds, by row.
        opens: Whether a row opens a visit.
        pages: Article of the page being read, -1 for the front page.
        slates: Articles shown, in shuffled order.
        clicks: Articles clicked.
    """
    articles = traits.category.size
    state = np.empty(1, np.uint64)
    by_category = np.empty(int(traits.category.max()) + 1)
    by_topic = np.empty(int(traits.topic.max()) + 1)
    seen = np.zeros(articles, np.int32)
    chosen = np.zeros(articles, np.bool_)
    touched = np.empty(articles, np.int32)
    pulls = np.empty(256)
    utility = np.empty(256)
    for i in range(users.size):
        state[0] = mixed(key + np.uint64(users[i]) * STEP)
        fill_tastes(taste_key, users[i], choice, by_category, by_topic)
        visit_times(state, times[rows[i] : rows[i + 1]], opens[rows[i] : rows[i + 1]], begin, 1, 1800.0, profile)
        touches = 0
        page = -1
        page_pull = 0.0
        for row in range(rows[i], rows[i + 1]):
            slot = (times[row] - pools.begin) // pools.slot_seconds
            block = (times[row] - pools.begin) // pools.block_seconds
            low, high = pools.start[slot], pools.start[slot + 1]
            old_low, old_high = pools.old_start[block], pools.old_start[block + 1]
            on_article = uniform(state) < (LANDS_ON_ARTICLE if opens[row] else STAYS_ON_ARTICLE)
            if not on_article:
                page = -1
            elif opens[row]:
                at = find(pools.settled, low, high, uniform(state))
                page = pools.first[slot] + at - low
                page_pull = pools.pull[at]
            pages[row] = page

            slate = slates[slate_start[row] : slate_start[row + 1]]
            size = slate.size
            spot = uniform(state) * (old_shares.size - 1)
            old_share = old_shares[int(spot)]
            old_share += (spot - int(spot)) * (old_shares[int(spot) + 1] - old_share)
            # Who scrolls far sees settled news; a short slate is the top of the page, where the latest stand.
            deep = choice.depth * np.log(size / 9.0) + choice.depth_spread * bell(state)
            latest = 1.0 / (1.0 + np.exp(deep))
            filled = 0
            if page >= 0 and uniform(state) < OWN_ARTICLE_SHOWN:
                slate[0] = page
                pulls[0] = page_pull + choice.own_article
                filled = 1
            while filled < size:
                old = uniform(state) < old_share
                article = -1
                pull = 0.0
                for _ in range(MAX_TRIES):
                    if old:
                        at = find(pools.old_shown, old_low, old_high, uniform(state))
                        article = pools.old_article[at]
                        pull = pools.old_pull[at]
                    else:
                        fresh = pools.latest if uniform(state) < latest else pools.settled
                        at = find(fresh, low, high, uniform(state))
                        article = pools.first[slot] + at - low
                        pull = pools.pull[at]
                    taken = article == page or (chosen[article] and uniform(state) < choice.clicked_hidden)
                    for j in range(filled):
                        taken = taken or slate[j] == article
                    if not taken:
                        break
                    article = -1
                tries = 0
                while article < 0:
                    # The pool is all but used up: take any of the fresh articles, then any published by now.
                    tries += 1
                    at = low + int(uniform(state) * (high - low))
                    article = pools.first[slot] + at - low
                    pull = pools.pull[at]
                    if tries > MAX_TRIES:
                        article = int(uniform(state) * (pools.first[slot] + high - low))
                    taken = article == page
                    for j in range(filled):
                        taken = taken or slate[j] == article
                    if taken:
                        article = -1
                slate[filled] = article
                pulls[filled] = pull
                filled += 1
            for j in range(size - 1, 0, -1):
                other = int(uniform(state) * (j + 1))
                slate[j], slate[other] = slate[other], slate[j]
                pulls[j], pulls[other] = pulls[other], pulls[j]

            for j in range(size):
                article = slate[j]
                value = by_category[traits.category[article]] + by_topic[traits.topic[article]]
                if traits.premium[article] and subscriber[i]:
                    value += choice.premium_subscriber
                value -= choice.fatigue * np.log(1.0 + seen[article])
                if chosen[article]:
                    value += choice.clicked_before
                utility[j] = pulls[j] + value
            last = -1
            for c in range(click_start[row], click_start[row + 1]):
                best = -1
                top = -1.0e300
                for j in range(size):
                    # Gumbel noise picks without replacement in proportion to exp(utility).
                    if utility[j] > -1.0e290:
                        luck = utility[j] - np.log(-np.log(1.0 - uniform(state)) + 1e-300)
                        if luck > top:
                            top = luck
                            best = j
                clicks[c] = slate[best]
                if last < 0:
                    last = best
                    page_pull = pulls[best]
                utility[best] = -1.0e300
            for j in range(size):
                if seen[slate[j]] == 0:
                    touched[touches] = slate[j]
                    touches += 1
                seen[slate[j]] += 1
            for c in range(click_start[row], click_start[row + 1]):
                chosen[clicks[c]] = True
            page = slate[last]
        for j in range(touches):
            seen[touched[j]] = 0
            chosen[touched[j]] = False


@nb.njit(cache=True, nogil=True)
def simulate_histories(
    key: np.uint64, taste_key: np.uint64, users: Places, early: Places, middle: Places, late: Places,
    in_train: Flags, in_validation: Flags, train_begin: int, profile: Floats, click_rows: Places,
    click_times: Places, click_articles: Articles, kept_clicks: float, pools: Pools, traits: Traits,
    choice: Choice, times: Places, articles: Articles, train_start: Places, validation_start: Places,
) -> None:  # fmt: skip
    """Simulate what readers clicked in the three weeks before each week.

    Args:
        key: Key of the histories.
        taste_key: Key of the readers' tastes.
        users: Ordinals of the readers.
        early: Clicks in the first week, of three before the train week.
        middle: Clicks in the other two.
        late: Clicks in the train week beside those of its impressions.
        in_train: Whether a reader has a train history.
        in_validation: Whether a reader has a validation history.
        train_begin: Start of the train week, seconds.
        profile: Cumulative share of visits by hour of the week.
        click_rows: Reader -> its first click of the train week; one entry more than readers.
        click_times: Times of the train week's clicks.
        click_articles: Articles of the train week's clicks.
        kept_clicks: Share of these that the validation history holds.
        pools: What may be read.
        traits: The articles.
        choice: The strengths.
        times: Filled, shape (2, capacity): times of the train and the validation histories.
        articles: Filled alike.
        train_start: Filled: reader -> its first entry; one entry more than readers.
        validation_start: Filled alike.
    """
    state = np.empty(1, np.uint64)
    by_category = np.empty(int(traits.category.max()) + 1)
    by_topic = np.empty(int(traits.topic.max()) + 1)
    train_start[0] = 0
    validation_start[0] = 0
    for i in range(users.size):
        state[0] = mixed(key + np.uint64(users[i]) * STEP)
        fill_tastes(taste_key, users[i], choice, by_category, by_topic)
        known = early[i] + middle[i]
        total = known + late[i]
        when = np.empty(total, np.int64)
        what = np.empty(total, np.int32)
        opens = np.empty(total, np.bool_)
        visit_times(state, when[: early[i]], opens[: early[i]], train_begin - 3 * WEEK, 1, 60.0, profile)
        visit_times(state, when[early[i] : known], opens[early[i] : known], train_begin - 2 * WEEK, 2, 60.0, profile)
        visit_times(state, when[known:total], opens[known:], train_begin, 1, 60.0, profile)
        for j in range(total):
            if j > 0 and uniform(state) < choice.history_repeat:
                what[j] = what[j - 1 - int(uniform(state) * min(j, 8))]
                continue
            slot = (when[j] - pools.begin) // pools.slot_seconds
            block = (when[j] - pools.begin) // pools.block_seconds
            old = uniform(state) < choice.history_old
            article = 0
            for _ in range(MAX_TRIES):
                if old:
                    at = find(pools.old_shown, pools.old_start[block], pools.old_start[block + 1], uniform(state))
                    article = pools.old_article[at]
                else:
                    at = find(pools.read, pools.start[slot], pools.start[slot + 1], uniform(state))
                    article = pools.first[slot] + at - pools.start[slot]
                taste = by_category[traits.category[article]] + by_topic[traits.topic[article]]
                if uniform(state) < np.exp(taste - 1.5):
                    break
            what[j] = article
        if in_train[i]:
            first = train_start[i]
            times[0, first : first + known] = when[:known]
            articles[0, first : first + known] = what[:known]
        train_start[i + 1] = train_start[i] + (known if in_train[i] else 0)
        if in_validation[i]:
            # Both runs of clicks are in order of time: merge them.
            end = validation_start[i]
            other = early[i]
            for c in range(click_rows[i], click_rows[i + 1]):
                if uniform(state) >= kept_clicks:
                    continue
                while other < total and when[other] <= click_times[c]:
                    times[1, end] = when[other]
                    articles[1, end] = what[other]
                    other += 1
                    end += 1
                times[1, end] = click_times[c]
                articles[1, end] = click_articles[c]
                end += 1
            for j in range(other, total):
                times[1, end] = when[j]
                articles[1, end] = what[j]
                end += 1
            validation_start[i + 1] = end
        else:
            validation_start[i + 1] = validation_start[i]
