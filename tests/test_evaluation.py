"""Calibration, intervals and the metrics of a scorer."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from ebnerd_lib.evaluation.baselines import BASELINES, evaluate_baselines
from ebnerd_lib.evaluation.calibration import classification, fit_calibration
from ebnerd_lib.evaluation.evaluate import (
    Scorer,
    evaluate_scorer,
    load_scores,
    results_table,
    save_scorer,
    save_scores,
)
from ebnerd_lib.features.registry import TIERS


@pytest.fixture(scope="module")
def clicks():
    rng = np.random.default_rng(0)
    scores = rng.normal(3, 4, 5000)
    return scores, rng.random(5000) < 1 / (1 + np.exp(-(0.4 * scores - 3)))


def test_calibration_is_the_maximum_likelihood_fit(clicks):
    scores, clicked = clicks
    found = fit_calibration(scores, clicked)
    missing = clicked - found.probability(scores)
    # Where the likelihood is highest, its derivatives to intercept and slope are 0.
    assert abs(missing.mean()) < 1e-6 and abs((missing * scores).mean()) < 1e-5


def test_threshold_is_the_best_of_all_thresholds(clicks):
    scores, clicked = clicks
    calibration = fit_calibration(scores, clicked)
    probability = calibration.probability(scores)
    best = max(f1_score(clicked, probability >= threshold) for threshold in np.unique(probability)[::7])
    assert f1_score(clicked, probability >= calibration.threshold) >= best


def test_classification_equals_scikit_learn(clicks):
    scores, clicked = clicks
    probability = fit_calibration(scores, clicked).probability(scores)
    found = classification(probability, clicked, 0.3)
    assert found["logloss"] == pytest.approx(log_loss(clicked, probability))
    assert found["f1"] == pytest.approx(f1_score(clicked, probability >= 0.3))
    assert found["accuracy"] == pytest.approx(accuracy_score(clicked, probability >= 0.3))


def test_a_constant_score_gets_the_base_rate_and_perfect_ones_finite_probabilities():
    constant = fit_calibration(np.full(10, 7.0), np.arange(10) < 3)
    np.testing.assert_allclose(constant.probability(np.array([7.0, -100.0])), 0.3)
    perfect = fit_calibration(np.arange(10.0), np.arange(10) >= 5)
    assert np.isfinite([perfect.slope, perfect.intercept]).all()
    assert perfect.probability(np.array([9.0, 0.0])) == pytest.approx([1, 0], abs=0.01)
    with pytest.raises(ValueError, match="both kinds"):
        fit_calibration(np.arange(3.0), np.zeros(3, bool))


def test_scores_file_round_trip_and_columns(smoke, tmp_path):
    slates = smoke.parts["validation"]
    scores = np.random.default_rng(0).normal(size=slates.candidates)
    save_scores(tmp_path / "scores_x.parquet", slates, scores)
    table = pq.read_table(tmp_path / "scores_x.parquet")
    kinds = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert kinds == {"impression_id": "uint32", "article_id": "int32", "clicked": "bool", "score": "float"}
    order = np.argsort(slates.row)
    assert (np.diff(slates.row) < 0).any(), "slates are in order of time, the file is not"
    np.testing.assert_array_equal(table["article_id"].to_numpy(), slates.take(order).article_id)
    np.testing.assert_array_equal(
        table["impression_id"].to_numpy(), np.repeat(slates.impression_id[order], slates.lengths[order])
    )
    np.testing.assert_array_equal(load_scores(tmp_path / "scores_x.parquet", slates), scores.astype(np.float32))


@pytest.mark.parametrize("spoil", [lambda s: s[:-1], lambda s: np.where(np.arange(len(s)) == 3, np.nan, s)])
def test_scores_that_are_missing_or_not_finite_are_not_saved(smoke, tmp_path, spoil):
    slates = smoke.parts["tuning"]
    with pytest.raises(ValueError, match="finite scores"):
        save_scores(tmp_path / "s.parquet", slates, spoil(np.zeros(slates.candidates)))
    assert not (tmp_path / "s.parquet").exists()


def test_evaluate_counts_every_impression_once(smoke):
    slates = smoke.parts["validation"]
    scores = np.random.default_rng(0).random(slates.candidates)
    metrics = evaluate_scorer(Scorer("x", "ids", {"validation": scores}), smoke.parts).metrics["validation"]
    assert metrics["impressions"] + metrics["left_out"] == len(slates)


def test_metrics_are_those_of_the_scores_as_saved(smoke, tmp_path):
    tuning, validation = smoke.parts["tuning"], smoke.parts["validation"]
    # Differences beyond float32 vanish in the file, so they must not count in the metrics either.
    fine = 1.0 + np.random.default_rng(0).random(validation.candidates) * 1e-12
    scores = {"tuning": np.arange(tuning.candidates, dtype=float), "validation": fine}
    entry = save_scorer(Scorer("fine", "ids", scores), smoke.parts, tmp_path).metrics
    assert entry["validation"]["auc"] == 0.5


def test_calibration_comes_from_the_tuning_day_whatever_is_clicked_on_validation(smoke):
    tuning, validation = smoke.parts["tuning"], smoke.parts["validation"]
    rng = np.random.default_rng(0)
    scores = {"tuning": rng.random(tuning.candidates), "validation": rng.random(validation.candidates)}
    wanted = fit_calibration(scores["tuning"], tuning.clicked).probability(scores["validation"])
    for slates in (validation, replace(validation, clicked=~validation.clicked)):
        found = evaluate_scorer(Scorer("x", "ids", scores), {"tuning": tuning, "validation": slates})
        np.testing.assert_array_equal(found.probability["validation"], wanted)


def test_baselines_know_what_their_tier_allows_and_order_as_on_any_news_site(smoke, features):
    entries = evaluate_baselines(smoke, features)
    assert set(entries) == set(BASELINES)
    auc = {name: entry["validation"]["auc"] for name, entry in entries.items()}
    assert abs(auc["random"] - 0.5) < 0.03
    assert auc["clicks_24h"] > auc["random"] + 0.05
    table = results_table(entries)
    assert [float(text.split()[0]) for text in table["auc"]] == pytest.approx(
        sorted(auc.values(), reverse=True), abs=1e-4
    )
    assert set(table["tier"]) == set(TIERS)
    fewer = {part: replace(own, columns=[f"no {name}" for name in own.columns]) for part, own in features.items()}
    assert set(evaluate_baselines(smoke, fewer)) == {"random", "popularity"}
