"""What a training needs beside Lightning's ``Trainer``: checkpoints to resume from, callbacks, several processes."""

import hashlib
import json
import logging
import os
import pickle
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only

import ebnerd_lib
from ebnerd_lib.configs import WITHOUT_EFFECT
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.models.base import SlateModel
from ebnerd_lib.training.inputs import TrainingInputs

EpochReport = Callable[[dict[str, Any]], None]
TRAINER: dict[str, Any] = {
    "deterministic": True,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "reload_dataloaders_every_n_epochs": 1,
}
"""What every trainer is given: it repeats, prints no bar, and asks for newly shuffled batches each epoch."""
_T = TypeVar("_T")


class Checkpoints:
    """The last and the best epoch of one training in files, of which an interrupted training resumes.

    They lie in ``<folder>/<key>``; the key is a checksum over all that a training depends on. Where the folder holds
    no checkpoint of this key, or one that cannot be read, this says so and clears the folder. What a training depends
    on are its inputs, the network before it, and other ``parameters``, which are plain values.

    Attributes:
        callbacks: Lightning's, which write the files after each epoch.
        last: the last complete epoch of an interrupted training with the same key; ``None`` starts anew.
        steps: of the optimizer that it has done.
    """

    def __init__(
        self, folder: Path, inputs: TrainingInputs, network: SlateModel, parameters: Mapping[str, Any]
    ) -> None:
        self._folder = folder / on_first(partial(training_key, folder, inputs, network, parameters))
        self.steps = on_first(partial(_steps_done, self._folder))
        self.last = None if self.steps is None else self._folder / "last.ckpt"
        always: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
        self.callbacks = [
            ModelCheckpoint(self._folder, "best", inputs.best_by, mode="max", **always),
            ModelCheckpoint(self._folder, "last", **always),  # after the best: it holds the best one's score
        ]

    def load_best(self, network: SlateModel) -> int:
        """Give a network the weights of the best epoch, ready to score on the CPU; return its number from 0."""
        best = torch.load(self._folder / "best.ckpt", map_location="cpu", weights_only=True)
        network.load_state_dict({key.removeprefix("network."): value for key, value in best["state_dict"].items()})
        network.cpu().eval()
        return int(best["epoch"])


def training_key(folder: Path, inputs: TrainingInputs, network: SlateModel, parameters: Mapping[str, Any]) -> str:
    """Return a checksum over all that a training depends on: data, parameters, code and versions.

    The folder is part of it, as Lightning's checkpoints hold its path.
    """
    settings = {
        "folder": str(folder.resolve()),
        "inputs": inputs.checksum(network),
        "model": f"{type(network).__module__}.{network.name}",
        "hyperparameters": network.hyperparameters,
        "columns": inputs.names(network),
        "parameters": {name: own for name, own in parameters.items() if name not in WITHOUT_EFFECT},
        "versions": [torch.__version__, pl.__version__, np.__version__],
        "products": os.environ.get("MKL_CBWR"),
    }
    checksum = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    package = Path(ebnerd_lib.__path__[0])
    for file in sorted(file for layer in ("data", "models", "training") for file in (package / layer).glob("*.py")):
        checksum.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return checksum.hexdigest()[:16]


def _steps_done(folder: Path) -> int | None:
    """Return the steps done by the training whose checkpoints a folder holds, and say that it resumes.

    ``None`` where there is none that can be read: the logs of its training are cleared, and this says so.
    """
    logs = folder.parent
    try:
        _, last = (_read_checkpoint(folder / name) for name in ("best.ckpt", "last.ckpt"))
        epoch, steps = int(last["epoch"]) + 1, int(last["global_step"])
    except (
        zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError, OSError, ValueError
    ) as error:  # fmt: skip
        if list(logs.glob("*/last.ckpt")):
            reason = f"no checkpoint of its data, parameters and code in {logs.name}/{folder.name}"
            print(f"{logs.name}  trained anew: {reason} can be read ({type(error).__name__})", flush=True)
        shutil.rmtree(logs, ignore_errors=True)
        return None
    print(f"{logs.name}  resumes after epoch {epoch}", flush=True)
    return steps


def _read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint of plain tensors and values; raises where it is anything else or its bytes have changed."""
    with zipfile.ZipFile(file) as archive:  # torch does not look at the checksums that it writes
        if archive.testzip() is not None:
            raise zipfile.BadZipFile(file.name)
    return torch.load(file, map_location="cpu", weights_only=True)


class EpochLog(Callback):
    """Prints each epoch's metrics as one line, in place of a progress bar, and writes those of all to a CSV file.

    The rows are part of Lightning's checkpoints, so the log of a resumed training shows every epoch once.

    Args:
        report: called with each epoch's metrics, and after each batch with the ``share`` of the training that is done.
    """

    def __init__(self, report: EpochReport | None = None) -> None:
        self._report = report
        self._rows: list[dict[str, Any]] = []
        self._told = tempfile.TemporaryFile("w+")  # noqa: SIM115 also that of the processes which a notebook forks

    @property
    def curve(self) -> pd.DataFrame:
        """One row an epoch: its number from 0, train/loss, val/loss, val/auc and val/ndcg."""
        self._told.seek(0)
        return pd.DataFrame(self._rows or json.loads(self._told.read() or "[]"))

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"rows": self._rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        self._rows = state_dict["rows"]

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Tell how much of the training is done."""
        epoch, epochs = trainer.current_epoch, trainer.max_epochs or 1
        share = (epoch + (trainer.fit_loop.batch_idx + 1) / trainer.num_training_batches) / epochs
        last = f", val/auc {self._rows[-1]['val/auc']:.4f}" if self._rows else ""
        self._tell_share(trainer, f"epoch {epoch + 1}/{epochs}{last}", share)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell that the training is done, whether it took all epochs or not."""
        self._tell_share(trainer, "trained", 1.0)

    def _tell_share(self, trainer: pl.Trainer, step: str, share: float) -> None:
        if self._report is not None and trainer.is_global_zero and trainer.logger is not None:
            self._report({"step": f"{trainer.logger.name} {step}", "share": share})

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log an epoch. Raises ``ConfigError`` where its loss is not finite, before checkpoints are written."""
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        if not np.isfinite([metrics["train/loss"], metrics["val/loss"]]).all():
            own = pl_module.network.hyperparameters
            raise ConfigError(
                f"learning_rate: {own['learning_rate']:g}, weight_decay: {own['weight_decay']:g}, precision: "
                f"'{trainer.precision}': the loss of epoch {trainer.current_epoch + 1} is not finite. Lower the rates, "
                "or use precision: '32-true'."
            )
        self._rows.append({"epoch": trainer.current_epoch, **metrics})
        if not trainer.is_global_zero or trainer.logger is None:
            return
        self._told.seek(0)
        print(json.dumps(self._rows), file=self._told, flush=True)
        name, done, epochs = str(trainer.logger.name), len(self._rows), trainer.max_epochs or 0
        self.curve.to_csv(Path(str(trainer.logger.save_dir), name, "metrics.csv"), index=False)
        print(
            f"{name}  epoch {done:>2}/{epochs}  train/loss {metrics['train/loss']:.4f}  "
            f"val/loss {metrics['val/loss']:.4f}  val/auc {metrics['val/auc']:.4f}",
            flush=True,
        )
        if self._report is not None:
            best_by = getattr(trainer.early_stopping_callback, "monitor", "val/auc")
            self._report({"model": name, "epoch": done, "epochs": epochs, "best_by": best_by, **metrics})


class EpochSeed(Callback):
    """Seeds dropout by seed and epoch, so that a resumed epoch is that of an undisturbed run.

    Each of several processes has its own seeds.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed torch on all devices."""
        own = (trainer.global_rank,) if trainer.global_rank else ()
        sequence = np.random.SeedSequence((self._seed, trainer.current_epoch), spawn_key=own)
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))


class TuningStop(EarlyStopping):
    """Early stopping that also ends a training that is resumed after it had stopped; Lightning's own trains on."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if the checkpoint says so."""
        trainer.should_stop = self.stopped_epoch > 0


def quiet() -> None:
    """Keep Lightning's banners and known harmless warnings out of reports; its other warnings stay.

    The same for what a shell sets of its ``Trainer``: no parameter names that, and no manifest.
    """
    for name in [name for name in os.environ if name.startswith("PL_TRAINER_")]:
        del os.environ[name]
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Batches are array slices, checkpoints lie where more are written, torch renamed a class, epochs may be short.
    for message in (".*many workers.*", ".*exists and is not empty.*", ".*LeafSpec.*", ".*logging interval.*"):
        warnings.filterwarnings("ignore", message=message)


def several() -> bool:
    """Say whether other processes train with this one."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def on_first(work: Callable[[], _T]) -> _T:
    """Let rank 0 alone do something and give the result to all, who wait for it."""
    result = [work() if rank_zero_only.rank == 0 else None]
    if several():
        dist.broadcast_object_list(result, src=0)
    return result[0]  # type: ignore[return-value]
