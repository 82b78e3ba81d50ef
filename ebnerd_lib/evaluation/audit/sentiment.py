"""Defect 5: what an average of the probability of a label says, and what a constant added to a user's scores does."""

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.layout import SPLITS
from ebnerd_lib.data.schema import SENTIMENT_LABELS
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.evaluation.audit.finding import Finding
from ebnerd_lib.evaluation.audit.scores import auc
from ebnerd_lib.evaluation.metrics import per_slate


def user_moods(dataset: Dataset, week: int) -> np.ndarray:
    """Return the mean sentiment shares of each user's history of a week: float32 (users, 3), NaN where unknown."""
    names = [f"sentiment_{label.lower()}_{SPLITS[week]}" for label in SENTIMENT_LABELS]
    return dataset.users[names].to_numpy(np.float32)


def user_probability(dataset: Dataset, week: int) -> np.ndarray:
    """Return what the original averages, the probability of each article's label, over histories: float64 (users,).

    A label's share is its probability, and the largest of the three. Articles without sentiment are left out;
    users without any are NaN.
    """
    history = dataset.histories[week]
    probability = dataset.metadata.sentiment.max(axis=1)[history.article].astype(np.float64)
    owner = np.repeat(np.arange(len(history.lengths)), history.lengths)
    known = ~np.isnan(probability)
    total = np.bincount(owner[known], weights=probability[known], minlength=len(history.lengths))
    count = np.bincount(owner[known], minlength=len(history.lengths))
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)


def sentiment_match(dataset: Dataset, slates: Slates) -> np.ndarray:
    """Return the user's mean sentiment shares, of the week's own history, times the candidate's: float32 (m,).

    NaN where either is unknown.
    """
    moods = np.stack([user_moods(dataset, week) for week in range(len(SPLITS))])
    own = slates.per_candidate(moods[slates.week, slates.user])
    return (own * dataset.metadata.sentiment[slates.article]).sum(axis=1)


def audit_sentiment(dataset: Dataset, slates: Slates, seed: int) -> list[Finding]:
    """Measure what the average tells of a user's leaning, and what either way of using it does to a ranking.

    The ranking is a random one, so that a change would show wherever it fell. Scores are multiples of 2⁻²⁴ and the
    square of a float32 below 1 is one of 2⁻⁵⁰, so their sum in float64 is exact and no rounding blurs the comparison.
    """
    moods = user_moods(dataset, 0)
    average, leaning = user_probability(dataset, 0), moods[:, 2] - moods[:, 0]
    known = ~np.isnan(average)
    scores = np.random.default_rng(seed).random(slates.candidates, dtype=np.float32).astype(np.float64)
    mine = np.nan_to_num(average, nan=1.0).astype(np.float32).astype(np.float64)
    constant = slates.per_candidate(mine[slates.user] ** 2)
    match = np.nan_to_num(sentiment_match(dataset, slates), nan=1 / 3)
    before, after, used = (
        per_slate(each, slates.clicked, slates.offsets)[:, 0] for each in (scores, scores + constant, scores + match)
    )
    judged = ~np.isnan(before)
    mean_leaning = moods[known, 2].mean(dtype=np.float64) - moods[known, 0].mean(dtype=np.float64)
    return [
        Finding(5, "mean of a user's sentiment", float(average[known].mean()), float(mean_leaning)),
        Finding(5, "correlation with positive less negative share", _correlation(average[known], leaning[known]), 1.0),
        Finding(
            5, "slates whose AUC changes when it is added to a random ranking",
            int((after[judged] != before[judged]).sum()), int((used[judged] != before[judged]).sum()),
        ),
        Finding(5, "AUC of sentiment alone", auc(constant, slates), auc(match, slates)),
    ]  # fmt: skip


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation; 0 where one of the two does not vary."""
    a, b = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    spread = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / spread) if spread > 0 else 0.0
