"""Defects 14 and 15: what a run leaves behind, and whether it comes out the same again."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.evaluation.audit.finding import Finding
from ebnerd_lib.evaluation.audit.replica import Replica
from ebnerd_lib.models.base import find_model
from ebnerd_lib.training.batches import Lookup, SlateBatches
from ebnerd_lib.training.fit import quiet

_SLATES = 64


def share_logger(dataset: Dataset, folder: Path) -> None:
    """Fit two models for one step each with one logger, as the original does. What ``folder`` holds is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    quiet()
    slates = dataset.parts["train"]
    rows = np.flatnonzero(slates.has_choice)[:_SLATES]
    sizes: dict[str, Any] = {"columns": 0, "users": len(dataset.users), "articles": len(dataset.articles)}
    lookup = Lookup(np.arange(sizes["users"]), np.arange(sizes["articles"]))
    logger = TensorBoardLogger(folder, name="my_model")
    for module, name in (("mf", "mf_ids"), ("mlp", "mlp")):
        batches = SlateBatches(slates, np.empty((slates.candidates, 0), np.float32), [], lookup, rows, _SLATES)
        trainer = pl.Trainer(
            max_epochs=1, logger=logger, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
            limit_val_batches=0, log_every_n_steps=1, default_root_dir=folder,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the folder of checkpoints is not empty is the point
            trainer.fit(find_model(module, name)(**sizes, schedule="constant"), batches)


def audit_folders(shared: Path, separate: list[Path]) -> list[Finding]:
    """Count where the logs of two runs lie, and the checkpoints that stand side by side.

    Args:
        shared: folder of runs that had one logger.
        separate: folder of each run that had its own.
    """
    own = [sum(len(_folders(folder, kind)) for folder in separate) for kind in ("events.out.*", "*.ckpt")]
    beside = max(len(list(folder.rglob("*.ckpt"))) for folder in separate)
    return [
        Finding(14, "folders that hold the curves of two runs", len(_folders(shared, "events.out.*")), own[0]),
        Finding(14, "checkpoints in one folder", len(list(shared.rglob("*.ckpt"))), beside),
    ]


def audit_seeds(training: Callable[[int], Replica], seed: int) -> list[Finding]:
    """Train twice with different seeds, which stand for two runs without one, and twice with the same.

    Args:
        training: trains the original's factorisation with a seed.
        seed: the one that is repeated; the next two stand for none.
    """
    free, other, first, again = (training(each) for each in (seed + 1, seed + 2, seed, seed))
    return [
        Finding(15, "AUROC of two runs, difference", abs(free.auroc - other.auroc), abs(first.auroc - again.auroc)),
        Finding(15, "F1 of two runs, difference", abs(free.f1 - other.f1), abs(first.f1 - again.f1)),
        Finding(
            15, "weight of two runs, largest difference",
            float(np.abs(free.articles - other.articles).max()), float(np.abs(first.articles - again.articles).max()),
        ),
    ]  # fmt: skip


def _folders(root: Path, pattern: str) -> set[Path]:
    return {file.parent for file in root.rglob(pattern)}
