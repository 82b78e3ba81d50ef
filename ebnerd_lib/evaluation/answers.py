"""The results of a stage: files, entries of ``metrics.json``, and the sentence that answers the notebook's question."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ebnerd_lib.data.slates import Slates
from ebnerd_lib.data.summary import cold_start, seen_candidates
from ebnerd_lib.evaluation.baselines import BASELINES
from ebnerd_lib.evaluation.evaluate import SCORED, Evaluated, Scorer, save_scorer, with_intervals
from ebnerd_lib.evaluation.intervals import gap, trust, with_interval
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.features.registry import TIERS
from ebnerd_lib.training.inputs import TrainingInputs
from ebnerd_lib.training.model_file import TrainedModel, save_model
from ebnerd_lib.training.online import OnlineResult


def save_results(
    model: TrainedModel,
    online: OnlineResult | None,
    inputs: TrainingInputs,
    baselines: Mapping[str, Mapping[str, Any]],
    folder: Path,
    seed: int,
) -> dict[str, Any]:
    """Publish a trained model, and the one updated online: ``model_<name>.pt`` and the files of ``save_scorer``.

    The model scores the tuning day and validation here. Of the one updated online the scores are those that it gave on
    the way: its file holds the last state, which has seen what it would score. Each is compared in pairs with the best
    of the ``baselines`` of 01 that have the same or a lower tier.

    Returns:
        What the stage's ``metrics.json`` holds: ``models``, an entry a model; ``learned_from``, see
        ``TrainingInputs.counts``; ``ids``, what is new on validation and what ids can tell apart; ``vs_baseline``, by
        model the ``baseline``, its ``tier``, and the mean difference of each metric with its ``<metric>_ci``; and the
        ``answer``. A model trained on what is live scores no logged slates: ``live`` names it in place of ``models``,
        and beside it stands ``learned_from`` alone.

    Raises:
        ValueError: scores are missing or not finite.
    """
    data, learned_from = inputs.dataset, inputs.counts(model.network)
    if inputs.slates == "live":
        save_model(model, folder)
        return {"live": {model.name: {"tier": model.tier}}, "learned_from": learned_from}
    seen = {part: (data.parts[part], inputs.features[part]) for part in SCORED}
    static = {part: model.score(data, slates, own.matrix, own.columns) for part, (slates, own) in seen.items()}
    evaluated = []
    for each, scores in [(model, static), *([(online.model, online.scores)] if online else [])]:
        save_model(each, folder)
        scorer = Scorer(each.name, each.tier, scores, each.network.trained_parameters)
        evaluated.append(save_scorer(scorer, data.parts, folder, seed))
    return {
        "models": {each.name: each.metrics for each in evaluated},
        "learned_from": learned_from,
        "ids": {**cold_start(data), **seen_candidates(data, "validation", inputs.articles)},
        **_vs_baselines(evaluated, baselines, inputs, seed),
    }


def _vs_baselines(
    evaluated: Sequence[Evaluated], baselines: Mapping[str, Mapping[str, Any]], inputs: TrainingInputs, seed: int
) -> dict[str, Any]:
    """Return ``vs_baseline`` and ``answer``, see ``save_results``."""
    data, slates, found = inputs.dataset, inputs.dataset.parts["validation"], dict[str, dict[str, Any]]()
    for each in evaluated:
        tier = TIERS.index(each.metrics["tier"])
        known = [name for name, own in baselines.items() if TIERS.index(own["tier"]) <= tier]
        if baseline := max(known, key=lambda name: baselines[name]["validation"]["auc"], default=None):
            other = BASELINES[baseline][2](data, inputs.features["validation"], "validation", seed).astype(np.float32)
            ahead = each.values["validation"] - per_slate(other, slates.clicked, slates.offsets)
            difference = with_intervals(ahead, slates.user_id, seed)
            found[each.name] = {"baseline": baseline, "tier": baselines[baseline]["tier"], **difference}
    name, more = evaluated[0].name, "there is no baseline to compare it with"
    if best := found.get(name):
        more = gap(best["auc"], best["auc_ci"], f"{best['baseline']}, the best baseline of the same or a lower tier")
    answer = f"{name} has AUC {_auc(evaluated[0].metrics)} on validation: {more}.{trust(slates)}"
    return {"vs_baseline": found, "answer": answer}


def _auc(entry: Mapping[str, Any]) -> str:
    return with_interval(entry["validation"]["auc"], entry["validation"]["auc_ci"])


def ranking_answer(
    entries: Mapping[str, Mapping[str, Any]],
    differences: Mapping[str, Mapping[str, Any]],
    reference: str,
    slates: Slates,
) -> str:
    """Say which scorer ranks validation best, and by how much more than the reference, or than the next one.

    ``entries`` are those of ``metrics.json``, ``differences`` those to the reference, see ``compare.differences``.
    """
    best = max(entries, key=lambda name: entries[name]["validation"]["auc"])
    if best in differences:
        more = gap(differences[best]["auc"], differences[best]["auc_ci"], f"{reference}, the reference")
    elif differences:
        other = max(differences, key=lambda name: differences[name]["auc"])
        low, high = differences[other]["auc_ci"]
        more = gap(-differences[other]["auc"], [-high, -low], f"{other}, the next")
    else:
        more = "there is no other scorer"
    tier, auc = entries[best]["tier"], _auc(entries[best])
    return f"{best} (tier {tier}) ranks validation best, with AUC {auc}: {more}.{trust(slates)}"
