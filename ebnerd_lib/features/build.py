"""Compute registered features of slates in one pass along the log, chunk by chunk, on two threads, and write them.

``queries`` are the slates to describe; the ``FeatureContext`` holds the past events they may look at. In preprocessing
both come from the same log; for a recommendation the queries are slates that nobody was shown.

Chunks come in order of time. While one chunk's columns of columns are computed and laid out, the past moves on to the
next chunk on another thread. Each family runs on one thread at a time and sees the chunks in order, so figures depend
neither on the number of threads nor on the size of a chunk.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
from numba import njit

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates, candidate_rows
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.features import catalogue as catalogue  # registers the features
from ebnerd_lib.features.context import Chunk, EventCursor, FeatureContext, feature_context
from ebnerd_lib.features.registry import Family, columns_named, every_column, families
from ebnerd_lib.features.store import COLUMNS_FILE

T = TypeVar("T")
CHUNK = 1 << 16
"""Candidates computed at a time: the memory of a build is bounded by this and the tables of past events."""
THREADS = 2
"""Threads that families are computed on."""
_WAITING = 2  # chunks that are completed while the past moves on
_BLOCK = 16  # candidates laid out together: their rows stay in the processor's first cache
_BEGINNING = np.iinfo(np.int64).min
_STEP = 1 << 16  # impressions of a timeline that are walked over at a time where nothing is asked


class Checkpoints:
    """The past at some moments, kept: what is asked later walks on from the last one before it.

    For one request at a time, each at another moment of the log. To keep them takes one pass along the log and at
    most ``room`` bytes; they lie equally many impressions apart, the closer the less there is to hold. Where there
    is no room for one, none is kept.

    Args:
        context: the past.
        since: the earliest moment to keep; what is asked before it walks from the beginning.
        room: bytes to keep them in.
        most: how many are kept at most.
    """

    def __init__(self, context: FeatureContext, since: int, room: int = 1 << 28, most: int = 64) -> None:
        self.context = context
        self._times: list[int] = []
        self._walks: list[EventCursor] = []
        one, times = context.log.between(0, 1), context.inviews.time
        walk, rows = EventCursor(context, one), np.zeros(0, np.int64)
        members = [entry for entry in families() if entry.walk != "slate"]
        place = int(np.searchsorted(times, since))
        while place < len(times):
            moment = _blank(members, rows, _nothing_at(one, int(times[place])), [])
            for entry in members:
                _fill(entry, moment, context, walk)
            left = min(room // max(walk.nbytes, 1), most) - len(self._times)  # fewer than before where tables grew
            if left < 1:
                break
            self._times.append(int(times[place]))
            self._walks.append(walk.copy(one))
            place += -(-(len(times) - place) // left)

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._times)

    def before(self, queries: Slates) -> tuple[int, EventCursor]:
        """Return the last one before all of some queries, and a walk that goes on from it."""
        earliest = int(queries.time.min(initial=np.iinfo(np.int64).max))
        place = int(np.searchsorted(self._times, earliest, side="right")) - 1
        if place < 0 or not len(queries):
            return _BEGINNING, EventCursor(self.context, queries)
        return self._times[place], self._walks[place].copy(queries)


@dataclass(frozen=True)
class FeatureChunk:
    """Some slates and their features.

    Attributes:
        rows: int64 (n,), their positions in the queries, in order of time.
        slates: the slates, with no click known.
        places: by name of a column, its row of ``table``.
        table: float32 (columns, m).
    """

    rows: np.ndarray
    slates: Slates
    places: dict[str, int]
    table: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """Return one column: float32 (m,)."""
        return self.table[self.places[name]]

    def matrix(self, names: list[str]) -> np.ndarray:
        """Return columns as float32 (m, len(names)), in the order of ``names``."""
        out = np.empty((self.slates.candidates, len(names)), np.float32)
        self.lay_out(names, out, np.arange(len(out)))
        return out

    def lay_out(
        self, names: list[str], out: np.ndarray, where: np.ndarray, candidates: np.ndarray | None = None
    ) -> None:
        """Write columns into an array of rows.

        Args:
            names: the columns wanted, in the order wanted.
            out: float32 or float16 (rows, len(names)), which is written to. Float16 holds eleven digits of a binary
                number, and ±65,504 where a value is larger.
            where: int64, the row of each candidate.
            candidates: int64, those that are written; all m of them if not given.
        """
        every = np.arange(self.slates.candidates) if candidates is None else candidates
        places = np.array([self.places[name] for name in names], dtype=np.int64)
        if out.dtype == np.float16:
            _lay_out_half(self.table.view(np.uint32), places, every, where, out.view(np.uint16))
        else:
            _lay_out(self.table, places, every, where, out)


def compute_features(
    queries: Slates,
    context: FeatureContext,
    names: list[str],
    chunk: int = CHUNK,
    threads: int = THREADS,
    then: Callable[["FeatureChunk"], None] = lambda _: None,
    checkpoints: "Checkpoints | None" = None,
) -> Iterator[FeatureChunk]:
    """Yield features of every candidate, a chunk at a time in order of time; a chunk is all that is held.

    What is yielded holds until the next is asked for: its table is used again.

    Args:
        queries: the slates; their own clicks are hidden from the feature functions.
        context: the past.
        names: the columns wanted; those that they are computed from come with them.
        chunk: candidates at a time; figures do not depend on it.
        threads: to compute on; figures do not depend on it.
        then: called with each chunk before it is yielded, on the thread that completed it, as for writing it down;
            maybe with two chunks at the same time.
        checkpoints: of the same world, to walk on from; from the beginning if not given.

    Raises:
        ValueError: a function returns an array of another shape than its chunk has.
    """
    members = _needed(names)
    first = [entry for entry in members if entry.walk != "slate"]
    second = [entry for entry in members if entry.walk == "slate"]
    hidden = queries.without_clicks()
    since, walk = (_BEGINNING, EventCursor(context, queries)) if checkpoints is None else checkpoints.before(queries)
    tables: list[np.ndarray] = []  # to be used again: fresh memory costs more than what is written to it
    # What families share is made before there are threads, by asking each for nothing.
    rows = np.zeros(0, np.int64)
    nothing = _blank(members, rows, hidden.take(rows), [])
    for entry in first:
        _fill(entry, nothing, context, walk)
    pool = _Pool(threads)
    try:
        for moment in _steps_before(queries, context, since):
            step = _blank(members, rows, moment, [])
            pool.all([pool.run(_fill, entry, step, context, walk) for entry in first])
        waiting: deque[Future[FeatureChunk]] = deque()
        for rows in queries.chunks(queries.by_time, chunk):
            part = _blank(members, rows, hidden.take(rows), tables)
            tasks = [pool.run(_fill, entry, part, context, walk) for entry in first]
            if len(waiting) == _WAITING:
                done = waiting.popleft().result()
                yield done
                tables.append(done.table)
            pool.all(tasks)
            waiting.append(pool.run(_completed, second, part, context, walk, then))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.close()


class _Pool:
    """Runs functions on threads, or at once where there is to be one only."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None

    def run(self, function: Callable[..., T], *arguments: object) -> "Future[T]":
        """Return what a function returns, maybe later."""
        if self._threads is not None:
            return self._threads.submit(function, *arguments)
        done: Future[T] = Future()
        done.set_result(function(*arguments))
        return done

    def all(self, tasks: "list[Future[None]]") -> None:
        """Wait for some tasks; raises what one of them raised."""
        for task in tasks:
            task.result()

    def close(self) -> None:
        """Wait for what runs; drop what has not begun."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)


def build(
    queries: Slates,
    context: FeatureContext,
    out: np.ndarray,
    progress: Callable[[float], None] | None = None,
    chunk: int = CHUNK,
    slate_only: bool = False,
    checkpoints: "Checkpoints | None" = None,
) -> list[str]:
    """Fill ``out`` with every registered feature of every candidate.

    Args:
        queries: the slates; their own clicks are hidden from the feature functions.
        context: the past.
        out: float array (candidates, columns in registry order), in the order of ``queries``.
        progress: called with the share done.
        chunk: candidates at a time; figures do not depend on it.
        slate_only: fill only what depends on the slate, the families of the ``slate`` walk; the columns of the other
            walks, which do not depend on it, stand in ``out`` already. For candidates put into other slates.
        checkpoints: of the same world, to walk on from; figures do not depend on it.

    Returns:
        The column names, in the order of ``out``'s columns.

    Raises:
        ValueError: ``out`` has another shape, or a function returns one.
    """
    names = [column.name for column in every_column()]
    if out.shape != (queries.candidates, len(names)):
        raise ValueError(f"out has shape {out.shape}, expected {(queries.candidates, len(names))}")
    done = 0
    if slate_only:
        parts = _slate_only(queries, context, names, out, chunk)
    else:
        parts = compute_features(queries, context, names, chunk, checkpoints=checkpoints)
    for part in parts:
        part.lay_out(names, out, candidate_rows(queries.offsets, part.rows))
        done += part.slates.candidates
        if progress is not None:
            progress(done / queries.candidates)
    return names


@njit(cache=True, nogil=True)
def _lay_out(columns, places, candidates, where, out):  # type: ignore[no-untyped-def]
    rows = np.empty((_BLOCK, len(places)), columns.dtype)
    for begin in range(0, len(where), _BLOCK):
        end = min(begin + _BLOCK, len(where))
        for at in range(len(places)):
            for place in range(begin, end):
                rows[place - begin, at] = columns[places[at], candidates[place]]
        for place in range(begin, end):
            row = where[place]
            for at in range(len(places)):
                out[row, at] = rows[place - begin, at]


@njit(cache=True, nogil=True)
def _lay_out_half(columns, places, candidates, where, out):  # type: ignore[no-untyped-def]
    rows = np.empty((_BLOCK, len(places)), columns.dtype)
    for begin in range(0, len(where), _BLOCK):
        end = min(begin + _BLOCK, len(where))
        for at in range(len(places)):
            for place in range(begin, end):
                rows[place - begin, at] = columns[places[at], candidates[place]]
        for place in range(begin, end):
            halve(rows[place - begin], out[where[place]])


@njit(cache=True, nogil=True)
def halve(values, out):  # type: ignore[no-untyped-def]
    """Round the bits of float32 values to those of float16, halves to even; what is too large becomes the largest.

    uint32 (n,) to uint16 (n,).
    """
    for place in range(len(values)):
        sign, bits = (values[place] >> 16) & np.uint32(0x8000), values[place] & np.uint32(0x7FFFFFFF)
        if bits > 0x7F800000:
            half = np.uint32(0x7E00)  # NaN
        elif bits >= 0x477FF000:
            half = np.uint32(0x7BFF)
        elif bits >= 0x38800000:
            half = (bits - np.uint32(0x38000000) + np.uint32(0xFFF) + ((bits >> 13) & np.uint32(1))) >> 13
        elif bits >= 0x33000000:  # subnormal: shift the whole significand down
            shift = np.uint32(126) - (bits >> 23)
            whole = (bits & np.uint32(0x7FFFFF)) | np.uint32(0x800000)
            half = whole >> shift
            rest, middle = whole & ((np.uint32(1) << shift) - np.uint32(1)), np.uint32(1) << (shift - np.uint32(1))
            half += np.uint32(rest > middle or (rest == middle and half & np.uint32(1)))
        else:
            half = np.uint32(0)
        out[place] = sign | half


def _slate_only(
    queries: Slates, context: FeatureContext, names: list[str], out: np.ndarray, chunk: int
) -> Iterator[FeatureChunk]:
    """Yield what ``compute_features`` does, with the columns of the other walks as they stand in ``out``."""
    hidden, walk = queries.without_clicks(), EventCursor(context, queries)
    members = families()
    for rows in queries.chunks(np.arange(len(queries)), chunk):
        part = _blank(members, rows, hidden.take(rows), [])
        part.table[:] = out[candidate_rows(queries.offsets, rows)].T
        yield _completed([entry for entry in members if entry.walk == "slate"], part, context, walk, lambda _: None)


def _blank(members: list[Family], rows: np.ndarray, slates: Slates, tables: list[np.ndarray]) -> FeatureChunk:
    """Return slates with room for the columns of some families, in a former table of ``tables`` if one is as large."""
    names = [column.name for entry in members for column in entry.columns]
    size = len(names) * slates.candidates
    former = tables.pop().base if tables else None
    room = former if former is not None and len(former) >= size else np.empty(size + size // 8, np.float32)
    table = room[:size].reshape(len(names), slates.candidates)
    return FeatureChunk(rows, slates, {name: place for place, name in enumerate(names)}, table)


def _fill(entry: Family, part: FeatureChunk, context: FeatureContext, walk: EventCursor) -> None:
    """Compute the columns of a family, in the order of its walk, for slates in order of time."""
    slates, where = part.slates, None
    if entry.walk == "user":
        order = _by_user(slates)
        slates, where = slates.take(order), candidate_rows(slates.offsets, order)
    values = entry.compute(Chunk(slates, context, walk, {name: part.column(name) for name in entry.reads}))
    if values.shape != (slates.candidates, len(entry.columns)):
        raise ValueError(f"feature family {entry.name} returned {values.shape} for {slates.candidates} candidates")
    for place, column in enumerate(entry.columns):
        if where is None:
            part.column(column.name)[:] = values[:, place]
        else:
            part.column(column.name)[where] = values[:, place]


def _completed(
    members: list[Family],
    part: FeatureChunk,
    context: FeatureContext,
    walk: EventCursor,
    then: Callable[[FeatureChunk], None],
) -> FeatureChunk:
    """Return slates with the columns of the slate walk filled in too."""
    for entry in members:
        _fill(entry, part, context, walk)
    then(part)
    return part


def _steps_before(queries: Slates, context: FeatureContext, since: int) -> Iterator[Slates]:
    """Yield slates without candidates, at steps of the timeline before the first query: they only move a walk on."""
    if not len(queries):
        return
    one, times = queries.take(queries.by_time[:1]), context.inviews.time
    for place in range(int(np.searchsorted(times, since)), int(np.searchsorted(times, one.time[0])), _STEP):
        yield _nothing_at(one, int(times[place]))


def _nothing_at(one: Slates, time: int) -> Slates:
    """Return an impression at a time, without candidates: it only moves a walk on."""
    nothing = {name: getattr(one, name)[:0] for name in ("article_id", "article", "clicked")}
    return replace(one, time=np.array([time]), offsets=np.zeros(2, np.int64), **nothing)


def _needed(names: list[str]) -> list[Family]:
    """Return the families that some columns come from, and those that these read, in order of registration."""
    wanted, found = set(names), []
    for entry in reversed(families()):
        if wanted & {column.name for column in entry.columns}:
            wanted |= set(entry.reads)
            found.append(entry)
    return found[::-1]


def _by_user(slates: Slates) -> np.ndarray:
    """Return rows user by user and week by week, each user's in order of time."""
    return np.lexsort((slates.time, slates.user, slates.week))


def write_features(
    dataset: Dataset,
    folder: Path,
    progress: Callable[[float], None] | None = None,
    half: bool = False,
    leave_out: Sequence[str] = (),
    chunk: int = CHUNK,
    threads: int = THREADS,
) -> None:
    """Compute the features of all parts in one pass, straight into files that can be mapped into memory.

    Args:
        dataset: the slates.
        folder: to write into.
        progress: called with the share done.
        half: store float16, half the space: values keep eleven binary digits and end at ±65,504.
        leave_out: columns, and groups of columns, that are not stored.
        chunk: candidates at a time; the files do not depend on it.
        threads: to compute on; the files do not depend on it.

    Raises:
        OSError: there is not enough space for them.
        ConfigError: a name to leave out is neither a column nor a group, or nothing would be left.
    """
    left_out = columns_named(leave_out)
    columns = [column for column in every_column() if column.name not in left_out]
    if not columns:
        raise ConfigError(f"leave_out: all {len(left_out)} columns are left out. Leave some in.")
    names = [column.name for column in columns]
    kind = np.float16 if half else np.float32
    with ExitStack() as opened:
        first, files = 0, []
        for part, slates in dataset.parts.items():
            file = _Rows(folder / f"features_{part}.npy", slates.candidates, len(names), kind)
            files.append((first, slates, opened.enter_context(file)))
            first += len(slates)

        def put(described: FeatureChunk) -> None:
            for first, slates, file in files:
                rows = described.rows - first
                inside = (rows >= 0) & (rows < len(slates))
                if inside.any():
                    mine = np.flatnonzero(described.slates.per_candidate(inside))
                    matrix = np.empty((len(mine), len(names)), kind)
                    described.lay_out(names, matrix, np.arange(len(mine)), mine)
                    file.put(candidate_rows(slates.offsets, rows[inside]), matrix)

        done = 0
        for described in compute_features(
            dataset.log, feature_context(dataset), names, chunk, threads=threads, then=put
        ):
            done += described.slates.candidates
            if progress is not None:
                progress(done / dataset.log.candidates)
    text = json.dumps([vars(column) for column in columns], indent=1, ensure_ascii=False)
    (folder / COLUMNS_FILE).write_text(text + "\n")


class _Rows:
    """A file of rows, written piece by piece from any thread: what ``np.save`` writes of a matrix.

    Args:
        path: file to write.
        rows: how many there will be.
        columns: numbers in a row.
        kind: of the numbers.

    Raises:
        OSError: there is not enough space.
    """

    def __init__(self, path: Path, rows: int, columns: int, kind: type[np.generic]) -> None:
        self._path, self._width = path, columns * np.dtype(kind).itemsize
        self._stream = path.open("wb", buffering=0)
        about = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False}
        with self._named():
            np.lib.format.write_array_header_1_0(self._stream, {**about, "shape": (rows, columns)})
            self._start = self._stream.tell()
            self._stream.truncate(self._start + rows * self._width)

    def put(self, where: np.ndarray, matrix: np.ndarray) -> None:
        """Write rows to their places: int64 (m,), (m, columns). Those that follow each other are written at once."""
        ends = np.concatenate((np.flatnonzero(np.diff(where) != 1) + 1, [len(where)])).tolist()
        bytes_, begin = matrix.reshape(-1).view(np.uint8).data, 0
        for end in ends:
            piece, at = bytes_[begin * self._width : end * self._width], self._start + int(where[begin]) * self._width
            while piece:
                with self._named():
                    written = os.pwrite(self._stream.fileno(), piece, at)
                piece, at = piece[written:], at + written
            begin = end

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let errors of the system name the file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def __enter__(self) -> "_Rows":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
