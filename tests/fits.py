"""Models: one trained as a stage does it, with the parameters of a profile and some set anew, and untrained ones."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.evaluation.diversity import article_space
from ebnerd_lib.features.build import Features
from ebnerd_lib.features.registry import allowed
from ebnerd_lib.models.base import find_model
from ebnerd_lib.pipeline.params import load_config
from ebnerd_lib.pipeline.train import Fit, fit, inputs_of
from ebnerd_lib.recommend import lists
from ebnerd_lib.recommend import requests as rec
from ebnerd_lib.training.model_file import TrainedModel

PROFILE = {"03_train_news.nrms": "news"}


def parameters(stage: str = "03_train_mlp", **changes: Any) -> dict[str, Any]:
    """The parameters of a stage, those of profile smoke where it has it; keys of `training` are set in that group."""
    given = load_config(PROFILE.get(stage, "smoke"), stage).parameters
    training = {name: changes.pop(name) for name in given["training"] if name in changes}
    return {**given, **changes, "training": {**given["training"], "warmup_hours": 24.0, **training}}


def fitted(
    data: Dataset, features: dict[str, Features], logs: Path, stage: str = "03_train_mlp", report=None, **changes: Any
) -> Fit:
    """A model that is trained on the CPU, its logs in a folder named as the model."""
    given = parameters(stage, **{"trainer": {"accelerator": "cpu", "devices": 1}, **changes})
    return fit(given, inputs_of(given, data, features), logs, given.get("model", "mlp"), report)


def make_model(
    data: Dataset, module="mlp", name="mlp", tier="clicks", columns=None, trained_on="live", **layers
) -> TrainedModel:
    """A model with random weights and the vocabularies of the train part."""
    torch.manual_seed(0)
    columns = allowed(tier) if columns is None else columns
    train = data.parts["train"]
    users, articles = Vocabulary(train.user_id), Vocabulary(train.article_id)
    network = find_model(module, name)(columns=len(columns), users=len(users), articles=len(articles), **layers)
    return TrainedModel(name, tier, network.eval(), columns, users, articles, trained_on)


def recommend(model: TrainedModel, data: Dataset, requests: rec.Requests, k: int, diversity=0.0) -> pd.DataFrame:
    """Score, pick and describe, as the notebook does."""
    scores = lists.score(model, data, requests)
    picked = lists.pick(requests.slates, scores, article_space(data), k, diversity)
    return lists.recommend(model, data, requests, scores, picked)
