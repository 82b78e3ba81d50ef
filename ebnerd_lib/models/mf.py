"""Matrix factorisation: on ids alone, and with an article side built from features."""

from typing import ClassVar

import torch
from torch import nn

from ebnerd_lib.models.base import SlateModel, embedding


class MFIds(SlateModel):
    """Score = b + b_u + b_a + p_u · q_a, on user and article ids alone (Koren, Bell and Volinsky, 2009).

    Args:
        embedding_size: length of p_u and q_a.
        settings: see ``SlateModel``.
    """

    name: ClassVar[str] = "mf_ids"
    uses_features: ClassVar[bool] = False

    def __init__(self, embedding_size: int = 16, **settings: object) -> None:
        super().__init__(embedding_size=embedding_size, **settings)  # type: ignore[arg-type]
        size = self.hyperparameters
        self.users, self.articles = (
            embedding(size["users"], embedding_size),
            embedding(size["articles"], embedding_size),
        )
        self.user_bias, self.article_bias = embedding(size["users"], 1), embedding(size["articles"], 1)
        self.bias = nn.Parameter(torch.zeros(()))

    def score(self, features: torch.Tensor, user: torch.Tensor, article: torch.Tensor) -> torch.Tensor:
        """Score candidates by ids; features are not looked at."""
        biases = self.bias + self.user_bias(user).squeeze(1) + self.article_bias(article).squeeze(1)
        return biases + (self.users(user) * self.articles(article)).sum(dim=1)


class MFFeatures(SlateModel):
    """A factorisation machine over the user's id and the candidate's features (Rendle, 2010).

    With x the transformed features and V one vector a feature, the article side is q = V x, so an article that
    nobody has seen in training has a vector as good as any other's, and

    score = b + w · x + p_u · q + Σ_{i<j} (v_i · v_j) x_i x_j.

    Args:
        embedding_size: length of p_u and of each v_i.
        settings: see ``SlateModel``.
    """

    name: ClassVar[str] = "mf_features"

    def __init__(self, embedding_size: int = 16, **settings: object) -> None:
        super().__init__(embedding_size=embedding_size, **settings)  # type: ignore[arg-type]
        size = self.hyperparameters
        self.users = embedding(size["users"], embedding_size)
        self.linear = nn.Linear(size["columns"], 1)
        self.factors = nn.Parameter(torch.randn(size["columns"], embedding_size) * 0.02)

    def score(self, features: torch.Tensor, user: torch.Tensor, article: torch.Tensor) -> torch.Tensor:
        """Score candidates by their features and the user; the article's id is not looked at."""
        side = features @ self.factors
        pairs = (side.square() - features.square() @ self.factors.square()).sum(dim=1) / 2
        return self.linear(features).squeeze(1) + pairs + (self.users(user) * side).sum(dim=1)
