"""Official metrics, per impression and then the mean over impressions, as pure functions of arrays.

For all of them: ``scores`` and ``clicked`` are flat over candidates and ``offsets`` marks the slates. Tied scores
get the expected value over all orders of the tied candidates, so a constant scorer scores what a random one
does in expectation. A slate without a click, or with nothing but clicks, has no ranking to judge: its figures
are NaN, and means leave it out.
"""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit

METRICS = ("auc", "mrr", "ndcg@5", "ndcg@10")
_CUTS = (5, 10)
_AT_A_TIME = 1 << 17  # slates: memory is bounded by these, not by all


def per_slate(scores: np.ndarray, clicked: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Compute every metric of every slate.

    With P clicks and N other candidates in a slate:

    - AUC = (sum of the clicks' ascending ranks − P(P + 1)/2) / (P · N), ties ranked by their average
      (Mann and Whitney, 1947).
    - MRR = mean over the clicks of 1 / rank, rank 1 the highest score.
    - nDCG@k = DCG@k / ideal DCG@k with gain 1 for a click and discount 1 / log2(rank + 1)
      (Järvelin and Kekäläinen, 2002).

    Args:
        scores: float (m,), finite.
        clicked: bool (m,).
        offsets: int64 (n + 1,).

    Returns:
        float64 (n, 4) in the order of ``METRICS``; NaN rows for slates that cannot be judged.

    Raises:
        ValueError: the lengths do not fit, or a score is not finite.

    Examples:
        >>> per_slate(np.array([3.0, 1.0, 2.0]), np.array([False, False, True]), np.array([0, 3])).round(3)
        array([[0.5  , 0.5  , 0.631, 0.631]])
        >>> per_slate(np.zeros(3), np.array([True, False, False]), np.array([0, 3])).round(3)
        array([[0.5  , 0.611, 0.71 , 0.71 ]])
        >>> per_slate(np.zeros(2), np.array([False, False]), np.array([0, 2]))
        array([[nan, nan, nan, nan]])
    """
    if not len(scores) == len(clicked) == offsets[-1]:
        raise ValueError(f"{len(scores)} scores and {len(clicked)} labels for {offsets[-1]} candidates")
    longest = int(np.diff(offsets).max(initial=1))
    discounts = 1.0 / np.log2(np.arange(2, longest + 2))
    out = np.full((len(offsets) - 1, len(METRICS)), np.nan)
    wrong = 0
    for start in range(0, len(out), _AT_A_TIME):
        own = np.array(offsets[start : start + _AT_A_TIME + 1], dtype=np.int64)
        # Copies: one kernel for all callers, whatever the width of their scores and whether they may be written.
        some = np.array(scores[own[0] : own[-1]], dtype=np.float64)
        wrong += int((~np.isfinite(some)).sum())
        labels = np.array(clicked[own[0] : own[-1]], dtype=np.bool_)
        out[start : start + len(own) - 1] = _per_slate(some, labels, own - own[0], discounts)
    if wrong:
        raise ValueError(f"{wrong} of {len(scores)} scores are not finite")
    return out


def mean_metrics(values: np.ndarray) -> dict[str, float]:
    """Average the rows of ``per_slate`` that could be judged; NaN where there are none."""
    judged = values[~np.isnan(values[:, 0])]
    return {name: float(judged[:, i].mean()) if len(judged) else float("nan") for i, name in enumerate(METRICS)}


@njit(cache=True, nogil=True)
def _per_slate(scores, clicked, offsets, discounts):
    slates = len(offsets) - 1
    out = np.full((slates, 4), np.nan)
    for row in range(slates):
        begin, end = offsets[row], offsets[row + 1]
        size = end - begin
        clicks = 0
        for i in range(begin, end):
            clicks += clicked[i]
        if clicks == 0 or clicks == size:
            continue
        order = np.argsort(-scores[begin:end])
        wins = reciprocal = 0.0
        gain = np.zeros(2)
        at = 0
        while at < size:
            stop = at + 1
            hits = int(clicked[begin + order[at]])
            while stop < size and scores[begin + order[stop]] == scores[begin + order[at]]:
                hits += clicked[begin + order[stop]]
                stop += 1
            # Each of the tied candidates is equally likely at each of the places at + 1 to stop.
            if hits:
                width = stop - at
                wins += hits * ((size - stop) + (width - 1) / 2)
                share = hits / width
                for place in range(at, stop):
                    reciprocal += share / (place + 1)
                    for c in range(2):
                        if place < _CUTS[c]:
                            gain[c] += share * discounts[place]
            at = stop
        others = size - clicks
        out[row, 0] = (wins - clicks * (clicks - 1) / 2) / (clicks * others)
        out[row, 1] = reciprocal / clicks
        for c in range(2):
            ideal = 0.0
            for place in range(min(clicks, _CUTS[c])):
                ideal += discounts[place]
            out[row, 2 + c] = gain[c] / ideal
    return out
