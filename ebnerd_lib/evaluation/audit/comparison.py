"""The last table of the audit: the original's two models as recorded, repeated here, as intended, and our own."""

from typing import Any

import pandas as pd

from ebnerd_lib.evaluation.audit.replica import Replica

RECORDED = {
    "factorisation": {"auroc": 0.4985, "f1": 0.4351},
    "perceptron": {"auroc": 0.4984, "f1": 0.0018},
}
"""Validation figures printed in the original notebook: cells "Print the logs" of its two models, on ebnerd_small."""
_MENDED = {"factorisation": "mf_ids", "perceptron": "mlp"}


def compare(replicas: dict[str, Replica], entries: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Tabulate AUC and F1 of each model of the original: recorded, repeated here, and mended; then our own scorers.

    Args:
        replicas: ``factorisation`` and ``perceptron``.
        entries: of the mended models ``mf_ids`` and ``mlp``, and of any further scorer, as in ``metrics.json``.

    Returns:
        One row a figure: ``model``, ``figures``, ``auc is``, ``tier``, ``auc``, ``f1``. Where no batch had an AUC, NaN.
    """
    rows: list[dict[str, object]] = []
    for model, recorded in RECORDED.items():
        kind = "halves of a batch" if model == "factorisation" else "pooled, by batch"
        replica, name = replicas[model], _MENDED[model]
        rows += [
            _row(model, "as recorded, ebnerd_small", kind, "–", recorded["auroc"], recorded["f1"]),
            _row(model, "the original's way, this bundle", kind, "–", replica.auroc, replica.f1),
            _judged(model, "as intended, this bundle", entries[name]),
        ]
    for name in entries:
        if name not in _MENDED.values():
            rows.append(_judged(name, "ours, this bundle", entries[name]))
    return pd.DataFrame(rows)


def _judged(model: str, figures: str, entry: dict[str, Any]) -> dict[str, object]:
    found = entry["validation"]
    return _row(model, figures, "per impression", entry["tier"], found["auc"], found["f1"])


def _row(model: str, figures: str, kind: str, tier: str, auc: float, f1: float) -> dict[str, object]:
    return {"model": model, "figures": figures, "auc is": kind, "tier": tier, "auc": auc, "f1": f1}
