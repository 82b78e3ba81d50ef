"""Training on the smoke bundle: what is learnt, from what, and that it repeats."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from fits import fitted
from runs import python

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.evaluation.metrics import mean_metrics, per_slate
from ebnerd_lib.features.build import Features
from ebnerd_lib.features.registry import allowed
from ebnerd_lib.models.din import DIN
from ebnerd_lib.models.mf import MFIds
from ebnerd_lib.models.mlp import MLP
from ebnerd_lib.models.nrms import NRMS
from ebnerd_lib.models.pprec import PPRec
from ebnerd_lib.pipeline.paths import ROOT
from ebnerd_lib.training.inputs import HistoryReader, IdEncoder, SessionClicks, TrainingInputs, training_rows
from ebnerd_lib.training.lightning import SlateData
from ebnerd_lib.training.model_file import TrainedModel, load_model, save_model


def auc(model, smoke, features, part):
    slates = smoke.parts[part]
    scores = model.score(smoke, slates, features[part].matrix, features[part].columns)
    return mean_metrics(per_slate(scores, slates.clicked, slates.offsets))["auc"]


def test_training_learns_and_keeps_the_best_epoch(smoke, features, tmp_path):
    heard = []
    result = fitted(smoke, features, tmp_path, report=heard.append, epochs=3)
    assert list(result.curve["epoch"]) == [0, 1, 2]
    assert result.best_epoch == int(result.curve["val/auc"].idxmax())
    assert auc(result.model, smoke, features, "tuning") == pytest.approx(result.curve["val/auc"].max(), abs=1e-5)
    assert auc(result.model, smoke, features, "validation") > 0.6
    assert [entry["epoch"] for entry in heard if "epoch" in entry] == [1, 2, 3]
    shares = [entry["share"] for entry in heard if "share" in entry]
    assert shares == sorted(shares) and 0 < shares[0] < 1 / 3 and shares[-1] == 1
    assert list((tmp_path / "mlp").glob("events.out.tfevents*"))


def test_the_same_seed_gives_the_same_bytes_whatever_validation_holds_and_another_one_does_not(
    smoke, features, tmp_path
):
    slates, rng = smoke.parts["validation"], np.random.default_rng(0)
    spoilt = replace(slates, clicked=rng.random(slates.candidates) < 0.5, user_id=slates.user_id + 1)
    other = Dataset(smoke.articles, smoke.users, {**smoke.parts, "validation": spoilt}, smoke.histories)
    noise = Features(rng.random(features["validation"].matrix.shape, dtype=np.float32), features["validation"].columns)
    sums = []
    for data, given, seed in (
        (smoke, features, 0),
        (other, {**features, "validation": noise}, 0),
        (smoke, features, 1),
    ):
        folder = tmp_path / str(len(sums))
        folder.mkdir()
        save_model(fitted(data, given, folder / "logs", seed=seed).model, folder)
        sums.append(hashlib.sha256((folder / "model_mlp.pt").read_bytes()).hexdigest())
    assert sums[0] == sums[1] != sums[2]


FORKED = """
import sys; from pathlib import Path
sys.path.insert(0, sys.argv[3])
from fits import fitted
from ebnerd_lib.data import dataset
from ebnerd_lib.features.build import read_features
folder, out = map(Path, sys.argv[1:3])
data = dataset.load(folder); features = {part: read_features(folder, part) for part in data.parts}
two = {"accelerator": "cpu", "devices": 2, "strategy": "ddp_notebook"}
print(fitted(data, features, out, "02_train_mf.ids", epochs=2, trainer=two).curve["epoch"].tolist())
"""


def elsewhere(code, features, folder):
    """What a new process prints that has the smoke bundle and its features."""
    done = python(ROOT, "-c", code, str(features), str(folder), str(ROOT / "tests"))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_curve_comes_back_from_processes_that_a_notebook_forks(smoke_features, tmp_path):
    assert elsewhere(FORKED, smoke_features, tmp_path)[-1] == "[0, 1]"


def test_ids_and_transform_come_from_the_rows_that_are_trained_on_and_no_others(smoke, features):
    inputs, slates = TrainingInputs.of(smoke, features, "clicks", 48.0), smoke.parts["train"]
    rows = slates.has_choice & (slates.time >= slates.time.min() + 48 * HOUR)
    seen = slates.take(rows)
    assert set(inputs.articles.ids) == set(seen.article_id) and set(inputs.users.ids) == set(seen.user_id)
    encoder = IdEncoder.between(smoke, inputs.users, inputs.articles)
    new = ~np.isin(smoke.articles["article_id"], inputs.articles.ids)
    assert (encoder.article[new] == 0).all() and new.sum() > 10
    network = inputs.new(MLP)
    known = features["train"].matrix[slates.per_candidate(rows)][:, inputs.columns(network)]
    logs = np.sign(known) * np.log1p(np.abs(known.astype(np.float64)))
    np.testing.assert_allclose(network.transform.mean.numpy(), np.nanmean(logs, axis=0), rtol=1e-4, atol=1e-6)


def test_a_model_sees_the_columns_of_its_tier(smoke, features):
    for tier in ("content", "exposure", "clicks"):
        inputs = TrainingInputs.of(smoke, features, tier)
        model = TrainedModel.of("mlp", inputs.new(MLP), inputs)
        assert set(model.columns) == set(allowed(tier)) and model.tier == tier
    with pytest.raises(ConfigError, match="tier: clicks does not fit mf_ids"):
        inputs.new(MFIds)
    ids = TrainingInputs.of(smoke, features, "ids")
    assert ids.names(ids.new(MFIds)) == []
    with pytest.raises(ConfigError, match=r"tier: ids does not fit din.*content"):
        ids.new(DIN)


def test_training_on_some_negatives_learns_too(smoke, features, tmp_path):
    few = fitted(smoke, features, tmp_path, epochs=3, negatives=2)
    assert few.curve["train/loss"].max() < np.log(4)  # of three or four candidates, not of all
    assert auc(few.model, smoke, features, "validation") > 0.6


@pytest.mark.parametrize("steps", [1, 5])
def test_an_epoch_of_very_few_steps_trains(smoke, features, tmp_path, steps):
    size = -(-len(training_rows(smoke.parts["train"], 24)) // steps)
    found = fitted(smoke, features, tmp_path, epochs=1, batch_size=size)
    assert len(found.curve) == 1 and np.isfinite(found.curve["train/loss"]).all()


@pytest.mark.parametrize("change", [{"learning_rate": 1e30}, {"weight_decay": 1e30}])
def test_a_training_that_diverges_names_its_parameters_and_keeps_no_checkpoint(smoke, features, tmp_path, change):
    with pytest.raises(ConfigError, match=f"{next(iter(change))}: .*1e\\+30"):
        fitted(smoke, features, tmp_path, epochs=2, **change)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_shuffles_differ_by_epoch_and_repeat_by_seed(smoke, features):
    inputs = TrainingInputs.of(smoke, features, "ids")
    network = inputs.new(MFIds)

    def order(seed, epoch):
        data = SlateData(inputs, network, 64, seed=seed)
        data.trainer = type("Trainer", (), {"current_epoch": epoch, "global_rank": 0, "world_size": 1})()
        return np.concatenate([batch.article for batch in data.train_dataloader()])

    np.testing.assert_array_equal(order(0, 1), order(0, 1))
    assert not np.array_equal(order(0, 0), order(0, 1))
    assert not np.array_equal(order(0, 0), order(1, 0))


def test_training_rows_leave_out_the_warm_up_and_slates_without_a_choice(smoke):
    slates = smoke.parts["train"]
    rows = training_rows(slates, 48)
    assert slates.time[rows].min() >= slates.time.min() + 48 * HOUR
    nothing = replace(slates, clicked=np.zeros(slates.candidates, bool))
    with pytest.raises(ConfigError, match="warmup_hours: 0 leaves none"):
        training_rows(nothing, 0)
    with pytest.raises(ConfigError, match="warmup_hours: 500 leaves none"):
        training_rows(slates, 500)


def test_members_of_an_ensemble_train_side_by_side_from_their_own_first_weights(smoke, features, tmp_path):
    inputs = TrainingInputs.of(smoke, features, "clicks")
    alone = [inputs.new(MLP, seed, hidden=[4]) for seed in (3, 4)]
    both = inputs.new(MLP, 3, seeds=2, hidden=[4])
    for member, single in zip(both.members, alone, strict=True):
        assert all(torch.equal(mine, its) for mine, its in zip(member.parameters(), single.parameters(), strict=True))
        assert torch.equal(member.transform.mean, alone[0].transform.mean)
    batch = next(iter(SlateData(inputs, both, 64).val_dataloader()))
    both.eval().loss(batch).backward()
    for member, single in zip(both.members, alone, strict=True):
        single.eval().loss(batch).backward()
        torch.testing.assert_close(2 * member.rest[-1].weight.grad, single.rest[-1].weight.grad)
    found = fitted(smoke, features, tmp_path, epochs=3, seeds=2)
    assert [folder.name for folder in tmp_path.iterdir()] == ["mlp"]
    first, second = found.model.network.members
    assert not torch.equal(first.rest[-1].weight, second.rest[-1].weight)
    assert found.best_epoch == int(found.curve["val/auc"].idxmax())
    assert auc(found.model, smoke, features, "tuning") == pytest.approx(found.curve["val/auc"].max(), abs=1e-5)


def test_nrms_trains_on_vectors_alone_in_its_own_tier(smoke, features, tmp_path):
    found = fitted(smoke, features, tmp_path, "03_train_news.nrms", embedding_size=8, heads=2, batch_size=64, epochs=2)
    assert (found.model.name, found.model.tier, found.model.columns) == ("nrms", "content", [])
    assert len(found.curve) and found.model.network.hyperparameters["heads"] == 2
    save_model(found.model, tmp_path)
    loaded = load_model(tmp_path / "model_nrms.pt")
    slates, part = smoke.parts["tuning"], features["tuning"]
    wanted = found.model.score(smoke, slates, part.matrix, part.columns)
    np.testing.assert_array_equal(loaded.score(smoke, slates, part.matrix, part.columns), wanted)
    shorter = replace(smoke, vectors=smoke.vectors[:, :3])
    with pytest.raises(StageError, match="vectors of length 64, the bundle has 3"):
        loaded.score(shorter, slates, part.matrix, part.columns)


def test_a_reader_is_the_latest_clicks_of_the_history_before_the_impression(smoke):
    network = NRMS(columns=0, users=2, articles=2, vector_size=64, history_length=3)
    reader = HistoryReader.of(smoke, network)
    for part in ("train", "validation"):
        slates = smoke.parts[part]
        rows = np.arange(0, len(slates), 7)
        found = reader.latest(slates, rows)
        for row, latest in zip(rows, found, strict=True):
            history = smoke.histories[slates.week[row]]
            own = slice(history.offsets[slates.user[row]], history.offsets[slates.user[row] + 1])
            read = history.article[own][history.time[own] < slates.time[row]][-3:]
            np.testing.assert_array_equal(latest, np.concatenate([np.zeros(3 - len(read), int), read]))


def test_a_session_is_the_users_clicks_in_it_strictly_before_the_impression(smoke):
    log, length = smoke.log, 3
    sessions = SessionClicks.of(log)
    clicks: dict[int, list[tuple[int, int]]] = {}
    for row in np.argsort(log.time, kind="stable"):
        for place in range(log.offsets[row], log.offsets[row + 1]):
            if log.clicked[place]:
                clicks.setdefault(int(log.session[row]), []).append((int(log.time[row]), int(log.article[place])))
    slates = smoke.parts["validation"]
    slates = replace(slates, session=np.where(np.arange(len(slates)) == 0, -1, slates.session))  # one in no session
    found = sessions.latest(slates, np.arange(len(slates)), length)
    for own, time, session in zip(found, slates.time, slates.session, strict=True):
        before = [article for at, article in clicks.get(int(session), []) if at < time][-length:]
        assert own.tolist() == [0] * (length - len(before)) + before
    assert (found > 0).any(axis=1).mean() > 0.1
    silent = SessionClicks.of(log.without_clicks())
    assert not silent.latest(slates, np.arange(4), length).any()


def test_a_batch_holds_each_article_once_with_the_ids_of_its_categories(smoke, features):
    inputs = TrainingInputs.of(smoke, features, "content")
    network = inputs.new(DIN, history_length=4)
    batch = next(iter(SlateData(inputs, network, 16).val_dataloader()))
    slates = smoke.parts["tuning"].take(np.arange(64))
    for place, kind in enumerate(("categories", "subcategories")):
        known = np.array([-1, *network.hyperparameters[kind]])
        np.testing.assert_array_equal(
            known[batch.views[batch.candidate, place]], smoke.categories[slates.article, place]
        )
    np.testing.assert_array_equal(batch.vectors[batch.candidate], smoke.vectors[slates.article])
    assert len(batch.vectors.unique(dim=0)) == len(batch.vectors) and not batch.vectors[0].any()
    trained = np.unique(np.concatenate([smoke.parts["train"].article, smoke.histories[0].article]))
    np.testing.assert_allclose(network.centred.mean, smoke.vectors[trained].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("tier", "counts"), [("content", set()), ("exposure", {"inviews"}), ("clicks", {"inviews", "clicks"})]
)
def test_the_tier_decides_which_popularity_pprec_sees(smoke, features, tier, counts):
    names = TrainingInputs.of(smoke, features, tier).names(PPRec)
    assert {name.partition("_")[0] for name in names} == counts | {"age"} and set(names) <= set(PPRec.feature_names)
