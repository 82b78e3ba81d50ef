"""Compute registered features of slates, chunk by chunk, into an array or a memory-mapped file.

``queries`` are the slates to describe; the ``World`` holds the past events they may look at. In preprocessing
both come from the same log; for a recommendation the queries are slates that nobody was shown.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from ebnerd_lib.data.bundle import History
from ebnerd_lib.data.dataset import Metadata
from ebnerd_lib.data.slates import Slates, candidate_rows
from ebnerd_lib.features import catalogue as catalogue  # registers the features
from ebnerd_lib.features.events import Grouping, Kind, Past, Timeline
from ebnerd_lib.features.registry import Family, every_column, families
from ebnerd_lib.features.streams import LogStream
from ebnerd_lib.features.users import UserEvents, user_events

By = Literal["article", "category", "topic", "page", "audience"]
"""What events are counted by: the article, its category, its topics, the article on this kind of page (front page or
not), or the article with this kind of reader (subscriber or not)."""

CHUNK = 1 << 18
"""Candidates computed at a time: the memory of a build is bounded by this and the event indexes."""
_STEP = 1 << 16  # impressions of a timeline that are walked over at a time where nothing is asked


@dataclass
class World:
    """Everything that features may look at. Past events are put in order once, when first needed.

    Attributes:
        log: impressions of all parts with their clicks; queries only see those strictly before their time.
        metadata: the articles table.
        histories: the clicks before each week, week 0 first.
        users: number of users, index 0 included.
        timeline: what was in view, where that is more than ``log`` holds, as when it is on disk and the log is that
            of some users only.
    """

    log: Slates
    metadata: Metadata
    histories: list[History]
    users: int
    timeline: Timeline | None = None

    @property
    def articles(self) -> int:
        """Number of articles, index 0 included."""
        return len(self.metadata.published)

    @cached_property
    def categories(self) -> int:
        """Number of categories, the unknown included."""
        return int(self.metadata.category.max()) + 1

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
        return Timeline.inviews(self.log) if self.timeline is None else self.timeline

    @cached_property
    def clicks(self) -> Timeline:
        """What was clicked, in order of time."""
        return Timeline.clicks(self.log)

    @cached_property
    def own_clicks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The clicks of the log by user in order of time, in the form of ``history``, the same for every week."""
        log = self.log
        order = self.by_user.row
        places = candidate_rows(log.offsets, order)
        row = np.repeat(order, log.lengths[order])
        hit = log.clicked[places]
        counts = np.bincount(log.user[row[hit]], minlength=self.users)
        starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        return np.stack([starts] * max(len(self.histories), 1)), log.article[places[hit]], log.time[row[hit]]

    @cached_property
    def history(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The histories of all weeks as one: starts (weeks, users + 1) into the articles and times of clicks."""
        shifts = np.cumsum([0] + [len(week.article) for week in self.histories[:-1]])
        starts = np.stack([week.offsets + shift for week, shift in zip(self.histories, shifts, strict=True)])
        article = np.concatenate([week.article for week in self.histories])
        return starts, article, np.concatenate([week.time for week in self.histories])

    @cached_property
    def by_user(self) -> UserEvents:
        """The log by user."""
        return user_events(self.log, self.users)


class Walk:
    """One pass over the queries: hands out the past, each part of it built when first asked for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pasts: dict[tuple[Kind, By], Past] = {}

    def past(self, kind: Kind, by: By = "article") -> Past:
        """Return the past events of a kind by key."""
        if (kind, by) not in self._pasts:
            events = self._world.clicks if kind == "clicks" else self._world.inviews
            self._pasts[kind, by] = Past(events, self._world.grouping(by), by_chance=kind == "chances")
        return self._pasts[kind, by]

    @cached_property
    def stream(self) -> LogStream:
        """State that runs along the log impression by impression."""
        return LogStream(self._world.log, self._world.articles, self._world.users)


@dataclass(frozen=True)
class Chunk:
    """What a feature function sees: some slates in the order of its walk, and the past.

    Attributes:
        slates: the slates to describe, n impressions and m candidates.
        world: metadata, histories and the log.
        walk: past events, strictly before the time of each slate; for a ``time`` walk.
        columns: for a ``slate`` walk, the columns (m,) that the family reads, by name.
    """

    slates: Slates
    world: World
    walk: Walk
    columns: dict[str, np.ndarray]


def build(
    queries: Slates,
    world: World,
    out: np.ndarray,
    progress: Callable[[float], None] | None = None,
    chunk: int = CHUNK,
    slate_only: bool = False,
) -> list[str]:
    """Fill ``out`` with every registered feature of every candidate.

    Args:
        queries: the slates; their own clicks are hidden from the feature functions.
        world: the past.
        out: float array (candidates, columns in registry order), in file order of ``queries``.
        progress: called with the share done.
        chunk: candidates at a time; figures do not depend on it.
        slate_only: fill only what depends on the slate, the families of the ``slate`` walk; the columns of the other
            walks, which do not depend on it, stand in ``out`` already. For candidates put into other slates.

    Returns:
        The column names, in the order of ``out``'s columns.

    Raises:
        ValueError: ``out`` has another shape, or a function returns one.
    """
    names = [column.name for column in every_column()]
    if out.shape != (queries.candidates, len(names)):
        raise ValueError(f"out has shape {out.shape}, expected {(queries.candidates, len(names))}")
    hidden = queries.without_clicks()
    orders = {"slate": np.arange(len(queries))}
    if not slate_only:
        orders = {"time": queries.by_time, "user": _by_user(queries), **orders}
    done = 0.0
    for walk, order in orders.items():
        members = [entry for entry in families() if entry.walk == walk]
        pass_over = Walk(world)
        for rows in queries.chunks(order, chunk):
            slates = hidden.take(rows)
            where = candidate_rows(queries.offsets, rows)
            for entry in members:
                _fill(entry, Chunk(slates, world, pass_over, _read(entry, out, where, names)), out, where, names)
            done += slates.candidates / queries.candidates / len(orders)
            if progress is not None:
                progress(done)
    return names


def stream(
    queries: Slates,
    world: World,
    names: list[str],
    chunk: int = CHUNK,
    after_step: Callable[[], None] = lambda: None,
) -> Iterator[tuple[np.ndarray, Slates, np.ndarray]]:
    """Yield some features of every candidate, a chunk at a time in order of time: no matrix of all is held.

    Only what the user walk finds, which goes user by user, is held for all candidates.

    Args:
        queries: the slates; their own clicks are hidden from the feature functions.
        world: the past.
        names: the columns wanted, in the order wanted.
        chunk: candidates at a time; figures do not depend on it.
        after_step: called whenever a piece of the timeline has been walked over, as for letting go of its memory.

    Yields:
        Rows of ``queries``, their slates, and their features, float32 (candidates of the slates, columns).
    """
    hidden = queries.without_clicks()
    members = _needed(names)
    read = {*names, *(name for entry in members for name in entry.reads)}
    held = {
        column.name: np.empty(queries.candidates, np.float32)
        for entry in members
        for column in entry.columns
        if entry.walk == "user" and column.name in read
    }
    walk = Walk(world)
    if held:
        for rows in queries.chunks(_by_user(queries), chunk):
            slates, where = hidden.take(rows), candidate_rows(queries.offsets, rows)
            for entry in members:
                if entry.walk == "user":
                    for name, values in _computed(entry, Chunk(slates, world, walk, {})).items():
                        if name in held:
                            held[name][where] = values
    for moment in _steps_before(queries, world):
        for entry in members:
            if entry.walk == "time":
                _computed(entry, Chunk(moment, world, walk, {}))
        after_step()
    for rows in queries.chunks(queries.by_time, chunk):
        slates, where = hidden.take(rows), candidate_rows(queries.offsets, rows)
        table = {name: values[where] for name, values in held.items()}
        for kind in ("time", "slate"):
            for entry in members:
                if entry.walk == kind:
                    table |= _computed(entry, Chunk(slates, world, walk, {name: table[name] for name in entry.reads}))
        matrix = np.empty((slates.candidates, len(names)), np.float32)
        for place, name in enumerate(names):
            matrix[:, place] = table[name]
        after_step()
        yield rows, slates, matrix


def _steps_before(queries: Slates, world: World) -> Iterator[Slates]:
    """Yield slates without candidates, at steps of the timeline before the first query: they only move a walk on."""
    if not len(queries):
        return
    one = queries.take(queries.by_time[:1])
    nothing = {name: getattr(one, name)[:0] for name in ("article_id", "article", "clicked")}
    times = world.inviews.time
    for place in range(0, int(np.searchsorted(times, one.time[0])), _STEP):
        yield replace(one, time=times[place : place + 1].copy(), offsets=np.zeros(2, np.int64), **nothing)


def _needed(names: list[str]) -> list[Family]:
    """Return the families that some columns come from, and those that these read, in order of registration."""
    wanted, found = set(names), []
    for entry in reversed(families()):
        if wanted & {column.name for column in entry.columns}:
            wanted |= set(entry.reads)
            found.append(entry)
    return found[::-1]


def _by_user(queries: Slates) -> np.ndarray:
    """Return rows user by user and week by week, each user's in order of time."""
    return np.lexsort((queries.time, queries.user, queries.week))


def _computed(entry: Family, chunk: Chunk) -> dict[str, np.ndarray]:
    """Return the columns of a family by name, float32."""
    values = _values(entry, chunk).astype(np.float32)
    return {column.name: values[:, place] for place, column in enumerate(entry.columns)}


def _values(entry: Family, chunk: Chunk) -> np.ndarray:
    values = entry.compute(chunk)
    if values.shape != (chunk.slates.candidates, len(entry.columns)):
        raise ValueError(
            f"feature family {entry.name} returned {values.shape} for {chunk.slates.candidates} candidates"
        )
    return values


def _read(entry: Family, out: np.ndarray, where: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    return {name: out[where, names.index(name)].astype(np.float32) for name in entry.reads}


def _fill(entry: Family, chunk: Chunk, out: np.ndarray, where: np.ndarray, names: list[str]) -> None:
    first = names.index(entry.columns[0].name)
    out[where, first : first + len(entry.columns)] = _values(entry, chunk)
