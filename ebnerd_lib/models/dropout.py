"""Dropout whose chance is cheap."""

import torch
from torch import nn

_STEPS = 1 << 16


class Dropout(nn.Module):
    """Zero a share of the units in training, and scale the others up by what is missing (Srivastava et al., 2014).

    ``torch.nn.Dropout`` draws a number a unit, which on a CPU takes longer than the layers of a small network. Here one
    number of 64 bits decides over four units, so the share is kept to 1 / 65536.

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
