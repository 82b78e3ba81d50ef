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
    """

    features: torch.Tensor
    user: torch.Tensor
    article: torch.Tensor
    slate: torch.Tensor
    place: torch.Tensor
    clicked: torch.Tensor


def pad(values: torch.Tensor, batch: Batch, fill: float) -> torch.Tensor:
    """Spread one value a candidate over a (n, longest slate) tensor, ``fill`` where a slate is shorter."""
    out = values.new_full((len(batch.user), int(batch.place.max()) + 1), fill)
    return out.index_put((batch.slate, batch.place), values)
