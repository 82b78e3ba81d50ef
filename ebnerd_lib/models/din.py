"""Deep Interest Network: of the history, what has to do with the candidate."""

from typing import Any, ClassVar

import torch
from torch import nn

from ebnerd_lib.models.base import Batch
from ebnerd_lib.models.layers import Dropout
from ebnerd_lib.models.news import NewsModel

_HIDDEN = (128, 64)


class DIN(NewsModel):
    """Score = MLP(x ⊕ e ⊕ u), u made for each candidate anew (Zhou et al., Deep Interest Network, 2018).

    x are the transformed features of the tier, e the candidate, and u = Σ_i a_i h_i over the articles h_i clicked last
    in the history, with a_i = w · tanh(A h_i + B e + C (h_i ∘ e)). The weights are no shares: as in the paper they are
    not normalised, so u also tells how much of the history concerns the candidate; they are divided by the number of
    clicks. Articles have categories.

    Args:
        query_size: width of the attention.
    """

    name: ClassVar[str] = "din"
    uses_features: ClassVar[bool] = True
    uses_categories: ClassVar[bool] = True

    def __init__(self, query_size: int = 64, **settings: Any) -> None:
        super().__init__(query_size=query_size, **settings)
        columns, size = self.hyperparameters["columns"], self.hyperparameters["embedding_size"]
        self.of_read, self.of_candidate = nn.Linear(size, query_size), nn.Linear(size, query_size, bias=False)
        self.of_both, self.weight = nn.Linear(size, query_size, bias=False), nn.Linear(query_size, 1, bias=False)
        blocks: list[nn.Module] = []
        width = columns + 2 * size
        for units in _HIDDEN:
            blocks += [nn.Linear(width, units), nn.ReLU(), Dropout(self.hyperparameters["dropout"])]
            width = units
        self.layers = nn.Sequential(*blocks, nn.Linear(width, 1))

    def score(self, batch: Batch) -> torch.Tensor:
        """Score candidates, each with what of the history concerns it."""
        articles = self.encode(batch)
        candidate = articles[batch.candidate]
        return self.layers(torch.cat([batch.features, candidate, self.interest(batch, articles)], dim=1)).squeeze(1)

    def interest(self, batch: Batch, articles: torch.Tensor) -> torch.Tensor:
        """Return u of each candidate: (m, embedding_size)."""
        read, known, e = articles[batch.read], batch.with_vector(batch.read), articles[batch.candidate]
        # A h is computed once a slate, and C (h ∘ e) as (C ∘ e) h.
        alone, read = self.of_read(read)[batch.slate], read[batch.slate]
        both = read @ (self.of_both.weight * e.unsqueeze(1)).transpose(1, 2)
        weight = self.weight(torch.tanh(both + alone + self.of_candidate(e).unsqueeze(1))).squeeze(2)
        weight = weight * (known / known.sum(dim=1, keepdim=True).clamp(min=1))[batch.slate]
        return (weight.unsqueeze(1) @ read).squeeze(1)
