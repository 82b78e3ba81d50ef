"""A training loop of torch alone over the same batches: forward, loss, backward, step; then the tuning day."""

from collections.abc import Iterable

import torch

from ebnerd_lib.models.auc import SlateAUC
from ebnerd_lib.models.base import SlateModel
from ebnerd_lib.models.batch import Batch
from ebnerd_lib.models.losses import LOSSES


class BareLoop:
    """Trains a network with its own loss, its own optimizer and a one-cycle schedule.

    Args:
        network: to train.
        steps: batches of all epochs together.
    """

    def __init__(self, network: SlateModel, steps: int) -> None:
        settings = network.hyperparameters
        self._network, self._loss = network, LOSSES[settings["loss"]]
        self._optimizer = network.adamw(list(network.parameters()), settings["learning_rate"])
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, settings["learning_rate"], total_steps=steps, pct_start=0.2, cycle_momentum=False
        )

    def epoch(self, batches: Iterable[Batch], tuning: Iterable[Batch]) -> float:
        """Train on all batches, then return the AUC of the tuning day."""
        self._network.train()
        for batch in batches:
            self._optimizer.zero_grad()
            self._loss(self._network(batch), batch).backward()
            self._optimizer.step()
            self._schedule.step()
        self._network.eval()
        auc = SlateAUC()
        total = torch.zeros(())
        with torch.inference_mode():
            for batch in tuning:
                scores = self._network(batch)
                total += self._loss(scores, batch)
                auc.update(scores, batch)
        return float(auc.compute())
