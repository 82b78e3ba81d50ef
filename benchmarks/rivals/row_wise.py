"""Slates, labels and users' sentiment with pandas, row by row: join, then ``apply``, as the original notebook went.

What it got wrong is right here, since a result that differs could not be compared: each split is joined with its own
history, and the sentiment of an article is three shares, not one number.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SPLITS = ("train", "validation")
MOODS = ("Negative", "Neutral", "Positive")


def joined(bundle: Path) -> pd.DataFrame:
    """Return the impressions of both splits in file order, each beside its user's history."""
    parts = []
    for split in SPLITS:
        history = pd.read_parquet(bundle / split / "history.parquet")
        parts.append(pd.read_parquet(bundle / split / "behaviors.parquet").merge(history, on="user_id", how="left"))
    return pd.concat(parts, ignore_index=True)


def moods(bundle: Path) -> dict[int, tuple[float, float, float]]:
    """Return the shares of negative, neutral and positive of each article whose sentiment is known."""
    known: dict[int, tuple[float, float, float]] = {}
    table = pd.read_parquet(bundle / "articles.parquet", columns=["article_id", "sentiment_label", "sentiment_score"])
    for article, label, score in table.itertuples(index=False):
        if label in MOODS and not pd.isnull(score):
            known[article] = tuple(score if mood == label else (1 - score) / 2 for mood in MOODS)
    return known


def label(frame: pd.DataFrame, known: dict[int, tuple[float, float, float]]) -> pd.DataFrame:
    """Add ``labels``, 1 for each clicked candidate and 0 for the others, and ``mood``, the mean over the history."""

    def mark(row: pd.Series) -> list[int]:
        return [1 if article in row["article_ids_clicked"] else 0 for article in row["article_ids_inview"]]

    def mean_mood(articles: object) -> Any:
        if not isinstance(articles, np.ndarray):
            return None
        found = [known[article] for article in articles if article in known]
        return np.mean(found, axis=0) if found else None

    return frame.assign(labels=frame.apply(mark, axis=1), mood=frame["article_id_fixed"].apply(mean_mood))
