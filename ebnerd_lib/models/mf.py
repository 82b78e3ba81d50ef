"""Matrix factorisation: on ids alone, and with an article side built from features."""

from typing import Any, ClassVar

import torch
from torch import nn

from ebnerd_lib.models.base import Batch, SlateModel, embedding


class MFIds(SlateModel):
    """Score = b + b_u + b_a + p_u · q_a, on user and article ids alone (Koren, Bell and Volinsky, 2009).

    Args:
        embedding_size: length of p_u and q_a.
    """

    name: ClassVar[str] = "mf_ids"
    uses_features: ClassVar[bool] = False
    uses_slate_context = False

    def __init__(self, embedding_size: int = 16, **settings: Any) -> None:
        super().__init__(embedding_size=embedding_size, **settings)
        size = self.hyperparameters
        self.users = embedding(size["users"], embedding_size)
        self.articles = embedding(size["articles"], embedding_size)
        self.user_bias, self.article_bias = embedding(size["users"], 1), embedding(size["articles"], 1)
        self.bias = nn.Parameter(torch.zeros(()))

    def score(self, batch: Batch) -> torch.Tensor:
        """Score candidates by ids; features are not looked at."""
        user, article = self.users(batch.user)[batch.slate], self.articles(batch.article)
        biases = self.bias + self.user_bias(batch.user)[batch.slate] + self.article_bias(batch.article)
        return biases.squeeze(1) + (user * article).sum(dim=1)


class MFFeatures(SlateModel):
    """A factorisation machine over user, candidate and request (Rendle, 2010), with vectors on both sides.

    With x the transformed features and V one vector a feature, c the candidate's article vector and h the mean of the
    vectors that the user clicked in the history of the week:

    - the article's side is q = V x + A c, so an article that nobody has seen in training has a vector as good as any
      other's;
    - the user's side is p = p_u + B h, and features of the request and of the user meet those of the article in the
      pairs of x;

    score = b + w · x + p · q + Σ_{i<j} (v_i · v_j) x_i x_j.

    Without article vectors, A c and B h are left out.

    Args:
        embedding_size: length of p and q.
        history_length: clicks of the history that h is the mean of, the latest ones.
    """

    name: ClassVar[str] = "mf_features"
    uses_vectors: ClassVar[bool] = True
    uses_slate_context = False

    def __init__(self, embedding_size: int = 16, history_length: int = 30, **settings: Any) -> None:
        super().__init__(embedding_size=embedding_size, history_length=history_length, **settings)
        size = self.hyperparameters
        self.users = embedding(size["users"], embedding_size)
        self.linear = nn.Linear(size["columns"], 1)
        self.factors = nn.Parameter(torch.randn(size["columns"], embedding_size) * 0.02)
        if size["vector_size"]:
            self.of_article = nn.Linear(size["vector_size"], embedding_size, bias=False)
            self.of_history = nn.Linear(size["vector_size"], embedding_size, bias=False)

    def score(self, batch: Batch) -> torch.Tensor:
        """Score candidates by their features and vectors and by the user; the article's id is not looked at."""
        features, user = batch.features, self.users(batch.user)
        side = features @ self.factors
        pairs = (side.square() - features.square() @ self.factors.square()).sum(dim=1) / 2
        if self.hyperparameters["vector_size"]:
            side = side + self.of_article(batch.vectors[batch.candidate])
            user = user + self.of_history(batch.mean_read(batch.vectors))
        return self.linear(features).squeeze(1) + pairs + (user[batch.slate] * side).sum(dim=1)
