"""A reader and the moments of one: impressions with saved scores, and what was read before them."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import UNKNOWN_TIME, Dataset
from ebnerd_lib.data.slates import HOUR, Slates, candidate_rows
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.explore.read_time import ReadTimes
from ebnerd_lib.recommend.requests import in_words

OFFERED = ("tuning", "validation")
"""Parts whose impressions are on offer: models are trained on the part before them, and saved their scores of these."""


@dataclass(frozen=True)
class Moment:
    """An impression on offer.

    Attributes:
        part: ``tuning`` or ``validation``.
        row: its row in the part.
        impression_id: as in the file.
        user_id: as in the file.
        time: microseconds since 1970.
        candidates: length of the slate.
    """

    part: str
    row: int
    impression_id: int
    user_id: int
    time: int
    candidates: int

    def __str__(self) -> str:
        """Return the moment as people write it, with what was shown."""
        return f"{in_words(self.time)}, {self.candidates} candidates, {self.part}"


def readers(dataset: Dataset) -> np.ndarray:
    """Return the ids of all who have an impression on offer, ascending: uint32."""
    return np.unique(np.concatenate([dataset.parts[part].user_id for part in OFFERED]))


def moments(dataset: Dataset, user_id: int) -> list[Moment]:
    """Return the impressions of a reader that are on offer, in order of time.

    Raises:
        ConfigError: there is none.
    """
    found = [
        moment_of(dataset, part, int(row))
        for part in OFFERED
        for row in np.flatnonzero(dataset.parts[part].user_id == user_id)
    ]
    if not found:
        known = readers(dataset)
        near = known[np.argsort(np.abs(known - float(user_id)), kind="stable")[:3]]
        raise ConfigError(
            f"user_ids: {user_id} has no impression in {' or '.join(OFFERED)}, where scores are saved. Draw one, or "
            f"choose one of the {len(known):,} users who have, as {', '.join(map(str, np.sort(near)))}."
        )
    return sorted(found, key=lambda moment: moment.time)


def moment_of(dataset: Dataset, part: str, row: int) -> Moment:
    """Return the impression in a row of a part."""
    slates = dataset.parts[part]
    return Moment(
        part, row, int(slates.impression_id[row]), int(slates.user_id[row]), int(slates.time[row]),
        int(slates.lengths[row]),
    )  # fmt: skip


def draw(dataset: Dataset, rng: np.random.Generator) -> Moment:
    """Draw an impression of validation with a click and something beside it: who reads much is drawn more often."""
    able = np.flatnonzero(dataset.parts["validation"].has_choice)
    return moment_of(dataset, "validation", int(rng.choice(able)))


def history(dataset: Dataset, moment: Moment, read_times: ReadTimes) -> pd.DataFrame:
    """Return what a reader had clicked before a moment, the latest first.

    That is what the history of the week holds, and what was clicked in the log since; what was clicked in the week
    before is taken from the log only if the history lacks the article. All of it is strictly before the moment.

    Returns:
        One row a click: ``time`` (text), ``article_id``, ``title``, ``category``, ``age_hours`` (of the article when
        it was clicked, 0 if published later, NaN if unknown), ``read_time`` (seconds; the history alone tells) and
        ``source``, ``history`` or ``log``.
    """
    slates = dataset.parts[moment.part]
    user, week = int(slates.user[moment.row]), int(slates.week[moment.row])
    own = dataset.histories[week]
    begin, end = own.offsets[user : user + 2]
    past = own.time[begin:end] < moment.time
    read, read_at = own.article[begin:end][past], own.time[begin:end][past]
    seconds = read_times.of(moment.user_id, week, int(end - begin))[past]
    clicked, clicked_at, clicked_in = _clicks(dataset.log, user, moment.time)
    new = (clicked_in == week) | ~np.isin(clicked, read)
    article = np.concatenate([read, clicked[new]])
    time = np.concatenate([read_at, clicked_at[new]])
    table = article_columns(dataset, article).assign(
        time=[in_words(each) for each in time.tolist()],
        age_hours=age_hours(dataset, article, time),
        read_time=np.concatenate([seconds, np.full(int(new.sum()), np.nan, np.float32)]),
        source=["history"] * len(read) + ["log"] * int(new.sum()),
    )
    table = table[["time", "article_id", "title", "category", "age_hours", "read_time", "source"]]
    return table.iloc[np.argsort(-time, kind="stable")].reset_index(drop=True)


def article_columns(dataset: Dataset, article: np.ndarray) -> pd.DataFrame:
    """Return ``article_id``, ``title`` and ``category`` of articles, given as indices; null where unknown."""
    rows = dataset.articles.iloc[article]
    return pd.DataFrame(
        {
            "article_id": rows["article_id"].to_numpy(),
            "title": rows["title"].to_numpy(),
            "category": rows["category_str"].to_numpy(),
        }
    )


def age_hours(dataset: Dataset, article: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return how old articles were at some times: float64 hours, 0 before publication, NaN where that is unknown."""
    published = dataset.metadata.published[article]
    hours = np.maximum(time - published, 0) / HOUR
    return np.where(published == UNKNOWN_TIME, np.nan, hours)


def _clicks(log: Slates, user: int, time: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what a user clicked in the log before a time: articles, times and weeks, as the log has them."""
    rows = np.flatnonzero((log.user == user) & (log.time < time)) if user else np.zeros(0, np.int64)
    where = candidate_rows(log.offsets, rows)
    hit = log.clicked[where]
    time_of, week_of = (np.repeat(values[rows], log.lengths[rows])[hit] for values in (log.time, log.week))
    return log.article[where][hit], time_of, week_of
