"""Losses over the candidates of slates."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torchmetrics import Metric

from ebnerd_lib.models.auc import WIDE
from ebnerd_lib.models.batch import Batch, pad


def listwise(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Softmax cross entropy of the clicked candidate against the others of its slate, the mean over clicks.

    Several clicks in a slate count one by one; a slate without a click contributes nothing.
    """
    log_share = pad(scores, batch, float("-inf")).log_softmax(dim=1)
    at_clicks = log_share[batch.slate, batch.place] * batch.clicked
    return -at_clicks.sum() / batch.clicked.sum().clamp(min=1.0)


def bce(scores: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Binary cross entropy of every candidate on its own, the mean over candidates."""
    return F.binary_cross_entropy_with_logits(scores, batch.clicked)


LOSSES: dict[str, Callable[[torch.Tensor, Batch], torch.Tensor]] = {"listwise": listwise, "bce": bce}


class TuningLoss(Metric):
    """Mean of a loss over batches, weighted by their slates, however processes share the slates of each batch.

    Args:
        loss: its name in ``LOSSES``.
    """

    full_state_update = False
    total: torch.Tensor
    terms: torch.Tensor
    slates: torch.Tensor

    def __init__(self, loss: str) -> None:
        super().__init__()
        self._loss = loss
        # One place a batch: processes take part in every batch, so their places add up.
        for name in ("total", "terms", "slates"):
            self.add_state(name, torch.zeros(0, dtype=WIDE), dist_reduce_fx="sum")

    def update(self, scores: torch.Tensor, batch: Batch) -> None:
        """Add a batch, ``scores`` (m,)."""
        batch = batch._replace(clicked=batch.clicked.to(WIDE))
        terms = batch.clicked.sum() if self._loss == "listwise" else scores.new_tensor(len(scores), dtype=WIDE)
        self.total = torch.cat([self.total, (LOSSES[self._loss](scores.to(WIDE), batch) * terms).reshape(1)])
        self.terms = torch.cat([self.terms, terms.reshape(1)])
        self.slates = torch.cat([self.slates, terms.new_tensor([len(batch.user)])])

    def compute(self) -> torch.Tensor:
        """Return the mean so far; 0 where nothing was seen."""
        means = self.total / self.terms.clamp(min=1)
        return (means * self.slates).sum() / self.slates.sum().clamp(min=1)
