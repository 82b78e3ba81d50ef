"""Go on with a training that was cut off, to the same weights: chance by epoch, a checkpoint an epoch, and its key."""

import hashlib
import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint

import ebnerd_lib
from ebnerd_lib.data.bundle import History
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.features.store import Features
from ebnerd_lib.training.batches import HistoryReader, IdEncoder
from ebnerd_lib.training.kept import BEST, in_logs, keep

_ROOMS = ("data", "models", "training")
_CHUNK = 1 << 16  # rows of a features matrix that are read at once


class EpochSeed(Callback):
    """Draws the dropout of each epoch from the seed and the epoch, so that no epoch depends on where a run began.

    Each of several processes draws its own.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed torch on all devices."""
        own = (trainer.global_rank,) if trainer.global_rank else ()
        drawn = np.random.SeedSequence((self._seed, trainer.current_epoch), spawn_key=own).generate_state(1, np.uint64)
        torch.manual_seed(int(drawn[0] >> np.uint64(1)))


class KeepEpochs(Checkpoint):
    """Keeps each epoch's end: Lightning's own checkpoint, or after the last epoch the best one, with the figures.

    It is a ``Checkpoint`` because Lightning calls these last, in the order given: put it after the best epoch's.

    Args:
        folder: of the network's logs.
        key: of the training.
        rows: the figures of the epochs so far, which another callback adds to.
    """

    def __init__(self, folder: Path, key: str, rows: list[dict[str, Any]]) -> None:
        self._folder, self._key, self._rows = folder, key, rows

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the checkpoint, then let it count."""
        over = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        path = self._folder / (BEST if over else f"epoch-{trainer.current_epoch}.ckpt")
        if not over:
            trainer.save_checkpoint(path, weights_only=False)
        if trainer.is_global_zero:
            keep(self._folder, self._key, over, self._rows, path)
        trainer.strategy.barrier()  # no process goes on before it counts


def unreadable(checkpoints: list[Path]) -> str:
    """Return why a checkpoint of some cannot be read as plain tensors and values; nothing if all can."""
    for file in checkpoints:
        try:
            torch.load(file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError, OSError, ValueError) as error:
            return f"{in_logs(file)} cannot be read ({type(error).__name__})"
    return ""


def sum_of_inputs(
    dataset: Dataset,
    features: dict[str, Features],
    columns: list[int],
    lookup: IdEncoder,
    reading: HistoryReader | None,
) -> str:
    """Return one sum over what a network learns from: slates, features, indices, histories and vectors.

    Args:
        dataset: the slates.
        features: of the parts ``train`` and ``tuning``.
        columns: positions of the columns that the network sees.
        lookup: to the network's own indices.
        reading: gives article vectors, where the network looks at them.
    """
    total = hashlib.sha256()
    for part in ("train", "tuning"):
        _add(total, *_arrays(dataset.parts[part]))
        if columns:
            for chunk in _chunks(features[part].matrix, columns):
                _add(total, chunk)
    _add(total, lookup.user, lookup.article)
    if reading is not None:
        _add(total, reading.vectors, *(array for history in reading.histories for array in _arrays(history)))
    return total.hexdigest()


def training_key(inputs: str, folder: Path, **settings: Any) -> str:
    """Return one sum over all that a network's training depends on.

    Args:
        inputs: the sum of what it learns from.
        folder: of its logs; checkpoints hold its path.
        settings: whatever else decides, in plain types.
    """
    parts = {
        "inputs": inputs,
        "folder": str(folder.resolve()),
        "settings": settings,
        "code": _code(),
        "versions": [torch.__version__, pl.__version__, np.__version__],
        "products": os.environ.get("MKL_CBWR"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _code() -> str:
    total = hashlib.sha256()
    package = Path(ebnerd_lib.__path__[0])
    for file in sorted(file for room in _ROOMS for file in (package / room).glob("*.py")):
        total.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


def _arrays(holder: Slates | History) -> list[np.ndarray]:
    return [getattr(holder, field.name) for field in fields(holder)]


def _chunks(matrix: np.ndarray, columns: list[int]) -> Iterator[np.ndarray]:
    for start in range(0, len(matrix), _CHUNK):
        yield matrix[start : start + _CHUNK][:, columns]


def _add(total: "hashlib._Hash", *arrays: np.ndarray) -> None:
    """Add types, shapes and contents of arrays."""
    for array in arrays:
        total.update(f"{array.dtype.str}{array.shape}".encode())
        if array.size:
            total.update(np.ascontiguousarray(array).view(np.uint8).data)
