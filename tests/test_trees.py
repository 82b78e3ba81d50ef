"""Boosted trees as a stage: they learn, repeat on any number of cores, and come back from a file of plain types."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ebnerd_lib.configs import Boosting
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation.metrics import mean_metrics, per_slate
from ebnerd_lib.features.registry import allowed
from ebnerd_lib.models import trees
from ebnerd_lib.pipeline import params, tune
from ebnerd_lib.training.inputs import TrainingInputs
from ebnerd_lib.training.model_file import load_model, save_model
from ebnerd_lib.training.trees import fit_trees

pytest.importorskip("lightgbm")


def boosted(smoke, features, tier="clicks", objective="lambdarank", heard=None, **boosting):
    settings = {"trees": 12, "leaves": 7, "learning_rate": 0.2, "seed": 0, "objective": objective}
    given = Boosting(**{"min_data_in_leaf": 20, "num_threads": 1, **boosting}).model_dump()
    inputs = TrainingInputs.of(smoke, features, tier, 24.0)
    return fit_trees(inputs, "trees", {**settings, "boosting": given}, heard)


@pytest.mark.parametrize("objective", ["lambdarank", "binary"])
def test_trees_learn_and_keep_what_ranks_the_tuning_day_best(smoke, features, objective):
    heard = []
    model = boosted(smoke, features, objective=objective, heard=heard.append, patience=3)
    aucs = []
    for part in ("tuning", "validation"):
        slates, own = smoke.parts[part], features[part]
        for kept in range(1, model.network.booster.num_trees() + 1):
            scores = model.network.booster.predict(own.matrix, num_iteration=kept)
            aucs.append(mean_metrics(per_slate(scores, slates.clicked, slates.offsets))["auc"])
        if part == "tuning":
            assert np.argmax(aucs) == len(aucs) - 1 and len(heard) == min(len(aucs) + 3, 12)
    assert aucs[-1] > 0.6
    scores = model.score(smoke, slates, own.matrix, own.columns)
    np.testing.assert_allclose(scores, model.network.booster.predict(own.matrix, raw_score=True), rtol=1e-5, atol=1e-6)


def test_trees_repeat_on_any_number_of_cores_and_come_back_from_a_plain_file(smoke, features, tmp_path):
    for threads in (1, 2):
        (tmp_path / str(threads)).mkdir()
        model = boosted(smoke, features, tier="content", num_threads=threads)
        save_model(model, tmp_path / str(threads))
    first, second = (tmp_path / name / "model_trees.pt" for name in "12")
    assert first.read_bytes() == second.read_bytes()
    assert torch.load(first, weights_only=True)["hyperparameters"]["text"].startswith("tree\n")
    loaded, part = load_model(first), features["validation"]
    assert (
        set(loaded.columns) == set(allowed("content"))
        and loaded.network.trained_parameters == model.network.trained_parameters > 50
    )
    given = smoke, smoke.parts["validation"], part.matrix, part.columns
    np.testing.assert_array_equal(loaded.score(*given), model.score(*given))


def test_without_lightgbm_or_without_a_feature_one_error_says_so(smoke, features, monkeypatch):
    with pytest.raises(ConfigError, match="content"):
        boosted(smoke, features, tier="ids")
    monkeypatch.setattr(trees, "lightgbm", None)
    with pytest.raises(ConfigError, match=r"\.\[trees\]"):
        boosted(smoke, features)


def test_trees_are_tuned_as_networks_are(features, smoke_features, monkeypatch, tmp_path):
    monkeypatch.setattr(tune, "complete", lambda profile, stage: SimpleNamespace(artifacts=smoke_features))
    given = params.with_values(params.base_config("smoke", "03_train_trees"), {"trees": 3}, "a test").parameters
    told: list[dict] = []
    done, _ = tune.Aside("smoke", "01_preprocess").train(given, tmp_path, "trees", told.append)
    assert told[0]["val/auc"] == done.curve["val/auc"].max() > 0.5 and not list(tmp_path.iterdir())
