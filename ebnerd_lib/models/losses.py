"""Losses over the candidates of slates."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

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
