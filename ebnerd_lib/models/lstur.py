"""LSTUR: who a user is in the long run, and what they clicked recently, in one recurrent state."""

from typing import Any, ClassVar

import torch

from ebnerd_lib.models.base import Batch, embedding
from ebnerd_lib.models.layers import LastState
from ebnerd_lib.models.news import NewsModel


class LSTUR(NewsModel):
    """Score = user vector · article vector (An et al., LSTUR: Long- and Short-term User Representations, 2019).

    A gated recurrent unit goes through the articles clicked last in the history, oldest first. It starts from the
    embedding of the user's id, as in the paper's variant LSTUR-ini, and its last state is the user. Articles have
    categories. Training replaces most ids by the unknown one (``id_dropout``), as the paper does, so that a user who
    is not in training starts from an embedding that was trained too.
    """

    name: ClassVar[str] = "lstur"
    uses_categories: ClassVar[bool] = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        size = self.hyperparameters
        self.users = embedding(size["users"], size["embedding_size"])
        self.state = LastState(size["embedding_size"])

    def user(self, batch: Batch, articles: torch.Tensor) -> torch.Tensor:
        """Return the user of each slate: (n, embedding_size)."""
        return self.state(articles[batch.read], batch.with_vector(batch.read), self.users(batch.user))
