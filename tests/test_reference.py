"""LightGBM as a reference: the same columns, rows and judging as the models, and a clear word where it is missing."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.errors import StageError
from ebnerd_lib.evaluation import reference
from ebnerd_lib.evaluation.judge import load_scores
from ebnerd_lib.evaluation.reference import Boosting, publish_reference, train_reference
from ebnerd_lib.features import store
from ebnerd_lib.features.registry import allowed
from ebnerd_lib.features.store import Features

needs_lightgbm = pytest.mark.skipif(
    not reference.installed(), reason="LightGBM is optional: pip install 'lightgbm>=4.6'"
)
FAST = Boosting(rounds=30, patience=10, learning_rate=0.2, min_data_in_leaf=20, warmup_hours=24)


@pytest.fixture(scope="module")
def features(smoke, smoke_features):
    return {part: store.read(smoke_features, part) for part in smoke.parts}


def test_without_lightgbm_the_error_names_the_remedy(smoke, features, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    assert not reference.installed()
    with pytest.raises(StageError, match=r"not installed.*pip install 'lightgbm>=4\.6'"):
        train_reference(smoke, features, "clicks", FAST)


def test_a_lightgbm_that_does_not_load_says_what_it_needs(smoke, features, monkeypatch):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "lightgbm":
                raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(StageError, match=r"libgomp\.so\.1.*install libgomp1.*libomp"):
        train_reference(smoke, features, "clicks", FAST)


@needs_lightgbm
def test_it_ranks_well_above_chance_and_keeps_the_trees_that_tuning_chose(smoke, features, tmp_path):
    trained = train_reference(smoke, features, "clicks", FAST)
    entry = publish_reference(trained, smoke, tmp_path)
    assert entry["tier"] == "clicks" and 1 <= entry["trees"] <= FAST.rounds
    assert entry["validation"]["auc"] > 0.7
    first = train_reference(smoke, features, "clicks", replace(FAST, rounds=1))
    assert entry["tuning"]["auc"] > publish_reference(first, smoke, tmp_path, "first")["tuning"]["auc"]


@needs_lightgbm
def test_scores_are_saved_whole_and_repeat_exactly(smoke, features, tmp_path):
    for name in ("one", "two"):
        publish_reference(train_reference(smoke, features, "clicks", FAST), smoke, tmp_path, name)
    for kind, part in (("scores", "validation"), ("tuning", "tuning")):
        files = [tmp_path / f"{kind}_{name}.parquet" for name in ("one", "two")]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert len(load_scores(files[0], smoke.parts[part])) == smoke.parts[part].candidates


@needs_lightgbm
@pytest.mark.parametrize("tier", ["content", "exposure"])
def test_it_sees_the_columns_of_its_tier_and_no_others(smoke, features, tier):
    trained = train_reference(smoke, features, tier, FAST)
    assert set(trained.columns) == set(allowed(tier))
    rng = np.random.default_rng(0)
    hidden = [place for place, name in enumerate(features["train"].columns) if name not in allowed(tier)]
    spoilt = {}
    for part, own in features.items():
        matrix = np.array(own.matrix)
        matrix[:, hidden] = rng.random((len(matrix), len(hidden)))
        spoilt[part] = Features(matrix, own.columns)
    again = train_reference(smoke, spoilt, tier, FAST)
    np.testing.assert_array_equal(again.scores["validation"], trained.scores["validation"])


@needs_lightgbm
def test_neither_the_warm_up_nor_the_clicks_of_validation_teach_it(smoke, features):
    wanted = train_reference(smoke, features, "clicks", FAST).scores["validation"]
    train, validation = smoke.parts["train"], smoke.parts["validation"]
    early = train.per_candidate(train.time < train.time.min() + int(FAST.warmup_hours * 3.6e9))
    assert 0.05 < early.mean() < 0.95
    parts = {
        **smoke.parts,
        "train": replace(train, clicked=np.where(early, ~train.clicked, train.clicked)),
        "validation": replace(validation, clicked=~validation.clicked),
    }
    other = Dataset(smoke.articles, smoke.users, parts, smoke.histories)
    np.testing.assert_array_equal(train_reference(other, features, "clicks", FAST).scores["validation"], wanted)
    late = {**smoke.parts, "train": replace(train, clicked=np.where(early, train.clicked, ~train.clicked))}
    other = Dataset(smoke.articles, smoke.users, late, smoke.histories)
    assert not np.array_equal(train_reference(other, features, "clicks", FAST).scores["validation"], wanted)
