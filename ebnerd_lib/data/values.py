"""Which values the columns of a bundle may hold beyond their types, and the casting of columns to the schema's types.

Whatever is wrong ends in one ``BundleError`` that names file, column, count and remedy.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from ebnerd_lib.errors import BundleError, first_line

YEARS = (1970, 2100)
"""Times lie from the first of these years on and before the second: differences of two never leave 64 bits."""
LIMITS: dict[str, tuple[float, float]] = {"device_type": (0, 3), "sentiment_score": (0.0, 1.0)}
"""Columns whose values lie between two numbers, both included; NaN stands for an unknown value."""
UNREADABLE = (OSError, pa.ArrowException, ValueError, KeyError, MemoryError, OverflowError)
"""What pyarrow raises on damaged files: beside its own errors those of names that are no text and of absurd sizes."""
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def cast_column(path: Path, name: str, column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column in the schema's type, its values unchanged.

    Args:
        path: the file, for messages.
        name: of the column.
        column: as it was read, of a type that ``schema.accepts``.
        kind: the schema's type.

    Raises:
        BundleError: text is not UTF-8, a value does not fit the type, a time is far off, or a value lies outside the
            limits of its column.
    """
    try:
        column.validate(full=True)
    except pa.ArrowException as error:
        raise BundleError(f"{path}: column {name} is damaged ({first_line(error)}). Fetch the file again.") from error
    _refuse_far_times(path, name, column)
    try:
        cast = column.cast(kind)
    except pa.ArrowException as error:
        raise BundleError(
            f"{path}: column {name} has {_misfits(column, kind)} values that do not fit {kind} ({first_line(error)}). "
            "Mend them and retry."
        ) from error
    if name in LIMITS:
        low, high = LIMITS[name]
        values = cast.drop_null().to_numpy()
        outside = int(((values < low) | (values > high)).sum())
        if outside:
            raise BundleError(
                f"{path}: column {name} has {outside} values outside {low:g} to {high:g}. Mend them or make them null."
            )
    return cast


def flat(column: pa.ChunkedArray) -> pa.Array:
    """Return the items of a list column, row after row; of another column its values."""
    items = pc.list_flatten(column) if pt.is_list(column.type) or pt.is_large_list(column.type) else column
    if isinstance(items, pa.ChunkedArray):
        return items.chunk(0) if items.num_chunks == 1 else items.combine_chunks()
    return items


def _refuse_far_times(path: Path, name: str, column: pa.ChunkedArray) -> None:
    items = flat(column)
    if not pt.is_timestamp(items.type):
        return
    ticks = items.drop_null().cast(pa.int64()).to_numpy()
    first, last = (int(np.datetime64(str(year), "s").astype(np.int64)) * _UNITS[items.type.unit] for year in YEARS)
    far = int(((ticks < first) | (ticks >= last)).sum())
    if far:
        raise BundleError(
            f"{path}: column {name} has {far} times outside the years {YEARS[0]} to {YEARS[1] - 1}. "
            "Mend them: the unit may be wrong."
        )


def _misfits(column: pa.ChunkedArray, kind: pa.DataType) -> int:
    """Count the values that a cast would change."""
    items = flat(column).drop_null()
    item = kind.value_type if pt.is_large_list(kind) else kind
    if pt.is_timestamp(item):
        return int((items.cast(pa.int64()).to_numpy() % (_UNITS[items.type.unit] // _UNITS[item.unit]) != 0).sum())
    values = items.to_numpy(zero_copy_only=False)
    if pt.is_integer(item):
        limits = np.iinfo(item.to_pandas_dtype())
        return int(((values < int(limits.min)) | (values > int(limits.max))).sum())
    return int((values.astype(item.to_pandas_dtype()) != values).sum())
