"""An epoch against a loop of PyTorch alone, and ``mlp`` against LightGBM on the same columns."""

import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

from benchmarks import inputs
from benchmarks.measure import RUNS, Row, Run, alternate, seconds
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.evaluation.metrics import mean_metrics, per_slate
from ebnerd_lib.features.build import Features
from ebnerd_lib.features.registry import allowed
from ebnerd_lib.models.base import LOSSES, SlateModel, slate_auc
from ebnerd_lib.training.lightning import SlateData
from ebnerd_lib.training.model_file import TrainedModel


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

    def after_epoch(told: dict[str, Any]) -> None:
        nonlocal start
        if "epoch" not in told:  # a share of one
            return
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
    aucs: dict[str, float] = {}

    def score(name: str, model: TrainedModel) -> None:
        for part in ("tuning", "validation"):
            slates = data.parts[part]
            scores = model.score(data, slates, features[part].matrix, features[part].columns)
            aucs[name] = mean_metrics(per_slate(scores, slates.clicked, slates.offsets))["auc"]

    took = alternate(
        ours=lambda: score("ours", inputs.fitted(size, data, features, "mlp", run.work).model),
        rival=(lambda: score("rival", inputs.boosted(size, data, features))) if find_spec("lightgbm") else None,
    )
    note = f"size {size}, {len(allowed(inputs.TIER))} columns, one thread each"
    return [
        Row("training: AUC of mlp, LightGBM", aucs["ours"], "AUC", "ours / rival ≥ 1", aucs.get("rival"), note),
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
