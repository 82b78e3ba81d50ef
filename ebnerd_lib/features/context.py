"""What features may look at, always strictly before t: the log, the articles table, the histories, and sums of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numba import njit

from ebnerd_lib.data.bundle import History
from ebnerd_lib.data.dataset import Dataset, Metadata
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.features.events import EventCounts, Grouping, Kind, Tables
from ebnerd_lib.features.users import About, UserEvents, own_past, user_events

RECENT = 5  # clicks of a user that count as the last ones
_SLOTS = 1 << 16  # of the table of pairs at first
By = Literal["article", "category", "topic", "page", "audience"]
"""What events are counted by: the article, its category, its topics, the article on this kind of page (front page or
not), or the article with this kind of reader (subscriber or not)."""


@dataclass
class FeatureContext:
    """Everything that features may look at."""

    # impressions of all parts with their clicks, in order of time; queries only see those strictly before their time
    log: Slates
    metadata: Metadata  # the articles table
    histories: list[History]  # the clicks before each week, week 0 first
    users: int  # number of users, index 0 included

    def __post_init__(self) -> None:
        """Raise ``ValueError`` where the log is not in order of time."""
        if (np.diff(self.log.time) < 0).any():
            raise ValueError("the log must be in order of time: walks go along it")

    @property
    def articles(self) -> int:
        """Number of articles, index 0 included."""
        return len(self.metadata.published)

    @cached_property
    def about(self) -> About:
        """The articles as kernels know them, and what profiles of users are made of."""
        return About.of(self.metadata)

    @cached_property
    def groupings(self) -> dict[By, Grouping]:
        """The keys of each article. See ``By``."""
        article, meta = np.arange(self.articles), self.metadata
        return {
            "article": Grouping.one_key(article),
            "category": Grouping.one_key(meta.category),
            "topic": Grouping(meta.topic_starts, meta.topics, meta.topic_count, missing=np.nan),
            "page": Grouping.one_key(article, "front_page"),
            "audience": Grouping.one_key(article, "subscriber"),
        }

    @cached_property
    def clicks(self) -> Slates:
        """The impressions of the log with a click, and of their candidates those clicked."""
        return self.log.keep(self.log.clicked).take(self.log.clicks > 0)

    @cached_property
    def by_user(self) -> UserEvents:
        """The log by user."""
        return user_events(self.log, self.users)


class EventCursor:
    """One pass along the log with the queries, chunk after chunk in order of time, always strictly behind them.

    Each part of the past is built when first asked for.
    """

    def __init__(self, context: FeatureContext, queries: Slates) -> None:
        self.context, self._queries, self._tables = context, queries, Tables()

    def copy(self, queries: Slates) -> "EventCursor":
        """Return one for other queries that goes on from here by itself."""
        twin = EventCursor(self.context, queries)
        twin._tables = self._tables.copy()
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes of what it holds of the past."""
        return self._tables.nbytes

    def past(self, kind: Kind, by: By = "article") -> EventCounts:
        """Return the past events of a kind by key."""
        events = self.context.clicks if kind == "clicks" else self.context.log
        return EventCounts(kind, events, by, self.context.groupings[by], self._tables)

    @cached_property
    def read(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """What the queries' users clicked in the history of each week: places by user, and profiles for each week."""
        context = self.context
        users = np.unique(self._queries.user)
        place = np.zeros(context.users, dtype=np.int64)
        place[users] = np.arange(len(users))
        return place, [context.about.profiles_after(history, users) for history in context.histories]

    def strength(self, slates: Slates, rate: float) -> np.ndarray:
        """Strength of each candidate, learnt from the choices in the slates before t: float32 (candidates, 1).

        After each impression, the strengths b of its candidates move by rate · (share of the clicks − softmax of
        b over the slate): the gradient of the listwise loss of a model of one bias an article. It tells an article
        that wins against strong ones from one that wins against weak ones, which a click rate cannot. 0 for an
        article that was never in view.
        """
        log, out = self.context.log, np.zeros((slates.candidates, 1), dtype=np.float32)
        value, at = self._tables.of(
            ("strength", rate), slates, lambda: [np.zeros(self.context.articles), np.zeros(1, dtype=np.int64)]
        )
        _strength(
            slates.time, slates.offsets, slates.article, log.time, log.offsets, log.article, log.clicked, rate, value,
            at, out,
        )  # fmt: skip
        return out

    def clicked_together(self, slates: Slates) -> np.ndarray:
        """How often the candidate was clicked soon after others: float32 (candidates, 2).

        A click on a counts once for each of the same user's last five clicks before it. First column: the sum
        over the last five clicks of this user before t; second: for the page's own article alone. 0 without any.
        """
        context, out = self.context, np.zeros((slates.candidates, 2), dtype=np.float32)
        log = context.log
        tables = self._tables.of(
            "together", slates,
            lambda: [
                np.full(_SLOTS, -1, dtype=np.int64), np.zeros(_SLOTS, dtype=np.int32),
                np.zeros((context.users, RECENT), dtype=np.int32), np.zeros(2, dtype=np.int64),
            ],
        )  # fmt: skip
        query = 0
        while query < len(slates):
            query = _together(
                slates.time, slates.offsets, slates.article, slates.user, slates.page, log.time, log.offsets,
                log.article, log.clicked, log.user, context.articles, *tables, query, out,
            )  # fmt: skip
            if query < len(slates):
                tables[:2] = _enlarged(*tables[:2])
        return out

    def own_past(self, slates: Slates) -> np.ndarray:
        """What users did so far, and how candidates relate to it: float32 (candidates, 6), see ``users.own_past``."""
        context, out = self.context, np.zeros((slates.candidates, 6), dtype=np.float32)
        log = context.log
        tables = self._tables.of(
            "own", slates,
            lambda: [
                np.zeros(1, dtype=np.int64), np.zeros(context.users, dtype=np.int32),
                np.zeros(context.users, dtype=np.int64), context.about.profiles(context.users),
            ],
        )  # fmt: skip
        own_past(
            slates.user, slates.time, slates.offsets, slates.article, log.time, log.offsets, log.article, log.clicked,
            log.user, context.about, *tables, out,
        )  # fmt: skip
        return out


@dataclass(frozen=True)
class Chunk:
    """What a feature function sees: some slates in the order of its walk, and the past."""

    slates: Slates  # the slates to describe, n impressions and m candidates
    context: FeatureContext  # metadata, histories and the log
    walk: EventCursor  # past events, strictly before the time of each slate; for a ``time`` walk
    columns: dict[str, np.ndarray]  # for a ``slate`` walk, the columns (m,) that the family reads, by name


def feature_context(dataset: Dataset) -> FeatureContext:
    """Return the past that a dataset's features look at."""
    return FeatureContext(dataset.log, dataset.metadata, dataset.histories, len(dataset.users))


@njit(cache=True, nogil=True)
def _strength(time, offsets, article, log_time, log_offsets, log_article, log_clicked, rate, value, at, out):  # type: ignore[no-untyped-def]
    for query in range(len(time)):
        while at[0] < len(log_time) and log_time[at[0]] < time[query]:
            begin, end = log_offsets[at[0]], log_offsets[at[0] + 1]
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
def _slot(pairs, key):  # type: ignore[no-untyped-def]
    """Return the slot of a pair, or the free one where it belongs: open addressing, at most half full."""
    mask = len(pairs) - 1
    mixed = key * np.int64(-7046029254386353131)
    slot = (mixed ^ (mixed >> 29)) & mask
    while pairs[slot] != -1 and pairs[slot] != key:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def _enlarged(pairs, counts):  # type: ignore[no-untyped-def]
    """Return the table of pairs with twice the room."""
    more, more_counts = np.full(2 * len(pairs), -1, dtype=np.int64), np.zeros(2 * len(counts), dtype=np.int32)
    for place in range(len(pairs)):
        if pairs[place] != -1:
            slot = _slot(more, pairs[place])
            more[slot], more_counts[slot] = pairs[place], counts[place]
    return more, more_counts


@njit(cache=True, nogil=True)
def _together(  # type: ignore[no-untyped-def]
    time, offsets, article, user, page, log_time, log_offsets, log_article, log_clicked, log_user, articles, pairs,
    counts, recent, at, first, out,
):  # fmt: skip
    # Returns the query to go on with: one more than the last, or fewer where the table of pairs is half full. at[0]
    # is the first impression that is not counted, at[1] the number of pairs.
    width = recent.shape[1]
    for query in range(first, len(time)):
        while at[0] < len(log_time) and log_time[at[0]] < time[query]:
            row = at[0]
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
