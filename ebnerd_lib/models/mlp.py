"""A multilayer perceptron over user and article embeddings and features."""

from typing import ClassVar

import torch
from torch import nn

from ebnerd_lib.models.base import SlateModel, embedding


class MLP(SlateModel):
    """Score = MLP(user embedding ⊕ article embedding ⊕ transformed features).

    Args:
        embedding_size: width of both embeddings; 0 leaves ids out.
        hidden: widths of the hidden layers.
        dropout: share of hidden units that training drops.
        settings: see ``SlateModel``.
    """

    name: ClassVar[str] = "mlp"

    def __init__(
        self, embedding_size: int = 8, hidden: tuple[int, ...] = (128, 64), dropout: float = 0.1, **settings: object
    ) -> None:
        super().__init__(embedding_size=embedding_size, hidden=list(hidden), dropout=dropout, **settings)  # type: ignore[arg-type]
        size = self.hyperparameters
        self.users, self.articles = (
            embedding(size["users"], embedding_size),
            embedding(size["articles"], embedding_size),
        )
        layers: list[nn.Module] = []
        width = size["columns"] + 2 * embedding_size
        for units in hidden:
            layers += [nn.Linear(width, units), nn.ReLU(), nn.Dropout(dropout)]
            width = units
        self.layers = nn.Sequential(*layers, nn.Linear(width, 1))

    def score(self, features: torch.Tensor, user: torch.Tensor, article: torch.Tensor) -> torch.Tensor:
        """Score candidates one by one."""
        return self.layers(torch.cat([self.users(user), self.articles(article), features], dim=1)).squeeze(1)
