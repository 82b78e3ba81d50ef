"""A session model: what a user clicks next follows from what they clicked since they came."""

from typing import Any, ClassVar

import torch
from torch import nn

from ebnerd_lib.models.base import Batch
from ebnerd_lib.models.layers import LastState
from ebnerd_lib.models.news import NewsModel


class SessionGRU(NewsModel):
    """Score = session state · article vector (Hidasi et al., Session-based Recommendations with RNNs, 2016).

    A gated recurrent unit goes through the articles that the user clicked in this session, strictly before the
    impression, oldest first. It starts from tanh(W m + b), m the mean of the articles in the history (Quadrana et al.,
    Hierarchical Recurrent Neural Networks, 2017), so a session without a click yet is served by the history. Clicks of
    the week put it into tier ``clicks``. Items are known by their vectors instead of their ids.

    The settings are those of ``NewsModel``; ``history_length`` counts the clicks of a session too.
    """

    name: ClassVar[str] = "gru"
    uses_session: ClassVar[bool] = True
    own_tier: ClassVar[str] = "clicks"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        size = self.hyperparameters["embedding_size"]
        self.first, self.state = nn.Linear(size, size), LastState(size)

    def user(self, batch: Batch, articles: torch.Tensor) -> torch.Tensor:
        """Return the state of each slate's session: (n, embedding_size)."""
        first = torch.tanh(self.first(batch.mean_read(articles)))
        return self.state(articles[batch.session], batch.with_vector(batch.session), first)
