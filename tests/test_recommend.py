"""Recommendations at a moment: what is live, who is served, in what order and why."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR, candidate_rows
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation.diversity import article_space
from ebnerd_lib.features import store
from ebnerd_lib.features.build import build
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.features.registry import allowed, every_column
from ebnerd_lib.models.base import find_model
from ebnerd_lib.recommend import candidate_slates
from ebnerd_lib.recommend import lists as listing
from ebnerd_lib.recommend import requests as rec
from ebnerd_lib.training.model_file import TrainedModel

UNKNOWN_USER = 123_456
LOST_ARTICLE = 1099  # not in the table


def make_model(data: Dataset, module="mlp", name="mlp", tier="clicks", columns=None, **layers) -> TrainedModel:
    """A model with random weights and the vocabularies of the train part."""
    torch.manual_seed(0)
    columns = allowed(tier) if columns is None else columns
    train = data.parts["train"]
    users, articles = Vocabulary(train.user_id), Vocabulary(train.article_id)
    network = find_model(module, name)(columns=len(columns), users=len(users), articles=len(articles), **layers)
    return TrainedModel(name, module, tier, network.eval(), columns, users, articles)


def linear_model(data: Dataset, weights: dict[str, float], tier="clicks") -> TrainedModel:
    """Score = w · x on transformed features: a factorisation machine without factors."""
    model = make_model(data, "mf", "mf_features", tier)
    for parameter in model.network.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        for column, weight in weights.items():
            model.network.linear.weight[0, model.columns.index(column)] = weight
    return model


def slates_of(data: Dataset, requests: rec.Requests, exposure: bool = True) -> candidate_slates.CandidateSlates:
    return candidate_slates.sample_slates(
        requests, candidate_slates.typical_length(data.parts["train"]), 2, exposure, 0
    )


def recommend(model: TrainedModel, data: Dataset, requests: rec.Requests, k: int, diversity=0.0) -> pd.DataFrame:
    """Score, pick and describe, as the notebook does."""
    slates = slates_of(data, requests, model.tier in ("exposure", "clicks"))
    scores = candidate_slates.score_live([model], data, requests, slates)[model.name]
    picked = listing.pick(requests, scores, article_space(data), k, diversity)
    return listing.recommend(model, data, requests, slates, scores, picked)


def unread(requests: rec.Requests) -> list[list[int]]:
    """Raw ids of what each user may be recommended."""
    grid, ids = (values.reshape(len(requests), -1) for values in (requests.unread, requests.slates.article_id))
    return [own[left].tolist() for own, left in zip(ids, grid, strict=True)]


def log_scale(values: np.ndarray) -> np.ndarray:
    """What an unfitted transform makes of a column."""
    return np.clip(np.nan_to_num(np.sign(values) * np.log1p(np.abs(values))), -5, 5)


@pytest.fixture(scope="module")
def smoke_train(smoke_features) -> store.Features:
    return store.read(smoke_features, "train")


@pytest.fixture(scope="module")
def served(smoke) -> rec.Requests:
    """Five known users and one that nobody knows, at the end of the log."""
    time = rec.moment(smoke, "")
    users = np.append(rec.choose_users(smoke, [], 5, 0), np.uint32(UNKNOWN_USER))
    return rec.make_requests(smoke, users, time, rec.live_articles(smoke, time, 24.0, True))


@pytest.fixture(scope="module")
def mlp(smoke) -> TrainedModel:
    return make_model(smoke, hidden=(8,), embedding_size=4)


def ids(data: Dataset, articles: np.ndarray) -> list[int]:
    return data.articles["article_id"].to_numpy()[articles].tolist()


def at(text: str, more: int = 0) -> int:
    return int(np.datetime64(f"2023-05-{text}", "us").astype(np.int64)) + more


# The moment.


def test_moment(tiny):
    assert rec.moment(tiny, "2023-05-26T10:00:00") == at("26T10:00")
    assert rec.in_words(at("26T10:00")) == "2023-05-26 10:00:00"


def test_no_time_is_just_after_the_last_impression(tiny):
    assert rec.moment(tiny, "") == at("31T20:00", 1)


@pytest.mark.parametrize("text", ["2023-05-32", "2023-05-30T25:00"])
def test_a_day_or_an_hour_that_there_is_not(tiny, text):
    with pytest.raises(ConfigError, match="time: "):
        rec.moment(tiny, text)


# What is live.


@pytest.mark.parametrize(
    ("time", "hours", "live"),
    [
        (at("25T07:00"), 24, [1004, 1005, 1006, 1007]),  # 105 at its first moment counts, 201 at t does not
        (at("25T07:00", 1), 24, [1004, 1006, 1007]),  # now 201 counts and 105 no more
        (at("18T08:00", 1), 0.5, [1001, 1002, 1003]),
        (at("31T21:00"), 24 * 4, [1002, 1008, 1009, 1010, 1011]),
        (at("27T00:00"), 24, [1007, 1008, 1099]),  # 1099 is not in the table
    ],
)
def test_live_is_what_was_in_view(tiny, time, hours, live):
    assert ids(tiny, rec.live_articles(tiny, time, hours, True)) == live


@pytest.mark.parametrize(
    ("time", "hours", "live"),
    [
        (at("20T11:30"), 24, [1005]),  # 1004 comes out at t
        (at("20T11:30", 1), 24, [1004, 1005]),
        (at("21T00:00"), 24, [1004, 1005]),  # 1005 at its last moment
        (at("21T00:00", 1), 24, [1004]),
        (at("31T13:00"), 72, [1009, 1010, 1011]),
        (at("31T13:00"), 24 * 31, [*range(1001, 1008), 1009, 1010, 1011, 1012]),  # nobody knows when 1008 came out
    ],
)
def test_without_exposure_live_is_what_was_published(tiny, time, hours, live):
    assert ids(tiny, rec.live_articles(tiny, time, hours, False)) == live


@pytest.mark.parametrize("exposure", [True, False])
def test_nothing_is_live(tiny, exposure):
    with pytest.raises(ConfigError, match="time: no article is live at 2023-04-01 00:00:00"):
        rec.live_articles(tiny, at("01T00:00") - 30 * 24 * HOUR, 24.0, exposure)


# Whom to serve.


def test_users_are_sampled_from_validation_with_the_seed(smoke):
    drawn = rec.choose_users(smoke, [], 5, 0)
    assert len(set(drawn.tolist())) == 5
    assert set(drawn.tolist()) <= set(smoke.parts["validation"].user_id.tolist())
    assert drawn.tolist() == sorted(drawn.tolist()) == rec.choose_users(smoke, [], 5, 0).tolist()
    assert drawn.tolist() != rec.choose_users(smoke, [], 5, 1).tolist()


def test_users_asked_for_are_served_once_known_or_not(tiny, by_hand):
    users = rec.choose_users(tiny, [9, UNKNOWN_USER, 0, 2**32 - 1], 1, 0)
    assert users.tolist() == [9, UNKNOWN_USER, 0, 2**32 - 1]
    assert users.dtype == np.uint32
    assert rec.choose_users(tiny, [9, 7, 9], 1, 0).tolist() == [9, 7]
    assert rec.choose_users(tiny, [], 99, 0).tolist() == [7, 8, 9, by_hand.far_user], "no more than there are"


# Requests.


@pytest.fixture(scope="module")
def asked(tiny) -> rec.Requests:
    """26 May 10:00, the very moment of impression 202; live in the 48 hours before are 1004, 1006 and 1007."""
    pool = rec.live_articles(tiny, at("26T10:00"), 48.0, True)
    assert ids(tiny, pool) == [1004, 1006, 1007]
    users = np.array([9, 7, UNKNOWN_USER, 8, 4_000_000_000], dtype=np.uint32)
    return rec.make_requests(tiny, users, at("26T10:00"), pool)


def test_candidates_are_the_pool_less_what_the_user_read(asked):
    assert dict(zip(asked.slates.user_id.tolist(), unread(asked), strict=True)) == {
        9: [1006, 1007],  # read 1004 in the history
        7: [1004, 1006],  # clicked 1007 the day before
        UNKNOWN_USER: [1004, 1006, 1007],
        8: [1007],  # clicked 1004 and 1006
        4_000_000_000: [1004, 1006, 1007],  # its click of this very moment is not past
    }
    assert not asked.slates.clicked.any()


def test_what_users_have_read_is_kept_for_comparison(tiny, asked):
    read = np.split(ids(tiny, asked.read), asked.read_offsets[1:-1])
    assert [own.tolist() for own in read] == [
        [1004, 1005],  # both in the history and in the log
        [1002, 1003, 1007, LOST_ARTICLE],
        [],
        [1001, 1004, 1006],
        [1012],
    ]


def test_requests_of_some_users_are_those_of_all(tiny, asked):
    some = asked.take(np.array([3, 0]))
    assert some.slates.user_id.tolist() == [8, 9]
    assert unread(some) == [[1007], [1006, 1007]]
    assert ids(tiny, some.read) == [1001, 1004, 1006, 1004, 1005]
    assert some.read_offsets.tolist() == [0, 3, 5]
    np.testing.assert_array_equal(some.matrix, asked.matrix[[9, 10, 11, 0, 1, 2]])


def test_requests_are_for_the_front_page_on_the_device_used_last(asked):
    slates = asked.slates
    assert slates.user.tolist() == [3, 1, 0, 2, 4]
    assert slates.device.tolist() == [3, 1, 2, 2, 2]
    assert slates.subscriber.tolist() == [False, False, False, True, False]
    assert slates.front_page.all()
    assert not slates.page.any()
    assert (slates.time == at("26T10:00")).all()
    assert (slates.session == -1).all()


def test_features_of_requests_by_hand(asked):
    third = slice(*asked.slates.offsets[2:4])  # the unknown user: 1004, 1006, 1007
    value = {name: asked.matrix[third, place].tolist() for place, name in enumerate(asked.columns)}
    assert value["inviews_48h"] == [1, 2, 2]
    assert value["clicks_48h"] == [0, 0, 1]
    assert value["clicks_week"] == [1, 1, 1]
    assert value["age_hours"] == [142.5, 53.0, 28.0]
    assert value["user_impressions"] == value["history_length"] == [0, 0, 0]


def test_who_was_served(tiny, asked):
    assert rec.describe_users(tiny, asked).to_dict("list") == {
        "user_id": [9, 7, UNKNOWN_USER, 8, 4_000_000_000],
        "known": [True, True, False, True, True],
        "history clicks": [2, 3, 0, 0, 1],
        "impressions before": [1, 4, 0, 2, 0],
        "candidates": [2, 2, 3, 1, 3],
    }


def test_everything_read(tiny):
    pool = np.flatnonzero(tiny.articles["article_id"].isin([1004, 1006]))
    users = np.array([7, 8], dtype=np.uint32)
    with pytest.raises(ConfigError, match=r"user_ids: users \[8\] have read every live article\. Choose other users"):
        rec.make_requests(tiny, users, at("26T10:00"), pool)


@pytest.mark.parametrize(
    ("time", "left"),
    [
        # 7 has read 1001 and 1002, 8 has read 1003; what 9 read on the 24th is not past
        (at("18T07:30"), [[1003, 1005], [1001, 1002, 1005], [1001, 1002, 1003, 1005]]),
        # of its history 7 has read 1001 only so far, 8 nothing: it reads 1003 at that moment
        (at("11T08:00"), [[1002, 1003, 1005], [1001, 1002, 1003, 1005], [1001, 1002, 1003, 1005]]),
    ],
)
def test_before_validation_the_history_of_the_train_week_counts(tiny, time, left):
    pool = np.flatnonzero(tiny.articles["article_id"].isin([1001, 1002, 1003, 1005]))
    users = np.array([7, 8, 9], dtype=np.uint32)
    requests = rec.make_requests(tiny, users, time, pool)
    assert requests.slates.week.tolist() == [0, 0, 0]
    assert unread(requests) == left


@pytest.mark.parametrize("split", ["official", "quantile"])
def test_requests_meet_the_history_of_the_week_they_lie_in(smoke_bundle, split):
    data = datasets.prepare(open_bundle(smoke_bundle), split)[0]
    users = rec.choose_users(data, [], 3, 0)
    for text, week in (("23T12:00", 0), ("27T12:00", 1), ("31T12:00", 1)):
        pool = rec.live_articles(data, at(text), 24.0, True)
        slates = rec.make_requests(data, users, at(text), pool).slates
        assert slates.week.tolist() == [week] * 3, f"{text}, whose impressions have week {week}"


def test_read_articles_are_left_out_against_a_loop(smoke):
    time = at("28T18:00")
    pool = rec.live_articles(smoke, time, 48.0, True)
    users = np.unique(smoke.parts["validation"].user_id)
    requests = rec.make_requests(smoke, users, time, pool)
    candidates = unread(requests)
    user_rows = {number: row for row, number in enumerate(smoke.users["user_id"].tolist())}
    left_out = 0
    for place, user in enumerate(users.tolist()):
        history = smoke.histories[1]
        own = slice(*history.offsets[user_rows[user] : user_rows[user] + 2])
        read = set(history.article[own].tolist())
        for part in smoke.parts.values():
            for row in np.flatnonzero((part.user_id == user) & (part.time < time)):
                shown = slice(part.offsets[row], part.offsets[row + 1])
                read |= set(part.article[shown][part.clicked[shown]].tolist())
        expected = [article for article in pool.tolist() if article not in read]
        assert candidates[place] == ids(smoke, np.array(expected, dtype=int))
        own = slice(*requests.read_offsets[place : place + 2])
        assert requests.read[own].tolist() == sorted(read - {0})
        left_out += len(pool) - len(expected)
    assert left_out > 0, "the test would say nothing if nobody had read a live article"


# Candidate slates.


def test_typical_length_is_that_of_the_median_candidate(tiny):
    # the slates of training have 2, 3, 4 and 2 candidates: 2 2 2 2 3 3 3 4 4 4 4
    assert sorted(tiny.parts["train"].lengths.tolist()) == [2, 2, 3, 4]
    assert candidate_slates.typical_length(tiny.parts["train"]) == 3


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_typical_length_against_a_loop(lengths):
    slates = SimpleNamespace(lengths=np.array(lengths))
    assert candidate_slates.typical_length(slates) == int(
        np.quantile(np.repeat(lengths, lengths), 0.5, method="inverted_cdf")
    )


def test_every_live_article_is_evaluated_once_a_draw_in_slates_of_one_length(smoke, served):
    slates = candidate_slates.sample_slates(served, 12, 3, True, 0)
    assert set(np.diff(slates.offsets).tolist()) == {12}
    assert np.bincount(slates.place[slates.evaluated], minlength=len(served.pool)).tolist() == [3] * len(served.pool)
    rows = slates.place.reshape(-1, 12)
    assert (np.diff(rows, axis=1) > 0).all(), "no article stands twice in a slate"
    assert slates.evaluated.reshape(-1, 12).sum(axis=1).max() == 4


def test_competitors_come_in_proportion_to_their_time_in_view(served):
    slates = candidate_slates.sample_slates(served, 12, 8, True, 0)
    weight = served.column("inviews_decay_1h")[0]
    often = np.bincount(slates.place[~slates.evaluated], minlength=len(weight))
    third = len(weight) // 3
    rarest, most = np.argsort(weight)[:third], np.argsort(-weight)[:third]
    assert often[most].sum() > 10 * often[rarest].sum()
    alike = candidate_slates.sample_slates(served, 12, 8, False, 0)
    often = np.bincount(alike.place[~alike.evaluated], minlength=len(weight))
    assert often[most].sum() == pytest.approx(often[rarest].sum(), rel=0.1)


def test_slates_repeat_by_seed(served):
    one, again, other = (candidate_slates.sample_slates(served, 12, 2, True, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.place, again.place)
    assert (one.place != other.place).any()


def test_articles_that_nobody_sees_fill_up_where_others_run_out(asked):
    blind = replace(asked, matrix=np.where(np.array(asked.columns) == "inviews_decay_1h", 0.0, asked.matrix))
    slates = candidate_slates.sample_slates(blind, 2, 1, True, 0)
    assert sorted(slates.place[slates.evaluated].tolist()) == [0, 1, 2]
    assert len(slates.place) == 6


def test_a_pool_no_longer_than_a_slate_is_one_slate(asked):
    slates = candidate_slates.sample_slates(asked, 3, 5, True, 0)
    assert (slates.place.tolist(), slates.offsets.tolist(), slates.draws) == ([0, 1, 2], [0, 3], 1)
    assert slates.evaluated.all()


def within_slate_columns() -> list[str]:
    return [c.name for c in every_column() if c.name.endswith(("_rank", "_ratio"))] + ["slate_length"]


def test_columns_of_the_slate_lie_in_the_range_of_training(smoke, smoke_train, served):
    """In the pool taken as one slate they do not, which is why it is cut."""
    slates = slates_of(smoke, served)
    field = next(candidate_slates.fields(smoke, served, slates))
    beyond_in_pool = 0
    for name in within_slate_columns():
        trained, place = smoke_train.column(name), served.columns.index(name)
        low, high = np.nanmin(trained), np.nanmax(trained)
        own = field.matrix[:, place]
        assert ((own < low) | (own > high)).mean() < 0.002, name
        extreme = np.nanquantile(trained, 0.99)
        assert (own[field.evaluated] > extreme).mean() < 0.06, name
        pool = served.matrix[:, place]
        beyond_in_pool += (pool > high).any()
    assert set(field.matrix[:, served.columns.index("slate_length")]) == {slates.length}
    assert beyond_in_pool > 5


def test_columns_of_the_slate_are_what_preprocessing_would_compute(smoke, served):
    field = next(candidate_slates.fields(smoke, served, slates_of(smoke, served)))
    rows = np.arange(0, len(field.slates), 50)
    some = field.slates.take(rows)
    expected = np.empty((some.candidates, len(served.columns)), np.float32)
    build(some, feature_context(smoke), expected)
    np.testing.assert_array_equal(field.matrix[candidate_rows(field.slates.offsets, rows)], expected)


def test_score_of_a_live_article_is_the_mean_over_its_slates(smoke, served, mlp):
    slates = candidate_slates.sample_slates(served, 12, 3, True, 0)
    field = next(candidate_slates.fields(smoke, served, slates, chunk=10**9))
    scores = mlp.score(smoke, field.slates, field.matrix, served.columns)
    live = candidate_slates.score_live([mlp], smoke, served, slates)["mlp"].ravel()
    for row in (0, 17, served.slates.candidates - 1):
        own = scores[field.evaluated & (field.where == row)]
        assert len(own) == 3
        assert live[row] == pytest.approx(own.astype(np.float64).mean(), rel=1e-6)


def test_scores_do_not_depend_on_who_else_is_served(smoke, served, mlp):
    slates = slates_of(smoke, served)
    every = candidate_slates.score_live([mlp], smoke, served, slates)["mlp"]
    for row in range(len(served)):
        alone = served.take(np.array([row]))
        own = candidate_slates.score_live([mlp], smoke, alone, slates_of(smoke, alone))["mlp"]
        np.testing.assert_allclose(own[0], every[row], rtol=1e-5, atol=1e-6)


def test_columns_compare_with_training_as_the_notebook_shows_them(smoke, smoke_train, served):
    table = candidate_slates.compare_with_training(smoke_train, smoke, served, slates_of(smoke, served)).set_index(
        "column"
    )
    assert table.loc["slate_length", "pool"] == len(served.pool)
    assert table.loc["slate_length", "slates"] == candidate_slates.typical_length(smoke.parts["train"])
    assert (table["outside"] == 0).all()
    assert table.loc["inviews_24h_ratio", "pool"] > 2 * table.loc["inviews_24h_ratio", "slates"]


# Lists.


def test_lists_are_the_best_unread_k_of_every_user_in_order(smoke, served, mlp):
    lists = recommend(mlp, smoke, served, 7)
    scores = candidate_slates.score_live([mlp], smoke, served, slates_of(smoke, served))["mlp"]
    assert lists["user_id"].unique().tolist() == served.slates.user_id.tolist()
    for place, user in enumerate(served.slates.user_id.tolist()):
        own = lists[lists["user_id"] == user]
        assert own["rank"].tolist() == list(range(1, 8))
        of_article = dict(zip(served.slates.article_id[: len(served.pool)].tolist(), scores[place], strict=True))
        best = sorted(unread(served)[place], key=lambda article: (-of_article[article], article))[:7]
        assert own["article_id"].tolist() == best
        assert own["score"].tolist() == [of_article[article] for article in best]


def test_what_lists_say_of_their_articles(smoke, served, mlp):
    lists = recommend(mlp, smoke, served, 3)
    assert list(lists.columns) == [
        "user_id", "model", "tier", "rank", "article_id", "title", "category", "age_hours", "score", "reasons",
    ]  # fmt: skip
    assert set(lists["model"]) == {"mlp"}
    assert set(lists["tier"]) == {"clicks"}
    table = smoke.articles.set_index("article_id").loc[lists["article_id"]]
    assert lists["title"].tolist() == table["title"].tolist()
    assert lists["category"].tolist() == table["category_str"].tolist()
    ages = (np.datetime64(int(served.slates.time[0]), "us") - table["published_time"].to_numpy()) / np.timedelta64(
        1, "h"
    )
    np.testing.assert_allclose(lists["age_hours"], ages, rtol=1e-5)


def test_fewer_candidates_than_k(tiny, asked):
    lists = recommend(make_model(tiny), tiny, asked, 10)
    assert lists.groupby("user_id", sort=False)["rank"].apply(list).to_dict() == {
        9: [1, 2], 7: [1, 2], UNKNOWN_USER: [1, 2, 3], 8: [1], 4_000_000_000: [1, 2, 3],
    }  # fmt: skip


def test_ties_are_in_order_of_the_article(tiny, asked):
    lists = recommend(linear_model(tiny, {}), tiny, asked, 2)
    assert lists["article_id"].tolist() == [1006, 1007, 1004, 1006, 1004, 1006, 1007, 1004, 1006]
    assert set(lists["reasons"]) == {"nothing in particular"}


def test_a_content_model_serves_what_was_published(smoke):
    time = at("30T12:00")
    pool = rec.live_articles(smoke, time, 24.0, False)
    published = smoke.articles["published_time"]
    since, until = np.datetime64("2023-05-29T12:00"), np.datetime64("2023-05-30T12:00")
    assert pool.tolist() == np.flatnonzero((published >= since) & (published < until)).tolist()
    model = make_model(smoke, tier="content", hidden=(8,))
    requests = rec.make_requests(smoke, rec.choose_users(smoke, [], 3, 0), time, pool)
    lists = recommend(model, smoke, requests, 4)
    assert lists["article_id"].isin(smoke.articles["article_id"][pool]).all()
    assert lists["age_hours"].between(0, 24).all()
    assert set(lists["tier"]) == {"content"}


def test_a_model_on_ids_alone_is_served_too(smoke, served):
    lists = recommend(make_model(smoke, "mf", "mf_ids", "ids", columns=[]), smoke, served, 3)
    assert len(lists) == 3 * len(served.slates)
    assert set(lists["reasons"]) == {"nothing in particular"}


# Reasons.


def test_reasons_name_groups_that_raise_the_score_largest_first(smoke, served, mlp):
    groups = {column.group for column in every_column()}
    reasons = recommend(mlp, smoke, served, 5)["reasons"]
    assert (reasons != "nothing in particular").any()
    for text in reasons[reasons != "nothing in particular"]:
        named = [part.rsplit(" ", 1) for part in text.split(", ")]
        assert {name for name, _ in named} <= groups
        assert 1 <= len(named) <= 3
        sizes = [float(size) for _, size in named]
        assert sizes == sorted(sizes, reverse=True)
        assert min(sizes) > 0


def test_effect_of_a_group_in_a_linear_model(tiny, asked):
    weights = {"clicks_48h": 2.0, "clicks_week": -1.0, "inviews_48h": 0.5, "age_hours": -0.25}
    effects = candidate_slates.group_effects(linear_model(tiny, weights), tiny, asked, slates_of(tiny, asked))
    assert set(effects.columns) == {column.group for column in every_column()}
    group_of = {column.name: column.group for column in every_column()}
    expected = pd.DataFrame(0.0, index=effects.index, columns=effects.columns)
    for name, weight in weights.items():
        raw = asked.column(name)  # the pool of three is one slate
        effect = weight * (log_scale(raw) - log_scale(raw.mean(axis=1, keepdims=True)))
        expected[group_of[name]] += effect.ravel()
    assert (expected.abs().max() > 0.05).sum() == 3, "the three groups make a difference"
    np.testing.assert_allclose(effects, expected, atol=1e-5)


def test_reason_of_a_linear_model_in_words(tiny, asked):
    # of 1004, 1006 and 1007 for the unknown user only 1007 was clicked in the 48 hours: 0, 0, 1, the mean 1/3
    lists = recommend(linear_model(tiny, {"clicks_48h": 1.0}), tiny, asked, 3)
    own = lists[lists["user_id"] == UNKNOWN_USER]
    assert own["article_id"].tolist() == [1007, 1004, 1006]
    effect = np.log(2) - np.log(4 / 3)
    assert own["reasons"].tolist() == [f"clicks {effect:+.2f}", "nothing in particular", "nothing in particular"]


def test_unknown_values_are_left_out_of_the_mean(tiny, asked):
    changed = asked.matrix.copy()
    changed[3:6, asked.columns.index("inviews_48h")] = [np.nan, 9.0, 3.0]  # of user 7
    model = linear_model(tiny, {"inviews_48h": 1.0})
    effects = candidate_slates.group_effects(model, tiny, replace(asked, matrix=changed), slates_of(tiny, asked))
    # the mean of the known ones is 6; the unknown is as good as the mean of training, which is 0 here
    expected = [0 - np.log1p(6.0), np.log1p(9.0) - np.log1p(6.0), np.log1p(3.0) - np.log1p(6.0)]
    np.testing.assert_allclose(effects["exposure"][3:6], expected, atol=1e-6)


# Causality.


@pytest.mark.parametrize("text", [None, "29T03:00"])
def test_events_from_the_moment_on_do_not_matter(smoke, mlp, text):
    """Neither those after it nor those of the very microsecond: by default, that of an impression with a click."""
    log = smoke.log
    time = at(text) if text else int(np.sort(smoke.parts["validation"].time)[1000])
    assert text or (log.time == time).any()

    def lists(data: Dataset) -> pd.DataFrame:
        pool = rec.live_articles(data, time, 24.0, True)
        users = np.append(users_then, np.uint32(UNKNOWN_USER))
        return recommend(mlp, data, rec.make_requests(data, users, time, pool), 10)

    users_then = np.unique(log.user_id[log.time == time] if not text else log.user_id)[:20]
    past = replace(smoke, parts={name: part.take(part.time < time) for name, part in smoke.parts.items()})
    assert 0 < len(past.log) < len(log)
    pd.testing.assert_frame_equal(lists(past), lists(smoke), check_exact=True)


# Several models.


def some_lists(*rows: tuple[int, str, list[int]]) -> list[pd.DataFrame]:
    return [
        pd.DataFrame(
            {
                "user_id": user,
                "model": model,
                "rank": range(1, len(articles) + 1),
                "article_id": articles,
                "score": [float(len(articles) - place) for place in range(len(articles))],
            }
        )
        for user, model, articles in rows
    ]


def test_join_sorts_by_user_and_keeps_models_and_ranks():
    one = pd.concat(some_lists((9, "b", [1, 2]), (7, "b", [3, 4])))
    other = pd.concat(some_lists((9, "a", [5, 6]), (7, "a", [7, 8])))
    joined = listing.join_lists([one, other])
    assert joined[["user_id", "model", "rank"]].to_numpy().tolist() == [
        [7, "b", 1], [7, "b", 2], [7, "a", 1], [7, "a", 2], [9, "b", 1], [9, "b", 2], [9, "a", 1], [9, "a", 2],
    ]  # fmt: skip
    assert joined.index.tolist() == list(range(8))


def test_overlap_by_hand():
    lists = pd.concat(
        some_lists(
            (9, "mf", [1, 2, 3]), (9, "mlp", [3, 1, 4]), (9, "other", [9]), (7, "mf", [5, 6]), (7, "mlp", [7, 8]),
        )
    )  # fmt: skip
    assert listing.overlap(lists).to_numpy().tolist() == [
        [7, "mf and mlp", 0, 2],
        [9, "mf and mlp", 2, 3],
        [9, "mf and other", 0, 3],
        [9, "mlp and other", 0, 3],
    ]


def test_one_model_overlaps_with_none():
    table = listing.overlap(pd.concat(some_lists((7, "mf", [1, 2]))))
    assert (len(table), list(table.columns)) == (0, ["user_id", "models", "shared", "of"])


def test_mean_score_by_rank_by_hand():
    lists = pd.concat(some_lists((7, "mf", [1, 2, 3]), (9, "mf", [1, 2]), (7, "mlp", [4])))
    # above the last: 2, 1, 0 for user 7 and 1, 0 for user 9
    assert listing.mean_score_by_rank(lists, "mf").tolist() == [1.5, 0.5, 0.0]
    assert listing.mean_score_by_rank(lists, "mlp").tolist() == [0.0]
