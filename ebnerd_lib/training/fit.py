"""Train one model on the train part, stop early on the tuning day, return its best epoch."""

import logging
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.features.store import Features, usable
from ebnerd_lib.models.averaged import Averaged
from ebnerd_lib.models.base import SlateModel, find_model
from ebnerd_lib.models.threads import one_thread
from ebnerd_lib.training.batches import Lookup, Reading, SlateData, training_rows
from ebnerd_lib.training.model_file import TrainedModel

EpochReport = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """How to train.

    Attributes:
        epochs: at the most.
        patience: epochs without a better tuning AUC before training stops.
        batch_size: slates a batch.
        warmup_hours: start of the train part that is left out.
        seed: seed of weights, dropout and shuffles.
        trainer: passed through to ``pytorch_lightning.Trainer``.
        seeds: networks to train, with ``seed`` and the numbers after it, whose scores are averaged.

    Raises:
        ConfigError: ``seeds`` is less than 1.
    """

    epochs: int
    patience: int
    batch_size: int
    warmup_hours: float
    seed: int
    trainer: dict[str, Any] = field(default_factory=dict)
    seeds: int = 1

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ConfigError(f"seeds: {self.seeds} networks cannot be averaged. Use 1 or more.")


@dataclass(frozen=True)
class Fit:
    """A trained model and how it got there: one row an epoch with train/loss, val/loss and val/auc.

    Of several averaged networks, the curve and the best epoch are those of the first.
    """

    model: TrainedModel
    curve: pd.DataFrame
    best_epoch: int


class _EpochLine(Callback):
    """Reports each epoch's figures as one line, in place of a progress bar."""

    def __init__(self, name: str, epochs: int, report: EpochReport | None) -> None:
        self._name, self._epochs, self._report = name, epochs, report

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        done = trainer.current_epoch + 1
        figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
        print(
            f"{self._name}  epoch {done:>2}/{self._epochs}  train/loss {figures['train/loss']:.4f}  "
            f"val/loss {figures['val/loss']:.4f}  val/auc {figures['val/auc']:.4f}",
            flush=True,
        )
        if self._report is not None:
            elapsed = time.monotonic() - self._start
            left = elapsed / done * (self._epochs - done)
            self._report({"model": self._name, "epoch": done, "epochs": self._epochs, "seconds_left": left, **figures})


@one_thread()
def train(
    dataset: Dataset,
    features: dict[str, Features],
    module: str,
    model: str,
    tier: str,
    name: str,
    hyperparameters: dict[str, Any],
    plan: Plan,
    logs: Path,
    report: EpochReport | None = None,
    leave_out: Sequence[str] = (),
) -> Fit:
    """Train a model.

    Everything that is learnt, vocabularies and transform included, comes from the training rows; the tuning
    day decides when to stop and which epoch is kept; validation is not looked at.

    Args:
        dataset: the slates.
        features: of the parts ``train`` and ``tuning``.
        module: the module of ``ebnerd_lib.models`` with the model's class.
        model: the model's name.
        tier: information tier; decides which columns it sees.
        name: its name in files and tables.
        hyperparameters: passed to the model's class; those it does not know are left out, since the parameters of
            a stage serve all its models.
        plan: how to train.
        logs: folder for TensorBoard and CSV logs and checkpoints; what it holds of this name is replaced.
        report: called after each epoch with its figures and the seconds left.
        leave_out: columns and groups of columns that it does without, see ``usable``.

    Raises:
        ConfigError: the model, a setting of it, the tier or a column is unknown, or no training row is left.
    """
    quiet()
    kind = find_model(module, model)
    columns = usable(features["train"], tier, leave_out) if kind.uses_features else []
    known = {key: value for key, value in hyperparameters.items() if key in kind.settings()}
    slates = dataset.parts["train"]
    rows = training_rows(slates, plan.warmup_hours)
    seen = slates.take(rows)
    users, articles = Vocabulary(seen.user_id), Vocabulary(seen.article_id)
    vector_size = dataset.metadata.vectors.shape[1] if kind.uses_vectors else 0
    lookup = Lookup.between(dataset, users, articles)
    networks: list[SlateModel] = []
    curves, epochs = [], []
    for number in range(plan.seeds):
        own = replace(plan, seed=plan.seed + number)
        pl.seed_everything(own.seed, verbose=False)
        network = kind(
            columns=len(columns), users=len(users), articles=len(articles), vector_size=vector_size, **known
        )  # fmt: skip
        if networks:
            network.transform.load_state_dict(networks[0].transform.state_dict())
        elif columns:
            network.transform.fit(features["train"].matrix, candidate_rows(slates.offsets, rows), columns)
        data = SlateData(
            dataset, features["train"], features["tuning"], columns, lookup,
            own.batch_size, own.warmup_hours, own.seed, Reading.of(dataset, network),
        )  # fmt: skip
        title = name if number == 0 else f"{name}_seed{own.seed}"
        epochs.append(_run(network, data, title, own, logs, report))
        networks.append(network)
        curves.append(learning_curve(logs / title))
    whole = networks[0] if plan.seeds == 1 else Averaged(networks).eval()
    names = [features["train"].columns[place] for place in columns]
    return Fit(
        TrainedModel(name, module, tier if kind.uses_features else kind.own_tier, whole, names, users, articles),
        curves[0],
        epochs[0],
    )


def _run(network: SlateModel, data: SlateData, name: str, plan: Plan, logs: Path, report: EpochReport | None) -> int:
    """Train one network, leave it with the weights of its best epoch, and return that epoch."""
    shutil.rmtree(logs / name, ignore_errors=True)
    best = ModelCheckpoint(
        logs / name, "best", monitor="val/auc", mode="max", save_top_k=1, enable_version_counter=False
    )
    trainer = pl.Trainer(
        max_epochs=plan.epochs,
        logger=[TensorBoardLogger(logs, name=name, version=""), CSVLogger(logs, name=name, version="")],
        callbacks=[
            EarlyStopping("val/auc", mode="max", patience=plan.patience),
            best,
            _EpochLine(name, plan.epochs, report),
        ],
        deterministic=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=50,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=logs,
        **plan.trainer,
    )
    with warnings.catch_warnings():
        # Known and harmless: batches are array slices, the folder was just emptied, and torch renamed a class.
        for message in (".*many workers.*", ".*exists and is not empty.*", ".*LeafSpec.*", ".*logging interval.*"):
            warnings.filterwarnings("ignore", message=message)
        trainer.fit(network, data)
    checkpoint = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
    network.load_state_dict(checkpoint["state_dict"])
    network.cpu().eval()
    return int(checkpoint["epoch"])


def train_variants(
    dataset: Dataset,
    features: dict[str, Features],
    module: str,
    models: list[str],
    tiers: list[str],
    hyperparameters: dict[str, Any],
    plan: Plan,
    logs: Path,
    report: EpochReport | None = None,
) -> list[Fit]:
    """Train each model in each tier; the first tier is the main one, the others are appended to the name.

    A model without features is trained once, in its own tier. Arguments and errors are those of ``train``.
    """
    fits = []
    for model in models:
        kind = find_model(module, model)
        main = tiers[0] if kind.uses_features else kind.own_tier
        for tier in tiers if kind.uses_features else [main]:
            name = model if tier == main else f"{model}_{tier}"
            fits.append(train(dataset, features, module, model, tier, name, hyperparameters, plan, logs, report))
    return fits


def learning_curve(folder: Path) -> pd.DataFrame:
    """Read Lightning's CSV log as one row an epoch; it keeps train and validation in separate rows."""
    rows = pd.read_csv(folder / "metrics.csv").drop(columns="step")
    return rows.groupby("epoch").first().reset_index()


def quiet() -> None:
    """Keep Lightning's banners out of reports; its warnings stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
