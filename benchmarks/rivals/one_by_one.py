"""The metrics with one call of scikit-learn an impression; MRR, which it lacks, from the order of the scores."""

import numpy as np
from sklearn.metrics import ndcg_score, roc_auc_score


def per_slate(scores: np.ndarray, clicked: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return AUC, MRR, nDCG@5 and nDCG@10 of each slate: float64 (n, 4), NaN where nothing can be judged.

    Ties are as scikit-learn takes them; for MRR, which has no tie in any figure of ours either, as they stand.
    """
    out = np.full((len(offsets) - 1, 4), np.nan)
    for row in range(len(offsets) - 1):
        label = clicked[offsets[row] : offsets[row + 1]].astype(int)
        if not 0 < label.sum() < len(label):
            continue
        score = scores[offsets[row] : offsets[row + 1]]
        rank = np.empty(len(score), dtype=int)
        rank[np.argsort(-score, kind="stable")] = np.arange(1, len(score) + 1)
        out[row] = (
            roc_auc_score(label, score),
            (1 / rank[label == 1]).mean(),
            ndcg_score([label], [score], k=5),
            ndcg_score([label], [score], k=10),
        )
    return out
