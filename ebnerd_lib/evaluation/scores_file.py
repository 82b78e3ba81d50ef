"""Scores from elsewhere: a parquet file of any tool, read and put in the order of the slates.

One row a candidate (``impression_id``, ``article_id``, ``score``), or one row an impression with ``article_id`` and
``score`` as lists of equal length. Rows in any order, integers of any width, further columns are ignored.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ebnerd_lib.data.slates import Slates
from ebnerd_lib.errors import BundleError

COLUMNS = ("impression_id", "article_id", "score")


def read_scores(path: Path, slates: Slates) -> np.ndarray:
    """Read a scores file: float64 (m,), one a candidate in the order of ``slates``.

    Raises:
        BundleError: the file or a column is missing or of a wrong type, or candidates are repeated, not finite,
            not in the slates, or without a score.
    """
    impression, article, score = _columns(path)
    row = _rows_of(slates.impression_id, impression)
    wanted = _keys(np.repeat(np.arange(len(slates)), slates.lengths), slates.article_id)
    given = _keys(row, article)
    unknown = (row < 0) | (article < 0) | (article > np.iinfo(np.uint32).max)
    _refuse_repeats(path, impression, article)
    _refuse(
        path, "score", ~np.isfinite(score), impression, article,
        "scores are not finite (null, NaN or infinite)", "Give every candidate a finite number",
    )  # fmt: skip
    order = np.argsort(wanted, kind="stable")
    place = np.searchsorted(wanted[order], given)
    at = order[np.minimum(place, len(order) - 1)]
    _refuse(
        path, "article_id", unknown | (wanted[at] != given), impression, article,
        f"rows are extra: no such candidate among the {slates.candidates} of the {len(slates)} impressions to judge",
        "Drop them, or check --bundle and --split",
    )  # fmt: skip
    found = np.full(slates.candidates, np.nan)
    found[at] = score
    _refuse(
        path, "score", np.isnan(found), slates.per_candidate(slates.impression_id), slates.article_id,
        f"of {slates.candidates} candidates are missing", "Score every article_ids_inview of every impression",
    )  # fmt: skip
    return found


def _columns(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return impression and article as int64 and the score as float64, null as NaN, one row a candidate."""
    try:
        table = pq.ParquetFile(path).read(columns=list(COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise BundleError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]}).") from error
    lacking = [name for name in COLUMNS if name not in table.column_names]
    if lacking:
        raise BundleError(
            f"{path}: column {', '.join(lacking)} is missing. A scores file has the columns {', '.join(COLUMNS)}."
        )
    table = table.select(list(COLUMNS)).combine_chunks()
    nested = [pa.types.is_nested(table[name].type) for name in COLUMNS]
    if nested == [False, True, True]:
        table = _flatten(path, table)
    elif any(nested):
        raise BundleError(
            f"{path}: columns {', '.join(n for n, x in zip(COLUMNS, nested, strict=True) if x)} hold lists. Give one "
            "row a candidate, or one row an impression with article_id and score both as lists."
        )
    impression, article = (_whole(path, name, table[name]) for name in COLUMNS[:2])
    return impression, article, _numbers(path, table["score"])


def _flatten(path: Path, table: pa.Table) -> pa.Table:
    lengths = [pc.fill_null(pc.list_value_length(table[name]), 0).to_numpy() for name in COLUMNS[1:]]
    wrong = np.flatnonzero(lengths[0] != lengths[1])
    if len(wrong):
        raise BundleError(
            f"{path}: article_id and score differ in length in {len(wrong)} rows, as in impression "
            f"{table['impression_id'][int(wrong[0])]}. Each article needs its score."
        )
    impression = table["impression_id"].take(pa.array(np.repeat(np.arange(table.num_rows), lengths[0])))
    return pa.table([impression, *(pc.list_flatten(table[name]) for name in COLUMNS[1:])], names=list(COLUMNS))


def _whole(path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    if column.null_count:
        raise BundleError(f"{path}: column {name} is null in {column.null_count} rows. Name every candidate.")
    try:
        return column.cast(pa.int64()).to_numpy()
    except pa.ArrowException as error:
        raise BundleError(
            f"{path}: column {name} is {column.type} and holds no whole numbers ({str(error).splitlines()[0]}). "
            "Write ids as integers."
        ) from error


def _numbers(path: Path, column: pa.ChunkedArray) -> np.ndarray:
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_decimal(column.type)):
        raise BundleError(f"{path}: column score is {column.type}. Write scores as numbers.")
    return pc.fill_null(column.cast(pa.float64(), safe=False), np.nan).to_numpy()


def _rows_of(known: np.ndarray, impression: np.ndarray) -> np.ndarray:
    """Return the row of each impression in ``known``, -1 where it is not there."""
    order = np.argsort(known, kind="stable")
    sorted_ids = known[order].astype(np.int64)
    place = np.minimum(np.searchsorted(sorted_ids, impression), len(known) - 1)
    return np.where(sorted_ids[place] == impression, order[place], -1)


def _keys(row: np.ndarray, article: np.ndarray) -> np.ndarray:
    """Return one number for each pair of an impression's row and an article's id below 2³²."""
    return (row.astype(np.int64) << 32) | (article.astype(np.int64) & 0xFFFFFFFF)


def _refuse_repeats(path: Path, impression: np.ndarray, article: np.ndarray) -> None:
    order = np.lexsort((article, impression))
    again = (np.diff(impression[order]) == 0) & (np.diff(article[order]) == 0)
    repeated = np.zeros(len(order), bool)
    repeated[order[1:][again]] = True
    _refuse(path, "article_id", repeated, impression, article, "rows repeat a candidate", "Score each candidate once")


def _refuse(
    path: Path, column: str, wrong: np.ndarray, impression: np.ndarray, article: np.ndarray, what: str, remedy: str
) -> None:
    count = int(wrong.sum())
    if count:
        first = int(np.argmax(wrong))
        raise BundleError(
            f"{path}: column {column}: {count} {what}, as article {article[first]} in impression {impression[first]}. "
            f"{remedy}."
        )
