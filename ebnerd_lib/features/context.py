"""What features may look at: the log, the articles table and the histories, always strictly before t."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ebnerd_lib.data.bundle import History
from ebnerd_lib.data.dataset import Dataset, Metadata
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.features.events import EventCounts, Grouping, Kind, Timeline
from ebnerd_lib.features.sequential import LogStream
from ebnerd_lib.features.users import UserEvents, UserProfiles, user_events

By = Literal["article", "category", "topic", "page", "audience"]
"""What events are counted by: the article, its category, its topics, the article on this kind of page (front page or
not), or the article with this kind of reader (subscriber or not)."""


@dataclass
class FeatureContext:
    """Everything that features may look at. Past events are put in order once, when first needed.

    Attributes:
        log: impressions of all parts with their clicks; queries only see those strictly before their time.
        metadata: the articles table.
        histories: the clicks before each week, week 0 first.
        users: number of users, index 0 included.
    """

    log: Slates
    metadata: Metadata
    histories: list[History]
    users: int

    @property
    def articles(self) -> int:
        """Number of articles, index 0 included."""
        return len(self.metadata.published)

    @cached_property
    def profiles(self) -> UserProfiles:
        """What profiles of users are made of."""
        return UserProfiles(self.metadata)

    def grouping(self, by: By) -> Grouping:
        """Return the keys of each article. See ``By``."""
        article, meta = np.arange(self.articles), self.metadata
        match by:
            case "article":
                return Grouping.one_key(article)
            case "category":
                return Grouping.one_key(meta.category)
            case "topic":
                return Grouping(meta.topic_starts, meta.topics, meta.topic_count, missing=np.nan)
            case "page":
                return Grouping.one_key(article, "front_page")
            case "audience":
                return Grouping.one_key(article, "subscriber")

    @cached_property
    def inviews(self) -> Timeline:
        """What was in view, in order of time."""
        return Timeline.inviews(self.log)

    @cached_property
    def clicks(self) -> Timeline:
        """What was clicked, in order of time."""
        return Timeline.clicks(self.log)

    @cached_property
    def by_user(self) -> UserEvents:
        """The log by user."""
        return user_events(self.log, self.users)


class EventCursor:
    """One pass over the queries: hands out the past, each part of it built when first asked for.

    Args:
        context: the past.
        queries: the slates that are described.
    """

    def __init__(self, context: FeatureContext, queries: Slates) -> None:
        self._world, self._queries = context, queries
        self._pasts: dict[tuple[Kind, By], EventCounts] = {}

    def past(self, kind: Kind, by: By = "article") -> EventCounts:
        """Return the past events of a kind by key."""
        if (kind, by) not in self._pasts:
            events = self._world.clicks if kind == "clicks" else self._world.inviews
            self._pasts[kind, by] = EventCounts(events, self._world.grouping(by), by_chance=kind == "chances")
        return self._pasts[kind, by]

    @cached_property
    def stream(self) -> LogStream:
        """State that runs along the log impression by impression."""
        context = self._world
        return LogStream(context.log, context.articles, context.users, context.profiles)

    def copy(self, queries: Slates) -> "EventCursor":
        """Return a walk for other queries that goes on from here by itself."""
        twin = EventCursor(self._world, queries)
        twin._pasts = {key: past.copy() for key, past in self._pasts.items()}
        twin.stream = self.stream.copy()
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes of what it holds of the past."""
        return self.stream.nbytes + sum(past.nbytes for past in self._pasts.values())

    @cached_property
    def read(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """What the queries' users clicked in the history of each week: places by user, and profiles for each week."""
        context = self._world
        users = np.unique(self._queries.user)
        place = np.zeros(context.users, dtype=np.int64)
        place[users] = np.arange(len(users))
        return place, [context.profiles.of_history(history, users) for history in context.histories]


@dataclass(frozen=True)
class Chunk:
    """What a feature function sees: some slates in the order of its walk, and the past.

    Attributes:
        slates: the slates to describe, n impressions and m candidates.
        context: metadata, histories and the log.
        walk: past events, strictly before the time of each slate; for a ``time`` walk.
        columns: for a ``slate`` walk, the columns (m,) that the family reads, by name.
    """

    slates: Slates
    context: FeatureContext
    walk: EventCursor
    columns: dict[str, np.ndarray]


def feature_context(dataset: Dataset) -> FeatureContext:
    """Return the past that a dataset's features look at."""
    return FeatureContext(dataset.log, dataset.metadata, dataset.histories, len(dataset.users))
