"""Tables as reports show them: a caption, aligned numbers, the tier beside every scorer."""

import html
from collections.abc import Iterable
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from ebnerd_lib.configs import flat
from ebnerd_lib.evaluation.intervals import with_interval
from ebnerd_lib.evaluation.metrics import METRICS

_HEADINGS = {
    "auc": "AUC",
    "mrr": "MRR",
    "mrr_first": "MRR, first click",
    "ndcg@5": "nDCG@5",
    "ndcg@10": "nDCG@10",
    "logloss": "log loss",
    "f1": "F1",
    "age_hours": "age, h",
    "click_rate": "click rate",
    "read_time": "read time, s",
    "diversity_weight": "λ",
    "novelty_week": "novelty, week",
    "article_id": "article",
    "user_id": "user",
}


def show(table: pd.DataFrame, caption: str, decimals: dict[str, int] | None = None, ours: Iterable[str] = ()) -> Styler:
    """Return a table ready for display.

    Args:
        table: rows to show; numbers are formatted by the name of their column.
        caption: what it says, with units.
        decimals: digits after the point by column; metrics have theirs, other numbers three in all. Ids are shown as
            they are.
        ours: scorers that are models of ours, the best of each tier among which is marked.
    """
    digits = {**dict.fromkeys((*METRICS, "logloss"), 4), **(decimals or {})}
    formats: dict[Any, Any] = {}
    for name in table.columns:
        if pd.api.types.is_float_dtype(table[name].dtype):
            formats[name] = f"{{:,.{digits[name]}f}}" if name in digits else _number
        elif pd.api.types.is_integer_dtype(table[name].dtype) and not str(name).endswith("_id"):
            formats[name] = "{:,}"
    marks = best(table, ours)
    if marks.any(axis=None):
        caption = f"{caption.rstrip('.')}. A model that is best of its tier is in bold."
    styler = table.style.format(formats, na_rep="–", escape="html")
    styler = styler.format_index(lambda name: html.escape(_HEADINGS.get(str(name), str(name))), axis="columns")
    styler = styler.set_caption(html.escape(caption, quote=False))
    styler = styler.set_td_classes(marks.map({True: "best", False: ""}.get))
    styler = styler.set_table_styles([{"selector": "td.best", "props": "font-weight: bold"}])
    return styler.hide(axis="index")


def best(table: pd.DataFrame, ours: Iterable[str]) -> pd.DataFrame:
    """Say which cells hold the best of a metric among the rows of one tier, where that is a model of ours.

    A text that begins with a number, as "0.71 [0.70, 0.72]", counts as that number. Values compare fairly within a tier
    only. Log loss, where less is better, F1 and accuracy are not marked: the last is highest for who predicts no click.

    Returns:
        Booleans of the table's shape: all ties for the best, none in a tier of one row, none without a column ``tier``.

    >>> table = pd.DataFrame({"scorer": ["a", "b", "c"], "tier": ["ids", "clicks", "clicks"], "auc": [0.5, 0.7, 0.6]})
    >>> best(table, ["a", "b"])["auc"].tolist(), best(table, ["c"])["auc"].tolist()
    ([False, True, False], [False, False, False])
    """
    marks = pd.DataFrame(False, index=table.index, columns=table.columns)
    for name in table.columns.intersection(METRICS) if {"scorer", "tier"} <= {*table.columns} else ():
        numbers = pd.to_numeric(table[name].astype(str).str.extract(r"^(\d*\.\d+)", expand=False), errors="coerce")
        tiers = numbers.groupby(table["tier"])
        is_best = (numbers == tiers.transform("max")) & (tiers.transform("size") > 1)
        marks[name] = is_best & table["scorer"].isin([*ours])
    return marks


def _number(value: float) -> str:
    """Write a number to three digits, a whole one without any after the point.

    >>> _number(94.0), _number(0.12345), _number(12.345), _number(4897.12)
    ('94', '0.123', '12.3', '4,897')
    """
    digits = 0 if float(value).is_integer() else (abs(value) < 100) + (abs(value) < 10) + (abs(value) < 1)
    return f"{value:,.{digits}f}"


def key_values(values: dict[str, Any], caption: str) -> Styler:
    """Return a table of names and values; of a group, one row for each of its values, named as ``group.name``."""
    rows = pd.DataFrame({"": list(flat(values)), "value": [str(value) for value in flat(values).values()]})
    return show(rows, caption)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table in plain types for ``metrics.json``; what is missing or NaN becomes ``None``."""
    plain = table.astype(object).where(table.notna(), None)
    return [
        {str(name): value.item() if hasattr(value, "item") else value for name, value in row.items()}
        for row in plain.to_dict("records")
    ]


def with_intervals(table: pd.DataFrame, decimals: int = 3) -> pd.DataFrame:
    """Return a table for readers: each mean written with its interval, "0.915 [0.892, 0.934]", no ``<name>_users``."""
    shown = table.drop(columns=[name for name in table.columns if name.endswith(("_ci", "_users"))])
    for name in [name for name in shown.columns if f"{name}_ci" in table]:
        both = zip(table[name], table[f"{name}_ci"], strict=True)
        shown[name] = [with_interval(mean, ends, digits=decimals) for mean, ends in both]
    return shown
