"""Intervals over users: their coverage, paired differences, and that the same input gives the same bytes."""

import numpy as np
import pytest
from runs import python

from ebnerd_lib.evaluation.intervals import FEW_USERS, user_bootstrap
from ebnerd_lib.pipeline.paths import ROOT


def draw_log(rng, users):
    """Impressions of users who differ widely in number and quality, busy ones a little better: values, user."""
    counts = rng.geometric(0.1, users)
    quality = np.clip(0.65 + 0.03 * np.log(counts) + rng.normal(0, 0.1, users), 0.02, 0.98)
    user = np.repeat(np.arange(users), counts)
    return rng.beta(2 * quality[user], 2 * (1 - quality[user])), user


@pytest.fixture(scope="module")
def log():
    values, user = draw_log(np.random.default_rng(5), 300)
    return values[:, None], user


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = draw_log(rng, 400_000)[0].mean()
    hits = below = 0
    for trial in range(2000):
        values, user = draw_log(rng, int(rng.integers(120, 401)))
        low, high = user_bootstrap(values[:, None], user, seed=trial)[0]
        hits += low <= truth <= high
        below += truth < low
    assert 0.94 <= hits / 2000 <= 0.96
    assert 0.01 <= below / 2000 <= 0.04  # and misses on both sides


def test_columns_share_their_draws_and_do_not_touch_each_other(log):
    values, user = log
    rng = np.random.default_rng(1)
    both = np.hstack([values, rng.random(values.shape)])
    np.testing.assert_array_equal(user_bootstrap(both, user)[0], user_bootstrap(values, user)[0])
    # A mirror image has the mirrored interval only if its users are drawn alike.
    (low, high), mirrored = user_bootstrap(np.hstack([values, -values]), user)
    np.testing.assert_allclose(mirrored, [-high, -low], atol=1e-12)


@pytest.mark.parametrize("users", [1, 2, FEW_USERS - 1, FEW_USERS])
def test_few_users_give_finite_ends(users):
    rng = np.random.default_rng(users)
    values, user = rng.random((5 * users, 1)), np.repeat(np.arange(users), 5)
    low, high = user_bootstrap(values, user)[0]
    assert np.isfinite([low, high]).all()
    assert low < values.mean() < high if users > 1 else low == high
    if users < FEW_USERS:
        assert values.min() <= low and high <= values.max()


def test_nothing_to_evaluate_gives_no_interval():
    assert np.isnan(user_bootstrap(np.full((3, 2), np.nan), np.arange(3))).all()
    assert np.isnan(user_bootstrap(np.empty((0, 4)), np.empty(0, np.int64))).all()


def test_the_same_bytes_by_seed_for_any_number_of_threads(log):
    code = (
        "import numpy as np, hashlib; from ebnerd_lib.evaluation.intervals import user_bootstrap\n"
        "rng = np.random.default_rng(0); v = rng.random((5000, 4)); u = rng.integers(0, 700, 5000)\n"
        "print(hashlib.sha256(user_bootstrap(v, u).tobytes()).hexdigest())"
    )
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    one, two = (python(ROOT, "-c", code, **dict.fromkeys(names, threads)).stdout for threads in "12")
    assert one == two != ""
    values, user = log
    assert (user_bootstrap(values, user, seed=1) != user_bootstrap(values, user, seed=2)).any()


@pytest.mark.parametrize("varying", [1, 3])
def test_where_few_users_vary_the_interval_is_not_as_wide_as_their_values(varying):
    user = np.repeat(np.arange(100), 3)
    values = np.zeros((300, 1))
    values[3 * np.arange(varying)] = -0.16
    ((low, high),) = user_bootstrap(values, user, 0)
    assert 8 * values.mean() <= low <= values.mean() <= high <= 0
