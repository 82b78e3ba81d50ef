"""AUC per impression as a torchmetrics state, for early stopping on any device and over processes.

Reported figures come from ``ebnerd_lib.evaluation`` on saved scores; a test holds the two together.
"""

import torch
from torchmetrics import Metric

from ebnerd_lib.models.batch import Batch, pad

WIDE = torch.float32 if torch.backends.mps.is_available() else torch.float64
"""Type of sums over slates: they come out the same however slates are shared by processes. Apple's GPU lacks it."""


class SlateAUC(Metric):
    """Mean AUC over the slates seen; slates without a click or with nothing but clicks are left out.

    Ties count one half. 0 where no slate could be judged.
    """

    full_state_update = False
    total: torch.Tensor
    slates: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=WIDE), dist_reduce_fx="sum")
        self.add_state("slates", torch.zeros((), dtype=WIDE), dist_reduce_fx="sum")

    def update(self, scores: torch.Tensor, batch: Batch) -> None:
        """Add the slates of a batch, ``scores`` (m,)."""
        table = pad(scores.float(), batch, 0.0)
        others = pad(1 - batch.clicked, batch, 0.0)
        click = batch.clicked > 0
        row = batch.slate[click]
        mine = scores[click].float().unsqueeze(1)
        wins = (((mine > table[row]) + 0.5 * (mine == table[row])) * others[row]).sum(dim=1)
        # Sums by index_add: on a GPU, torch refuses weighted bincount where runs must repeat.
        nothing = wins.new_zeros(len(batch.user))
        pairs = nothing.index_add(0, row, torch.ones_like(wins)) * others.sum(dim=1)
        judged = pairs > 0
        per_slate = nothing.index_add(0, row, wins)
        self.total += (per_slate[judged].to(WIDE) / pairs[judged]).sum()
        self.slates += judged.sum()

    def compute(self) -> torch.Tensor:
        """Return the mean so far."""
        return self.total / self.slates.clamp(min=1)
