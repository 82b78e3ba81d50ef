"""Datasets and vocabularies: indices both ways, sentiment, where weeks are cut, and keeping them on disk."""

import numpy as np
import pandas as pd
import pytest
from conftest import FAR_USER, LOST_ARTICLE
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import assert_same

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import prepare, split_parts
from ebnerd_lib.data.slates import HOUR
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


def test_vocabularies_of_the_tiny_bundle(tiny):
    # 1012 only in a history, 1099 only in slates and histories, user 4,000,000,000 only in validation
    assert tiny.articles["article_id"].tolist() == [0, *range(1001, 1013), LOST_ARTICLE]
    assert tiny.users["user_id"].tolist() == [0, 7, 8, 9, FAR_USER]
    assert tiny.articles["in_table"].tolist() == [False, *[True] * 12, False]


# Sentiment.


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
    joins = prepare(open_bundle(tiny_path), "official")[1]
    assert list(joins) == [
        "split", "impressions", "users", "history rows", "impressions with history", "articles not in table",
    ]  # fmt: skip
    assert joins.to_numpy().tolist() == [["train", 6, 3, 3, 5, 0], ["validation", 4, 4, 3, 3, 1]]


# Where both weeks are cut.

TRAIN, TUNING, VALIDATION = 0, 1, 2


def times(*texts: str) -> np.ndarray:
    return np.array([f"2023-05-{text}" for text in texts], dtype="datetime64[us]").astype(np.int64)


@pytest.mark.parametrize(
    ("last", "before", "first"),
    [
        ("25T06:59:59.999999", "24T06:59:59.999999", "24T07:00"),
        ("25T06:00:00.000001", "24T06:59:59.999999", "24T07:00"),
        # at the full hour itself the week goes on to the next one: its last impression falls short of its end
        ("25T06:00", "24T06:59:59.999999", "24T07:00"),
        ("25T05:59:59", "24T05:59:59.999999", "24T06:00"),
    ],
)
def test_official_intervals_are_half_open_and_the_week_ends_on_a_full_hour(last, before, first):
    parts = split_parts("official", times(last, before, first), times("25T07:30"))
    assert parts.tolist() == [TUNING, TRAIN, TUNING, VALIDATION]


@given(st.lists(st.integers(0, 20_000), min_size=30, max_size=120), st.data())
def test_quantile_is_the_cut_of_the_original_notebook(minutes, data):
    time = times("10T00:00") + np.array(minutes) * (HOUR // 60)
    cut = data.draw(st.integers(1, len(time) - 1))
    stamps = pd.Series(time.astype("datetime64[us]"))
    q = stamps.quantile(0.9)
    early = (stamps < q).to_numpy()
    assume(early.any())
    start = time[~early].min()
    tuning = early & (time >= start - (start - time.min()) // 10)
    expected = np.where(early, np.where(tuning, TUNING, TRAIN), VALIDATION)
    if len(np.unique(expected)) < 3:
        with pytest.raises(BundleError, match="no impressions for"):
            split_parts("quantile", time[:cut], time[cut:])
    else:
        np.testing.assert_array_equal(split_parts("quantile", time[:cut], time[cut:]), expected)


@pytest.mark.parametrize(
    ("name", "train", "validation", "told"),
    [
        ("official", ("18T07:00", "25T07:00", "25T09:00"), ("25T07:00",), "2 impressions are not before"),
        ("quantile", ("18T07:00", "18T07:00"), ("18T07:00",), r"train, tuning \(0, 0, 3 in"),
    ],
)
def test_weeks_that_cannot_be_cut_are_refused(name, train, validation, told):
    with pytest.raises(BundleError, match=told):
        split_parts(name, times(*train), times(*validation))


# On disk.


@pytest.mark.parametrize("name", ["tiny", "smoke"])
def test_saved_datasets_come_back_the_same(name, request, tmp_path):
    data = request.getfixturevalue(name)
    datasets.save(data, tmp_path)
    loaded = datasets.load(tmp_path)
    assert_same(loaded, data)
    assert_same(loaded.metadata, data.metadata)


def test_nothing_saved(tmp_path):
    with pytest.raises(StageError, match=r"no articles\.parquet\. Run 01_preprocess"):
        datasets.load(tmp_path)
