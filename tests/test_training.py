"""Training on the smoke bundle: what is learnt, from what, and that it repeats."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.evaluation.metrics import mean_metrics, per_slate
from ebnerd_lib.features import store
from ebnerd_lib.features.registry import allowed, columns_named
from ebnerd_lib.features.store import Features
from ebnerd_lib.models.base import find_model
from ebnerd_lib.training.batches import HistoryReader, IdEncoder, SlateData, training_rows
from ebnerd_lib.training.fit import TrainConfig, train, train_variants
from ebnerd_lib.training.model_file import load_model, save_model

CONFIG = TrainConfig(epochs=3, patience=3, batch_size=64, warmup_hours=24, seed=0)
SMALL = {"embedding_size": 4, "hidden": [16]}


@pytest.fixture(scope="module")
def features(smoke, smoke_features):
    return {part: store.read(smoke_features, part) for part in smoke.parts}


def fit(smoke, features, logs, tier="clicks", config=CONFIG, **settings):
    return train(smoke, features, "mlp", "mlp", tier, "mlp", {**SMALL, **settings}, config, logs)


def auc(model, smoke, features, part):
    slates = smoke.parts[part]
    scores = model.score(smoke, slates, features[part].matrix, features[part].columns)
    return mean_metrics(per_slate(scores, slates.clicked, slates.offsets))["auc"]


def test_training_learns_and_keeps_the_best_epoch(smoke, features, tmp_path):
    heard = []
    result = train(smoke, features, "mlp", "mlp", "clicks", "mlp", SMALL, CONFIG, tmp_path, heard.append)
    assert list(result.curve["epoch"]) == [0, 1, 2]
    assert result.best_epoch == int(result.curve["val/auc"].idxmax())
    assert auc(result.model, smoke, features, "tuning") == pytest.approx(result.curve["val/auc"].max(), abs=1e-5)
    assert auc(result.model, smoke, features, "validation") > 0.6
    assert [entry["epoch"] for entry in heard] == [1, 2, 3]
    assert heard[-1]["seconds_left"] == 0
    assert list((tmp_path / "mlp").glob("events.out.tfevents*"))


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(smoke, features, tmp_path):
    sums = []
    for place, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(place)
        folder.mkdir()
        save_model(fit(smoke, features, folder / "logs", config=replace(CONFIG, seed=seed, epochs=2)).model, folder)
        sums.append(hashlib.sha256((folder / "model_mlp.pt").read_bytes()).hexdigest())
    assert sums[0] == sums[1] != sums[2]


SCRIPT = """
import sys; from pathlib import Path
from ebnerd_lib.data import dataset
from ebnerd_lib.features import store
from ebnerd_lib.features.registry import allowed, columns_named
from ebnerd_lib.training.fit import TrainConfig, train
from ebnerd_lib.training.model_file import save_model
data = dataset.load(Path(sys.argv[1])); features = {p: store.read(Path(sys.argv[1]), p) for p in data.parts}
CONFIG, LOGS = TrainConfig(2, 2, 256, 24.0, 0), Path(sys.argv[2]) / "logs"
for module, name, settings in (("mlp", "mlp", {"hidden": [128, 64]}), ("mf", "mf_features", {})):
    fit = train(data, features, module, name, "clicks", name, settings, CONFIG, LOGS)
    save_model(fit.model, Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_one_thread_and_two_give_the_same_bytes(smoke_features, tmp_path):
    found = []
    for threads in ("1", "2"):
        folder = tmp_path / threads
        folder.mkdir()
        # As the Makefile and the runner set it: it has to be there before torch is loaded.
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_CBWR": "AVX2,STRICT"}
        subprocess.run(
            [sys.executable, "-c", SCRIPT, smoke_features, folder], env=environment, check=True, capture_output=True
        )
        found.append({path.name: path.read_bytes() for path in sorted(folder.glob("model_*.pt"))})
    assert found[0].keys() == {"model_mlp.pt", "model_mf_features.pt"}
    assert found[0] == found[1]


def test_nothing_fitted_changes_when_validation_does(smoke, features, tmp_path):
    slates = smoke.parts["validation"]
    rng = np.random.default_rng(0)
    spoilt = replace(slates, clicked=rng.random(slates.candidates) < 0.5, user_id=slates.user_id + 1)
    other = Dataset(smoke.articles, smoke.users, {**smoke.parts, "validation": spoilt}, smoke.histories)
    noise = Features(rng.random(features["validation"].matrix.shape, dtype=np.float32), features["validation"].columns)
    save_model(fit(smoke, features, tmp_path / "logs").model, tmp_path)
    before = (tmp_path / "model_mlp.pt").read_bytes()
    save_model(fit(other, {**features, "validation": noise}, tmp_path / "other_logs").model, tmp_path)
    assert (tmp_path / "model_mlp.pt").read_bytes() == before


def test_vocabularies_hold_what_training_rows_show_and_no_more(smoke, features, tmp_path):
    model = fit(smoke, features, tmp_path, config=replace(CONFIG, epochs=1)).model
    slates = smoke.parts["train"]
    seen = slates.take(training_rows(slates, CONFIG.warmup_hours))
    assert set(model.articles.ids) == set(seen.article_id)
    assert set(model.users.ids) == set(seen.user_id)
    encoder = IdEncoder.between(smoke, model.users, model.articles)
    new = ~np.isin(smoke.articles["article_id"], model.articles.ids)
    assert (encoder.article[new] == 0).all() and new.sum() > 10


def test_the_transform_is_fitted_on_the_rows_that_are_trained_on(smoke, features, tmp_path):
    model = fit(smoke, features, tmp_path, config=replace(CONFIG, epochs=1, warmup_hours=48)).model
    slates = smoke.parts["train"]
    rows = slates.per_candidate(slates.has_choice & (slates.time >= slates.time.min() + 48 * HOUR))
    known = features["train"].matrix[rows][:, [features["train"].columns.index(name) for name in model.columns]]
    logs = np.sign(known) * np.log1p(np.abs(known.astype(np.float64)))
    np.testing.assert_allclose(model.network.transform.mean.numpy(), np.nanmean(logs, axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tier", ["content", "exposure", "clicks"])
def test_a_model_sees_the_columns_of_its_tier(smoke, features, tmp_path, tier):
    model = fit(smoke, features, tmp_path, tier, replace(CONFIG, epochs=1)).model
    assert set(model.columns) == set(allowed(tier))
    assert model.tier == tier


def test_variants_are_named_by_tier_and_ids_are_trained_once(smoke, features, tmp_path):
    config = replace(CONFIG, epochs=1)
    fits = train_variants(smoke, features, "mf", ["mf_ids", "mf_features"], ["clicks", "content"], {}, config, tmp_path)
    assert [(fit.model.name, fit.model.tier) for fit in fits] == [
        ("mf_ids", "ids"),
        ("mf_features", "clicks"),
        ("mf_features_content", "content"),
    ]


def test_training_on_some_negatives_repeats_and_learns_too(smoke, features, tmp_path):
    few = [fit(smoke, features, tmp_path / name, config=replace(CONFIG, negatives=2)) for name in ("a", "b")]
    assert few[0].curve.equals(few[1].curve)
    assert few[0].curve["train/loss"].max() < np.log(4)  # of three or four candidates, not of all
    assert auc(few[0].model, smoke, features, "validation") > 0.6


@pytest.mark.parametrize("steps", [1, 5])
def test_an_epoch_of_very_few_steps_trains(smoke, features, tmp_path, steps):
    size = -(-len(training_rows(smoke.parts["train"], 24)) // steps)
    found = fit(smoke, features, tmp_path, config=replace(CONFIG, epochs=1, batch_size=size))
    assert len(found.curve) == 1 and np.isfinite(found.curve["train/loss"]).all()


@pytest.mark.parametrize("loss", ["listwise", "bce"])
def test_both_losses_train(smoke, features, tmp_path, loss):
    result = fit(smoke, features, tmp_path, loss=loss)
    assert result.curve["train/loss"].iloc[-1] < result.curve["train/loss"].iloc[0]


def test_shuffles_differ_by_epoch_and_repeat_by_seed(smoke, features):
    encoder = IdEncoder(np.zeros(len(smoke.users), int), np.arange(len(smoke.articles)))

    def order(seed, epoch):
        data = SlateData(smoke, features["train"], features["tuning"], [], encoder, 64, 0, seed)
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


def test_seeds_are_trained_one_by_one_and_averaged(smoke, features, tmp_path):
    single = [
        fit(smoke, features, tmp_path / str(seed), config=replace(CONFIG, seed=seed, epochs=1)) for seed in (0, 1)
    ]
    both = fit(smoke, features, tmp_path / "both", config=replace(CONFIG, epochs=1, seeds=2))
    slates, part = smoke.parts["tuning"], features["tuning"]
    scores = [each.model.score(smoke, slates, part.matrix, part.columns) for each in (*single, both)]
    np.testing.assert_allclose(scores[2], (scores[0] + scores[1]) / 2, rtol=1e-5, atol=1e-6)
    assert sorted(folder.name for folder in (tmp_path / "both").iterdir()) == ["mlp", "mlp_seed1"]


def test_nrms_trains_on_vectors_alone_in_its_own_tier(smoke, features, tmp_path):
    settings = {"embedding_size": 8, "heads": 2, "hidden": [16], "context": "mean"}
    (found,) = train_variants(smoke, features, "nrms", ["nrms"], ["clicks", "content"], settings, CONFIG, tmp_path)
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
    network = find_model("nrms", "nrms")(columns=0, users=2, articles=2, vector_size=64, history_length=3)
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


def test_a_misspelt_group_of_columns_is_refused():
    with pytest.raises(ConfigError, match="clicks"):
        columns_named(["clikcs"])
