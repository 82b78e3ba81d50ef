"""Slates, labels, histories and sentiment with polars: lists are exploded to rows, and grouped to lists again."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks.rivals.row_wise import MOODS, SPLITS

_CONTEXT = (
    "impression_id", "user_id", "impression_time", "article_id", "device_type", "is_subscriber", "session_id",
    "article_ids_inview", "article_ids_clicked",
)  # fmt: skip


@dataclass(frozen=True)
class Labelled:
    """What both splits hold, the train split first.

    Attributes:
        slates: one row an impression in file order: what is known of the request, ``user``, the lists
            ``article_ids_inview``, ``article`` and ``labels``, and the ``Negative``, ``Neutral`` and ``Positive`` mood
            of the user's history.
        histories: by split, one row a click, ``user``, ``article`` and ``time``, each user's in order of time.
    """

    slates: pl.DataFrame
    histories: list[pl.DataFrame]


def labelled(bundle: Path) -> Labelled:
    """Return slates with labels, and histories; users and articles get the place of their id among all ids, from 1."""
    behaviors = [
        pl.read_parquet(bundle / split / "behaviors.parquet", columns=list(_CONTEXT)).with_row_index("row")
        for split in SPLITS
    ]
    histories = [
        pl.read_parquet(
            bundle / split / "history.parquet", columns=["user_id", "article_id_fixed", "impression_time_fixed"]
        ).rename({"article_id_fixed": "article_id", "impression_time_fixed": "time"})
        for split in SPLITS
    ]
    clicks = [history.explode("article_id", "time") for history in histories]
    table = pl.read_parquet(bundle / "articles.parquet", columns=["article_id", "sentiment_label", "sentiment_score"])
    shown = [rows.select(pl.col("article_ids_inview").explode().alias("article_id")) for rows in behaviors]
    pages = [rows.select("article_id").drop_nulls() for rows in behaviors]
    read = [rows.select("article_id").drop_nulls() for rows in clicks]
    articles = _index("article_id", "article", [table.select("article_id"), *shown, *pages, *read])
    users = _index("user_id", "user", [rows.select("user_id") for rows in behaviors + histories])
    past = [
        rows.drop_nulls("article_id")
        .join(users, on="user_id", how="left")
        .join(articles, on="article_id", how="left")
        .select("user", "article", "time")
        .sort("user", "time", maintain_order=True)
        for rows in clicks
    ]
    moods = _moods(table).join(articles, on="article_id", how="left").drop("article_id")
    slates = [
        _split(rows, users, articles).join(
            rest.join(moods, on="article", how="left").group_by("user").agg(pl.col(mood).mean() for mood in MOODS),
            on="user", how="left", maintain_order="left",
        )
        for rows, rest in zip(behaviors, past, strict=True)
    ]  # fmt: skip
    return Labelled(pl.concat(slates), past)


def _index(of: str, name: str, columns: list[pl.DataFrame]) -> pl.DataFrame:
    """Return the sorted distinct ids, each with its place from 1."""
    return pl.concat(columns).unique().sort(of).with_row_index(name, offset=1)


def _split(behaviors: pl.DataFrame, users: pl.DataFrame, articles: pl.DataFrame) -> pl.DataFrame:
    slates = (
        behaviors.select("row", "article_ids_inview", "article_ids_clicked")
        .explode("article_ids_inview")
        .with_columns(labels=pl.col("article_ids_inview").is_in(pl.col("article_ids_clicked")))
        .join(articles, left_on="article_ids_inview", right_on="article_id", how="left", maintain_order="left")
        .group_by("row", maintain_order=True)
        .agg("article_ids_inview", "article", "labels")
    )
    context = behaviors.drop("article_ids_inview", "article_ids_clicked")
    return context.join(users, on="user_id", how="left", maintain_order="left").join(
        slates, on="row", how="left", maintain_order="left"
    )


def _moods(table: pl.DataFrame) -> pl.DataFrame:
    """Return the shares of negative, neutral and positive of each article, null where its sentiment is unknown."""
    score = pl.col("sentiment_score").cast(pl.Float64)
    known = pl.col("sentiment_label").is_in(MOODS)
    return table.select(
        "article_id",
        *(
            pl.when(pl.col("sentiment_label") == mood).then(score).when(known).then((1 - score) / 2).alias(mood)
            for mood in MOODS
        ),
    )
