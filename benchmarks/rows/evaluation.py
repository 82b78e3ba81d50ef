"""AUC, MRR and nDCG of many slates."""

import numpy as np

from benchmarks import bundles, preprocessing
from benchmarks.context import Context, Measured
from benchmarks.rivals import one_by_one
from benchmarks.row import faster
from benchmarks.timing import Share, alternate, seconds
from ebnerd_lib.evaluation.metrics import per_slate

SLATES = 25_000
SHARE = {True: 1_000, False: 2_500}


def measure(context: Context) -> Measured:
    """Time the package against one call of scikit-learn an impression."""
    slates = preprocessing.slates(bundles.bundle("demo")).parts["validation"]
    draw = np.random.default_rng(0)
    rows = draw.permutation(np.flatnonzero(slates.has_choice))[:SLATES]
    every = slates.take(rows)
    scores = draw.random(every.candidates)
    some = slice(0, int(every.offsets[SHARE[context.quick]]))

    def slowly(number: int) -> np.ndarray:
        return one_by_one.per_slate(scores[some], every.clicked[some], every.offsets[: number + 1])

    half = seconds(lambda: slowly(SHARE[context.quick] // 2))
    times = alternate(
        {
            "ours": lambda: per_slate(scores, every.clicked, every.offsets),
            "rival": lambda: slowly(SHARE[context.quick]),
        }
    )
    share = Share("impressions, drawn by seed", SHARE[context.quick], len(every), half)
    note = f"{len(every):,} slates of validation, size demo. {share.note(times['rival'])}"
    name = "evaluation: one scikit-learn call an impression"
    return Measured([faster(name, times["ours"], times["rival"], 400, note, share.factor)])
