"""Batches of slates as array slices."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch

from ebnerd_lib.data.slates import Slates, candidate_rows
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.models.base import Batch, SlateModel
from ebnerd_lib.training.inputs import HistoryReader, IdEncoder, TrainingInputs


def gather(matrices: list[np.ndarray], where: np.ndarray, columns: np.ndarray) -> torch.Tensor:
    """Copy some columns of some rows of matrices of consecutive rows, as if they were one: float32 (m, columns).

    Args:
        matrices: float32 or float16 (rows, columns), memory-mapped or not, one or more.
        where: int (m,), rows in any order.
        columns: int64, positions of the columns.

    >>> gather([np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])], np.array([1, 0]), np.array([1]))
    tensor([[4.],
            [2.]])
    """
    if not len(columns):
        return torch.empty(len(where), 0)
    if len(matrices) == 1:
        found = np.take(matrices[0], where, axis=0, mode="clip")  # the other modes copy twice
    else:
        begins = np.cumsum([0] + [len(matrix) for matrix in matrices])
        part = np.searchsorted(begins, where, side="right") - 1
        found = np.empty((len(where), matrices[0].shape[1]), matrices[0].dtype)
        for number in np.unique(part):
            found[part == number] = matrices[number][where[part == number] - begins[number]]
    values = torch.from_numpy(found).float()  # torch turns halves into floats by the processor's own instruction
    every = np.array_equal(columns, np.arange(values.shape[1]))
    return values if every else values.index_select(1, torch.from_numpy(columns))


def keep_some(
    slate: np.ndarray, place: np.ndarray, clicked: np.ndarray, slates: int, negatives: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose all clicked candidates of each slate and at most ``negatives`` others, any of them as likely.

    Args:
        slate: int64 (m,), ascending, which slate a candidate belongs to.
        place: int64 (m,), its place within that.
        clicked: float32 (m,), whether it was clicked.
        slates: how many there are.
        negatives: how many to keep, 1 or more.
        rng: samples them.

    Returns:
        Positions of those kept, ascending, and their places within what is left of their slates.
    """
    # In order of slate, then clicks, then chance, the candidates to keep are the first ones of each slate.
    order = np.argsort(slate + np.where(clicked > 0, 0.0, 0.25 + rng.random(len(slate)) / 2))
    clicks = np.bincount(slate, weights=clicked, minlength=slates).astype(np.int64)
    kept = np.sort(order[place < clicks[slate] + negatives])
    lengths = np.bincount(slate[kept], minlength=slates)
    return kept, np.arange(len(kept)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


@dataclass(frozen=True)
class SlateBatches:
    """Iterates over batches of the slates ``rows``, in their order, or over one process's share of each.

    Of every batch the processes take turns to take a slate, so all have equally many batches and none is empty: a last
    batch of fewer slates than processes joins the one before it.
    """

    slates: Slates  # the slates of a part
    matrices: list[np.ndarray]  # the matching features, see ``gather``
    columns: list[int]  # positions of the columns a model sees; may be empty
    encoder: IdEncoder  # to the model's own indices
    rows: np.ndarray  # impression rows, in the order in which they are visited
    batch_size: int  # slates a batch, over all processes
    reader: HistoryReader | None = None  # gives article vectors, where the model looks at them
    negatives: int = 0  # candidates beside the clicks that are kept of a slate, sampled at random; 0 keeps all
    sample_seed: tuple[int, ...] = ()  # seed of the samples
    rank: int = 0  # number of this process, from 0
    ranks: int = 1  # processes that share each batch
    log_chance: np.ndarray | None = None  # of each candidate, where slates are samples, see ``Features``

    def __len__(self) -> int:
        """Return the number of batches, the last one maybe smaller, or larger where it took in a smaller one."""
        full, rest = divmod(len(self.rows), self.batch_size)
        return full + (rest >= self.ranks)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches."""
        cuts = self.batch_size * np.arange(1, len(self))
        for number, rows in enumerate(np.split(self.rows, cuts)):
            if len(rows):
                yield self._batch(rows[self.rank :: self.ranks], number)

    def _batch(self, rows: np.ndarray, number: int) -> Batch:
        slates = self.slates
        where, lengths = candidate_rows(slates.offsets, rows), slates.offsets[rows + 1] - slates.offsets[rows]
        slate = np.repeat(np.arange(len(rows)), lengths)
        place = where - np.repeat(slates.offsets[rows], lengths)
        clicked = slates.clicked[where].astype(np.float32)
        if self.negatives:
            rng = np.random.default_rng((*self.sample_seed, number, self.rank))
            kept, place = keep_some(slate, place, clicked, len(rows), self.negatives, rng)
            where, slate, clicked = where[kept], slate[kept], clicked[kept]
        article = slates.article[where]
        batch = Batch(
            features=gather(self.matrices, where, np.asarray(self.columns, dtype=np.int64)),
            user=torch.from_numpy(self.encoder.user[slates.user[rows]]),
            article=torch.from_numpy(self.encoder.article[article]),
            slate=torch.from_numpy(slate),
            place=torch.from_numpy(place),
            clicked=torch.from_numpy(clicked),
        )
        if self.log_chance is not None:
            batch = batch._replace(log_chance=torch.from_numpy(self.log_chance[where]))
        return batch if self.reader is None else self.reader.add_to(batch, slates, rows, article)


class SlateData(pl.LightningDataModule):
    """Training slates reshuffled every epoch by seed and epoch, and the tuning day's slates in order.

    Where several processes train, each gets its share of every batch, see ``SlateBatches``.

    Args:
        inputs: what may be learned from.
        network: the model that is to be trained: it says what it looks at.
        batch_size: slates a batch, over all processes.
        negatives: candidates beside the clicks that training keeps of a slate, sampled anew each epoch; 0 keeps all.
        seed: of the shuffles and samples.
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
