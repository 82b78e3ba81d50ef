"""Requests at a moment: who asks, which articles are live, and what is known of each pair before it."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates, candidate_rows
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.features.build import Checkpoints, build
from ebnerd_lib.features.context import FeatureContext, feature_context
from ebnerd_lib.features.live import POOL_HOURS, pools
from ebnerd_lib.features.registry import every_column

UNKNOWN_READER = np.uint32(0)
"""The id of a user whom no bundle knows, so who has read nothing."""


@dataclass(frozen=True)
class Requests:
    """One request a user, n users over their pools, with the features of every candidate in its pool."""

    slates: Slates  # one impression a user, over what is live and not read by the user, in order of the article index
    matrix: np.ndarray  # float32 (m, columns), the slate being the pool
    columns: list[str]  # names of the columns

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.slates)

    @property
    def pool(self) -> np.ndarray:
        """The live articles that somebody has not read, ascending: int32 (p,)."""
        return np.unique(self.slates.article)

    def column(self, name: str) -> np.ndarray:
        """Return a column of the matrix: float32 (m,)."""
        return self.matrix[:, self.columns.index(name)]

    def take(self, rows: np.ndarray) -> "Requests":
        """Return the requests of some users, given as positions, in the order given."""
        where = candidate_rows(self.slates.offsets, rows)
        return replace(self, slates=self.slates.take(rows), matrix=self.matrix[where])


def moment(dataset: Dataset, time: str) -> int:
    """Return a moment in microseconds from its text, or the end of the log where the text is empty.

    Raises:
        ConfigError: there is no such day or hour.
    """
    if not time:
        return int(dataset.log.time.max()) + 1
    try:
        return int(np.datetime64(time, "us").astype(np.int64))
    except ValueError:
        raise ConfigError(f"time: '{time}' is no time. Write it as 2023-05-30T12:00:00, without a zone.") from None


def in_words(time: int) -> str:
    """Return a moment as people write it."""
    return str(np.datetime64(time, "us").astype("datetime64[s]")).replace("T", " ")


def choose_users(dataset: Dataset, user_ids: list[int], number: int, seed: int) -> np.ndarray:
    """Return the users asked for, or, where none are named, ``number`` users of validation sampled with the seed.

    Ids that the bundle does not know are kept: they are served as users without history. Sampled ones are ascending;
    all of validation where there are fewer.
    """
    if user_ids:
        return np.array(list(dict.fromkeys(user_ids)), dtype=np.uint32)
    known = np.unique(dataset.parts["validation"].user_id)
    return np.sort(np.random.default_rng(seed).choice(known, min(number, len(known)), replace=False))


def make_requests(
    dataset: Dataset,
    user_ids: np.ndarray,
    time: int,
    hours: float = POOL_HOURS,
    checkpoints: Checkpoints | None = None,
) -> Requests:
    """Build a request of each user at a time, and its features from the events before that time.

    Each request is for the front page, in a new session, on the device that the user used last; unknown users are
    served as on a mobile. ``user_ids`` are raw, uint32 (n,), each once; the time is in microseconds. Checkpoints of the
    dataset's past are for who asks again and again at other times; features do not depend on them. Users who have read
    all that is live are left out.

    Raises:
        ConfigError: nothing is live then, or nobody has anything left of it.
    """
    context = feature_context(dataset) if checkpoints is None else checkpoints.context
    slates = pools(dataset, _front_page_requests(dataset, context, user_ids, time), hours, context)
    slates = slates.take(slates.lengths > 0)
    if not len(slates):
        raise ConfigError(
            f"time: at {in_words(time)} there is nothing to recommend to user {', '.join(map(str, user_ids[:3]))}: "
            f"nothing was in view in the {hours:g} h before that was not read. Choose another time, a longer pool or "
            "other users."
        )
    columns = [column.name for column in every_column()]
    return Requests(slates, build(slates, context, checkpoints), columns)


def describe_users(dataset: Dataset, requests: Requests) -> pd.DataFrame:
    """Return who was served: history of the week, impressions before the time, candidates left to rank."""
    slates = requests.slates
    own, _ = _own_impressions(feature_context(dataset), slates.user, int(slates.time[0]))
    lengths = np.stack([history.lengths for history in dataset.histories])
    return pd.DataFrame(
        {
            "user_id": slates.user_id,
            "known": slates.user > 0,
            "history clicks": lengths[slates.week, slates.user],
            "impressions before": np.bincount(own, minlength=len(slates)),
            "candidates": slates.lengths,
        }
    )


def _front_page_requests(dataset: Dataset, context: FeatureContext, user_ids: np.ndarray, time: int) -> Slates:
    """Return the impressions, without candidates."""
    user = Vocabulary(dataset.users["user_id"].to_numpy()[1:]).index_of(user_ids)
    log, n = dataset.log, len(user_ids)
    week = int(time >= log.time[log.week == 1].min(initial=np.iinfo(np.int64).max))
    own, rows = _own_impressions(context, user, time)
    latest = np.full(n, -1)
    latest[own] = rows  # in order of time: the last one stays
    return Slates(
        impression_id=np.arange(1, n + 1, dtype=np.uint32),
        user_id=user_ids,
        user=user,
        time=np.full(n, time, dtype=np.int64),
        session=np.full(n, -1, dtype=np.int64),
        device=np.where(latest >= 0, log.device[latest], 2).astype(np.int8),
        subscriber=(latest >= 0) & log.subscriber[latest],
        page=np.zeros(n, dtype=np.int32),
        front_page=np.ones(n, dtype=bool),
        week=np.full(n, week, dtype=np.int8),
        offsets=np.zeros(n + 1, dtype=np.int64),
        article_id=np.zeros(0, dtype=np.int32),
        article=np.zeros(0, dtype=np.int32),
        clicked=np.zeros(0, dtype=bool),
        row=np.arange(n, dtype=np.int64),
    )


def _own_impressions(context: FeatureContext, user: np.ndarray, time: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the users' impressions before a time, each user's in order of time: positions in ``user``, log rows."""
    index = context.by_user
    own = np.repeat(np.arange(len(user)), np.diff(index.offsets)[user])
    rows = index.row[candidate_rows(index.offsets, user)]
    past = context.log.time[rows] < time
    return own[past], rows[past]
