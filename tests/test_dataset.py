"""Datasets and vocabularies: indices both ways, sentiment, histories, and keeping them on disk."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import assert_same

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import UNKNOWN_TIME, prepare, sentiment_shares
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.errors import BundleError, StageError

SHARES = ["sentiment_negative", "sentiment_neutral", "sentiment_positive"]


# The vocabulary.

ids_of_any_size = st.one_of(
    st.lists(st.integers(0, 30), max_size=20),
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20),
).map(lambda ids: np.array(ids, dtype=np.int32))


@settings(deadline=None)
@given(ids_of_any_size, ids_of_any_size)
def test_vocabulary_gives_the_place_among_sorted_ids(ids, asked):
    vocabulary = Vocabulary(ids)
    known = sorted(set(ids.tolist()))
    assert len(vocabulary) == len(known) + 1
    index = vocabulary.index_of(asked)
    assert index.dtype == np.int32
    assert index.tolist() == [known.index(i) + 1 if i in known else 0 for i in asked.tolist()]


@pytest.mark.parametrize("far", [2**26 - 1, 2**26, 2**32 - 1])
def test_ids_far_apart_are_found_as_those_close_by(far):
    vocabulary = Vocabulary(np.array([far, 0, 3], dtype=np.uint32))
    asked = np.array([0, 1, 3, 4, far - 1, far, 2**32 - 1], dtype=np.uint32)
    assert vocabulary.index_of(asked).tolist() == [1, 0, 2, 0, 0, 3, 3 if far == 2**32 - 1 else 0]


def test_empty_vocabulary_knows_nobody():
    vocabulary = Vocabulary(np.empty(0, np.int32))
    assert len(vocabulary) == 1
    assert vocabulary.index_of(np.array([0, 5])).tolist() == [0, 0]


@pytest.mark.parametrize("name", ["tiny", "smoke"])
def test_every_index_of_a_dataset_leads_to_its_id_and_back(name, request):
    data = request.getfixturevalue(name)
    article_ids, user_ids = data.articles["article_id"].to_numpy(), data.users["user_id"].to_numpy()
    for slates in data.parts.values():
        np.testing.assert_array_equal(article_ids[slates.article], slates.article_id)
        np.testing.assert_array_equal(user_ids[slates.user], slates.user_id)
        assert slates.article.min() > 0
        assert slates.user.min() > 0
    for ids in (article_ids, user_ids):
        assert ids[0] == 0
        assert (np.diff(ids[1:].astype(np.int64)) > 0).all()
        vocabulary = Vocabulary(ids[1:])
        np.testing.assert_array_equal(vocabulary.index_of(ids[1:]), np.arange(1, len(ids)))


def test_vocabularies_of_the_tiny_bundle(tiny, by_hand):
    # 1012 only in a history, 1099 only in slates and histories, user 4,000,000,000 only in validation
    assert tiny.articles["article_id"].tolist() == [0, *range(1001, 1013), by_hand.lost_article]
    assert tiny.users["user_id"].tolist() == [0, 7, 8, 9, by_hand.far_user]
    assert tiny.articles["in_table"].tolist() == [False, *[True] * 12, False]


# Sentiment.


@pytest.mark.parametrize(
    ("label", "score", "expected"),
    [
        ("Negative", 0.8, [0.8, 0.1, 0.1]),
        ("Neutral", 0.6, [0.2, 0.6, 0.2]),
        ("Positive", 1.0, [0.0, 0.0, 1.0]),
        ("Positive", 0.0, [0.5, 0.5, 0.0]),
        ("Positive", np.nan, [np.nan] * 3),
        (None, 0.9, [np.nan] * 3),
        ("positive", 0.9, [np.nan] * 3),
    ],
)
def test_sentiment_shares_by_hand(label, score, expected):
    shares = sentiment_shares(np.array([label], dtype=object), np.array([score]))
    np.testing.assert_allclose(shares, [expected], rtol=1e-6)
    assert shares.dtype == np.float32


def test_articles_have_their_shares(tiny):
    table = tiny.articles.set_index("article_id")[SHARES]
    np.testing.assert_allclose(table.loc[1003], [0.05, 0.05, 0.9], rtol=1e-6)
    # no label; a label without score; a score without label; not in the table; the unknown
    for number in (1004, 1005, 1008, 1099, 0):
        assert table.loc[number].isna().all()


def test_users_mean_sentiment_by_hand(tiny):
    users = tiny.users.set_index("user_id")
    # 1001 twice and 1002: repeats count
    mean = [(0.8 * 2 + 0.2) / 3, (0.1 * 2 + 0.6) / 3, (0.1 * 2 + 0.2) / 3]
    np.testing.assert_allclose(users.loc[7, [f"{name}_train" for name in SHARES]].astype(float), mean, rtol=1e-6)
    # 1002, 1003 and 1099, whose sentiment nobody knows: it is left out, not counted as 0
    mean = [(0.2 + 0.05) / 2, (0.6 + 0.05) / 2, (0.2 + 0.9) / 2]
    np.testing.assert_allclose(users.loc[7, [f"{name}_validation" for name in SHARES]].astype(float), mean, rtol=1e-6)


@pytest.mark.parametrize(("user", "week"), [(9, "train"), (8, "validation"), (9, "validation"), (0, "train")])
def test_users_without_known_sentiment_have_none(tiny, user, week):
    # no click; no history row; only clicks without sentiment; the unknown
    own = tiny.users.set_index("user_id").loc[user, [f"{name}_{week}" for name in SHARES]]
    assert own.isna().all()


# Histories.


def clicks_of(data: datasets.Dataset, week: int, user: int) -> list[tuple[int, int]]:
    history, row = data.histories[week], data.users["user_id"].tolist().index(user)
    own = slice(history.offsets[row], history.offsets[row + 1])
    return list(
        zip(data.articles["article_id"].to_numpy()[history.article[own]].tolist(), history.time[own], strict=True)
    )


@pytest.mark.parametrize(("week", "name"), [(0, "train_history"), (1, "validation_history")])
def test_each_week_has_its_own_history_in_order_of_time(tiny, by_hand, week, name):
    rows = {user: (articles, days) for user, articles, days in getattr(by_hand, name)}
    for user in (7, 8, 9, by_hand.far_user):
        articles, days = rows.get(user, ([], []))
        past = sorted(zip([by_hand.micros(day) for day in days], articles, strict=True))
        assert clicks_of(tiny, week, user) == [(article, time) for time, article in past]
    assert tiny.histories[week].lengths[0] == 0
    assert tiny.histories[week].offsets[-1] == len(tiny.histories[week].article)


@pytest.mark.parametrize("split", ["official", "quantile"])
def test_impressions_keep_the_week_of_their_file(smoke_bundle, split):
    data = prepare(open_bundle(smoke_bundle), split)[0]
    bundle = open_bundle(smoke_bundle)
    for week, name in enumerate(("train", "validation")):
        ids = bundle.behaviors(name).request["impression_id"]
        np.testing.assert_array_equal(data.log.week[np.isin(data.log.impression_id, ids)], week)


def test_changing_one_weeks_history_leaves_the_other(tiny_bundle, tiny):
    folder = tiny_bundle(validation_history=lambda table: table.slice(0, 1))
    data = prepare(open_bundle(folder), "official")[0]
    assert_same(data.histories[0], tiny.histories[0])
    train_columns = ["user_id", "history_train", *(f"{name}_train" for name in SHARES)]
    pd.testing.assert_frame_equal(data.users[train_columns], tiny.users[train_columns])
    assert data.users["history_validation"].sum() == 1


# Sessions, parts and the joins.


def test_sessions_of_the_two_weeks_are_never_the_same(tiny):
    # session 1 of user 7 exists in both files
    sessions = dict(zip(tiny.log.impression_id.tolist(), tiny.log.session.tolist(), strict=True))
    assert sessions[101] == sessions[102]
    assert len({sessions[i] for i in (101, 103, 104, 105, 106, 201, 202, 203, 204)}) == 9


def test_parts_of_the_tiny_bundle(tiny):
    assert {part: slates.impression_id.tolist() for part, slates in tiny.parts.items()} == {
        "train": [101, 102, 103, 104], "tuning": [105, 106], "validation": [201, 202, 203, 204],
    }  # fmt: skip
    assert tiny.log.impression_id.tolist() == [101, 102, 103, 104, 105, 106, 201, 202, 203, 204]
    assert {part: slates.impression_id[slates.file_order].tolist() for part, slates in tiny.parts.items()} == {
        "train": [102, 101, 103, 104], "tuning": [105, 106], "validation": [201, 204, 202, 203],
    }  # fmt: skip


def test_joins_by_hand(tiny_path):
    joins = prepare(open_bundle(tiny_path), "official")[2]
    assert joins.to_dict("records") == [
        {
            "split": "train", "impressions": 6, "users": 3, "history rows": 3,
            "impressions with history": 5, "articles not in table": 0,
        },
        {
            "split": "validation", "impressions": 4, "users": 4, "history rows": 3,
            "impressions with history": 3, "articles not in table": 1,
        },
    ]  # fmt: skip


def test_too_little_for_the_quantile_split(tiny_path):
    with pytest.raises(BundleError, match=r"split 'quantile': no impressions for tuning \(9, 0, 1"):
        prepare(open_bundle(tiny_path), "quantile")


# Metadata.


def test_metadata_arrays_by_hand(tiny, by_hand):
    meta = tiny.metadata
    published = {row[0]: by_hand.micros(row[1]) if row[1] else UNKNOWN_TIME for row in by_hand.articles}
    assert meta.published.tolist() == [UNKNOWN_TIME, *(published[i] for i in range(1001, 1013)), UNKNOWN_TIME]
    premium = {row[0]: bool(row[2]) for row in by_hand.articles}
    assert meta.premium.tolist() == [False, *(premium[i] for i in range(1001, 1013)), False]
    # categories 118, 142 and 457 are 1, 2 and 3
    assert meta.category.tolist() == [0, 1, 2, 1, 3, 0, 1, 2, 3, 1, 3, 2, 2, 0]
    np.testing.assert_array_equal(meta.sentiment, tiny.articles[SHARES].to_numpy(np.float32))
    kinds = (meta.published.dtype, meta.premium.dtype, meta.category.dtype, meta.sentiment.dtype)
    assert kinds == (np.int64, bool, np.int32, np.float32)


# On disk.


@pytest.mark.parametrize("name", ["tiny", "smoke"])
def test_saved_datasets_come_back_the_same(name, request, tmp_path):
    data = request.getfixturevalue(name)
    datasets.save(data, tmp_path)
    loaded = datasets.load(tmp_path)
    assert_same(loaded, data)
    assert_same(loaded.metadata, data.metadata)


def test_same_dataset_same_bytes(tiny_path, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        datasets.save(prepare(open_bundle(tiny_path), "official")[0], tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(
        ["articles.parquet", "users.parquet", "history_train.parquet", "history_validation.parquet"]
        + [f"slates_{part}.parquet" for part in datasets.PARTS]
    )
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_nothing_saved(tmp_path):
    with pytest.raises(StageError, match=r"no articles\.parquet\. Run 01_preprocess"):
        datasets.load(tmp_path)
