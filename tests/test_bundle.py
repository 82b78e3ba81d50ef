"""Opening and reading bundles: what is refused and how, what is accepted, and real rows."""

import os
import re
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from oracle import as_pandas_writes, assert_same

from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import UNKNOWN_TIME, Dataset, prepare
from ebnerd_lib.data.layout import check_files
from ebnerd_lib.data.schema import ARTICLES, arrow_schema
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.errors import BundleError
from ebnerd_lib.features.build import build
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.features.registry import every_column


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


def test_the_tiny_bundle_is_accepted(tiny_path):
    assert open_bundle(tiny_path).generated is None
    assert len(ready(tiny_path).log) == 10


def test_missing_bundle_names_the_folder_and_three_remedies(tmp_path):
    message = refusal(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message
    assert "python -m ebnerd_lib sample --out" in message
    assert "`bundle`" in message
    message = refusal(tmp_path / "ebnerd_small")
    assert "make data BUNDLE=ebnerd_small" in message and "sample" not in message


TEXT, LISTS, TIME = pa.string(), pa.large_list(pa.string()), pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("articles", None, "1 files missing: articles.parquet"),
        ("train_history", None, "1 files missing: train/history.parquet"),
        ("train_behaviors", lambda table: table.slice(0, 0), "0 rows"),
        ("validation_behaviors", lambda table: table.slice(0, 0), "0 rows"),
        ("train_behaviors", cast("impression_time", pa.large_string()), "impression_time is large_string instead of"),
        ("train_behaviors", cast("impression_time", TIME), "timestamp[us, tz=UTC] instead of timestamp[us]"),
        ("validation_behaviors", cast("article_ids_inview", LISTS), "<string> instead of large_list<int32>"),
        ("validation_behaviors", put("article_ids_clicked", [1, 2, 3, 4], pa.int32()), "article_ids_clicked is int32"),
        ("train_behaviors", cast("is_subscriber", pa.string()), "1 columns of a wrong type: is_subscriber is string"),
        ("train_behaviors", put("is_subscriber", [0, 1, 2, 1, 0, 1], pa.int8()), "is_subscriber has 1 values outside"),
        ("articles", cast("published_time", pa.date32()), "published_time is date32[day]"),
        ("train_history", cast("impression_time_fixed", pa.list_(TIME)), "is list<timestamp[us, tz=UTC]>"),
        ("train_behaviors", lambda t: cast("device_type", TEXT)(cast("user_id", TEXT)(t)), "2 columns of a wrong type"),
        ("train_behaviors", without("session_id"), "columns that are read are missing: session_id"),
        # what would lose something
        ("train_behaviors", put("session_id", [1.5] * 6, pa.float64()), "session_id has values that do not fit uint32"),
        ("train_behaviors", put("session_id", [2.0**25] * 6, pa.float32()), "session_id has 6 values of 16777216"),
        ("train_history", put("article_id_fixed", lambda old: [[2.0**24 for _ in own] for own in old],
                              pa.list_(pa.float32())), "article_id_fixed has 4 values of 16777216"),
        ("train_behaviors", put("user_id", [np.nan, 1, 2, 3, 4, 5], pa.float64()), "user_id is null in 1 rows"),
        ("train_behaviors", put("impression_time", lambda old: pa.array([1_684_393_200_000_000_001] * len(old),
                                                                        pa.timestamp("ns"))), "do not fit timestamp"),
        # one row more than the table has
        ("train_behaviors", twice, "column impression_id repeats 1 of 7 ids"),
        ("validation_behaviors", twice, "column impression_id repeats 1 of 5 ids"),
        ("train_history", twice, "column user_id repeats 1 of 4 ids"),
        ("articles", twice, "column article_id repeats 1 of 13 ids"),
        *((f"{week}_behaviors", set_row(column, 0, None), f"column {column} is null in 1 rows") for week, column in (
            ("train", "impression_id"), ("train", "impression_time"), ("train", "user_id"),
            ("validation", "article_ids_inview"), ("train", "article_ids_clicked"),
        )),
        ("train_history", set_row("article_id_fixed", 0, None), "column article_id_fixed is null in 1 rows"),
        ("validation_history", set_row("user_id", 0, None), "column user_id is null in 1 rows"),
        ("articles", set_row("article_id", 0, None), "column article_id is null in 1 rows"),
        ("validation_behaviors", set_row("article_ids_inview", 0, [1006, None]), "null in 1 list items"),
        ("train_behaviors", set_row("article_ids_clicked", 0, [None]), "clicked is null in 1 list items"),
        ("train_history", set_row("article_id_fixed", 0, [1001, None, None]), "fixed is null in 2 list items"),
        ("train_history", set_row("impression_time_fixed", 0, [0, None, 0]), "fixed is null in 1 list items"),
        ("train_behaviors", set_row("article_ids_clicked", 1, [1003, 1004]), "has 1 clicks outside their slate"),
        # an article of the slate before, and one that nothing else in the bundle knows
        ("train_behaviors", set_row("article_ids_clicked", 3, [1004]), "has 1 clicks outside their slate"),
        ("train_behaviors", set_row("article_ids_clicked", 0, [5, 6]), "has 2 clicks outside their slate"),
        ("train_behaviors", set_row("article_ids_inview", 5, []), "article_ids_inview is empty in 1 rows"),
        ("train_behaviors", set_row("article_ids_inview", 0, [1001, 1003, 1001]), "repeats an article in 1 rows"),
        ("train_behaviors", set_row("article_ids_inview", 0, [1003] * 4), "repeats an article in 1 rows"),
        ("validation_history", set_row("article_id_fixed", 1, [1005]), "differ in length in 1 rows"),
        ("validation_history", put("article_id_fixed", [[1012, 1005], [1004], [1, 2, 3]]), "differ in length in 2"),
        # 0 is the id of the unknown article in the tables, and -1 stands for no page
        ("articles", set_row("article_id", 0, 0), "column article_id has 1 article ids below 1"),
        ("articles", set_row("article_id", 0, -1), "column article_id has 1 article ids below 1"),
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


def test_row_groups_do_not_matter(tiny_bundle, tiny):
    folder = tiny_bundle(row_group_size=2)
    assert pq.ParquetFile(folder / "train" / "behaviors.parquet").num_row_groups == 3
    assert_same(ready(folder), tiny)


def test_order_of_articles_and_histories_does_not_matter(tiny_bundle, tiny):
    changes = dict.fromkeys(
        ("articles", "train_history", "validation_history"), lambda t: t.take(list(range(t.num_rows))[::-1])
    )
    assert_same(ready(tiny_bundle(**changes)), tiny)


def test_impressions_come_in_order_of_time_whatever_that_of_their_file_is(tiny_bundle, tiny):
    backwards = ready(tiny_bundle(train_behaviors=lambda t: t.take([5, 4, 3, 2, 1, 0])))
    for part in ("train", "tuning"):
        for name, values in vars(tiny.parts[part]).items():
            if name in {field.name for field in fields(Slates)} - {"row"}:
                np.testing.assert_array_equal(values, getattr(backwards.parts[part], name), err_msg=name)
    for dataset, wanted in ((tiny, [102, 101, 103, 104]), (backwards, [104, 103, 101, 102])):
        train = dataset.parts["train"]
        assert train.impression_id[train.file_order].tolist() == wanted


def test_articles_table_that_says_nothing(tiny_bundle, tiny):
    def silent(table: pa.Table) -> pa.Table:
        for name in table.column_names[1:]:
            table = put(name, [None] * table.num_rows)(table)
        return table

    data = ready(tiny_bundle(articles=silent))
    np.testing.assert_array_equal(data.log.article, tiny.log.article)
    assert (data.metadata.published == UNKNOWN_TIME).all()
    assert not data.metadata.premium.any()
    assert not data.metadata.category.any()
    assert np.isnan(data.metadata.sentiment).all()
    assert np.isnan(data.users.filter(like="sentiment_")).all().all()
    assert data.articles["in_table"].sum() == 12


IDS = pa.array([1001, 1002], type=pa.int32())


@pytest.mark.parametrize("file", ["articles.parquet", "train/history.parquet", "contrastive_vector.parquet"])
def test_a_folder_in_the_place_of_a_file_is_told(tiny_bundle, file):
    folder = tiny_bundle()
    (folder / file).unlink(missing_ok=True)
    (folder / file).mkdir()
    message = refusal(folder)
    assert file in message and "a folder where a file is expected" in message


@pytest.mark.parametrize("kind", [pa.large_list(pa.float64()), pa.list_(pa.float32(), 3)])
def test_article_vectors(tiny_bundle, kind):
    bundle = open_bundle(folder := tiny_bundle())
    assert bundle.vectors() is None
    lists = pa.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]], type=kind)
    pq.write_table(pa.table({"article_id": IDS, "contrastive_vector": lists}), folder / "contrastive_vector.parquet")
    ids, numbers = bundle.vectors()
    assert ids.tolist() == [1001, 1002]
    np.testing.assert_array_equal(numbers, np.array([[1, 2, 3], [4, 5, 6.5]], np.float32), strict=True)
    assert folder / "contrastive_vector.parquet" in check_files(folder)


# Real rows. They are read where they lie and never copied into the project.


@pytest.fixture(scope="module")
def pilot(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """A bundle around the pilot's rows, cut in two weeks at the middle, and those rows as pandas has them."""
    source = os.environ.get("EBNERD_PILOT", "")
    if not source or not Path(source, "behaviors.parquet").exists():
        pytest.skip("EBNERD_PILOT names no folder with the pilot's behaviors.parquet and history.parquet")
    behaviors = pq.read_table(Path(source, "behaviors.parquet"))
    history = pq.read_table(Path(source, "history.parquet"))
    middle = np.sort(behaviors["impression_time"].to_numpy())[behaviors.num_rows // 2]
    folder = tmp_path_factory.mktemp("pilot")
    for split, early in (("train", True), ("validation", False)):
        (folder / split).mkdir()
        rows = pc.equal(pc.less(behaviors["impression_time"], pa.scalar(middle)), early)
        pq.write_table(behaviors.filter(rows), folder / split / "behaviors.parquet")
        pq.write_table(history, folder / split / "history.parquet")
    lists = [*behaviors["article_ids_inview"].to_pylist(), *history["article_id_fixed"].to_pylist()]
    half = sorted({number for own in lists for number in own})[::2]
    nulls = {name: pa.nulls(len(half), kind) for name, kind in ARTICLES.items()}
    table = pa.table(nulls | {"article_id": pa.array(half, pa.int32())}, schema=arrow_schema(ARTICLES))
    pq.write_table(table, folder / "articles.parquet")
    return folder, behaviors.to_pandas()


@pytest.mark.parametrize("split", ["official", "quantile"])
def test_real_rows_have_the_labels_of_a_row_wise_reading(pilot, split):
    folder, rows = pilot
    data = prepare(open_bundle(folder), split)[0]
    assert len(data.log) == len(rows)
    by_id = rows.set_index("impression_id")
    for slates in data.parts.values():
        for place, impression in enumerate(slates.impression_id):
            own, row = slice(slates.offsets[place], slates.offsets[place + 1]), by_id.loc[impression]
            assert slates.article_id[own].tolist() == row["article_ids_inview"].tolist()
            clicked = set(row["article_ids_clicked"].tolist())
            assert slates.clicked[own].tolist() == [a in clicked for a in row["article_ids_inview"].tolist()]
            assert slates.user_id[place] == row["user_id"]
            assert slates.front_page[place] == pd.isna(row["article_id"])
            assert slates.time[place] == row["impression_time"].value // 1000, "microseconds"


def test_real_rows_meet_their_histories(pilot):
    folder, rows = pilot
    data, joins = prepare(open_bundle(folder), "official")
    assert joins["impressions with history"].tolist() == joins["impressions"].tolist()
    assert joins["impressions"].sum() == len(rows)
    assert joins["history rows"].tolist() == [44, 44]
    history = pq.read_table(folder / "train" / "history.parquet").to_pandas().set_index("user_id")
    for user in (1, 20, 44):
        past = history.loc[data.users["user_id"][user]]
        own = slice(data.histories[0].offsets[user], data.histories[0].offsets[user + 1])
        ids = data.articles["article_id"].to_numpy()[data.histories[0].article[own]]
        assert ids.tolist() == past["article_id_fixed"].tolist()


def test_real_rows_have_features(pilot):
    data = ready(pilot[0])
    columns = [column.name for column in every_column()]
    matrix = build(data.log, feature_context(data))
    assert not np.isinf(matrix).any()
    unknown = {columns[place] for place in np.flatnonzero(np.isnan(matrix).any(axis=0))}
    # Counts are known whatever the table lacks; those of an article's topics need the topics.
    counts = {c.name for c in every_column() if c.unit in ("times", "clicks", "impressions", "candidates")}
    assert counts & unknown == {"topic_inviews_decay_6h", "topic_clicks_decay_6h"}
    assert {"age_hours", "history_vector", "user_vector", "user_click_share", "page_topics"} <= unknown
    assert np.isnan(matrix[:, columns.index("age_hours")]).all(), "the table says nothing of publication"
    assert (matrix[:, columns.index("history_length")] > 0).any()


def test_what_a_data_set_lacks_may_be_null(tiny_bundle, tiny):
    """No device, no subscriber, a session of its own; clicks without times stay in order, before all others."""
    lacking = dict.fromkeys(("device_type", "is_subscriber", "session_id"))

    def without_context(table):
        for name in lacking:
            table = put(name, [None] * table.num_rows)(table)
        return table

    folder = tiny_bundle(
        train_behaviors=without_context,
        train_history=set_row("impression_time_fixed", 0, None),
        validation_history=put("impression_time_fixed", lambda old: [None] * len(old)),
    )
    found = ready(folder)
    assert (found.log.device == 0)[found.log.week == 0].all() and not found.log.subscriber[found.log.week == 0].any()
    assert len(np.unique(found.log.session)) == len(found.log) and not (found.log.session == -1).any()
    assert found.log.article.tolist() == tiny.log.article.tolist()
    ids = found.articles["article_id"].to_numpy()
    for week, of_user in enumerate(({7: [1001, 1002, 1001], 8: [1003]}, {7: [1002, 1003, 1099], 9: [1005, 1004]})):
        own = found.histories[week]
        for user, clicks in of_user.items():
            place = found.users["user_id"].tolist().index(user)
            at = slice(*own.offsets[place : place + 2])
            assert ids[own.article[at]].tolist() == clicks
            assert set(own.time[at].tolist()) == {UNKNOWN_TIME} or (week, user) == (0, 8)
