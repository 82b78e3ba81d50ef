"""Uncertainty by bootstrap over users: impressions of one user are not independent, users are."""

# mypy: disable-error-code="no-untyped-def"

import numpy as np
from numba import njit

from ebnerd_lib.data.slates import Slates

DRAWS = 1000
TAILS = (1 - 0.95) / 2, (1 + 0.95) / 2
FEW_USERS = 20
"""Below so many users no method holds its level."""
_AT_A_TIME = 1 << 22
"""Users sampled at a time: the memory of the samples is bounded by this, whatever their number."""


def user_bootstrap(values: np.ndarray, user: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return 95 % bootstrap-t intervals of the mean over impressions, users sampled with replacement.

    The mean over impressions is a ratio of sums over users, and users differ a hundredfold in how many impressions
    they have. Percentiles of the resampled means are then too narrow, and BCa more so. So each resampled mean is
    studentised, t* = (mean* − mean) / error*, with the linearised standard error of a ratio (Efron and Tibshirani,
    1993, chapter 12), and the interval is mean − t*(0.975) · error to mean − t*(0.025) · error, where ``error`` is
    the jackknife's, which weighs a user's residual by 1 / (1 − the user's share of impressions) (Bell and
    McCaffrey, 2002). Of 3,000 samples of 120 to 400 users, the 95 % interval held the truth in 95.3 % where
    impressions a user are geometric, 94.5 % where they are lognormal with σ .8; percentiles in 94.7 and 93.8 %.

    All columns share the same draws of users. For a paired comparison, pass the differences of two models over the
    same impressions: where both are equal, the interval is exactly [0, 0]. Values are float64 (n, k), one row an
    impression, whose user is in ``user`` (n,); rows whose first value is NaN are left out.

    Returns:
        float64 (k, 2), lower and upper ends; NaN where there is no impression, and a point where all
        impressions are of one user. Below ``FEW_USERS`` users, percentiles: too narrow, but within the values.
        The same bytes for any number of threads.

    Examples:
        >>> user_bootstrap(np.array([[1.0], [1.0], [1.0]]), np.array([1, 2, 2]))
        array([[1., 1.]])
    """
    evaluated = ~np.isnan(values[:, 0])
    values, user = values[evaluated], user[evaluated]
    if not len(values):
        return np.full((values.shape[1], 2), np.nan)
    _, index = np.unique(user, return_inverse=True)
    users = int(index.max()) + 1
    counts = np.bincount(index, minlength=users).astype(np.float64)
    sums = np.stack([np.bincount(index, weights=column, minlength=users) for column in values.T], axis=1)
    mean = sums.sum(axis=0) / counts.sum()
    residual = sums - mean * counts[:, None]
    shift, error = _resample(counts, residual, seed)
    if users < FEW_USERS:
        return (mean + np.quantile(shift, TAILS, axis=0)).T
    # Where nothing varies, shift and error are both 0 (or what rounding leaves of it): the interval is a point.
    t = np.divide(shift, error, out=np.zeros_like(shift), where=error > 0)
    whole = np.sqrt(((residual / (1 - counts / counts.sum())[:, None]) ** 2).sum(axis=0)) / counts.sum()
    # With B draws, the level of the i-th smallest is i / (B + 1).
    low, high = np.quantile(t, TAILS, axis=0, method="weibull")
    ends = np.stack([mean - high * whole, mean - low * whole])
    # Where few users vary, samples without them have an error of almost 0: a mean cannot leave the values.
    return np.clip(ends, values.min(axis=0), values.max(axis=0)).T


def with_interval(value: float, interval: list[float] | None, sign: str = "", digits: int = 4) -> str:
    """Write a value with its interval; – where there is no value.

    >>> with_interval(0.78749, [0.7845, 0.79052]), with_interval(0.004, None, "+"), with_interval(float("nan"), None)
    ('0.7875 [0.7845, 0.7905]', '+0.0040', '–')
    """
    if not np.isfinite(value):
        return "–"
    # Adding 0.0 after rounding: there is no -0.0000.
    mean, *ends = (f"{round(each, digits) + 0.0:{sign}.{digits}f}" for each in (value, *(interval or ())))
    return f"{mean} [{', '.join(ends)}]" if ends else mean


def gap(difference: float, interval: list[float], other: str) -> str:
    """Say in words by how much something lies above or below another one, or that no difference is shown.

    >>> gap(0.0808, [0.0775, 0.0841], "clicks_24h"), gap(-0.01, [-0.02, -0.005], "popularity")
    ('0.0808 [0.0775, 0.0841] above clicks_24h', '0.0100 [0.0050, 0.0200] below popularity')
    >>> gap(0.001, [-0.002, 0.004], "mlp")
    'no clear difference to mlp (Δ +0.0010 [-0.0020, +0.0040])'
    """
    low, high = interval
    if low > 0 or high < 0:
        ends = sorted(map(abs, interval))
        return f"{with_interval(abs(difference), ends)} {'above' if low > 0 else 'below'} {other}"
    return f"no clear difference to {other} (Δ {with_interval(difference, interval, '+')})"


def trust(slates: Slates) -> str:
    """Return a sentence that intervals over so few users cannot be trusted; nothing where there are enough."""
    users = len(np.unique(slates.user_id[slates.has_choice]))  # of others nothing is evaluated
    return f" Intervals over {users} user{'s'[: users != 1]} cannot be trusted." if users < FEW_USERS else ""


def _resample(counts: np.ndarray, residual: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw users anew: by how much each mean shifts, and its standard error in the sample, both (DRAWS, k)."""
    users = len(counts)
    rng = np.random.default_rng(seed)
    shift, error = np.empty((2, DRAWS, residual.shape[1]))
    step = max(1, _AT_A_TIME // users)
    for start in range(0, DRAWS, step):
        rows = slice(start, min(start + step, DRAWS))
        drawn = rng.integers(0, users, (rows.stop - start, users), dtype=np.int32)
        _sum_draws(drawn, counts, residual, shift[rows], error[rows])
    return shift, error


@njit(cache=True, nogil=True)
def _sum_draws(drawn, counts, residual, shift, error):
    """Sum over the users of each draw, one after the other: BLAS may add in an order that depends on threads."""
    columns = residual.shape[1]
    linear, square, cross = np.empty(columns), np.empty(columns), np.empty(columns)
    for draw in range(drawn.shape[0]):
        linear[:], square[:], cross[:] = 0.0, 0.0, 0.0
        size = size_square = 0.0
        for user in drawn[draw]:
            count = counts[user]
            size += count
            size_square += count * count
            for column in range(columns):
                value = residual[user, column]
                linear[column] += value
                square[column] += value * value
                cross[column] += value * count
        for column in range(columns):
            mean = linear[column] / size
            variance = square[column] - 2 * mean * cross[column] + mean * mean * size_square
            shift[draw, column] = mean
            error[draw, column] = np.sqrt(max(variance, 0.0)) / size
