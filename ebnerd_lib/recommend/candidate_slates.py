"""Candidate slates: live articles in slates as long and as hard as logged ones."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.features.build import CHUNK, build
from ebnerd_lib.features.context import FeatureContext, feature_context
from ebnerd_lib.features.registry import every_column
from ebnerd_lib.features.store import Features
from ebnerd_lib.recommend.requests import Requests
from ebnerd_lib.training.model_file import TrainedModel

TARGET_SHARE = 3
"""One in so many of a slate is evaluated: the fewer, the closer to the slates of the log, and the more slates."""
_COMPARED = ("age_hours", "inviews_1h", "inviews_24h", "clicks_1h", "clicks_24h", "rate_24h", "lift_6h")
_SAMPLE = 200_000


@dataclass(frozen=True)
class CandidateSlates:
    """Slates of live articles, the same for every user.

    Attributes:
        offsets: int64 (slates + 1,), where each slate begins in the arrays below.
        place: int64 (m,), position in the pool.
        evaluated: bool (m,), whether the article is evaluated here, or only there to compete with.
        length: articles a slate.
        draws: how often each live article is evaluated.
    """

    offsets: np.ndarray
    place: np.ndarray
    evaluated: np.ndarray
    length: int
    draws: int


@dataclass(frozen=True)
class Field:
    """The slates of some users: ``where`` says which row of the requests each candidate is."""

    slates: Slates
    matrix: np.ndarray
    where: np.ndarray
    evaluated: np.ndarray

    @cached_property
    def alone(self) -> Slates:
        """The slates without those that are only there to compete with."""
        slates, evaluated = self.slates, self.evaluated
        kept = np.concatenate(([0], np.cumsum(evaluated)))[slates.offsets].astype(np.int64)
        own = {name: getattr(slates, name)[evaluated] for name in ("article_id", "article", "clicked")}
        return replace(slates, offsets=kept, **own)


def typical_length(slates: Slates) -> int:
    """Return the length of the slate in which the median candidate stands: half stand in one as short or shorter."""
    lengths = np.sort(slates.lengths)
    total = np.cumsum(lengths)
    return int(lengths[np.searchsorted(total, total[-1] / 2)])


def sample_slates(requests: Requests, length: int, draws: int, exposure: bool, seed: int) -> CandidateSlates:
    """Cut the pool into slates of ``length``, ``draws`` times with the seed.

    Which articles are evaluated together, and with which others, depends on the seed and on the pool, not on the user:
    who else is served changes nobody's scores. A pool no longer than a slate is one slate, in which all are evaluated.
    Competitors are sampled by their recent time in view (``inviews_decay_1h``), or all alike without ``exposure``.
    """
    size = len(requests.pool)
    if size <= length:
        return CandidateSlates(np.array([0, size]), np.arange(size), np.ones(size, dtype=bool), size, 1)
    weight = requests.column("inviews_decay_1h")[0].astype(np.float64) if exposure else np.ones(size)
    every = [
        _cut(np.random.default_rng((seed, draw)), requests.pool, weight, length, max(1, length // TARGET_SHARE))
        for draw in range(draws)
    ]
    place = np.concatenate([members.ravel() for members, _ in every])
    evaluated = np.concatenate([own.ravel() for _, own in every])
    offsets = np.arange(len(place) // length + 1, dtype=np.int64) * length
    return CandidateSlates(offsets, place, evaluated, length, draws)


def score_live(
    models: list[TrainedModel], dataset: Dataset, requests: Requests, candidates: CandidateSlates
) -> dict[str, np.ndarray]:
    """Return, by model, the mean score of every live article over its slates: float32 (users, pool)."""
    totals = {model.name: np.zeros(requests.slates.candidates) for model in models}
    for field in fields(dataset, requests, candidates):
        for model in models:
            totals[model.name] += _target_sums(model, dataset, field, field.matrix, requests)
    return {
        name: (total / candidates.draws).astype(np.float32).reshape(len(requests), -1) for name, total in totals.items()
    }


def group_effects(
    model: TrainedModel, dataset: Dataset, requests: Requests, candidates: CandidateSlates
) -> pd.DataFrame:
    """Return by how much each feature group changes each live article's score, the mean over the article's slates.

    One column a group, one row a row of the requests: the score less the score with the group's features at their
    means over the slate, unknown values left out.
    """
    groups: dict[str, list[int]] = {}
    for column in every_column():
        if column.name in model.columns:
            groups.setdefault(column.group, []).append(requests.columns.index(column.name))
    effects = {group: np.zeros(requests.slates.candidates) for group in groups}
    for field in fields(dataset, requests, candidates):
        base = _target_sums(model, dataset, field, field.matrix, requests)
        for group, places in groups.items():
            changed = field.matrix.copy()
            changed[:, places] = _slate_means(field.matrix[:, places], field.slates)
            effects[group] += base - _target_sums(model, dataset, field, changed, requests)
    return pd.DataFrame(effects, index=range(requests.slates.candidates)) / candidates.draws


def compare_with_training(
    train: Features, dataset: Dataset, requests: Requests, candidates: CandidateSlates
) -> pd.DataFrame:
    """Compare stored columns that depend on the slate: in training, in the slates, and in the pool as one slate.

    Returns:
        One row a ``column``: its 99th percentile in ``training`` (an even sample), over the evaluated of the
        ``slates``, and over the ``pool``; and ``outside``, the share of the evaluated beyond the range of training.
    """
    sample = train.matrix[:: max(1, len(train.matrix) // _SAMPLE)]
    every = list(fields(dataset, requests, candidates))
    rows = []
    for name in ("slate_length", *(f"{base}_ratio" for base in _COMPARED)):
        if name not in train.columns:
            continue
        place = requests.columns.index(name)
        trained = sample[:, train.columns.index(name)].astype(np.float32)
        evaluated = np.concatenate([field.matrix[field.evaluated, place] for field in every])
        rows.append(
            {
                "column": name,
                "training": float(np.nanquantile(trained, 0.99)),
                "slates": float(np.nanquantile(evaluated, 0.99)),
                "pool": float(np.nanquantile(requests.matrix[:, place], 0.99)),
                "outside": float(((evaluated < np.nanmin(trained)) | (evaluated > np.nanmax(trained))).mean()),
            }
        )
    return pd.DataFrame(rows)


def fields(dataset: Dataset, requests: Requests, candidates: CandidateSlates, chunk: int = CHUNK) -> Iterator[Field]:
    """Yield the slates of all users with their features, about ``chunk`` candidates at a time."""
    context, size = feature_context(dataset), len(requests.pool)
    users = max(1, chunk // len(candidates.place))
    for start in range(0, len(requests), users):
        rows = np.arange(start, min(start + users, len(requests)))
        where = (rows[:, None] * size + candidates.place).ravel()
        yield _field(context, requests, candidates, rows, where)


def _field(
    context: FeatureContext, requests: Requests, candidates: CandidateSlates, rows: np.ndarray, where: np.ndarray
) -> Field:
    request = requests.slates
    count = len(candidates.offsets) - 1
    per_slate = {
        name: np.repeat(getattr(request, name)[rows], count)
        for name in ("user_id", "user", "time", "session", "device", "subscriber", "page", "front_page", "week")
    }
    ends = np.arange(len(rows))[:, None] * len(candidates.place) + candidates.offsets[1:]
    slates = Slates(
        impression_id=np.arange(1, len(rows) * count + 1, dtype=np.uint32),
        offsets=np.concatenate(([0], ends.ravel())).astype(np.int64),
        article_id=request.article_id[where],
        article=request.article[where],
        clicked=np.zeros(len(where), dtype=bool),
        **per_slate,
    )
    matrix = requests.matrix[where]
    build(slates, context, matrix, slate_only=True)
    return Field(slates, matrix, where, np.tile(candidates.evaluated, len(rows)))


def _target_sums(
    model: TrainedModel, dataset: Dataset, field: Field, matrix: np.ndarray, requests: Requests
) -> np.ndarray:
    """Sum the scores of the evaluated by row of the requests: float64 (n · p,)."""
    evaluated = field.evaluated
    if model.network.uses_slate_context:
        scores = model.score(dataset, field.slates, matrix, requests.columns)[evaluated]
    else:  # the features say all that it learns of the competitors
        scores = model.score(dataset, field.alone, matrix[evaluated], requests.columns)
    return np.bincount(field.where[evaluated], weights=scores, minlength=requests.slates.candidates)


def _cut(
    rng: np.random.Generator, pool: np.ndarray, weight: np.ndarray, length: int, guests: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a pool into slates once: positions in the pool (slates, length), and which of them are evaluated."""
    size = len(pool)
    slates = -(-size // guests)
    order = rng.permutation(size)
    slate = np.arange(size) % slates  # as many in each, or one fewer
    guest = np.zeros((slates, size), dtype=bool)
    guest[slate, order] = True
    # The largest of log weight + Gumbel noise are a sample without replacement in proportion to the weights.
    with np.errstate(divide="ignore"):
        keys = np.log(weight) + rng.gumbel(size=(slates, size))
    keys = np.where(np.isneginf(keys), -1e9 - rng.random(size), keys)  # nobody sees them: only where others run out
    keys[guest] = np.inf
    members = np.sort(np.argpartition(-keys, length - 1, axis=1)[:, :length], axis=1)
    return members, np.take_along_axis(guest, members, axis=1)


def _slate_means(values: np.ndarray, slates: Slates) -> np.ndarray:
    known = ~np.isnan(values)
    total = np.add.reduceat(np.where(known, values, 0.0), slates.offsets[:-1], axis=0)
    count = np.add.reduceat(known.astype(np.float32), slates.offsets[:-1], axis=0)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return slates.per_candidate(mean)
