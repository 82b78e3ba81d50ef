"""Every function of plots draws whatever there is, and the reader's own settings of matplotlib change nothing."""

import inspect
import warnings
from itertools import combinations
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ebnerd_lib import plots

VALUES = {
    "nothing": [],
    "one point": [0.3],
    "all NaN": [np.nan, np.nan],
    "NaN among ties": [np.nan, 0.2, 0.2, 0.9],
    "zeros": [0.0, 0.0],
}
LABELS = {
    "long": ("a category of news that somebody named at length " * 2)[:80],
    "odd": "$x_{1$ & <b>\\frac$",
    "empty": "",
}


def frame(**columns):
    return pd.DataFrame(columns)


def ends(values, wide=0.1):
    """Intervals around values, as files hold them."""
    return [[value - wide, value + wide] for value in values]


def named(values, label):
    """The values as entries of one name each, and all as arrays under one name."""
    return {f"{label}{place}": value for place, value in enumerate(values)}


def scores(values, label, **more):
    return {name: {"tier": "ids", "auc": value, "auc_ci": [value, value], **more} for name, value in
            named(values, label).items()}  # fmt: skip


def records(values, label):
    """Slices of two dimensions, with and without intervals."""
    return [
        {"dimension": dimension, "slice": f"{label} {place}",
         "scorers": {label: {"auc": value, "auc_ci": None if place % 2 else [value, value]}}}
        for dimension in (label, "other") for place, value in enumerate(values)
    ]  # fmt: skip


def life(values):
    count = len(values)
    return frame(hour=3_600_000_000 * np.arange(count), inviews=np.nan_to_num(values), clicks=np.zeros(count),
                 rate=values, low=values, high=values)  # fmt: skip


CALLS = {
    "distribution": lambda v, x: [plots.distribution({x: np.array(v)}, x)],
    "rate_by_bin": lambda v, x: [plots.rate_by_bin(np.array(v), [x] * len(v), x, x)],
    "concentration": lambda v, x: [plots.concentration({x: np.array(v)})],
    "hour_profile": lambda v, x: [plots.hour_profile({x: np.nan_to_num(v).astype(int) % 24})],
    "learning_curves": lambda v, x: [plots.learning_curves(
        {x: pd.DataFrame({"epoch": range(len(v)), "train/loss": v, "val/loss": v, "val/auc": v})}, {x: 0}
    )],
    "intervals": lambda v, x: [plots.intervals(
        {n: {"tier": "ids", "validation": own} for n, own in scores(v, x).items()}
    )],
    "differences": lambda v, x: [plots.differences(scores(v, x), x)],
    "slate_layout": lambda v, x: [
        plots.slate_layout(SimpleNamespace(clicked=np.array(v) > 0, offsets=np.arange(len(v) + 1)))
    ],
    "category_shares": lambda v, x: [
        plots.category_shares(frame(value=[x] * len(own), shown=np.array(own, float), **{x: np.array(own, float)}))
        for own in (v, 7 * v)
    ],
    "slices": lambda v, x: [plots.slices(records(v, x), [x])],
    "calibration": lambda v, x: [plots.calibration(
        {x: {"ece": np.mean(v) if len(v) else np.nan, "curve": [{"probability": p, "click_rate": p} for p in v]}}
    )],
    "trade_off": lambda v, x: [plots.trade_off(
        {name: frame(diversity_weight=np.arange(len(v)), diversity=np.sort(v),
                     **{"ndcg@10": less * -np.sort(v), "ndcg@10_ci": ends(v)}) for name, less in ((x, 1), (f"{x}2", 2))}
    )],
    "importance": lambda v, x: [plots.importance(
        {x: frame(group=[f"{x}{place}" for place in range(len(v))], drop=v, drop_ci=ends(v))}
    ), plots.importance({})],
    "search": lambda v, x: [plots.search(
        frame(trial=np.arange(len(v)), AUC=np.array(v, float), **{"stopped early": np.arange(len(v)) % 2 == 1}),
        named(np.nan_to_num(v), x), "AUC",
    )],
    "article_life": lambda v, x: [plots.article_life(life(own), 0) for own in (v, 6 * v)],
}  # fmt: skip
"""By function, calls of it with some values and a label."""


def test_every_function_that_draws_is_called_below():
    drawing = {name for name, function in inspect.getmembers(plots, inspect.isfunction)
               if not name.startswith("_") and inspect.signature(function).return_annotation is Figure}  # fmt: skip
    assert set(CALLS) == drawing


@pytest.mark.parametrize("kind", [*VALUES, *LABELS])
@pytest.mark.parametrize("name", CALLS)
def test_a_plot_takes_whatever_there_is_and_any_label(name, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for figure in CALLS[name](VALUES.get(kind, [0.1, 0.4, 0.2]), LABELS.get(kind, "mlp")):
            assert plots.svg(figure).startswith("<svg")
            width = figure.get_figwidth() * figure.dpi
            for axis in (axis for axis in figure.axes if axis.get_visible()):
                box = axis.get_window_extent()
                assert box.width > 0.15 * width / len(figure.axes) and box.height > 20, "room for what is drawn"


@pytest.mark.parametrize("name", CALLS)
def test_settings_of_the_reader_change_nothing(name):
    wanted = [plots.svg(figure) for figure in CALLS[name]([0.1, 0.4, 0.2], "mlp")]
    own = {"font.size": 30, "axes.grid": False, "lines.linewidth": 9, "savefig.bbox": "tight", "svg.fonttype": "none",
           "timezone": "Asia/Tokyo", "axes.facecolor": "black", "axes.formatter.limits": (0, 0),
           "image.cmap": "gray", "figure.constrained_layout.use": True, "xtick.labelsize": 3}  # fmt: skip
    with mpl.rc_context(own):
        assert [plots.svg(figure) for figure in CALLS[name]([0.1, 0.4, 0.2], "mlp")] == wanted


def drawn(figure):
    """The visible axes of a figure that is drawn, the texts of each and those of the figure's own legends."""
    FigureCanvasAgg(figure).draw()
    found = [(None, text) for legend in figure.legends for text in legend.get_texts()]
    for axis in (axis for axis in figure.axes if axis.get_visible()):
        own = [axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label, *axis.texts]
        own += axis.get_legend().get_texts() if axis.get_legend() else []
        own += [tick.label1 for each in (axis.xaxis, axis.yaxis) for tick in each._update_ticks()]
        found += [(axis, text) for text in own]
    return [(axis, text) for axis, text in found if text.get_visible() and text.get_text().strip()]


def crowded(figure):
    """The texts that leave the figure, the pairs that lie over each other, and those that lie over a line."""
    found, (width, height) = drawn(figure), figure.get_size_inches() * figure.dpi
    boxes = [(text.get_text(), text.get_window_extent()) for _, text in found]
    out = [name for name, box in boxes if min(box.x0, box.y0) < -2 or box.x1 > width + 2 or box.y1 > height + 2]
    out += [
        (one, other) for (one, a), (other, b) in combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]  # fmt: skip
    for (axis, _), (name, box) in zip(found, boxes, strict=True):
        paths = [line.get_transform().transform_path(line.get_path()) for line in axis.lines] if axis else []
        out += [(name, "a line") for path in paths if path.intersects_bbox(box, filled=False)]
    return out


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_no_text_lies_over_another_or_leaves_the_figure(name, narrow):
    for figure in CALLS[name]([0.1, 0.4, 0.2, 0.31, 0.25], "mf_features_online"):
        with mpl.rc_context(plots.STYLE):
            shown = plots._narrowed(figure) if narrow else figure
            assert crowded(shown) == []
            assert shown.get_figwidth() == plots.NARROW or not narrow
