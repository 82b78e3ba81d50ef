"""Several networks of one kind with different first weights, trained side by side, whose scores are averaged."""

from collections.abc import Sequence

import torch
from torch import nn

from ebnerd_lib.models.base import Batch, SlateModel

_DECLARED = ("name", "own_tier", "feature_names", *(name for name in vars(SlateModel) if name.startswith("uses_")))


class Ensemble(SlateModel):
    """Score = mean of the members' scores; loss = mean of the members' losses, so each learns as it would alone.

    Networks that differ by their seed alone err in different places, so their mean ranks a little better than any.
    The tuning day's AUC is that of the mean, so all members stop at one best epoch.

    Args:
        members: networks of one kind and of the same hyperparameters, one or more.
    """

    def __init__(self, members: Sequence[SlateModel]) -> None:
        first = members[0]
        super().__init__(**first.hyperparameters)
        self.hyperparameters, self.size = dict(first.hyperparameters), len(members)
        for member in members:
            member.hyperparameters = self.hyperparameters  # when tables of ids grow, those of all members do
        for name in _DECLARED:
            setattr(self, name, getattr(first, name))
        del self.transform  # each member has its own
        self.members = nn.ModuleList(members)

    def forward(self, batch: Batch) -> torch.Tensor:
        """Score every candidate of a batch: (m,)."""
        return torch.stack([member(batch) for member in self.members]).mean(dim=0)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return the mean of the members' losses."""
        return torch.stack([member.loss(batch) for member in self.members]).mean()  # type: ignore[operator]
