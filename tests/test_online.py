"""Online updates: what each score knows, how tables grow, and that it repeats."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fits import fitted

from ebnerd_lib.configs import Online
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR, candidate_rows
from ebnerd_lib.evaluation.answers import save_results
from ebnerd_lib.evaluation.evaluate import load_scores
from ebnerd_lib.evaluation.metrics import mean_metrics, per_slate
from ebnerd_lib.features.build import Features
from ebnerd_lib.models.base import Batch
from ebnerd_lib.training import online
from ebnerd_lib.training.inputs import IdEncoder, TrainingInputs
from ebnerd_lib.training.model_file import load_model, save_model
from ebnerd_lib.training.online import step_rows, update_online

MODELS = {"mf_ids": "02_train_mf.ids", "mlp": "03_train_mlp"}
SCORED = ("tuning", "validation")
RATES = {"learning_rate": 3e-3, "vector_rate": 0.05}  # high enough that updates show in scores


@pytest.fixture(scope="module")
def fits(smoke, features, tmp_path_factory):
    logs = tmp_path_factory.mktemp("logs")
    return {name: fitted(smoke, features, logs, stage, epochs=1).model for name, stage in MODELS.items()}


def walk(model, data, features, hours=24, report=None, **settings):
    """Update a model in steps of some hours."""
    inputs = TrainingInputs.of(data, features, model.tier, 24.0)
    return update_online(model, inputs, 60 * hours, report=report, **{**RATES, **settings})


def updater_of(model, data, features, **settings):
    inputs = TrainingInputs.of(data, features, model.tier, 24.0)
    return online.OnlineUpdater(model, inputs, Online(**{**RATES, **settings}), seed=0)


@pytest.fixture(scope="module")
def daily(smoke, features, fits):
    return {name: walk(model, smoke, features) for name, model in fits.items()}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


def spoil(smoke, features, spoilt):
    """Return the data with other clicks, users, articles and features in the impressions ``spoilt(slates)``."""
    rng = np.random.default_rng(5)
    parts, matrices = {}, {}
    for part, slates in smoke.parts.items():
        rows = spoilt(slates)
        where = slates.per_candidate(rows)
        user = np.where(rows, rng.permutation(slates.user), slates.user)
        article = np.where(where, rng.permutation(slates.article), slates.article)
        parts[part] = replace(
            slates,
            clicked=slates.clicked ^ where,
            user=user,
            user_id=smoke.users["user_id"].to_numpy()[user],
            article=article,
            article_id=smoke.articles["article_id"].to_numpy()[article],
        )
        matrix = np.array(features[part].matrix)
        matrix[where] = rng.normal(size=(int(where.sum()), matrix.shape[1]))
        matrices[part] = Features(matrix, features[part].columns)
    return Dataset(smoke.articles, smoke.users, parts, smoke.histories), matrices


def test_scores_before_a_time_do_not_know_what_comes_at_or_after_it(smoke, features, fits, daily, name):
    later = smoke.parts["validation"].time.min() + 60 * HOUR  # within a step
    changed = walk(fits[name], *spoil(smoke, features, lambda slates: slates.time >= later))
    for part in SCORED:
        before = smoke.parts[part].per_candidate(smoke.parts[part].time < later)
        assert before.sum() > 100
        np.testing.assert_array_equal(changed.scores[part][before], daily[name].scores[part][before])
    after = smoke.parts["validation"].per_candidate(smoke.parts["validation"].time >= later)
    assert (changed.scores["validation"][after] != daily[name].scores["validation"][after]).any()


def test_what_is_first_shown_in_a_step_is_the_unknown_there_and_has_a_row_of_its_own_after_it(smoke, features, fits):
    model = fits["mf_ids"]
    updater = updater_of(model, smoke, features)
    size = len(model.articles)
    known = IdEncoder.between(smoke, model.users, model.articles).article > 0
    met = 0
    for end, rows in step_rows(smoke, 1440)[:4]:
        shown = np.unique(smoke.log.article[candidate_rows(smoke.log.offsets, rows)])
        new = shown[(shown > 0) & ~known[shown]]
        assert len(new) > 5
        bias = updater._network.id_tables("article")[1].weight
        assert (updater._encoder.article[new] == 0).all() and len(bias) == size + met
        scores = updater.score(rows)
        where = np.isin(smoke.log.article[candidate_rows(smoke.log.offsets, rows)], new)
        user = updater._encoder.user[smoke.log.take(rows).per_candidate(smoke.log.user[rows])][where]
        each, unknown = torch.arange(len(user)), torch.zeros(len(user), dtype=torch.int64)
        batch = Batch(torch.empty(len(user), 0), torch.from_numpy(user), unknown, each, unknown, unknown)
        wanted = updater._network.score(batch)
        np.testing.assert_allclose(scores[where], wanted.detach(), atol=1e-6)
        updater.add_ids(rows)
        tables = updater._network.id_tables("article")
        own = updater._encoder.article[new]
        assert sorted(own) == list(range(size + met, size + met + len(new)))
        for table in tables:
            assert torch.equal(table.weight[own], table.weight[:1].expand(len(new), -1))
        updater.train(rows, end)
        assert not torch.equal(tables[1].weight[own], tables[1].weight[:1].expand(len(new), -1))
        known[new] = True
        met += len(new)
        np.testing.assert_array_equal(np.flatnonzero(updater._encoder.article), np.flatnonzero(known))


def test_every_impression_is_in_one_step_which_ends_after_it(smoke):
    for minutes in (1, 60, 1440):
        steps = step_rows(smoke, minutes)
        rows = np.concatenate([rows for _, rows in steps])
        np.testing.assert_array_equal(np.sort(rows), np.arange(len(smoke.parts["train"]), len(smoke.log)))
        for end, own in steps:
            assert end % (min(minutes, 60) * HOUR // 60) == 0
            assert (smoke.log.time[own] < end).all() and (smoke.log.time[own] >= end - minutes * HOUR // 60).all()
            assert (np.diff(own) > 0).all()


def test_the_first_steps_scores_are_the_static_models_in_file_order(smoke, features, fits, daily, name):
    slates, tuning = smoke.parts["tuning"], features["tuning"]
    static = fits[name].score(smoke, slates, tuning.matrix, tuning.columns)
    np.testing.assert_allclose(daily[name].scores["tuning"], static, atol=1e-5)
    for part in SCORED:
        assert daily[name].scores[part].shape == (smoke.parts[part].candidates,)
        assert np.isfinite(daily[name].scores[part]).all()


def test_ids_that_are_updated_every_hour_come_to_rank_news(smoke, features, fits):
    slates, matrix = smoke.parts["validation"], features["validation"]
    model = fits["mf_ids"]
    static = model.score(smoke, slates, matrix.matrix, matrix.columns)
    heard = []
    learned = walk(model, smoke, features, 1, heard.append)
    before, after = (
        mean_metrics(per_slate(scores, slates.clicked, slates.offsets))["auc"]
        for scores in (static, learned.scores["validation"])
    )
    assert after > before + 0.05
    shares = [entry["share"] for entry in heard]
    assert shares == sorted(shares) and shares[-1] == 1 and heard[0]["step"] == "mf_ids_online"


def test_an_id_takes_a_slate_as_a_step_of_rate_times_clicked_minus_probability(smoke, features, fits):
    updater = updater_of(fits["mf_ids"], smoke, features, bias_rate=0.5, vector_rate=0.0)
    rows = step_rows(smoke, 1440)[0][1]
    updater.add_ids(rows)
    row = rows[smoke.log.has_choice[rows]][:1]
    where = candidate_rows(smoke.log.offsets, row)
    bias = updater._network.id_tables("article")[1]
    article = updater._encoder.article[smoke.log.article[where]]
    before = bias.weight[article, 0].detach().clone()
    scores, clicked = torch.from_numpy(updater.score(row)), torch.from_numpy(smoke.log.clicked[where])
    share = clicked / clicked.sum()
    updater.train(row, int(smoke.log.time[row[0]]) + 1)
    torch.testing.assert_close(bias.weight[article, 0] - before, 0.5 * (share - scores.softmax(0)), atol=1e-6, rtol=0)


def test_half_of_what_sets_articles_apart_is_forgotten_in_a_half_life(smoke, features, fits):
    updater = updater_of(fits["mf_ids"], smoke, features, half_life_hours=6.0)
    apart = [t.weight.detach() - t.weight[:1].detach() for t in updater._network.id_tables("article")]
    updater.forget(0)
    updater.forget(6 * HOUR)
    for table, before in zip(updater._network.id_tables("article"), apart, strict=True):
        torch.testing.assert_close(table.weight - table.weight[:1], before / 2, atol=1e-6, rtol=1e-5)


def test_the_same_seed_gives_the_same_bytes_and_the_start_stays_as_it_is(smoke, features, fits, daily, name, tmp_path):
    fits[name].network.eval()
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    save_model(fits[name], tmp_path)
    static = (tmp_path / f"model_{name}.pt").read_bytes()
    torch.manual_seed(99)  # what ran before must not matter
    again = walk(fits[name], smoke, features)
    for part in SCORED:
        assert again.scores[part].tobytes() == daily[name].scores[part].tobytes()
    save_model(again.model, tmp_path / "a")
    save_model(daily[name].model, tmp_path / "b")
    file = f"model_{name}_online.pt"
    assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    save_model(fits[name], tmp_path)
    assert (tmp_path / f"model_{name}.pt").read_bytes() == static


def test_what_is_published_are_the_scores_given_on_the_way_and_a_model_that_loads(
    smoke, features, fits, daily, name, tmp_path
):
    learned, inputs = daily[name], TrainingInputs.of(smoke, features, fits[name].tier)
    entry = save_results(fits[name], learned, inputs, {}, tmp_path, 0)["models"][f"{name}_online"]
    assert entry["tier"] == learned.model.tier == "clicks"
    for part, kind in (("validation", "scores"), ("tuning", "tuning")):
        np.testing.assert_array_equal(
            load_scores(tmp_path / f"{kind}_{name}_online.parquet", smoke.parts[part]), learned.scores[part]
        )
        slates = smoke.parts[part]
        values = per_slate(learned.scores[part], slates.clicked, slates.offsets)
        assert entry[part]["auc"] == pytest.approx(mean_metrics(values)["auc"], abs=1e-12)
    loaded = load_model(tmp_path / f"model_{name}_online.pt")
    slates, matrix = smoke.parts["validation"], features["validation"]
    scores = loaded.score(smoke, slates, matrix.matrix, matrix.columns)
    np.testing.assert_array_equal(scores, learned.model.score(smoke, slates, matrix.matrix, matrix.columns))
    assert set(slates.article_id) <= set(loaded.articles.ids) and set(slates.user_id) <= set(loaded.users.ids)
    assert (np.abs(scores - learned.scores["validation"]) > 1e-6).mean() > 0.5


def test_the_last_state_gives_each_id_its_own_row_and_is_the_one_that_would_score_the_next_step(
    smoke, features, fits, name
):
    updater = updater_of(fits[name], smoke, features)
    steps = step_rows(smoke, 1440)
    for end, rows in steps[:2]:
        updater.add_ids(rows)
        updater.train(rows, end)
    first = len(smoke.parts["train"]) + len(smoke.parts["tuning"])
    rows = steps[2][1]
    rows = rows[rows >= first]
    wanted, before = updater.score(rows), updater._encoder
    walked = {kind: updater._network.id_tables(kind)[0].weight.detach().clone() for kind in ("user", "article")}
    model = updater.finish()
    slates, matrix = smoke.parts["validation"], features["validation"]
    scores = model.score(smoke, slates, matrix.matrix, matrix.columns)
    np.testing.assert_allclose(scores[candidate_rows(slates.offsets, rows - first)], wanted, atol=1e-5)
    after = IdEncoder.between(smoke, model.users, model.articles)
    for kind, own in walked.items():
        table = model.network.id_tables(kind)[0].weight
        assert len(table) == len(getattr(model, f"{kind}s")) == len(own)
        assert torch.equal(table[getattr(after, kind)], own[getattr(before, kind)])
