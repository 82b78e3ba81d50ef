"""What readers do: visits, slates, clicks and histories, one reader at a time and in order of time.

Popularity is given by the pools and never fed back, and a random number is a function of a key made of the seed, its
purpose and the reader or row. So a reader's rows depend on nobody else's, nor on the order and the size of chunks.
The generator of random numbers is SplitMix64 (Steele, Lea and Flood 2014).
"""

from typing import NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from ebnerd_lib.sample.articles import DAY, HISTORY_BEGIN, WEEK, Flags, Floats, Ids, Places
from ebnerd_lib.sample.pools import BLOCK, SLOT, Pools
from ebnerd_lib.sample.readers import KEPT_CLICKS

VISIT_GOES_ON = 0.515  # chance that a visit has one impression more
VISIT_HABIT = 0.4  # chance that a visit comes at the hour of an earlier one
GAP_MEDIAN, GAP_SPREAD, GAP_MAX = 57.0, 0.98, 1790.0  # seconds between impressions of a visit, log-normal
LANDS_ON_ARTICLE = 0.145  # chance that a visit opens on an article page
STAYS_ON_ARTICLE = 0.445  # chance that the next impression is the page of the article just clicked
OWN_ARTICLE_SHOWN = 0.47  # chance that the article of the page is in the slate
CLICKED_HIDDEN = 0.3  # chance that an article already clicked is passed over when a slate is filled
DEPTH, DEPTH_SPREAD = 3.5, 1.0  # how much longer slates lean to settled news, and slates of a length differ in it
# What decides a click beside the pools' utility, in its units: by category and by topic, the spread of readers' own
# profiles and of what they all like alike; then single terms.
PROFILE, SHARED_PROFILE = 0.24, 0.365
PREMIUM_SUBSCRIBER, CLICKED_BEFORE, OWN_ARTICLE = 1.0, -2.2, -2.5123
FATIGUE = 0.7  # per logarithm of one more than the times seen this week
HISTORY_OLD = 0.0421  # share of history clicks that go to the old pool
HISTORY_REPEAT = 0.03  # chance that a history click goes back to one of the last articles
MAX_TRIES = 24

State = NDArray[np.uint64]
STEP = np.uint64(0x9E3779B97F4A7C15)
FIRST = np.uint64(0xBF58476D1CE4E5B9)
SECOND = np.uint64(0x94D049BB133111EB)
S11, S27, S30, S31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)

compiled = nb.njit(cache=True)


class Site(NamedTuple):
    """What is the same for all readers."""

    profile_key: np.uint64
    profile_mean: Floats  # utility of each category, then of each topic, that all readers' profiles have in common
    subjects: NDArray[np.int16]  # (articles, 2): where in a reader's profile an article's category and its topic stand
    premium: Flags  # by article
    pools: Pools
    start: Places  # slot -> the first entry of its pool; one entry more than slots
    old_start: Places  # block -> the first entry of its pool; one entry more than blocks
    traffic: Floats  # cumulative share of visits by hour of the week
    old_shares: Floats  # inverse distribution function of a slate's expected share of old articles, evenly spaced


class Week(NamedTuple):
    """A week of impressions of some readers, one reader after the other and each in order of time."""

    begin: int  # seconds
    rows: Places  # reader -> the first row; one entry more than readers
    times: Places  # seconds
    opens: Flags  # whether a row opens a visit
    pages: Ids  # article of the page being read, -1 for the front page
    slate_start: Places  # row -> its first entry in ``slates``; one entry more than rows
    slates: Ids  # articles shown, in shuffled order
    click_start: Places  # row -> its first entry in ``clicks``; one entry more than rows
    clicks: Ids  # articles clicked


@compiled
def mixed(state: np.uint64) -> np.uint64:
    """Scatter the bits of a 64-bit state."""
    state = (state ^ (state >> S30)) * FIRST
    state = (state ^ (state >> S27)) * SECOND
    return state ^ (state >> S31)


def stream_key(seed: int, purpose: int) -> np.uint64:
    """Return the key of one purpose's stream under a seed."""
    state = (seed * 0xD1342543DE82EF95 + purpose * int(STEP)) & 0xFFFFFFFFFFFFFFFF
    return np.uint64(mixed(np.uint64(mixed(np.uint64(state)))))


@compiled
def hashed_uniforms(key: np.uint64, counters: NDArray[np.integer]) -> Floats:
    """Return one uniform number in [0, 1) for each counter: equal counters give equal numbers."""
    numbers = np.empty(counters.size)
    for i in range(counters.size):
        numbers[i] = np.float64(mixed(mixed(np.uint64(counters[i]) * STEP + key)) >> S11) * 2.0**-53
    return numbers


def scramble(ordinals: NDArray[np.integer], key: np.uint64, bits: int) -> NDArray[np.uint32]:
    """Map ordinals below ``2**bits`` one to one onto ids below ``2**bits`` that show no order."""
    mask, shift = np.uint64((1 << bits) - 1), np.uint64((bits + 1) // 2)
    ids = ordinals.astype(np.uint64)
    for odd in (0x2C1B3C6D, 0x297A2D39, 0x1B56C4E9):
        ids = (ids + (key & mask)) & mask
        ids = (ids * np.uint64(odd)) & mask
        ids = ids ^ (ids >> shift)
    return ids.astype(np.uint32)


@compiled
def reader_state(key: np.uint64, user: int) -> State:
    """Return the one-element state that a reader's stream starts from."""
    state = np.empty(1, np.uint64)
    state[0] = mixed(key + np.uint64(user) * STEP)
    return state


@compiled
def uniform(state: State) -> float:
    """Advance a state and return a uniform number in [0, 1)."""
    state[0] += STEP
    return np.float64(mixed(state[0]) >> S11) * 2.0**-53


@compiled
def bell(state: State) -> float:
    """Return a bell-shaped number of mean 0 and variance 1, never beyond 3.47 (four uniforms summed)."""
    return (uniform(state) + uniform(state) + uniform(state) + uniform(state) - 2.0) * 1.7320508075688772


@compiled
def find(cumulative: Floats, low: int, high: int, value: float) -> int:
    """Return the first position in ``[low, high)`` whose cumulative weight exceeds ``value``."""
    return min(low + int(np.searchsorted(cumulative[low:high], value, "right")), high - 1)


@compiled
def pick_fresh(state: State, site: Site, weights: Floats, time: int) -> tuple[int, float]:
    """Return a fresh article, picked by weights of the pool at the time, and its utility."""
    slot = (time - HISTORY_BEGIN) // SLOT
    at = find(weights, site.start[slot], site.start[slot + 1], uniform(state))
    return int(site.pools.first[slot] + at - site.start[slot]), site.pools.pull[at]


@compiled
def pick_old(state: State, site: Site, time: int) -> tuple[int, float]:
    """Return an old article of the pool at the time, and its utility."""
    block = (time - HISTORY_BEGIN) // BLOCK
    at = find(site.pools.old_shown, site.old_start[block], site.old_start[block + 1], uniform(state))
    return int(site.pools.old_article[at]), site.pools.old_pull[at]


@compiled
def visit_times(
    state: State, times: Places, opens: Flags, begin: int, weeks: int, quiet: float, traffic: Floats
) -> None:
    """Fill ``times`` (seconds, ascending) and ``opens`` (whether an impression opens a visit).

    Visits follow the site's ``traffic`` in a week (cumulative, an entry an hour) or the reader's own earlier hours,
    and are at least ``quiet`` seconds apart.
    """
    wanted = times.size
    starts = np.empty(wanted, np.float64)
    sizes = np.empty(wanted, np.int64)
    visits, left = 0, wanted
    while left > 0:
        size = 1
        while size < left and uniform(state) < VISIT_GOES_ON:
            size += 1
        if visits > 0 and uniform(state) < VISIT_HABIT:
            model = starts[int(uniform(state) * visits)]
            start = begin + int(uniform(state) * 7 * weeks) * DAY + (model - begin) % DAY
            start = max(float(begin), start + (uniform(state) - 0.5) * 3600.0)
        else:
            hour = find(traffic, 0, traffic.size, uniform(state))
            start = begin + int(uniform(state) * weeks) * WEEK + (hour + uniform(state)) * 3600.0
        starts[visits], sizes[visits] = start, size
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
    row, now = 0, float(begin) - quiet
    for visit in range(visits):
        now = max(starts[visit], now + quiet * (1.0 + uniform(state)))
        for step in range(sizes[visit]):
            if step > 0:
                now += min(GAP_MAX, max(1.0, GAP_MEDIAN * np.exp(GAP_SPREAD * bell(state))))
            times[row] = int(now)
            opens[row] = step == 0
            row += 1
    limit = begin + weeks * WEEK - 1
    for row in range(wanted - 1, -1, -1):
        times[row] = min(times[row], limit)
        limit = times[row] - 1


@compiled
def reader_profile(site: Site, user: int) -> Floats:
    """Sample a reader's profile, which is the same in all weeks and in the histories."""
    state = reader_state(site.profile_key, user)
    profile = np.empty(site.profile_mean.size)
    for i in range(profile.size):
        profile[i] = site.profile_mean[i] + PROFILE * bell(state)
    return profile


@compiled
def fill_slate(state: State, site: Site, time: int, page: int, page_pull: float, chosen: Flags, slate: Ids) -> Floats:
    """Fill ``slate`` with distinct articles, shuffled, and return their utility from the pools.

    ``page`` is the article of the page being read, or -1; ``chosen`` tells of each article whether it was clicked.
    """
    spot = uniform(state) * (site.old_shares.size - 1)
    old_share = site.old_shares[int(spot)]
    old_share += (spot - int(spot)) * (site.old_shares[int(spot) + 1] - old_share)
    # Who scrolls far sees settled news; a short slate is the top of the page, where the latest stand.
    deep = DEPTH * np.log(slate.size / 9.0) + DEPTH_SPREAD * bell(state)
    latest = 1.0 / (1.0 + np.exp(deep))
    pools, pulls = site.pools, np.empty(slate.size)
    filled = 0
    if page >= 0 and uniform(state) < OWN_ARTICLE_SHOWN:
        slate[0], pulls[0] = page, page_pull + OWN_ARTICLE
        filled = 1
    while filled < slate.size:
        old = uniform(state) < old_share
        article, pull, tries = -1, 0.0, 0
        while article < 0:
            tries += 1
            if tries > MAX_TRIES:
                # The pool is all but used up: take any of the fresh articles, then any published by now.
                slot = (time - HISTORY_BEGIN) // SLOT
                at = int(uniform(state) * pools.size[slot])
                article, pull = pools.first[slot] + at, pools.pull[site.start[slot] + at]
                if tries > 2 * MAX_TRIES:
                    article = int(uniform(state) * (pools.first[slot] + pools.size[slot]))
            elif old:
                article, pull = pick_old(state, site, time)
            else:
                weights = pools.latest if uniform(state) < latest else pools.settled
                article, pull = pick_fresh(state, site, weights, time)
            hidden = tries <= MAX_TRIES and article != page and chosen[article] and uniform(state) < CLICKED_HIDDEN
            if hidden or article == page or article in slate[:filled]:
                article = -1
        slate[filled], pulls[filled] = article, pull
        filled += 1
    for j in range(slate.size - 1, 0, -1):
        other = int(uniform(state) * (j + 1))
        slate[j], slate[other] = slate[other], slate[j]
        pulls[j], pulls[other] = pulls[other], pulls[j]
    return pulls


@compiled
def fill_clicks(state: State, utility: Floats, slate: Ids, clicks: Ids) -> int:
    """Fill ``clicks`` with articles of the slate; return the place of the first. ``utility`` is used up."""
    first = -1
    for c in range(clicks.size):
        best, top = -1, -1.0e300
        for j in range(slate.size):
            # Gumbel noise picks without replacement in proportion to exp(utility).
            if utility[j] > -1.0e290:
                luck = utility[j] - np.log(-np.log(1.0 - uniform(state)) + 1e-300)
                if luck > top:
                    best, top = j, luck
        clicks[c] = slate[best]
        first = best if c == 0 else first
        utility[best] = -1.0e300
    return first


@compiled
def simulate_week(key: np.uint64, site: Site, users: Places, subscriber: Flags, week: Week) -> None:
    """Fill times, visits, pages, slates and clicks of a week; ``users`` are the ordinals of its readers."""
    rows = week.rows
    seen = np.zeros(site.premium.size, np.int32)
    chosen = np.zeros(site.premium.size, np.bool_)
    for i in range(users.size):
        state, profile = reader_state(key, users[i]), reader_profile(site, users[i])
        times, opens = week.times[rows[i] : rows[i + 1]], week.opens[rows[i] : rows[i + 1]]
        visit_times(state, times, opens, week.begin, 1, 1800.0, site.traffic)
        page, page_pull = -1, 0.0
        for row in range(rows[i], rows[i + 1]):
            time = week.times[row]
            on_article = uniform(state) < (LANDS_ON_ARTICLE if week.opens[row] else STAYS_ON_ARTICLE)
            if not on_article:
                page = -1
            elif week.opens[row]:
                page, page_pull = pick_fresh(state, site, site.pools.settled, time)
            week.pages[row] = page
            slate = week.slates[week.slate_start[row] : week.slate_start[row + 1]]
            pulls = fill_slate(state, site, time, page, page_pull, chosen, slate)
            utility = pulls.copy()
            for j in range(slate.size):
                article = slate[j]
                value = profile[site.subjects[article, 0]] + profile[site.subjects[article, 1]]
                if site.premium[article] and subscriber[i]:
                    value += PREMIUM_SUBSCRIBER
                value -= FATIGUE * np.log(1.0 + seen[article])
                if chosen[article]:
                    value += CLICKED_BEFORE
                utility[j] += value
                seen[article] += 1
            clicks = week.clicks[week.click_start[row] : week.click_start[row + 1]]
            first = fill_clicks(state, utility, slate, clicks)
            for article in clicks:
                chosen[article] = True
            page, page_pull = int(slate[first]), pulls[first]
        for article in week.slates[week.slate_start[rows[i]] : week.slate_start[rows[i + 1]]]:
            seen[article], chosen[article] = 0, False


@compiled
def simulate_histories(key: np.uint64, site: Site, users: Places, parts: Places, week: Week) -> Places:
    """Simulate what readers clicked in the three weeks before a week and, with most of that week's clicks, in it.

    Beside the clicks of ``week``, which is of the same readers, ``parts``, shape (3, readers), are the clicks in the
    first of the three weeks, in the other two, and in the week itself. Returns of each click the event, 2**32 times the
    reader's ordinal plus seconds, and the article, shape (2, clicks), in no order.
    """
    clicks = np.empty((2, parts.sum() + week.clicks.size), np.int64)
    times, articles = clicks
    end = 0
    for i in range(users.size):
        state, profile = reader_state(key, users[i]), reader_profile(site, users[i])
        begin = end
        for part, before, weeks in ((0, 3, 1), (1, 2, 2), (2, 0, 1)):
            number = parts[part, i]
            end += number
            first = week.begin - before * WEEK
            visit_times(state, times[end - number : end], np.empty(number, np.bool_), first, weeks, 60.0, site.traffic)
        for j in range(begin, end):
            if j > begin and uniform(state) < HISTORY_REPEAT:
                articles[j] = articles[j - 1 - int(uniform(state) * min(j - begin, 8))]
                continue
            old = uniform(state) < HISTORY_OLD
            for _ in range(MAX_TRIES):
                if old:
                    article, _pull = pick_old(state, site, times[j])
                else:
                    article, _pull = pick_fresh(state, site, site.pools.read, times[j])
                articles[j] = article
                liking = profile[site.subjects[article, 0]] + profile[site.subjects[article, 1]]
                if uniform(state) < np.exp(liking - 1.5):
                    break
        for row in range(week.rows[i], week.rows[i + 1]):
            for c in range(week.click_start[row], week.click_start[row + 1]):
                if uniform(state) < KEPT_CLICKS:
                    times[end], articles[end] = week.times[row], week.clicks[c]
                    end += 1
        times[begin:end] += users[i] << 32
    return clicks[:, :end]
