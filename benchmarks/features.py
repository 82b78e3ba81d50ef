"""From parquet to features on disk, against ``searchsorted`` in the times of each article's events."""

import numpy as np

from benchmarks import inputs
from benchmarks.measure import Row, Run, alternate
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.features.build import write_features
from ebnerd_lib.features.registry import every_column

WINDOWS = {"30m": 0.5, "1h": 1.0, "3h": 3.0, "6h": 6.0, "24h": 24.0, "48h": 48.0, "week": 168.0}


def measure(run: Run) -> list[Row]:
    """Time the rival's columns against the rival, and all columns."""
    size = run.size("small")
    bundle = inputs.bundle(size)
    data = inputs.slates(bundle)
    columns, shared = [column.name for column in every_column()], counts(data)
    others = [name for name in columns if name not in shared]
    took = alternate(
        every=lambda: write_features(inputs.slates(bundle), run.work),
        shared=lambda: write_features(inputs.slates(bundle), run.work, leave_out=others),
        rival=lambda: np.save(run.work / "rival.npy", np.stack([*counts(inputs.slates(bundle)).values()], axis=1)),
    )
    about = f"size {size}, {data.log.candidates:,} candidates from parquet to disk"
    note = f"{about}: inviews and clicks in 7 windows, and decayed by article, page, audience and category"
    title = f"features: {len(shared)} counts of both, searchsorted"
    return [
        Row(title, took["shared"], "s", "rival / ours ≥ 4", took["rival"], note),
        Row(f"features: all {len(columns)} columns", took["every"], "s", "", note=about),
    ]


def counts(data: Dataset) -> dict[str, np.ndarray]:
    """Return counts of past events by name, each float32 over the candidates of ``data.log``.

    Named as the package's: inviews and clicks of the article in trailing windows; decayed sums of the article, of the
    article on this kind of page and with this kind of reader, and of its category, 0 where it is unknown.
    """
    log = data.log
    row = np.repeat(np.arange(len(log)), log.lengths)
    time, article = log.time[row], log.article.astype(np.int64)
    page, audience = 2 * article + log.front_page[row], 2 * article + log.subscriber[row]
    category = data.metadata.category[article]
    out: dict[str, np.ndarray] = {}
    for kind, events in (("inviews", np.ones(len(row), bool)), ("clicks", log.clicked)):
        windows = {f"{kind}_{name}": hours for name, hours in WINDOWS.items()}
        out |= _by(article, time, events, windows, {f"{kind}_decay_{hours}h": hours for hours in (1, 6, 24)})
        out |= _by(page, time, events, {}, {f"{kind}_page_decay_6h": 6})
        out |= _by(audience, time, events, {}, {f"audience_{kind}_decay_6h": 6})
        decays = {f"category_{kind}_decay_{hours}h": hours for hours in (6, 24)}
        out |= _by(category, time, events & (category > 0), {}, decays)
    return out


def _by(
    key: np.ndarray, time: np.ndarray, events: np.ndarray, windows: dict[str, float], decays: dict[str, int]
) -> dict[str, np.ndarray]:
    """Count the events of the same key before each row, in windows of hours and with half-lives in hours."""
    out = {name: np.zeros(len(time), np.float32) for name in (*windows, *decays)}
    order = np.lexsort((time, key))
    for rows in np.split(order, np.flatnonzero(np.diff(key[order])) + 1):
        at, times = time[rows], time[rows[events[rows]]]
        if not len(times):
            continue
        before = np.searchsorted(times, at)
        for name, hours in windows.items():
            out[name][rows] = before - np.searchsorted(times, at - int(hours * HOUR))
        for name, half_life in decays.items():
            # Weights grow from the first event on, so that one sum serves every later time.
            sums = np.concatenate(([0.0], np.cumsum(2.0 ** ((times - times[0]) / (half_life * HOUR)))))
            out[name][rows] = sums[before] * 2.0 ** (-np.maximum(at - times[0], 0) / (half_life * HOUR))
    return out
