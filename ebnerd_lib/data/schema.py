"""Columns of a bundle: their types, what they may hold, and how they are cast."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from ebnerd_lib.errors import BundleError, first_line

BEHAVIORS: dict[str, pa.DataType] = {
    "impression_id": pa.uint32(),
    "article_id": pa.int32(),
    "impression_time": pa.timestamp("us"),
    "read_time": pa.float32(),
    "scroll_percentage": pa.float32(),
    "device_type": pa.int8(),
    "article_ids_inview": pa.large_list(pa.int32()),
    "article_ids_clicked": pa.large_list(pa.int32()),
    "user_id": pa.uint32(),
    "is_sso_user": pa.bool_(),
    "gender": pa.int8(),
    "postcode": pa.int8(),
    "age": pa.int8(),
    "is_subscriber": pa.bool_(),
    "session_id": pa.uint32(),
    "next_read_time": pa.float32(),
    "next_scroll_percentage": pa.float32(),
}

# The hidden test week tells nothing of the click, nor which page was being read.
TEST_BEHAVIORS: dict[str, pa.DataType] = {
    name: kind
    for name, kind in BEHAVIORS.items()
    if name not in ("article_id", "article_ids_clicked", "next_read_time", "next_scroll_percentage")
} | {"is_beyond_accuracy": pa.bool_()}

HISTORY: dict[str, pa.DataType] = {
    "user_id": pa.uint32(),
    "impression_time_fixed": pa.large_list(pa.timestamp("us")),
    "scroll_percentage_fixed": pa.large_list(pa.float32()),
    "article_id_fixed": pa.large_list(pa.int32()),
    "read_time_fixed": pa.large_list(pa.float32()),
}

ARTICLES: dict[str, pa.DataType] = {
    "article_id": pa.int32(),
    "title": pa.large_string(),
    "subtitle": pa.large_string(),
    "last_modified_time": pa.timestamp("us"),
    "premium": pa.bool_(),
    "body": pa.large_string(),
    "published_time": pa.timestamp("us"),
    "image_ids": pa.large_list(pa.int64()),
    "article_type": pa.large_string(),
    "url": pa.large_string(),
    "ner_clusters": pa.large_list(pa.large_string()),
    "entity_groups": pa.large_list(pa.large_string()),
    "topics": pa.large_list(pa.large_string()),
    "category": pa.int16(),
    "subcategory": pa.large_list(pa.int16()),
    "category_str": pa.large_string(),
    "total_inviews": pa.int32(),
    "total_pageviews": pa.int32(),
    "total_read_time": pa.float32(),
    "sentiment_score": pa.float32(),
    "sentiment_label": pa.large_string(),
}

SENTIMENT_LABELS = ("Negative", "Neutral", "Positive")


def _is_number(kind: pa.DataType) -> bool:
    return pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)


def _is_text(kind: pa.DataType) -> bool:
    texts = (pt.is_string, pt.is_large_string, pt.is_string_view, pt.is_binary, pt.is_large_binary, pt.is_binary_view)
    return any(is_text(kind) for is_text in texts)


_KINDS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType], bool]], ...] = (
    (pt.is_integer, _is_number),
    (pt.is_floating, _is_number),
    (pt.is_boolean, lambda t: pt.is_boolean(t) or _is_number(t)),
    (pt.is_large_string, _is_text),
    (pt.is_timestamp, lambda t: pt.is_timestamp(t) and t.tz is None),
)


def _is_list(kind: pa.DataType) -> bool:
    variants = (pt.is_list, pt.is_large_list, pt.is_fixed_size_list, pt.is_list_view, pt.is_large_list_view)
    return any(is_variant(kind) for is_variant in variants)


def accepts(wanted: pa.DataType, found: pa.DataType) -> bool:
    """Say whether a column of type ``found`` can be read as ``wanted``; whether all values can, ``cast_column`` sees.

    A column that is null throughout (Arrow's null type) can be read as anything.

    >>> accepts(pa.large_list(pa.int32()), pa.list_(pa.float64()))
    True
    >>> accepts(pa.timestamp("us"), pa.timestamp("us", tz="UTC"))
    False
    """
    if pt.is_null(found):
        return True
    if _is_list(wanted):
        return _is_list(found) and accepts(wanted.value_type, found.value_type)
    found = found.value_type if pt.is_dictionary(found) else found
    return any(is_wanted(wanted) and is_found(found) for is_wanted, is_found in _KINDS)


def arrow_schema(table: dict[str, pa.DataType]) -> pa.Schema:
    """Return the Arrow schema of a table, columns in file order."""
    return pa.schema(list(table.items()))


def table_of(columns: Mapping[str, Any], table: dict[str, pa.DataType]) -> pa.Table:
    """Return columns as a table, in its order and types: null where a column is not given; others are left out."""
    rows = len(next(iter(columns.values())))
    arrays = [pa.array(columns[n], kind) if n in columns else pa.nulls(rows, kind) for n, kind in table.items()]
    return pa.table(arrays, schema=arrow_schema(table))


def refuse(fault: object, message: str) -> None:
    """Raise ``BundleError`` with a message if there is a fault: a count other than 0, or anything in a list."""
    if fault:
        raise BundleError(message)


def check_schema(path: Path, found: pa.Schema, wanted: dict[str, pa.DataType]) -> None:
    """Raise ``BundleError`` unless ``found`` has every column of ``wanted`` with a type that can be read.

    The message lists every column at fault at once, so that one run tells all there is to fix.
    """
    missing = [name for name in wanted if name not in found.names]
    refuse(
        missing,
        f"{path}: {len(missing)} of the {len(wanted)} columns that are read are missing: {', '.join(missing)}. "
        "Write the file with them, null where they are not known.",
    )
    twice = [name for name in wanted if found.names.count(name) > 1]
    refuse(twice, f"{path}: {len(twice)} columns occur more than once: {', '.join(twice)}. Keep one of each name.")
    wrong = [
        f"{name} is {found.field(name).type} instead of {kind}"
        for name, kind in wanted.items()
        if not accepts(kind, found.field(name).type)
    ]
    refuse(wrong, f"{path}: {len(wrong)} columns of a wrong type: {'; '.join(wrong)}. Convert them and retry.")


LIMITS: dict[str | pa.DataType, tuple[Any, Any]] = {
    "device_type": (0, 3),
    "sentiment_score": (0.0, 1.0),
    # 0 and -1 stand for what is unknown and for the front page
    **dict.fromkeys(("article_id", "article_ids_inview", "article_ids_clicked", "article_id_fixed"), (1, 2**31 - 1)),
    pa.bool_(): (0, 1),
    # so that differences of two times never leave 64 bits
    pa.timestamp("us"): (datetime(1970, 1, 1), datetime(2099, 12, 31, 23, 59, 59, 999_999)),
}
"""Between what the values of a column, or all of a type, lie, both included; NaN stands for an unknown value."""
_EXACT = {16: 2**11, 32: 2**24, 64: 2**53}
"""By the bits of a float, up to which whole number it holds every one: beyond it, two ids may have become one."""
UNREADABLE = (OSError, pa.ArrowException, ValueError, KeyError, MemoryError, OverflowError)
"""What pyarrow raises on damaged files: beside its own errors those of names that are no text and of absurd sizes."""


def cast_column(path: Path, name: str, column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column of a type that ``accepts`` in the schema's type ``kind``, its values unchanged.

    NaN in a column of whole numbers or booleans, as pandas writes a null there, is read as null.

    Raises:
        BundleError: text is not UTF-8, or a value does not fit the type or lies outside the limits of its column.
    """
    try:
        column.validate(full=True)
    except pa.ArrowException as error:
        raise BundleError(f"{path}: column {name} is damaged ({first_line(error)}). Fetch the file again.") from error
    items, wanted = flat(column), kind.value_type if _is_list(kind) else kind
    low, high = LIMITS.get(name, LIMITS.get(wanted, (None, None)))
    if pt.is_floating(items.type) and not pt.is_floating(wanted):
        most = _EXACT[items.type.bit_width] - 1
        low, high = (-most, most) if low is None else (low, min(high, most))
        if items.type == column.type:
            column = pc.if_else(pc.is_nan(column), None, column)
    try:
        cast = column.cast(pa.int8() if pt.is_boolean(kind) else kind)
    except pa.ArrowException as error:
        raise BundleError(
            f"{path}: column {name} has values that do not fit {kind} ({first_line(error)}). Fix them and retry."
        ) from error
    if low is not None:
        values = flat(cast)
        outside = pc.sum(pc.or_(pc.less(values, low), pc.greater(values, high))).as_py()
        told = f"{path}: column {name} has {outside} values outside {low} to {high}."
        refuse(outside, f"{told} Fix them, or write them as {kind} from the source.")
    return cast.cast(kind)


def flat(column: pa.ChunkedArray) -> pa.Array:
    """Return the items of a list column, row after row; of another column its values."""
    items = pc.list_flatten(column) if _is_list(column.type) else column
    if isinstance(items, pa.ChunkedArray):  # to combine copies, even a single chunk
        return items.chunk(0) if items.num_chunks == 1 else items.combine_chunks()
    return items


def list_lengths(column: pa.ChunkedArray) -> np.ndarray:
    """Return how many values each row of a list column has, 0 where it is null: int64 (rows,)."""
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
