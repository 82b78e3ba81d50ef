"""The sample generator, its hidden test week included: what it promises whatever the seed.

How closely it resembles the data: test_calibration.
"""

import json
import shutil
import sys
from pathlib import Path
from subprocess import run

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import ROOT, python

from ebnerd_lib import sample
from ebnerd_lib.__main__ import main
from ebnerd_lib.data.layout import TEST, check_files
from ebnerd_lib.data.schema import ARTICLES, BEHAVIORS, HISTORY, TEST_BEHAVIORS, arrow_schema
from ebnerd_lib.errors import BundleError, ConfigError
from ebnerd_lib.sample import SIZES, generate, generate_test
from ebnerd_lib.sample.simulate import hashed_uniforms, scramble, stream_key

WEEK = np.timedelta64(7, "D")
BEGINS = {name: np.datetime64(f"2023-{day}T07:00") for name, day in (
    ("train", "05-18"), ("validation", "05-25"), ("test", "06-01")
)}  # fmt: skip
BEFORE = ("train", "validation")  # the weeks of the bundle before the hidden one
SIZE = SIZES["smoke"]
TOLD = SIZE.test_impressions - SIZE.beyond_accuracy  # rows of the hidden week that are not for beyond-accuracy measures
SHARED = ["articles.parquet", "contrastive_vector.parquet", "generated.json"]
FILES = {
    "before": [*SHARED, *(f"{split}/{table}.parquet" for split in BEFORE for table in ("behaviors", "history"))],
    "hidden": [*SHARED, *(f"test/{table}.parquet" for table in ("behaviors", "history", "truth"))],
}
MARK = {"generator_version": 2, "seed": 3, "size": "smoke"}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, Path]:
    """The bundle of the two weeks and that of the hidden week after them."""
    out = tmp_path_factory.mktemp("sample")
    generate(out / "before", seed=3, size="smoke")
    assert main(["sample", "--test", "--out", str(out / "hidden"), "--size", "smoke", "--seed", "3"]) == 0
    return {"before": out / "before", "hidden": out / "hidden"}


@pytest.fixture(scope="module")
def before(bundles) -> Path:
    return bundles["before"]


@pytest.fixture(scope="module")
def hidden(bundles) -> Path:
    return bundles["hidden"]


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def lists(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Owner of each value of a list column, and the values."""
    joined = column.combine_chunks()
    sizes = np.diff(joined.offsets.to_numpy())
    return np.repeat(np.arange(sizes.size), sizes), joined.flatten().to_numpy(zero_copy_only=False)


@pytest.fixture(params=list(BEGINS))
def split(request) -> str:
    return request.param


@pytest.fixture
def bundle(bundles, split) -> Path:
    return bundles["hidden" if split == TEST else "before"]


@pytest.fixture
def behaviors(bundle, split) -> pa.Table:
    """The rows of readers: those that are not for beyond-accuracy measures."""
    table = pq.read_table(bundle / split / "behaviors.parquet")
    return table.slice(0, TOLD if split == TEST else None)


@pytest.fixture
def clicked(behaviors, bundle, split) -> pa.ChunkedArray:
    """What was clicked; of the hidden week as its truth tells it, in the order of the rows."""
    table = pq.read_table(bundle / "test" / "truth.parquet") if split == TEST else behaviors
    assert table["impression_id"].equals(behaviors["impression_id"])
    return table["article_ids_clicked"]


@pytest.fixture
def history(bundle, split) -> pa.Table:
    return pq.read_table(bundle / split / "history.parquet")


@pytest.fixture
def told(hidden) -> pa.Table:
    return pq.read_table(hidden / "test" / "behaviors.parquet").slice(0, TOLD)


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


@pytest.mark.parametrize(("name", "mark"), [("before", MARK), ("hidden", MARK | {"split": "test"})])
def test_files_and_mark(bundles, name, mark):
    assert list(contents(bundles[name])) == FILES[name]
    assert json.loads((bundles[name] / "generated.json").read_text()) == mark


@pytest.mark.parametrize(
    ("bundle", "name", "schema"),
    [
        ("before", "articles", ARTICLES), ("hidden", "articles", ARTICLES),
        ("hidden", "test/behaviors", TEST_BEHAVIORS),
        ("hidden", "test/history", HISTORY),
        *(("before", f"{s}/{n}", t) for s in BEFORE for n, t in (("behaviors", BEHAVIORS), ("history", HISTORY))),
    ],
)  # fmt: skip
def test_schema_is_exact(bundles, bundle, name, schema):
    assert pq.read_schema(bundles[bundle] / f"{name}.parquet").equals(arrow_schema(schema))


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


def test_other_seed_differs_in_every_table(before, tmp_path):
    generate(tmp_path / "other", seed=4, size="smoke")
    one, other = contents(before), contents(tmp_path / "other")
    assert [name for name in FILES["before"] if one[name] == other[name]] == []


@pytest.mark.parametrize(("name", "make"), [("before", generate), ("hidden", generate_test)])
def test_same_seed_same_bytes_whatever_the_chunk(bundles, tmp_path, monkeypatch, name, make):
    monkeypatch.setattr("ebnerd_lib.sample.weeks.CHUNK_USERS", 13)
    make(tmp_path / "chunks", seed=3, size="smoke")
    assert contents(tmp_path / "chunks") == contents(bundles[name])


@pytest.mark.parametrize(("make", "split", "groups"), [(generate, "train", 7), (generate_test, "test", 7 + 3)])
def test_row_groups_do_not_depend_on_chunks(tmp_path, monkeypatch, make, split, groups):
    monkeypatch.setattr("ebnerd_lib.sample.weeks.ROW_GROUP", {"behaviors": 300, "history": 40})
    monkeypatch.setattr("ebnerd_lib.sample.weeks.BEYOND_ACCURACY_ROWS", 25)
    for chunk in (7, 1000):
        monkeypatch.setattr("ebnerd_lib.sample.weeks.CHUNK_USERS", chunk)
        make(tmp_path / str(chunk), size="smoke")
    assert contents(tmp_path / "7") == contents(tmp_path / "1000")
    file = pq.ParquetFile(tmp_path / "7" / split / "behaviors.parquet")
    assert file.metadata.num_row_groups == groups
    if split == TEST:
        marks = file.read(["is_beyond_accuracy"])["is_beyond_accuracy"].to_pylist()
        assert marks == sorted(marks), "rows for beyond-accuracy measures stay last"


def test_clicks_are_some_but_not_all_of_the_slate(behaviors, clicked):
    row, shown = lists(behaviors["article_ids_inview"])
    clicked_row, articles = lists(clicked)
    slates = set(zip(row.tolist(), shown.tolist(), strict=True))
    picked = set(zip(clicked_row.tolist(), articles.tolist(), strict=True))
    assert picked <= slates
    assert len(slates) == row.size, "an article stands twice in a slate"
    assert len(picked) == clicked_row.size
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
    assert np.bincount(owner).min() >= 5
    for column in ("scroll_percentage_fixed", "article_id_fixed", "read_time_fixed"):
        assert np.array_equal(lists(history[column])[0], owner)


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


@pytest.mark.parametrize("split", BEFORE)
def test_article_page_in_a_visit_is_an_article_clicked_before(behaviors):
    table = behaviors.sort_by([("session_id", "ascending"), ("impression_time", "ascending")])
    session = table["session_id"].to_numpy()
    later = np.flatnonzero(np.r_[False, session[1:] == session[:-1]])
    clicked, pages = table["article_ids_clicked"].to_pylist(), table["article_id"].to_pylist()
    pages_known = [row for row in later if pages[row] is not None]
    assert len(pages_known) > 50
    assert all(pages[row] in clicked[row - 1] for row in pages_known)


def test_vectors_are_unit_and_tell_categories_apart(before):
    table = pq.read_table(before / "contrastive_vector.parquet")
    assert table.schema.field("contrastive_vector").type == pa.list_(pa.float32())
    articles = pq.read_table(before / "articles.parquet", columns=["article_id", "category"])
    assert table["article_id"].equals(articles["article_id"])
    vectors = table["contrastive_vector"].combine_chunks().flatten().to_numpy().reshape(-1, 64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    category = articles["category"].to_numpy()
    likeness = vectors @ vectors.T
    same = category[:, None] == category
    np.fill_diagonal(same, False)
    assert likeness[same].mean() > likeness[category[:, None] != category].mean() + 0.2


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


@pytest.mark.parametrize(("arguments", "message"), [({"size": "huge"}, "smoke, demo"), ({"seed": -1}, "negative")])
def test_wrong_arguments(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        generate(tmp_path / "bundle", **arguments)
    assert not (tmp_path / "bundle").exists()


def test_a_folder_may_have_any_name_in_any_locale(tmp_path):
    words = ["-m", "ebnerd_lib", "sample", "--size", "smoke", "--out", str(tmp_path / "æ")]
    assert python(ROOT, *words, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0").returncode == 0
    assert (tmp_path / "æ" / "articles.parquet").exists()


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


def test_the_articles_of_the_bundle_before_are_the_same_and_those_of_the_week_follow(before, hidden):
    for name in ("articles", "contrastive_vector"):
        old, new = (pq.read_table(folder / f"{name}.parquet") for folder in (before, hidden))
        assert new.slice(0, old.num_rows).equals(old)
        assert new.num_rows == old.num_rows + round(7 * SIZE.daily_articles)
    articles = pq.read_table(hidden / "articles.parquet")
    new = articles["published_time"].to_numpy()[SIZE.articles :]
    assert new.min() >= BEGINS["test"]
    assert new.max() <= BEGINS["test"] + WEEK
    assert (np.diff(articles["article_id"].to_numpy()) > 0).all()


def test_most_readers_are_those_of_the_weeks_before(before, hidden):
    old, test = users(before, "train") | users(before, "validation"), users(hidden, "test")
    assert len(test - old) == round(0.1 * SIZE.test_users)
    shares = [len(users(before, split) & test) / len(users(before, split)) for split in ("train", "validation")]
    assert shares[1] > shares[0]


def test_a_reader_is_known_by_the_same_traits(before, told):
    before = pq.read_table(before / "validation" / "behaviors.parquet")
    for name in ("is_sso_user", "gender", "postcode", "age", "is_subscriber"):
        one, other = (dict(zip(t["user_id"].to_pylist(), t[name].to_pylist(), strict=True)) for t in (before, told))
        shared = one.keys() & other.keys()
        assert len(shared) > 50
        assert [one[user] for user in shared] == [other[user] for user in shared]


@pytest.mark.parametrize(("early", "late"), [("train", "validation"), ("validation", "test")])
def test_histories_agree_where_they_overlap(before, bundles, early, late):
    after = bundles["hidden" if late == TEST else "before"]
    shared = users(before, early) & users(after, late)
    span = (BEGINS[early] - 2 * WEEK, BEGINS[early])
    one, other = (
        {click for click in clicks(*place, *span) if click[0] in shared} for place in ((before, early), (after, late))
    )
    assert one == other and len(one) > 1000


def test_the_history_holds_most_clicks_of_the_validation_week(before, hidden):
    table = pq.read_table(before / "validation" / "behaviors.parquet")
    row, clicked = lists(table["article_ids_clicked"])
    times = table["impression_time"].to_numpy().astype("datetime64[us]").astype(np.int64)
    known = {click[:3] for click in clicks(hidden, "test", BEGINS["test"] - WEEK, BEGINS["test"])}
    readers = users(hidden, "test")
    told = [
        click
        for click in zip(table["user_id"].to_numpy()[row].tolist(), times[row].tolist(), clicked.tolist(), strict=True)
        if click[0] in readers
    ]
    assert 0.86 < np.mean([click in known for click in told]) < 0.92


def test_ids_are_unique_over_the_weeks_but_for_the_zeros(before, told):
    ids = [pq.read_table(before / s / "behaviors.parquet")["impression_id"].to_numpy() for s in ("train", "validation")]
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


def test_clicks_follow_what_is_new(hidden, told):
    """A ranking by age beats chance on the hidden clicks: the week is simulated, not drawn."""
    articles = pq.read_table(hidden / "articles.parquet")
    published = dict(zip(*(articles[c].to_numpy().tolist() for c in ("article_id", "published_time")), strict=True))
    truth = pq.read_table(hidden / "test" / "truth.parquet")[1].to_pylist()
    wins = [
        np.mean([published[clicked[0]] > published[other] for other in slate if other != clicked[0]])
        for clicked, slate in zip(truth, told["article_ids_inview"].to_pylist(), strict=True)
    ]
    assert np.mean(wins) > 0.52


def test_missing_files_are_named_with_the_remedy(hidden, before, tmp_path):
    assert [path.name for path in check_files(hidden, (TEST,))][:3] == [
        "articles.parquet", "behaviors.parquet", "history.parquet",
    ]  # fmt: skip
    with pytest.raises(BundleError, match=r"no such folder.*sample --test --out"):
        check_files(tmp_path / "none", (TEST,))
    with pytest.raises(BundleError, match=r"2 files missing: test/behaviors\.parquet, test/history"):
        check_files(before, (TEST,))
    with pytest.raises(BundleError, match="4 files missing"):
        check_files(hidden)
