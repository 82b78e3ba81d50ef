"""An epoch against a loop of PyTorch alone, and ``mlp`` against LightGBM on the same columns."""

import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from benchmarks import inputs
from benchmarks.measure import RUNS, Row, Run, alternate, seconds
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.evaluation.metrics import mean_metrics, per_slate
from ebnerd_lib.features.build import Features, usable
from ebnerd_lib.models.base import LOSSES, SlateModel, slate_auc
from ebnerd_lib.training.inputs import training_rows
from ebnerd_lib.training.lightning import SlateData

LIGHTGBM = {
    "objective": "lambdarank", "lambdarank_truncation_level": 100, "learning_rate": 0.05, "num_leaves": 15,
    "min_data_in_leaf": 100, "feature_fraction": 0.5, "bagging_fraction": 0.8, "bagging_freq": 1,
    "metric": "None", "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1,
}  # fmt: skip
"""LambdaRank (Burges, 2010); the mean AUC over slates decides when to stop, and two runs do not differ."""


def measure(run: Run) -> list[Row]:
    """Time epochs on the size of ebnerd_small, and whole trainings on that of ebnerd_demo."""
    size = run.size("small")
    data, features = inputs.prepared(size, run.work)
    epochs = [_epoch(run, size, data, features, model) for model in ("mf_ids", "mf_features", "mlp")]
    return [*epochs, *_boosting(run)]


def _epoch(run: Run, size: str, data: Dataset, features: dict[str, Features], model: str) -> Row:
    """Time each epoch of a training and, at the end of each, one of the bare loop."""
    # The loop goes on from a trained network and its batches: an epoch takes as long from any weights.
    network = inputs.fitted(size, data, features, model, run.work, epochs=1).model.network
    bare = bare_loop(network, inputs.batches(size, data, features, model, network), RUNS + 1)
    ours, theirs = list[float](), list[float]()
    start = time.perf_counter()

    def after_epoch(_: dict[str, Any]) -> None:
        nonlocal start
        ours.append(time.perf_counter() - start)
        theirs.append(seconds(bare))
        start = time.perf_counter()

    inputs.fitted(size, data, features, model, run.work, RUNS + 1, after_epoch)
    first, second = (statistics.median(each[1:]) for each in (ours, theirs))  # the first of each warms up
    note = f"size {size}, the tuning day included, on one thread; ours also logs and saves"
    return Row(f"training: an epoch of {model}, bare PyTorch", first, "s", "ours / rival ≤ 1.15", second, note)


def _boosting(run: Run) -> list[Row]:
    """Compare the AUC on validation, and the time to train and to score the tuning day and validation."""
    size = run.size("demo")
    data, features = inputs.prepared(size, run.work)
    scores: dict[str, np.ndarray] = {}

    def ours() -> None:
        model = inputs.fitted(size, data, features, "mlp", run.work).model
        for part in ("tuning", "validation"):
            scores["ours"] = model.score(data, data.parts[part], features[part].matrix, features[part].columns)

    def rival() -> None:
        scores["rival"] = boosted(data, features, inputs.parameters(size, "mlp"))

    took = alternate(ours=ours, rival=rival if find_spec("lightgbm") else None)
    auc = {name: _auc(each, data, "validation") for name, each in scores.items()}
    note = f"size {size}, {len(usable(features['train'], inputs.TIER))} columns, one thread each"
    return [
        Row("training: AUC of mlp, LightGBM", auc["ours"], "AUC", "ours / rival ≥ 1", auc.get("rival"), note),
        Row("training: all of mlp, LightGBM", took["ours"], "s", "rival / ours ≥ 2", took.get("rival"), note),
    ]


def bare_loop(network: SlateModel, data: SlateData, epochs: int) -> Callable[[], None]:
    """Return a call that trains a network for one of some epochs in plain PyTorch and evaluates the tuning day.

    Forward, loss, backward, step, with the network's own batches, loss and optimizer and a one-cycle schedule.
    """
    settings = network.hyperparameters
    loss_of, rate = LOSSES[settings["loss"]], settings["learning_rate"]
    optimizer = network.adamw(list(network.parameters()), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, total_steps=epochs * len(data.train_dataloader()), pct_start=0.2, cycle_momentum=False
    )

    def epoch() -> None:
        network.train()
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            loss_of(network(batch), batch).backward()
            optimizer.step()
            schedule.step()
        network.eval()
        aucs, total = [], torch.zeros(())
        with torch.inference_mode():
            for batch in data.val_dataloader():
                scores = network(batch)
                total += loss_of(scores, batch)  # ours reports the loss of the tuning day too
                aucs.append(slate_auc(scores, batch))
        torch.cat(aucs).mean()

    return epoch


def boosted(data: Dataset, features: dict[str, Features], given: dict[str, Any], trees: int = 1000) -> np.ndarray:
    """Train LightGBM on the columns and rows of a model, score the tuning day and validation, and return the latter.

    Columns are taken raw, NaN as missing. The tuning day decides how many of at most ``trees`` are kept.
    """
    import lightgbm

    columns, settings = usable(features["train"], inputs.TIER), {**LIGHTGBM, "seed": given["seed"]}
    train, tuning = data.parts["train"], data.parts["tuning"]
    rows = training_rows(train, given["training"]["warmup_hours"])
    where = candidate_rows(train.offsets, rows)
    seen = {part: features[part].matrix[:, columns].astype(np.float32) for part in ("tuning", "validation")}
    matrix = features["train"].matrix[where][:, columns].astype(np.float32)
    training = lightgbm.Dataset(matrix, train.clicked[where], group=train.lengths[rows], params=settings)
    watched = lightgbm.Dataset(seen["tuning"], tuning.clicked, group=tuning.lengths, reference=training)
    booster = lightgbm.train(
        settings, training, trees, valid_sets=[watched],
        feval=lambda scores, _: ("auc", _auc(scores, data, "tuning"), True),
        callbacks=[lightgbm.early_stopping(50, verbose=False)],
    )  # fmt: skip
    booster.predict(seen["tuning"], num_threads=1)  # as ours does
    return booster.predict(seen["validation"], num_threads=1)


def _auc(scores: np.ndarray, data: Dataset, part: str) -> float:
    slates = data.parts[part]
    return mean_metrics(per_slate(scores, slates.clicked, slates.offsets))["auc"]
