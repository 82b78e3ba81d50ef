"""From a bundle to slates, labels, histories and sentiment."""

from benchmarks import bundles, preprocessing, stages
from benchmarks.context import Context, Measured
from benchmarks.packages import missing
from benchmarks.rivals import bare_read, row_wise
from benchmarks.row import Bar, at_most, faster, not_measured
from benchmarks.timing import Share, alternate, seconds

SHARE = {True: 3_000, False: 10_000}
"""Impressions that pandas goes over, by whether the run is quick."""


def measure(context: Context) -> Measured:
    """Time the package against pandas row by row, polars, and the bare read of the same columns."""
    bundle = bundles.bundle(context.size)
    lacking = missing("polars")
    contestants = {
        "ours": lambda: preprocessing.slates(bundle),
        "read": lambda: bare_read.tables(bundle),
    }
    if not lacking:
        from benchmarks.rivals import exploded

        contestants["polars"] = lambda: exploded.labelled(bundle)
    times = alternate(contestants)

    # The join does not grow with the share that is labelled, so it is timed apart, for the whole.
    frame, known = row_wise.joined(bundle), row_wise.moods(bundle)
    some = frame.sample(SHARE[context.quick], random_state=0, replace=len(frame) < SHARE[context.quick])
    half = seconds(lambda: row_wise.label(some[: len(some) // 2], known))
    rows = alternate(
        {
            "ours": lambda: preprocessing.slates(bundle),
            "join": lambda: (row_wise.joined(bundle), row_wise.moods(bundle)),
            "label": lambda: row_wise.label(some, known),
        }
    )
    share = Share("impressions, drawn by seed", len(some), len(frame), half)
    slow = rows["label"].scaled(share.factor).plus(rows["join"])
    about = f"Size {context.size}, {len(frame):,} impressions."
    title = "slates and labels: "
    found = [
        faster(f"{title}row-wise pandas", rows["ours"], slow, 50, f"{about} {share.note(rows['label'])}"),
        faster(f"{title}explode and group by, polars", times["ours"], times["polars"], 3, about)
        if not lacking
        else not_measured(f"{title}explode and group by, polars", Bar("ratio", "≥", 3), lacking),
        at_most(f"{title}bare read", times["ours"], times["read"], 2.5, f"{about} The same columns, into Arrow."),
    ]
    names = [name for name in ("slates", "slates, polars") if name in stages.available()]
    return Measured(found, [stages.run(name, context.size, context.work) for name in names if not context.quick])
