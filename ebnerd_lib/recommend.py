"""Recommend articles to users at a moment: candidates that are live, scored in one pass, with reasons."""

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import UNKNOWN_TIME, Dataset
from ebnerd_lib.data.slates import HOUR, Slates
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.features.build import build
from ebnerd_lib.features.registry import every_column
from ebnerd_lib.features.store import Features, world_of
from ebnerd_lib.training.model_file import TrainedModel

REASONS = 3


@dataclass(frozen=True)
class Requests:
    """One slate a user, of all live articles that the user has not read, with their features.

    Attributes:
        slates: the slates, one impression a user.
        matrix: float32 (candidates, columns).
        columns: names of the columns.
    """

    slates: Slates
    matrix: np.ndarray
    columns: list[str]


def moment(dataset: Dataset, time: str) -> int:
    """Return a moment in microseconds from its text, or the end of the log where the text is empty.

    Raises:
        ConfigError: the text is no time.
    """
    if not time:
        return int(dataset.log.time.max()) + 1
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?)?", time):
            raise ValueError("of another form, or with a zone")
        return int(np.datetime64(time, "us").astype(np.int64))
    except ValueError:
        raise ConfigError(f"time: '{time}' is no time. Write it as 2023-05-30T12:00:00, without a zone.") from None


def in_words(time: int) -> str:
    """Return a moment as people write it."""
    return str(np.datetime64(time, "us").astype("datetime64[s]")).replace("T", " ")


def live_articles(dataset: Dataset, time: int, hours: float, exposure: bool) -> np.ndarray:
    """Return the articles live at a time, as ascending indices.

    Live is what was in view in [t − hours, t), or, where exposure may not be known, what was published in it.

    Raises:
        ConfigError: nothing is live then.
    """
    since = time - int(hours * HOUR)
    if exposure:
        log = dataset.log
        shown = log.per_candidate((log.time >= since) & (log.time < time))
        live = np.unique(log.article[shown])
        live = live[live > 0]
    else:
        published = dataset.metadata.published
        live = np.flatnonzero((published != UNKNOWN_TIME) & (published >= since) & (published < time))
    if not len(live):
        raise ConfigError(
            f"time: no article is live at {in_words(time)} with pool_hours {hours:g}. "
            "Choose a time within the bundle's weeks or a longer pool."
        )
    return live


def choose_users(dataset: Dataset, user_ids: list[int], number: int, seed: int) -> np.ndarray:
    """Return the users asked for, or, where none are named, ``number`` users of validation drawn by seed.

    Ids that the bundle does not know are kept: they are served as users without history.
    """
    if user_ids:
        wrong = [user for user in user_ids if not 0 <= user < 2**32]
        if wrong:
            raise ConfigError(f"user_ids: {wrong} are no user ids; they lie in 0 to 4294967295.")
        return np.array(list(dict.fromkeys(user_ids)), dtype=np.uint32)
    if number < 1:
        raise ConfigError(f"users: {number} users cannot be drawn. Draw at least 1, or name them in user_ids.")
    known = np.unique(dataset.parts["validation"].user_id)
    return np.sort(np.random.default_rng(seed).choice(known, min(number, len(known)), replace=False))


def make_requests(dataset: Dataset, train: Features, user_ids: np.ndarray, time: int, pool: np.ndarray) -> Requests:
    """Build a slate of the pool for each user at a time, and its features from the events before that time.

    Articles that a user has read, in the history of the week or in the log before the time, are left out. Each
    request is for the front page, in a new session, on the device that the user used last; unknown users are
    served as on a mobile. The pool is longer than any slate of training, so ``slate_length`` is
    set to the median of training, taken over candidates: its size says nothing about the user.
    """
    slates = _request_slates(dataset, user_ids, time, pool)
    columns = [column.name for column in every_column()]
    matrix = np.empty((slates.candidates, len(columns)), dtype=np.float32)
    build(slates, world_of(dataset), matrix)
    matrix[:, columns.index("slate_length")] = np.median(train.column("slate_length"))
    return Requests(slates, matrix, columns)


def recommend(model: TrainedModel, dataset: Dataset, requests: Requests, k: int) -> pd.DataFrame:
    """Rank the candidates of every request and keep the k best, in score order, ties by article index.

    Returns:
        One row a recommendation: ``user_id``, ``model``, ``tier``, ``rank`` (1 best), ``article_id``,
        ``title``, ``category``, ``age_hours``, ``score`` and ``reasons``, the feature groups that raise the score
        most over what it would be if the group were at the pool's mean.
    """
    slates = requests.slates
    scores = model.score(dataset, slates, requests.matrix, requests.columns)
    row = slates.per_candidate(np.arange(len(slates)))
    order = np.lexsort((slates.article, -scores, row))
    rank = np.arange(slates.candidates) - slates.offsets[row[order]]
    kept = order[rank < k]
    effects = group_effects(model, dataset, requests, scores)
    articles = dataset.articles.iloc[slates.article[kept]]
    return pd.DataFrame(
        {
            "user_id": slates.user_id[row[kept]],
            "model": model.name,
            "tier": model.tier,
            "rank": rank[rank < k] + 1,
            "article_id": slates.article_id[kept],
            "title": articles["title"].to_numpy(),
            "category": articles["category_str"].to_numpy(),
            "age_hours": requests.matrix[kept, requests.columns.index("age_hours")],
            "score": scores[kept],
            "reasons": _in_words(effects.iloc[kept]),
        }
    )


def group_effects(model: TrainedModel, dataset: Dataset, requests: Requests, scores: np.ndarray) -> pd.DataFrame:
    """Return by how much each feature group changes each candidate's score against the mean of its slate.

    One column a group: the score less the score with the group's features at their means over the slate.
    """
    groups: dict[str, list[int]] = {}
    for column in every_column():
        if column.name in model.columns:
            groups.setdefault(column.group, []).append(requests.columns.index(column.name))
    effects = {}
    for group, places in groups.items():
        changed = requests.matrix.copy()
        changed[:, places] = _slate_means(requests.matrix[:, places], requests.slates)
        effects[group] = scores - model.score(dataset, requests.slates, changed, requests.columns)
    return pd.DataFrame(effects, index=range(len(scores)))


def join_lists(lists: list[pd.DataFrame]) -> pd.DataFrame:
    """Join the lists of several models, sorted by user, model in the order given, and rank."""
    every = pd.concat(lists, ignore_index=True)
    return every.sort_values(["user_id"], kind="stable", ignore_index=True)


def mean_score_by_rank(lists: pd.DataFrame, model: str) -> np.ndarray:
    """Return by how much each rank's score exceeds the last one's of its list, the mean over users."""
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


def describe_users(dataset: Dataset, requests: Requests) -> pd.DataFrame:
    """Return who was served: history of the week, impressions before the time, candidates left to rank."""
    slates, log = requests.slates, dataset.log
    impressions = [
        int(((log.user == u) & (log.time < t) & (u > 0)).sum()) for u, t in zip(slates.user, slates.time, strict=True)
    ]
    history = [int(dataset.histories[w].lengths[u]) if u else 0 for u, w in zip(slates.user, slates.week, strict=True)]
    return pd.DataFrame(
        {
            "user_id": slates.user_id,
            "known": slates.user > 0,
            "history clicks": history,
            "impressions before": impressions,
            "candidates": slates.lengths,
        }
    )


def _request_slates(dataset: Dataset, user_ids: np.ndarray, time: int, pool: np.ndarray) -> Slates:
    known = dataset.users["user_id"].to_numpy()[1:]
    place = np.searchsorted(known, user_ids)
    found = (place < len(known)) & (known[np.minimum(place, len(known) - 1)] == user_ids)
    user = np.where(found, place + 1, 0).astype(np.int32)
    log = dataset.log
    week = int(time >= log.time[log.week == 1].min(initial=np.iinfo(np.int64).max))
    latest = [_latest(log, u, time) for u in user]
    candidates = [pool[~np.isin(pool, _read(dataset, log, u, week, time))] for u in user]
    empty = [int(user_id) for user_id, own in zip(user_ids, candidates, strict=True) if not len(own)]
    if empty:
        raise ConfigError(
            f"user_ids: users {empty} have read every live article. Choose other users or a longer pool_hours."
        )
    article = np.concatenate(candidates).astype(np.int32)
    n = len(user_ids)
    return Slates(
        impression_id=np.arange(1, n + 1, dtype=np.uint32),
        user_id=user_ids,
        user=user,
        time=np.full(n, time, dtype=np.int64),
        session=np.full(n, -1, dtype=np.int64),
        device=np.array([log.device[row] if row >= 0 else 2 for row in latest], dtype=np.int8),
        subscriber=np.array([log.subscriber[row] if row >= 0 else False for row in latest], dtype=bool),
        page=np.zeros(n, dtype=np.int32),
        front_page=np.ones(n, dtype=bool),
        week=np.full(n, week, dtype=np.int8),
        offsets=np.concatenate(([0], np.cumsum([len(own) for own in candidates]))).astype(np.int64),
        article_id=dataset.articles["article_id"].to_numpy()[article].astype(np.int32),
        article=article,
        clicked=np.zeros(len(article), dtype=bool),
    )


def _latest(log: Slates, user: int, time: int) -> int:
    """Return the row of a user's last impression before a time, -1 where there is none."""
    rows = np.flatnonzero((log.user == user) & (log.time < time)) if user else np.empty(0, int)
    return int(rows[np.argmax(log.time[rows])]) if len(rows) else -1


def _read(dataset: Dataset, log: Slates, user: int, week: int, time: int) -> np.ndarray:
    """Return the articles that a user clicked before a time."""
    if not user:
        return np.empty(0, np.int32)
    history = dataset.histories[week]
    own = slice(history.offsets[user], history.offsets[user + 1])
    past = log.take((log.user == user) & (log.time < time))
    return np.union1d(history.article[own][history.time[own] < time], past.article[past.clicked])


def _slate_means(values: np.ndarray, slates: Slates) -> np.ndarray:
    known = ~np.isnan(values)
    total = np.add.reduceat(np.where(known, values, 0.0), slates.offsets[:-1], axis=0)
    count = np.add.reduceat(known.astype(np.float32), slates.offsets[:-1], axis=0)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return slates.per_candidate(mean)


def _in_words(effects: pd.DataFrame) -> list[str]:
    """Name the groups that raise a score most, largest first; "nothing in particular" where none does."""
    names, values = np.array(effects.columns), effects.to_numpy()
    words = []
    for row in values:
        best = [at for at in np.argsort(-row, kind="stable")[:REASONS] if row[at] > 0.005]
        words.append(", ".join(f"{names[at]} {row[at]:+.2f}" for at in best) or "nothing in particular")
    return words
