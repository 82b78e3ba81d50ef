"""Defects 3 and 17: every impression joined with the histories of both weeks, and the cut taken over these rows."""

from dataclasses import dataclass

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR, Slates
from ebnerd_lib.data.splits import split_parts
from ebnerd_lib.evaluation.audit.finding import Finding
from ebnerd_lib.evaluation.audit.scores import auc


@dataclass(frozen=True)
class Joined:
    """Rows of the original's table, one for each impression and each history row of its user.

    Attributes:
        impression: int64 (r,), row of the log.
        week: int64 (r,), whose history the row holds: 0, 1, or −1 for a user without any.
    """

    impression: np.ndarray
    week: np.ndarray

    def take(self, rows: np.ndarray) -> "Joined":
        """Return some rows, in the order given."""
        return Joined(self.impression[rows], self.week[rows])


def join(dataset: Dataset) -> Joined:
    """Join the log with the histories of both weeks by user alone: a left join, as the original has it.

    A history without clicks counts as none.
    """
    user = dataset.log.user
    there = np.stack([history.lengths[user] > 0 for history in dataset.histories], axis=1)
    impression, week = np.nonzero(np.column_stack([there, ~there.any(axis=1)]))
    return Joined(impression, np.where(week == len(dataset.histories), -1, week))


def original_parts(dataset: Dataset, rows: Joined, seed: int) -> tuple[Joined, Joined]:
    """Shuffle the joined rows and cut them at the .9 quantile of their time, as the original does.

    Returns:
        The rows for training and those for validation.
    """
    shuffled = rows.take(np.random.default_rng(seed).permutation(len(rows.impression)))
    time = dataset.log.time[shuffled.impression]
    late = time >= _cut(time)
    return shuffled.take(np.flatnonzero(~late)), shuffled.take(np.flatnonzero(late))


def in_history(dataset: Dataset, slates: Slates, week: int) -> np.ndarray:
    """Say of each candidate whether its user's history of a week holds it: bool (m,). Unknown users have none."""
    history = dataset.histories[week]
    owner = np.repeat(np.arange(len(history.lengths), dtype=np.int64), history.lengths)
    held = owner * len(dataset.articles) + history.article
    asked = slates.per_candidate(slates.user.astype(np.int64)) * len(dataset.articles) + slates.article
    return np.isin(asked, held)


def audit_join(dataset: Dataset, rows: Joined) -> list[Finding]:
    """Measure what the join doubles, and what the later history knows of the train week.

    The scorer is one feature: whether the candidate is in the user's history, which the right join takes from
    the impression's own week.
    """
    log = dataset.log
    times = np.bincount(rows.impression, minlength=len(log))
    week = log.take(log.week == 0)
    later, own = (in_history(dataset, week, of) for of in (1, 0))
    return [
        Finding(3, "rows after the join", len(rows.impression), len(log)),
        Finding(3, "impressions that stand twice", int((times > 1).sum()), 0),
        Finding(
            3, "share of the train week's clicks that the history holds",
            float(later[week.clicked].mean()), float(own[week.clicked].mean()),
        ),
        Finding(3, "AUC of 'is in the history', train week", auc(later, week), auc(own, week)),
    ]  # fmt: skip


def audit_quantile(dataset: Dataset, rows: Joined) -> list[Finding]:
    """Measure how far the .9 quantile over joined rows lies from that over impressions."""
    time = dataset.log.time
    cut, right = _cut(time[rows.impression]), _cut(time)
    between = (time >= min(cut, right)) & (time < max(cut, right))
    return [
        Finding(17, "hours from the .9 quantile of impressions to the cut", (cut - right) / HOUR, 0.0),
        Finding(17, "share of impressions from the cut on", float((time >= cut).mean()), float((time >= right).mean())),
        Finding(17, "impressions on the wrong side of the cut", int(between.sum()), 0),
    ]


def _cut(time: np.ndarray) -> int:
    return split_parts("quantile", time, time[:0]).validation_start
