"""Layers that models share: the transform of features, and dropout."""

import numpy as np
import torch
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


class Dropout(nn.Module):
    """Zero a share of the units in training, and scale the others up by what is missing (Srivastava et al., 2014).

    ``torch.nn.Dropout`` samples a number a unit, which on a CPU takes longer than the layers of a small network. Here
    one number of 64 bits decides over four units, so the share is exact to 1 / 65536.

    Args:
        share: of the units that are dropped, in [0, 1).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.dropped = round(share * _STEPS)

    def forward(self, units: torch.Tensor) -> torch.Tensor:
        """Drop units of any shape; nothing outside training."""
        if not self.training or not self.dropped:
            return units
        numbers = torch.empty(-(-units.numel() // 4), dtype=torch.int64, device=units.device)
        chance = numbers.random_(-(1 << 63), None).view(torch.int16)[: units.numel()].view(units.shape)
        keep = (chance >= self.dropped - _STEPS // 2).to(units.dtype)
        return units * keep.mul_(_STEPS / (_STEPS - self.dropped))

    def extra_repr(self) -> str:
        """Say the share where the network is printed."""
        return f"share={self.dropped / _STEPS:.4g}"
