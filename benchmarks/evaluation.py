"""AUC, MRR and nDCG of many slates, against one call of scikit-learn an impression."""

import itertools

import numpy as np
from sklearn.metrics import ndcg_score, roc_auc_score

from benchmarks import inputs
from benchmarks.measure import Row, Run, alternate
from ebnerd_lib.evaluation.metrics import per_slate

SLATES, SHARE = 25_000, 10
"""Slates, of which the rival goes over one in so many: it takes minutes for all, and its time grows in a line."""


def measure(run: Run) -> list[Row]:
    """Time the metrics of random scores."""
    size = run.size("demo")
    slates = inputs.slates(inputs.bundle(size)).parts["validation"]
    rng = np.random.default_rng(0)
    slates = slates.take(rng.permutation(np.flatnonzero(slates.has_choice))[:SLATES])
    scores, some = rng.random(slates.candidates), len(slates) // SHARE
    took = alternate(
        ours=lambda: per_slate(scores, slates.clicked, slates.offsets),
        rival=lambda: one_by_one(scores, slates.clicked, slates.offsets[: some + 1]),
    )
    note = f"size {size}, {len(slates):,} slates; scikit-learn goes over {some:,} of them and is extrapolated"
    rival = took["rival"] * len(slates) / some
    return [Row("evaluation: scikit-learn, slate by slate", took["ours"], "s", "rival / ours ≥ 400", rival, note)]


def one_by_one(scores: np.ndarray, clicked: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return AUC, MRR, nDCG@5 and nDCG@10 of each slate: float64 (n, 4), NaN where there is nothing to rank.

    scikit-learn has no MRR; it is computed from the order of the scores, ties as they stand.
    """
    out = np.full((len(offsets) - 1, 4), np.nan)
    for row, (start, stop) in enumerate(itertools.pairwise(offsets)):
        label, score = clicked[start:stop].astype(int), scores[start:stop]
        if not 0 < label.sum() < len(label):
            continue
        rank = np.empty(len(score), dtype=int)
        rank[np.argsort(-score, kind="stable")] = np.arange(1, len(score) + 1)
        gains = (ndcg_score([label], [score], k=cut) for cut in (5, 10))
        out[row] = (roc_auc_score(label, score), (1 / rank[label == 1]).mean(), *gains)
    return out
