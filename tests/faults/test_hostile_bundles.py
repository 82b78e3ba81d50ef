"""Hostile bundles: each is refused in one message to act on, or read right, as an oracle of rows says."""

import collections
import contextlib
import io
import math
import random
import re
import shutil
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rows import Oracle, read_rows
from share import amount, record

from ebnerd_lib.data import summary
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import Dataset, prepare
from ebnerd_lib.errors import EbnerdError
from ebnerd_lib.features.build import build
from ebnerd_lib.features.registry import every_column
from ebnerd_lib.features.store import feature_context

DEADLINE = 20.0  # seconds a case may take
TABLES = ("articles", "train_behaviors", "train_history", "validation_behaviors", "validation_history")
BEHAVIORS = ("train_behaviors", "validation_behaviors")
HISTORIES = ("train_history", "validation_history")
DAY = 24 * 3_600_000_000
FIRST, LATE = 1_684_393_200_000_000, 1_684_998_000_000_000  # 18 and 25 May 2023, 07:00
REMEDY = re.compile(
    r"[.:;,] (Fetch|Drop|Mend|Keep|Convert|Use|Unpack|Generate|Check|Name|Give|check|drop|fetch)\b.{5,}[.?]$"
)


@dataclass
class Case:
    """A bundle about to be written, and what was done to it.

    Attributes:
        tables: the tables by name, ``train_behaviors`` and so on.
        files: what is done to files after they are written.
        vectors: the article vectors, if any.
        hit: the names of the files at fault, of which a refusal must name one.
        column: the column at fault, which a refusal must name.
        must: ``refuse``, ``accept`` or, where it depends, neither.
    """

    tables: dict[str, pa.Table]
    files: list[Callable[[Path], None]] = field(default_factory=list)
    vectors: pa.Table | None = None
    hit: list[str] = field(default_factory=list)
    column: str = ""
    must: str = ""
    split: str = "official"

    def put(self, name: str, column: str, values: list, kind: pa.DataType | None = None) -> None:
        """Write a column anew and note it as the one at fault."""
        table = self.tables[name]
        array = pa.array(values, type=kind or table[column].type)
        self.tables[name] = table.set_column(table.column_names.index(column), column, array)
        self.at(name, column)

    def at(self, name: str, column: str = "", must: str = "") -> None:
        self.hit.append(path_of(name) if name in TABLES else name)
        self.column, self.must = column, must or self.must

    def values(self, name: str, column: str) -> list:
        return self.tables[name][column].to_pylist()


# What is done to bundles. Each takes the draw function and the case.


def pick(draw, *choices):
    return draw(st.sampled_from(choices))


def path_of(name: str) -> str:
    return f"{name.replace('_', '/')}.parquet"


def damage_file(draw, case):
    name = pick(draw, *TABLES)
    how = pick(
        draw, "no file", "no bytes", "folder", "garbage", "truncated", "pages", "text", "no magic", "folder with it"
    )
    seed = draw(st.integers(0, 2**20))

    def change(folder: Path) -> None:
        file, whole = folder / path_of(name), (folder / path_of(name)).read_bytes()
        noise = random.Random(seed).randbytes(len(whole))
        if how in ("no file", "folder", "folder with it"):
            file.unlink()
            if how != "no file":
                file.mkdir()
                (file / "part-0.parquet").write_bytes(whole if how == "folder with it" else b"")
            return
        footer = int.from_bytes(whole[-8:-4], "little") + 8
        file.write_bytes(
            {
                "no bytes": b"", "garbage": noise, "truncated": whole[: seed % len(whole)], "text": b"a,b\n1,2\n" * 50,
                "pages": b"PAR1" + noise[: len(whole) - footer - 4] + whole[-footer:], "no magic": whole[:-4] + b"XXXX",
            }[how]
        )  # fmt: skip

    case.files.append(change)
    case.at(name, must="refuse")
    if how in ("pages",):
        case.must = ""


def flip_bytes(draw, case):
    """Bytes of a file changed at random: what still opens is read as pyarrow reads it, or refused."""
    name, seed, flips = pick(draw, *TABLES), draw(st.integers(0, 2**30)), pick(draw, 1, 3, 30)
    data_only = draw(st.booleans())

    def change(folder: Path) -> None:
        file = folder / path_of(name)
        whole, rng = bytearray(file.read_bytes()), random.Random(seed)
        end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little") if data_only else len(whole)
        for _ in range(flips):
            whole[rng.randrange(4, end)] = rng.randrange(256)
        file.write_bytes(bytes(whole))

    case.files.append(change)
    case.at(name)


def swap_files(draw, case):
    one, other = draw(st.sampled_from([(a, b) for a in TABLES for b in TABLES if a != b]))
    case.tables[one], case.tables[other] = case.tables[other], case.tables[one]
    case.at(one)
    case.at(other)
    case.hit.append("behaviors")
    case.must = "refuse" if one[-5:] != other[-5:] else "accept"
    if one in BEHAVIORS and other in BEHAVIORS:
        case.must = "refuse" if case.split == "official" else ""


def lose_column(draw, case):
    name = pick(draw, *TABLES)
    column = pick(draw, *case.tables[name].column_names)
    how = pick(draw, "drop", "case", "space", "prefix")
    if how == "drop":
        case.tables[name] = case.tables[name].drop_columns([column])
    else:
        new = {"case": column.upper(), "space": f"{column} ", "prefix": f"x_{column}"}[how]
        case.tables[name] = case.tables[name].rename_columns({column: new})
    case.at(name, column, "refuse")


def add_column(draw, case):
    name = pick(draw, *TABLES)
    table = case.tables[name]
    how = pick(draw, "extra", "struct", "nulls", "case", "dotted", "twice", "order")
    if how == "order":
        case.tables[name] = table.select(draw(st.permutations(table.column_names)))
        case.at(name, must="accept")
        return
    column = pick(draw, *table.column_names)
    title = {"case": column.upper(), "dotted": f"{column}.list", "twice": column}.get(how, "extra")
    new = {
        "struct": pa.array([{"a": [1]}] * table.num_rows, pa.struct({"a": pa.list_(pa.int8())})),
        "nulls": pa.nulls(table.num_rows),
    }.get(how, table[column])  # fmt: skip
    case.tables[name] = table.append_column(title, new)
    case.at(name, column if how == "twice" else "", "refuse" if how == "twice" else "accept")


def wrong_type(draw, case):
    name = pick(draw, *TABLES)
    column = pick(draw, *case.tables[name].column_names)
    kind = pick(
        draw, pa.string(), pa.float64(), pa.bool_(), pa.date32(), pa.binary(), pa.int64(), pa.uint64(), pa.float16(),
        pa.timestamp("us", tz="UTC"), pa.timestamp("ns", tz="Europe/Copenhagen"), pa.timestamp("s"), pa.time64("us"),
        pa.duration("us"), pa.dictionary(pa.int8(), pa.string()), pa.decimal128(20, 2), pa.list_(pa.int32()),
        pa.list_(pa.string()), pa.list_(pa.list_(pa.int32())), pa.list_(pa.int64(), 2), pa.struct({"a": pa.int8()}),
        pa.map_(pa.string(), pa.int32()), pa.null(), pa.large_list(pa.timestamp("us", tz="UTC")),
        pa.large_list(pa.float32()),
    )  # fmt: skip
    rows, old = case.tables[name].num_rows, case.tables[name][column].to_pylist()
    try:
        new = case.tables[name][column].cast(kind).combine_chunks()
    except (pa.ArrowException, NotImplementedError):
        new = pa.nulls(rows, kind)
    if pa.types.is_fixed_size_list(kind):
        new = pa.array([[1, 2]] * rows, kind)
    case.put(name, column, new if isinstance(new, pa.Array) else old, kind)


def null_values(draw, case):
    name = pick(draw, *TABLES)
    column = pick(draw, *case.tables[name].column_names)
    old, rng = case.values(name, column), random.Random(draw(st.integers(0, 999)))
    rows = rng.sample(range(len(old)), rng.randint(1, len(old)))
    inside = pa.types.is_nested(case.tables[name][column].type) and draw(st.booleans())
    for row in rows:
        if inside:
            own = list(old[row] or [])
            own.insert(rng.randint(0, len(own)), None)
            old[row] = own
        else:
            old[row] = None
    case.put(name, column, old)


def odd_floats(draw, case):
    name, column = pick(
        draw, ("articles", "sentiment_score"), ("articles", "total_read_time"), ("train_behaviors", "read_time"),
        ("validation_behaviors", "next_scroll_percentage"), ("articles", "sentiment_score"),
    )  # fmt: skip
    value = pick(draw, math.nan, math.inf, -math.inf, -0.5, 1.5, 1e300, -1e300, 5e-324, 1.0, 0.0, -0.0)
    old = case.values(name, column)
    for row in range(0, len(old), pick(draw, 1, 2, 5)):
        old[row] = value
    case.put(name, column, old, pa.float64())
    if column != "sentiment_score":
        case.must = "accept"
    elif not (math.isnan(value) or 0 <= value <= 1):
        case.must = "refuse"


def odd_labels(draw, case):
    column, value = pick(
        draw, ("sentiment_label", "positive"), ("sentiment_label", ""), ("sentiment_label", "Mixed"), ("title", "\x00"),
        ("title", "<script>"), ("url", "javascript:alert(1)"), ("title", "é" * 100_000), ("article_type", ""),
        ("title", None),
        ("category_str", "a\nb"), ("premium", None), ("premium", True), ("url", "\U0001f600"),
    )  # fmt: skip
    old = case.values("articles", column)
    old[draw(st.integers(0, len(old) - 1))] = value
    case.put("articles", column, old)
    case.must = "accept"


def odd_topics(draw, case):
    old = case.values("articles", "topics")
    topics = st.lists(st.sampled_from(["Sport", "Livsstil", "Krimi", "", "sport", None]), max_size=6)
    for row in range(len(old)):
        old[row] = draw(topics | st.none())
    case.put("articles", "topics", old)
    case.must = "accept"


def bad_text(draw, case):
    """Text that is not UTF-8."""
    column = pick(draw, "title", "sentiment_label", "url", "category_str", "body", "topics")
    table = case.tables["articles"]
    values = [b"\xff\xfe\xfa" if row % 3 == 0 else b"ok" for row in range(table.num_rows)]
    raw = pa.array(values, pa.binary())
    text = pa.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2])
    if column == "topics":
        text = pa.ListArray.from_arrays(pa.array(range(table.num_rows + 1), pa.int32()), text)
    case.tables["articles"] = table.set_column(table.column_names.index(column), column, text)
    case.at("articles", column, "accept" if column == "body" else "refuse")


def empty_lists(draw, case):
    name, column = pick(
        draw, *((b, c) for b in BEHAVIORS for c in ("article_ids_inview", "article_ids_clicked")),
        *((h, c) for h in HISTORIES for c in ("article_id_fixed", "impression_time_fixed", "both")),
        ("articles", "topics"),
    )  # fmt: skip
    for each in ("article_id_fixed", "impression_time_fixed") if column == "both" else (column,):
        old = case.values(name, each)
        rows = [draw(st.integers(0, len(old) - 1))] if column != "both" else range(len(old))
        for row in rows:
            if column == "article_ids_inview" or old[row]:
                case.must = "refuse" if column not in ("article_ids_clicked", "both", "topics") else "accept"
            old[row] = []
        case.put(name, each, old)


def no_rows(draw, case):
    name = pick(draw, *TABLES)
    case.tables[name] = case.tables[name].slice(0, 0)
    case.at(name, must="refuse" if name in BEHAVIORS else "accept")


def few_rows(draw, case):
    """Parts of a file: too little for a part, or enough."""
    name = pick(draw, *TABLES)
    rows = draw(st.lists(st.integers(0, case.tables[name].num_rows - 1), min_size=1, max_size=4, unique=True))
    case.tables[name] = case.tables[name].take(rows)
    case.at(name)
    if "/behaviors" in case.hit[-1]:
        case.hit.append("behaviors")
    else:
        case.must = "accept"


def repeat_ids(draw, case):
    name, column = pick(
        draw,
        *((b, "impression_id") for b in BEHAVIORS),
        *((h, "user_id") for h in HISTORIES),
        ("articles", "article_id"),
    )
    old = case.values(name, column)
    one, other = draw(st.lists(st.integers(0, len(old) - 1), min_size=2, max_size=2, unique=True))
    old[one] = old[other]
    case.put(name, column, old)
    case.must = "refuse"


def repeat_whole_rows(draw, case):
    name = pick(draw, *TABLES)
    case.tables[name] = pa.concat_tables([case.tables[name]] * pick(draw, 2, 3))
    case.at(name, must="refuse")


def repeat_in_lists(draw, case):
    name, column = pick(draw, *((b, c) for b in BEHAVIORS for c in ("article_ids_inview", "article_ids_clicked")))
    old = case.values(name, column)
    row = draw(st.integers(0, len(old) - 1))
    old[row] = old[row] + old[row][:1]
    case.put(name, column, old)
    case.must = "accept" if column.endswith("clicked") else "refuse"


def click_outside(draw, case):
    name = pick(draw, *BEHAVIORS)
    old, slates = case.values(name, "article_ids_clicked"), case.values(name, "article_ids_inview")
    row = draw(st.integers(0, len(old) - 1))
    old[row] = [*old[row], pick(draw, 1, 5_000_000, 2**31 - 1, *slates[row - 1])]
    case.put(name, "article_ids_clicked", old)
    case.must = "accept" if set(old[row]) <= set(slates[row]) else "refuse"


def strangers(draw, case):
    """Users without history, histories without users, articles that the table lacks, pages nobody knows."""
    how = pick(draw, "user", "history user", "slate", "history", "page", "table")
    number = pick(draw, 1, 77, 2**31 - 1, 3_000_000)
    if how == "user":
        name = pick(draw, *BEHAVIORS)
        case.put(name, "user_id", [number + row for row in range(case.tables[name].num_rows)])
    elif how == "history user":
        name = pick(draw, *HISTORIES)
        case.put(name, "user_id", [number + 5 * row for row in range(case.tables[name].num_rows)])
    elif how == "slate":
        name = pick(draw, *BEHAVIORS)
        old = case.values(name, "article_ids_inview")
        case.put(name, "article_ids_inview", [[*(a for a in slate if a != number), number] for slate in old])
    elif how == "history":
        name = pick(draw, *HISTORIES)
        old = case.values(name, "article_id_fixed")
        case.put(name, "article_id_fixed", [[number for _ in own] for own in old])
    elif how == "page":
        name = pick(draw, *BEHAVIORS)
        case.put(name, "article_id", [number] * case.tables[name].num_rows)
    else:
        case.put("articles", "article_id", [number - row for row in range(case.tables["articles"].num_rows)][::-1])
        if number < 12:
            case.must = "refuse"
            return
    case.must = "accept"


def shuffle_times(draw, case):
    name = pick(draw, *BEHAVIORS)
    old = case.values(name, "impression_time")
    how = pick(draw, "shuffled", "all at once", "second", "backwards", "hour", "far apart")
    rng = random.Random(draw(st.integers(0, 99)))
    new = {
        "shuffled": rng.sample(old, len(old)), "all at once": [old[0]] * len(old),
        "backwards": sorted(old, reverse=True),
        "second": [t.replace(second=59, microsecond=999_999) for t in old], "hour": [t.replace(minute=0) for t in old],
        "far apart": [t.replace(year=1975) if row % 3 == 0 and "train" in name else t for row, t in enumerate(old)],
    }[how]  # fmt: skip
    case.put(name, "impression_time", new)
    case.hit.append("behaviors")
    case.column = ""
    if how in ("shuffled", "backwards") and case.split == "official":
        case.must = "accept"


def overlap_weeks(draw, case):
    name = pick(draw, *BEHAVIORS)
    case.split = pick(draw, "official", "official", "quantile")
    shift = draw(st.integers(-9 * DAY, 9 * DAY))
    old = case.tables[name]["impression_time"].cast(pa.int64()).to_pylist()
    case.put(name, "impression_time", [t + shift for t in old], pa.timestamp("us"))
    case.hit.append("behaviors")
    case.column = ""


def zones(draw, case):
    name, column = pick(
        draw, *((b, "impression_time") for b in BEHAVIORS), *((h, "impression_time_fixed") for h in HISTORIES),
        ("articles", "published_time"), ("articles", "last_modified_time"),
    )  # fmt: skip
    kind = pa.timestamp(pick(draw, "us", "ns", "ms"), tz=pick(draw, "UTC", "Europe/Copenhagen", "+02:00"))
    kind = pa.large_list(kind) if column.endswith("fixed") else kind
    table = case.tables[name]
    case.tables[name] = table.set_column(table.column_names.index(column), column, table[column].cast(kind))
    case.at(name, column, "refuse")


FAR = {
    "us": [
        -62_135_596_800_000_000, -1, 0, 1, -DAY, 253_402_300_799_999_999, 4_102_444_799_999_999, 4_102_444_800_000_000,
        631_152_000_000_000, 2**63 - 1, -(2**63), -(2**63) + 1, 2**62, 1_684_393_200, 1_684_393_200_000,
    ],
    "ms": [-62_135_596_800_000, -1, 0, 253_402_300_799_999, 2**63 - 1, -(2**63), 2**53, 1_684_393_200],
    "s": [-62_135_596_800, -1, 0, 253_402_300_799, 2**63 // 1_000, -(2**63) // 1_000 + 1, 2**40, 4_102_444_800],
    "ns": [0, -1, -1000, 2**63 - 1, -(2**63) + 1, 1_684_393_200_123_456_789, 1_684_393_200_123_456_000],
}  # fmt: skip


def far_dates(draw, case):
    name, column = pick(
        draw, *((b, "impression_time") for b in BEHAVIORS), *((h, "impression_time_fixed") for h in HISTORIES),
        ("articles", "published_time"), ("articles", "last_modified_time"),
    )  # fmt: skip
    unit = pick(draw, "us", "ms", "s", "ns")
    value = pick(draw, *FAR[unit])
    kind, wide = pa.timestamp(unit), pa.int64()
    if column.endswith("fixed"):
        kind, wide = pa.large_list(kind), pa.large_list(wide)
    old = case.tables[name][column].cast(kind, safe=False).cast(wide).to_pylist()
    places = [row for row in range(len(old)) if old[row] or not column.endswith("fixed")]
    row = places[draw(st.integers(0, len(places) - 1))]
    old[row] = [value, *old[row][1:]] if column.endswith("fixed") else value
    case.put(name, column, pa.array(old, wide).cast(kind), kind)
    case.hit.append("behaviors")
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[unit]
    if column == "last_modified_time":
        case.must = "accept"
    elif not 0 <= value < 4_102_444_800 * per_second:
        case.must = "refuse"
    if column == "impression_time":
        case.column = ""


def far_ids(draw, case):
    name, column = pick(
        draw, *((b, c) for b in BEHAVIORS for c in ("impression_id", "user_id", "session_id", "article_id")),
        *((b, c) for b in BEHAVIORS for c in ("article_ids_inview", "article_ids_clicked")),
        *((h, c) for h in HISTORIES for c in ("user_id", "article_id_fixed")),
        ("articles", "article_id"), ("articles", "category"), ("train_behaviors", "device_type"),
    )  # fmt: skip
    value = pick(
        draw, -1, 0, 1, 3, 4, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, -(2**31), -(2**63), 127, -128,
        2**64 - 1, 32_767, -32_768,
    )  # fmt: skip
    kind = pa.uint64() if value >= 2**63 else pa.int64()
    old = case.values(name, column)
    if value >= 2**63 and any(x is not None and not isinstance(x, list) and x < 0 for x in old):
        return
    rows = [row for row in range(len(old)) if not isinstance(old[row], list) or old[row]]
    row = rows[draw(st.integers(0, len(rows) - 1))]
    listed = isinstance(old[row], list)
    old[row] = [value, *old[row][1:]] if listed else value
    case.put(name, column, old, pa.large_list(kind) if listed else kind)
    if column in ("article_id", "article_ids_inview", "article_ids_clicked", "article_id_fixed"):
        valid = 1 <= value < 2**31
    else:
        limit = {"category": (-(2**15), 2**15), "device_type": (0, 4)}.get(column, (0, 2**32))
        valid = limit[0] <= value < limit[1]
    if not valid:
        case.must = "refuse"
    elif column in ("category", "device_type", "session_id", "article_id_fixed"):
        case.must = "accept"
    if column.startswith("article_ids"):
        case.column = "article_ids_"  # one of the two: what is in view decides what may be clicked


def odd_codes(draw, case):
    """Devices, sessions and subscribers as no real file has them."""
    name = pick(draw, *BEHAVIORS)
    rows = case.tables[name].num_rows
    how = pick(draw, "device", "session", "sessions", "subscriber")
    if how == "device":
        value = draw(st.integers(-128, 127))
        case.put(name, "device_type", [value if row == 0 else 1 for row in range(rows)])
        case.must = "accept" if 0 <= value <= 3 else "refuse"
        return
    if how == "subscriber":
        case.put(name, "is_subscriber", [row % 2 == 0 for row in range(rows)])
    else:
        case.put(name, "session_id", [0 if how == "session" else 2**32 - 1 - row for row in range(rows)])
    case.must = "accept"


def odd_categories(draw, case):
    old = draw(
        st.lists(
            st.sampled_from([None, -1, 0, 5, 32_767, -32_768]),
            min_size=(n := case.tables["articles"].num_rows),
            max_size=n,
        )
    )
    case.put("articles", "category", old)
    case.must = "accept"


def slate_sizes(draw, case):
    """A slate of one, or of thousands; all clicked or none."""
    name, size = pick(draw, *BEHAVIORS), pick(draw, 1, 1, 250, 5_000)
    slates, clicks = case.values(name, "article_ids_inview"), case.values(name, "article_ids_clicked")
    row = draw(st.integers(0, len(slates) - 1))
    start = pick(draw, 1, 1_001, 2_000_000_000)
    slates[row] = list(range(start, start + size))
    clicks[row] = pick(draw, [], slates[row][:1], slates[row][-1:], slates[row])
    case.put(name, "article_ids_inview", slates)
    case.put(name, "article_ids_clicked", clicks)
    case.must = "accept"


def long_history(draw, case):
    name, size = pick(draw, *HISTORIES), pick(draw, 1_000, 100_000)
    articles, times = case.values(name, "article_id_fixed"), case.tables[name]["impression_time_fixed"]
    times = times.cast(pa.large_list(pa.int64())).to_pylist()
    row = draw(st.integers(0, len(articles) - 1))
    rng = random.Random(size)
    articles[row] = [1_001 + rng.randrange(12) for _ in range(size)]
    times[row] = [FIRST - 21 * DAY + rng.randrange(22 * DAY) for _ in range(size)]
    case.put(name, "article_id_fixed", articles)
    kind = pa.large_list(pa.timestamp("us"))
    case.put(name, "impression_time_fixed", pa.array(times, pa.large_list(pa.int64())).cast(kind), kind)
    case.must = "accept"


def unequal_histories(draw, case):
    name, column = pick(draw, *HISTORIES), pick(draw, "article_id_fixed", "impression_time_fixed")
    old = case.values(name, column)
    rows = [row for row in range(len(old)) if old[row]]
    row = rows[draw(st.integers(0, len(rows) - 1))]
    old[row] = pick(draw, old[row][1:], old[row] + old[row][:1], old[row] * 3)
    case.put(name, column, old)
    case.must = "refuse"


def article_vectors(draw, case):
    ids = list(range(1_001, 1_001 + draw(st.integers(1, 14))))
    rng, size = random.Random(len(ids)), draw(st.integers(1, 6))
    lists = [[rng.uniform(0.1, 1.0) for _ in range(size)] for _ in ids]
    kind, name = pick(draw, pa.float32(), pa.float64()), pick(draw, "contrastive_vector", "vector")
    how = pick(
        draw, "fine", "fine", "zero", "unknown", "huge", "tiny", "nan", "inf", "double", "unequal", "empty", "null",
        "null inside", "repeated", "no rows", "no ids", "two lists", "text", "id 0", "integers", "scalar",
    )  # fmt: skip
    row = draw(st.integers(0, len(ids) - 1))
    if how in ("nan", "inf", "double"):
        lists[row][draw(st.integers(0, size - 1))] = {"nan": math.nan, "inf": -math.inf, "double": 1e300}[how]
        kind = pa.float64() if how == "double" else kind
    scale = {"zero": 0.0, "huge": 1e38, "tiny": 1e-30}.get(how, 1.0)
    lists = [[x * scale for x in own] for own in lists]
    if how == "unequal":
        lists[row] = [*lists[row], 1.0]
        lists.append([1.0])
        ids.append(999)
    elif how in ("empty", "null"):
        lists = [[]] * len(ids) if how == "empty" else [*lists[:-1], None]
    elif how == "null inside":
        lists[row][0] = None
    elif how in ("repeated", "unknown", "id 0"):
        ids.append({"repeated": ids[0], "unknown": 123_456, "id 0": 0}[how])
        lists.append(lists[0])
    elif how == "no rows":
        ids, lists = [], []
    table = {"article_id": pa.array(ids, pa.int32()), name: pa.array(lists, pa.list_(kind))}
    if how == "no ids":
        table["id"] = table.pop("article_id")
    elif how == "two lists":
        table["other"] = table[name]
    elif how == "text":
        table[name] = pa.array([["a"]] * len(ids))
    elif how == "integers":
        table[name] = pa.array([[1, 2]] * len(ids), pa.list_(pa.int64()))
    elif how == "scalar":
        table[name] = pa.array([1.0] * len(ids))
    case.vectors = pa.table(table)
    good = ("fine", "zero", "unknown", "huge", "tiny", "integers")
    case.at("contrastive_vector.parquet", name if how in ("nan", "inf", "double", "unequal", "null") else "",
            "accept" if how in good else "refuse")  # fmt: skip


def damage_stamp(draw, case):
    text = draw(
        st.sampled_from([
            b"", b"{", b"[]", b"null", b"3", b'"x"', b"{}", b"\xff\xfe", b"[" * 100_000,
            b'{"size": ' + b"9" * 5_000 + b"}",
            b'{"size": "smoke"}', b'{"seed": "0", "size": 1, "generator_version": null}', b"NaN", b'{"a": 1}', b"\x00",
            b'{"seed": 0, "size": "smoke", "generator_version": 1}',
        ]) | st.binary(max_size=30)
    )  # fmt: skip
    case.files.append(lambda folder: (folder / "generated.json").write_bytes(text))
    case.at("generated.json")
    case.must = "accept" if b'"generator_version": 1' in text else "refuse"


def nothing(draw, case):
    case.split = pick(draw, "official", "official", "quantile")
    case.hit = ["behaviors"]
    case.must = "accept" if case.split == "official" else ""


SINGLE = [
    damage_file, flip_bytes, swap_files, lose_column, add_column, wrong_type, null_values, odd_floats, odd_labels,
    odd_topics, bad_text, empty_lists, no_rows, few_rows, repeat_ids, repeat_whole_rows, repeat_in_lists, click_outside,
    strangers, shuffle_times, overlap_weeks, zones, far_dates, far_ids, odd_codes, odd_categories, slate_sizes,
    long_history, unequal_histories, article_vectors, damage_stamp, nothing,
]  # fmt: skip


def two_at_once(draw, case):
    """Two corruptions, one after the other; the second may find nothing left to corrupt."""
    columns = []
    for corrupt in draw(st.lists(st.sampled_from(SINGLE), min_size=2, max_size=2, unique=True)):
        with contextlib.suppress(
            KeyError, IndexError, ValueError, TypeError, AttributeError, OverflowError, pa.ArrowException
        ):
            corrupt(draw, case)
        columns.append(case.column)
    case.column, case.must = "", ""


KINDS = [*SINGLE, flip_bytes, flip_bytes, two_at_once, two_at_once, two_at_once]

# The bundle around it.


def extra_rows(by_hand, seed: int, number: int) -> tuple[list[tuple], list[tuple]]:
    """The tiny bundle's rows, and as many made up: users, articles and times at random within the two weeks."""
    rng = random.Random(seed)
    weeks = (list(by_hand.train), list(by_hand.validation))
    for row in range(number):
        late = rng.random() < 0.5
        day, hour, minute = rng.randint(*((25, 31) if late else (18, 24))), rng.randint(8, 23), rng.randint(0, 59)
        slate = rng.sample([*range(1_001, 1_016), 7, 2**31 - 1], rng.randint(1, 7))
        clicks = rng.sample(slate, rng.choice([0, 1, 1, 1, min(2, len(slate))]))
        page = rng.choice([None, None, 1_001, 1_005, 424_242])
        user = rng.choice([7, 8, 9, 10, by_hand.far_user])
        when, context = f"{day:02}T{hour:02}:{minute:02}", (rng.random() < 0.5, rng.randint(1, 9))
        weeks[late].append((1_000 + row, page, when, rng.randint(0, 3), slate, clicks, user, *context))
    return weeks


def extra_history(rows: list[tuple], impressions: list[tuple], seed: int) -> list[tuple]:
    """The tiny bundle's histories, with clicks at and around the very moments of the week's impressions too."""
    rng = random.Random(seed)
    moments = [row[2] for row in impressions] + ["01T07:00", "17T23:59"]
    return [
        (user, articles + rng.choices(range(1_001, 1_016), k=n), days + rng.choices(moments, k=n))
        for user, articles, days in rows
        for n in [rng.randrange(6)]
    ]


def as_written_by(style: str, table: pa.Table) -> pa.Table:
    """A table in the widths of another writer; columns that do not take them stay."""
    for place, name in enumerate(table.column_names):
        with contextlib.suppress(pa.ArrowException):
            column = table.column(place)
            table = table.set_column(place, name, column.cast(_width(style, column.type)))
    return table


def _width(style: str, kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        item = _width(style, kind.value_type)
        return pa.large_list(item) if style == "polars" else pa.list_(item)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.large_string() if style == "polars" else pa.string()
    if style == "pandas" and pa.types.is_timestamp(kind):
        return pa.timestamp("ns", tz=kind.tz)
    if style == "pandas" and pa.types.is_integer(kind) and kind != pa.uint64():
        return pa.int64()
    return pa.float64() if style == "pandas" and pa.types.is_floating(kind) else kind


def write_case(folder: Path, case: Case, style: str, row_group_size: int | None) -> None:
    for name, table in case.tables.items():
        file = folder / path_of(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(as_written_by(style, table), file, row_group_size=row_group_size)
    if case.vectors is not None:
        pq.write_table(case.vectors, folder / "contrastive_vector.parquet")
    for change in case.files:
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            change(folder)


# What becomes of it.


def ready(folder: Path, split: str) -> tuple[Dataset, dict[str, tuple[np.ndarray, list[str]]]]:
    """All that preprocessing does: open, describe, prepare, and compute the features of every part."""
    bundle = open_bundle(folder)
    dataset = prepare(bundle, split)[0]
    summary.null_shares(bundle)
    summary.part_counts(dataset)
    summary.cold_start(dataset)
    world, features = feature_context(dataset), {}
    for part, slates in dataset.parts.items():
        out = np.full((slates.candidates, len(every_column())), np.inf, np.float32)
        features[part] = (out, build(slates, world, out))
    return dataset, features


def assert_clear(message: str, case: Case) -> None:
    """A refusal names the file, the column, a count and a remedy in one short message."""
    assert any(name in message for name in case.hit), f"no file of {case.hit}: {message}"
    assert case.column in message, f"no column {case.column}: {message}"
    assert re.search(r"\d", message) or "not a readable parquet" in message or "not JSON" in message, (
        f"no count: {message}"
    )
    assert REMEDY.search(message), f"no remedy: {message}"
    assert "\n" not in message and len(message) < 1_500, message


def assert_right(folder: Path, split: str, dataset: Dataset, features) -> None:
    """Compare parts, slates, labels, histories and features with those of the oracle of rows."""
    rows = read_rows(folder, split)
    oracle = Oracle(rows)
    ids, users = dataset.articles["article_id"].to_numpy(), dataset.users["user_id"].to_numpy()
    columns = {column.name for column in every_column()}
    for part, slates in dataset.parts.items():
        expected = sorted((row for row in rows.impressions if row.part == part), key=lambda row: row.time)
        assert slates.impression_id.tolist() == [row.number for row in expected], part
        matrix, names = features[part]
        assert not np.isinf(matrix).any()
        unknown = {names[place] for place in np.flatnonzero(np.isnan(matrix).any(axis=0))}
        assert unknown <= NAN_BY_DESIGN, unknown - NAN_BY_DESIGN
        for place, row in enumerate(expected):
            own = slice(int(slates.offsets[place]), int(slates.offsets[place + 1]))
            assert slates.article_id[own].tolist() == row.slate
            assert ids[slates.article[own]].tolist() == row.slate
            assert slates.clicked[own].tolist() == [article in row.clicked for article in row.slate]
            told = (slates.user_id[place], slates.time[place], slates.device[place], slates.subscriber[place])
            assert told == (row.user, row.time, row.device, row.subscriber)
            assert users[slates.user[place]] == row.user
            assert (None if slates.front_page[place] else ids[slates.page[place]]) == row.page
            size = len(row.slate)
            places = sorted({0, 1, size // 2, size - 1} & set(range(size))) if size > 12 else range(size)
            for candidate, values in zip(places, oracle.features(row, list(places)), strict=True):
                assert set(values) <= columns
                found = [float(matrix[own.start + candidate, names.index(name)]) for name in values]
                np.testing.assert_allclose(
                    found, [float(value) for value in values.values()], rtol=2e-4, atol=2e-5,
                    err_msg=f"impression {row.number}, article {row.slate[candidate]}: {list(values)}",
                )  # fmt: skip
    for history, expected_history in zip(dataset.histories, rows.histories, strict=True):
        clicks = ids[history.article].tolist()
        for user in range(1, len(users)):
            own = slice(int(history.offsets[user]), int(history.offsets[user + 1]))
            past = list(zip(history.time[own].tolist(), clicks[own], strict=True))
            assert past == expected_history.get(int(users[user]), [])
        assert len(clicks) == sum(map(len, expected_history.values()))


NAN_BY_DESIGN = {
    name
    for name in (column.name for column in every_column())
    if re.match(
        r"age_hours|published_|negative|positive|page_|history_(sentiment|topics|vector)|hours_since|topic_|"
        r"user_(hours|click_share|category|sentiment|topics|vector)",
        name,
    )
}


@pytest.fixture(scope="module")
def tally():
    """What became of the cases; recorded at the end."""
    counts = collections.defaultdict(collections.Counter)
    yield counts
    families = counts.pop("families")
    longest = counts.pop("longest")
    record(
        "hostile_bundles",
        {
            "cases": sum(sum(kind.values()) for kind in counts.values()),
            "right": sum(kind["right"] for kind in counts.values()),
            "refused": sum(kind["refused"] for kind in counts.values()),
            "right_by_kind": {kind: n["right"] for kind, n in sorted(counts.items()) if n["right"]},
            "refused_by_kind": {kind: n["refused"] for kind, n in sorted(counts.items()) if n["refused"]},
            "refused_by_message": dict(families.most_common()),
            "longest_seconds": round(max(longest.values(), default=0), 2),
            "longest_kind": max(longest, key=longest.get, default=""),
        },
    )


@pytest.fixture(scope="module")
def compiled(tiny_path):
    """The kernels, compiled before any case is timed."""
    ready(tiny_path, "official")


FAMILIES = {
    r"files? missing": "file missing",
    r"not a readable parquet": "not parquet",
    r"cannot be read": "unreadable data",
    r"is damaged": "damaged text or lists",
    r"columns missing": "column missing",
    r"more than once": "column twice",
    r"of a wrong type: \w+ is": "wrong type",
    r" is null in ": "null",
    r"below 1": "article id below 1",
    r"do not fit": "does not fit the type",
    r"repeats .* ids": "repeated id",
    r"repeats an article": "article twice in a slate",
    r"is empty in": "empty slate",
    r"0 rows": "no rows",
    r"outside their slate": "click outside its slate",
    r"differ in length": "unequal history",
    r"not before the first": "weeks overlap",
    r"no impressions for": "empty part",
    r"has a click and": "part without a choice",
    r"outside the years": "time far off",
    r"vector": "vectors",
    r"generated\.json": "stamp",
    r"values outside": "value out of range",
}


def family(message: str) -> str:
    return next((name for pattern, name in FAMILIES.items() if re.search(pattern, message)), "other")


@pytest.mark.parametrize("corrupt", KINDS, ids=[f"{place}-{kind.__name__}" for place, kind in enumerate(KINDS)])
def test_hostile_bundles_are_refused_clearly_or_read_right(corrupt, by_hand, compiled, tmp_path, tally):
    every = max(1, math.ceil(amount(300, 2_100) / len(KINDS)))

    @settings(
        max_examples=every, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def run(data):
        case = Case({}, split=data.draw(st.sampled_from(["official"] * 3 + ["quantile"])))
        number = data.draw(st.integers(0, 25))
        seed = data.draw(st.integers(0, 99))
        train, validation = extra_rows(by_hand, seed, number)
        histories = by_hand.train_history, by_hand.validation_history
        if seed % 2:
            weeks = zip(histories, (train, validation), strict=True)
            histories = tuple(extra_history(rows, impressions, seed) for rows, impressions in weeks)
        case.tables = {
            "articles": by_hand.table(by_hand.articles), "train_behaviors": by_hand.behaviors(train),
            "train_history": by_hand.history(histories[0]),
            "validation_behaviors": by_hand.behaviors(validation),
            "validation_history": by_hand.history(histories[1]),
        }  # fmt: skip
        if number < 20:
            case.split = "official"  # too few rows for the quantile split's parts
        corrupt(data.draw, case)
        style, groups = data.draw(st.sampled_from(["polars", "pandas"])), data.draw(st.sampled_from([None, None, 2, 7]))
        folder = tmp_path / "bundle"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_case(folder, case, style, groups)
        evaluate(folder, case, corrupt.__name__, tally)

    run()


def evaluate(folder: Path, case: Case, kind: str, tally) -> None:
    start = time.monotonic()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("error", RuntimeWarning)
            dataset, features = ready(folder, case.split)
    except EbnerdError as error:
        if lacking := re.search(r"split '\w+': (no impressions for|none of the \d+ impressions of) (\w+)", str(error)):
            rows = read_rows(folder, case.split)
            part = [row for row in rows.impressions if row.part == lacking[2]]
            assert all(len(row.clicked) in (0, len(row.slate)) for row in part), "the part is not empty of choices"
            assert not part or "none of" in lacking[1]
            case.must, case.hit, case.column = "", ["behaviors"], ""
        assert case.must != "accept", str(error)
        assert_clear(str(error), case)
        tally[kind]["refused"] += 1
        tally["families"][family(str(error))] += 1
    else:
        assert case.must != "refuse", "taken, though it must be refused"
        assert_right(folder, case.split, dataset, features)
        tally[kind]["right"] += 1
    seconds = time.monotonic() - start
    tally["longest"][kind] = max(tally["longest"][kind], seconds)
    assert seconds < DEADLINE
