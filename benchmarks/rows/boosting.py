"""A network against boosted trees on the same features, rows and tuning day."""

import time

from benchmarks import bundles, preprocessing, training
from benchmarks.context import Context, Measured
from benchmarks.packages import missing
from benchmarks.row import Bar, Row, faster, not_measured
from benchmarks.timing import Times
from ebnerd_lib.evaluation.reference import Boosting, train_reference

SIZE, RUNS = "demo", 1
TITLE = "boosted trees on the same features: LightGBM, "


def measure(context: Context) -> Measured:
    """Compare AUC on validation and the time to train and score; each is run once to warm up on few rounds."""
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
    about = (
        f"Size {SIZE}, tier {training.TIER}, {len(fit.model.columns)} columns, one thread, {epochs} epochs, "
        f"{trees} trees. Times are of training and of scoring the tuning day and validation. "
        "Both repeat exactly, and take so long that they are run once."
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
