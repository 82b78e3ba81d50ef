"""Factorisation on ids: how good, and how soon."""

import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import bundles, preprocessing, training
from benchmarks.context import Context, Measured
from benchmarks.packages import missing
from benchmarks.row import Bar, Row, faster, not_measured
from benchmarks.timing import RUNS, Times
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.features.store import Features
from ebnerd_lib.training.batches import training_rows

if TYPE_CHECKING:
    from benchmarks.rivals.bpr import Bpr

SIZE = "demo"
GRID = {"learning_rate": (0.01, 0.05, 0.2), "regularization": (0.01, 0.1)}
STEP, MOST, PATIENCE = 5, 200, 8
"""Epochs of BPR between two looks at the tuning day; at the most; looks without a better AUC before it stops."""
TITLE = "factorisation on ids: implicit BPR, "


def measure(context: Context) -> Measured:
    """Compare time to the best epoch by the tuning day, and AUC on validation, with BPR on the same slates."""
    lacking = missing("implicit")
    if lacking:
        bars = {"AUC": "AUC", "time to best AUC": "s"}
        return Measured(
            [not_measured(TITLE + what, Bar("ratio", "≥", 1), lacking, unit) for what, unit in bars.items()]
        )  # fmt: skip
    from benchmarks.rivals.bpr import Bpr

    data, features = preprocessing.read(bundles.features(SIZE))
    warmup = training.parameters("mf")["warmup_hours"]
    settings = [
        dict(zip(GRID, values, strict=True), factors=training.parameters("mf")["embedding_size"])
        for values in itertools.product(*GRID.values())
    ]
    chosen = max(settings, key=lambda each: bpr_once(Bpr(**each), data, warmup)[1])
    ours, theirs = list[float](), list[float]()
    found, rivals = (0.0, 0.0), (0.0, 0.0)
    for number in range(RUNS + 1):
        seconds, *mine = ours_once(data, features, context.work / str(number))
        rival, *its = bpr_once(Bpr(**chosen), data, warmup)
        found, rivals = (mine[0], mine[1]), (its[0], its[1])
        if number:
            ours.append(seconds)
            theirs.append(rival)
    about = (
        f"Size {SIZE}; the tuning day chooses the epoch. BPR has the best of {len(settings)} settings "
        f"by the tuning day, {', '.join(f'{name} {value:g}' for name, value in chosen.items())}, in a search not timed."
    )
    return Measured(
        [
            Row(
                f"{TITLE}AUC", found[1], "AUC", rivals[1], found[1] / rivals[1], "ours / rival", Bar("ratio", "≥", 1),
                RUNS, f"{about} AUC on validation; on the tuning day ours {found[0]:.4f}, BPR {rivals[0]:.4f}.",
            ),
            faster(f"{TITLE}time to best AUC", Times(ours), Times(theirs), 1, about),
        ]
    )  # fmt: skip


def ours_once(data: Dataset, features: dict[str, Features], logs: Path) -> tuple[float, float, float]:
    """Train ``mf_ids``; return seconds to the end of its best epoch, and AUC on the tuning day and on validation."""
    start, looks = time.perf_counter(), list[tuple[float, float]]()

    def after_epoch(figures: dict[str, Any]) -> None:
        looks.append((time.perf_counter() - start, figures["val/auc"]))

    fit = training.train_model(data, features, "mf", "mf_ids", logs, report=after_epoch)
    return (
        looks[fit.best_epoch][0],
        training.auc_of(data, training.score_part(fit, data, features, "tuning"), "tuning"),
        training.auc_of(data, training.score_part(fit, data, features, "validation")),
    )


def bpr_once(model: "Bpr", data: Dataset, warmup_hours: float) -> tuple[float, float, float]:
    """Train BPR some epochs at a time; return seconds to its best, and AUC on the tuning day and on validation."""
    from benchmarks.rivals.bpr import clicks

    start = time.perf_counter()
    slates = data.parts["train"]
    matrix = clicks(slates.take(training_rows(slates, warmup_hours)), len(data.users), len(data.articles))
    best, soon, scores = -np.inf, 0.0, np.empty(0)
    since = 0
    for _ in range(0, MOST, STEP):
        model.fit(matrix, STEP)
        auc = training.auc_of(data, model.score(data.parts["tuning"]), "tuning")
        since += 1
        if auc > best:
            best, soon, since = auc, time.perf_counter() - start, 0
            scores = model.score(data.parts["validation"])
        if since >= PATIENCE:
            break
    return soon, best, training.auc_of(data, scores)
