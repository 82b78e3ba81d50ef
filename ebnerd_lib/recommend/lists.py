"""Lists of recommendations: the k best of the live articles that a user has not read, diversified, with reasons."""

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.evaluation.space import ArticleSpace
from ebnerd_lib.recommend.competition import Competition, group_effects
from ebnerd_lib.recommend.mmr import rerank
from ebnerd_lib.recommend.requests import Requests
from ebnerd_lib.training.model_file import TrainedModel

REASONS = 3


def pick(requests: Requests, scores: np.ndarray, space: ArticleSpace, k: int, diversity: float = 0.0) -> np.ndarray:
    """Pick the k best unread articles of every user, ties by article index.

    Args:
        requests: n users over p live articles.
        scores: float (n, p), finite.
        space: tells how similar articles are.
        k: articles a list.
        diversity: weight of diversity against the score, see ``ebnerd_lib.recommend.mmr.rerank``.

    Returns:
        int64 (n, k), rows of the requests in order of rank; −1 where fewer are unread.

    Raises:
        ConfigError: ``diversity`` lies outside 0 to 1.
    """
    rows = np.flatnonzero(requests.unread)
    counts = requests.unread.reshape(len(requests), -1).sum(axis=1)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    places = rerank(scores.ravel()[rows], requests.slates.article[rows], offsets, space.vectors, k, diversity)
    return np.where(places >= 0, rows[places], -1)


def articles_of(requests: Requests, picked: np.ndarray) -> np.ndarray:
    """Return the article indices of lists of rows, −1 where they have none."""
    return np.where(picked >= 0, requests.slates.article[picked], -1)


def recommend(
    model: TrainedModel,
    dataset: Dataset,
    requests: Requests,
    competition: Competition,
    scores: np.ndarray,
    picked: np.ndarray,
) -> pd.DataFrame:
    """Describe the picked articles of every user.

    Args:
        model: which scored them.
        dataset: the articles.
        requests: of the users.
        competition: the slates in which the articles were scored.
        scores: float32 (users, pool), see ``score_live``.
        picked: int (users, k), see ``pick``.

    Returns:
        One row a recommendation: ``user_id``, ``model``, ``tier``, ``rank`` (1 best), ``article_id``,
        ``title``, ``category``, ``age_hours``, ``score`` and ``reasons``, the feature groups that raise the score
        most over what it would be if the group were at the mean of the slates.
    """
    user, place = np.nonzero(picked >= 0)
    rows = picked[user, place]
    effects = group_effects(model, dataset, requests, competition)
    articles = dataset.articles.iloc[requests.slates.article[rows]]
    return pd.DataFrame(
        {
            "user_id": requests.slates.user_id[user],
            "model": model.name,
            "tier": model.tier,
            "rank": place + 1,
            "article_id": requests.slates.article_id[rows],
            "title": articles["title"].to_numpy(),
            "category": articles["category_str"].to_numpy(),
            "age_hours": requests.column("age_hours").ravel()[rows],
            "score": scores.ravel()[rows],
            "reasons": _in_words(effects.iloc[rows]),
        }
    )


def join_lists(lists: list[pd.DataFrame]) -> pd.DataFrame:
    """Join the lists of several models, sorted by user, model in the order given, and rank."""
    every = pd.concat(lists, ignore_index=True)
    return every.sort_values(["user_id"], kind="stable", ignore_index=True)


def mean_score_by_rank(lists: pd.DataFrame, model: str) -> np.ndarray:
    """Return by how much each rank's score exceeds the lowest one of its list, the mean over users."""
    own = lists[lists["model"] == model]
    above = own["score"] - own.groupby("user_id")["score"].transform("min")
    return above.groupby(own["rank"]).mean().to_numpy()


def overlap(lists: pd.DataFrame) -> pd.DataFrame:
    """Return, for each user, how many of the recommended articles every two models share."""
    rows = []
    for user, own in lists.groupby("user_id", sort=True):
        by_model = {name: set(articles) for name, articles in own.groupby("model", sort=False)["article_id"]}
        names = list(by_model)
        for place, first in enumerate(names):
            for second in names[place + 1 :]:
                shared, size = len(by_model[first] & by_model[second]), max(len(by_model[first]), len(by_model[second]))
                rows.append(
                    {"user_id": user, "models": " and ".join((str(first), str(second))), "shared": shared, "of": size}
                )
    return pd.DataFrame(rows, columns=["user_id", "models", "shared", "of"])


def _in_words(effects: pd.DataFrame) -> list[str]:
    """Name the groups that raise a score most, largest first; "nothing in particular" where none does."""
    names, values = np.array(effects.columns), effects.to_numpy()
    words = []
    for row in values:
        best = [at for at in np.argsort(-row, kind="stable")[:REASONS] if row[at] > 0.005]
        words.append(", ".join(f"{names[at]} {row[at]:+.2f}" for at in best) or "nothing in particular")
    return words
