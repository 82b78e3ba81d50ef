"""Figures on bundles, against the tiny bundle counted by hand."""

import numpy as np
import pytest

from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.summary import (
    AGE_LABELS,
    candidate_age,
    click_rate_by_age,
    cold_start,
    null_shares,
    part_counts,
    quantiles,
    seen_candidates,
)
from ebnerd_lib.data.vocabulary import Vocabulary


def test_null_shares_by_hand(tiny_path):
    table = null_shares(open_bundle(tiny_path))
    shares = {(row.file, row.column): row.share for row in table.itertuples()}
    assert shares["train/behaviors", "article_id"] == pytest.approx(4 / 6)
    assert shares["validation/behaviors", "article_id"] == pytest.approx(3 / 4)
    assert shares["validation/behaviors", "gender"] == 1.0
    assert shares["articles", "category"] == pytest.approx(1 / 12)
    assert shares["articles", "sentiment_score"] == pytest.approx(2 / 12)
    assert shares["articles", "published_time"] == pytest.approx(1 / 12)
    # full columns are left out, and so are those with nulls only inside their lists
    full = {("articles", "title"), ("train/behaviors", "user_id"), ("train/history", "scroll_percentage_fixed")}
    assert not full & set(shares)
    assert list(table["file"].unique()) == ["articles", "train/behaviors", "validation/behaviors"]


def test_part_counts_by_hand(tiny):
    table = part_counts(tiny)
    assert list(table) == [
        "part", "impressions", "candidates", "clicks", "users", "articles in view", "first", "last",
    ]  # fmt: skip
    assert table.to_numpy().tolist() == [
        ["train", 4, 11, 5, 3, 5, "2023-05-18 08:00", "2023-05-24 06:59"],
        ["tuning", 2, 5, 1, 2, 4, "2023-05-24 07:00", "2023-05-25 06:50"],
        ["validation", 4, 11, 4, 4, 8, "2023-05-25 07:00", "2023-05-31 20:00"],
    ]


def test_quantiles_by_hand():
    values = {"whole": np.arange(11), "gaps": np.array([np.nan, 4.0, 2.0]), "empty": np.empty(0, np.int64)}
    table = quantiles(values | {"none": np.array([np.nan])}).set_index("")
    assert list(table.columns) == ["mean", "min", "p10", "p25", "p50", "p75", "p90", "p99", "max"]
    assert table.loc["whole"].tolist() == pytest.approx([5, 0, 1, 2.5, 5, 7.5, 9, 9.9, 10])
    assert table.loc["gaps"].tolist() == pytest.approx([3, 2, 2.2, 2.5, 3, 3.5, 3.8, 3.98, 4])
    assert table.loc[["none", "empty"]].isna().all().all()


def test_candidate_age_by_hand(tiny):
    # 201: 1006 and 1007; 202: 1007, 1008 without time, 1099 not in the table;
    # 203 at 28T23:15: 1002, 1008, 1009, and 1010 that comes out a quarter of an hour later; 204: 1010 and 1011
    days = 24.0
    expected = [
        26.0, 1.0,
        days + 4, np.nan, np.nan,
        10 * days + 17.25, np.nan, 0.25, 0.0,
        2 * days + 20.5, 8.0,
    ]  # fmt: skip
    np.testing.assert_allclose(candidate_age(tiny, "validation"), expected)


def test_click_rate_by_age_by_hand(tiny):
    table = click_rate_by_age(tiny, "validation").set_index("age")
    assert list(table.index) == list(AGE_LABELS)
    shown = {"<1 h": 2, "1–2 h": 1, "8–16 h": 1, "1–2 d": 2, "2–4 d": 1, "10–30 d": 1}
    clicks = {"<1 h": 1, "1–2 h": 1, "2–4 d": 1}  # the fourth click is on an article of unknown age
    assert table["in view"].to_dict() == {label: shown.get(label, 0) for label in AGE_LABELS}
    assert table["clicks"].to_dict() == {label: clicks.get(label, 0) for label in AGE_LABELS}
    assert table["click rate"]["<1 h"] == 0.5
    assert table["click rate"]["8–16 h"] == 0.0
    assert np.isnan(table["click rate"][">30 d"])


def test_cold_start_by_hand(tiny):
    # before validation 1001 to 1007 were in view and 1001 to 1006 clicked; users 7, 8 and 9 were seen
    assert cold_start(tiny) == {
        "candidates never in view before": pytest.approx(7 / 11),
        "clicks on articles never in view before": pytest.approx(3 / 4),
        "clicks on articles never clicked before": 1.0,
        "impressions of users never seen before": 0.25,
    }


def test_seen_candidates_by_hand(tiny):
    # In view in train: 1001 to 1005. Tuning: 1005 and 1006, clicked 1006; 1004, 1006 and 1007.
    known = Vocabulary(np.unique(tiny.parts["train"].article_id))
    found = {part: list(seen_candidates(tiny, part, known).values()) for part in tiny.parts}
    # of candidates, of clicks, slates of nothing seen, slates of everything seen
    assert found["tuning"] == pytest.approx([2 / 5, 0, 0, 0])
    assert found["validation"] == pytest.approx([1 / 11, 0, 0.75, 0])
    assert found["train"] == [1, 1, 0, 1]
    assert seen_candidates(tiny, "train", Vocabulary(np.zeros(0, np.int32)))["candidates that training has seen"] == 0
