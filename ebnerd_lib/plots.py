"""One function a figure, each returning a matplotlib ``Figure``; ``image`` turns it into what a notebook shows.

Figures are SVG in two colour schemes: every colour below is a variable of the picture, whose value depends on
whether the reader's system is light or dark.
"""

import io
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import matplotlib.dates as mdates
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.ticker import LogFormatter, MaxNLocator

from ebnerd_lib.data.slates import HOUR, Slates

# Okabe and Ito's palette, which colour-blind readers can distinguish too.
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#767676"
SKY, AMBER = "#56b4e9", "#e69f00"
INK, GROUND, GRID, FILL = "#1c2430", "#ffffff", "#e3e6ea", "#d5d9de"
DARK = {
    INK: "#e1e6ec", GROUND: "#14181e", GRID: "#2c343e", FILL: "#48525e", GREY: "#9aa6b4",
    BLUE: "#5db2e8", ORANGE: "#f08a4b", GREEN: "#3cc79b", PURPLE: "#e3a3c6", SKY: "#8fd0f5", AMBER: "#f0bd4d",
}  # fmt: skip
"""What each colour becomes where the reader's system is dark."""
STYLE: dict[Any, Any] = {
    # Matplotlib's own settings first: those of the user change nothing. The backend is not ours to choose.
    **{name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"},
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), GROUND),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    # "C0", "C1", … below are the colours of entries in their order; after seven they begin again.
    "axes.prop_cycle": cycler(color=(BLUE, ORANGE, GREEN, PURPLE, SKY, AMBER, GREY)),
    "font.size": 10,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "svg.hashsalt": "ebnerd",
    "text.parse_math": False,  # names are data: a dollar sign in one does not begin a formula
}
NARROW = 3.9
"""Inches: the width of a figure on a phone."""


def _figure(height: float = 3.2, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(9.2, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False, **grid).flat)


def _short(name: str, most: int = 40) -> str:
    """Cut a name that is too long: it would leave no room for what is drawn.

    >>> _short("mlp"), _short("a very long name", 9)
    ('mlp', 'a very l…')
    """
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _name_rows(axis: Any, names: list[str]) -> None:
    """Write names beside rows, the first one on top."""
    axis.set_yticks(range(len(names)), [_short(name) for name in names])
    axis.grid(axis="y", visible=False)
    axis.invert_yaxis()


def _bars(axis: Any, names: list[str], values: Any, color: str = BLUE, **kind: Any) -> Any:
    """Draw a bar a row, the first one on top, and return the bars."""
    _name_rows(axis, names)
    return axis.barh(range(len(names)), values, color=color, height=0.7, **kind)


def _name_lines(axis: Any) -> None:
    """Name the lines in a legend beside the axis, where it hides none of them."""
    if axis.get_legend_handles_labels()[0]:
        legend = axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, handlelength=1.4)
        for text in legend.get_texts():
            text.set_text(_short(text.get_text()))


def svg(figure: Figure) -> str:
    """Return a figure as SVG that is light or dark as the reader's system is; the same figure gives the same text."""
    stream = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    # Comments hold the labels, and labels may hold anything.
    text = re.sub(r"<!--.*?-->", "", stream.getvalue(), flags=re.DOTALL)
    start = text.index("<svg")
    opening = text.index(">", start) + 1
    for number, colour in enumerate(DARK):
        text = text.replace(colour, f"var(--c{number})")
    light, dark = ("".join(f"--c{n}:{colour};" for n, colour in enumerate(own)) for own in (DARK, DARK.values()))
    schemes = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    return re.sub(r"\n\s*", "\n", text[start:opening] + schemes + text[opening:])


def image(figure: Figure, alt: str) -> Any:
    """Return a figure as a picture that a notebook displays, with a text for those who cannot see it.

    Its metadata hold the same for a phone, which reports show on narrow screens.
    """
    from IPython.display import SVG

    return SVG(data=svg(figure), metadata={"alt": alt, "narrow": svg(_narrowed(figure))})


@mpl.rc_context(STYLE)
def _narrowed(figure: Figure) -> Figure:
    """Lay a figure out as wide as a phone, its panels one under the other and its legend below them."""
    panels = [axis for axis in figure.axes if axis.get_visible()]
    rows = panels[0].get_subplotspec().get_gridspec().nrows  # type: ignore[union-attr]
    figure.set_layout_engine("constrained")
    grid = figure.add_gridspec(len(panels), 1)
    for place, axis in enumerate(panels):
        axis.set_subplotspec(grid[place])
        axis.tick_params(labelleft=True)
        axis.set_ylabel(axis.get_ylabel() or panels[0].get_ylabel())
        axis.title.set_wrap(True)
    for legend in (*figure.legends, *filter(None, (axis.get_legend() for axis in panels))):
        names = [text.get_text() for text in legend.get_texts()]
        handles = [handle for handle in legend.legend_handles if handle is not None]
        figure.legend(handles, names, fontsize=8, ncols=2, loc="outside lower left")
        legend.remove()
    figure.set_size_inches(NARROW, figure.get_figheight() / rows * len(panels) + 0.3)
    return figure


@mpl.rc_context(STYLE)
def distribution(values: Mapping[str, np.ndarray], label: str) -> Figure:
    """Draw the cumulative share of values up to x, one line an entry; the x axis is logarithmic if it can be."""
    figure, (axis,) = _figure()
    for name, own in values.items():
        share = np.arange(1, len(own) + 1) / max(len(own), 1)
        axis.plot(np.sort(own), share, label=name, drawstyle="steps-post")
    if any((own > 0).any() for own in values.values()):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(LogFormatter())
        axis.xaxis.set_minor_formatter(LogFormatter())
    axis.set(xlabel=label, ylabel="share up to x", ylim=(0, 1.02))
    _name_lines(axis)
    return figure


@mpl.rc_context(STYLE)
def rate_by_bin(rate: np.ndarray, labels: list[str], xlabel: str, ylabel: str) -> Figure:
    """Draw a rate per bin as a row, the first bin on top, its value beside it; NaN bins stay empty."""
    figure, (axis,) = _figure(0.9 + 0.26 * max(len(rate), 1))
    bars = _bars(axis, labels, np.nan_to_num(rate))
    axis.bar_label(bars, labels=[f"{r:.3f}" if np.isfinite(r) else "" for r in rate], fontsize=8, padding=3)
    axis.margins(x=0.1)
    axis.set(xlabel=ylabel, ylabel=xlabel)
    return figure


@mpl.rc_context(STYLE)
def slate_layout(slates: Slates) -> Figure:
    """Draw how some slates lie one after the other: a box a candidate, clicked ones filled, the offsets below."""
    figure, (axis,) = _figure(1.5)
    for place, (start, end) in enumerate(pairwise(slates.offsets.tolist())):
        colour = f"C{place}"
        inside = np.arange(start, end)
        clicked = slates.clicked[start:end]
        axis.bar(inside + 0.5, 0.8, width=0.9, color=np.where(clicked, colour, GROUND), edgecolor=colour, linewidth=1.2)
        axis.text((start + end) / 2, 1.0, f"slate {place}", ha="center", va="bottom", color=INK, fontsize=9)
    axis.set_xticks(slates.offsets)
    axis.set(xlabel="place of a candidate in the arrays; ticks are the offsets", yticks=[], ylim=(0, 1.4))
    axis.grid(visible=False)
    axis.spines["left"].set_visible(False)
    return figure


@mpl.rc_context(STYLE)
def concentration(counts: Mapping[str, np.ndarray]) -> Figure:
    """Draw which share of events falls on the most popular share of articles, one line an entry."""
    figure, (axis,) = _figure(3.6)
    for name, numbers in counts.items():
        ordered = np.sort(numbers[numbers > 0])[::-1]
        share = np.append(0, np.cumsum(ordered) / max(ordered.sum(), 1))
        axis.plot(np.linspace(0, 1, len(share)), share, label=name)
    axis.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="all alike")
    axis.set(xlabel="share of articles, most popular first", ylabel="share of events", xlim=(0, 1), ylim=(0, 1.02))
    _name_lines(axis)
    return figure


@mpl.rc_context(STYLE)
def hour_profile(hours: Mapping[str, np.ndarray]) -> Figure:
    """Draw the share of impressions in each hour of the day as stored, one line a part."""
    figure, (axis,) = _figure()
    for name, own in hours.items():
        axis.plot(np.bincount(own, minlength=24) / max(len(own), 1), label=name, marker="o", markersize=3)
    axis.set(xlabel="hour of day, as stored", ylabel="share of impressions", xlim=(-0.5, 23.5), ylim=(0, None))
    axis.set_xticks(range(0, 24, 3))
    _name_lines(axis)
    return figure


@mpl.rc_context(STYLE)
def learning_curves(curves: Mapping[str, pd.DataFrame], best: Mapping[str, int], best_by: str = "val/auc") -> Figure:
    """Draw loss and tuning AUC, or ``val/ndcg``, by epoch; the epoch that was kept is marked."""
    metric = {"val/auc": "AUC", "val/ndcg": "next-click nDCG@10"}[best_by]
    figure, (left, right) = _figure(columns=2)
    for number, (name, curve) in enumerate(curves.items()):
        epoch, colour = curve["epoch"] + 1, f"C{number}"
        left.plot(epoch, curve["train/loss"], color=colour, linestyle="--")
        left.plot(epoch, curve["val/loss"], color=colour)
        right.plot(epoch, curve[best_by], color=colour, label=name)
        kept = curve["epoch"] == best[name]
        right.scatter(epoch[kept], curve.loc[kept, best_by], color=colour, zorder=3)
    left.set(xlabel="epoch", ylabel="loss", title="Training dashed, tuning day solid")
    right.set(xlabel="epoch", ylabel=metric, title="Tuning day, the kept epoch marked")
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(curves) > 1:
        _name_lines(right)
    return figure


@mpl.rc_context(STYLE)
def intervals(entries: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw each scorer's AUC with its 95 % interval, best on top, the tier beside its name, random level dotted."""
    rows = {name: {**entry["validation"], "tier": entry["tier"]} for name, entry in entries.items()}
    return _interval_rows(rows, "AUC on validation; dotted: random")


@mpl.rc_context(STYLE)
def differences(entries: Mapping[str, Mapping[str, Any]], reference: str) -> Figure:
    """Draw the paired difference in AUC of each scorer to a reference with its 95 % interval, best on top.

    Grey where the interval holds 0.
    """
    return _interval_rows(entries, f"ΔAUC vs. {_short(reference, 20)}", "+")


def _interval_rows(entries: Mapping[str, Mapping[str, Any]], label: str, sign: str = "") -> Figure:
    """Draw a row an entry, by ``auc``, with ``auc_ci`` and the ``tier``; a difference that may be none is grey.

    Where nothing could be evaluated (NaN), the row is at the bottom and says –.
    """
    ordered = sorted(entries.items(), key=lambda item: -np.nan_to_num(item[1]["auc"], nan=-np.inf))
    figure, (axis,) = _figure(0.9 + 0.32 * max(len(ordered), 1))
    for place, (_, entry) in enumerate(ordered):
        auc, (low, high) = entry["auc"], entry["auc_ci"]
        colour = GREY if sign and low <= 0 <= high else BLUE
        axis.plot([low, high], [place, place], color=colour, linewidth=2)
        axis.plot(auc, place, "o", color=colour, markersize=5)
        text = f"{auc:{sign}.4f}" if np.isfinite(auc) else "–"
        axis.text(1.01, place, text, transform=axis.get_yaxis_transform(), va="center", fontsize=9)
    axis.axvline(0 if sign else 0.5, color=GREY, linewidth=1, linestyle=":")
    _name_rows(axis, [f"{_short(name, 30)} ({entry['tier']})" for name, entry in ordered])
    axis.set_xlabel(label, loc="right")  # names may leave little room below the axis
    return figure


@mpl.rc_context(STYLE)
def category_shares(table: pd.DataFrame) -> Figure:
    """Draw the share of each category among what was shown (bars) and in each scorer's lists (dots).

    The table has ``value``, ``shown`` and a column of shares a scorer. Rows after the eleventh are one, the others.
    """
    shares = table.drop(columns=["kind", "value"], errors="ignore").astype(float)
    names = [str(value) for value in table["value"]]
    if len(table) > 12:
        names = [*names[:11], f"{len(table) - 11} others"]
        shares = pd.concat([shares.iloc[:11], shares.iloc[11:].sum().to_frame().T], ignore_index=True)
    figure, (axis,) = _figure(1.0 + 0.32 * len(names))
    _bars(axis, names, shares["shown"], FILL, label="shown")
    for number, name in enumerate(shares.columns.drop("shown")):
        mark = "osD^vP"[number % 6]
        axis.plot(shares[name], range(len(names)), f"C{number}{mark}", markersize=5, label=_short(name, 18))
    axis.set_xlabel("share of times shown, and of the lists", loc="right")
    axis.legend(fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


@mpl.rc_context(STYLE)
def slices(records: list[dict[str, Any]], scorers: list[str]) -> Figure:
    """Draw the AUC of up to four scorers by slice with 95 % intervals, one panel a dimension; chance dotted."""
    dimensions, across = list(dict.fromkeys(record["dimension"] for record in records)), 2
    down = max(1, -(-len(dimensions) // across))
    figure, axes = _figure(2.1 * down, down, across, sharey=True)
    for axis, dimension in zip(axes, dimensions, strict=False):
        own = [record for record in records if record["dimension"] == dimension]
        for number, name in enumerate(scorers):
            colour = f"C{number}"
            place = np.arange(len(own)) + 0.12 * (number - (len(scorers) - 1) / 2)
            values = [record["scorers"][name] for record in own]
            axis.plot(place, [one["auc"] for one in values], "o", color=colour, markersize=4, label=name)
            ends = [one["auc_ci"] or (one["auc"], one["auc"]) for one in values]
            axis.vlines(place, [low for low, _ in ends], [high for _, high in ends], color=colour, linewidth=1.5)
        axis.axhline(0.5, color=GREY, linewidth=1, linestyle=":")
        axis.set_xticks(range(len(own)), [_short(record["slice"], 56 // len(own)) for record in own], fontsize=7)
        axis.set_xlim(-0.5, len(own) - 0.5)
        axis.grid(axis="x", visible=False)
        axis.set_title(_short(dimension), fontsize=9)
    for axis in axes[len(dimensions) :]:
        axis.set_visible(False)
    for axis in axes[::across]:
        axis.set_ylabel("AUC")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, [_short(label, 25) for label in labels], loc="outside upper left", ncols=4, fontsize=9)
    return figure


@mpl.rc_context(STYLE)
def calibration(curves: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw click rate vs. predicted probability in bins of equal count, one line an entry; ideal dotted."""
    figure, (axis,) = _figure(4.4)
    for name, own in curves.items():
        points = pd.DataFrame(own["curve"], columns=["probability", "click_rate"])
        label = f"{_short(name, 24)}, error {own['ece']:.4f}"
        axis.plot(points["probability"], points["click_rate"], label=label, marker="o", markersize=3)
    top = max(axis.get_xlim()[1], axis.get_ylim()[1])
    axis.plot([0, top], [0, top], color=GREY, linewidth=1, linestyle=":")
    axis.set(xlabel="predicted probability of a click", ylabel="click rate", xlim=(0, top), ylim=(0, top))
    _name_lines(axis)
    return figure


@mpl.rc_context(STYLE)
def trade_off(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw nDCG@10 vs. intra-list diversity, one line a scorer, the smallest and the largest weight written.

    Tables have rows with ``diversity_weight``, ``diversity``, ``ndcg@10`` and ``ndcg@10_ci``.
    """
    figure, (axis,) = _figure(3.8)
    for number, (name, table) in enumerate(tables.items()):
        colour = f"C{number}"
        ends = np.array(table["ndcg@10_ci"].tolist(), dtype=float).reshape(-1, 2)
        axis.fill_between(table["diversity"], ends[:, 0], ends[:, 1], color=colour, alpha=0.15, linewidth=0)
        axis.plot(table["diversity"], table["ndcg@10"], marker="o", markersize=4, color=colour, label=name)
        for row, above in ((table.iloc[:1], 5), (table.iloc[-1:], -12)):
            for x, y, weight in zip(row["diversity"], row["ndcg@10"], row["diversity_weight"], strict=True):
                axis.annotate(
                    f"λ = {weight:g}", (x, y), (0, above), textcoords="offset points", ha="center", fontsize=8
                )
    axis.margins(0.1, 0.15)
    axis.set(xlabel="intra-list diversity of the first ten", ylabel="nDCG@10")
    _name_lines(axis)
    return figure


@mpl.rc_context(STYLE)
def importance(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw what the AUC loses when a feature group is shuffled, with 95 % intervals, one panel a model."""
    figure, axes = _figure(3.6, columns=max(1, len(tables)))
    for axis, (name, table) in zip(axes, tables.items(), strict=False):
        _bars(axis, list(table["group"]), table["drop"])
        ends = np.array(table["drop_ci"].tolist(), dtype=float).reshape(-1, 2)
        axis.hlines(range(len(table)), *ends.T, color=INK, linewidth=1)
        axis.tick_params(axis="y", labelsize=8)
        axis.set(xlabel="AUC lost when shuffled", title=_short(name))
    return figure


@mpl.rc_context(STYLE)
def search(trials: pd.DataFrame, importance: Mapping[str, float], metric: str) -> Figure:
    """Draw the metric of each trial with the best so far, and the share of each parameter in how much it varies.

    Trials have ``trial``, ``stopped early`` and the column of the ``metric``; shares are by parameter, largest first.
    """
    figure, (left, right) = _figure(columns=2)
    ordered = trials.sort_values("trial")
    for early, colour, label in ((False, BLUE, "trained to the end"), (True, GREY, "stopped early")):
        own = ordered[ordered["stopped early"] == early]
        left.scatter(own["trial"], own[metric], color=colour, s=18, label=label, zorder=3)
    left.step(ordered["trial"], ordered[metric].cummax(), color=ORANGE, where="post", label="best so far")
    left.set(xlabel="trial", ylabel=metric, title="The tuning day")
    figure.legend(fontsize=8, ncols=3, loc="outside lower left")
    _bars(right, list(importance), list(importance.values()))
    right.set(xlabel="share of what varies", title="Importance")
    return figure


@mpl.rc_context(STYLE)
def article_life(hours: pd.DataFrame, moment: int) -> Figure:
    """Draw how often an article was in view and clicked by hour, and the click rate with its 95 % interval below.

    Hours have ``hour`` (microseconds), ``inviews``, ``clicks``, ``rate``, ``low`` and ``high``, in order; the moment,
    in microseconds too, is dotted. Intervals of hours in which it was hardly in view may run out of the panel.
    """
    figure, (above, below) = _figure(3.8, rows=2, sharex=True, height_ratios=(3, 2))
    start = int(hours["hour"].min()) if len(hours) else moment
    place = (hours["hour"].to_numpy(np.int64) - start) // HOUR
    edges = (start + HOUR * np.arange(place.max(initial=0) + 2)).astype("datetime64[us]")
    for name, colour, label in (("inviews", FILL, "in view"), ("clicks", BLUE, "clicks")):
        every = np.bincount(place, hours[name], len(edges) - 1)
        above.stairs(every, mdates.date2num(edges), fill=True, color=colour, label=label)
    middle = edges[place] + np.timedelta64(30, "m")
    below.vlines(middle, hours["low"], hours["high"], color=BLUE, linewidth=1, alpha=0.5)
    below.plot(middle, hours["rate"], "o", color=BLUE, markersize=3)
    for axis in (above, below):
        axis.axvline(np.datetime64(moment, "us"), color=ORANGE, linewidth=1.2, linestyle=":", label="the moment")
        axis.grid(axis="x", visible=False)
    often = hours["high"][hours["inviews"] >= hours["inviews"].max() / 10].max()
    above.set(ylabel="times an hour", ylim=(0, None))
    below.set(ylabel="click rate", ylim=(0, 1.05 * often if often > 0 else 1))
    locator = mdates.AutoDateLocator(minticks=3, maxticks=6)
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    above.legend(fontsize=8, ncols=3, loc="upper right")
    return figure
