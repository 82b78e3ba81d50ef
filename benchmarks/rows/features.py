"""From parquet to features on disk."""

from benchmarks import bundles, preprocessing, stages
from benchmarks.context import Context, Measured
from benchmarks.rivals import searchsorted
from benchmarks.row import Bar, Row
from benchmarks.timing import alternate
from ebnerd_lib.features.registry import every_column


def measure(context: Context) -> Measured:
    """Time the package against loops over articles; both write their features to disk."""
    bundle, folder = bundles.bundle(context.size), context.work / "ours"
    data = preprocessing.slates(bundle)
    candidates, names = data.log.candidates, searchsorted.write(data, context.work)
    times = alternate(
        {
            "ours": lambda: preprocessing.features(bundle, folder),
            "rival": lambda: searchsorted.write(preprocessing.slates(bundle), context.work),
        }
    )
    ours, rival = times["ours"], times["rival"]
    row = Row(
        "features: searchsorted loops over articles",
        candidates / ours.median,
        "candidates/s",
        candidates / rival.median,
        rival.median / ours.median,
        "ours / rival",
        Bar("ours", "≥", 1e6),
        len(ours.seconds),
        f"Size {context.size}, {candidates:,} candidates from parquet to disk; ours computes {len(every_column())} "
        f"columns, the rival {len(names)}.",
        {side: [candidates / each for each in reversed(own.ends)] for side, own in times.items()},
    )
    if context.quick:
        return Measured([row])
    return Measured([row], [stages.run("features, searchsorted", context.size, context.work)])
