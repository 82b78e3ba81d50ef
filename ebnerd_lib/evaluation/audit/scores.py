"""Defects 7, 8 and 10: figures that say nothing of the model, beside those that do."""

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates, candidate_rows
from ebnerd_lib.evaluation.audit.finding import Finding
from ebnerd_lib.evaluation.calibration import classification, fit_calibration
from ebnerd_lib.evaluation.metrics import mean_metrics, per_slate
from ebnerd_lib.features.build import Walk
from ebnerd_lib.features.store import world_of

BATCH_SIZE = 1024
"""Rows a batch in the original."""


def pooled_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the AUC over all candidates as if they were one slate, ties one half; NaN with one class only.

    >>> pooled_auc(np.array([3.0, 1.0, 2.0]), np.array([False, False, True]))
    0.5
    """
    return float(per_slate(scores, positive, np.array([0, len(scores)]))[0, 0])


def auc(scores: np.ndarray, slates: Slates) -> float:
    """Return the mean AUC over the impressions that can be judged."""
    return mean_metrics(per_slate(scores, slates.clicked, slates.offsets))["auc"]


def halves_auroc(click: np.ndarray, other: np.ndarray, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Compute AUROC as the original does, batch by batch: float64 (batches,).

    The two scores of each row are flattened side by side, c₀ o₀ c₁ o₁ …, while the targets are all ones followed by
    all zeros. So the rows of a batch's first half are set against those of its second half, and which of its two
    scores was the click's plays no part.

    Args:
        click: float (r,), score of what was clicked.
        other: float (r,), score of what was not.
        batch_size: rows a batch; the last one may be smaller.

    Examples:
        >>> halves_auroc(np.ones(4), np.zeros(4)), halves_auroc(np.zeros(4), np.ones(4))
        (array([0.5]), array([0.5]))
    """
    flat = np.stack([click, other], axis=1).ravel()
    edges = 2 * batch_edges(len(click), batch_size)
    within = np.arange(len(flat)) - np.repeat(edges[:-1], np.diff(edges))
    target = within < np.repeat(np.diff(edges) // 2, np.diff(edges))
    return per_slate(flat, target, edges)[:, 0]


def halves_f1(click: np.ndarray, other: np.ndarray, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Compute F1 as the original does, batch by batch: float64 (batches,), never above .5.

    It is the mean of F1 of the clicks' scores against all ones and F1 of the others' against all zeros. The latter is
    0, for nothing is there to be found. A score counts as positive above 0, that is a probability above .5.

    >>> halves_f1(np.ones(4), -np.ones(4))
    array([0.5])
    """
    edges = batch_edges(len(click), batch_size)[:-1]
    ones, zeros = np.ones(len(click), bool), np.zeros(len(other), bool)
    return (batch_f1(click > 0, ones, edges) + batch_f1(other > 0, zeros, edges)) / 2


def batch_edges(rows: int, batch_size: int) -> np.ndarray:
    """Return where batches begin, and the end: int64 (batches + 1,).

    >>> batch_edges(5, 2)
    array([0, 2, 4, 5])
    """
    return np.append(np.arange(0, rows, batch_size), rows)


def one_class_share(labels: np.ndarray, batch_size: int) -> float:
    """Return the share of batches whose labels are all alike: AUC is not defined there.

    >>> one_class_share(np.array([True, False, False, False, True]), 2)
    0.6666666666666666
    """
    edges = batch_edges(len(labels), batch_size)
    positive = np.add.reduceat(labels.astype(np.int64), edges[:-1])
    return float(((positive == 0) | (positive == np.diff(edges))).mean())


def pairs(slates: Slates) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of a clicked candidate and of one that was not, the first of each, of every slate with both."""
    kept = slates.take(slates.has_choice)
    where = candidate_rows(slates.offsets, np.flatnonzero(slates.has_choice))
    # The position of the first of a kind: its rank among those of its kind is 0.
    firsts = []
    for kind in (kept.clicked, ~kept.clicked):
        so_far = np.concatenate(([0], np.cumsum(kind)))
        before = so_far[:-1] - kept.per_candidate(so_far[kept.offsets[:-1]])
        firsts.append(where[kind & (before == 0)])
    return firsts[0], firsts[1]


def trailing_clicks(dataset: Dataset, slates: Slates) -> np.ndarray:
    """Count the clicks on each candidate in the 24 hours before it was shown: float32 (m,), in the order of slates."""
    past = Walk(world_of(dataset), dataset.log).past("clicks")
    counts = np.empty(slates.candidates, np.float32)
    counts[candidate_rows(slates.offsets, slates.by_time)] = past.trailing(slates.take(slates.by_time), (24.0,))[:, 0]
    return counts


def recency(dataset: Dataset, slates: Slates) -> np.ndarray:
    """Score candidates by their time of publication, the newest highest; those without one lowest: float64 (m,)."""
    published = dataset.metadata.published[slates.article]
    known = published > np.iinfo(np.int64).min
    oldest = published[known].min(initial=0)
    return np.where(known, published - oldest + 1, 0).astype(np.float64)


def quality_sweep(slates: Slates, seed: int, weights: tuple[float, ...]) -> dict[str, np.ndarray]:
    """Judge scorers from worst to best by the original's figures and by AUC per impression.

    The scores are noise plus a weight for the click: below 0 they are worse than chance, far above 0 they know it.

    Args:
        slates: with their clicks.
        seed: of the noise.
        weights: of the click, in standard deviations of the noise.

    Returns:
        ``auc`` per impression, ``auroc`` and ``f1`` as the original computes them, each (weights,).
    """
    noise = np.random.default_rng(seed).standard_normal(slates.candidates)
    click, other = pairs(slates)
    figures: dict[str, list[float]] = {"auc": [], "auroc": [], "f1": []}
    for weight in weights:
        scores = noise + weight * (slates.clicked - 0.5)
        figures["auc"].append(auc(scores, slates))
        figures["auroc"].append(float(halves_auroc(scores[click], scores[other]).mean()))
        figures["f1"].append(float(halves_f1(scores[click], scores[other]).mean()))
    return {name: np.array(values) for name, values in figures.items()}


def audit_auroc(dataset: Dataset, slates: Slates) -> list[Finding]:
    """Judge scorers that know every click, or have every click wrong, in both ways; and recency pooled and not."""
    click, other = pairs(slates)
    right, wrong = slates.clicked.astype(np.float64), (~slates.clicked).astype(np.float64)
    recent = recency(dataset, slates)
    trailing = trailing_clicks(dataset, slates)
    return [
        Finding(
            7, "AUROC of a scorer that knows every click",
            float(halves_auroc(right[click], right[other]).mean()), auc(right, slates),
        ),
        Finding(
            7, "AUROC of a scorer that has every click wrong",
            float(halves_auroc(wrong[click], wrong[other]).mean()), auc(wrong, slates),
        ),
        Finding(
            7, "AUC of recency, pooled and per impression", pooled_auc(recent, slates.clicked), auc(recent, slates)
        ),
        Finding(
            7, "AUC of clicks in the last 24 h, pooled and per impression",
            pooled_auc(trailing, slates.clicked), auc(trailing, slates),
        ),
    ]  # fmt: skip


def audit_f1(dataset: Dataset, tuning: Slates, slates: Slates) -> list[Finding]:
    """Show the bound of the factorisation's F1, and what a threshold of .5 leaves of a calibrated scorer's.

    The scorer is the logarithm of the clicks in the last 24 hours, made a probability on the tuning slates.
    """
    click, other = pairs(slates)
    knowing = np.where(slates.clicked, 1.0, -1.0)
    earlier, scores = (np.log1p(trailing_clicks(dataset, each)) for each in (tuning, slates))
    calibration = fit_calibration(earlier, tuning.clicked)
    chance = calibration.probability(scores)
    sure = fit_calibration(slates.clicked, slates.clicked)
    certain = classification(sure.probability(slates.clicked), slates.clicked, sure.threshold)
    return [
        Finding(
            8, "F1 of a scorer that knows every click",
            float(halves_f1(knowing[click], knowing[other]).mean()), certain["f1"],
        ),
        Finding(
            8, "F1 of clicks in the last 24 h, threshold .5 and chosen",
            classification(chance, slates.clicked, 0.5)["f1"],
            classification(chance, slates.clicked, calibration.threshold)["f1"],
        ),
    ]  # fmt: skip


def audit_batches(
    labels: np.ndarray, slates: Slates, sizes: tuple[int, ...] = (8, 32, 128, BATCH_SIZE)
) -> list[Finding]:
    """Count the batches on which AUC is not defined; once an epoch, over whole slates, the mean always is.

    Args:
        labels: bool (r,), in the order of the original's rows.
        slates: judged the right way.
        sizes: rows a batch.
    """
    undefined = float(np.isnan(auc(np.zeros(slates.candidates), slates)))
    return [
        Finding(10, f"share of batches of {size} rows with one class", one_class_share(labels, size), undefined)
        for size in sizes
    ]


def batch_f1(predicted: np.ndarray, target: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Return F1 of each batch, 0 where nothing is predicted or nothing is there to be found."""
    hits, found, wanted = (
        np.add.reduceat(each.astype(np.int64), begins) for each in (predicted & target, predicted, target)
    )
    return 2 * hits / np.maximum(found + wanted, 1)
