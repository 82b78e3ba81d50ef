"""Past events per key, and the kernels that query them strictly before a time.

A key is an article, its category, or the article on one kind of page. An event at the time of a query does not
count: neither the impression's own clicks nor those of another impression in the same microsecond. Queries come
in order of time, so that a cursor per key only moves forward: each event is passed once, whatever the number of
windows.
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

Keys = Callable[[Slates], np.ndarray]
"""Maps slates to the key of each candidate, int32 (m,); key 0 is unknown and never has events."""


@dataclass(frozen=True)
class Events:
    """Events per key: key ``k`` has ``time[offsets[k]:offsets[k + 1]]``, ascending, and ``weight`` likewise.

    An empty ``weight`` stands for 1 throughout.
    """

    offsets: np.ndarray
    time: np.ndarray
    weight: np.ndarray


def index_events(log: Slates, keys: np.ndarray, size: int, kind: Kind) -> Events:
    """Index the events of a log by key.

    Args:
        log: impressions in any order.
        keys: int32 (m,), the key of each candidate of the log.
        size: number of keys, key 0 included.
        kind: which events.
    """
    shares = 1.0 / log.lengths if kind == "chances" else np.empty(0)
    return Events(*_by_key(log.by_time, log.time, log.offsets, keys, log.clicked, size, kind == "clicks", shares))


class Past:
    """Answers queries on events, chunk after chunk in order of time.

    Each kind of query keeps its own cursors, so a family may ask for several. Asking for a chunk that lies before
    the last one raises ``ValueError``.

    Args:
        events: by key.
        keys: gives the key of each candidate of the slates asked about.
    """

    def __init__(self, events: Events, keys: Keys) -> None:
        self._events, self._keys = events, keys
        self._state: dict[tuple[object, ...], list[np.ndarray]] = {}
        self._asked: dict[tuple[object, ...], int] = {}

    def trailing(self, slates: Slates, hours: tuple[float, ...]) -> np.ndarray:
        """Count events in [t - w, t) for each window w in hours: float32 (candidates, windows)."""
        windows = np.array([int(h * HOUR) for h in hours], dtype=np.int64)
        state = self._advance(
            ("trailing", hours), slates,
            lambda: [self._starts(), np.repeat(self._starts()[:, None], len(hours), axis=1)],
        )  # fmt: skip
        out = np.zeros((slates.candidates, len(hours)), dtype=np.float32)
        _trailing(*self._query(slates), windows, *state, out)
        return out

    def decayed(self, slates: Slates, half_lives: tuple[float, ...]) -> np.ndarray:
        """Sum weight · 2^(-age / h) over the events before t for each half-life h in hours: float32 (m, n)."""
        rates = 1.0 / (np.array(half_lives) * HOUR)
        size = len(self._events.offsets) - 1
        state = self._advance(
            ("decayed", half_lives), slates, lambda: [self._starts(), np.zeros((size, len(half_lives)))]
        )
        out = np.zeros((slates.candidates, len(half_lives)), dtype=np.float32)
        _decayed(*self._query(slates), self._events.weight, rates, *state, out)
        return out

    def hours_since_first(self, slates: Slates) -> np.ndarray:
        """Hours since the key's first event before t, NaN where there is none: float32 (candidates, 1)."""
        out = np.full((slates.candidates, 1), np.nan, dtype=np.float32)
        _since(*self._query(slates), True, self._starts(), out)
        return out

    def hours_since_last(self, slates: Slates) -> np.ndarray:
        """Hours since the key's last event before t, NaN where there is none: float32 (candidates, 1)."""
        (cursor,) = self._advance(("last",), slates, lambda: [self._starts()])
        out = np.full((slates.candidates, 1), np.nan, dtype=np.float32)
        _since(*self._query(slates), False, cursor, out)
        return out

    def _query(self, slates: Slates) -> tuple[np.ndarray, ...]:
        return slates.time, slates.offsets, self._keys(slates), self._events.offsets, self._events.time

    def _starts(self) -> np.ndarray:
        return self._events.offsets[:-1].copy()

    def _advance(
        self, key: tuple[object, ...], slates: Slates, fresh: Callable[[], list[np.ndarray]]
    ) -> list[np.ndarray]:
        self._asked[key] = in_order(slates, self._asked.get(key))
        if key not in self._state:
            self._state[key] = fresh()
        return self._state[key]


def in_order(slates: Slates, since: int | None) -> int:
    """Return the last time of slates, or raise ``ValueError`` if they do not come in order of time after ``since``."""
    if not len(slates):
        return since if since is not None else np.iinfo(np.int64).min
    if (np.diff(slates.time) < 0).any() or (since is not None and slates.time[0] < since):
        raise ValueError("slates must come in order of time: this walk keeps cursors that only move forward")
    return int(slates.time[-1])


@njit(cache=True, nogil=True)
def _by_key(order, time, offsets, keys, clicked, size, clicks_only, shares):
    """Counting sort of events by key: stable, so times ascend where ``order`` is by time."""
    place = np.zeros(size + 1, dtype=np.int64)
    for candidate in range(len(keys)):
        if keys[candidate] > 0 and (clicked[candidate] or not clicks_only):
            place[keys[candidate] + 1] += 1
    for k in range(size):
        place[k + 1] += place[k]
    starts = place.copy()
    times = np.empty(place[size], dtype=np.int64)
    weights = np.empty(place[size] if len(shares) else 0, dtype=np.float32)
    for row in order:
        for candidate in range(offsets[row], offsets[row + 1]):
            k = keys[candidate]
            if k > 0 and (clicked[candidate] or not clicks_only):
                times[place[k]] = time[row]
                if len(shares):
                    weights[place[k]] = shares[row]
                place[k] += 1
    return starts, times, weights


@njit(cache=True, nogil=True)
def _trailing(time, offsets, keys, starts, events, windows, high, low, out):
    for row in range(len(time)):
        t = time[row]
        for candidate in range(offsets[row], offsets[row + 1]):
            k = keys[candidate]
            end = starts[k + 1]
            at = high[k]
            while at < end and events[at] < t:
                at += 1
            high[k] = at
            for w in range(len(windows)):
                since = low[k, w]
                while since < at and events[since] < t - windows[w]:
                    since += 1
                low[k, w] = since
                out[candidate, w] = at - since


@njit(cache=True, nogil=True)
def _decayed(time, offsets, keys, starts, events, weights, rates, cursor, value, out):
    # ``value`` holds each sum as of the last event passed, so it depends on events alone, never on queries.
    for row in range(len(time)):
        t = time[row]
        for candidate in range(offsets[row], offsets[row + 1]):
            k = keys[candidate]
            begin, end, at = starts[k], starts[k + 1], cursor[k]
            while at < end and events[at] < t:
                weight = weights[at] if len(weights) else 1.0
                for h in range(len(rates)):
                    kept = value[k, h] * 2.0 ** (-(events[at] - events[at - 1]) * rates[h]) if at > begin else 0.0
                    value[k, h] = kept + weight
                at += 1
            cursor[k] = at
            if at > begin:
                for h in range(len(rates)):
                    out[candidate, h] = value[k, h] * 2.0 ** (-(t - events[at - 1]) * rates[h])


@njit(cache=True, nogil=True)
def _since(time, offsets, keys, starts, events, first, cursor, out):
    for row in range(len(time)):
        t = time[row]
        for candidate in range(offsets[row], offsets[row + 1]):
            k = keys[candidate]
            if starts[k] == starts[k + 1] or events[starts[k]] >= t:
                continue
            at = starts[k]
            if not first:
                at = cursor[k]
                while at < starts[k + 1] and events[at] < t:
                    at += 1
                cursor[k] = at
                at -= 1
            out[candidate, 0] = (t - events[at]) / HOUR
