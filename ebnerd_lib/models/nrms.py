"""NRMS on article vectors: a user is what attention makes of the articles in the history."""

from typing import Any, ClassVar

import torch
from torch import nn

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.models.base import Batch, SlateModel
from ebnerd_lib.models.layers import Dropout


class NRMS(SlateModel):
    """Score = user vector · article vector, both made from given vectors of articles (Wu et al., NRMS, 2019).

    The original encodes titles word by word; here an article comes as one vector, as EBNeRD publishes them, through a
    linear layer. The user is self-attention over the vectors clicked last in the history, then additive attention.
    A cold-start user, without such clicks, is a learned vector, and an article without a vector is the layer's bias.
    It looks at no feature and no id, so its tier is ``content`` and an article published a minute ago is no harder
    than any other.

    Args:
        embedding_size: length of user and article vectors, a multiple of ``heads``.
        heads: heads of self-attention.
        history_length: clicks of the history that it looks at, the latest ones.
        query_size: width of additive attention.
        dropout: share of units of the vectors that training drops.
        settings: see ``SlateModel``.

    Raises:
        ConfigError: there are no article vectors, or the heads do not divide ``embedding_size``.
    """

    name: ClassVar[str] = "nrms"
    uses_features: ClassVar[bool] = False
    uses_vectors: ClassVar[bool] = True
    uses_slate_context = False
    own_tier: ClassVar[str] = "content"

    def __init__(
        self,
        embedding_size: int = 64,
        heads: int = 8,
        history_length: int = 30,
        query_size: int = 64,
        dropout: float = 0.2,
        **settings: Any,
    ) -> None:
        super().__init__(
            embedding_size=embedding_size, heads=heads, history_length=history_length, query_size=query_size,
            dropout=dropout, **settings,
        )  # fmt: skip
        if not self.hyperparameters["vector_size"]:
            raise ConfigError(
                "models: nrms needs article vectors, and the bundle has none. Put an artifact of EBNeRD, such as "
                "contrastive_vector.parquet, into the bundle's folder and run 01_preprocess again."
            )
        if heads < 1 or embedding_size % heads:
            raise ConfigError(f"heads: {heads} do not divide embedding_size {embedding_size}.")
        self.encoder = nn.Sequential(
            nn.Linear(self.hyperparameters["vector_size"], embedding_size), nn.Tanh(), Dropout(dropout)
        )
        self.attention = nn.MultiheadAttention(embedding_size, heads, batch_first=True)
        self.key = nn.Linear(embedding_size, query_size)
        self.query = nn.Linear(query_size, 1, bias=False)
        self.stranger = nn.Parameter(torch.zeros(embedding_size))

    def score(self, batch: Batch) -> torch.Tensor:
        """Score candidates by their vectors and the user's history."""
        return (self._user(batch)[batch.slate] * self.encoder(batch.vector)).sum(dim=1)

    def _user(self, batch: Batch) -> torch.Tensor:
        """Return the user of each slate: (n, embedding_size)."""
        nobody = ~batch.was_read.any(dim=1, keepdim=True)
        free = ~batch.was_read & ~nobody  # attention over nothing would be NaN, so a cold-start user attends to zeros
        read = self.encoder(batch.read)
        mixed, _ = self.attention(read, read, read, key_padding_mask=free, need_weights=False)
        weight = self.query(torch.tanh(self.key(mixed))).masked_fill(free.unsqueeze(2), float("-inf")).softmax(dim=1)
        return torch.where(nobody, self.stranger, (weight * mixed).sum(dim=1))
