"""How fast models train: candidates a second of an epoch, its tuning day and checkpoints included."""

import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import bundles, preprocessing, training
from benchmarks.context import Context, Measured
from benchmarks.rivals.bare_loop import BareLoop
from benchmarks.rivals.row_dataset import Candidates, loader
from benchmarks.row import Bar, Row, at_most
from benchmarks.timing import RUNS, Share, Times, seconds
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.features.store import Features

MODELS = {"mf_ids": "mf", "mf_features": "mf", "mlp": "mlp"}
QUICK = ("mf_ids", "mlp")
ROWS = {True: 20_000, False: 50_000}


def measure(context: Context) -> Measured:
    """Time epochs of the package's training against a bare loop of torch and the original's loading of rows."""
    data, features = preprocessing.read(bundles.features(context.size))
    rows: list[Row] = []
    for model in QUICK if context.quick else MODELS:
        rows += _model(context, data, features, MODELS[model], model)
    return Measured(rows)


def _model(context: Context, data: Dataset, features: dict[str, Features], module: str, model: str) -> list[Row]:
    network, batches = training.network_and_data(data, features, module, model)
    loop = BareLoop(network, (RUNS + 1) * len(batches.train_dataloader()))
    slates = data.parts["train"]
    where = candidate_rows(slates.offsets, batches.rows)
    number = min(ROWS[context.quick], len(where))
    some, fewer = original(data, number), original(data, number // 2)
    half = seconds(lambda: read(fewer))
    times = turns(
        lambda report: training.train_model(
            data, features, module, model, context.work / model, RUNS + 1, RUNS + 1, report
        ),
        {
            "bare": lambda: loop.epoch(batches.train_dataloader(), batches.val_dataloader()),
            "original": lambda: read(some),
        },
    )
    share = Share("candidates", number, len(where), half)
    about = f"Size {context.size}, {len(where):,} candidates an epoch, the tuning day, checkpoints and logs included."
    ours, old = times["ours"], times["original"]
    return [
        Row(
            f"training {model}: the original's Dataset and DataLoader",
            len(where) / ours.median,
            "candidates/s",
            number / old.median,
            (len(where) / ours.median) / (number / old.median),
            "ours / rival",
            Bar("ratio", "≥", 20),
            RUNS,
            f"{about} The rival only loads rows, nothing is trained. {share.note(old)}",
            {
                "ours": [len(where) / each for each in reversed(ours.ends)],
                "rival": [number / each for each in reversed(old.ends)],
            },
        ),
        at_most(
            f"training {model}: a bare loop over the same batches", ours, times["bare"], 1.15,
            f"{about} Seconds an epoch, both on one thread.",
        ),
    ]  # fmt: skip


def turns(
    train: Callable[[Callable[[dict[str, Any]], None]], object], rivals: dict[str, Callable[[], object]]
) -> dict[str, Times]:
    """Time the epochs of a training, and rivals at the end of each of them; the first time of all warms up."""
    found: dict[str, list[float]] = {name: [] for name in ("ours", *rivals)}
    start = time.perf_counter()

    def after_epoch(_: dict[str, Any]) -> None:
        nonlocal start
        found["ours"].append(time.perf_counter() - start)
        for name, work in rivals.items():
            found[name].append(seconds(work))
        start = time.perf_counter()

    train(after_epoch)
    return {name: Times(each[1:]) for name, each in found.items()}


def original(data: Dataset, number: int) -> Candidates:
    """Return the first candidates of the train part as the original's data set."""
    slates = data.parts["train"]
    mood = torch.from_numpy(data.users["sentiment_positive_train"].to_numpy(copy=True))
    user = torch.from_numpy(slates.per_candidate(slates.user)[:number]).long()
    article = torch.from_numpy(slates.article[:number]).long()
    return Candidates(user, article, torch.from_numpy(slates.clicked[:number]).float(), mood[user])


def read(rows: Candidates) -> int:
    """Go over all batches of the original's loader; return how many rows they had."""
    return sum(len(batch["user"]) for batch in loader(rows))
