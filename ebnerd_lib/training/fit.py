"""Train one model on the train part, stop early on the tuning day, return its best epoch.

``train`` and ``_fit`` show a training from top to bottom: data, networks, ``Trainer``, ``fit``. What they need follows:
callbacks, checkpoints, and several processes that train together.
"""

import hashlib
import json
import logging
import os
import pickle
import shutil
import signal
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy

import ebnerd_lib
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.features.store import Features, usable
from ebnerd_lib.models.base import SlateModel, find_model, one_thread
from ebnerd_lib.models.ensemble import Ensemble
from ebnerd_lib.training.batches import HistoryReader, IdEncoder, SlateData, training_rows
from ebnerd_lib.training.model_file import TrainedModel

EpochReport = Callable[[dict[str, Any]], None]
_ALWAYS: dict[str, Any] = {
    "deterministic": True,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 50,
    "reload_dataloaders_every_n_epochs": 1,
}
_CHECKPOINT: dict[str, Any] = {"save_on_train_epoch_end": True, "enable_version_counter": False}
_T = TypeVar("_T")


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        epochs: at the most.
        patience: epochs without a better tuning AUC before training stops.
        batch_size: slates a batch, over all processes that train together.
        warmup_hours: start of the train part that is left out.
        seed: seed of weights, dropout and shuffles.
        trainer: passed through to ``pytorch_lightning.Trainer``.
        seeds: networks to train, with ``seed`` and the numbers after it, whose scores are averaged.
        negatives: candidates beside the clicks that training keeps of a slate, drawn anew each epoch; 0 keeps all.
    """

    epochs: int
    patience: int
    batch_size: int
    warmup_hours: float
    seed: int
    trainer: dict[str, Any] = field(default_factory=dict)
    seeds: int = 1
    negatives: int = 0

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> "TrainConfig":
        """Return how the effective parameters of a stage, which are checked, say to train."""
        own = {name: parameters[name] for name in ("epochs", "batch_size", "seed")}
        more = {name: parameters["training"][name] for name in ("patience", "warmup_hours", "seeds", "negatives")}
        return cls(**own, **more, trainer=parameters["trainer"])


@dataclass(frozen=True)
class TrainResult:
    """A trained model and how it got there: one row an epoch with train/loss, val/loss and val/auc.

    Of an ensemble, the curve and the best epoch are those of the first network.
    """

    model: TrainedModel
    curve: pd.DataFrame
    best_epoch: int


@one_thread()
def train(
    dataset: Dataset,
    features: dict[str, Features],
    module: str,
    model: str,
    tier: str,
    name: str,
    hyperparameters: Mapping[str, Any],
    config: TrainConfig,
    logs: Path,
    report: EpochReport | None = None,
) -> TrainResult:
    """Train a model.

    Everything that is learned, vocabularies and transform included, comes from the training rows; the tuning
    day decides when to stop and which epoch is kept; validation is not looked at.

    An interrupted training with the same key (see ``training_key``) resumes after its last complete epoch and ends
    with the same weights.

    Args:
        dataset: the slates.
        features: of the parts ``train`` and ``tuning``.
        module: the module of ``ebnerd_lib.models`` with the model's class.
        model: the model's name.
        tier: information tier; decides which columns it sees.
        name: its name in files and tables.
        hyperparameters: passed to the model's class; what it does not know is left out, so the effective parameters
            of a stage serve all its models.
        config: how to train.
        logs: folder for TensorBoard and CSV logs and checkpoints; what it holds of this name is replaced, unless it
            is resumed.
        report: called after each epoch with its metrics and the seconds left.

    Raises:
        ConfigError: the model, a setting of it or the tier is unknown, or no training row is left.
    """
    quiet()
    kind = find_model(module, model)
    columns = usable(features["train"], tier) if kind.uses_features else []
    slates = dataset.parts["train"]
    rows = training_rows(slates, config.warmup_hours)
    seen = slates.take(rows)
    users, articles = Vocabulary(seen.user_id), Vocabulary(seen.article_id)
    encoder = IdEncoder.between(dataset, users, articles)
    vector_size = dataset.metadata.vectors.shape[1] if kind.uses_vectors else 0
    known = {key: value for key, value in hyperparameters.items() if key in kind.settings()}

    configs = [replace(config, seed=config.seed + number, seeds=1) for number in range(config.seeds)]
    networks: list[SlateModel] = []
    for own in configs:
        pl.seed_everything(own.seed, verbose=False)
        networks.append(
            kind(columns=len(columns), users=len(users), articles=len(articles), vector_size=vector_size, **known)
        )
    transform, reader = networks[0].transform, HistoryReader.of(dataset, networks[0])
    if columns and is_first():  # the other processes get it when training starts
        transform.fit(features["train"].matrix, candidate_rows(slates.offsets, rows), columns)
    names = [features["train"].columns[place] for place in columns]
    inputs = on_first(partial(inputs_checksum, dataset, features, kind))

    fits = []
    for network, own in zip(networks, configs, strict=True):
        network.transform.load_state_dict(transform.state_dict())
        data = SlateData(
            dataset, features["train"], features["tuning"], columns, encoder,
            own.batch_size, own.warmup_hours, own.seed, reader, own.negatives,
        )  # fmt: skip
        folder = logs / (name if own.seed == config.seed else f"{name}_seed{own.seed}")
        key = training_key(folder, inputs, names, network, own)
        fits.append(_fit(network, data, own, folder, key, report))

    trained = networks[0] if config.seeds == 1 else Ensemble(networks).eval()
    own_tier = tier if kind.uses_features else kind.own_tier
    return TrainResult(TrainedModel(name, module, own_tier, trained, names, users, articles), *fits[0])


def _fit(
    network: SlateModel, data: SlateData, config: TrainConfig, folder: Path, key: str, report: EpochReport | None
) -> tuple[pd.DataFrame, int]:
    """Fit one network and leave it as its best epoch had it; return its curve and that epoch.

    Logs go to ``folder``, checkpoints to its folder ``key``, of which a training with the same key resumes.
    """
    resumed = on_first(partial(find_checkpoint, folder, key, config.epochs))
    epoch_log = EpochLog(folder, config.epochs, report)
    trainer = pl.Trainer(
        max_epochs=config.epochs,
        # TensorBoard leaves out what was logged after the checkpoint.
        logger=TensorBoardLogger(folder.parent, name=folder.name, version="", purge_step=resumed),
        callbacks=[
            EpochSeed(config.seed),
            TuningStop("val/auc", mode="max", patience=config.patience),
            epoch_log,
            ModelCheckpoint(folder / key, "best", "val/auc", mode="max", **_CHECKPOINT),
            ModelCheckpoint(folder / key, "last", **_CHECKPOINT),  # after the best: it holds the best one's score
            *([OwnSigterm()] if several() else []),
        ],
        default_root_dir=folder.parent,
        **_ALWAYS,
        **trainer_options(config.trainer),
    )
    trainer.fit(network, data, ckpt_path=None if resumed is None else folder / key / "last.ckpt", weights_only=True)
    best = torch.load(folder / key / "best.ckpt", map_location="cpu", weights_only=True)
    network.load_state_dict(best["state_dict"])
    network.cpu().eval()
    return pd.DataFrame(epoch_log.rows), int(best["epoch"])


def quiet() -> None:
    """Keep Lightning's banners and known harmless warnings out of reports; its other warnings stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Batches are array slices, checkpoints lie where more are written, torch renamed a class, epochs may be short.
    for message in (".*many workers.*", ".*exists and is not empty.*", ".*LeafSpec.*", ".*logging interval.*"):
        warnings.filterwarnings("ignore", message=message)


class EpochLog(Callback):
    """Prints each epoch's metrics as one line, in place of a progress bar, and writes those of all to a CSV file.

    The rows are part of Lightning's checkpoints, so the log of a resumed training shows every epoch once.

    Args:
        folder: of the network's logs, named as the network.
        epochs: at the most.
        report: called with each epoch's metrics.
    """

    def __init__(self, folder: Path, epochs: int, report: EpochReport | None) -> None:
        self._folder, self._epochs, self._report = folder, epochs, report
        self.rows: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        self.rows = state_dict["rows"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start, self._before = time.monotonic(), len(self.rows)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log an epoch."""
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch, **metrics})
        if not trainer.is_global_zero:
            return
        name, done = self._folder.name, len(self.rows)
        pd.DataFrame(self.rows).to_csv(self._folder / "metrics.csv", index=False)
        print(
            f"{name}  epoch {done:>2}/{self._epochs}  train/loss {metrics['train/loss']:.4f}  "
            f"val/loss {metrics['val/loss']:.4f}  val/auc {metrics['val/auc']:.4f}",
            flush=True,
        )
        if self._report is not None:
            elapsed = time.monotonic() - self._start
            left = elapsed / (done - self._before) * (self._epochs - done)
            self._report({"model": name, "epoch": done, "epochs": self._epochs, "seconds_left": left, **metrics})


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


def inputs_checksum(dataset: Dataset, features: dict[str, Features], kind: type[SlateModel]) -> str:
    """Return a checksum over the arrays that a model learns from: slates, features, histories and article vectors."""
    holders: list[Any] = [dataset.parts["train"], dataset.parts["tuning"]]
    arrays = [features[part].matrix for part in ("train", "tuning")] if kind.uses_features else []
    if kind.uses_vectors:
        holders += dataset.histories
        arrays.append(dataset.metadata.vectors)
    arrays += [getattr(holder, each.name) for holder in holders for each in fields(holder)]
    checksum = hashlib.sha256()
    for array in arrays:
        checksum.update(f"{array.dtype.str}{array.shape}".encode())
        checksum.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # a mapped matrix is not copied
    return checksum.hexdigest()


def training_key(folder: Path, inputs: str, columns: list[str], network: SlateModel, config: TrainConfig) -> str:
    """Return a checksum over all that a network's training depends on: data, parameters, code and versions.

    Args:
        folder: of the network's logs; Lightning's checkpoints hold its path.
        inputs: see ``inputs_checksum``.
        columns: names of those that the network sees.
        network: before its training.
        config: how to train.
    """
    settings = {
        "folder": str(folder.resolve()),
        "inputs": inputs,
        "model": f"{type(network).__module__}.{network.name}",
        "hyperparameters": network.hyperparameters,
        "columns": columns,
        "config": asdict(config),
        "versions": [torch.__version__, pl.__version__, np.__version__],
        "products": os.environ.get("MKL_CBWR"),
    }
    checksum = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    package = Path(ebnerd_lib.__path__[0])
    for file in sorted(file for layer in ("data", "models", "training") for file in (package / layer).glob("*.py")):
        checksum.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return checksum.hexdigest()[:16]


def find_checkpoint(folder: Path, key: str, epochs: int) -> int | None:
    """Return the steps done by an interrupted training with ``key``, and say that it resumes.

    Where there is no checkpoint of this key, or one that cannot be read, this says so and clears the folder.

    Args:
        folder: of the network's logs.
        key: name of the folder of checkpoints in it.
        epochs: at the most.
    """
    last, best = folder / key / "last.ckpt", folder / key / "best.ckpt"
    reason = "its checkpoint is of other data, parameters or code" if list(folder.glob("*/last.ckpt")) else ""
    if last.exists():
        try:
            _read_checkpoint(best)
            checkpoint = _read_checkpoint(last)
            epoch, steps = int(checkpoint["epoch"]) + 1, int(checkpoint["global_step"])
        except (
            zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError, OSError, ValueError
        ) as error:  # fmt: skip
            reason = f"its checkpoint in {folder.name}/{key} cannot be read ({type(error).__name__})"
        else:
            print(f"{folder.name}  resumes after epoch {epoch}/{epochs}", flush=True)
            return steps
    if reason:
        print(f"{folder.name}  trained anew: {reason}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _read_checkpoint(file: Path) -> dict[str, Any]:
    """Read a checkpoint of plain tensors and values; raises where it is anything else or its bytes have changed."""
    with zipfile.ZipFile(file) as archive:  # torch does not look at the checksums that it writes
        if archive.testzip() is not None:
            raise zipfile.BadZipFile(file.name)
    return torch.load(file, map_location="cpu", weights_only=True)


class OwnSigterm(Callback):
    """Keeps this process's own answer to SIGTERM: Lightning's first waits for the other processes, who know nothing."""

    def __init__(self) -> None:
        self._answer = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Undo what Lightning has set by now."""
        signal.signal(signal.SIGTERM, self._answer)


def trainer_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trainer's options; ``strategy: ddp`` sends no buffers, as those of the transform do not change."""
    ddp = {"strategy": DDPStrategy(forward_sync_buffers=False)} if options.get("strategy") == "ddp" else {}
    return {**options, **ddp}


def several() -> bool:
    """Say whether other processes train with this one."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Say whether this process, of rank 0 or alone, decides and writes."""
    return not several() or dist.get_rank() == 0


def on_first(work: Callable[[], _T]) -> _T:
    """Let rank 0 alone do something and give the result to all, who wait for it."""
    if not several():
        return work()
    result = [work() if is_first() else None]
    dist.broadcast_object_list(result, src=0)
    return result[0]  # type: ignore[return-value]
