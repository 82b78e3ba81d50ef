"""Permutation importance: what a saved model's AUC loses when a group of its features is shuffled (Breiman, 2001)."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates, candidate_rows
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation.intervals import user_bootstrap
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.features.registry import every_column
from ebnerd_lib.features.store import Features
from ebnerd_lib.training.model_file import TrainedModel


def sample_impressions(slates: Slates, impressions: int, seed: int = 0) -> np.ndarray:
    """Draw impressions that can be judged, in the order of the file: all where there are not so many."""
    able = np.flatnonzero(slates.has_choice)
    return np.sort(np.random.default_rng(seed).choice(able, min(impressions, len(able)), replace=False))


def permutation_importance(
    model: TrainedModel, dataset: Dataset, features: Features, part: str, rows: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Return by how much the AUC falls when the columns of a feature group are shuffled.

    All columns of a group move together, so what they say of each other stays; they are shuffled over the
    candidates of all ``rows``, so a candidate gets values from another slate. A group that is constant within every
    slate is shuffled over slates instead, and stays constant. Ids are groups of their own. Groups that say the same
    cover for each other: a small drop does not mean that a group holds nothing.

    Args:
        model: as its file holds it.
        dataset: whose indices the slates use.
        features: of the part.
        part: whose slates to score.
        rows: impressions of the part, see ``sample_impressions``.
        seed: of the shuffles and of the bootstrap over users.

    Returns:
        One row a group, largest drop first: ``group``, ``columns`` (0 for ids), ``auc`` when shuffled, ``drop`` and
        ``drop_ci``, the 95 % interval of the paired difference.

    Raises:
        ConfigError: the model learns on, so its file has learnt from the slates that it would score.
    """
    if model.name.endswith("_learning"):
        raise ConfigError(
            f"importance: {model.name} learns on, and its file holds what it learnt from {part}. Name the model that "
            f"it started from, {model.name.removesuffix('_learning')}."
        )
    slates = dataset.parts[part].take(rows)
    matrix = features.matrix[candidate_rows(dataset.parts[part].offsets, rows)].astype(np.float32)
    whole = _auc(model.score(dataset, slates, matrix, features.columns), slates)
    records, drops = [], []
    for group, width, shuffled, changed in _shuffles(model, slates, matrix, features.columns, seed):
        auc = _auc(model.score(dataset, shuffled, changed, features.columns), slates)
        drops.append(whole - auc)
        records.append({"group": group, "columns": width, "auc": float(auc.mean()), "drop": float(drops[-1].mean())})
    if drops:
        ends = user_bootstrap(np.stack(drops, axis=1), slates.user_id, seed=seed)
        for record, (low, high) in zip(records, ends, strict=True):
            record["drop_ci"] = [float(low), float(high)]
    table = pd.DataFrame(records, columns=["group", "columns", "auc", "drop", "drop_ci"])
    return table.sort_values("drop", ascending=False, kind="stable", ignore_index=True)


def _auc(scores: np.ndarray, slates: Slates) -> np.ndarray:
    return per_slate(scores, slates.clicked, slates.offsets)[:, 0]


def _shuffles(
    model: TrainedModel, slates: Slates, matrix: np.ndarray, names: list[str], seed: int
) -> Iterator[tuple[str, int, Slates, np.ndarray]]:
    """Yield each group's name and number of columns, and slates and features with that group shuffled."""
    groups: dict[str, list[int]] = {}
    for column in every_column():
        if column.name in model.columns:
            groups.setdefault(column.group, []).append(names.index(column.name))
    for number, (group, places) in enumerate(groups.items()):
        rng = np.random.default_rng((seed, number))
        changed = matrix.copy()
        changed[:, places] = matrix[_order(matrix[:, places], slates, rng)][:, places]
        yield group, len(places), slates, changed
    rng = np.random.default_rng((seed, len(groups)))
    if model.network.id_tables("user"):
        yield "user ids", 0, replace(slates, user=rng.permutation(slates.user)), matrix
    if model.network.id_tables("article"):
        yield "article ids", 0, replace(slates, article=rng.permutation(slates.article)), matrix


def _order(group: np.ndarray, slates: Slates, rng: np.random.Generator) -> np.ndarray:
    """Return from which candidate each one takes the group's values: int64 (m,)."""
    first = slates.per_candidate(group[slates.offsets[:-1]])
    if np.array_equal(group, first, equal_nan=True):
        return slates.per_candidate(rng.permutation(slates.offsets[:-1]))
    return rng.permutation(slates.candidates)
