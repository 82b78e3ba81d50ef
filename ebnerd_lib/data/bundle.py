"""Open a bundle, check it, and read its tables as arrays.

Whatever is wrong with a file ends in one ``BundleError`` that names file, column, count and remedy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numba import njit

from ebnerd_lib.data import schema
from ebnerd_lib.data.layout import SPLITS, TEST, VECTORS, check_files, generated_stamp
from ebnerd_lib.data.schema import UNREADABLE, cast_column, flat, list_lengths, refuse
from ebnerd_lib.data.slates import ColumnBuffer, Slates, large_zeros, lists_of
from ebnerd_lib.data.vocabulary import Vocabulary, distinct
from ebnerd_lib.errors import BundleError, first_line

BATCH = 1 << 15
"""Rows read at a time."""
ARTICLE_COLUMNS = (
    "article_id", "title", "premium", "published_time", "article_type", "url", "category", "subcategory",
    "category_str", "topics", "sentiment_score", "sentiment_label",
)  # fmt: skip
_SLATE_COLUMNS = (
    "impression_id", "article_id", "impression_time", "device_type", "article_ids_inview",
    "article_ids_clicked", "user_id", "is_subscriber", "session_id", "is_beyond_accuracy",
)  # fmt: skip
_CLICK_COLUMNS = ("user_id", "article_id_fixed", "impression_time_fixed")
TABLES = {
    "articles": (schema.ARTICLES, ARTICLE_COLUMNS),
    "behaviors": (schema.BEHAVIORS, _SLATE_COLUMNS),
    "history": (schema.HISTORY, _CLICK_COLUMNS),
}
"""The schema of each table and the columns that are read: others may be missing, or hold what they like."""
_NULLABLE = frozenset(ARTICLE_COLUMNS) - {"article_id"} | {"device_type", "is_subscriber", "session_id"}
UNKNOWN_TIME = np.iinfo(np.int64).min
"""Stands for a time that is null: before all others."""


@dataclass(frozen=True)
class History:
    """The clicks of users in the 21 days before a split's week, as published with that split."""

    offsets: np.ndarray  # int64 (users + 1,): user ``u`` clicked ``offsets[u]:offsets[u + 1]`` of the arrays below
    article: np.ndarray  # int32 (clicks,), index into the articles table
    time: np.ndarray  # int64 (clicks,), microseconds, ascending within a user; ``UNKNOWN_TIME`` where they have none

    @property
    def lengths(self) -> np.ndarray:
        """int64 (users,), clicks per user; users without history have 0."""
        return np.diff(self.offsets)


class Behaviors(NamedTuple):
    """A split's behaviors as they stand in the file."""

    path: Path  # for messages
    request: dict[str, np.ndarray]  # see ``_request``, each (n,)
    offsets: np.ndarray  # int64 (n + 1,), where the candidates of each impression begin
    article_id: np.ndarray  # int32 (m,), candidates
    click_offsets: np.ndarray  # int64 (n + 1,), where its clicks begin
    clicks: np.ndarray  # int32, articles clicked
    seen: np.ndarray  # int32, ids of all articles in view or read, sorted


class Clicks(NamedTuple):
    """A split's histories as they stand in the file, one row a user."""

    user_id: np.ndarray  # uint32 (n,)
    offsets: np.ndarray  # int64 (n + 1,), where the clicks of each user begin
    article_id: np.ndarray  # int32 (m,)
    time: np.ndarray  # int64 (m,), microseconds
    seen: np.ndarray  # int32, ids of all articles clicked, sorted


@dataclass(frozen=True)
class Bundle:
    """A folder in EBNeRD's layout whose files exist and have the columns that are read."""

    path: Path
    generated: dict[str, object] | None

    def articles(self) -> pa.Table:
        """Read ``ARTICLE_COLUMNS`` of the articles table. Raises ``BundleError`` on a null or repeated article id."""
        path = self.path / "articles.parquet"
        table = _read(path, schema.ARTICLES, ARTICLE_COLUMNS)
        _refuse_repeats(path, "article_id", table["article_id"].to_numpy())
        return table

    def behaviors(self, split: str) -> Behaviors:
        """Read the columns of a split's behaviors that slates are made of; a hidden test tells no clicks and no pages.

        Raises:
            BundleError: there is no row, or an id repeats; in a hidden test ids may, as those of all rows for
                beyond-accuracy measures are 0.
        """
        path, told = self.path / split / "behaviors.parquet", split != TEST
        table = schema.BEHAVIORS if told else schema.TEST_BEHAVIORS
        inview, clicks = (_lists(path, name) for name in ("article_ids_inview", "article_ids_clicked"))
        requests, seen = [], [np.zeros(0, np.int32)]
        for batch in batches(path, table, tuple(name for name in _SLATE_COLUMNS if name in table)):
            inview.add(batch["article_ids_inview"])
            seen.append(pc.unique(flat(batch["article_ids_inview"])).to_numpy())
            if told:
                clicks.add(batch["article_ids_clicked"])
                seen.append(pc.drop_null(pc.unique(batch["article_id"])).to_numpy())
            requests.append(_request(batch))
        refuse(not requests, f"{path}: 0 rows. A split needs impressions: check that the file is complete.")
        request = {name: np.concatenate([each[name] for each in requests]) for name in requests[0]}
        click_offsets = clicks.offsets if told else np.zeros_like(inview.offsets)
        if told:
            _refuse_repeats(path, "impression_id", request["impression_id"])
        return Behaviors(
            path, request, inview.offsets, inview.values, click_offsets, clicks.values, distinct(np.concatenate(seen))
        )

    def clicks(self, split: str) -> Clicks:
        """Read who clicked what and when before the split's week; of a row whose times are null, in which order.

        Raises:
            BundleError: a user has two rows, or a row has not as many times as articles.
        """
        path = self.path / split / "history.parquet"
        articles, times = (_lists(path, name) for name in ("article_id_fixed", "impression_time_fixed"))
        users, seen, timed = [np.zeros(0, np.uint32)], [np.zeros(0, np.int32)], [np.zeros(0, bool)]
        for batch in batches(path, schema.HISTORY, _CLICK_COLUMNS):
            users.append(batch["user_id"].to_numpy())
            seen.append(pc.unique(flat(batch["article_id_fixed"])).to_numpy())
            timed.append(batch["impression_time_fixed"].is_valid().to_numpy())
            lengths = articles.add(batch["article_id_fixed"]), times.add(batch["impression_time_fixed"])
            unequal = int((lengths[0] != lengths[1])[timed[-1]].sum())
            refuse(
                unequal,
                f"{path}: article_id_fixed and impression_time_fixed differ in length in {unequal} rows. "
                "Each click needs its article and its time: fetch the file again.",
            )
        user_id = np.concatenate(users)
        _refuse_repeats(path, "user_id", user_id)
        time = times.values
        if len(time) < len(articles.values):
            time = large_zeros(len(articles.values), np.int64)
            time[:] = UNKNOWN_TIME
            time[np.repeat(np.concatenate(timed), np.diff(articles.offsets))] = times.values
        return Clicks(user_id, articles.offsets, articles.values, time, distinct(np.concatenate(seen)))

    def vectors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Read the article vectors, ``(ids (n,), float32 (n, size))``, or ``None`` where the bundle has none."""
        path = self.path / VECTORS
        if not path.exists():
            return None
        found = open_parquet(path).schema_arrow
        lists = [name for name in found.names if name != "article_id"]
        refuse(
            "article_id" not in found.names or len(lists) != 1,
            f"{path}: columns {', '.join(found.names)}; expected article_id and one list of numbers. Keep these two.",
        )
        wanted = {"article_id": pa.int32(), lists[0]: pa.large_list(pa.float32())}
        schema.check_schema(path, found, wanted)
        table = _read(path, wanted, tuple(wanted))
        ids = table["article_id"].to_numpy()
        _refuse_repeats(path, "article_id", ids)
        sizes, numbers = np.unique(list_lengths(table[lists[0]])), np.array(flat(table[lists[0]]))
        refuse(
            len(sizes) != 1 or not sizes[0] or not np.isfinite(numbers).all(),
            f"{path}: column {lists[0]}: the {len(ids)} vectors are not equally long lists of finite numbers. "
            "Drop the others: an article without a vector is no fault.",
        )
        return ids, numbers.reshape(len(ids), -1)


def open_bundle(path: Path, splits: tuple[str, ...] = SPLITS) -> Bundle:
    """Open a bundle and check that each file exists and has the columns that are read, in types that can be.

    ``splits`` is ``(TEST,)`` for a hidden-test bundle.

    Raises:
        BundleError: a folder, file or column is missing, a file is no parquet, or a type is wrong.
    """
    for file in check_files(path, splits):
        table, names = TABLES.get(file.stem, ({}, ()))
        if names:
            table = schema.TEST_BEHAVIORS if file.parts[-2:] == (TEST, "behaviors.parquet") else table
            schema.check_schema(file, open_parquet(file).schema_arrow, {n: table[n] for n in names if n in table})
    return Bundle(path, generated_stamp(path))


def build_slates(found: Behaviors, articles: Vocabulary, users: Vocabulary, week: int) -> Slates:
    """Turn behaviors into slates with labels.

    ``articles`` must hold every article of every slate. The history of the slates is that of the dataset with the
    number ``week``.

    Raises:
        BundleError: a slate is empty or repeats an article, or a click lies outside its slate.
    """
    path, request = found.path, found.request
    session = np.where(request["session"] < 0, -2 - np.arange(len(request["session"])), request["session"])
    article = articles.index_of(found.article_id)
    clicked, outside, repeated = _label(
        found.offsets, article, found.click_offsets, articles.index_of(found.clicks), len(articles),
        large_zeros(len(article), np.bool_),
    )  # fmt: skip
    odd = repeated + int((np.diff(found.offsets) == 0).sum())
    refuse(odd, f"{path}: article_ids_inview repeats an article in {odd} rows or is empty. Name each once.")
    refuse(
        outside,
        f"{path}: article_ids_clicked has {outside} clicks outside their slate (article_ids_inview). "
        "Clicks must be among the candidates: drop or fix these rows.",
    )
    return Slates(
        impression_id=request["impression_id"],
        user_id=request["user_id"],
        user=users.index_of(request["user_id"]),
        time=request["time"],
        session=session * len(SPLITS) + week,  # ids are unique within a split only
        device=request["device"],
        subscriber=request["subscriber"],
        page=articles.index_of(request["page"]),
        front_page=request["page"] < 0,
        week=np.full(len(request["time"]), week, dtype=np.int8),
        offsets=found.offsets,
        article_id=found.article_id,
        article=article,
        clicked=clicked,
        row=np.arange(len(request["time"]), dtype=np.int64),
    )


def build_history(found: Clicks, articles: Vocabulary, users: Vocabulary) -> History:
    """Index histories by user: clicks of users that the vocabulary lacks are left out."""
    user = users.index_of(found.user_id)
    order = np.argsort(user, kind="stable")
    order = order[user[order] > 0]
    counts = np.zeros(len(users), np.int64)
    counts[user[order]] = np.diff(found.offsets)[order]
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    article = lists_of(articles.index_of(found.article_id), found.offsets, order)
    time = lists_of(found.time, found.offsets, order)
    _sort_by_time(offsets, article, time)
    return History(offsets, article, time)


@njit(cache=True, nogil=True)
def _label(offsets, article, click_offsets, click, articles, clicked):  # type: ignore[no-untyped-def]
    """Mark clicked candidates; count clicks that match no candidate and slates that repeat an article."""
    place = np.full(articles, -1, dtype=np.int64)
    outside = repeated = 0
    for row in range(len(offsets) - 1):
        twice = False
        for candidate in range(offsets[row], offsets[row + 1]):
            twice = twice or place[article[candidate]] >= offsets[row]
            place[article[candidate]] = candidate
        repeated += twice
        for at in range(click_offsets[row], click_offsets[row + 1]):
            candidate = place[click[at]] if click[at] > 0 else -1
            if candidate >= offsets[row]:
                clicked[candidate] = True
            else:
                outside += 1
    return clicked, outside, repeated


@njit(cache=True, nogil=True)
def _sort_by_time(offsets, article, time):  # type: ignore[no-untyped-def]
    """Put the clicks of each user in order of time, those of the same microsecond as they stand."""
    for user in range(len(offsets) - 1):
        begin, end = offsets[user], offsets[user + 1]
        own = time[begin:end]
        if (own[1:] < own[:-1]).any():
            order = np.argsort(own, kind="mergesort")
            article[begin:end], time[begin:end] = article[begin:end][order], own[order]


def _lists(path: Path, name: str) -> ColumnBuffer:
    """Return an empty buffer for a list column; raises ``BundleError`` where the file is no parquet."""
    with readable(path):
        return ColumnBuffer([path], name, (schema.BEHAVIORS | schema.HISTORY)[name])


def _request(rows: pa.Table) -> dict[str, np.ndarray]:
    """Return what is known of impressions beside their candidates."""
    nothing = np.zeros(rows.num_rows, np.int32)
    told = rows.column_names
    return {
        "impression_id": rows["impression_id"].to_numpy(),
        "user_id": rows["user_id"].to_numpy(),
        "time": microseconds(rows["impression_time"]),
        # -1 where it is null: a session of its own.
        "session": pc.fill_null(rows["session_id"].cast(pa.int64()), -1).to_numpy(),
        "device": pc.fill_null(rows["device_type"], 0).to_numpy(),
        "subscriber": pc.fill_null(rows["is_subscriber"], False).to_numpy(),
        # An article id; -1 on the front page, 0 where a hidden test does not tell it.
        "page": pc.fill_null(rows["article_id"], -1).to_numpy() if "article_id" in told else nothing,
        # Whether it is for beyond-accuracy measures: its slate was made up and shown to nobody.
        "beyond": rows["is_beyond_accuracy"].to_numpy() if "is_beyond_accuracy" in told else nothing > 0,
    }


def batches(path: Path, table: dict[str, pa.DataType], names: tuple[str, ...]) -> Iterator[pa.Table]:
    """Yield rows of some columns of a file in the types of its schema ``table``, ``BATCH`` at a time.

    Raises:
        BundleError: the file cannot be read or a value is wrong, see ``_checked``; counts are those of the whole file.
    """
    file, rows = open_parquet(path), 0
    schema.check_schema(path, file.schema_arrow, {name: table[name] for name in names})
    with readable(path):
        for group in range(file.metadata.num_row_groups):
            # A reader keeps what it has read until it is dropped, so each row group gets one of its own.
            for batch in pq.ParquetFile(path).iter_batches(BATCH, row_groups=[group], columns=list(names)):
                found = pa.Table.from_batches([batch]).select(list(names))
                try:
                    found = _checked(path, found, table)
                except BundleError:
                    for name in names:
                        _read(path, table, (name,))
                    raise
                rows += found.num_rows
                yield found
    if rows != file.metadata.num_rows:  # of a damaged page nothing may come, without an error
        raise BundleError(f"{path}: {rows} of {file.metadata.num_rows} rows can be read. Fetch the file again.")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise ``BundleError`` where what is done in this context finds a file damaged."""
    try:
        yield
    except UNREADABLE as error:
        raise BundleError(f"{path}: cannot be read ({first_line(error)}). Fetch the file again.") from error


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a parquet file; raises ``BundleError`` where it is none."""
    with readable(path):
        return pq.ParquetFile(path)


def _read(path: Path, table: dict[str, pa.DataType], columns: tuple[str, ...]) -> pa.Table:
    with readable(path):
        found = pq.ParquetFile(path).read(columns=list(columns)).select(list(columns)).combine_chunks()
    return _checked(path, found, table)


def _checked(path: Path, found: pa.Table, table: dict[str, pa.DataType]) -> pa.Table:
    """Return rows of a file in the types of the schema ``table``.

    Raises:
        BundleError: a value is null that must not be, does not fit its type or range, or is no article id.
    """
    cast = []
    for name in found.column_names:
        cast.append(cast_column(path, name, found[name], table[name]))
        if name not in _NULLABLE and (name, path.stem) != ("article_id", "behaviors"):
            rows, items = cast[-1].null_count, flat(cast[-1]).null_count
            rows *= name != "impression_time_fixed"
            where = f"{rows} rows" if rows else f"{items} list items"
            refuse(
                rows or items, f"{path}: column {name} is null in {where}. Drop or fill these: it must have a value."
            )
    return pa.table(cast, names=found.column_names).combine_chunks()


def _refuse_repeats(path: Path, name: str, ids: np.ndarray) -> None:
    repeated = len(ids) - len(distinct(ids))
    refuse(repeated, f"{path}: column {name} repeats {repeated} of {len(ids)} ids. Drop the repeats.")


def microseconds(times: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return timestamps of microseconds as int64."""
    # A copy: kernels compile anew for arrays that may not be written.
    return np.array(times.cast(pa.int64()).to_numpy())
