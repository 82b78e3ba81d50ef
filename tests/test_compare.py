"""Scorers side by side: slices, paired differences, calibration curves and the importance of feature groups."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fits import fitted

from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.evaluation import compare
from ebnerd_lib.evaluation.calibration import expected_calibration_error, reliability
from ebnerd_lib.evaluation.compare import permutation_importance, sample_impressions, slices_of
from ebnerd_lib.evaluation.evaluate import Evaluated, Scorer, evaluate_scorer, save_scorer
from ebnerd_lib.evaluation.intervals import FEW_USERS
from ebnerd_lib.evaluation.metrics import METRICS, per_slate
from ebnerd_lib.models.base import find_model


@pytest.fixture(scope="module")
def evaluated(smoke):
    """Three scorers: one by chance, the same with noise that ruins it a little, and its equal under another name."""
    rng = np.random.default_rng(0)
    scores = {part: rng.normal(size=s.candidates) + 1.0 * s.clicked for part, s in smoke.parts.items()}
    noised = {part: own + rng.normal(0, 0.5, len(own)) for part, own in scores.items()}
    scorers = [
        Scorer("a", "clicks", scores, 7),
        Scorer("noised", "clicks", noised),
        Scorer("equal", "content", {part: own.copy() for part, own in scores.items()}),
    ]
    return [evaluate_scorer(scorer, smoke.parts) for scorer in scorers]


# --- slices ------------------------------------------------------------------------------------------------


def test_slices_of_the_tiny_bundle_are_those_counted_by_hand(tiny):
    ids = tiny.parts["validation"].impression_id
    found = {place: sorted(ids[rows].tolist()) for place, rows in slices_of(tiny).items()}
    assert found == {
        # In view in the train part, before the 24th 07:00: 1001 to 1005.
        ("clicked article", "new"): [201, 202, 203, 204],
        # Published an hour before; not in the table; 15 minutes before; on the 28th for the 31st.
        ("age of the clicked article", "1–4 h"): [201],
        ("age of the clicked article", "unknown"): [202],
        ("age of the clicked article", "<1 h"): [203],
        ("age of the clicked article", "24–72 h"): [204],
        ("user", "known"): [201, 203, 204],
        ("user", "new"): [202],
        ("history clicks", "0"): [204],
        ("history clicks", "1–9"): [201, 202, 203],
        ("subscriber", "yes"): [202, 204],
        ("subscriber", "no"): [201, 203],
        ("slate length", "≤5"): [201, 202, 203, 204],
        ("page", "front page"): [201, 202, 204],
        ("page", "article page"): [203],
        ("device", "unknown"): [203],
        ("device", "desktop"): [201],
        ("device", "mobile"): [202, 204],
        ("hour of day, as stored", "06–08"): [201],
        ("hour of day, as stored", "09–11"): [202],
        ("hour of day, as stored", "18–20"): [204],
        ("hour of day, as stored", "21–23"): [203],
    }
    unclicked = {cut: rows.sum() for (cut, label), rows in slices_of(tiny, "tuning").items() if label == "no click"}
    assert unclicked == {"clicked article": 1, "age of the clicked article": 1}


def test_slices_average_to_the_whole_and_differences_are_paired(smoke, evaluated):
    slates = smoke.parts["validation"]
    records = compare.compare_slices(evaluated, "a", slices_of(smoke), slates)
    for name in ("a", "noised"):
        whole = next(each for each in evaluated if each.name == name).metrics["validation"]["auc"]
        for dimension in {record["dimension"] for record in records}:
            own = [record for record in records if record["dimension"] == dimension]
            weight = [record["impressions"] for record in own]
            assert np.average([r["scorers"][name]["auc"] for r in own], weights=weight) == pytest.approx(whole)
    for record in records:
        a, noised, equal = (record["scorers"][name] for name in ("a", "noised", "equal"))
        assert noised["difference"] == pytest.approx(noised["auc"] - a["auc"])
        assert "difference" not in a and equal["difference"] == 0
        if record["users"] < FEW_USERS:
            assert a["auc_ci"] is None and noised["difference_ci"] is None
        else:
            assert equal["difference_ci"] == [0, 0]
            assert a["auc_ci"][0] <= a["auc"] <= a["auc_ci"][1]
    assert {record["users"] < FEW_USERS for record in records} == {True, False}


def test_a_slice_that_cannot_be_evaluated_is_left_out(tiny):
    slates = tiny.parts["validation"]
    unable = np.full((len(slates), len(METRICS)), np.nan)
    scorers = [Evaluated("a", {}, {"validation": unable}, {})]
    assert compare.compare_slices(scorers, "a", slices_of(tiny), slates) == []


# --- differences -------------------------------------------------------------------------------------------


def test_equal_scores_differ_by_exactly_nothing_and_a_noised_copy_by_more(smoke, evaluated):
    found = compare.differences(evaluated, "a", smoke.parts["validation"])
    assert set(found) == {"noised", "equal"}
    for metric in METRICS:
        assert found["equal"][metric] == 0 and found["equal"][f"{metric}_ci"] == [0, 0]
        low, high = found["noised"][f"{metric}_ci"]
        assert low <= found["noised"][metric] <= high < 0
    own = [each.metrics["validation"]["auc"] for each in evaluated]
    assert found["noised"]["auc"] == pytest.approx(own[1] - own[0])


def test_an_unknown_reference_is_refused_with_the_names_there_are(smoke, evaluated):
    with pytest.raises(ConfigError, match=r"no scorer 'b' to compare with. Use one of a, noised, equal"):
        compare.differences(evaluated, "b", smoke.parts["validation"])


def test_saved_scores_give_the_metrics_that_their_stage_reported(smoke, tmp_path):
    rng = np.random.default_rng(1)
    scores = {part: rng.normal(size=smoke.parts[part].candidates) for part in ("tuning", "validation")}
    entry = save_scorer(Scorer("x", "ids", scores, 5), smoke.parts, tmp_path, seed=3).metrics
    (tmp_path / "metrics.json").write_text(json.dumps({"models": {"x": entry}}))
    (saved,) = compare.saved_scorers(tmp_path, smoke)
    assert evaluate_scorer(saved, smoke.parts, seed=3).metrics == entry
    (tmp_path / "scores_x.parquet").write_bytes((tmp_path / "tuning_x.parquet").read_bytes())
    with pytest.raises(StageError, match=r"scores_x\.parquet"):
        compare.saved_scorers(tmp_path, smoke)


def test_the_table_has_all_scorers_by_auc_with_tier_and_parameters(evaluated):
    entries = {each.name: each.metrics for each in evaluated}
    table = compare.comparison_table(entries)
    assert list(table["scorer"]) == ["a", "equal", "noised"]
    assert list(table["tier"]) == ["clicks", "content", "clicks"]
    assert table["parameters"].to_list()[0] == 7 and table["parameters"].isna().to_list() == [False, True, True]
    low, high = entries["a"]["validation"]["auc_ci"]
    assert table["auc"][0] == f"{entries['a']['validation']['auc']:.4f} [{low:.4f}, {high:.4f}]"


# --- calibration -------------------------------------------------------------------------------------------


def test_ties_stay_in_one_bin_whatever_their_order():
    probability = np.array([0.2] * 50 + [0.4] * 10)
    clicked = np.arange(60) % 5 == 0
    found = reliability(probability, clicked)
    assert list(found["candidates"]) == [50, 10]
    pd.testing.assert_frame_equal(found, reliability(probability[::-1], clicked[::-1]))
    np.testing.assert_allclose(found[["probability", "click_rate"]], [[0.2, 0.2], [0.4, 0.2]])
    assert expected_calibration_error(found) == pytest.approx(0.2 * 10 / 60)
    assert expected_calibration_error(reliability(np.full(10, 0.5), np.arange(10) < 5)) == 0
    assert expected_calibration_error(reliability(np.empty(0), np.empty(0, bool))) == 0


# --- importance --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(smoke, features, tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    return fitted(smoke, features, logs, embedding_size=2, hidden=[8], learning_rate=1e-2, epochs=3).model


def test_shuffling_clicks_costs_a_model_of_clicks_and_repeats_by_seed(smoke, features, model):
    rows = sample_impressions(smoke.parts["validation"], 400, seed=0)
    assert len(rows) == 400 and (np.diff(rows) > 0).all() and smoke.parts["validation"].has_choice[rows].all()
    before = np.array(features["validation"].matrix[candidate_rows(smoke.parts["validation"].offsets, rows)])
    table, again = (permutation_importance(model, smoke, features["validation"], "validation", rows) for _ in range(2))
    pd.testing.assert_frame_equal(table, again)
    assert {"clicks", "exposure", "request", "user ids", "article ids"} <= set(table["group"])
    assert table["columns"].sum() == len(model.columns)
    assert table["drop"].is_monotonic_decreasing and table["drop"].iloc[0] > 0.01
    assert all(low <= drop <= high for drop, (low, high) in zip(table["drop"], table["drop_ci"], strict=True))
    slates = smoke.parts["validation"].take(rows)
    scores = model.score(smoke, slates, before, features["validation"].columns)
    whole = per_slate(scores, slates.clicked, slates.offsets)[:, 0].mean()
    np.testing.assert_allclose(table["auc"] + table["drop"], whole)


def test_histories_and_vectors_are_shuffled_of_a_model_that_reads_them_and_one_updated_online_is_refused(
    smoke, features, model
):
    size = smoke.metadata.vectors.shape[1]
    network = find_model("nrms", "nrms")(columns=0, users=1, articles=1, vector_size=size)
    nrms = replace(model, name="nrms", tier="content", network=network, columns=[])
    given = smoke, features["validation"], "validation", np.arange(5)
    with pytest.raises(ConfigError, match=r"mlp_online .*, mlp\."):
        permutation_importance(replace(model, name="mlp_online"), *given)
    table = permutation_importance(nrms, *given)
    assert {*table["group"]} == {"histories", "article vectors"} and {"drop", "drop_ci"} <= {*table.columns}


def test_beside_a_difference_stand_the_parameters_of_both_that_differ():
    own = dict.fromkeys(METRICS, 0.01) | {f"{metric}_ci": [0.0, 0.02] for metric in METRICS}
    difference = {name: {"tier": "ids", **own} for name in ("wide", "same", "other", "baseline")}
    parameters = {
        "mlp": {"dropout": 0.1, "trainer": {"devices": 1}},
        "wide": {"dropout": 0.2, "trainer": {"devices": 2}},
        "same": {"dropout": 0.1, "trainer": {"devices": 1}},
        "other": {"heads": 8, "dropout": 0.1},
    }
    told = compare.difference_table(difference, parameters, "mlp").set_index("scorer")["parameters that differ"]
    assert told["wide"] == "dropout 0.2, trainer.devices 2" and told[["same", "other", "baseline"]].isna().all()
