"""Compute registered features of slates, chunk by chunk, into an array or a memory-mapped file.

``queries`` are the slates to describe; the ``World`` holds the past events they may look at. In preprocessing
both come from the same log; for a recommendation the queries are slates that nobody was shown.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ebnerd_lib.data.bundle import History
from ebnerd_lib.data.dataset import Metadata
from ebnerd_lib.data.slates import Slates, candidate_rows
from ebnerd_lib.features import catalogue as catalogue  # registers the features
from ebnerd_lib.features.events import ArticlePast, UserEvents, article_events, user_events
from ebnerd_lib.features.registry import Family, every_column, families

CHUNK = 1 << 18
"""Candidates computed at a time: the memory of a build is bounded by this and the event indexes."""


@dataclass
class World:
    """Everything that features may look at. Indexes of past events are built once, when first needed.

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
    _index: dict[str, object] = field(default_factory=dict)

    @property
    def articles(self) -> int:
        """Number of articles, index 0 included."""
        return len(self.metadata.published)

    def past(self, clicks: bool) -> ArticlePast:
        """Return fresh cursors over the clicks, or over the times in view, of every article."""
        key = "clicks" if clicks else "inviews"
        if key not in self._index:
            self._index[key] = article_events(self.log, self.articles, clicks)
        return ArticlePast(self._index[key])  # type: ignore[arg-type]

    @property
    def by_user(self) -> UserEvents:
        """The log by user."""
        if "users" not in self._index:
            self._index["users"] = user_events(self.log, self.users)
        return self._index["users"]  # type: ignore[return-value]


@dataclass(frozen=True)
class Chunk:
    """What a feature function sees: some slates in the order of its walk, and the past.

    Attributes:
        slates: the slates to describe, n impressions and m candidates.
        world: metadata, histories and the log.
        clicks: past clicks of articles, strictly before the time of each slate.
        inviews: past times in view of articles, likewise.
        columns: for a ``slate`` walk, the columns (m,) that the family reads, by name.
    """

    slates: Slates
    world: World
    clicks: ArticlePast
    inviews: ArticlePast
    columns: dict[str, np.ndarray]


def build(
    queries: Slates,
    world: World,
    out: np.ndarray,
    progress: Callable[[float], None] | None = None,
    chunk: int = CHUNK,
) -> list[str]:
    """Fill ``out`` with every registered feature of every candidate.

    Args:
        queries: the slates; their own clicks are hidden from the feature functions.
        world: the past.
        out: float array (candidates, columns in registry order), in file order of ``queries``.
        progress: called with the share done.
        chunk: candidates at a time; figures do not depend on it.

    Returns:
        The column names, in the order of ``out``'s columns.

    Raises:
        ValueError: ``out`` has another shape, or a function returns one.
    """
    names = [column.name for column in every_column()]
    if out.shape != (queries.candidates, len(names)):
        raise ValueError(f"out has shape {out.shape}, expected {(queries.candidates, len(names))}")
    hidden = queries.without_clicks()
    orders = {
        "time": np.argsort(queries.time, kind="stable"),
        "user": np.lexsort((queries.time, queries.user, queries.week)),
        "slate": np.arange(len(queries)),
    }
    done = 0.0
    for walk, order in orders.items():
        members = [entry for entry in families() if entry.walk == walk]
        clicks, inviews = world.past(clicks=True), world.past(clicks=False)
        for rows in queries.chunks(order, chunk):
            slates = hidden.take(rows)
            where = candidate_rows(queries.offsets, rows)
            for entry in members:
                _fill(entry, Chunk(slates, world, clicks, inviews, _read(entry, out, where, names)), out, where, names)
            done += slates.candidates / queries.candidates / len(orders)
            if progress is not None:
                progress(done)
    return names


def _read(entry: Family, out: np.ndarray, where: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    return {name: out[where, names.index(name)].astype(np.float32) for name in entry.reads}


def _fill(entry: Family, chunk: Chunk, out: np.ndarray, where: np.ndarray, names: list[str]) -> None:
    values = entry.compute(chunk)
    if values.shape != (chunk.slates.candidates, len(entry.columns)):
        raise ValueError(
            f"feature family {entry.name} returned {values.shape} for {chunk.slates.candidates} candidates"
        )
    first = names.index(entry.columns[0].name)
    out[where, first : first + len(entry.columns)] = values
