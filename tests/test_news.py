"""The models of news one by one, by values computed by hand and by what must not change them."""

import torch
from test_models import batch_of, build

BATCH = batch_of([2, 3, 1], [0] * 6)


def test_lstur_starts_from_the_user_and_goes_through_the_history_in_its_order():
    model = build("lstur", "lstur")
    articles = model.encode(BATCH)
    assert torch.equal(model.user(BATCH, articles)[0], model.users(BATCH.user[:1])[0]), "no history: the user alone"
    _, state = model.state.gru(
        articles[BATCH.read[1:2]][:, BATCH.with_vector(BATCH.read)[1]], model.users(BATCH.user[1:2])[None]
    )
    torch.testing.assert_close(model.user(BATCH, articles)[1], state[0, 0])
    wanted = torch.tanh(
        model.of_vector(model.centred(BATCH.vectors))
        + model.of_categories[0](BATCH.views[:, 0]) + model.of_categories[1](BATCH.views[:, 1])
    )  # fmt: skip
    torch.testing.assert_close(articles, wanted)


def test_gru_follows_the_session_and_starts_from_the_mean_of_the_history():
    model = build("gru", "gru")
    articles = model.encode(BATCH)
    none = BATCH._replace(session=torch.zeros_like(BATCH.session))
    mean = articles[BATCH.read[1]][BATCH.with_vector(BATCH.read)[1]].mean(dim=0)
    torch.testing.assert_close(model.user(none, articles)[1], torch.tanh(model.first(mean)))
    mixed = BATCH._replace(read=BATCH.read[:, torch.tensor([2, 0, 3, 1])])
    torch.testing.assert_close(model(mixed), model(BATCH), rtol=1e-5, atol=1e-6)
    turned = BATCH._replace(session=BATCH.session.flip(1))
    assert not torch.allclose(model(turned), model(BATCH), rtol=1e-4, atol=1e-6)


def test_pprec_weighs_the_relevance_of_nrms_and_popularity_by_its_gate():
    model, nrms = build("pprec", "pprec"), build("nrms", "nrms")
    nrms.load_state_dict(
        {key: value for key, value in model.state_dict().items() if key in nrms.state_dict()}, strict=False
    )
    popularity = model.popularity(model.transform(BATCH.features)) + model.promise(model.encode(BATCH)[BATCH.candidate])
    for bias, wanted in ((-40.0, nrms(BATCH)), (40.0, popularity[:, 0]), (0.0, (nrms(BATCH) + popularity[:, 0]) / 2)):
        torch.nn.init.zeros_(model.gate.weight)
        torch.nn.init.constant_(model.gate.bias, bias)
        torch.testing.assert_close(model(BATCH), wanted, rtol=1e-5, atol=1e-6)


def test_din_weighs_each_click_by_the_candidate():
    model = build("din", "din", query_size=3)
    articles = model.encode(BATCH)
    found = model.interest(BATCH, articles)
    for at, slate in enumerate(BATCH.slate):
        e, total = articles[BATCH.candidate[at]], torch.zeros(8)
        clicks = BATCH.read[slate][BATCH.with_vector(BATCH.read)[slate]]
        for h in articles[clicks]:
            total = (
                total + model.weight(torch.tanh(model.of_read(h) + model.of_candidate(e) + model.of_both(h * e))) * h
            )
        torch.testing.assert_close(found[at], total / max(len(clicks), 1))


def pooled(pool, values):
    weights = (torch.tanh(values @ pool.key.weight.T + pool.key.bias) @ pool.query.weight[0]).softmax(dim=0)
    return weights @ values


def test_naml_weighs_the_views_of_an_article_and_the_articles_of_a_user():
    model = build("naml", "naml")
    articles, known = model.encode(BATCH), BATCH.with_vector(BATCH.read)
    vectors = model.centred(BATCH.vectors)
    for place in (0, 1, 5):  # the unknown article, one without a vector, and one with all views
        views = [model.of_vector(vectors[place])]
        views += [
            layer(table(kind))
            for layer, table, kind in zip(model.of_view, model.of_categories, BATCH.views[place], strict=True)
        ]
        torch.testing.assert_close(articles[place], pooled(model.views, torch.tanh(torch.stack(views))))
    user = pooled(model.pool, articles[BATCH.read[1][known[1]]])
    torch.testing.assert_close(model(BATCH)[BATCH.slate == 1], articles[BATCH.candidate[BATCH.slate == 1]] @ user)
