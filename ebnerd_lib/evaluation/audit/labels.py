"""Defects 2 and 4: what the original's data set feeds a model: another row's label, and the page for the candidate."""

from dataclasses import dataclass, replace

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.evaluation.audit.finding import Finding
from ebnerd_lib.evaluation.audit.scores import auc, pooled_auc, trailing_clicks


@dataclass(frozen=True)
class Feed:
    """The rows of the original's data set, r of them.

    Attributes:
        user: int64 (r,), index of the row's own user.
        article: int64 (r,), index of the page being read, 0 on the front page.
        label: bool (r,), the k-th of the flattened labels for row k.
        label_row: int64 (r,), the row from whose slate this label comes.
        own: bool (r,), the label of the first candidate of the row's own slate.
        labels: number of flattened labels there are.
    """

    user: np.ndarray
    article: np.ndarray
    label: np.ndarray
    label_row: np.ndarray
    own: np.ndarray
    labels: int


def feed(log: Slates, impression: np.ndarray) -> Feed:
    """Put rows together as the original does: users and pages one a row, labels flattened over the rows' slates.

    Args:
        log: the slates.
        impression: int64 (r,), the impression of each row, in the order of the rows.
    """
    ends = np.cumsum(log.lengths[impression])
    row = np.searchsorted(ends, np.arange(len(impression)), side="right")
    place = np.arange(len(impression)) - (ends - log.lengths[impression])[row]
    return Feed(
        user=log.user[impression].astype(np.int64),
        article=log.page[impression].astype(np.int64),
        label=log.clicked[log.offsets[impression[row]] + place],
        label_row=row,
        own=log.clicked[log.offsets[impression]],
        labels=int(ends[-1]),
    )


def audit_labels(rows: Feed, slates: Slates) -> list[Finding]:
    """Measure how many rows meet another row's label, and what that leaves of a scorer that knows everything.

    Args:
        rows: as fed by the original.
        slates: for the right way: a scorer that knows their labels, one a candidate.
    """
    moved = rows.label_row != np.arange(len(rows.label_row))
    return [
        Finding(2, "share of rows that meet another row's label", float(moved.mean()), 0.0),
        Finding(2, "share of labels that are never used", 1 - len(rows.label) / rows.labels, 0.0),
        Finding(
            2, "AUC of a scorer that knows every click", pooled_auc(rows.own, rows.label), auc(slates.clicked, slates)
        ),
    ]  # fmt: skip


def audit_candidate(dataset: Dataset, slates: Slates) -> list[Finding]:
    """Measure what is lost when a slate is scored by the page being read in place of its candidates."""
    page = replace(slates, article=slates.per_candidate(slates.page))
    return [
        Finding(
            4, "share of inputs that are no article",
            float((slates.page == 0).mean()), float((slates.article == 0).mean()),
        ),
        Finding(4, "articles told apart in a slate, mean", 1.0, float(_distinct(slates).mean())),
        Finding(
            4, "AUC of the input's clicks in the last 24 h",
            auc(trailing_clicks(dataset, page), slates), auc(trailing_clicks(dataset, slates), slates),
        ),
    ]  # fmt: skip


def _distinct(slates: Slates) -> np.ndarray:
    """Count the articles of each slate; the unknown counts as one."""
    row = slates.per_candidate(np.arange(len(slates)))
    pairs = np.unique(np.column_stack([row, slates.article]), axis=0)
    return np.bincount(pairs[:, 0], minlength=len(slates))
