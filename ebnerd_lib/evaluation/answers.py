"""Sentences that answer the question of a notebook with its numbers; ``metrics.json`` holds them as ``answer``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.evaluation.baselines import BASELINES
from ebnerd_lib.evaluation.evaluate import find_scores, load_scores, with_intervals
from ebnerd_lib.evaluation.intervals import FEW_USERS, with_interval
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.features.build import Features
from ebnerd_lib.features.registry import TIERS


def gap(difference: float, interval: list[float], other: str) -> str:
    """Say in words by how much something lies above or below another one, or that no difference is shown.

    >>> gap(0.0808, [0.0775, 0.0841], "clicks_24h"), gap(-0.01, [-0.02, -0.005], "popularity")
    ('0.0808 [0.0775, 0.0841] above clicks_24h', '0.0100 [0.0050, 0.0200] below popularity')
    >>> gap(0.001, [-0.002, 0.004], "mlp")
    'no clear difference to mlp (Δ +0.0010 [-0.0020, +0.0040])'
    """
    low, high = interval
    if low > 0 or high < 0:
        ends = sorted(map(abs, interval))
        return f"{with_interval(abs(difference), ends)} {'above' if low > 0 else 'below'} {other}"
    return f"no clear difference to {other} (Δ {with_interval(difference, interval, '+')})"


def trust(slates: Slates) -> str:
    """Return a sentence that intervals over so few users cannot be trusted; nothing where there are enough."""
    users = len(np.unique(slates.user_id[slates.has_choice]))  # of others nothing is evaluated
    return f" Intervals over {users} user{'s'[: users != 1]} cannot be trusted." if users < FEW_USERS else ""


def training_answer(
    entries: Mapping[str, Mapping[str, Any]],
    baselines: Mapping[str, Mapping[str, Any]],
    data: Dataset,
    features: Features,
    folder: Path,
    seed: int,
) -> dict[str, Any]:
    """Compare each model of a training stage with the best baseline of the same or a lower tier, in pairs.

    Args:
        entries: the stage's ``models``, the trained one first, then maybe the one updated online.
        baselines: of 01.
        data: whose validation was scored.
        features: of validation.
        folder: with the saved scores of the models.
        seed: of the bootstrap over users, and of the baseline ``random``.

    Returns:
        For ``metrics.json``, nothing where no model was evaluated: ``vs_baseline``, by model the ``baseline``, its
        ``tier``, and the mean difference of each metric with its ``<metric>_ci``; and the ``answer``.
    """
    slates, found = data.parts["validation"], dict[str, dict[str, Any]]()
    for model, entry in entries.items():
        known = [name for name, own in baselines.items() if TIERS.index(own["tier"]) <= TIERS.index(entry["tier"])]
        if baseline := max(known, key=lambda name: baselines[name]["validation"]["auc"], default=None):
            own = load_scores(find_scores(model, "validation", [folder]), slates)
            other = BASELINES[baseline][2](data, features, "validation", seed).astype(np.float32)
            values = [per_slate(scores, slates.clicked, slates.offsets) for scores in (own, other)]
            difference = with_intervals(values[0] - values[1], slates.user_id, seed)
            found[model] = {"baseline": baseline, "tier": baselines[baseline]["tier"], **difference}
    if not entries:
        return {}
    model, more = next(iter(entries)), "there is no baseline to compare it with"
    if best := found.get(model):
        more = gap(best["auc"], best["auc_ci"], f"{best['baseline']}, the best baseline of the same or a lower tier")
    answer = f"{model} has AUC {_auc(entries[model])} on validation: {more}.{trust(slates)}"
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

    Args:
        entries: of ``metrics.json``, by name.
        differences: to the ``reference``, see ``compare.differences``.
        reference: its name.
        slates: of validation.
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
