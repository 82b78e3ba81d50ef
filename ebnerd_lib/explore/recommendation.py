"""What a model would recommend to one user at one moment, and why: what stage 04 does for many, for one, at once."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation.diversity import article_space
from ebnerd_lib.features.build import Checkpoints
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.recommend import candidate_slates as competition
from ebnerd_lib.recommend import lists
from ebnerd_lib.recommend import requests as rec
from ebnerd_lib.training.model_file import TrainedModel

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Settings:
    """How lists are made, with the names and the meaning of the parameters of 04_recommend."""

    k: int = 10
    diversity: float = 0.0
    pool_hours: float = 24.0
    slate_draws: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Served:
    """A request of one user, and the slates in which its live articles are scored."""

    requests: rec.Requests
    competition: competition.CandidateSlates


class Recommender:
    """Makes the list of one user at any moment of the log, from what was known strictly before it.

    The way is that of 04_recommend, and so are the lists: live articles, scored in slates of training's typical length,
    picked by maximal marginal relevance, with the feature groups that raise a score most. The last request is kept:
    another model asks it of the same features.

    Args:
        dataset: articles, users and the log.
        models: those on offer.
        settings: how lists are made.

    Raises:
        ConfigError: a model has learnt on, through all of validation: at any moment of it, it would know the future. Or
            a setting lies outside its range.
    """

    def __init__(self, dataset: Dataset, models: list[TrainedModel], settings: Settings) -> None:
        late = [model.name for model in models if model.name.endswith("_online")]
        if late:
            raise ConfigError(
                f"models: {', '.join(late)} has learnt from all of validation, so at a moment of it the model file "
                "knows what came after. Name models that do not learn on."
            )
        lists.check_diversity(settings.diversity)
        self.models = {model.name: model for model in models}
        self.settings = settings
        self._dataset = dataset
        self._checkpoints: Checkpoints | None = None
        self._space = article_space(dataset)
        self._length = competition.typical_length(dataset.parts["train"])
        self._last: tuple[tuple[int, int, bool], Served] | None = None

    def recommend(self, name: str, user_id: int, time: int) -> pd.DataFrame:
        """Return a model's list for a user at a time, the best first: the rows of ``lists.recommend``.

        Raises:
            ConfigError: nothing is live then, or the user has read all of it.
        """
        model = self.models[name]
        served = self._serve(user_id, time, knows_exposure(model))
        requests, slates, data = served.requests, served.competition, self._dataset
        scores = competition.score_live([model], data, requests, slates)[name]
        picked = lists.pick(requests, scores, self._space, self.settings.k, self.settings.diversity)
        return lists.recommend(model, data, requests, slates, scores, picked)

    def keep_past(self, since: int) -> None:
        """Keep checkpoints of the log from a moment on, so that what is asked later need not walk all along it.

        One pass along the log: worth it for who asks more than once or twice. Lists do not depend on it.
        """
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(feature_context(self._dataset), since)

    def pool(self, name: str, user_id: int, time: int) -> int:
        """Return how many articles are live for a model, read or not."""
        return len(self._serve(user_id, time, knows_exposure(self.models[name])).requests.pool)

    def _serve(self, user_id: int, time: int, exposure: bool) -> Served:
        key, settings = (user_id, time, exposure), self.settings
        if self._last is None or self._last[0] != key:
            live = rec.live_articles(self._dataset, time, settings.pool_hours, exposure)
            requests = rec.make_requests(self._dataset, np.array([user_id], np.uint32), time, live, self._checkpoints)
            slates = competition.draw_slates(requests, self._length, settings.slate_draws, exposure, settings.seed)
            self._last = key, Served(requests, slates)
        return self._last[1]


def knows_exposure(model: TrainedModel) -> bool:
    """Say whether a model may know what was in view: where not, live is what was published of late."""
    return model.tier in ("exposure", "clicks")


def repeated(recommender: Recommender, earlier: pd.DataFrame, time: int, users: int) -> pd.DataFrame:
    """Make the first lists of stage 04 again, one user at a time, and compare.

    Args:
        recommender: with the settings of that run.
        earlier: its ``recommendations.parquet``.
        time: its moment.
        users: how many users to compare.

    Returns:
        One row a user and model: ``user_id``, ``model``, ``articles`` of the list, how many of them are ``shared``, and
        whether the scores are the ``same`` by rank, to four digits. Models that the recommender does not have are
        left out, as are those served from another pool: 04 has one pool for all of its models, that of the one
        which may know least.
    """
    exposure = bool(earlier["tier"].isin(("exposure", "clicks")).all())
    rows = []
    for user in earlier["user_id"].drop_duplicates().head(users).tolist():
        for name, list_ in earlier[earlier["user_id"] == user].groupby("model", sort=False):
            model = recommender.models.get(str(name))
            if model is None or knows_exposure(model) != exposure:
                continue
            again = recommender.recommend(str(name), user, time)
            shared = len(np.intersect1d(again["article_id"], list_["article_id"]))
            same = len(again) == len(list_) and np.allclose(again["score"], list_["score"], _TOLERANCE, _TOLERANCE)
            rows.append({"user_id": user, "model": name, "articles": len(list_), "shared": shared, "same": same})
    return pd.DataFrame(rows, columns=["user_id", "model", "articles", "shared", "same"])
