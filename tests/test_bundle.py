"""Opening and reading bundles: what is refused and how, what is accepted, and real rows."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from oracle import as_pandas_writes, assert_same

from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import Dataset, prepare
from ebnerd_lib.errors import BundleError


def put(name: str, values, kind: pa.DataType | None = None):
    """Replace a column, ``values`` given or computed from the old ones; of its old type unless ``kind`` is given."""

    def change(table: pa.Table) -> pa.Table:
        old = table[name]
        new = values(old.to_pylist()) if callable(values) else values
        array = new if isinstance(new, pa.Array) else pa.array(new, type=kind or old.type)
        return table.set_column(table.column_names.index(name), name, array)

    return change


def set_row(name: str, row: int, value):
    return put(name, lambda old: [*old[:row], value, *old[row + 1 :]])


def cast(name: str, kind: pa.DataType):
    return lambda table: put(name, table[name].cast(kind).combine_chunks())(table)


def without(name: str):
    return lambda table: table.drop_columns([name])


def twice(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table, table.slice(1, 1)])


def ready(folder: Path) -> Dataset:
    return prepare(open_bundle(folder), "official")[0]


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        ready(folder)
    return str(caught.value)


def test_missing_bundle_names_the_folder_and_three_remedies(tmp_path):
    message = refusal(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message
    assert "python -m ebnerd_lib sample --out" in message
    assert "`bundle`" in message
    message = refusal(tmp_path / "ebnerd_small")
    assert "make data BUNDLE=ebnerd_small" in message and "sample" not in message


NO_TEXT = pa.StringArray.from_buffers(12, *pa.array([b"\xff"] * 12, pa.binary()).buffers()[1:])
TEXT, LISTS, TIME = pa.string(), pa.large_list(pa.string()), pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("articles", None, "1 files missing: articles.parquet"),
        ("train_history", None, "1 files missing: train/history.parquet"),
        ("train_behaviors", lambda table: table.slice(0, 0), "0 rows"),
        ("train_behaviors", cast("impression_time", TIME), "timestamp[us, tz=UTC] instead of timestamp[us]"),
        ("validation_behaviors", cast("article_ids_inview", LISTS), "<string> instead of large_list<int32>"),
        ("validation_behaviors", put("article_ids_clicked", [1, 2, 3, 4], pa.int32()), "article_ids_clicked is int32"),
        ("train_behaviors", put("is_subscriber", [0, 1, 2, 1, 0, 1], pa.int8()), "is_subscriber has 1 values outside"),
        ("articles", cast("published_time", pa.date32()), "published_time is date32[day]"),
        ("train_behaviors", lambda t: cast("device_type", TEXT)(cast("user_id", TEXT)(t)), "2 columns of a wrong type"),
        ("train_behaviors", without("session_id"), "columns that are read are missing: session_id"),
        # what would lose something
        ("train_behaviors", put("session_id", [1.5] * 6, pa.float64()), "session_id has values that do not fit uint32"),
        ("train_behaviors", put("session_id", [2.0**25] * 6, pa.float32()), "session_id has 6 values outside"),
        ("train_history", put("article_id_fixed", lambda old: [[2.0**24 for _ in own] for own in old],
                              pa.list_(pa.float32())), "article_id_fixed has 4 values outside"),
        ("train_behaviors", put("user_id", [np.nan, 1, 2, 3, 4, 5], pa.float64()), "user_id is null in 1 rows"),
        ("train_behaviors", put("impression_time", lambda old: pa.array([1_684_393_200_000_000_001] * len(old),
                                                                        pa.timestamp("ns"))), "do not fit timestamp"),
        # one row more than the table has
        ("train_behaviors", twice, "column impression_id repeats 1 of 7 ids"),
        ("train_history", twice, "column user_id repeats 1 of 4 ids"),
        ("articles", twice, "column article_id repeats 1 of 13 ids"),
        *((name, set_row(column, 0, None), f"column {column} is null in 1 rows") for name, column in (
            *(("train_behaviors", each) for each in ("impression_id", "impression_time", "user_id")),
            ("validation_behaviors", "article_ids_inview"), ("train_behaviors", "article_ids_clicked"),
            ("train_history", "article_id_fixed"), ("validation_history", "user_id"), ("articles", "article_id"),
        )),
        ("validation_behaviors", set_row("article_ids_inview", 0, [1006, None]), "null in 1 list items"),
        ("train_behaviors", set_row("article_ids_clicked", 0, [None]), "clicked is null in 1 list items"),
        ("train_history", set_row("article_id_fixed", 0, [1001, None, None]), "fixed is null in 2 list items"),
        ("train_history", set_row("impression_time_fixed", 0, [0, None, 0]), "fixed is null in 1 list items"),
        ("train_behaviors", set_row("article_ids_clicked", 1, [1003, 1004]), "has 1 clicks outside their slate"),
        # an article of the slate before, and one that nothing else in the bundle knows
        ("train_behaviors", set_row("article_ids_clicked", 3, [1004]), "has 1 clicks outside their slate"),
        ("train_behaviors", set_row("article_ids_clicked", 0, [5, 6]), "has 2 clicks outside their slate"),
        ("train_behaviors", set_row("article_ids_inview", 5, []), "repeats an article in 1 rows or is empty"),
        ("train_behaviors", set_row("article_ids_inview", 0, [1001, 1003, 1001]), "repeats an article in 1 rows"),
        ("validation_history", set_row("article_id_fixed", 1, [1005]), "differ in length in 1 rows"),
        ("validation_history", put("article_id_fixed", [[1012, 1005], [1004], [1, 2, 3]]), "differ in length in 2"),
        ("articles", lambda table: table.append_column("title", table["url"]), "1 columns occur more than once: title"),
        ("articles", put("title", [b"\xff"] * 12, pa.binary()), "column title has values that do not fit"),
        ("articles", put("title", NO_TEXT), "column title is damaged"),
        ("articles", set_row("published_time", 0, -1), "published_time has 1 values outside 1970"),
        ("articles", set_row("article_id", 0, 0), "column article_id has 1 values outside 1 to"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_file(tiny_bundle, name, change, expected):
    message = refusal(tiny_bundle(**{name: change}))
    assert f"{name.replace('_', '/')}.parquet" in message and expected in re.sub(r"<\w+: ", "<", message)


def more_columns(table: pa.Table) -> pa.Table:
    table = table.select(table.column_names[::-1])
    return table.add_column(0, "extra", pa.array([{"a": 1}] * table.num_rows)).append_column(
        "more", pa.nulls(table.num_rows)
    )


def loosely_typed(table: pa.Table) -> pa.Table:
    """Numbers as doubles with NaN for null, text as dictionaries, lists of a fixed size, flags as 0 and 1."""
    for name in table.column_names:
        kind, column = table[name].type, table[name]
        listed = pa.types.is_large_list(kind)
        item = kind.value_type if listed else kind
        if pa.types.is_large_string(item):
            item = pa.dictionary(pa.int32(), pa.string())
        elif pa.types.is_integer(item) and name != "image_ids":
            item = pa.float64()
        column = column.cast(pa.large_list(item) if listed else item)
        if listed and column.null_count == 0 and len(set(pc.list_value_length(column).to_pylist())) == 1:
            column = column.cast(pa.list_(item, pc.list_value_length(column)[0].as_py()))
        elif pa.types.is_boolean(item):
            column = column.cast(pa.int8())
        elif item == pa.float64() and not listed:
            column = pc.fill_null(column, np.nan)
        table = put(name, column.combine_chunks())(table)
    return table


def text_as_bytes(table: pa.Table) -> pa.Table:
    """Text without a note that it is text, as older writers leave it."""
    for name in table.column_names:
        if pa.types.is_large_string(table[name].type):
            table = cast(name, pa.binary())(table)
    return table


def odd_where_nothing_reads(table: pa.Table) -> pa.Table:
    """Columns that nothing reads are missing or of another type."""
    for name in ("body", "gender", "scroll_percentage_fixed"):
        table = table.drop_columns([name]) if name in table.column_names else table
    for name in ("total_inviews", "age", "read_time_fixed", "next_read_time"):
        if name in table.column_names:
            table = put(name, ["?"] * table.num_rows, pa.string())(table)
    return table


def untyped_nulls(table: pa.Table) -> pa.Table:
    """Columns without any value in Arrow's null type, as a frame without types gives them."""
    for name in table.column_names:
        if table[name].null_count == table.num_rows:
            table = put(name, [None] * table.num_rows, pa.null())(table)
    return table


EVERY_TABLE = ("articles", "train_behaviors", "train_history", "validation_behaviors", "validation_history")


@pytest.mark.parametrize(
    "change",
    [
        *(partial(as_pandas_writes, unit=unit) for unit in ("s", "ms", "ns")),
        more_columns,
        untyped_nulls,
        loosely_typed,
        text_as_bytes,
        odd_where_nothing_reads,
    ],
)
def test_other_forms_of_the_same_tables_give_the_same_dataset(tiny_bundle, tiny, change):
    assert_same(ready(tiny_bundle(**dict.fromkeys(EVERY_TABLE, change))), tiny)


def test_order_of_articles_and_histories_does_not_matter(tiny_bundle, tiny):
    changes = dict.fromkeys(
        ("articles", "train_history", "validation_history"), lambda t: t.take(list(range(t.num_rows))[::-1])
    )
    assert_same(ready(tiny_bundle(**changes)), tiny)


@pytest.mark.parametrize("file", ["train/history.parquet", "contrastive_vector.parquet"])
def test_a_folder_in_the_place_of_a_file_is_told(tiny_bundle, file):
    folder = tiny_bundle()
    (folder / file).unlink(missing_ok=True)
    (folder / file).mkdir()
    message = refusal(folder)
    assert file in message and "a folder where a file is expected" in message


def test_article_vectors_may_be_lists_of_a_fixed_size(tiny_bundle):
    bundle = open_bundle(folder := tiny_bundle())
    lists = pa.array([[1.0, 2.0], [4.0, 6.5]], type=pa.list_(pa.float64(), 2))
    pq.write_table(pa.table({"article_id": [1001, 1002], "vector": lists}), folder / "contrastive_vector.parquet")
    ids, numbers = bundle.vectors()
    assert ids.tolist() == [1001, 1002]
    np.testing.assert_array_equal(numbers, np.array([[1, 2], [4, 6.5]], np.float32), strict=True)
