"""Scorers side by side over the same impressions: differences, slices, calibration, importance."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ebnerd_lib.configs import ONLINE, flat
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates, candidate_rows
from ebnerd_lib.data.summary import candidate_age, hour_of_day
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation.calibration import expected_calibration_error, reliability
from ebnerd_lib.evaluation.evaluate import SCORED, Evaluated, Scorer, load_scores, scores_file, with_intervals
from ebnerd_lib.evaluation.intervals import FEW_USERS, user_bootstrap, with_interval
from ebnerd_lib.evaluation.metrics import METRICS, per_slate
from ebnerd_lib.features.build import Features
from ebnerd_lib.training.model_file import TrainedModel

_HISTORY = {"0": 1, "1–9": 10, "10–49": 50, "50–199": 200, "≥200": np.inf}
_LENGTH = {"≤5": 6, "6–10": 11, "11–20": 21, "21–40": 41, "≥41": np.inf}
_AGE = {"<1 h": 1, "1–4 h": 4, "4–12 h": 12, "12–24 h": 24, "24–72 h": 72, "≥72 h": np.inf}
"""Labels of slices, each with what it lies below."""
_HOURS = 3


def slices_of(dataset: Dataset, part: str = "validation") -> dict[tuple[str, str], np.ndarray]:
    """Cut a part by what was clicked, by the user, by the slate and by the request.

    The clicked article of a slate is the first clicked one in the order of the file; slates without a click are in
    the slices "no click" of its dimensions. Known is a user with an impression in the train part, seen an article that
    was in view there: what a model can have learnt by id. Slices without an impression are left out.

    Returns:
        By dimension and label, which impressions are in the slice: bool (n,).
    """
    slates, train = dataset.parts[part], dataset.parts["train"]
    clicked = _first_click(slates)
    none, article, age = clicked < 0, slates.article[clicked], candidate_age(dataset, part)[clicked]
    known = np.isin(slates.user, train.user) & (slates.user > 0)
    seen = np.isin(article, train.article) & (article > 0)
    history = np.choose(slates.week, [past.lengths[slates.user] for past in dataset.histories])
    cuts = {
        "clicked article": (["seen in training", "new", "no click"], np.where(none, 2, np.where(seen, 0, 1))),
        "age of the clicked article": ([*_AGE, "unknown", "no click"],
                                       np.where(none, len(_AGE) + 1, np.digitize(age, [*_AGE.values()]))),
        "user": (["known", "new"], np.where(known, 0, 1)),
        "history clicks": ([*_HISTORY], np.digitize(history, [*_HISTORY.values()])),
        "subscriber": (["yes", "no"], np.where(slates.subscriber, 0, 1)),
        "slate length": ([*_LENGTH], np.digitize(slates.lengths, [*_LENGTH.values()])),
        "page": (["front page", "article page"], np.where(slates.front_page, 0, 1)),
        "device": (["unknown", "desktop", "mobile", "tablet"], slates.device),
        "hour of day, as stored": ([f"{hour:02d}–{hour + _HOURS - 1:02d}" for hour in range(0, 24, _HOURS)],
                                   hour_of_day(dataset, part) // _HOURS),
    }  # fmt: skip
    slices = {(cut, label): code == at for cut, (labels, code) in cuts.items() for at, label in enumerate(labels)}
    return {place: rows for place, rows in slices.items() if rows.any()}


def _first_click(slates: Slates) -> np.ndarray:
    """Return the position of the first clicked candidate of each slate, -1 where there is none: int64 (n,)."""
    positions = np.append(np.flatnonzero(slates.clicked), slates.candidates)
    first = positions[np.searchsorted(positions, slates.offsets[:-1])]
    return np.where(first < slates.offsets[1:], first, -1)


def sample_impressions(slates: Slates, impressions: int, seed: int = 0) -> np.ndarray:
    """Sample impressions that can be evaluated, in the order of the file: all where there are not so many."""
    able = np.flatnonzero(slates.has_choice)
    return np.sort(np.random.default_rng(seed).choice(able, min(impressions, len(able)), replace=False))


def permutation_importance(
    model: TrainedModel, dataset: Dataset, features: Features, part: str, rows: np.ndarray, seed: int = 0
) -> pd.DataFrame:
    """Return by how much the AUC falls when the columns of a feature group are shuffled.

    All columns of a group move together, over the candidates of all ``rows``: a candidate gets values from another
    slate. A group that is constant within every slate is shuffled over slates instead, and stays constant. Ids are
    groups of their own. Groups that say the same cover for each other: a small drop does not mean that a group holds
    nothing. ``rows`` are impressions of the part, see ``sample_impressions``; the seed is of the shuffles and of the
    bootstrap over users.

    Returns:
        One row a group, largest drop first: ``group``, ``columns`` (0 for ids), ``auc`` when shuffled, ``drop`` and
        ``drop_ci``, the 95 % interval of the paired difference; none for a model without features and ids.

    Raises:
        ConfigError: the model was updated online, so its file has seen the clicks of the slates that it would score.
    """
    if model.is_online:
        raise ConfigError(
            f"importance: {model.name} was updated online, and its file has seen the clicks of {part}. Name the model "
            f"that it started from, {model.name.removesuffix(ONLINE)}."
        )
    slates = dataset.parts[part].take(rows)
    matrix = features.matrix[candidate_rows(dataset.parts[part].offsets, rows)].astype(np.float32)

    def auc_of(scored: Slates, values: np.ndarray) -> np.ndarray:
        scores = model.score(dataset, scored, values, features.columns)
        return per_slate(scores, slates.clicked, slates.offsets)[:, 0]

    whole, records, drops = auc_of(slates, matrix), [], []
    for group, width, shuffled, changed in _shuffles(model, slates, matrix, features.columns, seed):
        auc = auc_of(shuffled, changed)
        drops.append(whole - auc)
        records.append({"group": group, "columns": width, "auc": float(auc.mean()), "drop": float(drops[-1].mean())})
    if drops:
        ends = user_bootstrap(np.stack(drops, axis=1), slates.user_id, seed).tolist()
        records = [{**record, "drop_ci": own} for record, own in zip(records, ends, strict=True)]
    table = pd.DataFrame(records, columns=["group", "columns", "auc", "drop", "drop_ci"])
    return table.sort_values("drop", ascending=False, kind="stable", ignore_index=True)


def _shuffles(
    model: TrainedModel, slates: Slates, matrix: np.ndarray, names: list[str], seed: int
) -> Iterator[tuple[str, int, Slates, np.ndarray]]:
    """Yield each group's name and number of columns, and slates and features with that group shuffled."""
    groups = model.groups(names)
    for number, (group, places) in enumerate(groups.items()):
        rng = np.random.default_rng((seed, number))
        changed = matrix.copy()
        first = slates.per_candidate(matrix[slates.offsets[:-1]][:, places])
        if np.array_equal(matrix[:, places], first, equal_nan=True):
            order = slates.per_candidate(rng.permutation(slates.offsets[:-1]))
        else:
            order = rng.permutation(slates.candidates)
        changed[:, places] = matrix[order][:, places]
        yield group, len(places), slates, changed
    rng = np.random.default_rng((seed, len(groups)))
    reads = model.network.hyperparameters["vector_size"] > 0  # then another user has another history
    for side, with_it in (("user", "histories"), ("article", "article vectors")):
        what = [f"{side} ids"] * bool(model.network.id_tables(side)) + [with_it] * reads
        if what:
            yield " and ".join(what), 0, replace(slates, **{side: rng.permutation(getattr(slates, side))}), matrix


def saved_scorers(folder: Path, dataset: Dataset) -> list[Scorer]:
    """Read the scores, tier and number of parameters of every model in the artifacts of a stage, which may have none.

    Raises:
        StageError: a scores file is missing or is not of these slates.
    """
    models = json.loads((folder / "metrics.json").read_text(encoding="utf-8")).get("models", {})
    scorers = []
    for name, entry in models.items():
        scores = {part: load_scores(scores_file(folder, name, part), dataset.parts[part]) for part in SCORED}
        scorers.append(Scorer(name, entry["tier"], scores, entry.get("parameters")))
    return scorers


def find_reference(evaluated: list[Evaluated], name: str) -> Evaluated:
    """Return the scorer of a name. Raises ``ConfigError`` where there is none, with the names there are."""
    for each in evaluated:
        if each.name == name:
            return each
    known = ", ".join(each.name for each in evaluated)
    raise ConfigError(f"reference: there is no scorer '{name}' to compare with. Use one of {known}.")


def differences(
    evaluated: list[Evaluated], reference: str, slates: Slates, part: str = "validation", seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return what each scorer's metrics exceed the reference's by, impression by impression.

    The intervals sample the same users for both. A scorer with equal scores differs by exactly 0, interval [0, 0].

    Returns:
        By name of every other scorer: its ``tier``, the mean difference of each metric and its ``<metric>_ci``.

    Raises:
        ConfigError: there is no scorer of the reference's name.
    """
    base = find_reference(evaluated, reference)
    found = {}
    for each in (each for each in evaluated if each is not base):
        more = each.values[part] - base.values[part]
        found[each.name] = {"tier": each.metrics["tier"], **with_intervals(more, slates.user_id, seed)}
    return found


def compare_slices(
    evaluated: list[Evaluated],
    reference: str,
    slices: Mapping[tuple[str, str], np.ndarray],
    slates: Slates,
    part: str = "validation",
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Return the AUC of every scorer on every slice, and its paired difference to the reference.

    Returns:
        One record a slice of which an impression can be evaluated: ``dimension``, ``slice``, ``impressions`` evaluated,
        their ``users``, and ``scorers``: by name ``auc``, ``auc_ci`` and, for all but the reference, ``difference`` and
        ``difference_ci``. Intervals are ``None`` where there are fewer than ``FEW_USERS`` users.

    Raises:
        ConfigError: there is no scorer of the reference's name.
    """
    find_reference(evaluated, reference)
    auc = {each.name: each.values[part][:, 0] for each in evaluated}
    columns = {(name, "auc"): own for name, own in auc.items()}
    columns |= {(name, "difference"): own - auc[reference] for name, own in auc.items() if name != reference}
    values = np.stack(list(columns.values()), axis=1)
    records = []
    for (dimension, label), inside in slices.items():
        rows = inside & ~np.isnan(values[:, 0])
        user = slates.user_id[rows]
        users = len(np.unique(user))
        if not users:
            continue
        means = values[rows].mean(axis=0).tolist()
        ends = user_bootstrap(values[rows], user, seed).tolist() if users >= FEW_USERS else [None] * len(means)
        scorers: dict[str, dict[str, Any]] = {name: {} for name in auc}
        for (name, what), mean, own in zip(columns, means, ends, strict=True):
            scorers[name] |= {what: mean, f"{what}_ci": own}
        head = {"dimension": dimension, "slice": label}
        records.append({**head, "impressions": int(rows.sum()), "users": users, "scorers": scorers})
    return records


def calibration_curves(
    evaluated: list[Evaluated], slates: Slates, part: str = "validation"
) -> dict[str, dict[str, Any]]:
    """Return the calibration curve and its expected error of every scorer that has probabilities.

    Returns:
        By name: ``ece`` and ``curve``, one record a bin with ``candidates``, ``probability`` and ``click_rate``.
    """
    found = {}
    for each in evaluated:
        if part in each.probability:
            curve = reliability(each.probability[part], slates.clicked)
            found[each.name] = {"ece": expected_calibration_error(curve), "curve": curve.to_dict("records")}
    return found


# --- tables ------------------------------------------------------------------------------------------------


def comparison_table(entries: Mapping[str, Mapping[str, Any]], part: str = "validation") -> pd.DataFrame:
    """Tabulate entries of ``metrics.json``, best AUC first: tier, parameters, AUC of the tuning day, all metrics.

    Ranking metrics have their 95 % intervals.
    """
    rows = []
    for name, entry in sorted(entries.items(), key=lambda item: -item[1][part]["auc"]):
        metrics = entry[part]
        row = {"scorer": name, "tier": entry["tier"], "parameters": entry.get("parameters")}
        if part != "tuning":
            row["auc, tuning day"] = entry.get("tuning", {}).get("auc")
        row |= {metric: with_interval(metrics[metric], metrics[f"{metric}_ci"]) for metric in METRICS}
        row |= {key: metrics.get(key) for key in ("logloss", "f1", "accuracy")}
        rows.append(row | {"impressions": metrics["impressions"]})
    table = pd.DataFrame(rows)
    numbers = [c for c in table.columns if c in ("auc, tuning day", "logloss", "f1", "accuracy")]
    return table.astype({"parameters": "Int64"} | dict.fromkeys(numbers, float))


def difference_table(
    difference: Mapping[str, Mapping[str, Any]], parameters: Mapping[str, Mapping[str, Any]], reference: str
) -> pd.DataFrame:
    """Tabulate paired differences to the reference, see ``differences``, with 95 % intervals, largest in AUC first.

    Of the ``parameters`` of the stage that trained a scorer, by scorer, those that the reference has too and that
    differ are shown beside it. The tier has a column of its own: an online update may have raised it.
    """
    base = {key: value for key, value in flat(parameters.get(reference, {})).items() if key != "tier"}
    changed = {
        name: ", ".join(f"{key} {value}" for key, value in flat(own).items() if base.get(key, value) != value)
        for name, own in parameters.items()
    }
    rows = [
        {"scorer": name, "tier": entry["tier"], "parameters that differ": changed.get(name) or None}
        | {metric: with_interval(entry[metric], entry[f"{metric}_ci"], "+") for metric in METRICS}
        for name, entry in sorted(difference.items(), key=lambda item: -item[1]["auc"])
    ]
    return pd.DataFrame(rows, columns=["scorer", "tier", "parameters that differ", *METRICS])


def slice_table(records: list[dict[str, Any]], scorers: list[str]) -> pd.DataFrame:
    """Tabulate slices: the AUC of the first of some scorers, the reference, and the differences of the others."""
    rows = []
    for record in records:
        row = {"slice": f"{record['dimension']}: {record['slice']}", "impressions": record["impressions"]}
        for name in scorers:
            own = record["scorers"][name]
            what, sign, head = ("auc", "", f"AUC, {name}") if name == scorers[0] else ("difference", "+", f"Δ {name}")
            row[head] = with_interval(own[what], own[f"{what}_ci"], sign)
        rows.append(row)
    return pd.DataFrame(rows)


def calibration_table(
    entries: Mapping[str, Mapping[str, Any]], curves: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """Tabulate expected calibration errors, smallest first."""
    rows = [(name, entries[name]["tier"], curve["ece"]) for name, curve in curves.items()]
    table = pd.DataFrame(rows, columns=["scorer", "tier", "calibration error"])
    return table.sort_values("calibration error", kind="stable", ignore_index=True)


def run_table(manifests: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Tabulate what runs of stages took, from their manifests."""
    keys = ["duration_seconds", "peak_memory_mb", "threads", "device"]
    rows = [(stage, *map(manifest.get, keys)) for stage, manifest in manifests.items()]
    table = pd.DataFrame(rows, columns=["stage", "seconds", "peak MB", "threads", "device"])
    return table.astype({"seconds": float, "peak MB": float})
