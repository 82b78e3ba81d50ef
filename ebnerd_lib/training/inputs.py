"""What a model learns from: slates and features, what its tier may see of them, and what is fitted on training rows."""

import hashlib
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from ebnerd_lib.configs import Pools
from ebnerd_lib.data.bundle import History
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR, Slates, candidate_rows
from ebnerd_lib.data.vocabulary import Vocabulary, distinct
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.features.build import Features
from ebnerd_lib.features.catalogue import left_out
from ebnerd_lib.features.live import training_pools
from ebnerd_lib.features.registry import TIERS, allowed
from ebnerd_lib.models.base import CATEGORIES, Batch, SlateModel
from ebnerd_lib.models.ensemble import Ensemble
from ebnerd_lib.models.news import NewsModel


@dataclass(frozen=True)
class IdEncoder:
    """Dataset indices to a model's own: what a model has not seen in training becomes its unknown, 0."""

    user: np.ndarray  # int64, by the dataset's user index
    article: np.ndarray  # int64, by the dataset's article index

    @classmethod
    def between(cls, dataset: Dataset, users: Vocabulary, articles: Vocabulary) -> "IdEncoder":
        """Build the encoder from a dataset's tables to a model's vocabularies."""
        user = users.index_of(dataset.users["user_id"].to_numpy())
        article = articles.index_of(dataset.articles["article_id"].to_numpy())
        user[0] = article[0] = 0
        return cls(user.astype(np.int64), article.astype(np.int64))


@dataclass(frozen=True)
class HistoryReader:
    """What gives a model the vectors of candidates and of the articles that users clicked last."""

    vectors: np.ndarray  # float32 (articles, size), by the dataset's article index, zeros where there is none
    views: np.ndarray  # int64 (articles, 2), category and subcategory, indices into the model's own; 0 unknown
    histories: list[History]  # the clicks before each week
    length: int  # clicks of a user's history, and of a session, that are looked at, the latest ones
    # the clicks of the log by session, ``None`` for a model that does not look at them
    sessions: "SessionClicks | None" = None

    @classmethod
    def of(cls, dataset: Dataset, network: SlateModel) -> "HistoryReader | None":
        """Return what a model needs of a dataset; ``None`` if it does not look at vectors.

        Raises:
            StageError: the model was trained with vectors of another length.
        """
        wanted = network.hyperparameters["vector_size"]
        if not wanted:
            return None
        vectors = dataset.metadata.vectors
        if vectors.shape[1] != wanted:
            raise StageError(
                f"model {network.name}: it was trained with article vectors of length {wanted}, the bundle has "
                f"{vectors.shape[1] or 'none'}. Use the same vectors or train it again."
            )
        views = np.zeros((len(vectors), len(CATEGORIES)), np.int64)
        for place, kind in enumerate(CATEGORIES if network.uses_categories else ()):
            known = Vocabulary(np.array(network.hyperparameters[kind], np.int32))
            views[:, place] = known.index_of(dataset.categories[:, place])
        sessions = SessionClicks.of(dataset.log) if network.uses_session else None
        return cls(vectors, views, dataset.histories, network.hyperparameters["history_length"], sessions)

    def latest(self, slates: Slates, rows: np.ndarray) -> np.ndarray:
        """Return the articles clicked last in the history of the week, of these all strictly before each impression.

        int32 (len(rows), length), the oldest first, 0 in places before a user's first click and of clicks that are not
        before the impression.
        """
        user, week, time = slates.user[rows], slates.week[rows], slates.time[rows]
        out = np.zeros((len(rows), self.length), dtype=np.int32)
        for number, history in enumerate(self.histories):
            mine = np.flatnonzero(week == number)
            if not len(history.article) or not len(mine):
                continue
            place = history.offsets[user[mine] + 1, None] - self.length + np.arange(self.length)
            inside = place >= history.offsets[user[mine], None]
            place = np.where(inside, place, 0)
            before = inside & (history.time[place] < time[mine, None])
            out[mine] = np.where(before, history.article[place], 0)
        return out

    def add_to(self, batch: Batch, slates: Slates, rows: np.ndarray, candidates: np.ndarray) -> Batch:
        """Return a batch of the slates ``rows`` with its articles; ``candidates`` are those it kept, int32 (m,)."""
        read = self.latest(slates, rows)
        session = read[:, :0] if self.sessions is None else self.sessions.latest(slates, rows, self.length)
        every = np.concatenate([[0], candidates, read.ravel(), session.ravel()])
        articles, place = np.unique(every, return_inverse=True)
        _, candidate, own, current = torch.from_numpy(place).split([1, len(candidates), read.size, session.size])
        return batch._replace(
            vectors=torch.from_numpy(self.vectors[articles]),
            views=torch.from_numpy(self.views[articles]),
            candidate=candidate,
            read=own.view(read.shape),
            session=current.view(session.shape),
        )


@dataclass(frozen=True)
class SessionClicks:
    """The clicks of a log by session, in order of time, and as they stand in the log where times are equal."""

    # complex128 (clicks,), session + i · time, ascending: numpy puts these in order of the session, then of the time
    key: np.ndarray
    article: np.ndarray  # int32 (clicks + 1,), in the same order behind a 0

    @classmethod
    def of(cls, log: Slates) -> "SessionClicks":
        """Index the clicks of a log."""
        row = log.per_candidate(np.arange(len(log)))[log.clicked]
        key = log.session[row] + 1j * log.time[row]
        order = np.argsort(key, kind="stable")
        return cls(key[order], np.append(np.int32(0), log.article[log.clicked][order]))

    def latest(self, slates: Slates, rows: np.ndarray, length: int) -> np.ndarray:
        """Return the articles clicked last in the session of each impression, strictly before it.

        int32 (len(rows), length), the oldest first, 0 in places before the first click of the session.
        """
        session = slates.session[rows]
        begin, end = np.searchsorted(self.key, session), np.searchsorted(self.key, session + 1j * slates.time[rows])
        place = end[:, None] - length + 1 + np.arange(length)
        return self.article[np.where(place > begin[:, None], place, 0)]


@dataclass(frozen=True)
class TrainingInputs:
    """The data of a training. Ids and transform come from the training rows; validation is not looked at."""

    dataset: Dataset  # the slates
    features: dict[str, Features]  # of the parts ``train`` and ``tuning``, and maybe of others
    tier: str  # information tier; it decides which features are seen
    rows: np.ndarray  # int64, the training slates: after the warm-up, with a click and something beside it
    users: Vocabulary  # ids of those rows
    articles: Vocabulary  # ids of those rows

    @classmethod
    def of(
        cls, dataset: Dataset, features: dict[str, Features], tier: str, warmup_hours: float = 0.0
    ) -> "TrainingInputs":
        """Return what may be learned from in a tier, with the features of ``train`` and ``tuning``, and maybe others.

        ``warmup_hours`` leaves out this much of the start of training, where windows of past events are not full.

        Raises:
            ConfigError: no training slate is left after the warm-up.
        """
        rows = training_rows(dataset.parts["train"], warmup_hours)
        seen = dataset.parts["train"].take(rows)
        return cls(dataset, features, tier, rows, Vocabulary(seen.user_id), Vocabulary(seen.article_id))

    @classmethod
    def live(cls, dataset: Dataset, tier: str, warmup_hours: float, seed: int, **pools: Any) -> "TrainingInputs":
        """Return samples of what was live, and whole pools of the tuning day, see ``training_pools``."""
        nothing = set[str]().union(*left_out(dataset).values())
        columns = [name for name in allowed(tier) if name not in nothing]
        pooled = training_pools(dataset, columns, Pools(**pools), warmup_hours, seed)
        return cls.of(*pooled, tier)

    @property
    def slates(self) -> str:
        """Whether the slates are those of the log or samples of what was live: ``logged`` or ``live``."""
        return "logged" if self.features["train"].log_chance is None else "live"

    @property
    def best_by(self) -> str:
        """What is largest in the best epoch: AUC of logged slates, next-click nDCG of pools, on the tuning day."""
        return "val/auc" if self.slates == "logged" else "val/ndcg"

    def columns(self, network: SlateModel | type[SlateModel]) -> list[int]:
        """Return the positions of the stored features that a model sees, none if it looks at no features.

        The registry decides, not the file: columns that are not registered are ignored.
        """
        known = self.features["train"].columns
        seen = set(network.feature_names or known).intersection(allowed(self.tier)) if network.uses_features else set()
        return [place for place, name in enumerate(known) if name in seen]

    def counts(self, network: SlateModel) -> dict[str, int]:
        """Return how much a network learns from: training slates, the ids in them, and features."""
        return {
            "training slates": len(self.rows),
            "users in them": len(self.users) - 1,
            "articles in them": len(self.articles) - 1,
            "features": len(self.names(network)),
            "trained parameters": network.trained_parameters,
        }

    def names(self, network: SlateModel) -> list[str]:
        """Return the names of these features."""
        return [self.features["train"].columns[place] for place in self.columns(network)]

    def new(self, kind: type[SlateModel], seed: int = 0, seeds: int = 1, **settings: Any) -> SlateModel:
        """Return a model to train: its sizes are those of the data, its transform of features is fitted.

        Its first weights are sampled with ``seed``; ``seeds`` above 1 give an ``Ensemble`` of so many networks, with
        ``seed`` and the numbers after it.

        Raises:
            ConfigError: the tier is unknown or none of the model's, or the model refuses a setting.
        """
        columns, known = self.columns(kind), TIERS[TIERS.index(kind.own_tier) :]
        if self.tier not in (known if kind.uses_features else known[:1]):
            higher = " or a higher one" if kind.uses_features else ", as it looks at no features"
            raise ConfigError(f"tier: {self.tier} does not fit {kind.name}. Set {kind.own_tier}{higher}.")
        sizes: dict[str, Any] = {"columns": len(columns), "users": len(self.users), "articles": len(self.articles)}
        sizes["vector_size"] = self.dataset.metadata.vectors.shape[1] if kind.uses_vectors else 0
        if kind.uses_categories:
            own = self.dataset.categories[self._articles()]
            sizes |= {name: distinct(ids[ids >= 0]).tolist() for name, ids in zip(CATEGORIES, own.T, strict=True)}
        networks = []
        for number in range(seed, seed + seeds):
            torch.manual_seed(number)
            networks.append(kind(**sizes, **settings))
        transform = networks[0].transform
        if columns:
            where = candidate_rows(self.dataset.parts["train"].offsets, self.rows)
            transform.fit(self.features["train"].matrix, where, columns)
        if isinstance(networks[0], NewsModel):
            networks[0].centred.fit(self.dataset.metadata.vectors[self._articles()])
        for network in networks[1:]:
            network.load_state_dict(dict(networks[0].named_buffers()), strict=False)
        return networks[0] if seeds == 1 else Ensemble(networks)

    def _articles(self) -> np.ndarray:
        """Return the articles in view in the training slates, or read before them, ascending, each once."""
        train = self.dataset.parts["train"]
        shown = train.article[candidate_rows(train.offsets, self.rows)]
        return distinct(np.concatenate([shown, self.dataset.histories[0].article]))

    def checksum(self, network: SlateModel) -> str:
        """Return a checksum over the arrays that a model learns from, histories and article vectors included."""
        holders: list[Any] = [self.dataset.parts["train"], self.dataset.parts["tuning"]]
        arrays = [self.features[part].matrix for part in ("train", "tuning")] if network.uses_features else []
        if network.uses_vectors:
            holders += self.dataset.histories
            arrays.append(self.dataset.metadata.vectors)
        arrays += [self.rows, *(getattr(holder, each.name) for holder in holders for each in fields(holder))]
        checksum = hashlib.sha256()
        for array in arrays:
            checksum.update(f"{array.dtype.str}{array.shape}".encode())
            checksum.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # a mapped one is not copied
        return checksum.hexdigest()


def training_rows(slates: Slates, warmup_hours: float) -> np.ndarray:
    """Return the rows of the slates to train on: after the warm-up, with a click and something beside it."""
    ready = slates.time >= slates.time.min() + int(warmup_hours * HOUR)
    rows = np.flatnonzero(ready & slates.has_choice)
    if not len(rows):
        remedy = "Lower it" if slates.has_choice.any() else "None has a click and a candidate beside it to learn from"
        raise ConfigError(
            f"warmup_hours: {warmup_hours} leaves none of the {len(slates)} training impressions. {remedy}."
        )
    return rows
