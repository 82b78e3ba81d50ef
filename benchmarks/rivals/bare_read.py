"""The floor: read from parquet into Arrow what slates are made of, and do nothing with it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = {
    "articles": (
        "article_id", "title", "premium", "published_time", "article_type", "url", "category", "category_str", "topics",
        "sentiment_score", "sentiment_label",
    ),
    "behaviors": (
        "impression_id", "article_id", "impression_time", "device_type", "article_ids_inview", "article_ids_clicked",
        "user_id", "is_subscriber", "session_id",
    ),
    "history": ("user_id", "article_id_fixed", "impression_time_fixed"),
    "contrastive_vector": ("article_id", "contrastive_vector"),
}  # fmt: skip
"""What the package reads of each file."""


def tables(bundle: Path) -> list[pa.Table]:
    """Read these columns of all files of a bundle."""
    return [
        pq.ParquetFile(file).read(columns=list(COLUMNS[file.stem]))
        for file in sorted(bundle.rglob("*.parquet"))
        if file.stem in COLUMNS
    ]
