"""Metrics against scikit-learn and against their definitions over all orders of tied candidates."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation import metrics
from ebnerd_lib.evaluation.evaluate import with_intervals
from ebnerd_lib.evaluation.metrics import METRICS, mean_metrics, metric, per_slate


def slates(rng, count, longest, levels):
    """Random slates whose scores take few values, so that ties are common, with several clicks each."""
    lengths = rng.integers(2, longest, count)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return rng.integers(0, levels, offsets[-1]).astype(np.float32), rng.random(offsets[-1]) < 0.25, offsets


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_auc_and_ndcg_equal_scikit_learn(levels):
    scores, clicked, offsets = slates(np.random.default_rng(levels), 400, 30, levels)
    found = per_slate(scores, clicked, offsets)
    evaluated = 0
    for row, (begin, end) in enumerate(pairwise(offsets)):
        y, s = clicked[begin:end], scores[begin:end]
        if y.all() or not y.any():
            assert np.isnan(found[row]).all()
            continue
        evaluated += 1
        wanted = [roc_auc_score(y, s), ndcg_score([y], [s], k=5), ndcg_score([y], [s], k=10)]
        np.testing.assert_allclose(found[row, [0, 2, 3]], wanted, rtol=0, atol=1e-12)
    assert evaluated > 200


def reciprocal_rank(order, clicked):
    return np.mean([1 / (place + 1) for place, i in enumerate(order) if clicked[i]])


def first_reciprocal_rank(order, clicked):
    return 1 / (1 + clicked[list(order)].argmax())


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=6))
def test_mrr_is_the_mean_over_all_orders_of_tied_candidates(candidates):
    scores = np.array([score for score, _ in candidates], dtype=float)
    clicked = np.array([click for _, click in candidates])
    found = per_slate(scores, clicked, np.array([0, len(scores)]))[0]
    if clicked.all() or not clicked.any():
        assert np.isnan(found).all()
        return
    sorted_orders = [o for o in permutations(range(len(scores))) if all(np.diff(scores[list(o)]) <= 0)]
    for name, rank in (("mrr", reciprocal_rank), ("mrr_first", first_reciprocal_rank)):
        wanted = np.mean([rank(order, clicked) for order in sorted_orders])
        assert found[METRICS.index(name)] == pytest.approx(wanted, abs=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_order_within_a_slate_and_monotone_transforms_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    scores, clicked, offsets = slates(rng, 20, 12, 6)
    shuffled = np.concatenate([begin + rng.permutation(end - begin) for begin, end in pairwise(offsets)])
    found = per_slate(scores, clicked, offsets)
    np.testing.assert_allclose(per_slate(scores[shuffled], clicked[shuffled], offsets), found, atol=1e-12)
    np.testing.assert_array_equal(per_slate(np.exp(scores) + 1, clicked, offsets), found)


def test_slates_that_cannot_be_evaluated_are_left_out_of_the_mean_not_scored_zero():
    scores, clicked = np.array([2.0, 1.0, 2.0, 1.0]), np.array([True, False, False, False])
    means = mean_metrics(per_slate(scores, clicked, np.array([0, 2, 4])))
    assert list(means) == METRICS and means["auc"] == means["mrr"] == means["ndcg@5"] == means["ndcg@10"] == 1.0


@pytest.mark.parametrize(
    ("scores", "said"), [([np.nan, 1.0], "1 of 2"), ([np.inf, 1.0], "1 of 2"), ([0.0, 0.0, 0.0], "3 scores")]
)
def test_scores_that_are_not_finite_or_not_one_a_candidate_are_refused(scores, said):
    with pytest.raises(ValueError, match=said):
        per_slate(np.array(scores), np.array([True, False]), np.array([0, 2]))


@pytest.fixture
def registry(monkeypatch):
    """Whatever a test registers is forgotten after it."""
    names = list(METRICS)
    monkeypatch.setattr(metrics, "_FUNCTIONS", dict(metrics._FUNCTIONS))
    yield
    METRICS[:] = names


def test_a_metric_of_ones_own_stands_behind_the_official_ones_and_leaves_their_bytes(registry):
    scores, clicked, offsets = slates(np.random.default_rng(0), 300, 12, 4)
    before = per_slate(scores, clicked, offsets)
    seen = []

    @metric("longest", "shortest")
    def lengths(scores, clicked, offsets):
        seen.append(np.add.reduceat(clicked, offsets[:-1], dtype=int))
        return np.stack([np.diff(offsets), -np.diff(offsets)], axis=1)

    metric("one")(lambda scores, clicked, offsets: np.ones(len(offsets) - 1))
    found = per_slate(scores, clicked, offsets)
    evaluated = ~np.isnan(before[:, 0])
    assert METRICS[-3:] == ["longest", "shortest", "one"] and 0 < evaluated.sum() < len(evaluated)
    np.testing.assert_array_equal(found[:, :-3], before)
    assert np.isnan(found[~evaluated]).all() and len(seen) == 1 and (seen[0] > 0).all()
    np.testing.assert_array_equal(found[evaluated, -3], np.diff(offsets)[evaluated])
    np.testing.assert_array_equal(found[evaluated, -2:], np.stack([-np.diff(offsets), np.ones(300)], axis=1)[evaluated])
    means = with_intervals(found, np.arange(300) // 3)
    assert means["longest"] == pytest.approx(np.diff(offsets)[evaluated].mean())
    assert means["longest_ci"][0] < means["longest"] < means["longest_ci"][1] and means["one_ci"] == [1, 1]


def test_slates_are_evaluated_alike_however_many_at_a_time(registry, monkeypatch):
    metric("length")(lambda scores, clicked, offsets: np.diff(offsets))
    scores, clicked, offsets = slates(np.random.default_rng(1), 50, 12, 4)
    whole = per_slate(scores, clicked, offsets)
    monkeypatch.setattr(metrics, "_AT_A_TIME", 7)
    np.testing.assert_array_equal(per_slate(scores, clicked, offsets), whole)


@pytest.mark.parametrize(
    ("returned", "said"), [(np.ones(2), r"\(2, 1\) with 0"), (np.full(1, np.nan), r"\(1, 1\) with 1")]
)
def test_a_metric_that_returns_no_finite_value_a_slate_is_refused_by_name(registry, returned, said):
    metric("odd")(lambda scores, clicked, offsets: returned)
    with pytest.raises(ValueError, match=f"metric odd: returned {said} .* 1 slates .* Return \\(1, 1\\)"):
        per_slate(np.arange(3.0), np.array([True, False, False]), np.array([0, 3]))


def test_a_name_is_given_once():
    names = list(METRICS)
    with pytest.raises(ConfigError, match="metric auc is registered twice"):
        metric("auc")(lambda scores, clicked, offsets: scores)
    assert names == METRICS
