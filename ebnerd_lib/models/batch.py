"""A batch of slates as tensors: what every model scores."""

from typing import NamedTuple

import torch


class Batch(NamedTuple):
    """Some slates, n impressions and m candidates, flat and without padding.

    Attributes:
        features: float32 (m, columns), raw values, NaN where unknown.
        user: int64 (n,), index into the model's own users, 0 unknown.
        article: int64 (m,), index into the model's own articles, 0 unknown.
        slate: int64 (m,), which of the n slates a candidate belongs to.
        place: int64 (m,), position of the candidate within its slate.
        clicked: float32 (m,).
        vector: float32 (m, size), the article vector of each candidate, zeros where it has none; size 0 for models
            that do not look at vectors.
        read: float32 (n, history, size), vectors of the articles that the user clicked last before the week.
        was_read: bool (n, history), which places of ``read`` hold an article with a vector.
    """

    features: torch.Tensor
    user: torch.Tensor
    article: torch.Tensor
    slate: torch.Tensor
    place: torch.Tensor
    clicked: torch.Tensor
    vector: torch.Tensor = torch.empty(0, 0)
    read: torch.Tensor = torch.empty(0, 0, 0)
    was_read: torch.Tensor = torch.empty(0, 0, dtype=torch.bool)

    def taste(self) -> torch.Tensor:
        """Return the mean of the vectors that the user read, zeros for a user without any: float32 (n, size)."""
        known = self.was_read.unsqueeze(2)
        return (self.read * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)


def slate_mean(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return the mean of values (m, width) over the candidates of each slate, for each candidate: (m, width)."""
    slates = len(batch.user)
    total = values.new_zeros(slates, values.shape[1]).index_add(0, batch.slate, values)
    count = values.new_zeros(slates).index_add(0, batch.slate, torch.ones_like(values[:, 0]))
    return (total / count.unsqueeze(1))[batch.slate]


def pad(values: torch.Tensor, batch: Batch, fill: float) -> torch.Tensor:
    """Spread one value a candidate over a (n, longest slate) tensor, ``fill`` where a slate is shorter."""
    out = values.new_full((len(batch.user), int(batch.place.max()) + 1), fill)
    return out.index_put((batch.slate, batch.place), values)


def pad_rows(values: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Spread rows (m, width) over a (n, longest slate, width) tensor of zeros, and say which places are free."""
    shape = (len(batch.user), int(batch.place.max()) + 1)
    free = torch.ones(shape, dtype=torch.bool, device=values.device).index_put(
        (batch.slate, batch.place), torch.zeros_like(batch.slate, dtype=torch.bool)
    )
    table = values.new_zeros(*shape, values.shape[1]).index_put((batch.slate, batch.place), values)
    return table, free
