"""What Lightning's ``Trainer`` is given: a network as it is trained, and its batches.

Only trainings load it: to import Lightning takes longer than to score what a model is asked for.
"""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torchmetrics import MeanMetric

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.models.base import LOSSES, WIDE, Batch, SlateModel, slate_auc, slate_ndcg
from ebnerd_lib.training.batches import SlateBatches
from ebnerd_lib.training.inputs import HistoryReader, IdEncoder, TrainingInputs


class Mean(MeanMetric):
    """Mean in 64 bits, however processes share its terms; a move to a device sets torchmetrics' own back to 32."""

    dtype = WIDE

    def __init__(self) -> None:
        super().__init__()
        self.set_dtype(WIDE)


class SlateTraining(pl.LightningModule):
    """A network and how it is trained: its loss, the metrics of the tuning day, its optimiser and schedule."""

    def __init__(self, network: SlateModel) -> None:
        super().__init__()
        self.network = network
        self.tuning_auc, self.tuning_ndcg, self.tuning_loss = Mean(), Mean(), Mean()

    def on_train_epoch_start(self) -> None:
        """Start the sums of the epoch's mean loss."""
        self._losses: list[torch.Tensor] = []
        self._slates: list[int] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        """Return the loss of a batch; the mean is logged once an epoch, as to log takes longer than a small step."""
        loss = self.network.loss(batch)
        self._losses.append(loss.detach())
        self._slates.append(len(batch.user))
        if self.trainer.is_last_batch:
            slates = torch.tensor(self._slates, dtype=loss.dtype, device=loss.device)
            mean = (torch.stack(self._losses) * slates).sum() / slates.sum()
            self.log("train/loss", mean, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Collect AUC and next-click nDCG of the tuning day's slates, and the loss of its clicks or candidates."""
        scores, loss = self.network(batch), self.network.hyperparameters["loss"]
        wide = batch._replace(clicked=batch.clicked.to(WIDE))
        terms = wide.clicked.sum() if loss == "listwise" else len(scores)
        self.tuning_loss.update(LOSSES[loss](scores.to(WIDE), wide).nan_to_num(torch.inf), terms)  # it skips NaN
        self.tuning_auc.update(slate_auc(scores, batch))
        self.tuning_ndcg.update(slate_ndcg(scores, batch))
        means = {"val/loss": self.tuning_loss, "val/auc": self.tuning_auc, "val/ndcg": self.tuning_ndcg}
        self.log_dict(means, on_step=False, on_epoch=True, batch_size=len(batch.user))

    def configure_optimizers(self) -> Any:
        """AdamW, with decay on matrices only, and the schedule."""
        settings = self.network.hyperparameters
        optimizer = self.network.adamw(list(self.network.parameters()), settings["learning_rate"])
        if settings["schedule"] == "constant":
            return optimizer
        # Of five steps, a fifth is one: the schedule would divide by the length 0 of its way up.
        steps = max(int(self.trainer.estimated_stepping_batches), 6)
        one_cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings["learning_rate"], total_steps=steps, pct_start=0.2, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": one_cycle, "interval": "step"}}


class SlateData(pl.LightningDataModule):
    """Training slates reshuffled every epoch by seed and epoch, and the tuning day's slates in order.

    Where several processes train, each gets its share of every batch of ``batch_size`` slates, see ``SlateBatches``.
    Of a slate, training keeps the clicks and ``negatives`` others, sampled anew each epoch; 0 keeps all.
    """

    def __init__(
        self, inputs: TrainingInputs, network: SlateModel, batch_size: int, negatives: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        self._inputs, self._batch_size, self._negatives, self._seed = inputs, batch_size, negatives, seed
        self._columns = inputs.columns(network)
        self._encoder = IdEncoder.between(inputs.dataset, inputs.users, inputs.articles)
        self._reader = HistoryReader.of(inputs.dataset, network)

    def train_dataloader(self) -> SlateBatches:
        """Return the epoch's batches; the trainer asks anew each epoch, so a resumed run sees the same order."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        rows = np.random.default_rng((self._seed, epoch)).permutation(self._inputs.rows)
        return self._batches("train", rows, self._batch_size, self._negatives, (self._seed, epoch))

    def val_dataloader(self) -> SlateBatches:
        """Return the tuning day's batches."""
        return self._batches("tuning", np.arange(len(self._inputs.dataset.parts["tuning"])), 4 * self._batch_size)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Batch:
        """Move a batch to where the model is; Lightning's own way looks for tensors within every tensor."""
        return batch if device.type == "cpu" else Batch(*(each.to(device, non_blocking=True) for each in batch))

    def _batches(
        self, part: str, rows: np.ndarray, batch_size: int, negatives: int = 0, sample_seed: tuple[int, ...] = ()
    ) -> SlateBatches:
        rank, ranks = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        if min(len(rows), batch_size) < ranks:
            raise ConfigError(
                f"batch_size: {ranks} processes cannot share batches of {batch_size} of the {len(rows)} slates of the "
                f"{part} part. Start at most {min(len(rows), batch_size)}."
            )
        return SlateBatches(
            self._inputs.dataset.parts[part], [self._inputs.features[part].matrix], self._columns, self._encoder, rows,
            batch_size, self._reader, negatives, sample_seed, rank, ranks, self._inputs.features[part].log_chance,
        )  # fmt: skip
