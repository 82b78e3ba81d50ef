"""NAML: an article is what attention makes of its views, a user what attention makes of articles."""

from typing import Any, ClassVar

import torch
from torch import nn

from ebnerd_lib.models.base import Batch
from ebnerd_lib.models.layers import AttentionPooling
from ebnerd_lib.models.news import NewsModel


class NAML(NewsModel):
    """Score = user vector · article vector (Wu et al., NAML: Attentive Multi-View Learning, 2019).

    The views of an article are its vector, its category and its subcategory, each through a layer of its own; additive
    attention weighs them. The user is additive attention over the articles clicked last in the history; a cold-start
    user, without such clicks, is a learned vector.

    Args:
        query_size: width of both attentions.
    """

    name: ClassVar[str] = "naml"
    uses_categories: ClassVar[bool] = True

    def __init__(self, query_size: int = 64, **settings: Any) -> None:
        super().__init__(query_size=query_size, **settings)
        size = self.hyperparameters["embedding_size"]
        self.of_view = nn.ModuleList(nn.Linear(size, size) for _ in self.of_categories)
        self.views, self.pool = AttentionPooling(size, query_size), AttentionPooling(size, query_size)

    def encode(self, batch: Batch) -> torch.Tensor:
        """Return each article of the batch, its views weighed: (k, embedding_size)."""
        views = [self.of_vector(self.centred(batch.vectors))]
        for place, (table, layer) in enumerate(zip(self.of_categories, self.of_view, strict=True)):
            views.append(layer(table(batch.views[:, place])))
        stacked = torch.stack([torch.tanh(view) for view in views], dim=1)
        return self.drop(self.views(stacked, torch.ones(stacked.shape[:2], dtype=torch.bool, device=stacked.device)))

    def user(self, batch: Batch, articles: torch.Tensor) -> torch.Tensor:
        """Return the user of each slate: (n, embedding_size)."""
        return self.pool(articles[batch.read], batch.with_vector(batch.read))
