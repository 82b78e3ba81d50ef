"""From a bundle to slates, labels, histories and users' sentiment: against pandas, polars and the bare read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import inputs
from benchmarks.measure import Row, Run, alternate, in_child, seconds
from ebnerd_lib.data.bundle import ARTICLE_COLUMNS

try:
    import polars as pl
except ImportError:
    pl = None

SHARE = 50
"""Pandas labels one impression in so many: it takes minutes for all, and its time grows in a line."""
SPLITS = ("train", "validation")
SENTIMENTS = ("Negative", "Neutral", "Positive")
COLUMNS = {
    "articles": ARTICLE_COLUMNS,
    "behaviors": (
        "impression_id", "article_id", "impression_time", "device_type", "article_ids_inview", "article_ids_clicked",
        "user_id", "is_subscriber", "session_id",
    ),
    "history": ("user_id", "article_id_fixed", "impression_time_fixed"),
    "contrastive_vector": ("article_id", "contrastive_vector"),
}  # fmt: skip
"""What the package reads of each file."""


def measure(run: Run) -> list[Row]:
    """Time the package against each rival, and compare its peak memory with that of polars."""
    size = run.size("small")
    bundle = inputs.bundle(size)
    frame, sentiment = joined(bundle), sentiments(bundle)
    some = frame.sample(len(frame) // SHARE, random_state=0)
    took = alternate(
        ours=lambda: inputs.slates(bundle),
        read=lambda: bare_read(bundle),
        join=lambda: (joined(bundle), sentiments(bundle)),
        label=lambda: label(some, sentiment),
        polars=(lambda: exploded(bundle)) if pl else None,
    )
    peaks = alternate(  # a child returns its seconds, which cost nothing to send
        ours=lambda: in_child(seconds, partial(inputs.slates, bundle))[1],
        polars=(lambda: in_child(seconds, partial(exploded, bundle))[1]) if pl else None,
    )
    ours, pandas = took["ours"], took["join"] + SHARE * took["label"]
    about = f"size {size}, {len(frame):,} impressions; pandas labels {len(some):,} of them and is extrapolated"
    return [
        Row("slates: pandas row by row", ours, "s", "rival / ours ≥ 50", pandas, about),
        Row("slates: polars, explode and group", ours, "s", "rival / ours ≥ 1", took.get("polars")),
        Row("slates: peak memory, polars", peaks["ours"], "GB", "ours / rival ≤ 0.5", peaks.get("polars")),
        Row("slates: bare read of the same columns", ours, "s", "ours / rival ≤ 4", took["read"]),
    ]


def bare_read(bundle: Path) -> list[pa.Table]:
    """Read what slates are made of from parquet into Arrow, and do nothing with it."""
    files = [file for file in sorted(bundle.rglob("*.parquet")) if file.stem in COLUMNS]
    return [pq.ParquetFile(file).read(columns=list(COLUMNS[file.stem])) for file in files]


def joined(bundle: Path) -> pd.DataFrame:
    """Return the impressions of both splits in file order, each beside its user's history of that split."""
    parts = []
    for split in SPLITS:
        history = pd.read_parquet(bundle / split / "history.parquet")
        parts.append(pd.read_parquet(bundle / split / "behaviors.parquet").merge(history, on="user_id", how="left"))
    return pd.concat(parts, ignore_index=True)


def sentiments(bundle: Path) -> dict[int, tuple[float, ...]]:
    """Return the shares of negative, neutral and positive of each article whose sentiment is known."""
    columns = ["article_id", "sentiment_label", "sentiment_score"]
    rows = pd.read_parquet(bundle / "articles.parquet", columns=columns).dropna().itertuples(index=False)
    return {
        article: tuple(score if each == label else (1 - score) / 2 for each in SENTIMENTS)
        for article, label, score in rows
        if label in SENTIMENTS
    }


def label(frame: pd.DataFrame, known: dict[int, tuple[float, ...]]) -> pd.DataFrame:
    """Add ``labels``, 1 for each clicked candidate, and ``sentiment``, the mean over the history, row by row.

    ``apply`` over rows is the way of the original notebook. A user without a known article has no sentiment: ``None``.
    """

    def labels(row: pd.Series) -> list[int]:
        return [1 if article in row["article_ids_clicked"] else 0 for article in row["article_ids_inview"]]

    def mean(articles: object) -> Any:
        found = [known[each] for each in articles if each in known] if isinstance(articles, np.ndarray) else []
        return np.mean(found, axis=0) if found else None

    return frame.assign(labels=frame.apply(labels, axis=1), sentiment=frame["article_id_fixed"].apply(mean))


def exploded(bundle: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Do the same with polars: lists are exploded to rows, joined, and grouped to lists again.

    Return one row an impression in file order, with what is known of the request, its lists and the mean sentiment of
    the user's history, and one row a click of a history. Users and articles get the place of their id among all, from
    1, as ours do.
    """
    behaviors = _both(bundle, "behaviors").with_row_index("row")
    shown = behaviors.select("row", "article_ids_inview", "article_ids_clicked").explode("article_ids_inview")
    clicks = _both(bundle, "history").explode("article_id_fixed", "impression_time_fixed")
    table = pl.read_parquet(bundle / "articles.parquet", columns=list(ARTICLE_COLUMNS))
    read, users = clicks["article_id_fixed"], _index("user", behaviors["user_id"], clicks["user_id"])
    articles = _index("article", table["article_id"], shown["article_ids_inview"], behaviors["article_id"], read)
    clicks = (
        clicks.drop_nulls("article_id_fixed")
        .join(users, left_on="user_id", right_on="id")
        .join(articles, left_on="article_id_fixed", right_on="id")
        .sort("week", "user", "impression_time_fixed", maintain_order=True)
    )
    label, score = pl.col("sentiment_label"), pl.col("sentiment_score").cast(pl.Float64)
    shares = [
        pl.when(label == each).then(score).when(label.is_in(SENTIMENTS)).then((1 - score) / 2).alias(each)
        for each in SENTIMENTS
    ]
    sentiment = table.join(articles, left_on="article_id", right_on="id").select("article", *shares)
    means = clicks.join(sentiment, on="article", how="left").group_by("week", "user").agg(pl.col(SENTIMENTS).mean())
    slates = (
        shown.with_columns(labels=pl.col("article_ids_inview").is_in(pl.col("article_ids_clicked")))
        .join(articles, left_on="article_ids_inview", right_on="id", how="left", maintain_order="left")
        .group_by("row", maintain_order=True)
        .agg("article_ids_inview", "article", "labels")
    )
    requests = behaviors.drop("article_ids_inview", "article_ids_clicked")
    requests = requests.join(users, left_on="user_id", right_on="id", how="left", maintain_order="left")
    requests = requests.join(slates, on="row", how="left", maintain_order="left")
    return requests.join(means, on=["week", "user"], how="left", maintain_order="left"), clicks


def _both(bundle: Path, name: str) -> pl.DataFrame:
    """Read a file of both splits, with the number of the split as ``week``."""
    parts = [pl.read_parquet(bundle / split / f"{name}.parquet", columns=list(COLUMNS[name])) for split in SPLITS]
    return pl.concat([part.with_columns(week=pl.lit(week)) for week, part in enumerate(parts)])


def _index(name: str, *columns: pl.Series) -> pl.DataFrame:
    """Return the sorted distinct ids of some columns, each with its place from 1."""
    ids = pl.concat([column.rename("id") for column in columns]).drop_nulls().unique().sort()
    return ids.to_frame().with_row_index(name, offset=1)
