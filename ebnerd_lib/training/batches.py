"""Batches of slates as array slices."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytorch_lightning as pl
import torch
from numba import njit

from ebnerd_lib.data.bundle import History
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR, Slates, candidate_rows
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.features.store import Features
from ebnerd_lib.models.base import Batch, SlateModel

_BITS = {2: np.uint16, 4: np.uint32}


def gather(matrix: np.ndarray, where: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Copy some columns of some rows of a matrix: float32 (len(where), columns).

    Args:
        matrix: float32 or float16 (rows, columns), memory-mapped or not.
        where: int (m,), rows in any order.
        columns: int64, positions of the columns.

    >>> gather(np.array([[1.0, 2.0], [3.0, 4.0]], np.float16), np.array([1, 1, 0]), np.array([1]))
    array([[4.],
           [4.],
           [2.]], dtype=float32)
    """
    if not len(columns):
        return np.empty((len(where), 0), np.float32)
    if np.array_equal(columns, np.arange(matrix.shape[1])):
        values = np.take(matrix, where, axis=0, mode="clip")  # the other modes copy twice
    else:
        # The kernel knows no float16, and copying needs no more than the bits.
        bits = np.asarray(matrix).view(_BITS[matrix.dtype.itemsize])
        out = np.empty((len(where), len(columns)), bits.dtype)
        _copy(bits, where, columns, out)
        values = out.view(matrix.dtype)
    # Torch turns halves into floats with the processor's own instruction, numpy one by one.
    return values if values.dtype == np.float32 else torch.from_numpy(values).float().numpy()


@njit(cache=True, nogil=True)
def _copy(matrix, where, columns, out):  # type: ignore[no-untyped-def]
    # Positions without a sign spare a branch a value.
    for i in range(len(where)):
        row = np.uint64(where[i])
        for j in range(np.uint64(len(columns))):
            out[i, j] = matrix[row, np.uint64(columns[j])]


def gather_parts(matrices: list[np.ndarray], where: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Copy as ``gather`` does from matrices of consecutive rows, one or more, as if they were one."""
    if len(matrices) == 1:
        return gather(matrices[0], where, columns)
    begins = np.cumsum([0] + [len(matrix) for matrix in matrices])
    out = np.empty((len(where), len(columns)), np.float32)
    part = np.searchsorted(begins, where, side="right") - 1
    for number in np.unique(part):
        own = part == number
        out[own] = gather(matrices[number], where[own] - begins[number], columns)
    return out


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
class IdEncoder:
    """Dataset indices to a model's own: what a model has not seen in training becomes its unknown, 0.

    Attributes:
        user: int64, by the dataset's user index.
        article: int64, by the dataset's article index.
    """

    user: np.ndarray
    article: np.ndarray

    @classmethod
    def between(cls, dataset: Dataset, users: Vocabulary, articles: Vocabulary) -> "IdEncoder":
        """Build the encoder from a dataset's tables to a model's vocabularies."""
        user = users.index_of(dataset.users["user_id"].to_numpy())
        article = articles.index_of(dataset.articles["article_id"].to_numpy())
        user[0] = article[0] = 0
        return cls(user.astype(np.int64), article.astype(np.int64))


@dataclass(frozen=True)
class HistoryReader:
    """What gives a model the vectors of candidates and of the articles that users clicked last before the week.

    Attributes:
        vectors: float32 (articles, size), by the dataset's article index, zeros where there is none.
        known: bool (articles,), whether an article has a vector.
        histories: the clicks before each week.
        length: clicks of a user's history that are looked at, the latest ones.
    """

    vectors: np.ndarray
    known: np.ndarray
    histories: list[History]
    length: int

    @classmethod
    def of(cls, dataset: Dataset, network: SlateModel) -> "HistoryReader | None":
        """Return what a model needs of a dataset; ``None`` if it does not look at vectors.

        Raises:
            StageError: the model was trained with vectors of another length.
        """
        wanted = network.hyperparameters["vector_size"]
        if not wanted:
            return None
        vectors = dataset.metadata.vectors
        if vectors.shape[1] != wanted:
            raise StageError(
                f"model {network.name}: it was trained with article vectors of length {wanted}, the bundle has "
                f"{vectors.shape[1] or 'none'}. Use the same vectors or train it again."
            )
        length = network.hyperparameters["history_length"]
        return cls(vectors, np.asarray(vectors.any(axis=1)), dataset.histories, length)

    def latest(self, slates: Slates, rows: np.ndarray) -> np.ndarray:
        """Return the articles clicked last in the history of the week, strictly before each impression.

        int32 (len(rows), length), the oldest first, 0 in places before a user's first click.
        """
        user, week, time = slates.user[rows], slates.week[rows], slates.time[rows]
        out = np.zeros((len(rows), self.length), dtype=np.int32)
        for number, history in enumerate(self.histories):
            mine = np.flatnonzero(week == number)
            if not len(history.article) or not len(mine):
                continue
            place = history.offsets[user[mine] + 1, None] - self.length + np.arange(self.length)
            inside = place >= history.offsets[user[mine], None]
            place = np.where(inside, place, 0)
            before = inside & (history.time[place] < time[mine, None])
            out[mine] = np.where(before, history.article[place], 0)
        return out


class SlateBatches:
    """Iterates over batches of the slates ``rows``, in their order, or over one process's share of each.

    Of every batch the processes take turns to take a slate, so all have equally many batches and none is empty: a last
    batch of fewer slates than processes joins the one before it.

    Args:
        slates: the slates of a part.
        matrices: the matching features, float32 or float16 (candidates, columns), in one matrix or in several of
            consecutive candidates.
        columns: positions of the columns a model sees; may be empty.
        encoder: to the model's own indices.
        rows: impression rows, in the order in which they are visited.
        batch_size: slates a batch, over all processes.
        reader: gives article vectors, where the model looks at them.
        negatives: candidates beside the clicks that are kept of a slate, sampled at random; 0 keeps all.
        sample_seed: seed of the samples.
        rank: number of this process, from 0.
        ranks: processes that share each batch.
    """

    def __init__(
        self,
        slates: Slates,
        matrices: list[np.ndarray],
        columns: list[int],
        encoder: IdEncoder,
        rows: np.ndarray,
        batch_size: int,
        reader: HistoryReader | None = None,
        negatives: int = 0,
        sample_seed: tuple[int, ...] = (),
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._slates, self._matrices, self._encoder = slates, matrices, encoder
        self._columns = np.asarray(columns, dtype=np.int64)
        self._rows, self._batch_size, self._reader = rows, batch_size, reader
        self._negatives, self._sample_seed = negatives, sample_seed
        self._rank, self._ranks = rank, ranks

    def __len__(self) -> int:
        """Return the number of batches, the last one maybe smaller, or larger where it took in a smaller one."""
        full, rest = divmod(len(self._rows), self._batch_size)
        return full + (rest >= self._ranks)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches."""
        cuts = self._batch_size * np.arange(1, len(self))
        for number, rows in enumerate(np.split(self._rows, cuts)):
            if len(rows):
                yield self._batch(rows[self._rank :: self._ranks], number)

    def _batch(self, rows: np.ndarray, number: int) -> Batch:
        slates = self._slates
        where, lengths = candidate_rows(slates.offsets, rows), slates.offsets[rows + 1] - slates.offsets[rows]
        slate = np.repeat(np.arange(len(rows)), lengths)
        place = where - np.repeat(slates.offsets[rows], lengths)
        article = self._encoder.article[slates.article[where]]
        clicked = slates.clicked[where].astype(np.float32)
        if self._negatives:
            rng = np.random.default_rng((*self._sample_seed, number, self._rank))
            kept, place = keep_some(slate, place, clicked, len(rows), self._negatives, rng)
            where, slate, article, clicked = where[kept], slate[kept], article[kept], clicked[kept]
        batch = Batch(
            features=torch.from_numpy(gather_parts(self._matrices, where, self._columns)),
            user=torch.from_numpy(self._encoder.user[slates.user[rows]]),
            article=torch.from_numpy(article),
            slate=torch.from_numpy(slate),
            place=torch.from_numpy(place),
            clicked=torch.from_numpy(clicked),
        )
        if self._reader is None:
            return batch
        read, vectors = self._reader.latest(slates, rows), self._reader.vectors
        return batch._replace(
            vector=torch.from_numpy(np.take(vectors, slates.article[where], axis=0, mode="clip")),
            read=torch.from_numpy(np.take(vectors, read, axis=0, mode="clip")),
            was_read=torch.from_numpy(self._reader.known[read]),
        )


class SlateData(pl.LightningDataModule):
    """Training slates reshuffled every epoch by seed and epoch, and the tuning day's slates in order.

    Where several processes train, each gets its share of every batch, see ``SlateBatches``.

    Args:
        dataset: the slates.
        train: features of the train part.
        tuning: features of the tuning part.
        columns: positions of the columns the model sees.
        encoder: to the model's own indices.
        batch_size: slates a batch, over all processes.
        warmup_hours: leave out this much of the start of training, where windows of past events are not full.
        seed: seed of the shuffles.
        reader: gives article vectors, where the model looks at them.
        negatives: candidates beside the clicks that training keeps of a slate, sampled anew each epoch; 0 keeps all.

    Raises:
        ConfigError: no training slate is left after the warm-up.
    """

    def __init__(
        self, dataset: Dataset, train: Features, tuning: Features, columns: list[int], encoder: IdEncoder,
        batch_size: int, warmup_hours: float, seed: int, reader: HistoryReader | None = None, negatives: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self._reader, self._negatives = reader, negatives
        self._dataset, self._train, self._tuning = dataset, train, tuning
        self._columns, self._encoder, self._batch_size, self._seed = columns, encoder, batch_size, seed
        self.rows = training_rows(dataset.parts["train"], warmup_hours)

    def train_dataloader(self) -> SlateBatches:
        """Return the epoch's batches; the trainer asks anew each epoch, so a resumed run sees the same order."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        rows = np.random.default_rng((self._seed, epoch)).permutation(self.rows)
        return self._batches("train", self._train, rows, self._batch_size, self._negatives, (self._seed, epoch))

    def val_dataloader(self) -> SlateBatches:
        """Return the tuning day's batches."""
        rows = np.arange(len(self._dataset.parts["tuning"]))
        return self._batches("tuning", self._tuning, rows, 4 * self._batch_size)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Batch:
        """Move a batch to where the model is; Lightning's own way looks for tensors within every tensor."""
        return batch if device.type == "cpu" else Batch(*(each.to(device, non_blocking=True) for each in batch))

    def _batches(
        self, part: str, features: Features, rows: np.ndarray, batch_size: int, negatives: int = 0,
        sample_seed: tuple[int, ...] = (),
    ) -> SlateBatches:  # fmt: skip
        rank, ranks = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        if min(len(rows), batch_size) < ranks:
            raise ConfigError(
                f"batch_size: {ranks} processes cannot share batches of {batch_size} of the {len(rows)} slates of the "
                f"{part} part. Start at most {min(len(rows), batch_size)}."
            )
        return SlateBatches(
            self._dataset.parts[part], [features.matrix], self._columns, self._encoder, rows, batch_size, self._reader,
            negatives, sample_seed, rank, ranks,
        )  # fmt: skip


def training_rows(slates: Slates, warmup_hours: float) -> np.ndarray:
    """Return the rows of the slates to train on: after the warm-up, with a click and something beside it."""
    ready = slates.time >= slates.time.min() + int(warmup_hours * HOUR)
    rows = np.flatnonzero(ready & slates.has_choice)
    if not len(rows):
        raise ConfigError(
            f"warmup_hours: {warmup_hours} leaves none of the {len(slates)} training impressions. Lower it."
        )
    return rows
