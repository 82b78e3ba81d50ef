"""Train one model on the train part, stop early on the tuning day, return its best epoch."""

import logging
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.features.store import Features, usable
from ebnerd_lib.models.base import SlateModel, find_model, one_thread
from ebnerd_lib.models.ensemble import Ensemble
from ebnerd_lib.training.batches import HistoryReader, IdEncoder, SlateData, training_rows
from ebnerd_lib.training.kept import BEST, Kept, find
from ebnerd_lib.training.model_file import TrainedModel
from ebnerd_lib.training.ranks import OwnSigterm, by_first, is_first, lightning, several
from ebnerd_lib.training.resume import EpochSeed, KeepEpochs, sum_of_inputs, training_key, unreadable

EpochReport = Callable[[dict[str, Any]], None]
TRAINER = ("accelerator", "devices", "strategy", "num_nodes", "precision")
"""Parameters of a stage that are passed through to Lightning's trainer."""


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
        own = {
            name: parameters[name]
            for name in ("epochs", "patience", "batch_size", "warmup_hours", "seed", "seeds", "negatives")
        }
        return cls(**own, trainer={name: parameters[name] for name in TRAINER})


@dataclass(frozen=True)
class TrainResult:
    """A trained model and how it got there: one row an epoch with train/loss, val/loss and val/auc.

    Of several averaged networks, the curve and the best epoch are those of the first.
    """

    model: TrainedModel
    curve: pd.DataFrame
    best_epoch: int


class _Epochs(Callback):
    """Reports each epoch's figures as one line, in place of a progress bar, and writes those of all to a CSV file.

    Args:
        name: of the network.
        epochs: at the most.
        rows: the figures of each epoch so far, which it adds to.
        file: the CSV file.
        report: called with each epoch's figures.
    """

    def __init__(
        self, name: str, epochs: int, rows: list[dict[str, Any]], file: Path, report: EpochReport | None
    ) -> None:
        self._name, self._epochs, self._rows, self._file, self._report = name, epochs, rows, file, report
        self._before = len(rows)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
        self._rows.append({"epoch": trainer.current_epoch, **figures})
        done = len(self._rows)
        if not trainer.is_global_zero:
            return
        pd.DataFrame(self._rows).to_csv(self._file, index=False)
        print(
            f"{self._name}  epoch {done:>2}/{self._epochs}  train/loss {figures['train/loss']:.4f}  "
            f"val/loss {figures['val/loss']:.4f}  val/auc {figures['val/auc']:.4f}",
            flush=True,
        )
        if self._report is not None:
            elapsed = time.monotonic() - self._start
            left = elapsed / (done - self._before) * (self._epochs - done)
            self._report({"model": self._name, "epoch": done, "epochs": self._epochs, "seconds_left": left, **figures})


@one_thread()
def train(
    dataset: Dataset,
    features: dict[str, Features],
    module: str,
    model: str,
    tier: str,
    name: str,
    hyperparameters: Mapping[str, Any],
    plan: TrainConfig,
    logs: Path,
    report: EpochReport | None = None,
    leave_out: Sequence[str] = (),
) -> TrainResult:
    """Train a model.

    Everything that is learnt, vocabularies and transform included, comes from the training rows; the tuning
    day decides when to stop and which epoch is kept; validation is not looked at.

    A training of the same key that was cut off is gone on with from its last epoch, and one that is over but whose
    stage was cut off is taken as it is, with the same weights in the end, see ``ebnerd_lib.training.kept``.

    Args:
        dataset: the slates.
        features: of the parts ``train`` and ``tuning``.
        module: the module of ``ebnerd_lib.models`` with the model's class.
        model: the model's name.
        tier: information tier; decides which columns it sees.
        name: its name in files and tables.
        hyperparameters: passed to the model's class; what it does not know is left out, so the effective parameters
            of a stage serve all its models.
        plan: how to train.
        logs: folder for TensorBoard and CSV logs and checkpoints; what it holds of this name is replaced, unless it
            is gone on with.
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
    lookup = IdEncoder.between(dataset, users, articles)
    networks: list[SlateModel] = []
    curves, epochs = [], []
    inputs = ""
    for number in range(plan.seeds):
        own = replace(plan, seed=plan.seed + number)
        pl.seed_everything(own.seed, verbose=False)
        network = kind(
            columns=len(columns), users=len(users), articles=len(articles), vector_size=vector_size, **known
        )  # fmt: skip
        if networks:
            network.transform.load_state_dict(networks[0].transform.state_dict())
        elif columns and is_first():  # the others are given it when training starts
            network.transform.fit(features["train"].matrix, candidate_rows(slates.offsets, rows), columns)
        reading = HistoryReader.of(dataset, network)
        data = SlateData(
            dataset, features["train"], features["tuning"], columns, lookup,
            own.batch_size, own.warmup_hours, own.seed, reading, own.negatives,
        )  # fmt: skip
        title = name if number == 0 else f"{name}_seed{own.seed}"
        inputs = inputs or by_first(partial(sum_of_inputs, dataset, features, columns, lookup, reading))
        key = training_key(
            inputs, logs / title, module=module, model=model, hyperparameters=network.hyperparameters,
            columns=[features["train"].columns[place] for place in columns], plan=asdict(own),
        )  # fmt: skip
        best, curve = _run(network, data, title, own, logs, key, report)
        epochs.append(best)
        networks.append(network)
        curves.append(pd.DataFrame(curve))
    whole = networks[0] if plan.seeds == 1 else Ensemble(networks).eval()
    names = [features["train"].columns[place] for place in columns]
    return TrainResult(
        TrainedModel(name, module, tier if kind.uses_features else kind.own_tier, whole, names, users, articles),
        curves[0],
        epochs[0],
    )


def _run(
    network: SlateModel, data: SlateData, name: str, plan: TrainConfig, logs: Path, key: str, report: EpochReport | None
) -> tuple[int, list[dict[str, Any]]]:
    """Train one network, leave it with the weights of its best epoch, and return that epoch and all figures."""
    folder = logs / name
    kept = by_first(partial(_kept, folder, key, name, plan))
    if kept is None or not kept.over:
        _fit(network, data, name, plan, logs, kept, key, report)
        kept, _ = find(folder, key)
    assert kept is not None, "the last epoch's end is kept"
    checkpoint = torch.load(folder / BEST, map_location="cpu", weights_only=True)
    network.load_state_dict(checkpoint["state_dict"])
    network.cpu().eval()
    return int(checkpoint["epoch"]), kept.rows


def _kept(folder: Path, key: str, name: str, plan: TrainConfig) -> Kept | None:
    """Return what there is to go on from, if anything, and say so; where there is nothing, clear the folder."""
    kept, reason = find(folder, key)
    if kept is not None:
        reason = unreadable([folder / kept.checkpoint, folder / BEST])
    if reason:
        print(f"{name}  trained anew: {reason}", flush=True)
        kept = None
    if kept is None:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        done = len(kept.rows)
        print(
            f"{name}  taken as it is: all {done} epochs were trained before its stage was cut off"
            if kept.over
            else f"{name}  goes on after epoch {done}/{plan.epochs}, where it was cut off",
            flush=True,
        )
    return kept


def _fit(
    network: SlateModel, data: SlateData, name: str, plan: TrainConfig, logs: Path, kept: Kept | None, key: str,
    report: EpochReport | None,
) -> None:  # fmt: skip
    """Train a network to its last epoch, from the start or from what is kept."""
    folder, rows = logs / name, [] if kept is None else kept.rows
    start = None if kept is None else folder / kept.checkpoint
    # TensorBoard leaves out what was logged after the checkpoint.
    purge = None if start is None else torch.load(start, map_location="cpu", weights_only=True)["global_step"]
    trainer = pl.Trainer(
        max_epochs=plan.epochs,
        logger=TensorBoardLogger(logs, name=name, version="", purge_step=purge),
        callbacks=[
            EpochSeed(plan.seed),
            EarlyStopping("val/auc", mode="max", patience=plan.patience),
            _Epochs(name, plan.epochs, rows, folder / "metrics.csv", report),
            ModelCheckpoint(
                folder, Path(BEST).stem, monitor="val/auc", mode="max", save_top_k=1, enable_version_counter=False
            ),
            KeepEpochs(folder, key, rows),
            *([OwnSigterm()] if several() else []),
        ],
        deterministic=True,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=50,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=logs,
        **lightning(plan.trainer),
    )
    with warnings.catch_warnings():
        # Known and harmless: batches are array slices, checkpoints lie where more are written, torch renamed a class.
        for message in (".*many workers.*", ".*exists and is not empty.*", ".*LeafSpec.*", ".*logging interval.*"):
            warnings.filterwarnings("ignore", message=message)
        trainer.fit(network, data, ckpt_path=start, weights_only=True)


def train_variants(
    dataset: Dataset,
    features: dict[str, Features],
    module: str,
    models: list[str],
    tiers: list[str],
    hyperparameters: Mapping[str, Any],
    plan: TrainConfig,
    logs: Path,
    report: EpochReport | None = None,
) -> list[TrainResult]:
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


def quiet() -> None:
    """Keep Lightning's banners out of reports; its warnings stay."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
