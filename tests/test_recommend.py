"""Recommendations at a moment: what is live, who is served, in what order and why."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import FAR_USER
from conftest import micros as at
from fits import make_model, recommend

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.features.build import build
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.features.registry import every_column
from ebnerd_lib.recommend import lists as listing
from ebnerd_lib.recommend import requests as rec
from ebnerd_lib.training.model_file import TrainedModel

UNKNOWN_USER = 123_456


def linear_model(data: Dataset, weights: dict[str, float], tier="clicks") -> TrainedModel:
    """Score = w · x on transformed features: a factorisation machine without factors."""
    model = make_model(data, "mf", "mf_features", tier)
    for parameter in model.network.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        for column, weight in weights.items():
            model.network.linear.weight[0, model.columns.index(column)] = weight
    return model


def candidates(requests: rec.Requests) -> list[list[int]]:
    """Raw ids of what each user may be recommended."""
    return [own.tolist() for own in np.split(requests.slates.article_id, requests.slates.offsets[1:-1])]


def log_scale(values: np.ndarray) -> np.ndarray:
    """What an unfitted transform makes of a column."""
    return np.clip(np.nan_to_num(np.sign(values) * np.log1p(np.abs(values))), -5, 5)


@pytest.fixture(scope="module")
def served(smoke) -> rec.Requests:
    """Five known users and one that nobody knows, at the end of the log."""
    time = rec.moment(smoke, "")
    users = np.append(rec.choose_users(smoke, [], 5, 0), np.uint32(UNKNOWN_USER))
    return rec.make_requests(smoke, users, time)


@pytest.fixture(scope="module")
def mlp(smoke) -> TrainedModel:
    return make_model(smoke, hidden=(8,), embedding_size=4)


def ids(data: Dataset, articles: np.ndarray) -> list[int]:
    return data.articles["article_id"].to_numpy()[articles].tolist()


# The moment.


def test_a_moment_is_what_was_asked_for_or_just_after_the_last_impression(tiny):
    assert rec.moment(tiny, "2023-05-26T10:00:00") == at("26T10:00") and rec.moment(tiny, "") == at("31T20:00") + 1
    assert rec.in_words(at("26T10:00")) == "2023-05-26 10:00:00"
    for text in ("2023-05-32", "2023-05-30T25:00"):
        with pytest.raises(ConfigError, match="time: "):
            rec.moment(tiny, text)


# What is live.


def test_nothing_is_live(tiny):
    with pytest.raises(ConfigError, match="time: at 2023-04-01 00:00:00 there is nothing"):
        rec.make_requests(tiny, np.uint32([UNKNOWN_USER]), at("01T00:00") - 30 * 24 * HOUR)


# Whom to serve.


def test_users_are_those_asked_for_or_sampled_from_validation_with_the_seed(smoke, tiny):
    drawn = rec.choose_users(smoke, [], 5, 0)
    assert len(set(drawn.tolist())) == 5
    assert set(drawn.tolist()) <= set(smoke.parts["validation"].user_id.tolist())
    assert drawn.tolist() == sorted(drawn.tolist()) == rec.choose_users(smoke, [], 5, 0).tolist()
    assert drawn.tolist() != rec.choose_users(smoke, [], 5, 1).tolist()
    users = rec.choose_users(tiny, [9, UNKNOWN_USER, 0, 2**32 - 1], 1, 0)
    assert users.tolist() == [9, UNKNOWN_USER, 0, 2**32 - 1]
    assert users.dtype == np.uint32
    assert rec.choose_users(tiny, [9, 7, 9], 1, 0).tolist() == [9, 7]
    assert rec.choose_users(tiny, [], 99, 0).tolist() == [7, 8, 9, FAR_USER], "no more than there are"


# Requests.


@pytest.fixture(scope="module")
def asked(tiny) -> rec.Requests:
    """26 May 10:00, the very moment of impression 202; live in the 48 hours before are 1004, 1006 and 1007."""
    users = np.array([9, 7, UNKNOWN_USER, 8, 4_000_000_000], dtype=np.uint32)
    requests = rec.make_requests(tiny, users, at("26T10:00"), 48.0)
    assert ids(tiny, requests.pool) == [1004, 1006, 1007]
    return requests


def test_candidates_are_the_pool_less_what_the_user_read(asked):
    assert dict(zip(asked.slates.user_id.tolist(), candidates(asked), strict=True)) == {
        9: [1006, 1007],  # read 1004 in the history
        7: [1004, 1006],  # clicked 1007 the day before
        UNKNOWN_USER: [1004, 1006, 1007],
        8: [1007],  # clicked 1004 and 1006
        4_000_000_000: [1004, 1006, 1007],  # its click of this very moment is not past
    }
    assert not asked.slates.clicked.any()


def test_requests_of_some_users_are_those_of_all(asked):
    some = asked.take(np.array([3, 0]))
    assert some.slates.user_id.tolist() == [8, 9]
    assert candidates(some) == [[1007], [1006, 1007]]
    np.testing.assert_array_equal(some.matrix, asked.matrix[[7, 0, 1]])


def test_requests_are_for_the_front_page_on_the_device_used_last(asked):
    slates = asked.slates
    assert slates.user.tolist() == [3, 1, 0, 2, 4]
    assert slates.device.tolist() == [3, 1, 2, 2, 2]
    assert slates.subscriber.tolist() == [False, False, False, True, False]
    assert slates.front_page.all()
    assert not slates.page.any()
    assert (slates.time == at("26T10:00")).all()
    assert (slates.session == -1).all()


def test_who_was_served(tiny, asked):
    assert rec.describe_users(tiny, asked).to_dict("list") == {
        "user_id": [9, 7, UNKNOWN_USER, 8, 4_000_000_000],
        "known": [True, True, False, True, True],
        "history clicks": [2, 3, 0, 0, 1],
        "impressions before": [1, 4, 0, 2, 0],
        "candidates": [2, 2, 3, 1, 3],
    }


def test_everything_read(tiny):
    validation = tiny.parts["validation"]
    all_clicked = replace(validation, clicked=np.ones_like(validation.clicked))
    data = replace(tiny, parts={**tiny.parts, "validation": all_clicked})  # 1010 and 1011 by user 8
    both, moment = np.array([7, 8], dtype=np.uint32), at("31T20:00") + 1
    assert rec.make_requests(data, np.append(both, rec.UNKNOWN_READER), moment, 1.0).slates.user_id.tolist() == [7, 0]
    with pytest.raises(ConfigError, match=r"user 8: nothing was in view .* not read"):
        rec.make_requests(data, both[1:], moment, 1.0)


@pytest.mark.parametrize("split", ["official", "quantile"])
def test_requests_meet_the_history_of_the_week_they_lie_in(smoke_bundle, split):
    data = datasets.prepare(open_bundle(smoke_bundle), split)[0]
    users = rec.choose_users(data, [], 3, 0)
    for text, week in (("23T12:00", 0), ("27T12:00", 1), ("31T12:00", 1)):
        slates = rec.make_requests(data, users, at(text)).slates
        assert slates.week.tolist() == [week] * 3, f"{text}, whose impressions have week {week}"


def test_features_of_requests_are_what_preprocessing_would_compute_of_the_pool_as_one_slate(smoke, served):
    np.testing.assert_array_equal(served.matrix, build(served.slates, feature_context(smoke)))
    assert (served.column("slate_length") == served.slates.per_candidate(served.slates.lengths)).all()


# Lists.


def test_lists_are_the_best_unread_k_of_every_user_in_order(smoke, served, mlp):
    lists = recommend(mlp, smoke, served, 7)
    scores = mlp.score(smoke, served.slates, served.matrix, served.columns)
    assert lists["user_id"].unique().tolist() == served.slates.user_id.tolist()
    for place, user in enumerate(served.slates.user_id.tolist()):
        own = lists[lists["user_id"] == user]
        assert own["rank"].tolist() == list(range(1, 8))
        there = slice(*served.slates.offsets[place : place + 2])
        of_article = dict(zip(served.slates.article_id[there].tolist(), scores[there].tolist(), strict=True))
        best = sorted(of_article, key=lambda article: (-of_article[article], article))[:7]
        assert own["article_id"].tolist() == best
        np.testing.assert_allclose(own["score"], [of_article[article] for article in best], rtol=1e-6)


def test_lists_do_not_depend_on_who_else_is_served(smoke, served, mlp):
    every = recommend(mlp, smoke, served, 5)
    for row in range(len(served)):
        alone = recommend(mlp, smoke, served.take(np.array([row])), 5)
        own = every[every["user_id"] == served.slates.user_id[row]].reset_index(drop=True)
        pd.testing.assert_frame_equal(alone.drop(columns="reasons"), own.drop(columns="reasons"), rtol=1e-5, atol=1e-6)


def test_a_model_trained_on_logged_slates_makes_no_lists(smoke, served):
    with pytest.raises(ConfigError, match="models: mlp learned from"):
        listing.score(make_model(smoke, trained_on="logged"), smoke, served)


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


def test_ties_are_in_order_of_the_article_and_lists_as_long_as_there_are_candidates(tiny, asked):
    lists = recommend(linear_model(tiny, {}), tiny, asked, 2)
    assert lists["article_id"].tolist() == [1006, 1007, 1004, 1006, 1004, 1006, 1007, 1004, 1006]
    assert lists["rank"].tolist() == [1, 2, 1, 2, 1, 2, 1, 1, 2]
    assert set(lists["reasons"]) == {"nothing in particular"}


def test_a_model_on_ids_alone_is_served_too(smoke, served):
    lists = recommend(make_model(smoke, "mf", "mf_ids", "ids", columns=[]), smoke, served, 3)
    assert len(lists) == 3 * len(served.slates)
    assert set(lists["reasons"]) == {"nothing in particular"}


# Reasons.


def test_effect_of_a_group_in_a_linear_model(tiny, asked):
    weights = {"clicks_48h": 2.0, "clicks_week": -1.0, "inviews_48h": 0.5, "age_hours": -0.25}
    effects = listing.group_effects(linear_model(tiny, weights), tiny, asked)
    assert set(effects.columns) == {column.group for column in every_column()}
    group_of = {column.name: column.group for column in every_column()}
    expected = pd.DataFrame(0.0, index=effects.index, columns=effects.columns)
    for name, weight in weights.items():
        raw, slates = asked.column(name), asked.slates
        mean = slates.per_candidate(np.add.reduceat(raw, slates.offsets[:-1]) / slates.lengths)
        expected[group_of[name]] += weight * (log_scale(raw) - log_scale(mean))
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
    changed[4:7, asked.columns.index("inviews_48h")] = [np.nan, 9.0, 3.0]  # of the unknown user
    model = linear_model(tiny, {"inviews_48h": 1.0})
    effects = listing.group_effects(model, tiny, replace(asked, matrix=changed))
    # the mean of the known ones is 6; the unknown is as good as the mean of training, which is 0 here
    expected = [0 - np.log1p(6.0), np.log1p(9.0) - np.log1p(6.0), np.log1p(3.0) - np.log1p(6.0)]
    np.testing.assert_allclose(effects["exposure"][4:7], expected, atol=1e-6)


# Causality.


@pytest.mark.parametrize("text", [None, "29T03:00"])
def test_events_from_the_moment_on_do_not_matter(smoke, mlp, text):
    """Neither those after it nor those of the very microsecond: by default, that of an impression with a click."""
    log = smoke.log
    time = at(text) if text else int(np.sort(smoke.parts["validation"].time)[1000])
    assert text or (log.time == time).any()

    def lists(data: Dataset) -> pd.DataFrame:
        users = np.append(users_then, np.uint32(UNKNOWN_USER))
        return recommend(mlp, data, rec.make_requests(data, users, time), 10)

    users_then = np.unique(log.user_id[log.time == time] if not text else log.user_id)[:20]
    past = replace(smoke, parts={name: part.take(part.time < time) for name, part in smoke.parts.items()})
    assert 0 < len(past.log) < len(log)
    pd.testing.assert_frame_equal(lists(past), lists(smoke), check_exact=True)


# Several models.


def test_overlap_by_hand():
    lists = {(9, "mf"): [1, 2, 3], (9, "mlp"): [3, 1, 4], (9, "other"): [9], (7, "mf"): [5, 6], (7, "mlp"): [7, 8]}
    rows = [(*whose, article) for whose, articles in lists.items() for article in articles]
    table = pd.DataFrame(rows, columns=["user_id", "model", "article_id"])
    assert listing.overlap(table).to_numpy().tolist() == [
        [7, "mf and mlp", 0, 2],
        [9, "mf and mlp", 2, 3],
        [9, "mf and other", 0, 3],
        [9, "mlp and other", 0, 3],
    ]
    alone = listing.overlap(table[table["model"] == "mf"])
    assert (len(alone), list(alone.columns)) == (0, ["user_id", "models", "shared", "of"])
