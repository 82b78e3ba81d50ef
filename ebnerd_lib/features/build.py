"""Compute registered features of slates in one pass along the log, chunk by chunk, on two threads; write and read them.

``queries`` are the slates to describe; the ``FeatureContext`` holds the past events they may look at. In preprocessing
both come from the same log; for a recommendation the queries are slates that nobody was shown.

Chunks come in order of time. While the columns of one chunk that depend on its slates are computed, the past moves on
to the next chunk. Each family runs on one thread at a time and sees the chunks in order, so values depend neither on
the number of threads nor on the size of a chunk.
"""

import io
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates, candidate_rows
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.features import catalogue as catalogue  # registers the features
from ebnerd_lib.features.context import Chunk, EventCursor, FeatureContext, feature_context
from ebnerd_lib.features.registry import FAMILIES, Family, columns_named, every_column

COLUMNS_FILE = "features.json"
CHUNK = 1 << 16  # candidates computed at a time: this and the tables of past events bound the memory of a build
THREADS = 2  # that families are computed on
_WAITING = 2  # chunks that are completed while the past moves on


@dataclass(frozen=True)
class Features:
    """The features of a part, or of a chunk of slates."""

    matrix: np.ndarray  # float32 or float16 (candidates, columns) in the order of the slates; of a part memory-mapped
    columns: list[str]  # names
    log_chance: np.ndarray | None = None  # float32 (candidates,), where slates are samples: of the candidate's chance

    def column(self, name: str) -> np.ndarray:
        """Return one column, float32 (candidates,). Raises ``StageError`` where there is none of that name."""
        if name not in self.columns:
            raise StageError(
                f"feature '{name}' is not among the {len(self.columns)} that 01_preprocess wrote. See that its "
                "parameter leave_out does not name it, and run it again."
            )
        return self.matrix[:, self.columns.index(name)].astype(np.float32)

    def select(self, names: list[str]) -> np.ndarray:
        """Return columns in the order of ``names``: (candidates, len(names))."""
        if names == self.columns:
            return self.matrix
        return np.take(self.matrix, np.array([self.columns.index(name) for name in names], dtype=np.int64), axis=1)


class Checkpoints:
    """The past at some moments, kept: what is asked later walks on from the last one before it.

    For one request at a time, each at another moment of the log. To keep them takes one pass along the log and at
    most ``room`` bytes; at most ``most`` lie equally many impressions apart, the closer the less there is to hold.
    Where there is no room for one, none is kept. What is asked before ``since`` walks from the beginning.
    """

    def __init__(self, context: FeatureContext, since: int, room: int = 1 << 28, most: int = 64) -> None:
        self.context = context
        self._times: list[int] = []
        self._walks: list[EventCursor] = []
        one, times = context.log.between(0, 1), context.log.time
        walk, along = EventCursor(context), [entry for entry in FAMILIES if not entry.reads]
        nothing, place = one.keep(np.zeros(one.candidates, bool)), int(np.searchsorted(times, since))
        while place < len(times):
            for entry in along:
                _compute(entry, replace(nothing, time=times[place : place + 1]), walk)
            left = min(room // max(walk.nbytes, 1), most) - len(self._times)  # fewer than before where tables grew
            if left < 1:
                break
            self._times.append(int(times[place]))
            self._walks.append(walk.copy())
            place += -(-(len(times) - place) // left)

    def before(self, queries: Slates) -> EventCursor:
        """Return a walk that goes on from the last one before all of some queries."""
        earliest = int(queries.time.min(initial=np.iinfo(np.int64).max))
        place = int(np.searchsorted(self._times, earliest, side="right")) - 1
        return EventCursor(self.context) if place < 0 else self._walks[place].copy()


def compute_features(
    queries: Slates, context: FeatureContext, names: list[str], checkpoints: Checkpoints | None = None
) -> Iterator[tuple[np.ndarray, Slates, Features]]:
    """Yield features of every candidate, a chunk at a time in order of time; some chunks are all that is held.

    A chunk is the positions of its slates in the queries, int64 (n,), the slates without clicks, and their features.

    The queries' own clicks are hidden from the feature functions. Columns that the wanted ones are computed from come
    with them. Checkpoints are of the same past, to walk on from; without any the walk starts at its beginning.

    Raises:
        ValueError: a function returns an array of another shape than its chunk has.
    """
    members = _needed(names)
    along = [entry for entry in members if not entry.reads]
    hidden = queries.without_clicks()
    walk = EventCursor(context) if checkpoints is None else checkpoints.before(queries)
    nothing = hidden.take(np.zeros(0, np.int64))
    for entry in along:  # what families share is made before there are threads
        _compute(entry, nothing, walk)
    with ThreadPoolExecutor(THREADS) as pool:
        waiting: deque[Future[tuple[np.ndarray, Slates, Features]]] = deque()
        for rows in queries.chunks(queries.by_time, CHUNK):
            slates = hidden.take(rows)
            tasks = [pool.submit(_compute, entry, slates, walk) for entry in along]
            if len(waiting) == _WAITING:
                yield waiting.popleft().result()
            values = {entry: task.result() for entry, task in zip(along, tasks, strict=True)}
            waiting.append(pool.submit(_completed, members, rows, slates, values, walk))
        while waiting:
            yield waiting.popleft().result()


def build(queries: Slates, context: FeatureContext, checkpoints: Checkpoints | None = None) -> np.ndarray:
    """Return all registered features, see ``compute_features``: float32 (candidates, columns in registry order)."""
    names = [column.name for column in every_column()]
    out = np.empty((queries.candidates, len(names)), np.float32)
    for rows, _, features in compute_features(queries, context, names, checkpoints):
        out[candidate_rows(queries.offsets, rows)] = features.matrix
    return out


def write_features(
    dataset: Dataset,
    folder: Path,
    progress: Callable[[float], None] = lambda _: None,
    half: bool = False,
    leave_out: Sequence[str] = (),
) -> None:
    """Compute the features of all parts in one pass, straight into files that can be mapped into memory.

    Those that say nothing of the dataset are not stored, see ``catalogue.left_out``.

    Args:
        dataset: the slates, those of each part in order of time.
        folder: to write into.
        progress: called with the share done.
        half: store float16, half the space: values keep eleven binary digits and end at ±65,504.
        leave_out: columns, and groups of columns, that are not stored.

    Raises:
        OSError: there is not enough space for them.
        ConfigError: a name to leave out is neither a column nor a group, or nothing would be left.
    """
    left_out = columns_named(leave_out).union(*catalogue.left_out(dataset).values())
    columns = [column for column in every_column() if column.name not in left_out]
    if not columns:
        raise ConfigError(f"leave_out: all {len(left_out)} columns are left out. Leave some in.")
    names = [column.name for column in columns]
    kind = np.dtype(np.float16 if half else np.float32)
    ends, done = np.cumsum([0, *(slates.candidates for slates in dataset.parts.values())]).tolist(), 0
    with ExitStack() as opened:
        files = []
        for part, slates in dataset.parts.items():
            files.append(opened.enter_context((folder / f"features_{part}.npy").open("wb", buffering=0)))
            about = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False}
            np.lib.format.write_array_header_1_0(files[-1], {**about, "shape": (slates.candidates, len(names))})
        for _, _, features in compute_features(dataset.log, feature_context(dataset), names):
            matrix = halves(features.select(names)) if half else features.select(names)
            # Parts and chunks are both in order of time, so each chunk goes on where its parts' files end.
            for file, (start, stop) in zip(files, pairwise(ends), strict=True):
                _append(file, matrix[max(start - done, 0) : max(stop - done, 0)])
            done += len(matrix)
            progress(done / dataset.log.candidates)
    text = json.dumps([vars(column) for column in columns], indent=1, ensure_ascii=False)
    (folder / COLUMNS_FILE).write_text(text + "\n", encoding="utf-8")


def read_features(folder: Path, part: str) -> Features:
    """Map the features of a part. Raises ``StageError`` where the folder lacks them or holds something else."""
    path = folder / f"features_{part}.npy"
    try:
        columns = json.loads((folder / COLUMNS_FILE).read_text(encoding="utf-8"))
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise StageError(f"{path}: no array of numbers ({error}). Run 01_preprocess for this profile.") from error
    return Features(matrix, [column["name"] for column in columns])


def columns_table(names: Sequence[str]) -> pd.DataFrame:
    """Return what the registry says of some columns: name, tier, group, unit and formula, in order of registration."""
    return pd.DataFrame([vars(column) for column in every_column() if column.name in names])


def halves(values: np.ndarray) -> np.ndarray:
    """Round float32 values to float16, halves to even; what is too large becomes the largest, ±65,504."""
    return np.clip(values, -65_504, 65_504).astype(np.float16)


def _append(file: io.FileIO, matrix: np.ndarray) -> None:
    """Write rows at the end of a file; an error of the system names the file."""
    rest = matrix.reshape(-1).view(np.uint8).data
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file.name)) from None


def _compute(entry: Family, slates: Slates, walk: EventCursor, **read: np.ndarray) -> np.ndarray:
    """Return the columns of a family, which reads others, for slates in order of time: float32 (m, columns)."""
    values = entry.compute(Chunk(slates, walk.context, walk, read)).astype(np.float32, copy=False)
    if values.shape != (slates.candidates, len(entry.columns)):
        raise ValueError(f"{entry.columns[0].name}: an array {values.shape} for {slates.candidates} candidates")
    return values


def _completed(
    members: list[Family], rows: np.ndarray, slates: Slates, values: dict[Family, np.ndarray], walk: EventCursor
) -> tuple[np.ndarray, Slates, Features]:
    """Return slates with the columns of all families, of which the ``values`` of some are known."""
    known: dict[str, np.ndarray] = {}
    for entry in members:
        if entry not in values:
            values[entry] = _compute(entry, slates, walk, **{name: known[name] for name in entry.reads})
        known |= {column.name: values[entry][:, place] for place, column in enumerate(entry.columns)}
    nothing = np.empty((slates.candidates, 0), np.float32)
    table = np.concatenate([nothing, *(values[entry] for entry in members)], axis=1)
    return rows, slates, Features(table, list(known))


def _needed(names: list[str]) -> list[Family]:
    """Return the families that some columns come from, and those that these read, in order of registration."""
    wanted, found = set(names), []
    for entry in reversed(FAMILIES):
        if wanted & {column.name for column in entry.columns}:
            wanted |= set(entry.reads)
            found.append(entry)
    return found[::-1]
