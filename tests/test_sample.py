"""The sample generator: what it promises whatever the seed. How closely it resembles the data: test_calibration."""

import json
import shutil
import sys
from pathlib import Path
from subprocess import run

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ebnerd_lib import sample
from ebnerd_lib.data.schema import ARTICLES, BEHAVIORS, HISTORY, arrow_schema
from ebnerd_lib.errors import BundleError, ConfigError
from ebnerd_lib.sample import SIZES, generate
from ebnerd_lib.sample.simulate import hashed_uniforms, scramble, stream_key

WEEK = np.timedelta64(7, "D")
BEGINS = {"train": np.datetime64("2023-05-18T07:00"), "validation": np.datetime64("2023-05-25T07:00")}
FILES = [
    "articles.parquet", "contrastive_vector.parquet", "generated.json", "train/behaviors.parquet",
    "train/history.parquet", "validation/behaviors.parquet", "validation/history.parquet",
]  # fmt: skip


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sample") / "smoke"
    generate(out, seed=3, size="smoke")
    return out


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def lists(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Owner of each value of a list column, and the values."""
    joined = column.combine_chunks()
    sizes = np.diff(joined.offsets.to_numpy())
    return np.repeat(np.arange(sizes.size), sizes), joined.flatten().to_numpy(zero_copy_only=False)


@pytest.fixture(params=["train", "validation"])
def split(request) -> str:
    return request.param


@pytest.fixture
def behaviors(smoke, split) -> pa.Table:
    return pq.read_table(smoke / split / "behaviors.parquet")


@pytest.fixture
def history(smoke, split) -> pa.Table:
    return pq.read_table(smoke / split / "history.parquet")


def test_files_and_mark(smoke):
    assert list(contents(smoke)) == FILES
    assert json.loads((smoke / "generated.json").read_text()) == {"generator_version": 1, "seed": 3, "size": "smoke"}


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("articles", ARTICLES),
        *((f"{s}/{n}", t) for s in BEGINS for n, t in (("behaviors", BEHAVIORS), ("history", HISTORY))),
    ],
)
def test_schema_is_exact(smoke, name, schema):
    assert pq.read_schema(smoke / f"{name}.parquet").equals(arrow_schema(schema))


def test_counts_are_those_of_the_size(smoke):
    size = SIZES["smoke"]
    users = []
    for place, split in enumerate(BEGINS):
        table = pq.read_table(smoke / split / "behaviors.parquet", columns=["user_id"])
        assert table.num_rows == size.impressions[place]
        users.append(np.unique(table["user_id"]))
        assert users[-1].size == size.users[place]
    assert np.union1d(*users).size == size.distinct_users
    assert pq.read_metadata(smoke / "articles.parquet").num_rows == size.articles


def test_other_seed_differs_in_every_table(smoke, tmp_path):
    generate(tmp_path / "other", seed=4, size="smoke")
    one, other = contents(smoke), contents(tmp_path / "other")
    assert [name for name in FILES if one[name] == other[name]] == []


def test_same_seed_same_bytes_whatever_the_chunk(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr("ebnerd_lib.sample.weeks.CHUNK_USERS", 13)
    generate(tmp_path / "chunks", seed=3, size="smoke")
    assert contents(tmp_path / "chunks") == contents(smoke)


def test_row_groups_do_not_depend_on_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("ebnerd_lib.sample.weeks.ROW_GROUP", {"behaviors": 300, "history": 40})
    for chunk in (7, 1000):
        monkeypatch.setattr("ebnerd_lib.sample.weeks.CHUNK_USERS", chunk)
        generate(tmp_path / str(chunk), size="smoke")
    assert contents(tmp_path / "7") == contents(tmp_path / "1000")
    assert pq.read_metadata(tmp_path / "7" / "train" / "behaviors.parquet").num_row_groups == 7


def test_clicks_are_some_but_not_all_of_the_slate(behaviors):
    row, shown = lists(behaviors["article_ids_inview"])
    clicked_row, clicked = lists(behaviors["article_ids_clicked"])
    slates = set(zip(row.tolist(), shown.tolist(), strict=True))
    clicks = set(zip(clicked_row.tolist(), clicked.tolist(), strict=True))
    assert clicks <= slates
    assert len(slates) == row.size, "an article stands twice in a slate"
    assert len(clicks) == clicked_row.size
    clicks_of = np.bincount(clicked_row, minlength=behaviors.num_rows)
    assert clicks_of.min() >= 1
    assert (clicks_of < np.bincount(row)).all()


def test_one_history_for_each_user(behaviors, history):
    assert sorted(history["user_id"].to_pylist()) == np.unique(behaviors["user_id"]).tolist()


def test_history_is_the_three_weeks_before_in_order(history, split):
    owner, times = lists(history["impression_time_fixed"])
    assert times.min() >= BEGINS[split] - 3 * WEEK
    assert times.max() < BEGINS[split]
    assert (np.diff(times)[np.diff(owner) == 0] >= np.timedelta64(0)).all()
    for column in ("scroll_percentage_fixed", "article_id_fixed", "read_time_fixed"):
        assert np.array_equal(lists(history[column])[0], owner)


def test_both_histories_agree_where_they_overlap(smoke):
    events = []
    for split in BEGINS:
        table = pq.read_table(smoke / split / "history.parquet")
        owner, articles = lists(table["article_id_fixed"])
        times = lists(table["impression_time_fixed"])[1]
        reads = lists(table["read_time_fixed"])[1]
        kept = (times >= BEGINS["train"] - 2 * WEEK) & (times < BEGINS["train"])
        columns = (table["user_id"].to_numpy()[owner], times, articles, reads)
        events.append(set(zip(*(column[kept].tolist() for column in columns), strict=True)))
    shared = {event[0] for event in events[0]} & {event[0] for event in events[1]}
    train, validation = ({event for event in side if event[0] in shared} for side in events)
    assert train == validation
    assert len(train) > 1000


def test_impression_ids_are_unique(smoke):
    ids = np.concatenate([pq.read_table(smoke / s / "behaviors.parquet")["impression_id"].to_numpy() for s in BEGINS])
    assert np.unique(ids).size == ids.size


def test_a_session_has_one_user_and_no_long_gap(behaviors):
    session = behaviors["session_id"].to_numpy()
    user = behaviors["user_id"].to_numpy().astype(np.int64)
    time = behaviors["impression_time"].to_numpy()
    assert np.unique(session).size == np.unique(np.stack([session, user]), axis=1).shape[1]
    order = np.lexsort((time, session))
    gaps = np.diff(time[order])[np.diff(session[order].astype(np.int64)) == 0]
    assert gaps.max() < np.timedelta64(30, "m")
    assert gaps.min() > np.timedelta64(0)


def test_times_lie_in_the_week_and_in_no_order(behaviors, split):
    times = behaviors["impression_time"].to_numpy()
    assert times.min() >= BEGINS[split]
    assert times.max() < BEGINS[split] + WEEK
    assert 0.3 < (np.diff(times) > np.timedelta64(0)).mean() < 0.7


@pytest.mark.parametrize("column", ["article_ids_inview", "article_id_fixed"])
def test_published_before_it_is_shown_or_read(smoke, behaviors, history, column):
    articles = pq.read_table(smoke / "articles.parquet", columns=["article_id", "published_time"])
    ids, published = (articles[name].to_numpy() for name in ("article_id", "published_time"))
    table, times = (
        (behaviors, "impression_time") if column == "article_ids_inview" else (history, "impression_time_fixed")
    )
    owner, shown = lists(table[column])
    when = table[times].to_numpy()[owner] if table is behaviors else lists(table[times])[1]
    place = np.searchsorted(ids, shown)
    assert np.array_equal(ids[place], shown)
    assert (published[place] <= when).all()


def test_article_page_in_a_visit_is_an_article_clicked_before(behaviors):
    table = behaviors.sort_by([("session_id", "ascending"), ("impression_time", "ascending")])
    session = table["session_id"].to_numpy()
    later = np.flatnonzero(np.r_[False, session[1:] == session[:-1]])
    clicked, pages = table["article_ids_clicked"].to_pylist(), table["article_id"].to_pylist()
    pages_known = [row for row in later if pages[row] is not None]
    assert len(pages_known) > 50
    assert all(pages[row] in clicked[row - 1] for row in pages_known)


def test_vectors_are_unit_and_tell_categories_apart(smoke):
    table = pq.read_table(smoke / "contrastive_vector.parquet")
    assert table.schema.field("contrastive_vector").type == pa.list_(pa.float32())
    articles = pq.read_table(smoke / "articles.parquet", columns=["article_id", "category"])
    assert table["article_id"].equals(articles["article_id"])
    vectors = table["contrastive_vector"].combine_chunks().flatten().to_numpy().reshape(-1, 64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    category = articles["category"].to_numpy()
    likeness = vectors @ vectors.T
    same = category[:, None] == category
    np.fill_diagonal(same, False)
    assert likeness[same].mean() > likeness[category[:, None] != category].mean() + 0.2


@pytest.mark.parametrize("former", [False, True])
def test_a_failure_leaves_the_former_bundle_or_nothing(smoke, tmp_path, monkeypatch, former):
    if former:
        shutil.copytree(smoke, tmp_path / "bundle")
    monkeypatch.setattr(sample, "write_weeks", lambda *_args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(tmp_path / "bundle", seed=4, size="smoke")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"] * former
    assert contents(tmp_path / "bundle") == (contents(smoke) if former else {})


@pytest.mark.parametrize(("out", "told"), [(".", r"no generated\.json"), ("mine", "is a file")])
def test_what_was_not_generated_is_left_alone(tmp_path, out, told):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(BundleError, match=told):
        generate(tmp_path / out, size="smoke")
    assert contents(tmp_path) == {"mine": b"mine"}


def test_generated_and_empty_folders_are_replaced(smoke, tmp_path):
    out = tmp_path / "bundle"
    out.mkdir()
    generate(out, seed=5, size="smoke")
    generate(out, seed=3, size="smoke")
    assert contents(out) == contents(smoke)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(("arguments", "message"), [({"size": "huge"}, "smoke, demo"), ({"seed": -1}, "negative")])
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        generate(tmp_path / "bundle", **arguments)
    assert not (tmp_path / "bundle").exists()


def test_import_does_without_pandas():
    code = "import sys, ebnerd_lib.sample; sys.exit('pandas' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("bits", [10, 16])
def test_scramble_is_one_to_one_and_shows_no_order(bits):
    ids = scramble(np.arange(1 << bits), stream_key(7, 1), bits)
    assert np.unique(ids).size == 1 << bits
    assert ids.max() < 1 << bits
    assert 0.4 < (np.diff(ids.astype(np.int64)) > 0).mean() < 0.6


def test_hashed_uniforms_are_even_and_depend_on_the_counter_alone():
    numbers = hashed_uniforms(stream_key(0, 1), np.arange(100_000))
    assert np.histogram(numbers, 10, (0, 1))[0] == pytest.approx(np.full(10, 10_000), rel=0.05)
    assert np.array_equal(hashed_uniforms(stream_key(0, 1), np.arange(10)[::-1]), numbers[:10][::-1])
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02
