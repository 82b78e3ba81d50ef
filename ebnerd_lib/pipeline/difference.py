"""Where two files that should be equal begin to differ: the key, the column and row, or the byte."""

import json
from pathlib import Path
from typing import Any

_BLOCK = 2**20


def first_difference(ours: Path, theirs: Path) -> str | None:
    """Say where two files differ first, in the terms of their kind; ``None`` if they are equal byte for byte.

    JSON files are compared by key, parquet files by column and row, arrays by index; files of other kinds, and those
    that hold the same in other bytes, by byte. NaN equals NaN.
    """
    byte = _first_byte(ours, theirs)
    if byte is None:
        return None
    try:
        place = {".json": _in_json, ".parquet": _in_parquet, ".npy": _in_array}[ours.suffix](ours, theirs)
    except (KeyError, ValueError, OSError):  # of no such kind, or so broken that it cannot be read as one
        place = None
    return place or f"byte {byte:,}"


def _first_byte(ours: Path, theirs: Path) -> int | None:
    at = 0
    with ours.open("rb") as left, theirs.open("rb") as right:
        while True:
            one, other = left.read(_BLOCK), right.read(_BLOCK)
            if one != other:
                pairs = zip(one, other, strict=False)
                return at + next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
            if not one:
                return None
            at += len(one)


def _in_json(ours: Path, theirs: Path) -> str | None:
    return _in_value("", *(json.loads(file.read_text(encoding="utf-8")) for file in (ours, theirs)))


def _in_value(key: str, one: Any, other: Any) -> str | None:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in [*one, *(name for name in other if name not in one)]:
            if name not in one or name not in other:
                return f"key {key}{name}: only in one of them"
            if found := _in_value(f"{key}{name}.", one[name], other[name]):
                return found
        return None
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((found for place, (a, b) in pairs if (found := _in_value(f"{key}{place}.", a, b))), None)
    return None if repr(one) == repr(other) else f"key {key.removesuffix('.')}: {_short(one)} and {_short(other)}"


def _in_parquet(ours: Path, theirs: Path) -> str | None:
    import pyarrow.parquet as pq

    one, other = pq.read_table(ours), pq.read_table(theirs)
    if one.schema != other.schema:
        return "the columns or their types"
    if one.num_rows != other.num_rows:
        return f"{one.num_rows:,} and {other.num_rows:,} rows"
    for name in one.column_names:
        if not one[name].equals(other[name]):
            pairs = enumerate(zip(one[name].to_pylist(), other[name].to_pylist(), strict=True))
            found = next(((row, a, b) for row, (a, b) in pairs if repr(a) != repr(b)), None)
            if found:
                return f"column {name}, row {found[0]:,}: {_short(found[1])} and {_short(found[2])}"
    return None


def _in_array(ours: Path, theirs: Path) -> str | None:
    import numpy as np

    one, other = (np.load(file, mmap_mode="r", allow_pickle=False) for file in (ours, theirs))
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return f"{one.dtype} {one.shape} and {other.dtype} {other.shape}"
    rows = max(1, _BLOCK // max(1, int(np.prod(one.shape[1:]))))
    for start in range(0, len(one), rows):
        left, right = np.asarray(one[start : start + rows]), np.asarray(other[start : start + rows])
        unequal = np.argwhere((left != right) & ((left == left) | (right == right)))
        if len(unequal):
            place = tuple(int(number) for number in unequal[0])
            where = f"row {start + place[0]:,}" + "".join(f", column {_column(ours, number)}" for number in place[1:])
            return f"{where}: {left[place]} and {right[place]}"
    return None


def _column(file: Path, number: int) -> str:
    """Return the name of a column of features, of other arrays its number."""
    names = file.with_name("features.json")
    if file.stem.startswith("features_") and names.exists():
        return str(json.loads(names.read_text(encoding="utf-8"))[number]["name"])
    return str(number)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
