"""Past events per key, counted along the log in order of time, strictly before each query.

A key is an article, its category, one of its topics, or the article on one kind of page or with one kind of reader.
An event at the time of a query does not count: neither the impression's own clicks nor those of another
impression in the same microsecond. Queries come in order of time too, so that a table per key moves forward with
them: each event is added once and leaves each window once, whatever the number of queries. Memory is that of the
tables; the log itself is read in its order, so it may lie in a mapped file.
"""

# The kernels are typed by numba at their first call; annotations would promise what nothing checks.
# mypy: disable-error-code="no-untyped-def"

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit

from ebnerd_lib.data.slates import HOUR, Slates

Kind = Literal["clicks", "inviews", "chances"]
"""Clicks; times in view; or times in view, each worth what chance gives it, 1 / the length of its slate."""
_NEVER = np.iinfo(np.int64).min
_REBASE = 512.0  # half-lives after which decayed sums are scaled anew: powers of two stay well within float64


@dataclass(frozen=True)
class Grouping:
    """What events are counted by. Article ``a`` has the keys ``keys[starts[a]:starts[a + 1]]``, maybe none."""

    starts: np.ndarray  # int64 (articles + 1,)
    keys: np.ndarray  # int32, from 0
    size: int  # number of keys
    side: Literal["", "front_page", "subscriber"] = ""  # what to count each key apart by; empty to count them together
    missing: float = 0.0  # value of a candidate without a key

    @classmethod
    def one_key(cls, key: np.ndarray, side: Literal["", "front_page", "subscriber"] = "") -> "Grouping":
        """Give each article the key ``key[a]``; none where it is 0, the unknown."""
        known = key > 0
        starts = np.concatenate(([0], np.cumsum(known))).astype(np.int64)
        return cls(starts, key[known].astype(np.int32), int(key.max(initial=0)) + 1, side)

    @property
    def rows(self) -> int:
        """Rows of a table: one a key and side."""
        return self.size * (2 if self.side else 1)

    def sides(self, of: Slates) -> np.ndarray:
        """Return the side of each impression: bool (n,), or empty where keys are counted together."""
        return getattr(of, self.side) if self.side else np.zeros(0, np.bool_)


class Tables:
    """Tables that only move forward along a log, by the question that they answer."""

    def __init__(self) -> None:
        self._tables: dict[object, list[np.ndarray]] = {}
        self._asked: dict[object, int] = {}

    def of(self, question: object, slates: Slates, fresh: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
        """Return the tables of a question, ``fresh`` ones at first.

        Raises:
            ValueError: slates do not come in order of time after those that were asked last.
        """
        if question not in self._tables:
            self._tables[question], self._asked[question] = fresh(), _NEVER
        if len(slates):
            if (np.diff(slates.time) < 0).any() or slates.time[0] < self._asked[question]:
                raise ValueError("slates must come in order of time: this walk keeps tables that only move forward")
            self._asked[question] = int(slates.time[-1])
        return self._tables[question]

    def copy(self) -> "Tables":
        """Return tables that go on from here by themselves."""
        twin = Tables()
        twin._tables = {question: [table.copy() for table in own] for question, own in self._tables.items()}
        twin._asked = dict(self._asked)
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return sum(table.nbytes for own in self._tables.values() for table in own)


class EventCounts:
    """Answers queries on events, chunk after chunk in order of time.

    Events are the candidates of some slates in order of time. Each kind of query keeps its own tables, so a family may
    ask for several. Asking for a chunk that lies before the last one raises ``ValueError``. Events of the kind
    ``chances`` weigh 1 / the length of their slate in decayed sums. ``by`` is the name of the grouping; counts are kept
    in ``tables``.
    """

    def __init__(self, kind: Kind, events: Slates, by: str, grouping: Grouping, tables: Tables) -> None:
        self._kind, self._events, self._by, self._grouping, self._tables = kind, events, by, grouping, tables

    def trailing(self, slates: Slates, hours: tuple[float, ...]) -> np.ndarray:
        """Count events in [t - w, t) for each window w in hours: float32 (candidates, windows).

        Of an article with several keys, the sum over them.
        """
        windows = np.array([int(h * HOUR) for h in hours], dtype=np.int64)
        state = self._tables.of(
            (self._kind, self._by, "trailing", hours), slates,
            lambda: [np.zeros(1 + len(hours), np.int64), np.zeros((self._grouping.rows, len(hours)), np.int32)],
        )  # fmt: skip
        out = np.full((slates.candidates, len(hours)), self._grouping.missing, dtype=np.float32)
        _trailing(*self._query(slates), windows, *state, out)
        return out

    def decayed(self, slates: Slates, half_lives: tuple[float, ...]) -> np.ndarray:
        """Sum weight · 2^(-age / h) over the events before t for each half-life h in hours: float32 (m, n).

        Of an article with several keys, the mean over them.
        """
        spans = np.array([int(h * HOUR) for h in half_lives], dtype=np.int64)
        first = self._events.time[:1]
        state = self._tables.of(
            (self._kind, self._by, "decayed", half_lives), slates,
            lambda: [
                np.zeros(1, np.int64), np.resize(first, len(spans)).astype(np.int64),
                np.zeros((self._grouping.rows, len(spans))),
            ],
        )  # fmt: skip
        out = np.full((slates.candidates, len(spans)), self._grouping.missing, dtype=np.float32)
        _decayed(*self._query(slates), self._kind == "chances", spans, *state, out)
        return out

    def hours_since(self, slates: Slates, first: bool) -> np.ndarray:
        """Hours since the key's first or last event before t, NaN where there is none: float32 (candidates, 1)."""
        state = self._tables.of(
            (self._kind, self._by, "since", first), slates,
            lambda: [np.zeros(1, np.int64), np.full(self._grouping.rows, _NEVER, np.int64)],
        )  # fmt: skip
        out = np.full((slates.candidates, 1), np.nan, dtype=np.float32)
        _since(*self._query(slates), first, *state, out)
        return out

    def _query(self, slates: Slates) -> tuple[np.ndarray, ...]:
        events, grouping = self._events, self._grouping
        return (
            slates.time, slates.offsets, slates.article, grouping.sides(slates), events.time, events.offsets,
            events.article, grouping.sides(events), grouping.starts, grouping.keys,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def _row(key, side, row):
    """Return the row of a table: the key's, or the key's on a side."""
    return 2 * key + side[row] if len(side) else key


@njit(cache=True, nogil=True)
def _trailing(time, offsets, article, side, log_time, log_offsets, log_article, log_side, starts, keys, windows, at,
              counts, out):  # fmt: skip
    # at[0] is the first event not counted yet, at[1 + w] the first that is still in window w.
    for query in range(len(time)):
        t = time[query]
        while at[0] < len(log_time) and log_time[at[0]] < t:
            for e in range(log_offsets[at[0]], log_offsets[at[0] + 1]):
                for place in range(starts[log_article[e]], starts[log_article[e] + 1]):
                    counts[_row(keys[place], log_side, at[0])] += 1
            at[0] += 1
        for w in range(len(windows)):
            while at[1 + w] < at[0] and log_time[at[1 + w]] < t - windows[w]:
                for e in range(log_offsets[at[1 + w]], log_offsets[at[1 + w] + 1]):
                    for place in range(starts[log_article[e]], starts[log_article[e] + 1]):
                        counts[_row(keys[place], log_side, at[1 + w]), w] -= 1
                at[1 + w] += 1
        for candidate in range(offsets[query], offsets[query + 1]):
            begin, end = starts[article[candidate]], starts[article[candidate] + 1]
            if end > begin:
                for w in range(len(windows)):
                    total = 0
                    for place in range(begin, end):
                        total += counts[_row(keys[place], side, query), w]
                    out[candidate, w] = total


@njit(cache=True, nogil=True)
def _decayed(time, offsets, article, side, log_time, log_offsets, log_article, log_side, starts, keys, chances, spans,
             at, origin, value, out):  # fmt: skip
    # ``value`` holds Σ weight · 2^((event - origin) / span): one power an impression, not one an event, and it depends
    # on events alone, never on queries.
    size = len(spans)
    factor = np.empty(size)
    for query in range(len(time)):
        while at[0] < len(log_time) and log_time[at[0]] < time[query]:
            row = at[0]
            for h in range(size):
                age = (log_time[row] - origin[h]) / spans[h]
                if age > _REBASE:
                    steps = np.floor(age / _REBASE)
                    value[:, h] *= 2.0 ** (-_REBASE * steps)
                    origin[h] += np.int64(_REBASE * steps) * spans[h]
                    age = (log_time[row] - origin[h]) / spans[h]
                factor[h] = 2.0**age / (log_offsets[row + 1] - log_offsets[row]) if chances else 2.0**age
            for e in range(log_offsets[row], log_offsets[row + 1]):
                for place in range(starts[log_article[e]], starts[log_article[e] + 1]):
                    k = _row(keys[place], log_side, row)
                    for h in range(size):
                        value[k, h] += factor[h]
            at[0] += 1
        if at[0] == 0:
            factor[:] = 0.0
        else:
            for h in range(size):
                factor[h] = 2.0 ** (-(time[query] - origin[h]) / spans[h])
        for candidate in range(offsets[query], offsets[query + 1]):
            begin, end = starts[article[candidate]], starts[article[candidate] + 1]
            if end > begin:
                for h in range(size):
                    total = 0.0
                    for place in range(begin, end):
                        total += value[_row(keys[place], side, query), h]
                    out[candidate, h] = total * factor[h] / (end - begin)


@njit(cache=True, nogil=True)
def _since(time, offsets, article, side, log_time, log_offsets, log_article, log_side, starts, keys, first, at, moment,
           out):  # fmt: skip
    for query in range(len(time)):
        while at[0] < len(log_time) and log_time[at[0]] < time[query]:
            for e in range(log_offsets[at[0]], log_offsets[at[0] + 1]):
                for place in range(starts[log_article[e]], starts[log_article[e] + 1]):
                    k = _row(keys[place], log_side, at[0])
                    if not first or moment[k] == _NEVER:
                        moment[k] = log_time[at[0]]
            at[0] += 1
        for candidate in range(offsets[query], offsets[query + 1]):
            for place in range(starts[article[candidate]], starts[article[candidate] + 1]):
                found = moment[_row(keys[place], side, query)]
                if found != _NEVER:
                    out[candidate, 0] = (time[query] - found) / HOUR
