"""One mapping from raw ids to indices; the tables of a dataset lead back."""

import numpy as np
from numba import njit

from ebnerd_lib.data import slates

_TABLE_LIMIT = 1 << 26


class Vocabulary:
    """Sorted distinct ids, int32 or uint32, at the indices 1..n; index 0 is every id that is not among them.

    Examples:
        >>> vocabulary = Vocabulary(np.array([30, 10], dtype=np.int32))
        >>> vocabulary.index_of(np.array([10, 20, 30]))
        array([1, 0, 2], dtype=int32)
    """

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = distinct(ids)
        self._table: np.ndarray | None = None
        if len(self.ids) and int(self.ids[-1]) - int(self.ids[0]) < _TABLE_LIMIT:
            # A direct table is ten times as fast as a binary search, and published ids are dense enough.
            self._table = np.zeros(int(self.ids[-1]) - int(self.ids[0]) + 1, dtype=np.int32)
            self._table[self.ids.astype(np.int64) - int(self.ids[0])] = np.arange(1, len(self.ids) + 1)

    def __len__(self) -> int:
        """Return the number of indices in use: the ids and the unknown."""
        return len(self.ids) + 1

    def index_of(self, ids: np.ndarray) -> np.ndarray:
        """Return the int32 index of each id, 0 where the id is unknown."""
        ids = np.asarray(ids)
        out = slates.large_zeros(ids.shape, np.int32)
        if self._table is not None and ids.dtype.kind in "iu":
            _look_up(ids.ravel(), int(self.ids[0]), self._table, out.ravel())
        else:
            wide, known = ids.astype(np.int64), np.append(self.ids.astype(np.int64), np.iinfo(np.int64).max)
            place = np.searchsorted(known, wide)
            out[...] = np.where(known[place] == wide, place + 1, 0)
        return out


def distinct(ids: np.ndarray) -> np.ndarray:
    """Return each id once, in ascending order: what ``np.unique`` returns, by a sort, which is faster on integers."""
    ordered = np.sort(ids)
    return ordered[np.concatenate((ordered[:1] == ordered[:1], ordered[1:] != ordered[:-1]))]


@njit(cache=True, nogil=True)
def _look_up(ids, first, table, out):  # type: ignore[no-untyped-def]
    for place in range(len(ids)):
        at = np.int64(ids[place]) - first
        out[place] = table[at] if 0 <= at < len(table) else 0
