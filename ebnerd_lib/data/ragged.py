"""Rows of different lengths in a file: appended chunk by chunk, fetched by row, so that memory holds a chunk only."""

import mmap
from pathlib import Path
from types import TracebackType

import numpy as np

from ebnerd_lib.data.slates import candidate_rows

_ROWS = 1 << 12  # rows fetched before the memory of the file is let go of


class Ragged:
    """Lists of numbers of one type on disk, in the order in which they were appended.

    Args:
        path: file to write; it is as large as the numbers are.
        dtype: their type.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Ragged(Path(folder) / "lists", np.int32) as lists:
        ...     lists.append(np.array([7, 8, 9]), np.array([2, 0, 1]))
        ...     lists.take(np.array([2, 0]))
        array([9, 7, 8], dtype=int32)
    """

    def __init__(self, path: Path, dtype: type[np.generic]) -> None:
        self._dtype = np.dtype(dtype)
        self._stream = path.open("w+b")
        self._offsets: list[np.ndarray] = [np.zeros(1, np.int64)]
        self._map: mmap.mmap | None = None

    def append(self, values: np.ndarray, lengths: np.ndarray) -> None:
        """Add rows: ``values`` of all, one after the other, and how many each has."""
        self._stream.write(np.ascontiguousarray(values, dtype=self._dtype).data)
        self._offsets.append(self._offsets[-1][-1] + np.cumsum(lengths, dtype=np.int64))

    @property
    def offsets(self) -> np.ndarray:
        """int64 (rows + 1,), where rows begin, and the end."""
        if len(self._offsets) > 1:
            self._offsets = [np.concatenate(self._offsets)]
        return self._offsets[0]

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Return how many numbers each of some rows has: int64 (len(rows),)."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def values(self) -> np.ndarray:
        """Return all numbers as a mapped array, which is read from disk where it is looked at."""
        self._stream.flush()
        if not self._stream.tell():
            return np.zeros(0, self._dtype)
        # Private and writable: kernels are compiled once, for arrays that may be written, and the file stays as it is.
        self._map = mmap.mmap(self._stream.fileno(), 0, access=mmap.ACCESS_COPY)
        return np.frombuffer(self._map, self._dtype)

    def release(self) -> None:
        """Let go of the memory of what was looked at; it is read anew where it is looked at again."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the numbers of some rows, one row after the other."""
        values, offsets, lengths = self.values(), self.offsets, self.lengths(rows)
        found = np.empty(int(lengths.sum()), self._dtype)
        done = 0
        for start in range(0, len(rows), _ROWS):
            some = rows[start : start + _ROWS]
            count = int(lengths[start : start + _ROWS].sum())
            found[done : done + count] = values[candidate_rows(offsets, some)]
            done += count
            self.release()
        return found

    def __enter__(self) -> "Ragged":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
