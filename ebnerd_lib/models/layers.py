"""Layers that models share: the transforms of features and of vectors, dropout, and two ways to read a history."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

_LIMIT = 5.0


class FeatureTransform(nn.Module):
    """Turn raw features into standardised ones: sign(x)·log(1 + |x|), then mean 0 and deviation 1, within ±5.

    NaN becomes 0, the training mean; a column that never varied in training becomes 0 throughout.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))

    def fit(self, matrix: np.ndarray, rows: np.ndarray, columns: list[int], chunk: int = 1 << 14) -> None:
        """Learn mean and deviation of ``columns`` over ``rows`` of a features matrix, NaNs left out."""
        count, total, squares = (np.zeros(len(columns)) for _ in range(3))
        for start in range(0, len(rows), chunk):
            raw = np.asarray(matrix[rows[start : start + chunk]])[:, columns].astype(np.float64)
            values = np.sign(raw) * np.log1p(np.abs(raw))
            known = ~np.isnan(values)
            values = np.where(known, values, 0.0)
            count += known.sum(axis=0)
            total += values.sum(axis=0)
            squares += (values * values).sum(axis=0)
        mean = total / np.maximum(count, 1)
        variance = np.maximum(squares / np.maximum(count, 1) - mean**2, 0.0)
        varies = variance > 1e-8
        scale = np.where(varies, 1 / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.copy_(torch.from_numpy(scale))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Transform (m, columns) raw features."""
        # In place: a new tensor a step would cost more than the steps.
        values = features.abs().log1p_().copysign_(features).sub_(self.mean).mul_(self.scale)
        return values.nan_to_num_(nan=0.0).clamp_(-_LIMIT, _LIMIT)


_STEPS = 1 << 16


class Dropout(nn.Dropout):
    """Zero a share of the units in training, and scale the others up by what is missing (Srivastava et al., 2014).

    Torch's own samples a number a unit, which on a CPU takes longer than the layers of a small network. Here one
    number of 64 bits decides over four units, so the share, in [0, 1), is exact to 1 / 65536.
    """

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Drop units of any shape; nothing outside training."""
        dropped = round(self.p * _STEPS)
        if not self.training or not dropped:
            return units
        numbers = torch.empty(-(-units.numel() // 4), dtype=torch.int64, device=units.device)
        chance = numbers.random_(-(1 << 63), None).view(torch.int16)[: units.numel()].view(units.shape)
        keep = (chance >= dropped - _STEPS // 2).to(units.dtype)
        return units * keep.mul_(_STEPS / (_STEPS - dropped))


class Centred(nn.Module):
    """Article vectors less their mean, each scaled to the length √size; what has no vector stays zeros.

    Vectors of news texts are alike, so that their mean outweighs what tells them apart. At this length a coordinate has
    a variance of about 1, for which the first weights of a linear layer are made.
    """

    mean: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))

    def fit(self, vectors: np.ndarray) -> None:
        """Take the mean of vectors (articles, size), those of zeros left out."""
        known = vectors[vectors.any(axis=1)]
        if len(known):
            self.mean.copy_(torch.from_numpy(known.mean(axis=0, dtype=np.float64)))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Transform vectors (…, size)."""
        known = vectors.any(dim=-1, keepdim=True)
        return F.normalize((vectors - self.mean) * known, dim=-1) * vectors.shape[-1] ** 0.5


class AttentionPooling(nn.Module):
    """Additive attention: Σ_i softmax_i(q · tanh(W x_i + b)) x_i (Bahdanau et al., 2015; Yang et al., 2016).

    ``width`` is the length of x, ``query_size`` that of q.
    """

    def __init__(self, width: int, query_size: int) -> None:
        super().__init__()
        self.key, self.query = nn.Linear(width, query_size), nn.Linear(query_size, 1, bias=False)
        self.empty = nn.Parameter(torch.zeros(width))

    def forward(self, values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Pool values (n, places, width) over the places that are known (n, places); a learned vector where none is."""
        weight = self.query(torch.tanh(self.key(values))).squeeze(2)
        weight = weight.masked_fill(~known, torch.finfo(weight.dtype).min).softmax(dim=1)
        return torch.where(known.any(dim=1, keepdim=True), (weight.unsqueeze(2) * values).sum(dim=1), self.empty)


class LastState(nn.Module):
    """The last state of a gated recurrent unit over the known places of a sequence (Cho et al., 2014)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, values: torch.Tensor, known: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Go through values (n, places, width) from the states ``first`` (n, width), which stay where none is known."""
        length = known.sum(dim=1)
        longest = int(length.max())
        if not longest:
            return first
        # Known places first, in their order: what stands after a sequence does not reach its last state.
        order = (~known).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest, None]
        states, _ = self.gru(values.gather(1, order.expand(-1, -1, values.shape[2])), first.unsqueeze(0).contiguous())
        last = states[torch.arange(len(states), device=states.device), (length - 1).clamp(min=0)]
        return torch.where(length.unsqueeze(1) > 0, last, first)
