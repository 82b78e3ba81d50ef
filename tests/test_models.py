"""Models, losses and the transform, by hand and against independent formulae."""

import copy
import itertools
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.preprocessing import StandardScaler

from ebnerd_lib import models
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.features.registry import allowed
from ebnerd_lib.models.base import Batch, bce, find_model, listwise, slate_auc, slate_mean
from ebnerd_lib.models.ensemble import Ensemble
from ebnerd_lib.models.layers import Centred, FeatureTransform, LastState
from ebnerd_lib.models.news import NewsModel
from ebnerd_lib.training.model_file import TrainedModel, find_model_file, load_model, save_model

MODELS = [
    (name, thing.name)
    for name, module in sorted(
        (each.name, import_module(f"ebnerd_lib.models.{each.name}")) for each in iter_modules(models.__path__)
    )
    for thing in vars(module).values()
    if isinstance(thing, type) and thing.__module__ == module.__name__ and isinstance(vars(thing).get("name"), str)
    if thing.name != "trees"
]
"""Every network of every module, so a new one is held to what is tested of all."""
SIZE, HISTORY, ARTICLES = 5, 4, 9  # of article vectors, places of a history, and articles of a batch


def batch_of(lengths, clicked, columns=3, seed=0, users=4, articles=6) -> Batch:
    torch.manual_seed(seed)
    lengths = torch.tensor(lengths)
    m = int(lengths.sum())
    slate = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    place = torch.cat([torch.arange(n) for n in lengths])
    user, article = torch.randint(0, users, (len(lengths),)), torch.randint(0, articles, (m,))
    features, labels = torch.randn(m, columns), torch.tensor(clicked, dtype=torch.float32)
    vectors, views = torch.randn(ARTICLES, SIZE), torch.randint(0, 3, (ARTICLES, 2))
    vectors[:2], views[0] = 0.0, 0  # the unknown article, and one without a vector
    candidate, read, session = (
        torch.randint(0, ARTICLES, shape) for shape in ((m,), (len(lengths), HISTORY), (len(lengths), HISTORY))
    )
    read[0] = session[0] = 0  # a user without a history
    return Batch(features, user, article, slate, place, labels, vectors, views, candidate, read, session)


def alone(batch: Batch, slate: int) -> Batch:
    """One slate of a batch as a batch of its own."""
    only = batch.slate == slate
    own = {each: getattr(batch, each)[only] for each in ("features", "article", "place", "clicked", "candidate")}
    own |= {each: getattr(batch, each)[[slate]] for each in ("user", "read", "session")}
    return batch._replace(slate=torch.zeros(int(only.sum()), dtype=int), **own)


def test_listwise_loss_is_the_softmax_of_each_click_against_its_slate_and_skips_slates_without():
    batch = batch_of([3, 2, 2], [0, 1, 0, 1, 1, 0, 0])
    scores = torch.tensor([0.1, 1.2, -0.3, 0.5, 2.0, 5.0, -5.0], requires_grad=True)
    first = -np.log(np.exp(1.2) / np.exp([0.1, 1.2, -0.3]).sum())
    second = -np.log(np.exp([0.5, 2.0]) / np.exp([0.5, 2.0]).sum())
    loss = listwise(scores, batch)
    assert loss.item() == pytest.approx(np.mean([first, *second]), rel=1e-6)
    loss.backward()
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[5:] == 0).all()
    nothing = batch_of([2], [0, 0])
    assert listwise(scores[:2], nothing) == 0 and bce(torch.zeros(2), nothing).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("seed", range(5))
def test_auc_of_training_equals_the_metric_of_evaluation(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 9, 30)
    clicked = rng.random(lengths.sum()) < 0.3
    scores = rng.integers(0, 4, lengths.sum()).astype(np.float32)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    found = slate_auc(torch.from_numpy(scores), batch_of(lengths, clicked))
    wanted = per_slate(scores, clicked, offsets)[:, 0]
    np.testing.assert_allclose(found, wanted[~np.isnan(wanted)], atol=1e-6)


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


def build(module, name, columns=3, seed=1, **settings):
    torch.manual_seed(seed)
    kind = find_model(module, name)
    own = {"embedding_size": 2}
    if issubclass(kind, NewsModel):
        ids = {"categories": [3, 7], "subcategories": [1, 2]}
        own = kind.known({"embedding_size": 8, "heads": 2, "vector_size": SIZE, **ids})
    return kind(columns=columns, users=4, articles=6, **{**own, **settings}).eval()


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


def test_vectors_join_both_sides_of_mf_features():
    model, batch = build("mf", "mf_features", vector_size=SIZE), batch_of([2, 3], [1, 0, 0, 0, 0])
    bare = build("mf", "mf_features")
    bare.load_state_dict({key: value for key, value in model.state_dict().items() if not key.startswith("of_")})
    x = model.transform(batch.features)
    read, known = batch.vectors[batch.read], batch.with_vector(batch.read)
    user_profile = torch.stack(
        [r[w].mean(dim=0) if w.any() else torch.zeros(SIZE) for r, w in zip(read, known, strict=True)]
    )
    user = model.users(batch.user)[batch.slate]
    more = user * model.of_article(batch.vectors[batch.candidate])
    more = more + model.of_history(user_profile)[batch.slate] * (
        x @ model.factors + model.of_article(batch.vectors[batch.candidate])
    )
    torch.testing.assert_close(model(batch), bare(batch) + more.sum(dim=1), rtol=1e-4, atol=1e-5)


EVERY = [(*model, {}) for model in MODELS] + [("mlp", "mlp", {"context": each}) for each in ("mean", "attention")]


@pytest.mark.parametrize("module, name, settings", EVERY)
def test_a_candidates_score_depends_on_neither_other_slates_nor_the_order_of_its_own(module, name, settings):
    model, batch = build(module, name, **settings), batch_of([3, 2, 4], [0] * 9)
    for slate in range(3):
        scores = model(batch)[batch.slate == slate]
        torch.testing.assert_close(model(alone(batch, slate)), scores, rtol=1e-5, atol=1e-6)
    order = torch.tensor([2, 0, 1, *range(3, 9)])
    mixed = batch._replace(**{each: getattr(batch, each)[order] for each in ("features", "article", "candidate")})
    torch.testing.assert_close(model(mixed), model(batch)[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("module, name, settings", EVERY)
def test_models_that_say_so_look_at_what_else_is_in_a_slate(module, name, settings):
    model, batch = build(module, name, **settings), batch_of([4, 3], [0] * 7)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    kept = torch.tensor([0, 2, 4, 5, 6])
    fewer = batch._replace(
        **{each: getattr(batch, each)[kept] for each in ("features", "article", "slate", "clicked", "candidate")},
        place=torch.tensor([0, 1, 0, 1, 2]),
    )
    same = torch.allclose(model(fewer)[:2], model(batch)[kept[:2]], rtol=1e-4, atol=1e-4)
    assert same != model.uses_slate_context
    torch.testing.assert_close(model(fewer)[2:], model(batch)[4:], rtol=1e-4, atol=1e-4)
    assert Ensemble([model, model]).uses_slate_context == model.uses_slate_context


def test_mean_context_is_the_mean_over_the_slate():
    batch = batch_of([2, 3], [0] * 5)
    values = torch.arange(10.0).reshape(5, 2)
    wanted = [[1.0, 2.0]] * 2 + [[6.0, 7.0]] * 3
    assert slate_mean(values, batch).tolist() == wanted


@pytest.mark.parametrize(("module", "name"), [each for each in MODELS if issubclass(find_model(*each), NewsModel)])
def test_a_model_of_news_does_not_look_at_padding_and_trains_users_without_a_history(module, name):
    model, batch = build(module, name), batch_of([2, 3, 1], [0] * 6)
    padded = batch._replace(**{each: F.pad(getattr(batch, each), (3, 0)) for each in ("read", "session")})
    torch.testing.assert_close(model(padded), model(batch), rtol=1e-5, atol=1e-6)
    found = batch._replace(read=torch.full_like(batch.read, 1), session=torch.full_like(batch.session, 1))
    none = batch._replace(read=torch.zeros_like(batch.read), session=torch.zeros_like(batch.session))
    torch.testing.assert_close(model(found), model(none))  # an article without a vector is not read
    for given in (none, batch):
        model.zero_grad()
        listwise(model.train()(given), batch._replace(clicked=torch.tensor([1.0, 0, 0, 1.0, 0, 1.0]))).backward()
        gradients = [p.grad.to_dense() for p in model.parameters() if p.grad is not None]
        assert gradients and all(torch.isfinite(each).all() for each in gradients)


def test_nrms_is_attention_without_places():
    model, batch = build("nrms", "nrms"), batch_of([2, 3], [0] * 5)
    torch.nn.init.normal_(model.pool.empty)
    articles = model.encode(batch)
    torch.testing.assert_close(model(batch)[:2], articles[batch.candidate[:2]] @ model.pool.empty)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(batch._replace(read=batch.read[:, order])), model(batch), rtol=1e-5, atol=1e-6)


def test_centred_vectors_have_the_training_mean_taken_off_and_one_length():
    centred = Centred(2)
    centred.fit(np.array([[0, 0], [1, 4], [3, 2]], np.float32))
    found = centred(torch.tensor([[2.0, 5.0], [0.0, 0.0], [5.0, 7.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.6, 0.8]]) * 2**0.5)


def test_a_last_state_is_that_of_a_unit_that_saw_the_known_places_alone():
    torch.manual_seed(0)
    layer, values, first = LastState(3), torch.randn(3, 4, 3), torch.randn(3, 3)
    known = torch.tensor([[False, True, False, True], [False] * 4, [True] * 4])
    found = layer(values, known, first)
    for row in range(3):
        wanted = first[row]
        for value in values[row][known[row]]:
            _, state = layer.gru(value.view(1, 1, -1), wanted.view(1, 1, -1))
            wanted = state[0, 0]
        torch.testing.assert_close(found[row], wanted)
    assert torch.equal(layer(values, known & False, first), first)


def test_nrms_without_article_vectors_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"needs article vectors.*contrastive_vector"):
        build("nrms", "nrms", vector_size=0)
    with pytest.raises(ConfigError, match="heads: 3 do not divide"):
        build("nrms", "nrms", heads=3)


@pytest.mark.parametrize("module, name", MODELS)
def test_the_mean_of_networks_scores_their_mean_and_comes_back_from_its_file(module, name, tmp_path):
    members = [build(module, name, seed=seed) for seed in range(3)]
    batch = batch_of([3, 2], [0] * 5)
    model = replace(trained(module, name), network=Ensemble(members).eval())
    wanted = sum(member(batch) for member in members) / 3
    torch.testing.assert_close(model.network(batch), wanted)
    assert not torch.equal(members[0](batch), members[1](batch))
    assert model.network.trained_parameters == 3 * sum(p.numel() for p in members[0].parameters())
    save_model(model, tmp_path)
    loaded = load_model(tmp_path / f"model_{name}.pt").network
    assert torch.equal(loaded(batch), model.network(batch)) and loaded.size == 3
    other = copy.deepcopy(loaded)
    other.reindex("article", np.array([0, 1, 2, 3, 4, 5, 0]))
    assert torch.equal(other(batch), loaded(batch))
    other.reindex("article", np.array([0]))
    assert torch.equal(loaded(batch), model.network(batch)), "a copy shares no weights"


def test_training_replaces_a_share_of_ids_by_the_unknown_and_scoring_none():
    model = build("mf", "mf_ids", id_dropout=0.5)
    forgotten = model._forget(torch.full((10_000,), 3))
    assert set(forgotten.unique().tolist()) == {0, 3}
    assert 0.47 < (forgotten == 0).float().mean() < 0.53
    model.eval()
    batch = batch_of([5], [0] * 5)
    assert torch.equal(model(batch), model(batch))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"context": "mean", "hidden": []}, r"hidden: \[\]"),
        ({"context": "attention", "hidden": [6]}, r"hidden: \[6\] .* multiple of 4"),
    ],
)
def test_a_context_without_a_layer_to_join_is_refused(settings, message):
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
    return TrainedModel(name, tier, build(module, name), columns, ids, Vocabulary(np.arange(5, dtype=np.int32)))


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
    assert (loaded.columns, loaded.tier) == (model.columns, model.tier)
    np.testing.assert_array_equal(loaded.users.ids, model.users.ids)


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_missing_or_broken_model_file_is_one_clear_error(content, tmp_path):
    path = tmp_path / "model_x.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StageError, match=r"model_x\.pt"):
        load_model(path)


def test_a_model_that_would_see_more_than_its_tier_or_lacks_a_column_is_refused():
    with pytest.raises(StageError, match="tier exposure may not see clicks_24h"):
        trained(tier="exposure").check(allowed("clicks"))
    with pytest.raises(StageError, match="features lack age_hours"):
        trained().check(["clicks_24h"])


def test_find_model_file_names_what_there_is(tmp_path):
    save_model(trained(), tmp_path)
    assert find_model_file("mlp", [tmp_path / "none", tmp_path]) == tmp_path / "model_mlp.pt"
    with pytest.raises(StageError, match="there are mlp"):
        find_model_file("nrms", [tmp_path])
