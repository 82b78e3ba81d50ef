"""What a bundle says, row by row: plain Python over pyarrow's lists, sharing no code with the package.

It is the oracle of the fault tests. It takes a folder that the package has accepted, and computes parts, slates,
labels, histories and what is known of articles again from the files alone.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HOUR = 3_600_000_000
UNKNOWN = -(2**63)  # the time of what has none


@dataclass
class Impression:
    """One row of behaviors."""

    number: int
    user: int
    device: int
    subscriber: bool
    page: int | None
    slate: list[int]
    clicked: list[int]
    time: int
    week: int
    part: str = ""


@dataclass
class Article:
    """One row of articles; as it is where the table says nothing."""

    premium: bool = False
    category: int | None = None
    topics: set[str] = field(default_factory=set)
    sentiment: tuple[float, ...] = (math.nan,) * 3
    published: int | None = None
    vector: list[float] | None = None


@dataclass
class Rows:
    """A bundle as Python objects."""

    impressions: list[Impression] = field(default_factory=list)
    articles: dict[int, Article] = field(default_factory=dict)
    histories: list[dict[int, list[tuple[int, int]]]] = field(default_factory=list)


def _columns(path: Path, names: tuple[str, ...], time: str) -> zip:
    """The rows of some columns, with whole microseconds, or lists of them, as the last."""
    table = pq.ParquetFile(path).read([*names, time])
    micros, whole = pa.timestamp("us"), pa.int64()
    if time.endswith("fixed"):
        micros, whole = pa.large_list(micros), pa.large_list(whole)
    times = table[time].cast(micros, safe=False).cast(whole).to_pylist()
    return zip(*(table[name].to_pylist() for name in names), times, strict=True)


def _sentiment(label: str | None, score: float | None) -> tuple[float, ...]:
    labels = ("Negative", "Neutral", "Positive")
    if label not in labels or score is None:
        return (math.nan,) * 3
    return tuple(score if label == each else (1 - score) / 2 for each in labels)


def read_rows(folder: Path, split: str) -> Rows:
    """Read a bundle and cut it: ``official`` by weeks, or at the .9 ``quantile`` of time."""
    rows = Rows()
    names = ("article_id", "premium", "category", "topics", "sentiment_label", "sentiment_score")
    for number, premium, category, topics, label, score, published in _columns(
        folder / "articles.parquet", names, "published_time"
    ):
        known = {topic for topic in topics or [] if topic is not None}
        rows.articles[number] = Article(bool(premium), category, known, _sentiment(label, score), published)
    if (path := folder / "contrastive_vector.parquet").exists():
        table = pq.ParquetFile(path).read()
        name = next(name for name in table.column_names if name != "article_id")
        for number, vector in zip(table["article_id"].to_pylist(), table[name].to_pylist(), strict=True):
            rows.articles.setdefault(number, Article()).vector = vector
    for week, name in enumerate(("train", "validation")):
        lists = _columns(folder / name / "history.parquet", ("user_id", "article_id_fixed"), "impression_time_fixed")
        rows.histories.append(
            {
                user: sorted(zip(when or [UNKNOWN] * len(what), what, strict=True), key=lambda c: c[0])
                for user, what, when in lists
            }
        )
        names = ("impression_id", "user_id", "device_type", "is_subscriber", "article_id", "article_ids_inview",
                 "article_ids_clicked")  # fmt: skip
        behaviors = _columns(folder / name / "behaviors.parquet", names, "impression_time")
        rows.impressions += [Impression(*row, week) for row in behaviors]
    for each in rows.impressions:
        each.device, each.subscriber = each.device or 0, bool(each.subscriber)
    _cut(rows.impressions, split)
    return rows


def _cut(impressions: list[Impression], split: str) -> None:
    times = sorted(each.time for each in impressions)
    validation = times[math.ceil(0.9 * (len(times) - 1))]
    tuning = validation - (validation - times[0]) // 10
    if split == "official":
        validation = min(each.time for each in impressions if each.week == 1)
        tuning = (max(each.time for each in impressions if each.week == 0) // HOUR + 1) * HOUR - 24 * HOUR
    for each in impressions:
        each.part = "validation" if each.time >= validation else "tuning" if each.time >= tuning else "train"
