"""PP-Rec: what suits the user, and what is popular, weighed for each user."""

from typing import Any, ClassVar

import torch
from torch import nn

from ebnerd_lib.models.base import Batch
from ebnerd_lib.models.nrms import NRMS


class PPRec(NRMS):
    """Score = (1 − η) · user vector · article vector + η · popularity (Qi et al., PP-Rec, 2021).

    - the user u and the article e are those of ``NRMS``, and so is their product, the relevance;
    - popularity = MLP(x) + w · e: x are the candidate's age and its counts of recent clicks and times in view, each
      strictly before the impression; w · e is what its text alone promises;
    - the gate η = σ(v · u + b) says how much of popularity a user follows.

    The tier decides which counts it may see: ``clicks`` all, ``exposure`` those of times in view, ``content`` only the
    age. The paper's popularity-aware attention over the history is left out.

    Args:
        query_size: width of additive attention and of the MLP's hidden layer.
    """

    name: ClassVar[str] = "pprec"
    uses_features: ClassVar[bool] = True
    feature_names: ClassVar[tuple[str, ...]] = (
        "age_hours", "clicks_1h", "clicks_24h", "clicks_week", "inviews_1h", "inviews_24h", "inviews_week",
    )  # fmt: skip

    def __init__(self, query_size: int = 64, **settings: Any) -> None:
        super().__init__(query_size=query_size, **settings)
        columns, size = self.hyperparameters["columns"], self.hyperparameters["embedding_size"]
        self.popularity = nn.Sequential(nn.Linear(columns, query_size), nn.ReLU(), nn.Linear(query_size, 1))
        self.promise, self.gate = nn.Linear(size, 1, bias=False), nn.Linear(size, 1)

    def score(self, batch: Batch) -> torch.Tensor:
        """Score candidates by relevance and popularity."""
        articles = self.encode(batch)
        user, candidate = self.user(batch, articles), articles[batch.candidate]
        share = torch.sigmoid(self.gate(user))[batch.slate].squeeze(1)
        popularity = (self.popularity(batch.features) + self.promise(candidate)).squeeze(1)
        return (1 - share) * (user[batch.slate] * candidate).sum(dim=1) + share * popularity
