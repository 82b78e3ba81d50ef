"""What is counted along the log in order of time, strictly before each query: by article, or by a key of articles.

A key is an article, its category, one of its topics, or the article on one kind of page or with one kind of reader.
An event at the time of a query does not count: neither the impression's own clicks nor those of another
impression in the same microsecond. Queries come in order of time too, so that tables move forward with
them: each event is added once and leaves each window once, whatever the number of queries. Memory is that of the
tables; the log itself is read in its order, so it may lie in a mapped file.

Events are the candidates of some slates, the log. ``at[0]`` is always the first impression that is not counted yet.
"""

# The kernels are typed by numba at their first call; annotations would promise what nothing checks.
# mypy: disable-error-code="no-untyped-def"

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit

from ebnerd_lib.data.slates import HOUR, Slates

NEVER = np.iinfo(np.int64).min
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


@njit(cache=True, nogil=True)
def trailing(time, offsets, article, log_time, log_offsets, log_article, windows, at, counts, out):
    """Fill in the events of each article in [t - window, t); ``at[1 + w]`` is the first that is still in window w."""
    for query in range(len(time)):
        t = time[query]
        while at[0] < len(log_time) and log_time[at[0]] < t:
            for e in range(log_offsets[at[0]], log_offsets[at[0] + 1]):
                counts[log_article[e]] += 1
            at[0] += 1
        for w in range(len(windows)):
            while at[1 + w] < at[0] and log_time[at[1 + w]] < t - windows[w]:
                for e in range(log_offsets[at[1 + w]], log_offsets[at[1 + w] + 1]):
                    counts[log_article[e], w] -= 1
                at[1 + w] += 1
        for candidate in range(offsets[query], offsets[query + 1]):
            if article[candidate] > 0:
                for w in range(len(windows)):
                    out[candidate, w] = counts[article[candidate], w]


@njit(cache=True, nogil=True)
def _row(key, side, row):
    """Return the row of a table: the key's, or the key's on a side."""
    return 2 * key + side[row] if len(side) else key


@njit(cache=True, nogil=True)
def decayed(time, offsets, article, side, log_time, log_offsets, log_article, log_side, starts, keys, chances, spans,
            at, origin, value, out):  # fmt: skip
    """Fill in Σ weight · 2^(-age / span) over the events before t, of an article with several keys their mean.

    ``value`` holds Σ weight · 2^((event - origin) / span): one power an impression, not one an event, and it depends
    on events alone, never on queries.
    """
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
def since(time, offsets, article, log_time, log_offsets, log_article, first, at, moment, out):
    """Fill in the hours since each article's first or last event before t; leave it as it is where there is none."""
    for query in range(len(time)):
        while at[0] < len(log_time) and log_time[at[0]] < time[query]:
            for e in range(log_offsets[at[0]], log_offsets[at[0] + 1]):
                if not first or moment[log_article[e]] == NEVER:
                    moment[log_article[e]] = log_time[at[0]]
            at[0] += 1
        for candidate in range(offsets[query], offsets[query + 1]):
            found = moment[article[candidate]]
            if article[candidate] > 0 and found != NEVER:
                out[candidate, 0] = (time[query] - found) / HOUR


@njit(cache=True, nogil=True)
def strengths(time, offsets, article, log_time, log_offsets, log_article, log_clicked, rates, at, value, out):
    """Fill in the strength of each candidate for each rate, learnt from the choices in the slates before t.

    After each impression, the strengths b of its candidates move by rate · (share of the clicks − softmax of
    b over the slate): the gradient of the listwise loss of a model of one bias an article. It tells an article
    that wins against strong ones from one that wins against weak ones, which a click rate cannot. 0 for an
    article that was never in view.
    """
    for query in range(len(time)):
        while at[0] < len(log_time) and log_time[at[0]] < time[query]:
            begin, end = log_offsets[at[0]], log_offsets[at[0] + 1]
            clicks = log_clicked[begin:end].sum()
            for r in range(len(rates) if clicks > 0 else 0):
                # Shares are taken before any of the slate's strengths move.
                shares, total = np.empty(end - begin), 0.0
                for c in range(begin, end):
                    shares[c - begin] = np.exp(value[log_article[c], r])
                    total += shares[c - begin]
                for c in range(begin, end):
                    if log_article[c] > 0:
                        value[log_article[c], r] += rates[r] * (log_clicked[c] / clicks - shares[c - begin] / total)
            at[0] += 1
        for candidate in range(offsets[query], offsets[query + 1]):
            out[candidate] = value[article[candidate]]


@njit(cache=True, nogil=True)
def _slot(pairs, key):
    """Return the slot of a pair, or the free one where it belongs: open addressing, at most half full."""
    mask = len(pairs) - 1
    mixed = key * np.int64(-7046029254386353131)
    slot = (mixed ^ (mixed >> 29)) & mask
    while pairs[slot] != -1 and pairs[slot] != key:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def _enlarged(pairs, counts):
    """Return the table of pairs with twice the room."""
    more, more_counts = np.full(2 * len(pairs), -1, dtype=np.int64), np.zeros(2 * len(counts), dtype=np.int32)
    for place in range(len(pairs)):
        if pairs[place] != -1:
            slot = _slot(more, pairs[place])
            more[slot], more_counts[slot] = pairs[place], counts[place]
    return more, more_counts


@njit(cache=True, nogil=True)
def together(time, offsets, article, user, page, log_time, log_offsets, log_article, log_clicked, log_user, articles,
             pairs, counts, recent, at, out):  # fmt: skip
    """Fill in how often the candidate was clicked soon after others; return the tables of pairs and of their counts.

    A click on a counts once for each of the same user's last clicks before it, ``recent``. First column: the sum
    over the last clicks of this user before t; second: for the page's own article alone. 0 without any. ``at[1]`` is
    the number of pairs.
    """
    width = recent.shape[1]
    for query in range(len(time)):
        while at[0] < len(log_time) and log_time[at[0]] < time[query]:
            row = at[0]
            u = log_user[row]
            while 2 * (at[1] + width * (log_offsets[row + 1] - log_offsets[row])) > len(pairs):
                pairs, counts = _enlarged(pairs, counts)
            for c in range(log_offsets[row], log_offsets[row + 1]):
                a = np.int64(log_article[c])
                if u == 0 or a == 0 or not log_clicked[c]:
                    continue
                for place in range(width):
                    if recent[u, place] > 0:
                        key = recent[u, place] * np.int64(articles) + a
                        slot = _slot(pairs, key)
                        at[1] += pairs[slot] == -1
                        pairs[slot] = key
                        counts[slot] += 1
                for place in range(width - 1, 0, -1):
                    recent[u, place] = recent[u, place - 1]
                recent[u, 0] = a
            at[0] += 1
        u = user[query]
        for candidate in range(offsets[query], offsets[query + 1]):
            a = np.int64(article[candidate])
            if a == 0:
                continue
            total = 0
            if u > 0:
                for place in range(width):
                    if recent[u, place] > 0:
                        slot = _slot(pairs, recent[u, place] * np.int64(articles) + a)
                        total += counts[slot] if pairs[slot] != -1 else 0
            out[candidate, 0] = total
            if page[query] > 0:
                slot = _slot(pairs, page[query] * np.int64(articles) + a)
                out[candidate, 1] = counts[slot] if pairs[slot] != -1 else 0
    return pairs, counts
