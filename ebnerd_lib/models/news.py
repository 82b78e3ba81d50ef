"""What models of news have in common: articles known by their vectors, users by what they clicked."""

from typing import Any, ClassVar

import torch
from torch import nn

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.models.base import Batch, SlateModel, embedding
from ebnerd_lib.models.layers import Centred, Dropout


class NewsModel(SlateModel):
    """Score = user vector · article vector, both made from given vectors of articles.

    An article comes as one vector, as EBNeRD publishes them, and not word by word. It is encoded once a batch, however
    many slates and histories it stands in: e = tanh(W v + b), v being centred, 0 where it has no vector; with
    ``uses_categories`` e = tanh(W v + b + c + s), c and s embeddings of its category and subcategory.

    A subclass sets ``name`` and implements ``user``; it may encode articles in another way.

    Args:
        embedding_size: length of user and article vectors.
        dropout: share of units of the vectors that training drops.
        categories: ids that a model with ``uses_categories`` tells apart; all others are one unknown category.
        subcategories: the same.

    Raises:
        ConfigError: there are no article vectors.
    """

    uses_features: ClassVar[bool] = False
    uses_vectors: ClassVar[bool] = True
    uses_slate_context = False
    own_tier: ClassVar[str] = "content"

    def __init__(
        self,
        embedding_size: int = 64,
        dropout: float = 0.2,
        categories: list[int] | None = None,
        subcategories: list[int] | None = None,
        **settings: Any,
    ) -> None:
        ids: dict[str, Any] = {}
        if self.uses_categories:
            ids = {"categories": categories or [], "subcategories": subcategories or []}
        super().__init__(embedding_size=embedding_size, dropout=dropout, **ids, **settings)
        size = self.hyperparameters["vector_size"]
        if not size:
            raise ConfigError(
                f"models: {self.name} needs article vectors, and the bundle has none. Put an artifact of EBNeRD, such "
                "as contrastive_vector.parquet, into the bundle's folder and run 01_preprocess again."
            )
        self.centred, self.of_vector = Centred(size), nn.Linear(size, embedding_size)
        self.of_categories = nn.ModuleList(embedding(len(own) + 1, embedding_size) for own in ids.values())
        self.drop = Dropout(dropout)

    def encode(self, batch: Batch) -> torch.Tensor:
        """Return each article of the batch: (k, embedding_size)."""
        encoded = self.of_vector(self.centred(batch.vectors))
        for place, table in enumerate(self.of_categories):
            encoded = encoded + table(batch.views[:, place])
        return self.drop(torch.tanh(encoded))

    def user(self, batch: Batch, articles: torch.Tensor) -> torch.Tensor:
        """Return the user of each slate, made of encoded articles: (n, embedding_size)."""
        raise NotImplementedError

    def score(self, batch: Batch) -> torch.Tensor:
        """Score candidates by their vectors and what the user clicked."""
        articles = self.encode(batch)
        return (self.user(batch, articles)[batch.slate] * articles[batch.candidate]).sum(dim=1)
