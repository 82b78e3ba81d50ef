"""The original's outline with its defects mended: a factorisation on ids, and a perceptron on ids and sentiment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.evaluation.audit.replica import EMBEDDING, FACTORS, HIDDEN, LEARNING_RATE, moved_rows
from ebnerd_lib.evaluation.audit.scores import trailing_clicks
from ebnerd_lib.evaluation.audit.sentiment import sentiment_match
from ebnerd_lib.evaluation.judge import judge_both
from ebnerd_lib.features.store import Features
from ebnerd_lib.models.base import find_model
from ebnerd_lib.training.fit import Fit, Plan, train

_SETTINGS = {"learning_rate": LEARNING_RATE, "schedule": "constant", "weight_decay": 0.0, "id_dropout": 0.1}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mf_ids": ("mf", "ids", {"embedding_size": FACTORS, "loss": "listwise", **_SETTINGS}),
    "mlp": ("mlp", "content", {"embedding_size": EMBEDDING, "hidden": HIDDEN, "loss": "bce", **_SETTINGS}),
}
"""Module, information tier and settings of each model: the original's sizes, rate and losses, over slates."""


@dataclass(frozen=True)
class Intended:
    """A model of the original's outline, mended.

    Attributes:
        fit: the trained model and its curve.
        moved: int64, rows of its article table that training has changed; all that it has, if all is well.
        articles: rows of its article table.
        scores: float32 (m,) of ``tuning`` and ``validation``.
    """

    fit: Fit
    moved: np.ndarray
    articles: int
    scores: dict[str, np.ndarray]


def sentiment_features(dataset: Dataset, slates: Slates) -> Features:
    """Return what sentiment tells of each candidate: its own shares, and how they match the user's history."""
    shares = dataset.metadata.sentiment[slates.article]
    matrix = np.column_stack([shares[:, 0], shares[:, 2], sentiment_match(dataset, slates)]).astype(np.float32)
    return Features(matrix, ["negative", "positive", "history_sentiment"])


def train_intended(dataset: Dataset, name: str, epochs: int, seed: int, logs: Path) -> Intended:
    """Train one of ``MODELS`` through the package: slates, one history an impression, early stopping on tuning.

    Args:
        dataset: cut by the quantile of impressions.
        name: of the model.
        epochs: at the most.
        seed: of weights and shuffles.
        logs: where its logs go, in a folder of its own.
    """
    module, tier, settings = MODELS[name]
    features = {part: sentiment_features(dataset, slates) for part, slates in dataset.parts.items()}
    plan = Plan(epochs, patience=epochs, batch_size=256, warmup_hours=0.0, seed=seed, trainer={"accelerator": "cpu"})
    fit = train(dataset, features, module, name, tier, name, settings, plan, logs)
    # The same seed gives the weights that training began with.
    pl.seed_everything(seed, verbose=False)
    fresh = find_model(module, name)(**fit.model.network.hyperparameters)
    before, after = (each.id_tables("article")[0].weight.detach().numpy() for each in (fresh, fit.model.network))
    scores = {
        part: fit.model.score(dataset, dataset.parts[part], features[part].matrix, features[part].columns)
        for part in ("tuning", "validation")
    }
    return Intended(fit, moved_rows(before, after), len(after), scores)


def judge_intended(dataset: Dataset, models: dict[str, Intended], seed: int) -> dict[str, dict[str, object]]:
    """Judge the mended models and, for scale, the clicks of the last 24 hours: entries in the form of ``metrics.json``.

    Threshold and probabilities come from the tuning part, all figures from validation.
    """
    parts = dataset.parts
    scorers = {name: (MODELS[name][1], model.scores) for name, model in models.items()}
    trailing = {part: np.log1p(trailing_clicks(dataset, parts[part])) for part in ("tuning", "validation")}
    scorers["clicks_24h"] = ("clicks", trailing)
    return {
        name: judge_both(tier, scores["tuning"], parts["tuning"], scores["validation"], parts["validation"], seed)[0]
        for name, (tier, scores) in scorers.items()
    }
