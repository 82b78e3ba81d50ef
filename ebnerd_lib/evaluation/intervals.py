"""Uncertainty by bootstrap over users: impressions of one user are not independent, users are."""

import numpy as np


def user_bootstrap(
    values: np.ndarray, user: np.ndarray, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> np.ndarray:
    """Return percentile intervals of the mean over impressions, users drawn with replacement.

    For a paired comparison, pass the differences of two models over the same impressions.

    Args:
        values: float64 (n, k), one row an impression; rows whose first value is NaN are left out.
        user: int (n,), whose impression it is.
        draws: number of bootstrap samples.
        seed: seed of the draws.
        level: coverage.

    Returns:
        float64 (k, 2), lower and upper ends; NaN where there is no impression, and a point where all
        impressions are of one user.

    Examples:
        >>> user_bootstrap(np.array([[1.0], [1.0], [1.0]]), np.array([1, 2, 2]))
        array([[1., 1.]])
    """
    judged = ~np.isnan(values[:, 0])
    values, user = values[judged], user[judged]
    if not len(values):
        return np.full((values.shape[1], 2), np.nan)
    _, index = np.unique(user, return_inverse=True)
    users = int(index.max()) + 1
    counts = np.bincount(index, minlength=users).astype(np.float64)
    sums = np.stack([np.bincount(index, weights=column, minlength=users) for column in values.T])
    rng = np.random.default_rng(seed)
    means = np.empty((draws, values.shape[1]))
    for draw in range(draws):
        weight = np.bincount(rng.integers(0, users, users), minlength=users)
        # Sums rather than a matrix product: BLAS may add in another order with another number of threads.
        means[draw] = (sums * weight).sum(axis=1) / (counts * weight).sum()
    tail = (1 - level) / 2
    return np.quantile(means, [tail, 1 - tail], axis=0).T
