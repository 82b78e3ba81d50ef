"""The generator's hidden test week: what it holds, and that it continues the bundle of the same seed and size."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_sample import contents, lists

from ebnerd_lib.__main__ import main
from ebnerd_lib.data.layout import TEST, check_files
from ebnerd_lib.data.schema import ARTICLES, HISTORY, TEST_BEHAVIORS, arrow_schema
from ebnerd_lib.errors import BundleError
from ebnerd_lib.sample import SIZES, generate, generate_test

BEGIN = np.datetime64("2023-06-01T07:00")
WEEK = np.timedelta64(7, "D")
SIZE = SIZES["smoke"]


@pytest.fixture(scope="module")
def former(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("former") / "bundle"
    generate(out, seed=3, size="smoke")
    return out


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("hidden") / "bundle"
    assert main(["sample", "--test", "--out", str(out), "--size", "smoke", "--seed", "3"]) == 0
    return out


@pytest.fixture(scope="module")
def behaviors(bundle) -> pa.Table:
    return pq.read_table(bundle / "test" / "behaviors.parquet")


@pytest.fixture(scope="module")
def told(behaviors) -> pa.Table:
    """The rows of readers: those that are not for beyond-accuracy measures."""
    return behaviors.slice(0, SIZE.test_impressions - SIZE.beyond_accuracy)


@pytest.fixture(scope="module")
def history(bundle) -> pa.Table:
    return pq.read_table(bundle / "test" / "history.parquet")


def clicks(folder: Path, split: str, begin: np.datetime64, end: np.datetime64) -> set[tuple]:
    """(user, time, article, seconds read) of the history clicks in [begin, end)."""
    table = pq.read_table(folder / split / "history.parquet")
    owner, times = lists(table["impression_time_fixed"])
    inside = (times >= begin) & (times < end)
    columns = (
        table["user_id"].to_numpy()[owner],
        times.astype("datetime64[us]").astype(np.int64),
        lists(table["article_id_fixed"])[1],
        lists(table["read_time_fixed"])[1],
    )
    return set(zip(*(column[inside].tolist() for column in columns), strict=True))


def users(folder: Path, split: str) -> set[int]:
    return set(pq.read_table(folder / split / "history.parquet")["user_id"].to_pylist())


def test_files_and_mark(bundle):
    assert list(contents(bundle)) == [
        "articles.parquet", "contrastive_vector.parquet", "generated.json",
        "test/behaviors.parquet", "test/history.parquet", "test/truth.parquet",
    ]  # fmt: skip
    mark = {"generator_version": 1, "seed": 3, "size": "smoke", "split": "test"}
    assert json.loads((bundle / "generated.json").read_text()) == mark


@pytest.mark.parametrize(
    ("name", "schema"), [("articles", ARTICLES), ("test/behaviors", TEST_BEHAVIORS), ("test/history", HISTORY)]
)
def test_schema_is_exact(bundle, name, schema):
    assert pq.read_schema(bundle / f"{name}.parquet").equals(arrow_schema(schema))


def test_counts_are_those_of_the_size(behaviors, told, history):
    assert behaviors.num_rows == SIZE.test_impressions
    assert np.unique(told["user_id"]).size == history.num_rows == SIZE.test_users
    assert behaviors["is_beyond_accuracy"].to_pylist() == [False] * told.num_rows + [True] * SIZE.beyond_accuracy


@pytest.mark.parametrize("chunk", [13, 1000])
def test_same_seed_same_bytes_whatever_the_chunk(bundle, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("ebnerd_lib.sample.weeks.CHUNK_USERS", chunk)
    generate_test(tmp_path / "again", seed=3, size="smoke")
    assert contents(tmp_path / "again") == contents(bundle)


def test_row_groups_do_not_depend_on_chunks_and_beyond_accuracy_rows_stay_last(tmp_path, monkeypatch):
    monkeypatch.setattr("ebnerd_lib.sample.weeks.ROW_GROUP", {"behaviors": 300, "history": 40})
    monkeypatch.setattr("ebnerd_lib.sample.weeks.BEYOND_ACCURACY_ROWS", 25)
    for chunk in (7, 1000):
        monkeypatch.setattr("ebnerd_lib.sample.weeks.CHUNK_USERS", chunk)
        generate_test(tmp_path / str(chunk), size="smoke")
    assert contents(tmp_path / "7") == contents(tmp_path / "1000")
    path = tmp_path / "7" / "test" / "behaviors.parquet"
    assert pq.read_metadata(path).num_row_groups == 7 + 3
    marks = pq.read_table(path)["is_beyond_accuracy"].to_pylist()
    assert marks == sorted(marks)
    ids = pq.read_table(path)["impression_id"].to_pylist()[: -SIZE.beyond_accuracy]
    assert pq.read_table(tmp_path / "7" / "test" / "truth.parquet")["impression_id"].to_pylist() == ids


def test_the_articles_of_the_bundle_before_are_the_same_and_those_of_the_week_follow(former, bundle):
    for name in ("articles", "contrastive_vector"):
        before, after = (pq.read_table(folder / f"{name}.parquet") for folder in (former, bundle))
        assert after.slice(0, before.num_rows).equals(before)
        assert after.num_rows == before.num_rows + round(7 * SIZE.daily_articles)
    articles = pq.read_table(bundle / "articles.parquet")
    new = articles["published_time"].to_numpy()[SIZE.articles :]
    assert new.min() >= BEGIN
    assert new.max() <= BEGIN + WEEK
    assert (np.diff(articles["article_id"].to_numpy()) > 0).all()


def test_most_readers_are_those_of_the_weeks_before(former, bundle):
    old, test = users(former, "train") | users(former, "validation"), users(bundle, "test")
    assert len(test - old) == round(0.1 * SIZE.test_users)
    shares = [len(users(former, split) & test) / len(users(former, split)) for split in ("train", "validation")]
    assert shares[1] > shares[0]


def test_a_reader_is_known_by_the_same_traits(former, told):
    before = pq.read_table(former / "validation" / "behaviors.parquet")
    for name in ("is_sso_user", "gender", "postcode", "age", "is_subscriber"):
        one, other = (dict(zip(t["user_id"].to_pylist(), t[name].to_pylist(), strict=True)) for t in (before, told))
        shared = one.keys() & other.keys()
        assert len(shared) > 50
        assert [one[user] for user in shared] == [other[user] for user in shared]


def test_histories_agree_where_they_overlap(former, bundle):
    begin, end = BEGIN - 3 * WEEK, BEGIN - WEEK
    shared = users(former, "validation") & users(bundle, "test")
    before, after = (clicks(*place, begin, end) for place in ((former, "validation"), (bundle, "test")))
    assert {click for click in before if click[0] in shared} == {click for click in after if click[0] in shared}
    assert len(after) > 1000


def test_the_history_holds_most_clicks_of_the_validation_week(former, bundle):
    table = pq.read_table(former / "validation" / "behaviors.parquet")
    row, clicked = lists(table["article_ids_clicked"])
    times = table["impression_time"].to_numpy().astype("datetime64[us]").astype(np.int64)
    known = {click[:3] for click in clicks(bundle, "test", BEGIN - WEEK, BEGIN)}
    readers = users(bundle, "test")
    told = [
        click
        for click in zip(table["user_id"].to_numpy()[row].tolist(), times[row].tolist(), clicked.tolist(), strict=True)
        if click[0] in readers
    ]
    assert 0.86 < np.mean([click in known for click in told]) < 0.92


def test_history_is_the_three_weeks_before_in_order(history):
    owner, times = lists(history["impression_time_fixed"])
    assert times.min() >= BEGIN - 3 * WEEK
    assert times.max() < BEGIN
    assert (np.diff(times)[np.diff(owner) == 0] >= np.timedelta64(0)).all()
    assert np.bincount(owner).min() >= 5
    for column in ("scroll_percentage_fixed", "article_id_fixed", "read_time_fixed"):
        assert np.array_equal(lists(history[column])[0], owner)


def test_ids_are_unique_over_the_weeks_but_for_the_zeros(former, told):
    ids = [pq.read_table(former / s / "behaviors.parquet")["impression_id"].to_numpy() for s in ("train", "validation")]
    every = np.concatenate([*ids, told["impression_id"].to_numpy()])
    assert np.unique(every).size == every.size
    assert every.min() > 0


def test_a_reader_whose_id_would_be_zero_gets_another(tmp_path, monkeypatch):
    # Ids that count from the first row of the test week: one reader's would be 0.
    first = sum(SIZE.impressions)
    monkeypatch.setattr(
        "ebnerd_lib.sample.simulate.scramble", lambda ordinals, *_: (ordinals - first).astype(np.uint32)
    )
    generate_test(tmp_path / "bundle", size="smoke")
    table = pq.read_table(tmp_path / "bundle" / "test" / "behaviors.parquet")
    assert table["impression_id"].to_pylist().count(0) == SIZE.beyond_accuracy
    assert SIZE.test_impressions - SIZE.beyond_accuracy in table["impression_id"].to_pylist()


def test_beyond_accuracy_rows_share_a_slate_and_are_of_distinct_readers(bundle, behaviors, told):
    rows = behaviors.slice(told.num_rows)
    slates = np.stack(rows["article_ids_inview"].to_pylist())
    assert slates.shape == (SIZE.beyond_accuracy, 250)
    assert (slates == slates[0]).all()
    assert np.unique(slates[0]).size == 250
    assert set(rows["impression_id"].to_pylist()) == set(rows["session_id"].to_pylist()) == {0}
    readers = rows["user_id"].to_numpy()
    assert np.unique(readers).size == readers.size
    assert set(readers.tolist()) <= set(told["user_id"].to_pylist())
    articles = pq.read_table(bundle / "articles.parquet")
    published = dict(zip(*(articles[c].to_pylist() for c in ("article_id", "published_time")), strict=True))
    assert max(published[article] for article in slates[0].tolist()) < BEGIN.item()


def test_the_truth_is_some_but_not_all_of_each_readers_slate_in_the_order_of_the_rows(bundle, told):
    truth = pq.read_table(bundle / "test" / "truth.parquet")
    assert truth["impression_id"].equals(told["impression_id"])
    for clicked, slate in zip(*(t.to_pylist() for t in (truth[1], told["article_ids_inview"])), strict=True):
        assert 0 < len(clicked) < len(slate)
        assert set(clicked) < set(slate)


def test_times_lie_in_the_week_and_slates_hold_what_is_out(bundle, told):
    times = told["impression_time"].to_numpy()
    assert times.min() >= BEGIN
    assert times.max() < BEGIN + WEEK
    articles = pq.read_table(bundle / "articles.parquet")
    row, shown = lists(told["article_ids_inview"])
    place = np.searchsorted(articles["article_id"].to_numpy(), shown)
    published = articles["published_time"].to_numpy()[place]
    assert np.array_equal(articles["article_id"].to_numpy()[place], shown)
    assert (published <= times[row]).all()
    assert (published >= BEGIN).mean() > 0.4, "what is shown is mostly of the week"


def test_clicks_follow_what_is_new(bundle, told):
    """A ranking by age beats chance on the hidden clicks: the week is simulated, not drawn."""
    articles = pq.read_table(bundle / "articles.parquet")
    published = dict(zip(*(articles[c].to_numpy().tolist() for c in ("article_id", "published_time")), strict=True))
    truth = pq.read_table(bundle / "test" / "truth.parquet")[1].to_pylist()
    wins = [
        np.mean([published[clicked[0]] > published[other] for other in slate if other != clicked[0]])
        for clicked, slate in zip(truth, told["article_ids_inview"].to_pylist(), strict=True)
    ]
    assert np.mean(wins) > 0.52


def test_missing_files_are_named_with_the_remedy(bundle, former, tmp_path):
    assert [path.name for path in check_files(bundle, (TEST,))][:3] == [
        "articles.parquet", "behaviors.parquet", "history.parquet",
    ]  # fmt: skip
    with pytest.raises(BundleError, match=r"no such folder.*sample --test --out"):
        check_files(tmp_path / "none", (TEST,))
    with pytest.raises(BundleError, match=r"2 files missing: test/behaviors\.parquet, test/history"):
        check_files(former, (TEST,))
    with pytest.raises(BundleError, match="4 files missing"):
        check_files(bundle)
