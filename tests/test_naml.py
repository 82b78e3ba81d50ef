"""NAML by values computed by hand: the weights of views, and those of the articles that a user read."""

import torch
from test_models import batch_of, build


def pooled(pool, values):
    weights = (torch.tanh(values @ pool.key.weight.T + pool.key.bias) @ pool.query.weight[0]).softmax(dim=0)
    return weights @ values


def test_naml_weighs_the_views_of_an_article_and_the_articles_of_a_user():
    model, batch = build("naml", "naml"), batch_of([2, 3, 1], [0] * 6)
    articles, known = model.encode(batch), batch.with_vector(batch.read)
    vectors = model.centred(batch.vectors)
    for place in (0, 1, 5):  # the unknown article, one without a vector, and one with all views
        views = [model.of_vector(vectors[place])]
        views += [
            layer(table(kind))
            for layer, table, kind in zip(model.of_view, model.of_categories, batch.views[place], strict=True)
        ]
        torch.testing.assert_close(articles[place], pooled(model.views, torch.tanh(torch.stack(views))))
    user = pooled(model.pool, articles[batch.read[1][known[1]]])
    torch.testing.assert_close(model(batch)[batch.slate == 1], articles[batch.candidate[batch.slate == 1]] @ user)
