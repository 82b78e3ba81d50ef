"""A stable transform of skewed inputs, learnt on training rows and saved with the model."""

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
