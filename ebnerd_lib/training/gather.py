"""Rows of a matrix and their columns, copied once: what a batch takes from arrays that lie on disk."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
import torch
from numba import njit

_BITS = {2: np.uint16, 4: np.uint32}


def gather(matrix: np.ndarray, where: np.ndarray, columns: np.ndarray | None = None) -> np.ndarray:
    """Copy some columns of some rows of a matrix: float32 (len(where), columns).

    Args:
        matrix: float32 or float16 (rows, columns), memory-mapped or not.
        where: int (m,), rows in any order.
        columns: int64, positions of the columns; all if not given.

    >>> gather(np.array([[1.0, 2.0], [3.0, 4.0]], np.float16), np.array([1, 1, 0]), np.array([1]))
    array([[4.],
           [4.],
           [2.]], dtype=float32)
    """
    if columns is None or np.array_equal(columns, np.arange(matrix.shape[1])):
        values = np.take(matrix, where, axis=0, mode="clip")  # the other modes copy twice
    else:
        # The kernel knows no float16, and copying needs no more than the bits.
        bits = np.asarray(matrix).view(_BITS[matrix.dtype.itemsize])
        out = np.empty((len(where), len(columns)), bits.dtype)
        _copy(bits, where, columns, out)
        values = out.view(matrix.dtype)
    # Torch turns halves into floats with the processor's own instruction, numpy one by one.
    return values if values.dtype == np.float32 else torch.from_numpy(values).float().numpy()


@njit(cache=True, nogil=True)
def _copy(matrix, where, columns, out):
    # Positions without a sign spare a branch a value.
    for i in range(len(where)):
        row = np.uint64(where[i])
        for j in range(np.uint64(len(columns))):
            out[i, j] = matrix[row, np.uint64(columns[j])]


@njit(cache=True, nogil=True)
def spread(offsets, rows, index, article, clicked):
    """Spread the slates ``rows`` over their candidates.

    Returns their positions, which of the slates each belongs to, its place within that, the article by ``index``
    (int64 each), and whether it was clicked (float32).
    """
    size = 0
    for row in rows:
        size += offsets[row + 1] - offsets[row]
    where, slate, place, own = (
        np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    )  # fmt: skip
    hit = np.empty(size, np.float32)
    at = 0
    for number in range(len(rows)):
        begin = offsets[rows[number]]
        for candidate in range(begin, offsets[rows[number] + 1]):
            where[at], slate[at], place[at] = candidate, number, candidate - begin
            own[at] = index[article[candidate]]
            hit[at] = clicked[candidate]
            at += 1
    return where, slate, place, own, hit
