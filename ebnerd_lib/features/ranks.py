"""Where the values of a column stand within their slates."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def relative(values, offsets):
    """Place a column's values within their slates.

    Returns float32 (candidates, 3): the average rank scaled to 0 (lowest) to 1 (highest), ties sharing their
    mean, .5 for all in a slate of one; the ratio to the slate's mean, 1 where that mean is 0; and the difference
    from the slate's largest value, at most 0. NaNs stay NaN and are left out of ranks, means and maxima.
    """
    out = np.full((len(values), 3), np.nan, dtype=np.float32)
    for row in range(len(offsets) - 1):
        begin, end = offsets[row], offsets[row + 1]
        total, known = 0.0, 0
        for i in range(begin, end):
            if not np.isnan(values[i]):
                total += values[i]
                known += 1
        if known == 0:
            continue
        order = np.argsort(values[begin:end])  # NaNs last
        best = values[begin + order[known - 1]]
        at = 0
        while at < known:
            stop = at + 1
            while stop < known and values[begin + order[stop]] == values[begin + order[at]]:
                stop += 1
            rank = 0.5 if known == 1 else (at + stop - 1) / 2 / (known - 1)
            for tied in range(at, stop):
                i = begin + order[tied]
                out[i, 0] = rank
                out[i, 1] = values[i] * known / total if total != 0 else 1.0
                out[i, 2] = values[i] - best
            at = stop
    return out
