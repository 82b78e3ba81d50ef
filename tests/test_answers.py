"""The sentences that answer a notebook's question are those of its numbers."""

from dataclasses import replace

import numpy as np
import pytest

from ebnerd_lib.evaluation.answers import ranking_answer, save_results
from ebnerd_lib.evaluation.baselines import baseline_scorers, evaluate_baselines
from ebnerd_lib.evaluation.intervals import FEW_USERS
from ebnerd_lib.models.mf import MFFeatures
from ebnerd_lib.training.inputs import TrainingInputs
from ebnerd_lib.training.model_file import TrainedModel
from ebnerd_lib.training.online import OnlineResult


@pytest.fixture(scope="module")
def baselines(smoke, features):
    """What is learned from, the baselines' scorers and what is found of them."""
    scorers = {each.name: each for each in baseline_scorers(smoke, features)}
    inputs = TrainingInputs.of(smoke, features, "clicks", 24.0)
    return inputs, scorers, evaluate_baselines(smoke, features)


def published(baselines, known, folder, scorer, name, tier, online=None):
    """What is found of a model that scores as a baseline does, and of one that is updated online."""
    inputs, scorers, _ = baselines
    model = TrainedModel.of(name, inputs.new(MFFeatures), replace(inputs, tier=tier))
    model.score = lambda data, slates, *_: scorers[scorer].scores[part_of(data, slates)]
    if online is not None:
        online = OnlineResult(replace(model, name="online", tier="clicks"), scorers[online].scores)
    return save_results(model, online, inputs, known, folder, 0)


def part_of(data, slates):
    return next(part for part, own in data.parts.items() if own is slates)


def test_a_model_is_compared_in_pairs_with_the_best_baseline_that_knows_no_more(baselines, tmp_path):
    known = baselines[-1]
    told = published(baselines, known, tmp_path, "clicks_6h", "same", "content", online="popularity")
    auc = {name: entry["validation"]["auc"] for name, entry in {**known, **told["models"]}.items()}
    found = told["vs_baseline"]
    assert found["same"]["baseline"] == max((n for n in known if known[n]["tier"] in ("ids", "content")), key=auc.get)
    assert found["online"]["baseline"] == max(known, key=auc.get)
    for name, own in found.items():
        assert own["auc"] == pytest.approx(auc[name] - auc[own["baseline"]]), name
        assert own["auc_ci"][0] < own["auc"] < own["auc_ci"][1]
    low, high = found["same"]["auc_ci"]
    assert f"{found['same']['auc']:.4f} [{low:.4f}, {high:.4f}] above {found['same']['baseline']}" in told["answer"]
    own = published(baselines, known, tmp_path, found["online"]["baseline"], "copy", "clicks")
    assert own["vs_baseline"]["copy"]["auc_ci"] == [0, 0] and "no clear difference" in own["answer"]


def test_what_is_missing_is_said(smoke, baselines, tmp_path):
    told = published(baselines, {}, tmp_path, "newest", "new", "content")
    assert told["vs_baseline"] == {} and "no baseline" in told["answer"]
    few = smoke.parts["validation"]
    few = replace(few, user_id=np.arange(len(few)) % (FEW_USERS - 1))
    assert f"{FEW_USERS - 1} users" in ranking_answer(told["models"], {}, "new", few)
    clicked = smoke.parts["validation"].clicked & (np.arange(few.candidates) == np.flatnonzero(few.clicked)[0])
    assert "1 user cannot" in ranking_answer(told["models"], {}, "new", replace(few, clicked=clicked))


def test_the_best_scorer_is_compared_with_the_reference_or_the_next_one(smoke):
    def entry(auc):
        return {"tier": "ids", "validation": {"auc": auc, "auc_ci": [auc - 0.01, auc + 0.01]}}

    entries = {name: entry(auc) for name, auc in (("a", 0.6), ("b", 0.7), ("c", 0.65))}
    to_a = {"b": {"auc": 0.1, "auc_ci": [0.08, 0.12]}, "c": {"auc": 0.05, "auc_ci": [0.03, 0.07]}}
    to_b = {"a": {"auc": -0.1, "auc_ci": [-0.12, -0.08]}, "c": {"auc": -0.05, "auc_ci": [-0.07, 0.01]}}
    slates = smoke.parts["validation"]
    assert "0.1000 [0.0800, 0.1200] above a" in ranking_answer(entries, to_a, "a", slates)
    told = ranking_answer(entries, to_b, "b", slates)
    assert "no clear difference to c" in told and "+0.0500 [-0.0100, +0.0700]" in told
    assert told.startswith("b (tier ids)") and "0.7000 [0.6900, 0.7100]" in told
