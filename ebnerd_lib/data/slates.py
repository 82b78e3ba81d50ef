"""Slates: the candidates of impressions as flat arrays with offsets, in memory or on disk."""

import itertools
import mmap
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt
from numba import njit

from ebnerd_lib.data.schema import flat, list_lengths

LARGE = 1 << 27
"""Bytes from which on an array lies in a file, in the system's folder for temporary files (``TMPDIR``)."""


def large_zeros(shape: int | tuple[int, ...], kind: np.dtype | type[np.generic]) -> np.ndarray:
    """Return an array of zeros: in memory if it is small, in a file without a name if it is large.

    Raises:
        OSError: there is not enough space for the file; the error names its folder.
    """
    kind = np.dtype(kind)
    size = int(np.prod(shape)) * kind.itemsize
    if size < LARGE:
        return np.zeros(shape, kind)
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            os.ftruncate(stream.fileno(), size)
            if hasattr(os, "posix_fallocate"):  # not on macOS; without space, writing to the map would kill the process
                os.posix_fallocate(stream.fileno(), 0, size)
            return np.frombuffer(mmap.mmap(stream.fileno(), size), kind).reshape(shape)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({size:,} bytes of working space are needed)", folder) from None


HOUR = 3_600_000_000
"""One hour in microseconds, the unit of every time in this package."""

_GROUP = 1 << 18  # impressions of a row group
_PER_CANDIDATE = ("article_id", "article", "clicked")


@dataclass(frozen=True)
class Slates:
    """The slates of some impressions, ``n`` impressions over ``m`` candidates."""

    impression_id: np.ndarray  # uint32 (n,), ids as in the file
    user_id: np.ndarray  # uint32 (n,), raw ids
    user: np.ndarray  # int32 (n,), index into the users table, 0 unknown
    time: np.ndarray  # int64 (n,), microseconds since 1970 without zone
    session: np.ndarray  # int64 (n,), unique per session over all splits
    device: np.ndarray  # int8 (n,), 0 unknown, 1 desktop, 2 mobile, 3 tablet
    subscriber: np.ndarray  # bool (n,)
    page: np.ndarray  # int32 (n,), index of the article being read; 0 on the front page and for unknown articles
    front_page: np.ndarray  # bool (n,), whether the front page is being read
    # int8 (n,), 0 for the bundle's train file, 1 for its validation file; of a hidden test 0, and 1 for the week before
    # it: whose history applies
    week: np.ndarray
    offsets: np.ndarray  # int64 (n + 1,), slate ``i`` is ``offsets[i]:offsets[i + 1]`` of the arrays below
    article_id: np.ndarray  # int32 (m,), raw ids
    article: np.ndarray  # int32 (m,), index into the articles table, 0 unknown
    clicked: np.ndarray  # bool (m,)
    row: np.ndarray  # int64 (n,), where the impression stands in the bundle's files, the train file first

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
        if (self.time[1:] >= self.time[:-1]).all():
            return np.arange(len(self), dtype=np.int64)
        return np.argsort(self.time, kind="stable")

    @cached_property
    def file_order(self) -> np.ndarray:
        """Rows as they stand in the bundle's files: int64 (n,)."""
        return np.argsort(self.row, kind="stable")

    @cached_property
    def has_choice(self) -> np.ndarray:
        """Whether each slate has a click and something beside it: bool (n,)."""
        return (self.clicks > 0) & (self.clicks < self.lengths)

    @cached_property
    def clicks(self) -> np.ndarray:
        """int64 (n,), clicks per slate."""
        return _count(self.clicked, self.offsets)

    def per_candidate(self, values: np.ndarray) -> np.ndarray:
        """Repeat one value an impression over the candidates of its slate: (n, …) to (m, …)."""
        return np.repeat(values, self.lengths, axis=0)

    def take(self, rows: np.ndarray) -> "Slates":
        """Return the slates of the impressions ``rows`` (positions or a mask), in the order given."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else np.asarray(rows, dtype=np.int64)
        return gathered([self], rows)

    def between(self, start: int, stop: int) -> "Slates":
        """Return the slates of the impressions ``start`` to ``stop``, as views of the same arrays."""
        first, last = self.offsets[start], self.offsets[stop]
        picked = {
            name: getattr(self, name)[slice(first, last) if name in _PER_CANDIDATE else slice(start, stop)]
            for name in _COLUMNS
        }
        return Slates(offsets=self.offsets[start : stop + 1] - first, **picked)

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

    def keep(self, kept: np.ndarray) -> "Slates":
        """Return the same impressions with some of their candidates, bool (m,)."""
        offsets = np.concatenate(([0], np.cumsum(_count(kept, self.offsets))))
        return replace(self, offsets=offsets, **{name: getattr(self, name)[kept] for name in _PER_CANDIDATE})

    def without_clicks(self) -> "Slates":
        """Return the same slates with no click known: what a scorer may see of the slates it scores."""
        return replace(self, clicked=np.zeros_like(self.clicked))


_COLUMNS = tuple(field.name for field in fields(Slates) if field.name != "offsets")


def candidate_rows(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the positions of the candidates of the slates ``rows``, slate after slate.

    >>> candidate_rows(np.array([0, 2, 5, 6]), np.array([2, 0]))
    array([5, 0, 1])
    """
    lengths = offsets[rows + 1] - offsets[rows]
    ends = np.cumsum(lengths)
    shift = np.repeat(offsets[rows] - (ends - lengths), lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0, dtype=np.int64) + shift


def lists_of(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the values of the slates ``rows``, slate after slate: ``values[candidate_rows(offsets, rows)]``."""
    starts = np.concatenate(([0], np.cumsum(offsets[rows + 1] - offsets[rows])))
    out = large_zeros(int(starts[-1]), values.dtype)
    _copy_lists(values, offsets, rows, out, starts)
    return out


@njit(cache=True, nogil=True)
def _copy_lists(values, offsets, rows, out, starts):  # type: ignore[no-untyped-def]
    for at in range(len(rows)):
        begin, end = offsets[rows[at]], offsets[rows[at] + 1]
        for place in range(end - begin):
            out[starts[at] + place] = values[begin + place]


@njit(cache=True, nogil=True)
def _count(marked, offsets):  # type: ignore[no-untyped-def]
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    for row in range(len(counts)):
        for place in range(offsets[row], offsets[row + 1]):
            counts[row] += marked[place]
    return counts


@njit(cache=True, nogil=True)
def marked(index: np.ndarray, size: int) -> np.ndarray:
    """Return which of ``size`` indices occur: bool (size,)."""
    out = np.zeros(size, dtype=np.bool_)
    for place in index:
        out[place] = True
    return out


def concatenate(parts: list[Slates]) -> Slates:
    """Join several sets of slates one after the other; of views that lie so in memory, as views of the same arrays."""
    offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *(part.lengths for part in parts)]))
    joined = {name: _joined([getattr(part, name) for part in parts]) for name in _COLUMNS}
    return Slates(**joined, offsets=offsets)


def gathered(parts: list[Slates], rows: np.ndarray) -> Slates:
    """Return rows of several sets of slates, counted through one set after the other, in the order given."""
    picks, begin, lengths = [], 0, np.zeros(len(rows), np.int64)
    for part in parts:
        to = np.flatnonzero((rows >= begin) & (rows < begin + len(part)))
        own = rows[to] - begin
        lengths[to] = part.offsets[own + 1] - part.offsets[own]
        picks.append((part, to, own))
        begin += len(part)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    arrays = {}
    for name in _COLUMNS:
        size = int(offsets[-1]) if name in _PER_CANDIDATE else len(rows)
        arrays[name] = large_zeros(size, getattr(parts[0], name).dtype)
        for part, to, own in picks:
            if name in _PER_CANDIDATE:
                _copy_lists(getattr(part, name), part.offsets, own, arrays[name], offsets[to])
            else:
                arrays[name][to] = getattr(part, name)[own]
    return Slates(offsets=offsets, **arrays)


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    arrays = [array for array in arrays if len(array)] or arrays[:1]
    whole, start = arrays[0].base, arrays[0].ctypes.data
    ends = np.cumsum([array.nbytes for array in arrays]) + start
    following = [array.base is whole and array.ctypes.data == end for array, end in zip(arrays[1:], ends, strict=False)]
    if isinstance(whole, np.ndarray) and whole.ndim == 1 and whole.dtype == arrays[0].dtype and all(following):
        first = (start - whole.ctypes.data) // whole.itemsize
        return whole[first : first + sum(map(len, arrays))]
    out = large_zeros(sum(map(len, arrays)), np.result_type(*arrays))
    return np.concatenate(arrays, out=out)


def save(slates: Slates, path: Path) -> None:
    """Write slates as parquet: one row an impression, candidates as lists, times as timestamps."""
    write_columns(path, {name: getattr(slates, name) for name in _COLUMNS}, slates.offsets, _PER_CANDIDATE, _GROUP)


def write_columns(
    path: Path, arrays: dict[str, np.ndarray], offsets: np.ndarray, listed: tuple[str, ...], group: int
) -> None:
    """Write arrays as columns, ``listed`` ones as lists, ``time`` as timestamps, so many rows in a row group."""
    columns = {name: pa.array(values) for name, values in arrays.items()}
    columns["time"] = columns["time"].view(pa.timestamp("us"))
    for name in listed:
        columns[name] = pa.LargeListArray.from_arrays(pa.array(offsets), columns[name])
    pq.write_table(pa.table(columns), path, row_group_size=group, compression="zstd")


def load(paths: list[Path]) -> list[Slates]:
    """Read files that ``save`` wrote, as neighbouring views of the same arrays."""
    columns = read_columns(paths, _COLUMNS)
    arrays = {name: column.values for name, column in columns.items()}
    whole = Slates(offsets=columns["article"].offsets, **arrays)
    ends = np.cumsum([0, *(pq.read_metadata(path).num_rows for path in paths)])
    return [whole.between(start, stop) for start, stop in itertools.pairwise(ends.tolist())]


def read_columns(paths: list[Path], names: tuple[str, ...]) -> "dict[str, ColumnBuffer]":
    """Read columns of parquet files, one file after the other."""
    kinds = pq.read_schema(paths[0])
    columns = {name: ColumnBuffer(paths, name, kinds.field(name).type) for name in names}
    for path in paths:
        for group in range(pq.read_metadata(path).num_row_groups):
            # A reader keeps what it has read until it is dropped, so each row group gets one of its own.
            table = pq.ParquetFile(path).read_row_group(group)
            for name, column in columns.items():
                column.add(table[name])
    return columns


class ColumnBuffer:
    """The numbers of a column of some parquet files, filled in batch by batch; of a list column those of its lists.

    Timestamps become int64, microseconds. ``kind`` is the Arrow type of the column.
    """

    def __init__(self, paths: list[Path], name: str, kind: pa.DataType) -> None:
        item = kind.value_type if pt.is_large_list(kind) else kind
        dtype = np.int64 if pt.is_timestamp(item) else item.to_pandas_dtype()
        # A list without items counts as one value, so there is room for all.
        self._room = large_zeros(sum(_values_of(pq.ParquetFile(path).metadata, name) for path in paths), dtype)
        self._count, self._lengths = 0, [np.zeros(1, np.int64)]

    def add(self, column: pa.ChunkedArray) -> np.ndarray:
        """Add rows; return how many numbers each has, of a list column: int64 (rows,)."""
        values = flat(column)
        numbers = values.cast(pa.int64()) if pt.is_timestamp(values.type) else values
        self._room[self._count : self._count + len(numbers)] = numbers.to_numpy(zero_copy_only=False)
        self._count += len(numbers)
        self._lengths.append(list_lengths(column) if pt.is_large_list(column.type) else self._lengths[0][:0])
        return self._lengths[-1]

    @property
    def values(self) -> np.ndarray:
        """The numbers of all rows."""
        return self._room[: self._count]

    @property
    def offsets(self) -> np.ndarray:
        """int64 (rows + 1,), where the numbers of each row begin."""
        return np.cumsum(np.concatenate(self._lengths))


def _values_of(about: pq.FileMetaData, name: str) -> int:
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    columns = [group.column(place) for group in groups for place in range(group.num_columns)]
    return sum(column.num_values for column in columns if column.path_in_schema.split(".")[0] == name)
