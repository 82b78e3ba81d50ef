"""State that moves impression by impression along the log."""

import numpy as np
from numba import njit

from ebnerd_lib.data.slates import Slates, large_zeros
from ebnerd_lib.features.events import in_order
from ebnerd_lib.features.users import UserProfiles, own_past

# mypy: disable-error-code="no-untyped-def"


RECENT = 5
"""Clicks of a user that count as the last ones."""
_SLOTS = 1 << 16  # of the table of pairs at first


class LogStream:
    """Walks along a log with the queries, chunk after chunk in order of time, always strictly behind them.

    Args:
        log: impressions in any order.
        articles: number of articles, index 0 included.
        users: number of users, index 0 included.
        tastes: what profiles of users are made of.
    """

    def __init__(self, log: Slates, articles: int, users: int, profiles: UserProfiles) -> None:
        self._log, self._articles, self._users, self._tastes = log, articles, users, profiles
        self._strength: dict[float, tuple[np.ndarray, np.ndarray]] = {}
        self._together: tuple[np.ndarray, ...] | None = None
        self._own: tuple[np.ndarray, ...] | None = None
        self._asked: dict[object, int] = {}

    def copy(self) -> "LogStream":
        """Return one that goes on from here by itself."""
        twin = LogStream(self._log, self._articles, self._users, self._tastes)
        twin._strength = {rate: (value.copy(), at.copy()) for rate, (value, at) in self._strength.items()}
        twin._together = None if self._together is None else tuple(table.copy() for table in self._together)
        twin._own = None if self._own is None else tuple(table.copy() for table in self._own)
        twin._asked = dict(self._asked)
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes of its tables."""
        tables = [*self._strength.values(), self._together or (), self._own or ()]
        return sum(table.nbytes for each in tables for table in each)

    def strength(self, slates: Slates, rate: float) -> np.ndarray:
        """Strength of each candidate, learnt from the choices in the slates before t: float32 (candidates, 1).

        After each impression, the strengths b of its candidates move by rate · (share of the clicks − softmax of
        b over the slate): the gradient of the listwise loss of a model of one bias an article. It tells an article
        that wins against strong ones from one that wins against weak ones, which a click rate cannot. 0 for an
        article that was never in view.
        """
        self._asked[rate] = in_order(slates, self._asked.get(rate))
        value, at = self._strength.setdefault(rate, (np.zeros(self._articles), np.zeros(1, dtype=np.int64)))
        log, out = self._log, np.zeros((slates.candidates, 1), dtype=np.float32)
        _strength(
            slates.time, slates.offsets, slates.article, log.by_time, log.time, log.offsets, log.article, log.clicked,
            rate, value, at, out,
        )  # fmt: skip
        return out

    def clicked_together(self, slates: Slates) -> np.ndarray:
        """How often the candidate was clicked soon after others: float32 (candidates, 2).

        A click on a counts once for each of the same user's last five clicks before it. First column: the sum
        over the last five clicks of this user before t; second: for the page's own article alone. 0 without any.
        """
        self._asked["together"] = in_order(slates, self._asked.get("together"))
        if self._together is None:
            self._together = (
                np.full(_SLOTS, -1, dtype=np.int64),
                np.zeros(_SLOTS, dtype=np.int32),
                np.zeros((self._users, RECENT), dtype=np.int32),
                np.zeros(2, dtype=np.int64),
            )
        log, out = self._log, np.zeros((slates.candidates, 2), dtype=np.float32)
        pairs, counts, recent, at = self._together
        query = 0
        while query < len(slates):
            query = _together(
                slates.time, slates.offsets, slates.article, slates.user, slates.page, log.by_time, log.time,
                log.offsets, log.article, log.clicked, log.user, self._articles, pairs, counts, recent, at, query, out,
            )  # fmt: skip
            if query < len(slates):
                pairs, counts = _enlarged(pairs, counts)
        self._together = pairs, counts, recent, at
        return out

    def own_past(self, slates: Slates) -> np.ndarray:
        """What users did so far, and how candidates relate to it: float32 (candidates, 6), see ``users.own_past``."""
        self._asked["own"] = in_order(slates, self._asked.get("own"))
        if self._own is None:
            self._own = (
                np.zeros(1, dtype=np.int64),
                np.zeros(self._users, dtype=np.int32),
                np.zeros(self._users, dtype=np.int64),
                large_zeros((self._users, self._tastes.size), np.float32),
            )
        log, out = self._log, np.zeros((slates.candidates, 6), dtype=np.float32)
        own_past(
            slates.user, slates.time, slates.offsets, slates.article, log.by_time, log.time, log.offsets, log.article,
            log.clicked, log.user, *self._tastes.about, *self._own, out,
        )  # fmt: skip
        return out


@njit(cache=True, nogil=True)
def _strength(time, offsets, article, order, log_time, log_offsets, log_article, log_clicked, rate, value, at, out):
    for query in range(len(time)):
        while at[0] < len(order) and log_time[order[at[0]]] < time[query]:
            row = order[at[0]]
            begin, end = log_offsets[row], log_offsets[row + 1]
            clicks = total = 0.0
            for c in range(begin, end):
                clicks += log_clicked[c]
                total += np.exp(value[log_article[c]])
            if clicks > 0:
                # Shares are taken before any of the slate's strengths move.
                shares = np.empty(end - begin)
                for c in range(begin, end):
                    shares[c - begin] = np.exp(value[log_article[c]]) / total
                for c in range(begin, end):
                    if log_article[c] > 0:
                        value[log_article[c]] += rate * (log_clicked[c] / clicks - shares[c - begin])
            at[0] += 1
        for candidate in range(offsets[query], offsets[query + 1]):
            out[candidate, 0] = value[article[candidate]]


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
def _together(time, offsets, article, user, page, order, log_time, log_offsets, log_article, log_clicked, log_user,
              articles, pairs, counts, recent, at, first, out):  # fmt: skip
    # Returns the query to go on with: one more than the last, or fewer where the table of pairs is half full. at[0]
    # is the first impression that is not counted, at[1] the number of pairs.
    width = recent.shape[1]
    for query in range(first, len(time)):
        while at[0] < len(order) and log_time[order[at[0]]] < time[query]:
            row = order[at[0]]
            u = log_user[row]
            if 2 * (at[1] + width * (log_offsets[row + 1] - log_offsets[row])) > len(pairs):
                return query
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
    return len(time)
