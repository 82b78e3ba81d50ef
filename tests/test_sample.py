"""The sample generator, its hidden test week included: what it promises whatever the seed.

How closely it resembles the data: test_calibration.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import ROOT, contents, python

from ebnerd_lib import sample
from ebnerd_lib.__main__ import main
from ebnerd_lib.data.layout import TEST, check_files
from ebnerd_lib.errors import BundleError
from ebnerd_lib.sample import SIZES, generate

WEEK = np.timedelta64(7, "D")
BEGINS = {name: np.datetime64(f"2023-{day}T07:00") for name, day in (
    ("train", "05-18"), ("validation", "05-25"), ("test", "06-01")
)}  # fmt: skip
BEFORE = ("train", "validation")  # the weeks of the bundle before the hidden one
SIZE = SIZES["smoke"]
TOLD = SIZE.test_impressions - SIZE.beyond_accuracy  # rows of the hidden week that are not for beyond-accuracy measures
MARK = {"generator_version": 2, "seed": 3, "size": "smoke"}


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    """The bundle of the two weeks."""
    generate(out := tmp_path_factory.mktemp("before") / "bundle", seed=3, size="smoke")
    return out


@pytest.fixture(scope="module")
def hidden(tmp_path_factory) -> Path:
    """The bundle of the hidden week after them."""
    out = tmp_path_factory.mktemp("hidden") / "bundle"
    assert main(["sample", "--test", "--out", str(out), "--size", "smoke", "--seed", "3"]) == 0
    return out


def lists(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Owner of each value of a list column, and the values."""
    joined = column.combine_chunks()
    sizes = np.diff(joined.offsets.to_numpy())
    return np.repeat(np.arange(sizes.size), sizes), joined.flatten().to_numpy(zero_copy_only=False)


@pytest.fixture(params=list(BEGINS))
def split(request) -> str:
    return request.param


@pytest.fixture
def bundle(before, hidden, split) -> Path:
    return hidden if split == TEST else before


@pytest.fixture
def behaviors(bundle, split) -> pa.Table:
    """The rows of readers: those that are not for beyond-accuracy measures."""
    table = pq.read_table(bundle / split / "behaviors.parquet")
    return table.slice(0, TOLD if split == TEST else None)


@pytest.fixture
def history(bundle, split) -> pa.Table:
    return pq.read_table(bundle / split / "history.parquet")


@pytest.fixture
def told(hidden) -> pa.Table:
    return pq.read_table(hidden / "test" / "behaviors.parquet").slice(0, TOLD)


def users(folder: Path, split: str) -> set[int]:
    return set(pq.read_table(folder / split / "history.parquet")["user_id"].to_pylist())


def test_bundles_are_marked_as_generated(before, hidden):
    assert json.loads((before / "generated.json").read_text()) == MARK
    assert json.loads((hidden / "generated.json").read_text()) == MARK | {"split": "test"}


def test_counts_are_those_of_the_size(before, hidden, told):
    ids = []
    for place, split in enumerate(BEFORE):
        table = pq.read_table(before / split / "behaviors.parquet", columns=["user_id"])
        assert table.num_rows == SIZE.impressions[place]
        ids.append(np.unique(table["user_id"]))
        assert ids[-1].size == SIZE.users[place]
    assert np.union1d(*ids).size == SIZE.distinct_users
    assert pq.read_metadata(before / "articles.parquet").num_rows == SIZE.articles
    assert np.unique(told["user_id"]).size == len(users(hidden, "test")) == SIZE.test_users
    marks = pq.read_table(hidden / "test" / "behaviors.parquet")["is_beyond_accuracy"].to_pylist()
    assert marks == [False] * TOLD + [True] * SIZE.beyond_accuracy


@pytest.mark.parametrize(("split", "groups"), [("train", 7), (TEST, 7 + 3)])
def test_same_seed_same_bytes_whatever_the_chunk(tmp_path, monkeypatch, split, groups):
    monkeypatch.setattr("ebnerd_lib.sample.weeks.ROW_GROUP", {"behaviors": 300, "history": 40})
    monkeypatch.setattr("ebnerd_lib.sample.weeks.BEYOND_ACCURACY_ROWS", 25)
    for chunk in (7, 1000):
        monkeypatch.setattr("ebnerd_lib.sample.weeks.CHUNK_USERS", chunk)
        generate(tmp_path / str(chunk), size="smoke", test=split == TEST)
    assert contents(tmp_path / "7") == contents(tmp_path / "1000")
    file = pq.ParquetFile(tmp_path / "7" / split / "behaviors.parquet")
    assert file.metadata.num_row_groups == groups
    if split == TEST:
        marks = file.read(["is_beyond_accuracy"])["is_beyond_accuracy"].to_pylist()
        assert marks == sorted(marks), "rows for beyond-accuracy measures stay last"


def test_the_truth_of_the_hidden_week_is_some_but_not_all_of_each_slate(hidden, told):
    truth = pq.read_table(hidden / "test" / "truth.parquet")
    assert truth["impression_id"].equals(told["impression_id"])
    slates, clicks = (column.to_pylist() for column in (told["article_ids_inview"], truth["article_ids_clicked"]))
    for shown, clicked in zip(slates, clicks, strict=True):
        assert len(set(shown)) == len(shown) and 0 < len(set(clicked)) == len(clicked)
        assert set(clicked) < set(shown)


def test_history_of_each_user_is_the_three_weeks_before_in_order(behaviors, history, split):
    assert sorted(history["user_id"].to_pylist()) == np.unique(behaviors["user_id"]).tolist()
    owner, times = lists(history["impression_time_fixed"])
    assert times.min() >= BEGINS[split] - 3 * WEEK
    assert times.max() < BEGINS[split]
    assert (np.diff(times)[np.diff(owner) == 0] >= np.timedelta64(0)).all()
    assert np.bincount(owner).min() >= 5
    for column in ("scroll_percentage_fixed", "article_id_fixed", "read_time_fixed"):
        assert np.array_equal(lists(history[column])[0], owner)


@pytest.mark.parametrize("column", ["article_ids_inview", "article_id_fixed"])
def test_published_before_it_is_shown_or_read(bundle, behaviors, history, column):
    articles = pq.read_table(bundle / "articles.parquet", columns=["article_id", "published_time"])
    ids, published = (articles[name].to_numpy() for name in ("article_id", "published_time"))
    table, times = (
        (behaviors, "impression_time") if column == "article_ids_inview" else (history, "impression_time_fixed")
    )
    owner, shown = lists(table[column])
    when = table[times].to_numpy()[owner] if table is behaviors else lists(table[times])[1]
    place = np.searchsorted(ids, shown)
    assert np.array_equal(ids[place], shown)
    assert (published[place] <= when).all()


@pytest.mark.parametrize("former", [False, True])
def test_a_failure_leaves_the_former_bundle_or_nothing(before, tmp_path, monkeypatch, former):
    if former:
        shutil.copytree(before, tmp_path / "bundle")
    monkeypatch.setattr(sample, "write_weeks", lambda *_args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(tmp_path / "bundle", seed=4, size="smoke")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"] * former
    assert contents(tmp_path / "bundle") == (contents(before) if former else {})


@pytest.mark.parametrize("out", [".", "mine"])
def test_what_was_not_generated_is_left_alone(tmp_path, out):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(BundleError, match="left alone"):
        generate(tmp_path / out, size="smoke")
    assert contents(tmp_path) == {"mine": b"mine"}


def test_generated_and_empty_folders_are_replaced(before, tmp_path):
    out = tmp_path / "bundle"
    out.mkdir()
    generate(out, seed=5, size="smoke")
    generate(out, seed=3, size="smoke")
    assert contents(out) == contents(before)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_may_have_any_name_in_any_locale(tmp_path):
    words = ["-m", "ebnerd_lib", "sample", "--size", "smoke", "--out", str(tmp_path / "æ")]
    assert python(ROOT, *words, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0").returncode == 0
    assert (tmp_path / "æ" / "articles.parquet").exists()


def test_the_hidden_week_goes_on_with_articles_readers_and_ids(before, hidden, told):
    for name in ("articles", "contrastive_vector"):
        old, new = (pq.read_table(folder / f"{name}.parquet") for folder in (before, hidden))
        assert new.slice(0, old.num_rows).equals(old)
        assert new.num_rows == old.num_rows + round(7 * SIZE.daily_articles)
    articles = pq.read_table(hidden / "articles.parquet")
    new = articles["published_time"].to_numpy()[SIZE.articles :]
    assert BEGINS["test"] <= new.min() and new.max() <= BEGINS["test"] + WEEK
    assert (np.diff(articles["article_id"].to_numpy()) > 0).all()
    train, validation, test = users(before, "train"), users(before, "validation"), users(hidden, "test")
    assert len(test - train - validation) == round(0.1 * SIZE.test_users)
    assert len(validation & test) / len(validation) > len(train & test) / len(train)
    ids = [pq.read_table(before / split / "behaviors.parquet")["impression_id"].to_numpy() for split in BEFORE]
    every = np.concatenate([*ids, told["impression_id"].to_numpy()])
    assert np.unique(every).size == every.size and every.min() > 0


def test_beyond_accuracy_rows_share_a_slate_and_are_of_distinct_readers(hidden, told):
    rows = pq.read_table(hidden / "test" / "behaviors.parquet").slice(TOLD)
    slates = np.stack(rows["article_ids_inview"].to_pylist())
    assert slates.shape == (SIZE.beyond_accuracy, 250)
    assert (slates == slates[0]).all()
    assert np.unique(slates[0]).size == 250
    assert set(rows["impression_id"].to_pylist()) == set(rows["session_id"].to_pylist()) == {0}
    readers = rows["user_id"].to_numpy()
    assert np.unique(readers).size == readers.size
    assert set(readers.tolist()) <= set(told["user_id"].to_pylist())
    articles = pq.read_table(hidden / "articles.parquet")
    published = dict(zip(*(articles[c].to_pylist() for c in ("article_id", "published_time")), strict=True))
    assert max(published[article] for article in slates[0].tolist()) < BEGINS["test"].item()


def test_missing_files_of_a_hidden_test_are_named_with_the_remedy(before, tmp_path):
    with pytest.raises(BundleError, match=r"no such folder.*sample --test --out"):
        check_files(tmp_path / "none", (TEST,))
    with pytest.raises(BundleError, match=r"2 files missing: test/behaviors\.parquet, test/history"):
        check_files(before, (TEST,))
