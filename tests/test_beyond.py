"""Beyond accuracy: formulas on values computed by hand, what must hold of any lists, and re-ranking by MMR."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import micros as at
from fits import make_model
from hypothesis import given, settings
from hypothesis import strategies as st

from ebnerd_lib import plots
from ebnerd_lib.evaluation import diversity as beyond
from ebnerd_lib.evaluation.diversity import ArticleSpace, article_space, category_vectors
from ebnerd_lib.recommend import lists
from ebnerd_lib.recommend import requests as rec
from ebnerd_lib.recommend.next_click import next_clicks
from ebnerd_lib.tables import with_intervals


def diversity_of(own: list[int], vectors: np.ndarray) -> float:
    """The formula as a loop over pairs."""
    known = [vectors[a].astype(float) / np.linalg.norm(vectors[a]) for a in own if a >= 0 and vectors[a].any()]
    pairs = [1 - x @ y for i, x in enumerate(known) for j, y in enumerate(known) if i != j]
    return float(np.mean(pairs)) if pairs else np.nan


@st.composite
def listed(draw):
    """Lists over articles with vectors of any length, some without, and lists that are shorter than others."""
    articles, size, users, k = (draw(st.integers(low, high)) for low, high in ((2, 9), (1, 4), (1, 4), (1, 6)))
    seed = draw(st.integers(0, 2**20))
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(articles, size)) * rng.integers(0, 3, (articles, 1))
    return rng.integers(-1, articles, (users, k)), vectors, rng


# Diversity.


@given(listed())
def test_diversity_is_that_of_the_pairs_and_lies_in_0_to_2_in_any_order(case):
    articles, vectors, rng = case
    values = beyond.intralist_diversity(articles, vectors)
    expected = [diversity_of(own, vectors) for own in articles.tolist()]
    np.testing.assert_allclose(values, np.clip(expected, 0, 2), atol=1e-9)
    assert ((values >= 0) & (values <= 2) | np.isnan(values)).all()
    mixed = rng.permuted(articles, axis=1)
    np.testing.assert_allclose(beyond.intralist_diversity(mixed, vectors), values, atol=1e-9)
    longer = vectors * rng.uniform(0.5, 9, (len(vectors), 1))
    np.testing.assert_allclose(beyond.intralist_diversity(articles, longer), values, atol=1e-9)


# Serendipity.


@given(listed(), st.integers(0, 8))
def test_serendipity_is_that_of_the_pairs_in_any_order(case, most):
    articles, vectors, rng = case
    lengths = rng.integers(0, most + 1, len(articles))
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    history = rng.integers(0, len(vectors), offsets[-1])
    values = beyond.serendipity(articles, offsets, history, vectors)
    mixed = beyond.serendipity(rng.permuted(articles, axis=1), offsets, history, vectors)
    np.testing.assert_allclose(mixed, values, atol=1e-9)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    for row, value in enumerate(values):
        own = [
            1 - unit[i] @ unit[j]
            for i in articles[row]
            for j in history[offsets[row] : offsets[row + 1]]
            if i >= 0 and vectors[i].any() and vectors[j].any()
        ]
        assert value == pytest.approx(np.mean(own), abs=1e-9) if own else np.isnan(value)


def test_a_long_history_is_summed_piece_by_piece():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 3))
    history = rng.integers(0, 50, 50_000)
    (value,) = beyond.serendipity(np.array([[1, 2]]), np.array([0, 50_000]), history, vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert value == pytest.approx(1 - (unit[[1, 2]] @ unit[history].T).mean(), abs=1e-9)


# Intervals.


def test_an_interval_is_as_wide_as_theory_has_it():
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)
    own = beyond.mean_interval("x", values)
    half = 1.96 * values.std() / 20
    assert own["x"] == pytest.approx(values.mean())
    assert own["x_ci"] == pytest.approx((own["x"] - half, own["x"] + half), abs=0.1 * half)
    assert own == beyond.mean_interval("x", values) != beyond.mean_interval("x", values, seed=1)


def test_intervals_are_written_beside_their_means():
    table = pd.DataFrame({"list": ["a", "b"], "x": [0.5, np.nan], "x_ci": [[0.4, 0.61], None], "x_users": [3, 0]})
    shown = with_intervals(table)
    assert list(shown.columns) == ["list", "x"]
    assert shown["x"].tolist() == ["0.500 [0.400, 0.610]", "–"]
    assert list(table.columns) == ["list", "x", "x_ci", "x_users"], "the table itself is as it was"


# The space.


def test_the_space_is_that_of_the_vectors_where_there_are_any(smoke):
    space = article_space(smoke)
    assert space.name == "article vectors"
    assert space.vectors is smoke.vectors
    known = space.vectors.any(axis=1)
    assert not known[0] and known.sum() > 0.9 * len(smoke.articles)


def test_without_vectors_the_space_is_of_categories_and_topics(tiny):
    assert tiny.vectors is None
    space = article_space(tiny)
    assert space.name == "categories and topics"
    place = {number: row for row, number in enumerate(tiny.articles["article_id"])}
    cosine = space.vectors @ space.vectors.T
    # all have the same two topics: the same category is 1, another one half, and 1005 has none
    assert cosine[place[1001], place[1003]] == pytest.approx(1.0)
    assert cosine[place[1001], place[1002]] == pytest.approx(0.5)
    assert cosine[place[1001], place[1005]] == pytest.approx(np.sqrt(0.5))
    assert not space.vectors[[0, place[1099]]].any(), "nothing is known of these"
    starts, none = np.zeros(len(tiny.articles) + 1, np.int64), np.empty(0, np.int32)
    without = category_vectors(replace(tiny.metadata, topic_starts=starts, topics=none))
    assert set(np.round(without @ without.T, 6).ravel().tolist()) == {0.0, 1.0}


# Re-ranking.

UNIT = np.array([[0, 0], [1, 0], [0.8, 0.6], [0, 1], [-1, 0]], dtype=np.float32)


def rerank(scores, article, offsets, vectors, k, weight):
    return lists.pick(SimpleNamespace(article=article, offsets=offsets), scores, ArticleSpace("", vectors), k, weight)


def mmr_by_loop(scores, article, vectors, k, weight):
    """The algorithm as the paper has it, for slates in which every article has a vector."""
    low, high = min(scores), max(scores)
    value = [(s - low) / (high - low) if high > low else 0.0 for s in scores]
    left, picked = list(range(len(scores))), []
    while left and len(picked) < k:

        def worth(c, picked=picked):
            similar = max((float(vectors[article[c]].astype(float) @ vectors[article[p]]) for p in picked), default=0.0)
            return ((1 - weight) * value[c] - weight * similar, scores[c], -c)

        best = max(left, key=worth)
        picked.append(best)
        left.remove(best)
    return picked


def test_an_article_without_a_vector_is_as_similar_as_the_mean_of_the_others():
    articles, slate = np.array([1, 2, 0, 3]), np.array([0, 4])  # to the first: .8, unknown and 0; the mean is .4
    # at .5: .3333 − .4, .3333 − .2 and 0; were the unknown taken for 1, it would be worth less than the last
    second = rerank(np.array([3.0, 2.0, 2.0, 0.0]), articles, slate, UNIT, 2, 0.5)
    assert second.tolist() == [[0, 2]]
    # at .5: .3333 − .4, .1667 − .2 and 0; were the unknown taken for 0, it would be worth more than the last
    second = rerank(np.array([3.0, 2.0, 1.0, 0.0]), articles, slate, UNIT, 2, 0.5)
    assert second.tolist() == [[0, 3]]
    alone = rerank(np.array([3.0, 1.0, 2.0]), np.array([0, 1, 2]), np.array([0, 3]), UNIT, 3, 0.5)
    assert alone.tolist() == [[0, 2, 1]], "nothing is known of the first, so the score decides"


@settings(max_examples=60, deadline=None)  # the first example compiles
@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(0, 2**20), st.sampled_from([0, 0.3, 0.5, 1]))
def test_reranking_against_the_algorithm_as_a_loop(lengths, seed, weight):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(9, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    scores = rng.integers(0, 5, offsets[-1]).astype(np.float32)  # with ties
    article = np.concatenate([rng.permutation(9)[:n] for n in lengths])
    order = rerank(scores, article, offsets, vectors, 4, weight)
    for row, (begin, end) in enumerate(pairwise(offsets)):
        own = slice(begin, end)
        expected = mmr_by_loop(scores[own].tolist(), article[own], vectors, 4, weight)
        assert order[row].tolist() == [begin + c for c in expected] + [-1] * (4 - len(expected))


@given(st.integers(0, 2**20))
def test_no_weight_of_diversity_is_the_order_of_the_scores(seed):
    rng = np.random.default_rng(seed)
    # scores so near each other that scaling could make them alike, and far ones
    scores = np.concatenate([[1e9], 1 + rng.integers(0, 4, 6) * np.finfo(np.float64).eps]).astype(np.float64)
    order = rerank(scores, np.zeros(7, int), np.array([0, 7]), UNIT, 7, 0.0)
    assert order[0].tolist() == np.lexsort((np.arange(7), -scores)).tolist()


# Lists of an audience.


@pytest.fixture(scope="module")
def served(smoke) -> rec.Requests:
    time, users = rec.moment(smoke, ""), rec.choose_users(smoke, [], 12, 0)
    return rec.make_requests(smoke, users, time)


@pytest.fixture(scope="module")
def scores(served) -> np.ndarray:
    return served.column("clicks_24h") + np.random.default_rng(0).normal(size=served.slates.candidates)


@pytest.fixture(scope="module")
def asked(tiny) -> rec.Requests:
    """26 May 10:00: of 1004, 1006 and 1007, user 9 has not read the last two, 8 only the last."""
    return rec.make_requests(tiny, np.array([9, 8, 123_456], np.uint32), at("26T10:00"), 48.0)


def test_rules_by_hand(tiny, asked):
    rules, space = lists.rules(asked, 0), article_space(tiny)
    tiers = {name: tier for name, (tier, _) in rules.items()}
    assert tiers == {"clicks_1h": "clicks", "newest": "content", "random": "ids"}
    first = {name: lists.pick(asked.slates, own, space, 1)[:, 0] for name, (_, own) in rules.items()}
    assert rules["clicks_1h"][1].tolist() == [0] * 6  # the click on 1007 is 27 hours ago
    assert asked.slates.article_id[first["clicks_1h"]].tolist() == [1006, 1007, 1004]
    assert asked.slates.article_id[first["newest"]].tolist() == [1007, 1007, 1007]


def test_beyond_table_by_hand(tiny, asked):
    space = article_space(tiny)
    newest = ("content", lists.pick(asked.slates, lists.rules(asked, 0)["newest"][1], space, 2))
    ids = [asked.slates.article_id[own[own >= 0]].tolist() for own in newest[1]]
    assert ids == [[1007, 1006], [1007], [1007, 1006]]
    row = lists.beyond_table(tiny, asked, {"newest": newest}, space, 0).iloc[0]
    assert (row["list"], row["tier"], row["coverage"], row["without_vector"]) == ("newest", "content", 2, 0)
    assert row["coverage_share"] == pytest.approx(2 / 3)
    # 1006 is of another category and has the same topics; the list of one article has no diversity
    assert (row["diversity"], row["diversity_users"]) == (pytest.approx(0.5), 2)
    assert row["serendipity_users"] == 2, "the unknown user has read nothing"
    # clicks of the train week: 1001 1002 1003 1004 1005 1006 one each, 14 articles with one added
    novelty = -np.log2([1 / 20, 2 / 20])
    assert row["novelty"] == pytest.approx(np.mean([novelty.mean(), novelty[0], novelty.mean()]))
    # of the seven days before: 1001, 1004, 1005, 1006 and 1007
    assert row["novelty_week"] == pytest.approx(-np.log2(2 / 19))
    assert row["unclicked"] == pytest.approx(3 / 5)
    blind = ArticleSpace("none", np.zeros_like(space.vectors))
    row = lists.beyond_table(tiny, asked, {"newest": newest}, blind, 0).iloc[0]
    assert row["without_vector"] == 5 and np.isnan(row["diversity"]) and row["diversity_ci"] is None


def test_distribution_by_hand(tiny, asked):
    own = ("ids", lists.pick(asked.slates, np.zeros(6), article_space(tiny), 2))
    ids = [asked.slates.article_id[row[row >= 0]].tolist() for row in own[1]]
    assert ids == [[1006, 1007], [1007], [1004, 1006]]
    table = lists.distribution_table(tiny, asked, {"any": own}, at("26T10:00"), 48.0)
    # in view: 1004 1006 1007 and 1006 1007, of the categories 457 118 142 and 118 142
    category = table[table["kind"] == "category"].set_index("value")
    assert category["shown"].to_dict() == {"category 118": 0.4, "category 142": 0.4, "category 457": 0.2}
    assert category["any"].to_dict() == {"category 118": 0.4, "category 142": 0.4, "category 457": 0.2}
    mood = table[table["kind"] == "sentiment"].set_index("value")
    # 1006 is neutral at .5 (.25 .5 .25), 1007 negative at 1 (1 0 0), nothing is known of 1004: twice each
    assert mood["shown"].to_dict() == {"negative": 0.625, "neutral": 0.25, "positive": 0.125}
    assert mood["any"].to_dict() == {"negative": 0.625, "neutral": 0.25, "positive": 0.125}


# What diversity costs.


def test_price_in_next_clicks(smoke):
    found = next_clicks(smoke, [make_model(smoke, hidden=(8,))], 80)
    table = lists.on_next_click(found, "mlp", article_space(smoke), 0)
    entry = found.entries()["mlp"]
    assert table["ndcg@10"][0] == pytest.approx(entry["ndcg@10"], abs=1e-12)
    assert table["ndcg@10_ci"][0] == pytest.approx(entry["ndcg@10_ci"], abs=1e-12)
    assert table["diversity"].is_monotonic_increasing and table["diversity"].iloc[-1] > table["diversity"][0] + 0.05
    # with nothing but diversity, the first stays the first: it is picked by its score
    scores, live = found.scores["mlp"], found.live
    order = lists.pick(live, scores, article_space(smoke), 10, 1.0)
    place = {int(where): rank for own in order.tolist() for rank, where in enumerate(own, 1)}
    ranks = [place.get(where, np.inf) for where in np.flatnonzero(live.clicked).tolist()]
    gain = np.where(np.array(ranks) <= 10, 1 / np.log2(np.array(ranks) + 1), 0)
    by_hand = np.bincount(found.request[found.reachable], gain, len(live)) / np.bincount(found.request)
    assert table["ndcg@10"].iloc[-1] == pytest.approx(by_hand.mean())


def test_price_on_live_lists(smoke, served, scores):
    table = lists.on_live(served, scores, article_space(smoke), 10, 0)
    assert table["kept"][0] == 1.0 and table["kept"].is_monotonic_decreasing
    assert table["score"].is_monotonic_decreasing and table["diversity"].is_monotonic_increasing
    assert table["score"].between(0, 1).all()
    left = [np.sort(own) for own in np.split(scores, served.slates.offsets[1:-1])]
    assert table["score"][0] == pytest.approx(np.mean([(own[-10:] - own[0]) / np.ptp(own) for own in left]))


def test_lists_shorter_than_k_have_a_price_too(tiny, asked):
    table = lists.on_live(asked, np.arange(6.0), article_space(tiny), 10, 0)
    # users 9, 8 and the unknown one have 2, 1 and 3 articles: 0 1, 0 (all alike) and 0 .5 1
    assert table["score"][0] == pytest.approx((0 + 1 + 0 + 0 + 0.5 + 1) / 6)
    assert (table["kept"] == 1.0).all()


# Plots.


def test_categories_beyond_the_most_shown_are_one():
    shares = np.arange(13, 0, -1) / 91
    table = pd.DataFrame({"kind": "category", "value": list("abcdefghijklm"), "shown": shares, "mlp": shares[::-1]})
    (axis,) = plots.category_shares(table).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [*"abcdefghijk", "2 others"]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([*shares[:11], 3 / 91])
    (dots,) = (line for line in axis.lines if line.get_label() == "mlp")
    assert dots.get_xdata()[-1] == pytest.approx(25 / 91)
