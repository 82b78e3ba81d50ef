"""Probabilities and a threshold from scores, fitted on the tuning day and used unchanged on validation."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ebnerd_lib.data import slates

BINS = 15
_CLIP = 1e-7
_NO_PENALTY = 1e6
_AT_A_TIME = 1 << 22  # candidates: memory is bounded by these, not by all


@dataclass(frozen=True)
class Calibration:
    """A logistic curve over scores, and the probability above which a candidate counts as a predicted click."""

    slope: float
    intercept: float
    threshold: float

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Return the probability of a click for each score, clipped to [1e-7, 1 − 1e-7]."""
        out = slates.large_zeros(np.shape(scores), np.float64)
        for start in range(0, len(out), _AT_A_TIME):
            some = np.asarray(scores[start : start + _AT_A_TIME], dtype=np.float64)
            logit = np.clip(self.slope * some + self.intercept, -50, 50)
            out[start : start + _AT_A_TIME] = np.clip(1 / (1 + np.exp(-logit)), _CLIP, 1 - _CLIP)
        return out


def fit_calibration(scores: np.ndarray, clicked: np.ndarray) -> Calibration:
    """Fit a calibration by maximum likelihood, and the threshold of the highest F1 on the same candidates.

    Scores are float (m,), finite; a constant gives slope 0 and the base rate for everyone.

    Raises:
        ValueError: all candidates or none are clicked.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and only needed where something is fitted

    scores, clicked = np.asarray(scores, dtype=np.float64), np.asarray(clicked, dtype=bool)
    rate = float(clicked.mean()) if len(clicked) else 0.0
    if not 0 < rate < 1:
        raise ValueError("calibration needs candidates of both kinds, clicked and not")
    middle, spread = float(scores.mean()), float(scores.std())
    intercept, slope = float(np.log(rate / (1 - rate))), 0.0
    if spread > 0:
        # The penalty only matters where the classes separate perfectly and the likelihood has no maximum.
        model = LogisticRegression(C=_NO_PENALTY, solver="newton-cholesky", tol=1e-8)
        model.fit(((scores - middle) / spread)[:, None], clicked)
        slope = float(model.coef_[0, 0]) / spread
        intercept = float(model.intercept_[0]) - slope * middle
    curve = Calibration(slope, intercept, 0.5)
    return replace(curve, threshold=_best_threshold(curve.probability(scores), clicked))


def classification(probability: np.ndarray, clicked: np.ndarray, threshold: float) -> dict[str, float]:
    """Return log loss, F1 and accuracy, pooled over candidates; F1 is 0 where no click is predicted rightly."""
    loss, hits, positive, right = 0.0, 0, 0, 0
    for start in range(0, len(probability), _AT_A_TIME):
        some = probability[start : start + _AT_A_TIME]
        target = np.asarray(clicked[start : start + _AT_A_TIME], dtype=bool)
        predicted = some >= threshold
        loss -= float(np.where(target, np.log(some), np.log1p(-some)).sum())
        hits += int((predicted & target).sum())
        positive += int(predicted.sum()) + int(target.sum())
        right += int((predicted == target).sum())
    count = len(probability) or float("nan")
    return {"logloss": loss / count, "f1": 2 * hits / max(positive, 1), "accuracy": right / count}


def reliability(probability: np.ndarray, clicked: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Return the calibration curve: predicted probability (m,) vs. click rate, in bins of equal count.

    Equal probabilities stay in one bin, so bins differ in size where there are ties; those that stay empty are left
    out.

    Returns:
        One row a bin, by probability: ``candidates``, their mean ``probability`` and their ``click_rate``.

    Examples:
        >>> reliability(np.array([0.1, 0.3, 0.8, 0.6]), np.array([False, False, True, True]), bins=2)
           candidates  probability  click_rate
        0           2          0.2         0.0
        1           2          0.7         1.0
    """
    probability, target = np.asarray(probability, dtype=np.float64), np.asarray(clicked, dtype=np.float64)
    _, level, count = np.unique(probability, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count + 1) / 2  # mean rank of the tied candidates, from 0
    place = (middle * bins // max(len(probability), 1)).astype(np.int64)[level]
    size = np.bincount(place, minlength=bins)
    full = size > 0
    return pd.DataFrame(
        {
            "candidates": size[full],
            "probability": np.bincount(place, weights=probability, minlength=bins)[full] / size[full],
            "click_rate": np.bincount(place, weights=target, minlength=bins)[full] / size[full],
        }
    )


def expected_calibration_error(curve: pd.DataFrame) -> float:
    """Return the mean over candidates of |probability − click rate| of their bin (Naeini et al., 2015); 0 of none."""
    gap = (curve["probability"] - curve["click_rate"]).abs() * curve["candidates"]
    return float(gap.sum() / max(curve["candidates"].sum(), 1))


def _best_threshold(probability: np.ndarray, clicked: np.ndarray) -> float:
    order = np.argsort(-probability, kind="stable")
    ranked, hits = probability[order], np.cumsum(clicked[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    last_of_tie = np.append(ranked[:-1] != ranked[1:], True)
    return float(ranked[np.argmax(np.where(last_of_tie, f1, -1))])
