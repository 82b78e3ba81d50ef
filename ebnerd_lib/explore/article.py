"""The life of an article: how often it was in view and clicked, hour by hour, in all of the log."""

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.recommend.requests import in_words

_Z = 1.959964  # of the normal distribution, 97.5 %


def find_article(dataset: Dataset, article_id: int) -> int:
    """Return the index of an article. Raises ``ConfigError`` where the bundle does not know it."""
    known = dataset.articles["article_id"].to_numpy()[1:]
    place = int(np.searchsorted(known, article_id))
    if place == len(known) or known[place] != article_id:
        raise ConfigError(
            f"article: {article_id} is in no table, slate or history of the bundle. Choose one that is listed."
        )
    return place + 1


def life(dataset: Dataset, article: int) -> pd.DataFrame:
    """Count how often an article was in view and clicked, by hour of the clock.

    This looks at all of the log, whatever moment is explored: it tells what became of the article.

    Args:
        dataset: whose log.
        article: its index.

    Returns:
        One row an hour in which it was in view: ``hour`` (int64, microseconds, its beginning), ``inviews``, ``clicks``,
        ``rate`` (clicks a time in view) and ``low`` and ``high``, the 95 % interval of Wilson for it.
    """
    log = dataset.log
    where = np.flatnonzero(log.article == article)
    time = log.time[np.searchsorted(log.offsets, where, side="right") - 1]
    hour, place = np.unique(time // HOUR, return_inverse=True)
    inviews = np.bincount(place, minlength=len(hour))
    clicks = np.bincount(place[log.clicked[where]], minlength=len(hour))
    low, high = wilson(clicks, inviews)
    return pd.DataFrame(
        {
            "hour": hour * HOUR, "inviews": inviews, "clicks": clicks, "rate": clicks / np.maximum(inviews, 1),
            "low": low, "high": high,
        }
    )  # fmt: skip


def wilson(clicks: np.ndarray, inviews: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 95 % interval of a share (Wilson, 1927): it never leaves 0 to 1, however few there are.

    Examples:
        >>> low, high = wilson(np.array([0, 5]), np.array([10, 10]))
        >>> low.round(3), high.round(3)
        (array([0.   , 0.237]), array([0.278, 0.763]))
    """
    n = np.maximum(inviews, 1).astype(np.float64)
    share = clicks / n
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def written(hours: pd.DataFrame) -> pd.DataFrame:
    """Return the hours of ``life`` for readers: hours as text."""
    return hours.assign(hour=[in_words(each)[:16] for each in hours["hour"].tolist()])
