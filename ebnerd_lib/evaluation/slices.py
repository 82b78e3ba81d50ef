"""Where a scorer is good and where it fails: figures on slices of the impressions, each against a reference.

A **dimension** cuts the impressions of a part into slices that do not overlap and together are all of them.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.describe import candidate_age, hour_of_day
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.evaluation.intervals import FEW_USERS, user_bootstrap

_HISTORY = (1, 10, 50, 200)
_LENGTH = (6, 11, 21, 41)
_AGE = (1, 4, 12, 24, 72)
_HOURS = 3


@dataclass(frozen=True)
class Slice:
    """Some impressions of a part.

    Attributes:
        dimension: by what the part is cut.
        label: which of the slices of the dimension this is.
        rows: bool (n,), which impressions.
    """

    dimension: str
    label: str
    rows: np.ndarray


def slices_of(dataset: Dataset, part: str = "validation") -> list[Slice]:
    """Cut a part by what was clicked, by the user, by the slate and by the request.

    The clicked article of a slate is the first clicked one in the order of the file; slates without a click are in
    the slices "no click" of its dimensions. Known is a user with an impression in the train part, seen an article that
    was in view there: what a model can have learnt by id. Slices without an impression are left out.
    """
    slates, train = dataset.parts[part], dataset.parts["train"]
    user_known = np.isin(slates.user, np.unique(train.user)) & (slates.user > 0)
    seen = np.zeros(len(dataset.articles), bool)
    seen[train.article] = True
    seen[0] = False
    clicked = _first_click(slates)
    none = clicked < 0
    age = candidate_age(dataset, part)[clicked]
    history = np.choose(slates.week, [past.lengths[slates.user] for past in dataset.histories])
    history = np.where(slates.user > 0, history, 0)
    cuts = [
        _cut("clicked article", ["seen in training", "new"], np.where(seen[slates.article[clicked]], 0, 1), none),
        _cut("age of the clicked article", [*_labels(_AGE, " h"), "unknown"],
             np.where(np.isnan(age), len(_AGE) + 1, np.digitize(age, _AGE)), none),
        _cut("user", ["known", "new"], np.where(user_known, 0, 1)),
        _cut("history clicks", ["0", *_labels(_HISTORY, whole=True)[1:]], np.digitize(history, _HISTORY)),
        _cut("subscriber", ["yes", "no"], np.where(slates.subscriber, 0, 1)),
        _cut("slate length", _labels(_LENGTH, whole=True), np.digitize(slates.lengths, _LENGTH)),
        _cut("page", ["front page", "article page"], np.where(slates.front_page, 0, 1)),
        _cut("device", ["unknown", "desktop", "mobile", "tablet"], slates.device),
        _cut("hour of day, as stored", [f"{hour:02d}–{hour + _HOURS - 1:02d}" for hour in range(0, 24, _HOURS)],
             hour_of_day(dataset, part) // _HOURS),
    ]  # fmt: skip
    return [piece for cut in cuts for piece in cut if piece.rows.any()]


def slice_figures(
    slices: list[Slice], auc: dict[str, np.ndarray], user: np.ndarray, reference: str, seed: int = 0
) -> list[dict[str, Any]]:
    """Return the AUC of every scorer on every slice, and its paired difference to the reference.

    Args:
        slices: see ``slices_of``; those of which no impression can be judged are left out.
        auc: float64 (n,) by scorer, NaN where an impression cannot be judged; the same ones for all scorers.
        user: int (n,), whose impression it is.
        reference: one of the scorers.
        seed: of the bootstrap over users.

    Returns:
        One record a slice: ``dimension``, ``slice``, ``impressions`` judged, their ``users``, and ``scorers``: by
        name ``auc``, ``auc_ci`` and, for all but the reference, ``difference`` and ``difference_ci``. Intervals are
        ``None`` where there are fewer than ``FEW_USERS`` users.
    """
    names = list(auc)
    others = [name for name in names if name != reference]
    values = np.stack([auc[name] for name in names] + [auc[name] - auc[reference] for name in others], axis=1)
    records = []
    for piece in slices:
        rows = piece.rows & ~np.isnan(values[:, 0])
        users = len(np.unique(user[rows]))
        if not users:
            continue
        means = values[rows].mean(axis=0)
        ends = (
            user_bootstrap(values[rows], user[rows], seed=seed).tolist() if users >= FEW_USERS else [None] * len(means)
        )
        scorers: dict[str, dict[str, Any]] = {
            name: {"auc": float(means[i]), "auc_ci": ends[i]} for i, name in enumerate(names)
        }
        for i, name in enumerate(others, len(names)):
            scorers[name].update(difference=float(means[i]), difference_ci=ends[i])
        records.append(
            {
                "dimension": piece.dimension,
                "slice": piece.label,
                "impressions": int(rows.sum()),
                "users": users,
                "scorers": scorers,
            }
        )
    return records


def _first_click(slates: Slates) -> np.ndarray:
    """Return the position of the first clicked candidate of each slate, -1 where there is none: int64 (n,)."""
    positions = np.append(np.flatnonzero(slates.clicked), slates.candidates)
    first = positions[np.searchsorted(positions, slates.offsets[:-1])]
    return np.where(first < slates.offsets[1:], first, -1)


def _cut(dimension: str, labels: list[str], code: np.ndarray, none: np.ndarray | None = None) -> list[Slice]:
    """Return the slices of a dimension by the number of each impression's label; ``none`` marks slates without one."""
    if none is not None:
        labels, code = [*labels, "no click"], np.where(none, len(labels), code)
    return [Slice(dimension, label, code == place) for place, label in enumerate(labels)]


def _labels(edges: tuple[int, ...], unit: str = "", whole: bool = False) -> list[str]:
    """Name the intervals between edges, each from an edge to below the next.

    >>> _labels((1, 4), " h")
    ['<1 h', '1–4 h', '≥4 h']
    >>> _labels((6, 11), whole=True)
    ['≤5', '6–10', '≥11']
    """
    first = f"≤{edges[0] - 1}" if whole else f"<{edges[0]}"
    inner = [f"{low}–{high - 1 if whole else high}" for low, high in pairwise(edges)]
    return [f"{label}{unit}" for label in (first, *inner, f"≥{edges[-1]}")]
