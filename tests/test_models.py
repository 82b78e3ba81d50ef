"""Models, losses and the transform, by hand and against independent formulae."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.models.auc import SlateAUC
from ebnerd_lib.models.base import find_model
from ebnerd_lib.models.batch import Batch, pad
from ebnerd_lib.models.losses import bce, listwise
from ebnerd_lib.models.transform import FeatureTransform
from ebnerd_lib.training.model_file import TrainedModel, find_model_file, load_model, save_model

MODELS = [("mf", "mf_ids"), ("mf", "mf_features"), ("mlp", "mlp")]


def batch_of(lengths, clicked, columns=3, seed=0, users=4, articles=6) -> Batch:
    torch.manual_seed(seed)
    lengths = torch.tensor(lengths)
    m = int(lengths.sum())
    slate = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    place = torch.cat([torch.arange(n) for n in lengths])
    user, article = torch.randint(0, users, (len(lengths),)), torch.randint(0, articles, (m,))
    return Batch(torch.randn(m, columns), user, article, slate, place, torch.tensor(clicked, dtype=torch.float32))


def test_listwise_loss_is_the_softmax_of_each_click_against_its_slate():
    batch = batch_of([3, 2], [0, 1, 0, 1, 0])
    scores = torch.tensor([0.1, 1.2, -0.3, 0.5, 2.0])
    first = -np.log(np.exp(1.2) / np.exp([0.1, 1.2, -0.3]).sum())
    second = -np.log(np.exp(0.5) / np.exp([0.5, 2.0]).sum())
    assert listwise(scores, batch).item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_listwise_loss_counts_several_clicks_and_skips_slates_without():
    both = batch_of([2, 2], [1, 1, 0, 0])
    scores = torch.tensor([0.0, 1.0, 5.0, -5.0], requires_grad=True)
    expected = -np.log(np.exp([0.0, 1.0]) / np.exp([0.0, 1.0]).sum()).mean()
    loss = listwise(scores, both)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    loss.backward()
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[2:] == 0).all()


def test_losses_without_any_click_are_finite():
    batch = batch_of([2], [0, 0])
    assert listwise(torch.tensor([1.0, 2.0]), batch).item() == 0
    assert bce(torch.zeros(2), batch).item() == pytest.approx(np.log(2))


def test_pad_puts_each_candidate_in_its_place():
    padded = pad(torch.tensor([1.0, 2.0, 3.0]), batch_of([1, 2], [0, 0, 0]), -9.0)
    assert padded.tolist() == [[1.0, -9.0], [2.0, 3.0]]


@pytest.mark.parametrize("seed", range(5))
def test_auc_of_training_equals_the_metric_of_evaluation(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, 30)
    clicked = rng.random(lengths.sum()) < 0.3
    scores = rng.integers(0, 4, lengths.sum()).astype(np.float32)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    metric = SlateAUC()
    for part in (slice(0, 10), slice(10, 30)):
        where = slice(offsets[part.start], offsets[part.stop])
        metric.update(torch.from_numpy(scores[where]), batch_of(lengths[part], clicked[where]))
    wanted = np.nanmean(per_slate(scores, clicked, offsets)[:, 0])
    assert metric.compute().item() == pytest.approx(wanted, abs=1e-6)


def test_transform_standardises_signed_logs_of_the_training_rows_only():
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(500, 3)) * [1, 100, 0] + [0, 5, 7]).astype(np.float32)
    matrix[::7, 1] = np.nan
    rows = np.arange(0, 500, 2)
    transform = FeatureTransform(2)
    transform.fit(matrix, rows, [0, 1], chunk=37)
    logs = np.sign(matrix) * np.log1p(np.abs(matrix))
    wanted = StandardScaler().fit(logs[rows][:, :2]).transform(logs[:, :2])
    found = transform(torch.from_numpy(matrix[:, :2])).numpy()
    np.testing.assert_allclose(found, np.clip(np.nan_to_num(wanted, nan=0.0), -5, 5), atol=2e-5)


def test_transform_clips_and_silences_constant_columns():
    transform = FeatureTransform(2)
    transform.fit(np.array([[0, 3], [1, 3], [0, 3], [1, 3]], dtype=np.float32), np.arange(4), [0, 1])
    found = transform(torch.tensor([[1e9, 8.0], [-1e9, np.nan]]))
    assert found.tolist() == [[5.0, 0.0], [-5.0, 0.0]]


def build(module, name, columns=3, **settings):
    torch.manual_seed(1)
    model = find_model(module, name)(columns=columns, users=4, articles=6, embedding_size=2, **settings)
    return model.eval()


def test_mf_ids_is_biases_plus_the_product_of_vectors():
    model, batch = build("mf", "mf_ids"), batch_of([2, 1], [1, 0, 0])
    user, article = batch.user[batch.slate], batch.article
    wanted = [
        model.bias + model.user_bias.weight[u, 0] + model.article_bias.weight[a, 0]
        + model.users.weight[u] @ model.articles.weight[a]
        for u, a in zip(user, article, strict=True)
    ]  # fmt: skip
    torch.testing.assert_close(model(batch), torch.stack(wanted))


def test_mf_features_is_a_factorisation_machine():
    model, batch = build("mf", "mf_features"), batch_of([2, 1], [1, 0, 0])
    torch.nn.init.normal_(model.factors)
    x, v = model.transform(batch.features), model.factors
    pairs = sum(x[:, i] * x[:, j] * (v[i] @ v[j]) for i, j in itertools.combinations(range(3), 2))
    linear = x @ model.linear.weight[0] + model.linear.bias
    user = ((model.users.weight[batch.user[batch.slate]]) * (x @ v)).sum(dim=1)
    torch.testing.assert_close(model(batch), linear + pairs + user, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("module, name", MODELS)
def test_a_candidates_score_does_not_depend_on_the_rest_of_the_batch(module, name):
    model, batch = build(module, name), batch_of([3, 2, 4], [0] * 9)
    only = batch.slate == 1
    alone = Batch(
        batch.features[only], batch.user[1:2], batch.article[only], torch.zeros(2, dtype=int), batch.place[only],
        batch.clicked[only],
    )  # fmt: skip
    torch.testing.assert_close(model(alone), model(batch)[only], rtol=1e-5, atol=1e-6)


def test_training_replaces_a_share_of_ids_by_the_unknown_and_scoring_none():
    model = build("mf", "mf_ids", id_dropout=0.5)
    forgotten = model._forget(torch.full((10_000,), 3))
    assert set(forgotten.unique().tolist()) == {0, 3}
    assert 0.47 < (forgotten == 0).float().mean() < 0.53
    model.eval()
    batch = batch_of([5], [0] * 5)
    assert torch.equal(model(batch), model(batch))


def test_unknown_ids_have_a_vector_that_is_not_zero():
    model = build("mf", "mf_ids")
    assert model.articles.weight[0].abs().sum() > 0
    assert model.users.weight[0].abs().sum() > 0


@pytest.mark.parametrize(
    "settings, message", [({"loss": "hinge"}, "loss: 'hinge'"), ({"schedule": "cosine"}, "schedule: 'cosine'")]
)
def test_unknown_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        build("mlp", "mlp", **settings)


def test_unknown_models_are_refused_and_the_known_ones_named():
    with pytest.raises(ConfigError, match=r"there is no ebnerd_lib/models/mpl\.py"):
        find_model("mpl", "mlp")
    with pytest.raises(ConfigError, match="it has mf_features, mf_ids"):
        find_model("mf", "mf_idz")


def trained(module="mlp", name="mlp", tier="clicks"):
    columns = ["age_hours", "clicks_24h", "inviews_1h"]
    ids = Vocabulary(np.array([5, 7, 2**31 + 5], dtype=np.uint32))
    return TrainedModel(name, module, tier, build(module, name), columns, ids, Vocabulary(np.arange(5, dtype=np.int32)))


@pytest.mark.parametrize("module, name", MODELS)
def test_a_model_file_gives_the_model_back_and_repeats_byte_for_byte(module, name, tmp_path):
    model = trained(module, name)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_model(model, tmp_path / folder)
    path = tmp_path / "a" / f"model_{name}.pt"
    assert path.read_bytes() == (tmp_path / "b" / f"model_{name}.pt").read_bytes()
    loaded = load_model(path)
    batch = batch_of([3, 4], [0] * 7)
    assert torch.equal(loaded.network(batch), model.network(batch))
    assert (loaded.columns, loaded.tier, loaded.parameters) == (model.columns, model.tier, model.parameters)
    np.testing.assert_array_equal(loaded.users.ids, model.users.ids)


def test_model_files_hold_plain_types_and_no_path(tmp_path):
    save_model(trained(), tmp_path)
    content = torch.load(tmp_path / "model_mlp.pt", weights_only=True)
    assert content["hyperparameters"]["hidden"] == [128, 64]
    assert str(tmp_path).encode() not in (tmp_path / "model_mlp.pt").read_bytes()


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_missing_or_broken_model_file_is_one_clear_error(content, tmp_path):
    path = tmp_path / "model_x.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StageError, match=r"model_x\.pt"):
        load_model(path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"name": Evil()}, tmp_path / "model_x.pt")
    with pytest.raises(StageError, match="not a model file"):
        load_model(tmp_path / "model_x.pt")


def test_a_model_that_would_see_more_than_its_tier_is_refused(smoke, smoke_features):
    from ebnerd_lib.features import store

    features, slates = store.read(smoke_features, "tuning"), smoke.parts["tuning"]
    with pytest.raises(StageError, match="tier exposure may not see clicks_24h"):
        trained(tier="exposure").score(smoke, slates, features.matrix, features.columns)
    with pytest.raises(StageError, match="features lack age_hours"):
        trained().score(smoke, slates, features.matrix, [f"x{n}" for n in range(len(features.columns))])


def test_find_model_file_names_what_there_is(tmp_path):
    save_model(trained(), tmp_path)
    assert find_model_file("mlp", [tmp_path / "none", tmp_path]) == tmp_path / "model_mlp.pt"
    with pytest.raises(StageError, match="there are mlp"):
        find_model_file("nrms", [tmp_path])
