"""The registry of metrics: official ones and one's own, per impression and then the mean over impressions.

For all of them: ``scores`` and ``clicked`` are flat over candidates and ``offsets`` marks the slates. Tied scores
get the expected value over all orders of the tied candidates, so a constant scorer scores what a random one
does in expectation. A slate without a click, or with nothing but clicks, has no ranking to evaluate: its values
are NaN, and means leave it out.

Adding a metric is one function in this module, decorated with its name::

    @metric("hit@1")
    def hit_at_1(scores, clicked, offsets): ...

``metrics.json``, its intervals and every table of all metrics follow ``METRICS``.
"""

# mypy: disable-error-code="no-untyped-def"

from collections.abc import Callable, Sequence

import numpy as np
from numba import njit

from ebnerd_lib.errors import ConfigError

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

METRICS: list[str] = []
"""Names of all metrics in order of registration, the official ones first."""
_FUNCTIONS: dict[tuple[str, ...], Metric] = {}
_CUTS = (5, 10)
_AT_A_TIME = 1 << 17  # slates: memory is bounded by these, not by all


def metric(name: str, *others: str) -> Callable[[Metric], Metric]:
    """Register a function that computes metrics of slates.

    It is called with ``scores`` float64 (m,), finite, ``clicked`` bool (m,) and ``offsets`` int64 (n + 1,) of slates
    that each have a click and something beside it, and returns float (n, names), or (n,) for one name. What it returns
    has to be finite, and should be larger for a better scorer.

    ``name`` is that of its column, the key in ``metrics.json`` and the head in tables; ``others`` are names of further
    columns, where it computes several at once.

    Raises:
        ConfigError: a name is taken.
    """
    names = (name, *others)

    def register(function: Metric) -> Metric:
        taken = [each for each in names if each in METRICS]
        if taken:
            raise ConfigError(f"metric {', '.join(taken)} is registered twice. Choose another name.")
        _FUNCTIONS[names] = function
        METRICS.extend(names)
        return function

    return register


def per_slate(scores: np.ndarray, clicked: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Compute every metric of every slate, of scores float (m,), finite, clicked bool (m,), offsets int64 (n + 1,).

    Returns:
        float64 (n, metrics) in the order of ``METRICS``; NaN rows for slates that cannot be evaluated.

    Raises:
        ValueError: the lengths do not fit, a score is not finite, or a metric returns what is not finite or not one
            row a slate.

    Examples:
        >>> per_slate(np.array([3.0, 1.0, 2.0]), np.array([False, False, True]), np.array([0, 3]))[:, :4].round(3)
        array([[0.5  , 0.5  , 0.631, 0.631]])
        >>> per_slate(np.zeros(3), np.array([True, False, False]), np.array([0, 3]))[:, :4].round(3)
        array([[0.5  , 0.611, 0.71 , 0.71 ]])
        >>> per_slate(np.zeros(2), np.array([False, False]), np.array([0, 2]))[:, :4]
        array([[nan, nan, nan, nan]])
    """
    if not len(scores) == len(clicked) == offsets[-1]:
        raise ValueError(f"{len(scores)} scores and {len(clicked)} labels for {offsets[-1]} candidates")
    if wrong := len(scores) - int(np.isfinite(scores).sum()):
        raise ValueError(f"{wrong} of {len(scores)} scores are not finite")
    out = np.full((len(offsets) - 1, len(METRICS)), np.nan)
    for start in range(0, len(out), _AT_A_TIME):
        own = np.array(offsets[start : start + _AT_A_TIME + 1], dtype=np.int64)
        # Copies: one kernel for all callers, whatever the width of their scores and whether they may be written.
        some = np.array(scores[own[0] : own[-1]], dtype=np.float64)
        labels = np.array(clicked[own[0] : own[-1]], dtype=np.bool_)
        _evaluate(some, labels, own - own[0], out[start : start + len(own) - 1])
    return out


def _evaluate(scores: np.ndarray, clicked: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    """Write every metric of the slates that can be evaluated into their rows of ``out``."""
    lengths = np.diff(offsets)
    clicks = np.diff(np.concatenate(([0], np.cumsum(clicked)))[offsets])
    evaluated = (clicks > 0) & (clicks < lengths)
    if not evaluated.any():
        return
    if not evaluated.all():
        kept = np.repeat(evaluated, lengths)
        scores, clicked = scores[kept], clicked[kept]
        offsets = np.concatenate(([0], np.cumsum(lengths[evaluated])))
    column = 0
    for names, function in _FUNCTIONS.items():
        values = np.asarray(function(scores, clicked, offsets), dtype=np.float64)
        values = values[:, None] if values.ndim == 1 else values
        wanted = (int(evaluated.sum()), len(names))
        if values.shape != wanted or not np.isfinite(values).all():
            raise ValueError(
                f"metric {', '.join(names)}: returned {values.shape} with {int((~np.isfinite(values)).sum())} values "
                f"that are not finite, for {wanted[0]} slates with a click and something beside it. Return {wanted}, "
                "all finite."
            )
        out[evaluated, column : column + len(names)] = values
        column += len(names)


def mean_metrics(values: np.ndarray, names: Sequence[str] = METRICS) -> dict[str, float]:
    """Average the rows of ``per_slate`` that could be evaluated, whose first value is not NaN; NaN of no row."""
    evaluated = values[~np.isnan(values[:, 0])]
    return {name: float(evaluated[:, i].mean()) if len(evaluated) else float("nan") for i, name in enumerate(names)}


@metric("auc", "mrr", "ndcg@5", "ndcg@10", "mrr_first")
def official(scores: np.ndarray, clicked: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Compute the metrics of the RecSys Challenge 2024, in one pass over the slates: float64 (n, 5).

    With P clicks and N other candidates in a slate:

    - AUC = (sum of the clicks' ascending ranks − P(P + 1)/2) / (P · N), ties ranked by their average
      (Mann and Whitney, 1947).
    - MRR = mean over the clicks of 1 / rank, rank 1 the highest score, as in the scripts of EBNeRD and MIND; and
      that of the first click, 1 / rank of the best ranked one, as in information retrieval.
    - nDCG@k = DCG@k / ideal DCG@k with gain 1 for a click and discount 1 / log2(rank + 1)
      (Järvelin and Kekäläinen, 2002).
    """
    longest = int(np.diff(offsets).max(initial=1))
    return _official(scores, clicked, offsets, 1.0 / np.log2(np.arange(2, longest + 2)))


@njit(cache=True, nogil=True)
def _official(scores, clicked, offsets, discounts):
    slates = len(offsets) - 1
    out = np.empty((slates, 5))
    for row in range(slates):
        begin, end = offsets[row], offsets[row + 1]
        size = end - begin
        clicks = 0
        for i in range(begin, end):
            clicks += clicked[i]
        order = np.argsort(-scores[begin:end])
        wins = reciprocal = first = 0.0
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
                if first == 0.0:
                    chance = hits / width  # that the first of the hits stands at a place
                    for place in range(at, stop - hits + 1):
                        first += chance / (place + 1)
                        chance *= (stop - place - hits) / max(stop - place - 1, 1)
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
        out[row, 4] = first
        for c in range(2):
            ideal = 0.0
            for place in range(min(clicks, _CUTS[c])):
                ideal += discounts[place]
            out[row, 2 + c] = gain[c] / ideal
    return out
