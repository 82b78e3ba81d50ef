"""Past events per article and per user, and the kernels that query them strictly before a time.

An event at the time of a query does not count: neither the impression's own clicks nor those of another
impression in the same microsecond. Queries come in order of time, so that a cursor per article only moves
forward: each event is passed once, whatever the number of windows.
"""

# The kernels are typed by numba at their first call; annotations would promise what nothing checks.
# mypy: disable-error-code="no-untyped-def"

from dataclasses import dataclass

import numpy as np
from numba import njit

from ebnerd_lib.data.slates import HOUR, Slates


@dataclass(frozen=True)
class ArticleEvents:
    """Times of one kind of event per article: article ``a`` has ``time[offsets[a]:offsets[a + 1]]``, ascending."""

    offsets: np.ndarray
    time: np.ndarray


@dataclass(frozen=True)
class UserEvents:
    """Impressions per user in order of time: user ``u`` has ``row[offsets[u]:offsets[u + 1]]``, rows of the log."""

    offsets: np.ndarray
    row: np.ndarray


def article_events(log: Slates, articles: int, clicks_only: bool) -> ArticleEvents:
    """Index a log by article: its times in view, or only those of clicks. ``articles`` counts index 0 too."""
    order = np.argsort(log.time, kind="stable")
    offsets, time = _by_article(order, log.time, log.offsets, log.article, log.clicked, articles, clicks_only)
    return ArticleEvents(offsets, time)


def user_events(log: Slates, users: int) -> UserEvents:
    """Index a log by user. Impressions of the unknown user (index 0) are nobody's past."""
    order = np.lexsort((log.time, log.user))
    counts = np.bincount(log.user, minlength=users)
    known = order[counts[0] :]
    counts[0] = 0
    return UserEvents(np.concatenate(([0], np.cumsum(counts))).astype(np.int64), known)


class ArticlePast:
    """Answers queries on the events of articles, chunk after chunk in order of time.

    Each kind of query keeps its own cursors, so a family may ask for several. Events of the unknown article
    (index 0) are never counted. Asking for a chunk that lies before the last one raises ``ValueError``.
    """

    def __init__(self, events: ArticleEvents) -> None:
        self._events = events
        self._state: dict[tuple[object, ...], list[np.ndarray]] = {}
        self._asked: dict[tuple[object, ...], int] = {}

    def trailing(self, slates: Slates, hours: tuple[float, ...]) -> np.ndarray:
        """Count events in [t - w, t) for each window w in hours: float32 (candidates, windows)."""
        windows = np.array([int(h * HOUR) for h in hours], dtype=np.int64)
        articles = len(self._events.offsets) - 1
        state = self._advance(
            ("trailing", hours), slates,
            lambda: [self._starts(), np.repeat(self._starts()[:, None], len(hours), axis=1)],
        )  # fmt: skip
        out = np.zeros((slates.candidates, len(hours)), dtype=np.float32)
        if articles > 1:
            _trailing(
                slates.time,
                slates.offsets,
                slates.article,
                self._events.offsets,
                self._events.time,
                windows,
                *state,
                out,
            )
        return out

    def total(self, slates: Slates) -> np.ndarray:
        """Count all events before t: float32 (candidates, 1)."""
        return self.trailing(slates, (24.0 * 36500,))

    def decayed(self, slates: Slates, half_lives: tuple[float, ...]) -> np.ndarray:
        """Sum 2^(-age / h) over the events before t for each half-life h in hours: float32 (candidates, n)."""
        rates = 1.0 / (np.array(half_lives) * HOUR)
        size = len(self._events.offsets) - 1
        state = self._advance(
            ("decayed", half_lives), slates, lambda: [self._starts(), np.zeros((size, len(half_lives)))]
        )
        out = np.zeros((slates.candidates, len(half_lives)), dtype=np.float32)
        _decayed(
            slates.time, slates.offsets, slates.article, self._events.offsets, self._events.time, rates, *state, out
        )
        return out

    def hours_since_first(self, slates: Slates) -> np.ndarray:
        """Hours since the article's first event before t, NaN where there is none: float32 (candidates, 1)."""
        out = np.full((slates.candidates, 1), np.nan, dtype=np.float32)
        _since(
            slates.time,
            slates.offsets,
            slates.article,
            self._events.offsets,
            self._events.time,
            True,
            self._starts(),
            out,
        )
        return out

    def hours_since_last(self, slates: Slates) -> np.ndarray:
        """Hours since the article's last event before t, NaN where there is none: float32 (candidates, 1)."""
        (cursor,) = self._advance(("last",), slates, lambda: [self._starts()])
        out = np.full((slates.candidates, 1), np.nan, dtype=np.float32)
        _since(slates.time, slates.offsets, slates.article, self._events.offsets, self._events.time, False, cursor, out)
        return out

    def _starts(self) -> np.ndarray:
        return self._events.offsets[:-1].copy()

    def _advance(self, key: tuple[object, ...], slates: Slates, fresh) -> list[np.ndarray]:
        first = int(slates.time[0]) if len(slates) else self._asked.get(key, 0)
        if (np.diff(slates.time) < 0).any() or first < self._asked.get(key, first):
            raise ValueError("slates must come in order of time: this walk keeps cursors that only move forward")
        self._asked[key] = int(slates.time[-1]) if len(slates) else first
        if key not in self._state:
            self._state[key] = fresh()
        return self._state[key]


@njit(cache=True, nogil=True)
def _by_article(order, time, offsets, article, clicked, articles, clicks_only):
    """Counting sort of events by article: stable, so times ascend where ``order`` is by time."""
    place = np.zeros(articles + 1, dtype=np.int64)
    for candidate in range(len(article)):
        if clicked[candidate] or not clicks_only:
            place[article[candidate] + 1] += 1
    for a in range(articles):
        place[a + 1] += place[a]
    starts = place.copy()
    times = np.empty(place[articles], dtype=np.int64)
    for row in order:
        for candidate in range(offsets[row], offsets[row + 1]):
            if clicked[candidate] or not clicks_only:
                times[place[article[candidate]]] = time[row]
                place[article[candidate]] += 1
    return starts, times


@njit(cache=True, nogil=True)
def _trailing(time, offsets, article, starts, events, windows, high, low, out):
    for row in range(len(time)):
        t = time[row]
        for candidate in range(offsets[row], offsets[row + 1]):
            a = article[candidate]
            if a == 0:
                continue
            end = starts[a + 1]
            at = high[a]
            while at < end and events[at] < t:
                at += 1
            high[a] = at
            for w in range(len(windows)):
                since = low[a, w]
                while since < at and events[since] < t - windows[w]:
                    since += 1
                low[a, w] = since
                out[candidate, w] = at - since


@njit(cache=True, nogil=True)
def _decayed(time, offsets, article, starts, events, rates, cursor, value, out):
    # ``value`` holds each sum as of the last event passed, so it depends on events alone, never on queries.
    for row in range(len(time)):
        t = time[row]
        for candidate in range(offsets[row], offsets[row + 1]):
            a = article[candidate]
            if a == 0:
                continue
            begin, end, at = starts[a], starts[a + 1], cursor[a]
            while at < end and events[at] < t:
                for h in range(len(rates)):
                    kept = value[a, h] * 2.0 ** (-(events[at] - events[at - 1]) * rates[h]) if at > begin else 0.0
                    value[a, h] = kept + 1.0
                at += 1
            cursor[a] = at
            if at > begin:
                for h in range(len(rates)):
                    out[candidate, h] = value[a, h] * 2.0 ** (-(t - events[at - 1]) * rates[h])


@njit(cache=True, nogil=True)
def _since(time, offsets, article, starts, events, first, cursor, out):
    for row in range(len(time)):
        t = time[row]
        for candidate in range(offsets[row], offsets[row + 1]):
            a = article[candidate]
            if a == 0 or starts[a] == starts[a + 1] or events[starts[a]] >= t:
                continue
            at = starts[a]
            if not first:
                at = cursor[a]
                while at < starts[a + 1] and events[at] < t:
                    at += 1
                cursor[a] = at
                at -= 1
            out[candidate, 0] = (t - events[at]) / HOUR


@njit(cache=True, nogil=True)
def user_past(users, time, session, offsets, article, starts, rows, log_time, log_session, log_offsets, log_article,
              log_clicked, articles):  # fmt: skip
    """What a user saw and clicked before each query, for queries sorted by user, then time.

    Returns float32 (candidates, 5): times shown, times clicked, hours since last shown (NaN if never), times
    shown in this session, and the user's impressions so far; all strictly before the query's time.
    """
    out = np.zeros((len(article), 5), dtype=np.float32)
    shown = np.zeros(articles, dtype=np.int32)
    clicked = np.zeros(articles, dtype=np.int32)
    last = np.zeros(articles, dtype=np.int64)
    in_session = np.zeros(articles, dtype=np.int32)
    latest_session = np.zeros(articles, dtype=np.int64)
    at = 0
    for query in range(len(users)):
        u = users[query]
        if query == 0 or users[query - 1] != u:
            if query > 0:
                for done in range(starts[users[query - 1]], at):
                    for c in range(log_offsets[rows[done]], log_offsets[rows[done] + 1]):
                        shown[log_article[c]] = clicked[log_article[c]] = in_session[log_article[c]] = 0
            at = starts[u]
        while at < starts[u + 1] and log_time[rows[at]] < time[query]:
            row = rows[at]
            for c in range(log_offsets[row], log_offsets[row + 1]):
                a = log_article[c]
                if in_session[a] == 0 or latest_session[a] != log_session[row]:
                    in_session[a] = 0
                    latest_session[a] = log_session[row]
                in_session[a] += 1
                shown[a] += 1
                clicked[a] += log_clicked[c]
                last[a] = log_time[row]
            at += 1
        for candidate in range(offsets[query], offsets[query + 1]):
            a = article[candidate]
            known = a > 0 and shown[a] > 0
            out[candidate, 0] = shown[a] if known else 0
            out[candidate, 1] = clicked[a] if known else 0
            out[candidate, 2] = (time[query] - last[a]) / HOUR if known else np.nan
            out[candidate, 3] = in_session[a] if known and latest_session[a] == session[query] else 0
            out[candidate, 4] = at - starts[u]
    return out


@njit(cache=True, nogil=True)
def history_past(users, week, time, offsets, article, starts, history_article, history_time, category, sentiment,
                 articles, categories):  # fmt: skip
    """How a candidate relates to the history of its user, for queries sorted by week, user, then time.

    ``starts[w, u]`` to ``starts[w, u + 1]`` are the clicks of user ``u`` before the week ``w``. Returns float32
    (candidates, 4): clicks on the article, share of its category among the clicks, match of its sentiment
    (the dot product of its three shares with the mean of the clicks' ones, NaN where unknown) and the number of
    clicks; all strictly before the query's time.
    """
    out = np.zeros((len(article), 4), dtype=np.float32)
    of_article = np.zeros(articles, dtype=np.int32)
    of_category = np.zeros(categories, dtype=np.int32)
    mood = np.zeros(3)
    with_mood = at = 0
    for query in range(len(users)):
        u, w = users[query], week[query]
        if query == 0 or users[query - 1] != u or week[query - 1] != w:
            if query > 0:
                for done in range(starts[week[query - 1], users[query - 1]], at):
                    of_article[history_article[done]] = 0
            of_category[:] = 0
            mood[:] = 0.0
            with_mood = 0
            at = starts[w, u]
        while at < starts[w, u + 1] and history_time[at] < time[query]:
            a = history_article[at]
            of_article[a] += 1
            of_category[category[a]] += 1
            if not np.isnan(sentiment[a, 0]):
                with_mood += 1
                for s in range(3):
                    mood[s] += sentiment[a, s]
            at += 1
        clicks = at - starts[w, u]
        for candidate in range(offsets[query], offsets[query + 1]):
            a = article[candidate]
            out[candidate, 0] = of_article[a] if a > 0 else 0
            # Category 0 is unknown: sharing it says nothing.
            out[candidate, 1] = of_category[category[a]] / clicks if clicks > 0 and category[a] > 0 else 0.0
            out[candidate, 2] = np.nan
            if with_mood > 0 and not np.isnan(sentiment[a, 0]):
                match = 0.0
                for s in range(3):
                    match += mood[s] / with_mood * sentiment[a, s]
                out[candidate, 2] = match
            out[candidate, 3] = clicks
    return out


@njit(cache=True, nogil=True)
def relative(values, offsets):
    """Place a column's values within their slates.

    Returns float32 (candidates, 2): the average rank scaled to 0 (lowest) to 1 (highest), ties sharing their
    mean, .5 for all in a slate of one; and the ratio to the slate's mean, 1 where that mean is 0. NaNs stay NaN
    and are left out of ranks and means.
    """
    out = np.full((len(values), 2), np.nan, dtype=np.float32)
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        total, known = 0.0, 0
        for i in range(begin, end):
            if not np.isnan(values[i]):
                total += values[i]
                known += 1
        if known == 0:
            continue
        order = np.argsort(values[begin:end])  # NaNs last
        at = 0
        while at < known:
            stop = at + 1
            while stop < known and values[begin + order[stop]] == values[begin + order[at]]:
                stop += 1
            rank = 0.5 if known == 1 else (at + stop - 1) / 2 / (known - 1)
            for tied in range(at, stop):
                i = begin + order[tied]
                out[i, 0] = rank
                out[i, 1] = values[i] * known / total if total != 0 else 1.0
            at = stop
    return out
