"""The original notebook's seventeen defects: the package has none of them, and the audit measures what it says."""

import importlib
import pkgutil
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, roc_auc_score

import ebnerd_lib.models
import ebnerd_lib.training
from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import Dataset, sentiment_shares
from ebnerd_lib.data.layout import SPLITS
from ebnerd_lib.data.slates import HOUR, Slates
from ebnerd_lib.data.splits import split_parts
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.evaluation.audit import join, labels, lists, record, replica, scores
from ebnerd_lib.evaluation.audit.finding import DEFECTS, Finding, tabulate
from ebnerd_lib.evaluation.audit.sentiment import audit_sentiment, user_probability
from ebnerd_lib.evaluation.calibration import classification, fit_calibration
from ebnerd_lib.evaluation.judge import judge, judge_both
from ebnerd_lib.evaluation.metrics import mean_metrics, per_slate
from ebnerd_lib.evaluation.space import article_space
from ebnerd_lib.features import store
from ebnerd_lib.models.auc import SlateAUC
from ebnerd_lib.models.base import find_model
from ebnerd_lib.models.batch import Batch
from ebnerd_lib.models.losses import listwise
from ebnerd_lib.recommend import competition
from ebnerd_lib.recommend import lists as listing
from ebnerd_lib.recommend import requests as rec
from ebnerd_lib.training.batches import Lookup, SlateBatches, SlateData, training_rows
from ebnerd_lib.training.fit import Fit, Plan, train
from ebnerd_lib.training.model_file import TrainedModel, save_model

PLAN = Plan(epochs=1, patience=1, batch_size=64, warmup_hours=24, seed=0, trainer={"accelerator": "cpu"})
# Without decay and without dropout of ids, nothing but its own gradient moves a row of a table.
SETTINGS = {
    "mf_ids": {"embedding_size": 4, "weight_decay": 0.0, "id_dropout": 0.0},
    "mlp": {"embedding_size": 4, "hidden": [16]},
}
MODULES = {"mf_ids": ("mf", "ids"), "mlp": ("mlp", "clicks")}
POOL_HOURS = 24.0


@pytest.fixture(scope="module")
def features(smoke, smoke_features):
    return {part: store.read(smoke_features, part) for part in smoke.parts}


def fit(data: Dataset, features, name: str, logs: Path, seed: int = 0) -> Fit:
    module, tier = MODULES[name]
    return train(data, features, module, name, tier, name, SETTINGS[name], replace(PLAN, seed=seed), logs)


@pytest.fixture(scope="module")
def trained(smoke, features, tmp_path_factory) -> SimpleNamespace:
    """Both models of the original's outline, logged into one folder; for reading only."""
    logs = tmp_path_factory.mktemp("logs")
    return SimpleNamespace(logs=logs, **{name: fit(smoke, features, name, logs).model for name in MODULES})


def score(model: TrainedModel, data: Dataset, slates: Slates, features: store.Features) -> np.ndarray:
    return model.score(data, slates, features.matrix, features.columns)


def auc(values: np.ndarray, slates: Slates) -> float:
    return mean_metrics(per_slate(values, slates.clicked, slates.offsets))["auc"]


def impressions(bundle: Path) -> pd.DataFrame:
    """The behaviors of both weeks as the bundle has them, by impression."""
    weeks = [pq.read_table(bundle / split / "behaviors.parquet").to_pandas() for split in SPLITS]
    found = pd.concat(weeks).set_index("impression_id")
    assert found.index.is_unique
    return found


def in_the_bundle(bundle: Path, ids: np.ndarray) -> pd.DataFrame:
    """User, article and label of every candidate of some impressions, each from its own row of the bundle."""
    rows = impressions(bundle).loc[ids, ["user_id", "article_ids_inview", "article_ids_clicked"]]
    found = [
        (user, article, article in set(clicked))
        for user, inview, clicked in rows.itertuples(index=False)
        for article in inview
    ]
    return pd.DataFrame(found, columns=["user", "article", "clicked"])


def one_batch(values: list[float], clicked: list[bool], lengths: list[int]) -> tuple[torch.Tensor, Batch]:
    """Scores and a batch of slates of these lengths; users and articles play no part."""
    sizes = torch.tensor(lengths)
    slate = torch.repeat_interleave(torch.arange(len(lengths)), sizes)
    place = torch.cat([torch.arange(size) for size in lengths])
    nothing = torch.zeros(len(values), dtype=torch.int64)
    label = torch.tensor(clicked, dtype=torch.float32)
    return torch.tensor(values), Batch(
        torch.empty(len(values), 0), torch.zeros(len(lengths), dtype=torch.int64), nothing, slate, place, label
    )


def batch_of(slates: Slates) -> Batch:
    identity = Lookup(np.arange(slates.user.max() + 1), np.arange(slates.article.max() + 1))
    empty = np.empty((slates.candidates, 0), np.float32)
    return next(iter(SlateBatches(slates, empty, [], identity, np.arange(len(slates)), len(slates))))


def live(data: Dataset, time: int) -> np.ndarray:
    return rec.live_articles(data, time, POOL_HOURS, True)


# A. What the original gets wrong, and the package does not.


def test_defect_01_training_moves_every_article_that_it_shows(smoke, trained):
    model = trained.mf_ids
    pl.seed_everything(PLAN.seed, verbose=False)
    fresh = find_model("mf", "mf_ids")(**model.network.hyperparameters)
    before, after = (each.articles.weight.detach().numpy() for each in (fresh, model.network))
    moved = np.flatnonzero((before != after).any(axis=1))
    seen = smoke.parts["train"].take(training_rows(smoke.parts["train"], PLAN.warmup_hours))
    assert len(moved) > 50
    np.testing.assert_array_equal(model.articles.id_of(moved), np.unique(seen.article_id))


def test_defect_02_every_label_belongs_to_its_own_impression(smoke, smoke_bundle):
    for part, slates in smoke.parts.items():
        wanted = in_the_bundle(smoke_bundle, slates.impression_id)
        np.testing.assert_array_equal(slates.per_candidate(slates.user_id), wanted["user"], err_msg=part)
        np.testing.assert_array_equal(slates.article_id, wanted["article"], err_msg=part)
        np.testing.assert_array_equal(slates.clicked, wanted["clicked"], err_msg=part)


def test_defect_02_in_shuffled_batches_too(smoke, smoke_bundle):
    slates = smoke.parts["train"]
    rows = np.random.default_rng(0).permutation(len(slates))
    identity = Lookup(np.arange(len(smoke.users)), np.arange(len(smoke.articles)))
    batches = list(SlateBatches(slates, np.empty((slates.candidates, 0), np.float32), [], identity, rows, 50))
    user = np.concatenate([batch.user[batch.slate] for batch in batches])
    article = np.concatenate([batch.article for batch in batches])
    wanted = in_the_bundle(smoke_bundle, slates.impression_id[rows])
    np.testing.assert_array_equal(smoke.users["user_id"].to_numpy()[user], wanted["user"])
    np.testing.assert_array_equal(smoke.articles["article_id"].to_numpy()[article], wanted["article"])
    np.testing.assert_array_equal(np.concatenate([batch.clicked for batch in batches]), wanted["clicked"])


def test_defect_03_one_row_an_impression_though_users_have_two_histories(smoke, smoke_bundle):
    both = (smoke.histories[0].lengths > 0) & (smoke.histories[1].lengths > 0)
    assert both[smoke.log.user].any(), "the case must occur"
    np.testing.assert_array_equal(np.sort(smoke.log.impression_id), np.sort(impressions(smoke_bundle).index))


@pytest.mark.parametrize("week", [0, 1])
def test_defect_03_each_week_has_the_history_of_its_own_file(smoke, smoke_bundle, week):
    file = pq.read_table(smoke_bundle / SPLITS[week] / "history.parquet").to_pandas().set_index("user_id")
    history, user_ids = smoke.histories[week], smoke.users["user_id"].to_numpy()
    article_ids = smoke.articles["article_id"].to_numpy()[history.article]
    users = np.flatnonzero(history.lengths)
    assert set(user_ids[users]) == set(file.index[file["article_id_fixed"].map(len) > 0])
    for user in users:
        own = slice(history.offsets[user], history.offsets[user + 1])
        wanted = file.loc[user_ids[user]]
        times = wanted["impression_time_fixed"].astype("datetime64[us]").astype(np.int64)
        found = sorted(zip(history.time[own], article_ids[own], strict=True))
        assert found == sorted(zip(times, wanted["article_id_fixed"], strict=True))


@pytest.mark.parametrize(("changed", "touched"), [("validation", {"validation"}), ("train", {"train", "tuning"})])
def test_defect_03_features_of_a_week_look_at_its_own_history(tiny, tiny_bundle, by_hand, tmp_path, changed, touched):
    users = [row[0] for row in getattr(by_hand, f"{changed}_history")]
    other = by_hand.history([(user, [1006, 1003], ["05T08:00", "06T08:00"]) for user in users])
    after = datasets.prepare(open_bundle(tiny_bundle(**{f"{changed}_history": lambda _: other})), "official")[0]
    found = []
    for number, data in enumerate((tiny, after)):
        folder = tmp_path / str(number)
        folder.mkdir()
        store.write(data, folder)
        found.append({part: np.array(store.read(folder, part).matrix) for part in data.parts})
    differ = {part for part in found[0] if not np.array_equal(found[0][part], found[1][part], equal_nan=True)}
    assert differ == touched


def test_defect_04_the_candidate_is_scored_and_not_the_page(smoke, trained, features):
    slates, part = smoke.parts["tuning"], features["tuning"]
    before = score(trained.mf_ids, smoke, slates, part)
    known = trained.mf_ids.articles.index_of(slates.article_id) > 0
    page = np.resize(np.unique(slates.article[known]), len(slates)).astype(np.int32)
    other_page = replace(slates, page=page, front_page=~slates.front_page)
    assert (page != slates.page).mean() > 0.9
    np.testing.assert_array_equal(score(trained.mf_ids, smoke, other_page, part), before)
    other_article = replace(slates, article=slates.per_candidate(page))
    changed = score(trained.mf_ids, smoke, other_article, part)
    assert (changed != before)[known].mean() > 0.5
    assert (slates.article > 0).all(), "every candidate has an index, on the front page too"


@given(st.sampled_from(["Negative", "Neutral", "Positive"]), st.floats(0, 1))
def test_defect_05_a_label_has_its_probability_and_the_shares_add_up_to_one(label, probability):
    found = sentiment_shares(np.array([label]), np.array([probability]))[0]
    place = ["Negative", "Neutral", "Positive"].index(label)
    assert found.sum() == pytest.approx(1, abs=1e-6)
    assert found[place] == pytest.approx(probability, abs=1e-6)
    assert np.delete(found, place) == pytest.approx((1 - probability) / 2, abs=1e-6)


def test_defect_05_shares_of_articles_and_means_of_users_by_hand(tiny):
    rows = dict(zip(tiny.articles["article_id"], tiny.metadata.sentiment, strict=True))
    assert rows[1001] == pytest.approx([0.8, 0.1, 0.1])
    assert rows[1003] == pytest.approx([0.05, 0.05, 0.9])
    assert np.isnan([rows[1004], rows[1005], rows[1008]]).all(), "no label or no probability: unknown"
    user = tiny.users.set_index("user_id").loc[7]
    shares = [f"sentiment_{label}_train" for label in ("negative", "neutral", "positive")]
    # 1001, 1002, 1001
    assert user[shares].tolist() == pytest.approx([(0.8 + 0.2 + 0.8) / 3, (0.1 + 0.6 + 0.1) / 3, (0.1 + 0.2 + 0.1) / 3])


def test_defect_05_users_of_other_leaning_rank_the_same_articles_the_other_way(tiny_bundle, by_hand, tmp_path):
    reads = [(7, [1003], ["10T08:00"]), (8, [1001], ["11T08:00"]), (9, [], [])]  # positive, negative, nothing
    data = datasets.prepare(open_bundle(tiny_bundle(train_history=lambda _: by_hand.history(reads))), "official")[0]
    store.write(data, tmp_path)
    match, slates = store.read(tmp_path, "train").column("history_sentiment"), data.parts["train"]
    impression = slates.per_candidate(slates.impression_id)
    positive, negative = (
        {one: match[(impression == one) & (slates.article_id == article)].item() for one in (101, 103)}
        for article in (1003, 1001)
    )
    assert positive[101] > negative[101], "user 7"
    assert positive[103] < negative[103], "user 8"


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=8), st.data())
def test_defect_06_the_loss_sets_the_click_against_its_slate_wherever_it_stands(values, data):
    place = data.draw(st.integers(0, len(values) - 1))
    order = data.draw(st.permutations(range(len(values))))
    clicked = [at == place for at in range(len(values))]
    wanted = np.log(np.exp(np.array(values, float) - values[place]).sum())
    assert listwise(*one_batch(values, clicked, [len(values)])).item() == pytest.approx(wanted, abs=1e-5)
    moved = one_batch([values[at] for at in order], [clicked[at] for at in order], [len(values)])
    assert listwise(*moved).item() == pytest.approx(wanted, abs=1e-5)


def test_defect_06_the_loss_raises_the_click_and_lowers_every_other_of_its_slate_alone():
    values, batch = one_batch([0.0] * 7, [False, False, True, False, False, False, False], [4, 3])
    values.requires_grad_()
    listwise(values, batch).backward()
    assert values.grad.tolist() == pytest.approx([0.25, 0.25, -0.75, 0.25, 0, 0, 0])


def test_defect_07_auc_tells_the_best_scorer_from_the_worst(smoke):
    slates = smoke.parts["validation"]
    best, worst = slates.clicked.astype(np.float32), 1 - slates.clicked.astype(np.float32)
    for values, wanted in ((best, 1.0), (worst, 0.0), (np.full(slates.candidates, 0.3, np.float32), 0.5)):
        assert judge(values, slates, None)["auc"] == wanted
        metric = SlateAUC()
        metric.update(torch.from_numpy(values), batch_of(slates))
        assert metric.compute().item() == wanted, "as training sees it"


def test_defect_07_auc_is_the_mean_over_impressions_and_not_over_batches(smoke):
    slates = smoke.parts["validation"].take(np.flatnonzero(smoke.parts["validation"].has_choice)[:300])
    values = np.random.default_rng(0).random(slates.candidates)
    own = [roc_auc_score(slates.clicked[a:b], values[a:b]) for a, b in pairwise(slates.offsets)]
    assert judge(values, slates, None)["auc"] == pytest.approx(np.mean(own))


def test_defect_08_f1_of_a_scorer_that_knows_is_one(smoke):
    tuning, validation = smoke.parts["tuning"], smoke.parts["validation"]
    entry, _ = judge_both("clicks", tuning.clicked, tuning, validation.clicked, validation)
    assert entry["validation"]["f1"] == entry["tuning"]["f1"] == 1


def test_defect_08_the_threshold_is_chosen_on_tuning_and_beats_one_half(smoke):
    tuning, validation = smoke.parts["tuning"], smoke.parts["validation"]
    rng = np.random.default_rng(0)
    weak = [rng.normal(size=part.candidates) + part.clicked for part in (tuning, validation)]
    entry, calibration = judge_both("clicks", weak[0], tuning, weak[1], validation)
    chance = calibration.probability(weak[1].astype(np.float32))
    assert calibration == fit_calibration(weak[0].astype(np.float32), tuning.clicked)
    assert entry["validation"]["f1"] == classification(chance, validation.clicked, calibration.threshold)["f1"]
    everything = classification(chance, validation.clicked, 0.0)["f1"]
    at_half = classification(chance, validation.clicked, 0.5)["f1"]
    assert entry["validation"]["f1"] > everything > at_half


class OwnFigures(pl.Callback):
    """Notes the tuning AUC that each epoch reports, and that of its weights alone."""

    def __init__(self, slates: Slates, batches: SlateBatches) -> None:
        self.slates, self.batches = slates, batches
        self.reported: list[float] = []
        self.own: list[float] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.reported.append(trainer.callback_metrics["val/auc"].item())
        with torch.no_grad():
            self.own.append(auc(np.concatenate([pl_module(batch).numpy() for batch in self.batches]), self.slates))


def test_defect_09_each_epoch_reports_its_own_figure(smoke, tmp_path):
    slates, tuning = smoke.parts["train"], smoke.parts["tuning"]
    lookup = Lookup(np.arange(len(smoke.users)), np.arange(len(smoke.articles)))
    rows = training_rows(slates, 0)
    learn, check = (
        SlateBatches(part, np.empty((part.candidates, 0), np.float32), [], lookup, which, 64)
        for part, which in ((slates, rows), (tuning, np.arange(len(tuning))))
    )
    figures = OwnFigures(tuning, check)
    pl.seed_everything(0, verbose=False)
    network = find_model("mf", "mf_ids")(
        columns=0, users=len(smoke.users), articles=len(smoke.articles), schedule="constant", learning_rate=0.02
    )
    pl.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, callbacks=[figures], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path,
    ).fit(network, learn, check)  # fmt: skip
    assert figures.reported == pytest.approx(figures.own, abs=1e-5)
    assert len(figures.own) == 3 and np.ptp(figures.own) > 1e-3, "a mean over epochs would differ"


def test_defect_10_slates_of_one_class_are_left_out_and_counted(smoke):
    slates = smoke.parts["tuning"]
    row = slates.per_candidate(np.arange(len(slates)))
    clicked = np.where(row % 5 == 0, False, np.where(row % 5 == 1, True, slates.clicked))
    mixed = replace(slates, clicked=clicked)
    values = np.random.default_rng(0).random(slates.candidates).astype(np.float32)
    kept = np.flatnonzero((np.arange(len(slates)) % 5 > 1) & slates.has_choice)
    own = [values[slates.offsets[at] : slates.offsets[at + 1]] for at in kept]
    found = judge(values, mixed, None)
    assert (found["impressions"], found["left_out"]) == (len(kept), len(slates) - len(kept))
    assert found["auc"] == pytest.approx(auc(np.concatenate(own), slates.take(kept)))
    metric = SlateAUC()
    metric.update(torch.from_numpy(values), batch_of(mixed))
    assert metric.compute().item() == pytest.approx(found["auc"], abs=1e-6)
    assert metric.slates.item() == len(kept)


def test_defect_10_the_slate_without_a_click_is_left_out_by_hand(tiny):
    tuning = tiny.parts["tuning"]  # 105 of one click, 106 of none
    found = judge(tuning.clicked, tuning, None)
    assert (found["auc"], found["impressions"], found["left_out"]) == (1.0, 1, 1)
    nothing = tuning.without_clicks()
    assert np.isnan(auc(np.zeros(nothing.candidates), nothing)), "no figure, rather than 0"


def test_defect_11_raw_ids_and_indices_meet_in_one_mapping(smoke, trained):
    log, article_ids, user_ids = smoke.log, smoke.articles["article_id"].to_numpy(), smoke.users["user_id"].to_numpy()
    np.testing.assert_array_equal(user_ids[log.user], log.user_id)
    np.testing.assert_array_equal(article_ids[log.article], log.article_id)
    lookup = Lookup.between(smoke, trained.mf_ids.users, trained.mf_ids.articles)
    for vocabulary, mine, ids in (
        (trained.mf_ids.users, lookup.user, user_ids),
        (trained.mf_ids.articles, lookup.article, article_ids),
    ):
        np.testing.assert_array_equal(vocabulary.id_of(mine[mine > 0]), ids[mine > 0])
        assert set(ids[mine > 0]) == set(vocabulary.ids)


def test_defect_11_the_article_with_the_best_score_is_the_one_recommended(smoke, trained):
    network = trained.mf_ids.network.copy()
    model = replace(trained.mf_ids, network=network)
    time = rec.moment(smoke, "") - 8 * 24 * int(HOUR)
    requests = rec.make_requests(smoke, rec.choose_users(smoke, [], 5, 0), time, live(smoke, time))
    slates = competition.draw_slates(requests, 10, 1, False, 0)
    asked = 0
    for article_id in smoke.articles["article_id"].to_numpy()[requests.pool]:
        place = int(model.articles.index_of(np.array([article_id]))[0])
        if not place:
            continue
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
            network.article_bias.weight[place] = 1.0
        values = competition.score_live([model], smoke, requests, slates)[model.name]
        picked = listing.pick(requests, values, article_space(smoke), 1)
        unread = requests.unread[requests.slates.article_id == article_id]
        first = requests.slates.article_id[picked[:, 0]]
        assert (first[unread] == article_id).all() and (first[~unread] != article_id).all()
        asked += 1
    assert asked > 20


def test_defect_12_lists_hold_live_articles_in_the_order_of_their_scores(smoke, trained):
    time = rec.moment(smoke, "")
    requests = rec.make_requests(smoke, rec.choose_users(smoke, [], 20, 0), time, live(smoke, time))
    slates = competition.draw_slates(requests, competition.typical_length(smoke.parts["train"]), 2, True, 0)
    values = competition.score_live([trained.mlp], smoke, requests, slates)["mlp"]
    picked = listing.pick(requests, values, article_space(smoke), 10)
    found = listing.recommend(trained.mlp, smoke, requests, slates, values, picked)
    log = smoke.log
    late = log.per_candidate((log.time >= time - int(POOL_HOURS * HOUR)) & (log.time < time))
    in_view = set(log.article_id[late])
    assert len(in_view) < len(smoke.articles) / 2 and set(found["article_id"]) <= in_view
    by_catalogue = 0
    for number, (_, own) in enumerate(found.groupby("user_id", sort=False)):
        assert own["rank"].tolist() == list(range(1, 11))
        assert own["score"].is_monotonic_decreasing
        left = np.sort(values[number][requests.unread.reshape(len(requests), -1)[number]])[::-1]
        np.testing.assert_array_equal(own["score"], left[:10])
        by_catalogue += own["article_id"].is_monotonic_increasing
    assert by_catalogue == 0


@pytest.mark.parametrize("name", MODULES)
def test_defect_13_training_reaches_every_row_of_a_table(smoke, trained, name):
    model = getattr(trained, name)
    slates = smoke.parts["train"]
    seen = slates.take(training_rows(slates, PLAN.warmup_hours))
    lookup = Lookup.between(smoke, model.users, model.articles)
    for kind, reached in (("user", lookup.user[seen.user]), ("article", lookup.article[seen.article])):
        tables = model.network.id_tables(kind)
        assert kind == "article" or tables
        for table in tables:
            # The unknown, row 0, and what training shows.
            np.testing.assert_array_equal(np.unique(reached), np.arange(1, table.num_embeddings))
    assert len(model.users) == len(np.unique(seen.user_id)) + 1
    assert len(model.articles) == len(np.unique(seen.article_id)) + 1 < len(smoke.articles)


def test_defect_13_one_data_module_feeds_all_models():
    for package in (ebnerd_lib.models, ebnerd_lib.training):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for kind, wanted in ((pl.LightningDataModule, [SlateData]), (torch.utils.data.Dataset, [])):
        assert [each for each in kind.__subclasses__() if each.__module__.startswith("ebnerd_lib.")] == wanted


def test_defect_14_each_model_logs_into_a_folder_of_its_own(smoke, trained, features, tmp_path):
    logs = shutil.copytree(trained.logs, tmp_path / "logs")
    before = {path: path.read_bytes() for path in (logs / "mlp").rglob("*") if path.is_file()}
    fit(smoke, features, "mf_ids", logs)  # once more: it replaces its own
    for pattern in ("events.out.tfevents*", "metrics.csv", "*.ckpt"):
        assert sorted(path.parent.relative_to(logs).as_posix() for path in logs.rglob(pattern)) == ["mf_ids", "mlp"]
    assert {path: path.read_bytes() for path in (logs / "mlp").rglob("*") if path.is_file()} == before


def test_defect_15_a_seed_gives_the_same_bytes_and_another_one_others(smoke, trained, features, tmp_path):
    files = []
    models = [trained.mf_ids, *(fit(smoke, features, "mf_ids", tmp_path, seed).model for seed in (0, 1))]
    for number, model in enumerate(models):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_model(model, folder)
        files.append((folder / "model_mf_ids.pt").read_bytes())
    assert files[0] == files[1] != files[2]


def test_defect_15_the_users_to_serve_are_drawn_by_seed(smoke):
    first, again, other = (rec.choose_users(smoke, [], 5, seed).tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(("table", "column"), [("users", "user_id"), ("articles", "article_id")])
def test_defect_16_every_id_maps_to_its_index_and_back(smoke, table, column):
    ids = getattr(smoke, table)[column].to_numpy()[1:]
    vocabulary = Vocabulary(ids)
    index = vocabulary.index_of(ids)
    np.testing.assert_array_equal(index, np.arange(1, len(ids) + 1))
    np.testing.assert_array_equal(vocabulary.id_of(index), ids)
    assert vocabulary.check_both_ways() == len(ids) > 100
    beside = np.setdiff1d(np.concatenate([ids.astype(np.int64) - 1, ids.astype(np.int64) + 1]), ids)
    assert len(beside) > 100 and not vocabulary.index_of(beside).any()
    with pytest.raises(IndexError, match="0 is the unknown"):
        vocabulary.id_of(np.array([0]))


@pytest.fixture(scope="module")
def by_quantile(smoke_bundle) -> tuple[Dataset, int]:
    data, cut, _ = datasets.prepare(open_bundle(smoke_bundle), "quantile")
    return data, cut.validation_start


def test_defect_17_the_split_cuts_at_the_quantile_of_impressions(by_quantile):
    data, cut = by_quantile
    early = len(data.parts["train"]) + len(data.parts["tuning"])
    assert abs(early / len(data.log) - 0.9) <= 1 / len(data.log)
    assert early == (data.log.time < cut).sum()
    assert cut == np.quantile(data.log.time, 0.9, method="higher")


@given(st.integers(50, 400), st.integers(0, 1000))
def test_defect_17_whatever_the_impressions(number, seed):
    time = np.random.default_rng(seed).permutation(number).astype(np.int64) * HOUR
    share = (split_parts("quantile", time[:20], time[20:]).part < 2).mean()
    assert abs(share - 0.9) <= 1 / number


# B. The audit measures what it says.


def test_there_is_a_regression_test_of_every_defect():
    tested = {int(name[len("test_defect_") :][:2]) for name in globals() if name.startswith("test_defect_")}
    assert tested == set(DEFECTS) == set(range(1, 18))


def test_findings_are_tabulated_in_order_and_what_is_unknown_is_a_dash():
    table = tabulate([Finding(17, "rows", 1234, 5), Finding(2, "share", float("nan"), 0.5)])
    assert table["no."].tolist() == [2, 17]
    assert table[["original", "mended"]].to_numpy().tolist() == [["–", "0.5000"], ["1,234", "5"]]


def test_the_join_doubles_the_users_of_both_weeks_and_no_one_else(tiny, by_hand):
    rows = join.join(tiny)
    user = tiny.log.user_id
    times = np.bincount(rows.impression, minlength=len(tiny.log))
    np.testing.assert_array_equal(times, np.where(user == 7, 2, 1))
    week = {int(one): set(rows.week[user[rows.impression] == one].tolist()) for one in np.unique(user)}
    assert week == {7: {0, 1}, 8: {0}, 9: {1}, by_hand.far_user: {1}}
    found = {one.quantity: one for one in join.audit_join(tiny, rows)}
    assert (found["rows after the join"].original, found["rows after the join"].mended) == (14, 10)
    assert found["impressions that stand twice"].original == 4
    # Six clicks. The later histories hold 1003 and 1002 of user 7 and 1005 of user 9; of user 7's own, 1002 is there.
    held = found["share of the train week's clicks that the history holds"]
    assert (held.original, held.mended) == (pytest.approx(3 / 6), pytest.approx(1 / 6))


def test_a_user_without_any_history_stays_one_row(tiny_bundle, by_hand):
    only_seven = by_hand.history(by_hand.train_history[:1])
    data = datasets.prepare(open_bundle(tiny_bundle(train_history=lambda _: only_seven)), "official")[0]
    rows = join.join(data)
    of_eight = data.log.user_id[rows.impression] == 8
    assert rows.week[of_eight].tolist() == [-1] * 3


def test_the_original_cuts_at_the_quantile_of_joined_rows(by_quantile):
    data, right = by_quantile
    time = data.log.time
    late = np.flatnonzero(time >= np.quantile(time, 0.8))
    every = np.arange(len(time))
    rows = join.Joined(np.concatenate([every, late]), np.zeros(len(every) + len(late), np.int64))
    cut = np.quantile(time[rows.impression], 0.9, method="higher")
    hours, share, wrong = join.audit_quantile(data, rows)
    assert cut > right
    assert hours.original == pytest.approx((cut - right) / HOUR)
    assert (share.original, share.mended) == ((time >= cut).mean(), (time >= right).mean())
    assert wrong.original == ((time >= right) & (time < cut)).sum() > 20
    nothing = join.audit_quantile(data, join.Joined(every, np.zeros(len(every), np.int64)))
    assert all(one.original == one.mended for one in nothing)
    train_rows, valid = join.original_parts(data, rows, 0)
    assert time[train_rows.impression].max() < cut <= time[valid.impression].min()
    assert sorted([*train_rows.impression, *valid.impression]) == sorted(rows.impression)


def test_a_row_is_fed_the_next_label_of_the_flat_list(tiny):
    tiny = datasets.in_file_order(tiny)
    assert tiny.log.impression_id[:3].tolist() == [102, 101, 103]
    fed = labels.feed(tiny.log, np.array([0, 1, 2]))
    # Of the labels 0 1 | 0 1 0 | 0 1 0 1, three rows get the first three.
    assert fed.label.tolist() == [False, True, False]
    assert fed.label_row.tolist() == [0, 0, 1]
    assert fed.own.tolist() == [False, False, False]
    assert fed.labels == 9
    assert tiny.articles["article_id"].to_numpy()[fed.article].tolist() == [1002, 0, 0]
    moved, unused, _ = labels.audit_labels(fed, tiny.log)
    assert (moved.original, unused.original) == (pytest.approx(2 / 3), pytest.approx(6 / 9))


@pytest.fixture(scope="module")
def fed(by_quantile) -> list[replica.Rows]:
    data, _ = by_quantile
    parts = join.original_parts(data, join.join(data), 0)
    return [replica.Rows(labels.feed(data.log, part.impression), replica.row_sentiment(data, part)) for part in parts]


def test_the_original_factorisation_moves_two_articles_and_repeats_by_seed(by_quantile, fed):
    size = (len(by_quantile[0].users), len(by_quantile[0].articles))
    first, again, other = (replica.train_factorisation(*fed, size, 1, seed) for seed in (0, 0, 1))
    assert first.moved.tolist() == [0, 1]
    np.testing.assert_array_equal(first.articles, again.articles)
    assert not np.array_equal(first.articles, other.articles)
    assert first.f1 <= 0.5
    seeds = record.audit_seeds({0: first, 1: other, 2: first}.__getitem__, 0)
    assert seeds[0].original == abs(first.auroc - other.auroc)
    assert all(one.mended == 0 for one in seeds) and seeds[2].original > 0


def test_the_original_perceptron_moves_the_pages_that_are_read(by_quantile, fed):
    size = (len(by_quantile[0].users), len(by_quantile[0].articles))
    found = replica.train_perceptron(*fed, size, 1, 0)
    np.testing.assert_array_equal(found.moved, np.unique(fed[0].feed.article))


@pytest.mark.parametrize("batch_size", [1024, 6, 2])
@pytest.mark.parametrize("right", [True, False])
def test_the_original_auroc_cannot_tell_a_scorer_that_knows_from_one_that_errs(right, batch_size):
    click, other = np.full(30, float(right)), np.full(30, float(not right))
    found = scores.halves_auroc(click, other, batch_size)
    assert found.tolist() == [0.5] * -(-30 // batch_size)


def test_the_original_auroc_by_hand():
    # 4 0 3 0 against 2 0 1 0: 4 and 3 beat four each, every 0 ties with two and is beaten by two.
    click, other = np.array([4.0, 3.0, 2.0, 1.0]), np.zeros(4)
    assert scores.halves_auroc(click, other).tolist() == [10 / 16]
    assert scores.halves_auroc(other, click).tolist() == [10 / 16]
    assert scores.halves_auroc(click[::-1], other).tolist() == [6 / 16]


PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=20)


@given(PAIRS, st.integers(1, 8))
def test_the_original_figures_are_those_of_its_flattened_batches(rows, batch_size):
    both = np.array(rows, dtype=np.float64)
    auroc, f1 = [], []
    for start in range(0, len(both), batch_size):
        batch = both[start : start + batch_size]
        ones, zeros = np.ones(len(batch)), np.zeros(len(batch))
        auroc.append(roc_auc_score(np.concatenate([ones, zeros]), batch.ravel()))
        each = [f1_score(t, batch[:, i] > 0, zero_division=0) for i, t in enumerate((ones, zeros))]
        f1.append(np.mean(each))
    np.testing.assert_allclose(scores.halves_auroc(both[:, 0], both[:, 1], batch_size), auroc, atol=1e-12)
    found = scores.halves_f1(both[:, 0], both[:, 1], batch_size)
    np.testing.assert_allclose(found, f1, atol=1e-12)
    assert (found <= 0.5).all()


def test_the_original_f1_is_one_half_at_best_whatever_the_others_score():
    click = np.ones(4)
    assert scores.halves_f1(click, -click).tolist() == scores.halves_f1(click, click).tolist() == [0.5]
    assert scores.halves_f1(np.array([1.0, -1, -1, -1]), -click).tolist() == [0.2]  # precision 1, recall 1/4


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 12))
def test_share_of_batches_with_one_class(values, batch_size):
    batches = [values[start : start + batch_size] for start in range(0, len(values), batch_size)]
    wanted = np.mean([len(set(batch)) == 1 for batch in batches])
    assert scores.one_class_share(np.array(values), batch_size) == pytest.approx(wanted)


def test_pairs_are_the_first_click_and_the_first_other_of_each_slate(tiny):
    log = tiny.log
    click, other = scores.pairs(log)
    ids = log.per_candidate(log.impression_id)
    assert 106 not in ids[click]
    of = {
        int(one): (int(log.article_id[c]), int(log.article_id[o]))
        for one, c, o in zip(ids[click], click, other, strict=True)
    }
    assert len(of) == 9 and (ids[click] == ids[other]).all()
    assert (of[103], of[101], of[204]) == ((1004, 1003), (1002, 1001), (1010, 1011))


def test_trailing_clicks_are_those_of_the_day_before_by_hand(tiny, by_hand):
    train_part = tiny.parts["train"]
    # 1002 was clicked at 08:00 on the 18th and 1003 at 09:30, but no slate of the next day shows them again.
    assert not scores.trailing_clicks(tiny, train_part).any()
    for hours, wanted in ((0, (1, 0, 0)), (1, (1, 1, 0)), (23, (0, 1, 0)), (25, (0, 0, 0))):
        later = replace(train_part, time=np.full(len(train_part), by_hand.micros("18T09:30") + hours * HOUR))
        clicks = dict(zip(later.article_id.tolist(), scores.trailing_clicks(tiny, later).tolist(), strict=True))
        assert (clicks[1002], clicks[1003], clicks[1001]) == wanted


def test_the_original_lists_the_neighbours_of_the_best_articles():
    values = np.array([[5.0, 1.0, 4.0, 2.0, 3.0]])  # of the articles 1 to 5
    positions = lists.best(values, 3)
    assert (positions + 1).tolist() == [[1, 3, 5]]
    assert lists.looked_up(positions).tolist() == [[0, 2, 4]], "each the one before, the first of them none at all"
    descending = lists.best(-values, 3)  # best first: articles 2, 4, 5
    assert lists.looked_up(descending).tolist() == [[1, 3, 4]]
    assert lists.looked_up(np.array([[4, 1, 3]])).tolist() == [[1, 3, 4]], "whatever the order of the ranking"


@given(st.integers(2, 10), st.integers(0, 1000))
def test_rank_correlation_is_spearmans(k, seed):
    rng = np.random.default_rng(seed)
    listed, ranked = rng.permutation(k), rng.permutation(k)
    wanted = np.corrcoef(np.argsort(listed), np.argsort(ranked))[0, 1]
    assert lists.rank_correlation(listed[None], ranked[None])[0] == pytest.approx(wanted)


def test_a_check_of_one_entry_hardly_notices_two_that_are_swapped(smoke):
    articles = len(smoke.articles) - 1
    covered, chance = lists.audit_mapping(smoke)
    assert (covered.original, covered.mended) == (1, articles)
    assert (chance.original, chance.mended) == (pytest.approx(2 / articles), 1.0)
    ids = np.array([7, 8, 9])
    index = {7: 1, 8: 2, 9: 3}
    assert lists.share_noticed(ids, index, {1: 7, 2: 8, 3: 9}) == 0


def test_the_average_of_probabilities_by_hand(tiny):
    found = user_probability(tiny, 0)[tiny.users["user_id"].isin([7, 8, 9])]
    assert found[:2] == pytest.approx([(0.8 + 0.6 + 0.8) / 3, 0.9]), "0.8 negative counts as 0.8"
    assert np.isnan(found[2])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_constant_for_each_user_changes_no_slate_and_a_match_does(smoke, seed):
    found = {one.quantity: one for one in audit_sentiment(smoke, smoke.parts["validation"], seed)}
    changed = found["slates whose AUC changes when it is added to a random ranking"]
    assert changed.original == 0
    assert changed.mended > 100
    assert found["AUC of sentiment alone"].original == 0.5


def test_folders_of_a_shared_logger_are_counted(tmp_path):
    shared, own = tmp_path / "shared", [tmp_path / "a", tmp_path / "b"]
    files = [shared / "v0" / "events.out.1", shared / "v0" / "events.out.2", shared / "v0" / "c" / "1.ckpt"]
    files += [shared / "v0" / "c" / "2.ckpt", *(folder / name for folder in own for name in ("events.out.1", "b.ckpt"))]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    curves, checkpoints = record.audit_folders(shared, own)
    assert (curves.original, curves.mended) == (1, 2)
    assert (checkpoints.original, checkpoints.mended) == (2, 1)


def test_two_models_with_one_logger_share_a_folder(smoke, tmp_path):
    record.share_logger(smoke, tmp_path / "shared")
    curves, checkpoints = record.audit_folders(tmp_path / "shared", [tmp_path])
    assert (curves.original, checkpoints.original) == (1, 2)
