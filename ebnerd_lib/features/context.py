"""What features may look at, always strictly before t: the log, the articles table, the histories, and sums of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ebnerd_lib.data.bundle import History
from ebnerd_lib.data.dataset import Dataset, Metadata
from ebnerd_lib.data.slates import HOUR, Slates
from ebnerd_lib.features import events
from ebnerd_lib.features.events import NEVER, Grouping
from ebnerd_lib.features.users import About, UserEvents, user_events

Kind = Literal["clicks", "inviews", "chances"]
"""Clicks; times in view; or times in view, each worth what chance gives it, 1 / the length of its slate."""
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
    def read(self) -> list[np.ndarray]:
        """The profiles of users after the history of each week, of those who were asked about."""
        return [self.about.profiles(self.users) for _ in self.histories]

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

    What is counted stands in tables that only move forward, one or several for each question.
    """

    def __init__(self, context: FeatureContext) -> None:
        self.context = context
        self._tables: dict[object, list[np.ndarray]] = {}
        self._asked: dict[object, int] = {}

    def copy(self) -> "EventCursor":
        """Return one that goes on from here by itself."""
        twin = EventCursor(self.context)
        twin._tables = {question: [table.copy() for table in own] for question, own in self._tables.items()}
        twin._asked = dict(self._asked)
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes of what it holds of the past."""
        return sum(table.nbytes for own in self._tables.values() for table in own)

    def tables(self, question: object, slates: Slates, fresh: Callable[[], list[np.ndarray]]) -> list[np.ndarray]:
        """Return the tables of a question, ``fresh`` ones at first.

        Raises:
            ValueError: slates do not come in order of time after those that were asked last.
        """
        if question not in self._tables:
            self._tables[question], self._asked[question] = fresh(), NEVER
        if len(slates):
            if (np.diff(slates.time) < 0).any() or slates.time[0] < self._asked[question]:
                raise ValueError("slates must come in order of time: this walk keeps tables that only move forward")
            self._asked[question] = int(slates.time[-1])
        return self._tables[question]

    def trailing(self, kind: Kind, slates: Slates, hours: tuple[float, ...]) -> np.ndarray:
        """Count each candidate's events in [t - w, t) for each window w in hours: float32 (candidates, windows)."""
        windows = np.array([int(h * HOUR) for h in hours], dtype=np.int64)
        articles, out = self.context.articles, np.zeros((slates.candidates, len(hours)), dtype=np.float32)
        tables = self.tables(
            (kind, "trailing", hours), slates,
            lambda: [np.zeros(1 + len(hours), np.int64), np.zeros((articles, len(hours)), np.int32)],
        )  # fmt: skip
        events.trailing(*self._met(kind, slates), windows, *tables, out)
        return out

    def decayed(self, kind: Kind, slates: Slates, half_lives: tuple[float, ...], by: By = "article") -> np.ndarray:
        """Sum weight · 2^(-age / h) over the events before t for each half-life h in hours: float32 (m, n).

        Of an article with several keys, the mean over them. Events of the kind ``chances`` weigh 1 / the length of
        their slate.
        """
        spans = np.array([int(h * HOUR) for h in half_lives], dtype=np.int64)
        log, grouping = self._events(kind), self.context.groupings[by]
        tables = self.tables(
            (kind, by, "decayed", half_lives), slates,
            lambda: [
                np.zeros(1, np.int64), np.resize(log.time[:1], len(spans)).astype(np.int64),
                np.zeros((grouping.rows, len(spans))),
            ],
        )  # fmt: skip
        out = np.full((slates.candidates, len(spans)), grouping.missing, dtype=np.float32)
        events.decayed(
            slates.time, slates.offsets, slates.article, grouping.sides(slates), log.time, log.offsets, log.article,
            grouping.sides(log), grouping.starts, grouping.keys, kind == "chances", spans, *tables, out,
        )  # fmt: skip
        return out

    def hours_since(self, kind: Kind, slates: Slates, first: bool) -> np.ndarray:
        """Hours since each candidate's first or last event before t, NaN where there is none: float32 (m, 1)."""
        articles, out = self.context.articles, np.full((slates.candidates, 1), np.nan, dtype=np.float32)
        tables = self.tables(
            (kind, "since", first), slates, lambda: [np.zeros(1, np.int64), np.full(articles, NEVER, np.int64)]
        )
        events.since(*self._met(kind, slates), first, *tables, out)
        return out

    def _events(self, kind: Kind) -> Slates:
        return self.context.clicks if kind == "clicks" else self.context.log

    def _met(self, kind: Kind, slates: Slates) -> tuple[np.ndarray, ...]:
        log = self._events(kind)
        return slates.time, slates.offsets, slates.article, log.time, log.offsets, log.article


@dataclass(frozen=True)
class Chunk:
    """What a feature function sees: some slates in order of time, and the past."""

    slates: Slates  # the slates to describe, n impressions and m candidates
    context: FeatureContext  # metadata, histories and the log
    walk: EventCursor  # past events, strictly before the time of each slate; not for a family that reads columns
    columns: dict[str, np.ndarray]  # the columns (m,) that the family reads, by name


def feature_context(dataset: Dataset) -> FeatureContext:
    """Return the past that a dataset's features look at."""
    return FeatureContext(dataset.log, dataset.metadata, dataset.histories, len(dataset.users))
