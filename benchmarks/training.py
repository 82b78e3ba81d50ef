"""Models of the package for benchmarks, with the parameters of the profile ``sample``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.evaluation.metrics import mean_metrics, per_slate
from ebnerd_lib.features.store import Features, usable
from ebnerd_lib.models.base import SlateModel, find_model
from ebnerd_lib.pipeline.config import load_config
from ebnerd_lib.training.batches import Lookup, Reading, SlateData, training_rows
from ebnerd_lib.training.fit import Fit, Plan, quiet, train
from ebnerd_lib.training.model_file import TrainedModel

PROFILE, TIER = "sample", "clicks"
STAGES = {"mf": "02_train_mf", "mlp": "03_train_mlp"}


def parameters(module: str) -> dict[str, Any]:
    """Return the effective parameters of the notebook that trains the models of a module."""
    return load_config(PROFILE, STAGES[module]).parameters


def train_model(
    data: Dataset, features: dict[str, Features], module: str, model: str, logs: Path, epochs: int | None = None,
    patience: int | None = None, report: Callable[[dict[str, Any]], None] | None = None,
) -> Fit:  # fmt: skip
    """Train a model on the CPU as its notebook does, for a number of epochs of one's own where one is given."""
    given = parameters(module)
    plan = Plan(
        given["epochs"] if epochs is None else epochs, given["patience"] if patience is None else patience,
        given["batch_size"], given["warmup_hours"], given["seed"], {"accelerator": "cpu", "devices": 1},
    )  # fmt: skip
    return train(data, features, module, model, TIER, model, given, plan, logs, report)


def network_and_data(
    data: Dataset, features: dict[str, Features], module: str, model: str
) -> tuple[SlateModel, SlateData]:
    """Return an untrained network and the batches of training and tuning, as ``train_model`` makes them."""
    quiet()
    given, kind = parameters(module), find_model(module, model)
    slates = data.parts["train"]
    columns = usable(features["train"], TIER) if kind.uses_features else []
    rows = training_rows(slates, given["warmup_hours"])
    users, articles = _vocabularies(data, given["warmup_hours"])
    pl.seed_everything(given["seed"], verbose=False)
    network = kind(
        columns=len(columns), users=len(users), articles=len(articles),
        vector_size=data.metadata.vectors.shape[1] if kind.uses_vectors else 0,
        **{key: value for key, value in given.items() if key in kind.settings()},
    )  # fmt: skip
    if columns:
        network.transform.fit(features["train"].matrix, candidate_rows(slates.offsets, rows), columns)
    batches = SlateData(
        data, features["train"], features["tuning"], columns, Lookup.between(data, users, articles),
        given["batch_size"], given["warmup_hours"], given["seed"], Reading.of(data, network),
    )  # fmt: skip
    return network, batches


def untrained(data: Dataset, features: dict[str, Features], module: str, model: str) -> TrainedModel:
    """Return a model whose weights are as drawn: its scores take as long as those of a trained one."""
    network, _ = network_and_data(data, features, module, model)
    columns = [features["train"].columns[place] for place in usable(features["train"], TIER)]
    users, articles = _vocabularies(data, parameters(module)["warmup_hours"])
    return TrainedModel(
        model, module, TIER, network.eval(), columns if network.uses_features else [], users, articles
    )  # fmt: skip


def auc_of(data: Dataset, scores: np.ndarray, part: str = "validation") -> float:
    """Return the AUC of the scores of a part."""
    slates = data.parts[part]
    return mean_metrics(per_slate(scores, slates.clicked, slates.offsets))["auc"]


def score_part(fit: Fit, data: Dataset, features: dict[str, Features], part: str) -> np.ndarray:
    """Score the candidates of a part."""
    return fit.model.score(data, data.parts[part], features[part].matrix, features[part].columns)


def _vocabularies(data: Dataset, warmup_hours: float) -> tuple[Vocabulary, Vocabulary]:
    seen = data.parts["train"].take(training_rows(data.parts["train"], warmup_hours))
    return Vocabulary(seen.user_id), Vocabulary(seen.article_id)
