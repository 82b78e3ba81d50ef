"""Impressions as flat arrays with offsets: the one data model that every later step works on.

A **slate** is the candidates of one impression. All slates of a split are flat arrays over candidates plus
``offsets`` that say where each slate begins, and arrays over impressions for what was known at the request.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ebnerd_lib.errors import BundleError

HOUR = 3_600_000_000
"""One hour in microseconds, the unit of every time in this package."""

_PER_CANDIDATE = ("article_id", "article", "clicked")


@dataclass(frozen=True)
class Slates:
    """The slates of some impressions, ``n`` impressions over ``m`` candidates.

    Attributes:
        impression_id: uint32 (n,), ids as in the file.
        user_id: uint32 (n,), raw ids.
        user: int32 (n,), index into the users table, 0 unknown.
        time: int64 (n,), microseconds since 1970 without zone.
        session: int64 (n,), unique per session over all splits.
        device: int8 (n,), 0 unknown, 1 desktop, 2 mobile, 3 tablet.
        subscriber: bool (n,).
        page: int32 (n,), index of the article being read; 0 on the front page and for unknown articles.
        front_page: bool (n,), whether the front page is being read.
        week: int8 (n,), 0 for the bundle's train file, 1 for its validation file: whose history applies.
        offsets: int64 (n + 1,), slate ``i`` is ``offsets[i]:offsets[i + 1]`` of the arrays below.
        article_id: int32 (m,), raw ids.
        article: int32 (m,), index into the articles table, 0 unknown.
        clicked: bool (m,).
    """

    impression_id: np.ndarray
    user_id: np.ndarray
    user: np.ndarray
    time: np.ndarray
    session: np.ndarray
    device: np.ndarray
    subscriber: np.ndarray
    page: np.ndarray
    front_page: np.ndarray
    week: np.ndarray
    offsets: np.ndarray
    article_id: np.ndarray
    article: np.ndarray
    clicked: np.ndarray

    def __len__(self) -> int:
        """Return the number of impressions."""
        return len(self.impression_id)

    @property
    def candidates(self) -> int:
        """The number of candidates over all slates."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,), candidates per slate."""
        return np.diff(self.offsets)

    @cached_property
    def by_time(self) -> np.ndarray:
        """Rows in order of time, those of the same microsecond as they stand: int64 (n,)."""
        return np.argsort(self.time, kind="stable")

    @cached_property
    def has_choice(self) -> np.ndarray:
        """Whether each slate has a click and something beside it: bool (n,)."""
        clicks = np.add.reduceat(self.clicked.astype(np.int64), self.offsets[:-1])
        return (clicks > 0) & (clicks < self.lengths)

    def per_candidate(self, values: np.ndarray) -> np.ndarray:
        """Repeat one value an impression over the candidates of its slate: (n, …) to (m, …)."""
        return np.repeat(values, self.lengths, axis=0)

    def take(self, rows: np.ndarray) -> "Slates":
        """Return the slates of the impressions ``rows`` (positions or a mask), in the order given."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else np.asarray(rows, dtype=np.int64)
        where = candidate_rows(self.offsets, rows)
        offsets = np.concatenate(([0], np.cumsum(self.lengths[rows]))).astype(np.int64)
        picked = {
            field.name: getattr(self, field.name)[where if field.name in _PER_CANDIDATE else rows]
            for field in fields(self)
            if field.name != "offsets"
        }
        return Slates(offsets=offsets, **picked)

    def chunks(self, order: np.ndarray, candidates: int) -> Iterator[np.ndarray]:
        """Yield consecutive pieces of ``order`` (impression rows) of about ``candidates`` candidates each.

        A slate is never cut; a slate larger than ``candidates`` is a piece of its own.
        """
        total = np.cumsum(self.lengths[order])
        start = 0
        while start < len(order):
            done = total[start - 1] if start else 0
            stop = int(np.searchsorted(total, done + candidates, side="right"))
            stop = max(stop, start + 1)
            yield order[start:stop]
            start = stop

    def without_clicks(self) -> "Slates":
        """Return the same slates with no click known: what a scorer may see of the slates it scores."""
        return replace(self, clicked=np.zeros_like(self.clicked))


def candidate_rows(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the positions of the candidates of the slates ``rows``, slate after slate.

    >>> candidate_rows(np.array([0, 2, 5, 6]), np.array([2, 0]))
    array([5, 0, 1])
    """
    lengths = offsets[rows + 1] - offsets[rows]
    ends = np.cumsum(lengths)
    shift = np.repeat(offsets[rows] - (ends - lengths), lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0, dtype=np.int64) + shift


def concatenate(parts: list[Slates]) -> Slates:
    """Join several sets of slates one after the other."""
    offsets, done = [np.zeros(1, np.int64)], 0
    for part in parts:
        offsets.append(part.offsets[1:] + done)
        done += part.candidates
    joined = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Slates)}
    return Slates(**{**joined, "offsets": np.concatenate(offsets)})


def writable(values: pa.Array) -> np.ndarray:
    """Copy an Arrow array into one of numpy's own: kernels compile anew for arrays that may not be written."""
    return np.array(values.to_numpy(zero_copy_only=False))


def save(slates: Slates, path: Path) -> None:
    """Write slates as parquet: one row an impression, candidates as lists, times as timestamps."""
    columns: dict[str, pa.Array] = {}
    for field in fields(slates):
        values = getattr(slates, field.name)
        if field.name == "offsets":
            continue
        if field.name in _PER_CANDIDATE:
            columns[field.name] = pa.LargeListArray.from_arrays(pa.array(slates.offsets), pa.array(values))
        elif field.name == "time":
            columns[field.name] = pa.array(values).view(pa.timestamp("us"))
        else:
            columns[field.name] = pa.array(values)
    pq.write_table(pa.table(columns), path, compression="zstd")


def load(path: Path) -> Slates:
    """Read slates that ``save`` wrote. Raises ``BundleError`` where the file is missing."""
    if not path.exists():
        raise BundleError(f"{path}: no such file. Run the preprocessing stage first.")
    table = pq.read_table(path).combine_chunks()
    offsets = np.zeros(1, np.int64)
    arrays: dict[str, np.ndarray] = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if name in _PER_CANDIDATE:
            offsets = column.offsets.to_numpy().astype(np.int64)
            column = column.values
        arrays[name] = writable(column.view(pa.int64()) if name == "time" else column)
    return Slates(offsets=offsets, **arrays)
