"""Where both weeks are cut into train, tuning and validation."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ebnerd_lib.data.dataset import split_parts
from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.errors import BundleError, ConfigError

MINUTE = HOUR // 60
TRAIN, TUNING, VALIDATION = 0, 1, 2


def times(*texts: str) -> np.ndarray:
    return np.array([f"2023-05-{text}" for text in texts], dtype="datetime64[us]").astype(np.int64)


def text(time: int) -> str:
    return str(np.datetime64(time, "us"))


def test_official_intervals_are_half_open():
    train = times("25T06:59:59.999999", "18T07:00", "24T06:59:59.999999", "24T07:00")
    validation = times("31T23:00", "25T07:00")
    split = split_parts("official", train, validation)
    assert split.part.tolist() == [TUNING, TRAIN, TRAIN, TUNING, VALIDATION, VALIDATION]
    assert text(split.tuning_start) == "2023-05-24T07:00:00.000000"
    assert text(split.validation_start) == "2023-05-25T07:00:00.000000"


@pytest.mark.parametrize(
    ("last", "tuning_start"),
    [
        ("25T06:59:59.999999", "2023-05-24T07:00:00.000000"),
        ("25T06:00:00.000001", "2023-05-24T07:00:00.000000"),
        # at the full hour itself the week goes on to the next one: its last impression falls short of its end
        ("25T06:00", "2023-05-24T07:00:00.000000"),
        ("25T05:59:59", "2023-05-24T06:00:00.000000"),
    ],
)
def test_the_week_ends_on_a_full_hour(last, tuning_start):
    split = split_parts("official", times("18T07:00", last), times("25T07:30"))
    assert text(split.tuning_start) == tuning_start
    assert text(split.validation_start) == "2023-05-25T07:30:00.000000"


def test_official_refuses_weeks_that_overlap():
    with pytest.raises(BundleError, match=r"2 impressions are not before the first of validation/behaviors\.parquet"):
        split_parts("official", times("18T07:00", "25T07:00", "25T09:00"), times("25T07:00", "26T07:00"))


def test_quantile_by_hand():
    # eleven impressions in any order: the .9 quantile is the tenth, 19 days 00:00
    train = times("18T12:00", "17T00:00", "10T00:00", "16T00:00", "15T00:00", "14T00:00")
    validation = times("20T00:00", "11T00:00", "19T00:00", "13T00:00", "12T00:00")
    split = split_parts("quantile", train, validation)
    assert text(split.validation_start) == "2023-05-19T00:00:00.000000"
    # nine days of time lie before it: the last tenth is 21 h 36 min
    assert text(split.tuning_start) == "2023-05-18T02:24:00.000000"
    assert split.part.tolist() == [TUNING, *[TRAIN] * 5, VALIDATION, TRAIN, VALIDATION, TRAIN, TRAIN]


@given(st.lists(st.integers(0, 20_000), min_size=30, max_size=120), st.data())
def test_quantile_is_the_cut_of_the_original_notebook(minutes, data):
    time = times("10T00:00") + np.array(minutes) * MINUTE
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
        return
    split = split_parts("quantile", time[:cut], time[cut:])
    np.testing.assert_array_equal(split.part, expected)
    assert split.validation_start == start


@pytest.mark.parametrize("name", ["official", "quantile"])
def test_order_within_a_file_does_not_matter(name):
    random = np.random.default_rng(0)
    train = times("18T07:00")[0] + random.integers(0, 7 * 24 * HOUR, 300)
    validation = times("25T07:00")[0] + random.integers(0, 7 * 24 * HOUR, 300)
    split = split_parts(name, train, validation)
    shuffled = random.permutation(300)
    again = split_parts(name, train[shuffled], validation[shuffled])
    np.testing.assert_array_equal(again.part, split.part[np.concatenate([shuffled, 300 + shuffled])])
    assert (again.tuning_start, again.validation_start) == (split.tuning_start, split.validation_start)


def test_quantile_of_one_moment_says_what_is_empty():
    with pytest.raises(BundleError, match=r"split 'quantile': no impressions for train, tuning \(0, 0, 4 in"):
        split_parts("quantile", np.full(2, 5), np.full(2, 5))


def test_unknown_split_lists_the_known():
    with pytest.raises(ConfigError, match=r"split: 'random' is unknown\. Use one of official, quantile"):
        split_parts("random", times("18T07:00"), times("25T07:00"))
