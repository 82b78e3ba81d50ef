"""Open a bundle, check it, and read its tables as arrays.

Whatever is wrong with a file ends in one ``BundleError`` that names file, column, count and remedy.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numba import njit

from ebnerd_lib.data import schema
from ebnerd_lib.data.layout import SPLITS, VECTORS, check_files, generated_stamp
from ebnerd_lib.data.slates import Slates, writable
from ebnerd_lib.data.values import UNREADABLE, cast_column, first_line, flat
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.errors import BundleError

_SLATE_COLUMNS = (
    "impression_id", "article_id", "impression_time", "device_type", "article_ids_inview",
    "article_ids_clicked", "user_id", "is_subscriber", "session_id",
)  # fmt: skip
_TABLES = {"articles": schema.ARTICLES, "behaviors": schema.BEHAVIORS, "history": schema.HISTORY}
_NULLABLE = frozenset(schema.ARTICLES) - {"article_id"} | {
    "read_time", "scroll_percentage", "gender", "postcode", "age", "next_read_time", "next_scroll_percentage",
}  # fmt: skip


@dataclass(frozen=True)
class History:
    """The clicks of users in the 21 days before a split's week, as published with that split.

    Attributes:
        offsets: int64 (users + 1,): user ``u`` clicked ``offsets[u]:offsets[u + 1]`` of the arrays below.
        article: int32 (clicks,), index into the articles table.
        time: int64 (clicks,), microseconds, ascending within a user.
    """

    offsets: np.ndarray
    article: np.ndarray
    time: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """int64 (users,), clicks per user; users without history have 0."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Bundle:
    """A folder in EBNeRD's layout whose files exist and have the columns and types of the schema."""

    path: Path
    generated: dict[str, object] | None

    def articles(self, columns: tuple[str, ...]) -> pa.Table:
        """Read columns of the articles table. Raises ``BundleError`` on a null or repeated article id."""
        path = self.path / "articles.parquet"
        table = _read(path, schema.ARTICLES, columns)
        refuse_repeats(path, "article_id", table["article_id"].to_numpy())
        return table

    def behaviors(self, split: str) -> pa.Table:
        """Read the columns of a split's behaviors that slates are made of. An empty split is refused."""
        path = self.path / split / "behaviors.parquet"
        table = _read(path, schema.BEHAVIORS, _SLATE_COLUMNS)
        if not table.num_rows:
            raise BundleError(f"{path}: 0 rows. A split needs impressions: check that the file is complete.")
        refuse_repeats(path, "impression_id", table["impression_id"].to_numpy())
        return table

    def history_table(self, split: str) -> pa.Table:
        """Read who clicked what and when before the split's week. A user with two rows is refused."""
        path = self.path / split / "history.parquet"
        table = _read(path, schema.HISTORY, ("user_id", "article_id_fixed", "impression_time_fixed"))
        refuse_repeats(path, "user_id", table["user_id"].to_numpy())
        refuse_unequal(path, table)
        return table

    def vectors(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Read the article vectors, ``(ids (n,), float32 (n, size))``, or ``None`` where the bundle has none."""
        path = self.path / VECTORS
        if not path.exists():
            return None
        found = open_parquet(path).schema_arrow
        lists = [name for name in found.names if name != "article_id"]
        if "article_id" not in found.names or len(lists) != 1:
            raise BundleError(
                f"{path}: {len(found.names)} columns: {', '.join(found.names)}; expected article_id and one list of "
                "numbers. Keep these two."
            )
        wanted = {"article_id": pa.int32(), lists[0]: pa.large_list(pa.float32())}
        schema.check_schema(path, found, wanted)
        table = _read(path, wanted, tuple(wanted))
        ids = table["article_id"].to_numpy()
        refuse_repeats(path, "article_id", ids)
        sizes = np.unique(np.diff(list_offsets(table[lists[0]])))
        if len(sizes) != 1 or not sizes[0]:
            raise BundleError(
                f"{path}: column {lists[0]}: vectors of {len(sizes)} different lengths for {len(ids)} articles. "
                "All must be equally long: fetch the file again."
            )
        numbers = flat_values(table[lists[0]]).reshape(len(ids), -1)
        odd = int((~np.isfinite(numbers).all(axis=1)).sum())
        if odd:
            raise BundleError(
                f"{path}: column {lists[0]}: {odd} of {len(ids)} vectors hold a number that is not finite. "
                "Drop these rows: an article without a vector is no fault."
            )
        return ids, numbers

    def null_shares(self, name: str) -> dict[str, float]:
        """Return the share of null rows of each column of a table, as of ``train/history``.

        Columns are read one at a time, so memory is bounded by the largest of them. Of no rows it is 0.
        """
        path = self.path / f"{name}.parquet"
        file, shares = open_parquet(path), {}
        for column in dict.fromkeys(file.schema_arrow.names):
            try:
                found = file.read(columns=[column])
                nulls = found.column(found.schema.get_all_field_indices(column)[0]).null_count
            except UNREADABLE as error:
                raise BundleError(
                    f"{path}: column {column} cannot be read ({first_line(error)}). Fetch the file again."
                ) from error
            shares[column] = nulls / max(file.metadata.num_rows, 1)
        return shares


def open_bundle(path: Path) -> Bundle:
    """Open a bundle and check that each file exists and has the schema's columns and types.

    Raises:
        BundleError: a folder, file or column is missing, a file is no parquet, or a type is wrong.
    """
    files = check_files(path)
    for file in files:
        if file.stem in _TABLES:
            schema.check_schema(file, open_parquet(file).schema_arrow, _TABLES[file.stem])
    return Bundle(path, generated_stamp(path))


def build_slates(path: Path, table: pa.Table, articles: Vocabulary, users: Vocabulary, week: int) -> Slates:
    """Turn a behaviors table into slates with labels.

    Args:
        path: the file, for messages.
        table: as ``Bundle.behaviors`` returns it.
        articles: vocabulary that holds every article of every slate.
        users: vocabulary of users.
        week: 0 for the train file, 1 for the validation file.

    Raises:
        BundleError: a slate is empty or repeats an article, or a click lies outside its slate.
    """
    inview, clicks = table["article_ids_inview"], table["article_ids_clicked"]
    offsets, click_offsets = list_offsets(inview), list_offsets(clicks)
    empty = int((np.diff(offsets) == 0).sum())
    if empty:
        raise BundleError(
            f"{path}: article_ids_inview is empty in {empty} rows. An impression needs a slate: drop these rows."
        )
    article_id = flat_values(inview)
    article = articles.index_of(article_id)
    clicked, outside, repeated = _label(
        offsets, article, click_offsets, articles.index_of(flat_values(clicks)), len(articles)
    )
    if repeated:
        raise BundleError(
            f"{path}: article_ids_inview repeats an article in {repeated} rows. Keep each candidate of a slate once."
        )
    if outside:
        raise BundleError(
            f"{path}: article_ids_clicked has {outside} clicks outside their slate (article_ids_inview). "
            "Clicks must be among the candidates: drop or mend these rows."
        )
    page = table["article_id"]
    session = table["session_id"].to_numpy().astype(np.int64)
    return Slates(
        impression_id=table["impression_id"].to_numpy(),
        user_id=table["user_id"].to_numpy(),
        user=users.index_of(table["user_id"].to_numpy()),
        time=microseconds(table["impression_time"].combine_chunks()),
        session=session * len(SPLITS) + week,  # session ids are unique within a split only
        device=table["device_type"].to_numpy(),
        subscriber=table["is_subscriber"].to_numpy(),
        page=articles.index_of(pc.fill_null(page, -1).to_numpy()),
        front_page=page.is_null().to_numpy(),
        week=np.full(table.num_rows, week, dtype=np.int8),
        offsets=offsets,
        article_id=article_id,
        article=article,
        clicked=clicked,
    )


def build_history(table: pa.Table, articles: Vocabulary, users: Vocabulary) -> History:
    """Index a history table by user: clicks of users that the vocabulary lacks are left out."""
    user = users.index_of(table["user_id"].to_numpy())
    offsets = list_offsets(table["article_id_fixed"])
    lengths = np.diff(offsets)
    row_user = np.repeat(user, lengths)
    time = microseconds(flat(table["impression_time_fixed"]))
    order = np.lexsort((time, row_user))
    order = order[row_user[order] > 0]
    counts = np.bincount(row_user[order], minlength=len(users))
    return History(
        offsets=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        article=articles.index_of(flat_values(table["article_id_fixed"]))[order],
        time=time[order],
    )


@njit(cache=True, nogil=True)
def _label(offsets, article, click_offsets, click, articles):  # type: ignore[no-untyped-def]
    """Mark clicked candidates; count clicks that match no candidate and slates that repeat an article."""
    clicked = np.zeros(len(article), dtype=np.bool_)
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


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a parquet file; raises ``BundleError`` where it is none."""
    try:
        return pq.ParquetFile(path)
    except UNREADABLE as error:
        raise BundleError(
            f"{path}: not a readable parquet file ({first_line(error)}). Fetch the file again."
        ) from error


def _read(path: Path, table: dict[str, pa.DataType], columns: tuple[str, ...]) -> pa.Table:
    try:
        found = open_parquet(path).read(columns=list(columns)).select(list(columns)).combine_chunks()
    except UNREADABLE as error:
        raise BundleError(f"{path}: cannot be read ({first_line(error)}). Fetch the file again.") from error
    return checked(path, found, table)


def checked(path: Path, found: pa.Table, table: dict[str, pa.DataType]) -> pa.Table:
    """Return rows of a file in the types of the schema ``table``.

    Raises:
        BundleError: a value is null that must not be, does not fit its type or range, or is no article id.
    """
    cast = []
    for name in found.column_names:
        _refuse_nulls(path, name, found[name])
        cast.append(cast_column(path, name, found[name], table[name]))
        if name.startswith("article_id"):
            _refuse_low_ids(path, name, cast[-1])
    return pa.table(cast, names=found.column_names).combine_chunks()


def _refuse_low_ids(path: Path, name: str, column: pa.ChunkedArray) -> None:
    """Refuse article ids below 1: 0 and -1 stand for what is unknown and for the front page."""
    low = pc.sum(pc.less(flat(column), 1)).as_py() or 0
    if low:
        raise BundleError(f"{path}: column {name} has {low} article ids below 1. Ids start at 1: drop these.")


def _refuse_nulls(path: Path, name: str, column: pa.ChunkedArray) -> None:
    if name in _NULLABLE or (name == "article_id" and path.stem == "behaviors"):
        return
    inside = flat(column).null_count
    if column.null_count or inside:
        where = f"{column.null_count} rows" if column.null_count else f"{inside} list items"
        raise BundleError(f"{path}: column {name} is null in {where}; it must have a value. Drop or fill these rows.")


def refuse_unequal(path: Path, table: pa.Table) -> None:
    """Raise ``BundleError`` where a row of a history has not as many times as articles."""
    articles, times = table["article_id_fixed"], table["impression_time_fixed"]
    unequal = int((np.diff(list_offsets(articles)) != np.diff(list_offsets(times))).sum())
    if unequal:
        raise BundleError(
            f"{path}: article_id_fixed and impression_time_fixed differ in length in {unequal} rows. "
            "Each click needs its article and its time: fetch the file again."
        )


def refuse_repeats(path: Path, name: str, ids: np.ndarray) -> None:
    """Raise ``BundleError`` where ids of a column occur twice."""
    repeated = len(ids) - len(np.unique(ids))
    if repeated:
        raise BundleError(
            f"{path}: column {name} repeats {repeated} of {len(ids)} ids. Ids must be unique: drop the repeats."
        )


def flat_values(column: pa.ChunkedArray) -> np.ndarray:
    """Return all values of a list column, row after row."""
    return writable(flat(column))


def list_offsets(column: pa.ChunkedArray) -> np.ndarray:
    """Return where the rows of a list column begin among its values, and the end: int64 (rows + 1,)."""
    lengths = pc.list_value_length(column).to_numpy()
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def microseconds(times: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return timestamps of microseconds as int64."""
    return writable(times.cast(pa.int64()))
