"""One measurement of one defect: the figure that the original's way gives, and the one that the right way gives."""

from dataclasses import dataclass

import pandas as pd

DEFECTS = {
    1: "label passed as the article's index",
    2: "labels flattened over slates, users one a row",
    3: "history of both weeks joined by user",
    4: "page being read taken for the candidate",
    5: "sentiment's probability averaged, a constant added",
    6: "loss between article 0 and article 1",
    7: "AUROC of one half of a batch against the other",
    8: "F1 against all ones and against all zeros",
    9: "training list never cleared",
    10: "AUC computed batch by batch",
    11: "raw ids as indices, positions off by one",
    12: "whole catalogue, in catalogue order",
    13: "table rows that no data reach",
    14: "one logger for two models",
    15: "weights and loaders not seeded",
    16: "mapping checked on one entry",
    17: "quantile over doubled rows",
}
"""What the original notebook does wrong, by number."""


@dataclass(frozen=True)
class Finding:
    """What a defect does to a figure.

    Attributes:
        defect: its number in ``DEFECTS``.
        quantity: what is measured.
        original: the value that the original's way gives; NaN where the data cannot tell.
        mended: the value that the right way gives on the same data; NaN likewise.
    """

    defect: int
    quantity: str
    original: float | int
    mended: float | int


def tabulate(findings: list[Finding]) -> pd.DataFrame:
    """Return findings as a table of text in order of the defects: counts whole, the rest to four digits, NaN a dash.

    >>> tabulate([Finding(3, "rows", 1204, 1000), Finding(1, "AUC", 0.5, 0.61)])["original"].tolist()
    ['0.5000', '1,204']
    """
    rows = [
        {
            "no.": one.defect,
            "defect": DEFECTS[one.defect],
            "measured": one.quantity,
            "original": _text(one.original),
            "mended": _text(one.mended),
        }
        for one in sorted(findings, key=lambda one: one.defect)
    ]
    return pd.DataFrame(rows, columns=["no.", "defect", "measured", "original", "mended"])


def plain(findings: list[Finding]) -> pd.DataFrame:
    """Return findings as a table of numbers, for ``metrics.json``."""
    columns = ["defect", "quantity", "original", "mended"]
    return pd.DataFrame([vars(one) for one in findings], columns=columns, dtype=object)


def _text(value: float | int) -> str:
    if value != value:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
