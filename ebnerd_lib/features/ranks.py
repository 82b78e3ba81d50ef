"""Where the values of a column stand within their slates."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit

_SHORT = 64  # values of which each is faster compared with all than all are sorted


@njit(cache=True, nogil=True)
def relative(values, offsets):
    """Place a column's values within their slates.

    Returns float32 (2, candidates): the average rank scaled to 0 (lowest) to 1 (highest), ties sharing their
    mean, .5 for all in a slate of one; and the ratio to the slate's mean, 1 where that mean is 0. NaNs stay NaN and
    are left out of ranks and means.
    """
    out = np.full((2, len(values)), np.nan, dtype=np.float32)
    for row in range(len(offsets) - 1):
        own = values[offsets[row] : offsets[row + 1]]
        total, known = 0.0, 0
        for value in own:
            if not np.isnan(value):
                total += value
                known += 1
        ordered = np.sort(own) if len(own) > _SHORT else own
        for place in range(len(own)):
            value = own[place]
            if np.isnan(value):
                continue
            at, stop = _place(value, own) if len(own) <= _SHORT else _found(value, ordered[:known])
            out[0, offsets[row] + place] = 0.5 if known == 1 else (at + stop - 1) / 2 / (known - 1)
            out[1, offsets[row] + place] = value * known / total if total != 0 else 1.0
    return out


@njit(cache=True, nogil=True)
def behind(values, offsets):
    """Return each value less the largest of its slate, at most 0: float32 (candidates,). NaNs stay NaN."""
    out = np.empty(len(values), dtype=np.float32)
    for row in range(len(offsets) - 1):
        best = np.float32(-np.inf)
        for i in range(offsets[row], offsets[row + 1]):
            if values[i] > best:
                best = values[i]
        for i in range(offsets[row], offsets[row + 1]):
            out[i] = values[i] - best if not np.isnan(values[i]) else np.nan
    return out


@njit(cache=True, nogil=True)
def _place(value, values):
    """Return how many values are smaller, and how many are not larger."""
    at = stop = np.int32(0)
    for other in values:
        at += np.int32(other < value)
        stop += np.int32(other <= value)
    return at, stop


@njit(cache=True, nogil=True)
def _found(value, ordered):
    """Return what ``_place`` does, of values in ascending order without NaN."""
    return np.int32(np.searchsorted(ordered, value)), np.int32(np.searchsorted(ordered, value, side="right"))
