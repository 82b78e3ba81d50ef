"""Read impressions and histories that do not fit into memory: candidates and clicks go to disk chunk by chunk.

This is how the hidden test set is read, 13.5 million impressions of which 200,000 are for beyond-accuracy measures, and
the week before it. What is known of a request stays in memory, some thirty bytes an impression.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa

from ebnerd_lib.data import schema
from ebnerd_lib.data.bundle import (
    batches,
    flat_values,
    list_offsets,
    microseconds,
    refuse_repeats,
    refuse_unequal,
)
from ebnerd_lib.data.ragged import Ragged
from ebnerd_lib.data.schema import flat
from ebnerd_lib.errors import BundleError

_COLUMNS = ("impression_id", "impression_time", "device_type", "user_id", "is_subscriber", "session_id")
_BEYOND = "is_beyond_accuracy"
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Impressions:
    """What is known of some impressions beside their candidates; arrays (n,) in file order.

    Attributes:
        impression_id: uint32, ids as in the file; those for beyond-accuracy measures all have 0.
        time: int64, microseconds.
        device: int8.
        user_id: uint32.
        subscriber: bool.
        session: uint32.
        beyond: bool, whether it is for beyond-accuracy measures: its slate was made up and shown to nobody.
    """

    impression_id: np.ndarray
    time: np.ndarray
    device: np.ndarray
    user_id: np.ndarray
    subscriber: np.ndarray
    session: np.ndarray
    beyond: np.ndarray

    def __len__(self) -> int:
        """Return the number of impressions."""
        return len(self.impression_id)


def read_impressions(
    path: Path, table: dict[str, pa.DataType], candidates: Ragged, progress: Progress
) -> tuple[Impressions, np.ndarray]:
    """Read a behaviors file.

    Args:
        path: the file.
        table: its schema, ``schema.BEHAVIORS`` or ``schema.TEST_BEHAVIORS``.
        candidates: int32, takes the articles of every slate, in file order.
        progress: called with the share done.

    Returns:
        The impressions, and the ids of all articles in view, sorted.

    Raises:
        BundleError: the file is no parquet, a column is missing or of a wrong type, a value is null, there is no row,
            or a slate is empty or repeats an article.
    """
    beyond = [_BEYOND] if _BEYOND in table else []
    parts: list[dict[str, np.ndarray]] = []
    seen = np.zeros(0, np.int32)
    for rows in batches(path, table, (*_COLUMNS, "article_ids_inview", *beyond), progress):
        articles, offsets = flat_values(rows["article_ids_inview"]), list_offsets(rows["article_ids_inview"])
        _check_slates(path, articles, offsets)
        candidates.append(articles, np.diff(offsets))
        seen = np.union1d(seen, articles)
        parts.append(
            {
                "impression_id": rows["impression_id"].to_numpy(),
                "time": microseconds(rows["impression_time"]),
                "device": rows["device_type"].to_numpy(),
                "user_id": rows["user_id"].to_numpy(),
                "subscriber": rows["is_subscriber"].to_numpy(),
                "session": rows["session_id"].to_numpy(),
                "beyond": rows[_BEYOND].to_numpy() if beyond else np.zeros(rows.num_rows, bool),
            }
        )
    if not parts:
        raise BundleError(f"{path}: 0 rows. A split needs impressions: check that the file is complete.")
    return Impressions(**{f.name: np.concatenate([p[f.name] for p in parts]) for f in fields(Impressions)}), seen


def read_lengths(path: Path, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of a test file's rows, int64 (n,), and how many candidates each has, int32 (n,).

    Raises:
        BundleError: as of ``read_impressions``, but for repeated articles.
    """
    ids, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    for rows in batches(path, schema.TEST_BEHAVIORS, ("impression_id", "article_ids_inview"), progress):
        ids.append(rows["impression_id"].to_numpy().astype(np.int64))
        lengths.append(np.diff(list_offsets(rows["article_ids_inview"])).astype(np.int32))
    return np.concatenate(ids), np.concatenate(lengths)


def read_clicks(path: Path, articles: Ragged, times: Ragged, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
    """Read a history file.

    Args:
        path: the file.
        articles: int32, takes the article of every click, row after row.
        times: int64, takes the time of every click in microseconds.
        progress: called with the share done.

    Returns:
        The users, uint32 (rows,), and the ids of all articles clicked, sorted.

    Raises:
        BundleError: the file is no parquet, a column is missing or of a wrong type, a value is null, a user has two
            rows, or a row has not as many times as articles.
    """
    users, seen = [np.zeros(0, np.uint32)], np.zeros(0, np.int32)
    names = ("user_id", "article_id_fixed", "impression_time_fixed")
    for rows in batches(path, schema.HISTORY, names, progress):
        refuse_unequal(path, rows)
        lengths = np.diff(list_offsets(rows["article_id_fixed"]))
        clicked = flat_values(rows["article_id_fixed"])
        articles.append(clicked, lengths)
        times.append(microseconds(flat(rows["impression_time_fixed"])), lengths)
        seen = np.union1d(seen, clicked)
        users.append(rows["user_id"].to_numpy())
    every = np.concatenate(users)
    refuse_repeats(path, "user_id", every)
    return every, seen


def _check_slates(path: Path, articles: np.ndarray, offsets: np.ndarray) -> None:
    empty = int((np.diff(offsets) == 0).sum())
    if empty:
        raise BundleError(f"{path}: article_ids_inview is empty in {empty} rows. Each row needs a slate to rank.")
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    keys = np.sort((row << 32) | articles)
    repeated = len(np.unique(keys[1:][keys[1:] == keys[:-1]] >> 32))
    if repeated:
        raise BundleError(
            f"{path}: article_ids_inview repeats an article in {repeated} rows. Keep each candidate of a slate once."
        )
