"""Pools of live articles, samples of them to train on, and the rank of the next click."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import LOST_ARTICLE
from fits import make_model
from test_recommend import ids, linear_model

from ebnerd_lib.configs import Pools
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR, Slates
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.features.build import build, halves
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.features.live import pools, read_before, sample_clicked, training_pools
from ebnerd_lib.features.registry import allowed
from ebnerd_lib.models.base import Batch, slate_ndcg
from ebnerd_lib.models.mlp import MLP
from ebnerd_lib.pipeline.params import base_config, load_profile, with_values
from ebnerd_lib.recommend.next_click import RULES, NextClicks, click_ranks, next_click_table, next_clicks
from ebnerd_lib.training.inputs import TrainingInputs
from ebnerd_lib.training.lightning import SlateData

EVERY = 10**9
FEW = Pools(impressions=80, evenly=5, by_views=4, tuning_impressions=20)


def features_of(data: Dataset, slates: Slates) -> np.ndarray:
    return build(slates, feature_context(data))


def per_slate(slates: Slates, values: np.ndarray) -> list[list[int]]:
    return [own.tolist() for own in np.split(values, slates.offsets[1:-1])]


def before(data: Dataset, time: int) -> Dataset:
    return replace(data, parts={name: part.take(part.time < time) for name, part in data.parts.items()})


@pytest.fixture(scope="module")
def sample(smoke) -> Slates:
    validation = smoke.parts["validation"]
    return validation.take(sample_clicked(validation, 60, 0))


@pytest.fixture(scope="module")
def learned_from(smoke):
    """Samples of 5 even and 4 viewed ones, and whole pools of the tuning day."""
    return training_pools(smoke, allowed("exposure"), FEW)


# Pools.


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        # 105, a day before 201, counts at its very moment; 104, a minute earlier, and 202 itself at its own do not
        (24, [[1004, 1005, 1006, 1007], [], [], []]),
        (72, [[1004, 1005, 1006, 1007], [1004, 1005, 1006, 1007], [1007, 1008, 1099], [1002, 1008, 1009, 1010]]),
    ],
)
def test_pools_by_hand(tiny, hours, expected):
    live = pools(tiny, tiny.parts["validation"], hours)
    assert per_slate(live, live.article_id) == expected
    assert live.article_id[live.clicked].tolist() == ([1007] if hours == 24 else [1007, 1010])
    assert live.impression_id.tolist() == [201, 202, 203, 204]


def read_by_loop(data: Dataset, request: Slates) -> set[int]:
    """What one request's user read before it."""
    user, time = int(request.user[0]), int(request.time[0])
    history, log = data.histories[int(request.week[0])], data.log
    own = slice(*history.offsets[user : user + 2])
    read = set(history.article[own][history.time[own] < time].tolist())
    for row in np.flatnonzero((log.user == user) & (log.time < time)):
        shown = slice(*log.offsets[row : row + 2])
        read |= set(log.article[shown][log.clicked[shown]].tolist())
    return read - {0}


def test_pools_are_what_was_in_view_less_what_was_read_against_a_loop(smoke, sample):
    live, (offsets, read), left_out = pools(smoke, sample, 12.0), read_before(feature_context(smoke), sample), 0
    log = smoke.log
    for row, (articles, clicked) in enumerate(
        zip(per_slate(live, live.article), per_slate(live, live.clicked), strict=True)
    ):
        one, time = sample.between(row, row + 1), int(sample.time[row])
        shown = log.article[log.per_candidate((log.time >= time - 12 * HOUR) & (log.time < time))]
        known = read_by_loop(smoke, one)
        assert read[offsets[row] : offsets[row + 1]].tolist() == sorted(known)
        assert articles == sorted(set(shown.tolist()) - known)
        assert clicked == [article in one.article[one.clicked] for article in articles]
        left_out += len(known & set(shown.tolist()))
    assert left_out > 0, "the test would say nothing if nobody had read a live article"
    assert live.article_id.tolist() == ids(smoke, live.article)


def test_requests_out_of_order_are_refused(smoke, sample):
    with pytest.raises(ValueError, match="order of time"):
        pools(smoke, sample.take(np.array([1, 0])))


def test_what_comes_later_changes_no_pool_no_feature_and_no_rank(smoke):
    time, later = smoke.parts["validation"].time[[150, 300]].tolist()
    past, model = before(smoke, time), make_model(smoke, hidden=(8,))
    now = smoke.log.take(smoke.log.time == time)  # what happens at this very moment does not count either
    for requests in (past.parts["validation"], now):
        one, other = pools(past, requests), pools(smoke, requests)
        np.testing.assert_array_equal(one.offsets, other.offsets)
        np.testing.assert_array_equal(one.article, other.article)
        np.testing.assert_array_equal(features_of(past, one), features_of(smoke, other))
    short, whole = (next_clicks(data, [model], EVERY) for data in (past, before(smoke, later)))
    assert 0 < len(short.request) < len(whole.request)
    for name in whole.ranks:
        np.testing.assert_array_equal(short.ranks[name], whole.ranks[name][: len(short.request)], name)


# Samples to train on.


def test_training_keeps_what_was_clicked_and_so_many_others_with_their_features_in_the_pool(smoke, learned_from):
    data, features = learned_from
    for part, (slates, most) in {"train": (data.parts["train"], 9), "tuning": (data.parts["tuning"], EVERY)}.items():
        whole = pools(smoke, slates)
        assert slates.lengths.tolist() == np.minimum(whole.lengths, whole.clicks + most).tolist()
        assert slates.clicks.tolist() == whole.clicks.tolist()
        places = allowed("exposure")
        expected = halves(features_of(smoke, whole)[:, [allowed("clicks").index(name) for name in places]])
        slate = whole.per_candidate(np.arange(len(whole))) * len(smoke.articles) + whole.article
        own = slates.per_candidate(np.arange(len(slates))) * len(smoke.articles) + slates.article
        np.testing.assert_array_equal(features[part].matrix, expected[np.isin(slate, own)])
        assert features[part].columns == places
    assert (features["tuning"].log_chance == 0).all()
    assert data.parts["validation"] is smoke.parts["validation"]


def test_samples_repeat_by_seed(smoke, learned_from):
    again, other = (training_pools(smoke, ["age_hours"], FEW, seed=seed)[0].parts["train"] for seed in (0, 1))
    assert again.article.tolist() == learned_from[0].parts["train"].article.tolist()
    assert again.impression_id.tolist() != other.impression_id.tolist()


def test_chances_are_those_of_the_sample(smoke):
    """Kept candidates, each worth one over its chance, are as many as the pool has."""
    kept, worth = np.zeros(2), 0.0
    few = Pools(impressions=40, evenly=6, by_views=6, tuning_impressions=1)
    for seed in range(30):
        data, features = training_pools(smoke, ["inviews_decay_1h"], few, seed=seed)
        slates, chance = data.parts["train"], features["train"].log_chance
        others = ~slates.clicked
        whole = pools(smoke, slates)
        worth += np.exp(-chance[others]).sum() / (whole.candidates - whole.clicks.sum())
        views = features["train"].matrix[:, 0]
        kept += np.exp(chance[others & (views > 3)]).mean(), np.exp(chance[others & (views < 0.1)]).mean()
    assert worth / 30 == pytest.approx(1.0, abs=0.06)
    assert kept[0] > 1.5 * kept[1]


def test_without_an_impression_to_sample(smoke):
    with pytest.raises(ConfigError, match="warmup_hours"):
        training_pools(smoke, ["age_hours"], FEW, warmup_hours=336.0)


def test_a_loss_over_samples_takes_off_the_log_of_the_chance(tiny):
    network = linear_model(tiny, {"clicks_48h": 1.0}).network
    features = torch.zeros(3, len(allowed("clicks")))
    features[:, allowed("clicks").index("clicks_48h")] = torch.tensor([0.0, 1.0, 2.0])
    nobody = torch.zeros(3, dtype=torch.int64)
    batch = Batch(features, nobody[:1], nobody, nobody, torch.arange(3), torch.tensor([1.0, 0.0, 0.0]))
    chance, scores = torch.log(torch.tensor([1.0, 0.5, 0.25])), network(batch)
    expected = torch.logsumexp(scores - chance, 0) - scores[0]
    torch.testing.assert_close(network.loss(batch._replace(log_chance=chance)), expected)


def test_batches_hold_the_chances_of_their_candidates(learned_from):
    data, features = learned_from
    inputs = TrainingInputs.of(data, features, "exposure")
    loader = SlateData(inputs, inputs.new(MLP, hidden=(4,)), 16).train_dataloader()
    found = torch.cat([batch.log_chance for batch in loader])
    slates = data.parts["train"]
    expected = features["train"].log_chance[slates.per_candidate(slates.has_choice)]
    assert np.sort(found.numpy()).tolist() == np.sort(expected).tolist()


# Stages.


@pytest.mark.parametrize("refused", [{"context": "mean"}, {"update_minutes": 60}])
def test_a_model_of_what_was_live_scores_candidates_one_by_one_and_is_not_updated(refused):
    with pytest.raises(ConfigError, match="live needs"):
        with_values(base_config("smoke", "03_train_mlp.live"), {"slates": "live", **refused}, "some.yaml")


def test_stages_of_what_was_live_are_read_by_lists_and_not_by_comparisons():
    stages = load_profile("smoke")
    assert [stage for stage in stages if "03_train_mlp.live" in stages[stage].reads] == ["04_recommend", "06_explore"]


# Ranks.


def test_ndcg_of_a_batch_is_that_of_the_ranks():
    rng = np.random.default_rng(0)
    scores, lengths = rng.integers(0, 30, 200).astype(np.float32), np.array([90, 60, 49, 1])
    clicked, offsets = np.zeros(200, bool), np.concatenate(([0], np.cumsum(lengths)))
    clicked[[3, 40, 77, 100, 120, 160]] = True  # of three, two, one and none
    slate = np.repeat(np.arange(4), lengths)
    place = torch.from_numpy(np.arange(200) - np.repeat(offsets[:-1], lengths))
    batch = Batch(
        torch.empty(200, 0), torch.zeros(4), torch.zeros(200), torch.from_numpy(slate), place,
        torch.from_numpy(clicked).float(),
    )  # fmt: skip
    ranks = click_ranks(scores, clicked, offsets)
    gain = np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)
    expected = [gain[slate[clicked] == row].mean() for row in range(3)]
    np.testing.assert_allclose(slate_ndcg(torch.from_numpy(scores), batch), expected)


def by_loop(data: Dataset, found: NextClicks, name: str) -> list[float]:
    """The ranks of a rule, counted event by event."""
    kind, window = name.split("_")
    hours = {"30m": 0.5, "1h": 1.0, "6h": 6.0}[window]
    log, live, ranks = data.log, found.live, []
    for row, article_id in zip(found.request.tolist(), found.article_id.tolist(), strict=True):
        time = int(found.live.time[row])
        past = log.per_candidate((log.time >= time - int(hours * HOUR)) & (log.time < time))
        events = log.article[past & log.clicked if kind == "clicks" else past].tolist()
        pool = live.article[live.offsets[row] : live.offsets[row + 1]].tolist()
        count = dict(zip(ids(data, np.array(pool, dtype=int)), map(events.count, pool), strict=True))
        own = count.pop(article_id, None)
        others = list(count.values())
        better, equal = sum(other > (own or 0) for other in others), others.count(own)
        ranks.append(np.nan if own is None else 1 + better + equal / 2)
    return ranks


@pytest.mark.parametrize("rule", ["clicks_30m", "clicks_6h", "inviews_1h"])
def test_ranks_of_rules_against_a_loop(smoke, rule):
    found = next_clicks(smoke, [], 40, seed=3)
    np.testing.assert_array_equal(found.ranks[rule], by_loop(smoke, found, rule))
    assert np.nanmin(found.ranks[rule]) < 5


def test_ranks_of_a_model_are_those_of_its_scores_in_the_pool_as_one_slate(smoke):
    model = make_model(smoke, hidden=(8,), context="mean", trained_on="logged")
    found = next_clicks(smoke, [model], 30)
    live = found.live
    scores = model.score(smoke, live, features_of(smoke, live), allowed("clicks"))
    expected = [
        (scores[own] > scores[click]).sum() + 1
        for click in np.flatnonzero(live.clicked)
        for own in [slice(*live.offsets[np.searchsorted(live.offsets, click, side="right") - 1 :][:2])]
    ]
    ranks = found.ranks["mlp"]
    assert ranks[~np.isnan(ranks)].tolist() == expected
    assert found.scorers["mlp"] == ("clicks", "logged")


def test_clicks_that_nobody_can_reach(tiny):
    found = next_clicks(tiny, [], EVERY)  # 201 alone has a pool, see above
    assert found.article_id.tolist() == [1007, LOST_ARTICLE, 1009, 1010]
    assert found.live.lengths.tolist() == [4, 0, 0, 0]
    assert found.unreachable == 0.75
    for name in RULES:
        assert np.isnan(found.ranks[name]).tolist() == [False, True, True, True]
        assert found.values(found.ranks[name])[1:].tolist() == [[0.0] * 3] * 3
    assert found.ranks["inviews_6h"].tolist()[0] == 2.0  # 1004, 1006 and 1007 were in view once, 1005 was not
    assert found.ranks["newest"].tolist()[0] == 1.0


@pytest.fixture
def by_rank(tiny) -> NextClicks:
    """Three impressions with three, one and two clicks."""
    requests = tiny.parts["validation"].take(np.array([0, 1, 2]))
    live = replace(requests, offsets=np.array([0, 30, 50, 90]))
    ranks = {name: np.full(6, 20.0) for name in RULES}
    ranks["mine"] = np.array([1.0, 3.0, np.nan, 10.5, 10.0, 2.5])
    ranks["inviews_1h"], ranks["clicks_1h"] = np.array([9.0] * 6), np.array([8.0] * 6)
    scorers = {"mine": ("exposure", "live"), **{name: (tier, "rule") for name, tier in RULES.items()}}
    articles = np.arange(1001, 1007, dtype=np.int32)
    return NextClicks(
        live, np.array([0, 0, 0, 1, 2, 2]), articles, ~np.isnan(ranks["mine"]), scorers, ranks, {"mine": np.zeros(90)}
    )


def test_metrics_are_means_over_clicks_then_over_impressions(by_rank):
    expected = [
        [(1 + 0.5 + 0) / 3, 2 / 3, (1 + 1 / 3) / 3],
        [0, 0, 1 / 10.5],
        [(1 / np.log2(11) + 1 / np.log2(3.5)) / 2, 1, (0.1 + 0.4) / 2],
    ]
    np.testing.assert_allclose(by_rank.values(by_rank.ranks["mine"]), expected)
    entry = by_rank.entries()["mine"]
    assert set(entry) == {"tier", "trained_on", "ndcg@10", "ndcg@10_ci", "hit@10", "mrr", "impressions"}
    assert (entry["tier"], entry["trained_on"], entry["impressions"]) == ("exposure", "live", 3)
    np.testing.assert_allclose([entry[name] for name in ("ndcg@10", "hit@10", "mrr")], np.mean(expected, axis=0))
    low, high = entry["ndcg@10_ci"]
    assert low <= entry["ndcg@10"] <= high


def test_the_best_rule_knows_no_more(by_rank):
    assert by_rank.best_rule("exposure") == "inviews_1h"
    assert by_rank.best_rule("clicks") == "clicks_1h"
    table = next_click_table(by_rank.entries(), by_rank.gains()).set_index("scorer")
    assert table["rule"].to_dict() == {**dict.fromkeys(RULES, ""), "mine": "inviews_1h"}
    gain = by_rank.values(by_rank.ranks["mine"])[:, 0].mean() - 1 / np.log2(10)
    assert table.loc["mine", "ΔnDCG@10 vs. the best rule"].startswith(f"{gain:+.4f} [")


def test_files_of_ranks(by_rank, tmp_path):
    by_rank.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {f"next_click_{name}.parquet" for name in by_rank.ranks}
    table = pq.read_table(tmp_path / "next_click_mine.parquet")
    assert table.schema.names == ["impression_id", "article_id", "pool", "rank"]
    assert table.schema.types == [pa.uint32(), pa.int32(), pa.int32(), pa.float32()]
    assert table["impression_id"].to_pylist() == [201, 201, 201, 202, 203, 203]
    assert table["pool"].to_pylist() == [30, 30, 30, 20, 40, 40]
    assert table["rank"].to_pylist() == [1.0, 3.0, None, 10.5, 10.0, 2.5]
