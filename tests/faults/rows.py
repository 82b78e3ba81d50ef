"""What a bundle says, row by row: plain Python over pyarrow's lists, sharing no code with the package.

It is the oracle of the fault tests. It takes a folder that the package has accepted, and computes parts, slates,
labels, histories and some features again from the files alone.
"""

import bisect
import math
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HOUR = 3_600_000_000
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}


@dataclass
class Impression:
    """One row of behaviors."""

    number: int
    week: int
    time: int
    user: int
    session: tuple[int, int]
    device: int
    subscriber: bool
    page: int | None
    slate: list[int]
    clicked: set[int]
    part: str = ""


@dataclass
class Article:
    """One row of articles."""

    published: int | None
    premium: bool
    category: int | None
    sentiment: tuple[float, float, float] | None
    topics: set[str]
    vector: list[float] | None = None


@dataclass
class Rows:
    """A bundle as Python objects."""

    impressions: list[Impression] = field(default_factory=list)
    articles: dict[int, Article] = field(default_factory=dict)
    histories: list[dict[int, list[tuple[int, int]]]] = field(default_factory=list)


def _micros(column: pa.ChunkedArray) -> list:
    """Times, or lists of times, as whole microseconds."""
    kind = column.type
    if pa.types.is_null(kind):
        return column.to_pylist()
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    unit = kind.value_type if nested else kind
    if pa.types.is_null(unit):
        return column.to_pylist()
    factor = UNITS[unit.unit]
    whole = (
        (lambda t: None if t is None else t * factor) if factor >= 1 else (lambda t: None if t is None else t // 1000)
    )
    wide = column.cast(pa.large_list(pa.int64()) if nested else pa.int64()).to_pylist()
    return [[whole(t) for t in own] for own in wide] if nested else [whole(t) for t in wide]


def _sentiment(label: str | None, score: float | None) -> tuple[float, float, float] | None:
    labels = ("Negative", "Neutral", "Positive")
    if label not in labels or score is None or math.isnan(score):
        return None
    return tuple(score if label == each else (1 - score) / 2 for each in labels)


def read_rows(folder: Path, split: str) -> Rows:
    """Read a bundle and cut it: ``official`` by weeks, or at the .9 ``quantile`` of time."""
    rows = Rows()
    names = ("article_id", "premium", "category", "topics", "sentiment_label", "sentiment_score")
    table = pq.ParquetFile(folder / "articles.parquet").read([*names, "published_time"])
    columns = [table[name].to_pylist() for name in names]
    for number, premium, category, topics, label, score, published in zip(
        *columns, _micros(table["published_time"]), strict=True
    ):
        known = {topic for topic in topics or [] if topic is not None}
        rows.articles[number] = Article(published, bool(premium), category, _sentiment(label, score), known)
    _read_vectors(folder / "contrastive_vector.parquet", rows)
    for week, name in enumerate(("train", "validation")):
        names = ("user_id", "article_id_fixed", "impression_time_fixed")
        table = pq.ParquetFile(folder / name / "history.parquet").read(names)
        lists = zip(*(table[column].to_pylist() for column in names[:2]), _micros(table[names[2]]), strict=True)
        rows.histories.append(
            {user: sorted(zip(when, what, strict=True), key=lambda c: c[0]) for user, what, when in lists}
        )
        names = ("impression_id", "user_id", "session_id", "device_type", "is_subscriber", "article_id",
                 "article_ids_inview", "article_ids_clicked")  # fmt: skip
        table = pq.ParquetFile(folder / name / "behaviors.parquet").read([*names, "impression_time"])
        columns = [table[column].to_pylist() for column in names]
        for number, user, session, device, subscriber, page, slate, clicked, time in zip(
            *columns, _micros(table["impression_time"]), strict=True
        ):
            rows.impressions.append(
                Impression(number, week, time, user, (week, session), device, subscriber, page, slate, set(clicked))
            )
    _cut(rows, split)
    return rows


def _read_vectors(path: Path, rows: Rows) -> None:
    if not path.exists():
        return
    table = pq.ParquetFile(path).read()
    name = next(name for name in table.column_names if name != "article_id")
    for number, vector in zip(table["article_id"].to_pylist(), table[name].to_pylist(), strict=True):
        article = rows.articles.setdefault(number, Article(None, False, None, None, set()))
        article.vector = vector


def _cut(rows: Rows, split: str) -> None:
    times = sorted(each.time for each in rows.impressions)
    if split == "official":
        last = max(each.time for each in rows.impressions if each.week == 0)
        tuning = (last // HOUR + 1) * HOUR - 24 * HOUR
        for each in rows.impressions:
            each.part = "validation" if each.week else "tuning" if each.time >= tuning else "train"
        return
    validation = times[math.ceil(0.9 * (len(times) - 1))]
    tuning = validation - (validation - times[0]) // 10
    for each in rows.impressions:
        each.part = "validation" if each.time >= validation else "tuning" if each.time >= tuning else "train"


class Oracle:
    """Answers what features are, from lists of events by article and by user."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.shown: dict[int, list[int]] = {}
        self.clicks: dict[int, list[int]] = {}
        self.of_user: dict[int, list[Impression]] = {}
        for each in sorted(rows.impressions, key=lambda row: row.time):
            self.of_user.setdefault(each.user, []).append(each)
            for article in each.slate:
                self.shown.setdefault(article, []).append(each.time)
                if article in each.clicked:
                    self.clicks.setdefault(article, []).append(each.time)

    def features(self, row: Impression, places: list[int]) -> list[dict[str, float]]:
        """Return some features of some candidates of an impression, NaN where unknown."""
        t = row.time
        before = [past for past in self.of_user[row.user] if past.time < t]
        read = [what for when, what in self.rows.histories[row.week].get(row.user, []) if when < t]
        own = [a for past in before for a in past.slate if a in past.clicked]
        candidates = sum(len(past.slate) for past in before)
        counts: dict[int, int] = {}
        for what in read:
            counts[what] = counts.get(what, 0) + 1
        shared = {
            "slate_length": len(row.slate), "desktop": row.device == 1, "mobile": row.device == 2,
            "tablet": row.device == 3,
            "front_page": row.page is None, "subscriber": row.subscriber, "history_length": len(read),
            "user_impressions": len(before), "user_click_share": len(own) / candidates if candidates else math.nan,
            "weekend": (t // (24 * HOUR) + 3) % 7 >= 5,
            "hour_sin": math.sin(t % (24 * HOUR) / (24 * HOUR) * 2 * math.pi),
        }  # fmt: skip
        profile = self._sum(counts)
        return [shared | self._of_candidate(row, row.slate[place], before, counts, profile) for place in places]

    def _of_candidate(self, row, a, before, counts, profile) -> dict[str, float]:
        t, article, nobody = row.time, self.rows.articles.get(a), Article(None, False, None, None, set())
        article = article or nobody
        mine = [past for past in before if a in past.slate]
        read = sum(counts.values())
        values = {
            "age_hours": math.nan if article.published is None else max(t - article.published, 0) / HOUR,
            "premium": article.premium, "premium_subscriber": article.premium and row.subscriber,
            "own_article": row.page == a, "negative": article.sentiment[0] if article.sentiment else math.nan,
            "positive": article.sentiment[2] if article.sentiment else math.nan, "history_article": counts.get(a, 0),
            "user_shown": len(mine), "user_clicked": sum(a in past.clicked for past in mine),
            "user_hours_since_shown": (t - mine[-1].time) / HOUR if mine else math.nan,
        }  # fmt: skip
        for name, events in (("inviews", self.shown.get(a, [])), ("clicks", self.clicks.get(a, []))):
            end = bisect.bisect_left(events, t)
            for window, hours in (("30m", 0.5), ("1h", 1), ("24h", 24), ("week", 168)):
                values[f"{name}_{window}"] = end - bisect.bisect_left(events, t - int(hours * HOUR))
            first_or_last = ("hours_since_first_inview", 0) if name == "inviews" else ("hours_since_click", end - 1)
            values[first_or_last[0]] = (t - events[first_or_last[1]]) / HOUR if end else math.nan
        alike = sum(
            n for b, n in counts.items()
            if article.category is not None and self.rows.articles.get(b, nobody).category == article.category
        )  # fmt: skip
        values["history_category"] = alike / read if read else 0.0
        values["history_topics"] = self._topics(article.topics, counts, read)
        values["history_vector"] = _cosine(profile, article.vector)
        page = None if row.page is None else self.rows.articles.get(row.page, nobody)
        values["page_category"] = (
            math.nan if page is None else float(article.category is not None and article.category == page.category)
        )
        known = page is not None and article.topics
        values["page_topics"] = len(article.topics & page.topics) / len(article.topics) if known else math.nan
        values["page_vector"] = math.nan if page is None else _cosine(page.vector, article.vector)
        return values

    def _topics(self, topics: set[str], counts: dict[int, int], read: int) -> float:
        if not topics or not read:
            return math.nan
        shares = ((n, self.rows.articles[b].topics) for b, n in counts.items() if b in self.rows.articles)
        return sum(n * len(topics & others) for n, others in shares) / (len(topics) * read)

    def _sum(self, counts: dict[int, int]) -> list[float] | None:
        """Sum of the unit vectors of articles, each as often as it was read."""
        total: list[float] | None = None
        for b, n in counts.items():
            unit = _unit(self.rows.articles[b].vector) if b in self.rows.articles else None
            if unit is not None:
                total = [x + n * y for x, y in zip(total or [0.0] * len(unit), unit, strict=True)]
        return total


def _unit(vector: list[float] | None) -> list[float] | None:
    length = math.hypot(*vector) if vector is not None else 0.0
    return [x / length for x in vector] if length > 0 else None


def _cosine(one: list[float] | None, other: list[float] | None) -> float:
    one, other = _unit(one), _unit(other)
    return math.nan if one is None or other is None else sum(x * y for x, y in zip(one, other, strict=True))
