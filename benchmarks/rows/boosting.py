"""A network against boosted trees on the same features, rows and tuning day."""

import time

import numpy as np
from ebnerd_lib.evaluation.reference import Boosting, train_reference

from benchmarks import bundles, preprocessing, training
from benchmarks.context import Context, Measured
from benchmarks.packages import missing
from benchmarks.row import Bar, Row, faster, not_measured
from benchmarks.timing import RUNS, Times
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.evaluation.intervals import user_bootstrap
from ebnerd_lib.evaluation.metrics import mean_metrics, per_slate

SIZE = "demo"
TITLE = "boosted trees on the same features: LightGBM, "


def measure(context: Context) -> Measured:
    """Compare AUC on validation and the time to train and score; each warms up on one epoch or a few rounds."""
    lacking = missing("lightgbm")
    if lacking:
        bars = {"AUC of mlp": "AUC", "time to train mlp": "s"}
        return Measured(
            [not_measured(TITLE + what, Bar("ratio", "≥", 1), lacking, unit) for what, unit in bars.items()]
        )  # fmt: skip
    data, features = preprocessing.read(bundles.features(SIZE))
    given = training.parameters("mlp")
    boosting = Boosting(warmup_hours=given["warmup_hours"], seed=given["seed"])
    training.train_model(data, features, "mlp", "mlp", context.work / "warm", epochs=1)
    train_reference(data, features, training.TIER, Boosting(rounds=5, warmup_hours=given["warmup_hours"]))
    ours, theirs, auc, epochs, trees = [], [], (0.0, 0.0), 0, 0
    for number in range(RUNS):
        start = time.perf_counter()
        fit = training.train_model(data, features, "mlp", "mlp", context.work / str(number))
        scores = training.score_part(fit, data, features, "validation")
        training.score_part(fit, data, features, "tuning")
        middle = time.perf_counter()
        reference = train_reference(data, features, training.TIER, boosting)
        theirs.append(time.perf_counter() - middle)
        ours.append(middle - start)
        auc = training.auc_of(data, scores), training.auc_of(data, reference.scores["validation"])
        epochs, trees = len(fit.curve), reference.trees
    difference = _difference(data, scores, reference.scores["validation"])
    about = (
        f"Size {SIZE}, tier {training.TIER}, {len(fit.model.columns)} columns, one thread, {epochs} epochs, "
        f"{trees} trees. Times are of training and of scoring the tuning day and validation. "
        f"Both repeat exactly. On validation mlp is {difference}."
    )
    return Measured(
        [
            Row(
                f"{TITLE}AUC of mlp", auc[0], "AUC", auc[1], auc[0] / auc[1], "ours / rival", Bar("ratio", "≥", 1),
                RUNS, about,
            ),
            faster(f"{TITLE}time to train mlp", Times(ours), Times(theirs), 1, about),
        ]
    )  # fmt: skip


def _difference(data: Dataset, ours: np.ndarray, theirs: np.ndarray) -> str:
    """Say by how much the AUC of validation differs, paired by impression, with its interval over users."""
    slates = data.parts["validation"]
    values = [per_slate(scores, slates.clicked, slates.offsets) for scores in (ours, theirs)]
    apart = values[0] - values[1]
    low, high = user_bootstrap(apart, slates.user_id)[0]
    return f"{mean_metrics(apart)['auc']:+.4f} AUC from LightGBM, 95 % interval over users {low:+.4f} to {high:+.4f}"
