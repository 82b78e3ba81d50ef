"""NRMS on article vectors: a user is what attention makes of the articles in the history."""

from typing import Any, ClassVar

import torch
from torch import nn

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.models.base import Batch
from ebnerd_lib.models.layers import AttentionPooling
from ebnerd_lib.models.news import NewsModel


class NRMS(NewsModel):
    """Score = user vector · article vector (Wu et al., NRMS: News Recommendation with Multi-Head Self-Attention, 2019).

    The user is self-attention over the articles clicked last in the history, then additive attention; a cold-start
    user, without such clicks, is a learned vector. It looks at no feature and no id, so an article published a minute
    ago is no harder than any other.

    Args:
        heads: heads of self-attention, which divide ``embedding_size``.
        query_size: width of additive attention.

    Raises:
        ConfigError: the heads do not divide ``embedding_size``.
    """

    name: ClassVar[str] = "nrms"

    def __init__(self, heads: int = 8, query_size: int = 64, **settings: Any) -> None:
        super().__init__(heads=heads, query_size=query_size, **settings)
        size = self.hyperparameters["embedding_size"]
        if heads < 1 or size % heads:
            raise ConfigError(f"heads: {heads} do not divide embedding_size {size}.")
        self.attention = nn.MultiheadAttention(size, heads, batch_first=True)
        self.pool = AttentionPooling(size, query_size)

    def user(self, batch: Batch, articles: torch.Tensor) -> torch.Tensor:
        """Return the user of each slate: (n, embedding_size)."""
        read, known = articles[batch.read], batch.with_vector(batch.read)
        free = ~known & known.any(dim=1, keepdim=True)  # attention over nothing would be NaN
        mixed, _ = self.attention(read, read, read, key_padding_mask=free, need_weights=False)
        return self.pool(mixed, known)
