"""Batches of slates as array slices."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ebnerd_lib.data.slates import Slates, candidate_rows
from ebnerd_lib.models.base import Batch
from ebnerd_lib.training.inputs import HistoryReader, IdEncoder


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

    The candidates are those of so many ``slates``, see ``Batch``. Positions of those kept are returned, ascending, and
    their places within what is left of their slates.
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
            rng = np.random.default_rng((*self.sample_seed, 1 + number, self.rank))  # not that of the shuffle
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
