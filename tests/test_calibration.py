"""The sample against published aggregates of EBNeRD's demo bundle, and against how scorers rank on it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ebnerd_lib.sample import generate

HOUR = 3600
DAY = 24 * HOUR
BEGINS = tuple(int(np.datetime64(day, "s").astype(int)) for day in ("2023-05-18T07:00", "2023-05-25T07:00"))
AGE_BINS = (0, 1, 2, 4, 8, 16, 24, 48, 96, 240, 720, 1e9)


def seconds(column):
    return column.to_numpy().astype("datetime64[s]").astype(np.int64)


def nulls(column):
    return column.null_count / len(column)


def flat(column):
    lists = column.combine_chunks()
    return np.diff(lists.offsets.to_numpy()), lists.flatten()


def gini(counts):
    counts = np.sort(counts)
    place = np.arange(1, counts.size + 1)
    return ((2 * place - counts.size - 1) * counts).sum() / (counts.size * counts.sum())


class Week:
    """One split: its tables, and one entry for each article in view (a candidate)."""

    def __init__(self, folder: Path, articles, begin: int):
        self.begin = begin
        self.table = pq.read_table(folder / "behaviors.parquet")
        self.history = pq.read_table(folder / "history.parquet")
        self.ids = articles["article_id"].to_numpy()
        self.published = seconds(articles["published_time"])
        self.premium_of = articles["premium"].to_numpy()
        self.time = seconds(self.table["impression_time"])
        self.user = self.table["user_id"].to_numpy().astype(np.int64)
        self.page = self.place(self.table["article_id"].fill_null(-1).to_numpy())
        self.size, slates = flat(self.table["article_ids_inview"])
        self.clicks, clicked = flat(self.table["article_ids_clicked"])
        self.article = self.place(slates.to_numpy())
        self.row = np.repeat(np.arange(self.time.size), self.size)
        self.at = self.time[self.row]
        self.clicked_row = np.repeat(np.arange(self.time.size), self.clicks)
        self.clicked_article = self.place(clicked.to_numpy())
        self.clicked = np.isin(
            self.row * self.ids.size + self.article, self.clicked_row * self.ids.size + self.clicked_article
        )

    def place(self, ids):
        """Positions of ids in the articles' table; -1 where there is no id."""
        at = np.searchsorted(self.ids, ids)
        return np.where(ids >= 0, at, -1)

    @cached_property
    def age(self):
        return (self.at - self.published[self.article]) / HOUR

    @cached_property
    def click_age(self):
        return self.age[self.clicked]

    @cached_property
    def per_user(self):
        return np.unique(self.user, return_counts=True)[1]

    @cached_property
    def sessions(self):
        """Impressions of each session, and the gaps within sessions in seconds."""
        session = self.table["session_id"].to_numpy()
        order = np.lexsort((self.time, session))
        same = np.diff(session[order].astype(np.int64)) == 0
        return np.unique(session, return_counts=True)[1], np.diff(self.time[order])[same]

    @cached_property
    def devices(self):
        device = self.table["device_type"].to_numpy().astype(np.int64)
        return device, np.unique(np.unique(self.user * 8 + device) // 8, return_counts=True)[1]

    def users_with(self, column):
        return np.unique(self.user[self.table[column].to_numpy()]).size / self.per_user.size

    @cached_property
    def history_lengths(self):
        return flat(self.history["article_id_fixed"])[0]

    @cached_property
    def history_clicks(self):
        """Owner's place, article and time of each history click."""
        lengths, articles = flat(self.history["article_id_fixed"])
        times = seconds(flat(self.history["impression_time_fixed"])[1])
        return np.repeat(np.arange(lengths.size), lengths), self.place(articles.to_numpy()), times

    @cached_property
    def history_age(self):
        _, article, time = self.history_clicks
        return (time - self.published[article]) / HOUR

    @cached_property
    def distinct_share(self):
        owner, article, _ = self.history_clicks
        pairs = np.unique(owner * self.ids.size + article)
        return np.mean(np.bincount(pairs // self.ids.size) / self.history_lengths)

    @cached_property
    def repeats(self):
        """For each candidate: shown to this user earlier in the week, clicked by this user earlier."""
        user = self.user[self.row]
        order = np.lexsort((self.at, self.article, user))
        same = (np.diff(user[order]) == 0) & (np.diff(self.article[order]) == 0)
        shown = np.zeros(order.size, bool)
        shown[order[1:]] = same
        start = np.flatnonzero(np.r_[True, ~same])
        before = np.cumsum(self.clicked[order]) - self.clicked[order]
        before -= np.repeat(before[start], np.diff(np.r_[start, order.size]))
        chosen = np.zeros(order.size, bool)
        chosen[order] = before > 0
        return shown, chosen

    @cached_property
    def in_history(self):
        owner, article, _ = self.history_clicks
        users = self.history["user_id"].to_numpy().astype(np.int64)
        known = np.unique(users[owner] * self.ids.size + article)
        return np.isin(self.user[self.row] * self.ids.size + self.article, known)

    @cached_property
    def own(self):
        return self.article == self.page[self.row]

    def rate(self, low, high):
        inside = (self.age >= low) & (self.age < high)
        return self.clicked[inside].mean()

    @cached_property
    def news(self):
        return (self.published >= self.begin) & (self.published < self.begin + 7 * DAY)

    @cached_property
    def first_seen(self):
        first = np.full(self.ids.size, np.inf)
        np.minimum.at(first, self.article, self.at)
        return ((first - self.published) / HOUR)[self.news]

    @cached_property
    def last_seen(self):
        last = np.full(self.ids.size, -np.inf)
        np.maximum.at(last, self.article, self.at)
        early = self.news & (self.published < self.begin + 4 * DAY) & np.isfinite(last)
        return ((last - self.published) / HOUR)[early]

    @cached_property
    def hourly(self):
        pairs = np.unique(self.at // HOUR * self.ids.size + self.article)
        return np.bincount(pairs // self.ids.size - self.begin // HOUR)

    @cached_property
    def click_counts(self):
        return np.sort(np.unique(self.clicked_article, return_counts=True)[1])[::-1]

    def top(self, share):
        """Share of clicks on the given share of the clicked articles, the most clicked ones."""
        return self.click_counts[: round(share * self.click_counts.size)].sum() / self.click_counts.sum()

    @cached_property
    def view_counts(self):
        return np.unique(self.article, return_counts=True)[1]

    @cached_property
    def daily(self):
        day = self.time // DAY
        return np.bincount(day - day.min())[1:-1]

    @cached_property
    def by_hour(self):
        return np.bincount(self.time // HOUR % 24, minlength=24) / self.time.size

    @cached_property
    def old_share(self):
        return np.bincount(self.row, self.age > 48) / self.size


@dataclass
class Bundle:
    articles: object
    train: Week
    validation: Week

    @classmethod
    def read(cls, folder: Path) -> "Bundle":
        articles = pq.read_table(folder / "articles.parquet").sort_by("article_id")
        return cls(
            articles,
            *(
                Week(folder / split, articles, begin)
                for split, begin in zip(("train", "validation"), BEGINS, strict=True)
            ),
        )

    @cached_property
    def lengths(self):
        return {
            name: pc.utf8_length(self.articles[name]).to_numpy().astype(float) for name in ("title", "subtitle", "body")
        }

    def share(self, column, value):
        return pc.mean(pc.equal(self.articles[column], value)).as_py()

    @cached_property
    def kept_clicks(self):
        """Share of the train week's clicks that stand in the same user's validation history."""
        owner, article, time = self.validation.history_clicks
        users = self.validation.history["user_id"].to_numpy().astype(np.int64)
        week = self.train
        user = week.user[week.clicked_row]
        both = np.isin(user, users)
        wanted = zip(user[both], week.clicked_article[both], week.time[week.clicked_row][both], strict=True)
        held = set(zip(users[owner].tolist(), article.tolist(), time.tolist(), strict=True))
        return np.mean([tuple(map(int, event)) in held for event in wanted])


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("sample") / "demo"
    generate(folder, seed=0, size="demo")
    return Bundle.read(folder)


def quantile(values, probability):
    return float(np.quantile(values, probability))


# A row: name, measure, expected value, kind of tolerance. A share may be off by .02, a quantile (and
# what else is counted or averaged) by 15 %, a small share by .01; "within" gives the two ends, a pair two factors.
Row = tuple[str, Callable[[Bundle], float], float | tuple[float, float], str | tuple[float, float]]


def both(name: str, measure: Callable[[Week], float], train: float, validation: float, kind: str) -> list[Row]:
    """The same measure in both weeks."""
    return [
        (f"{name}, train", lambda b: measure(b.train), train, kind),
        (f"{name}, validation", lambda b: measure(b.validation), validation, kind),
    ]


def each(name, measure, expected, kind):
    return both(name, measure, expected, expected, kind)


ROWS: list[Row] = [
    # Slates
    *both("slate length, mean", lambda w: w.size.mean(), 11.25, 12.03, "quantile"),
    *[
        row
        for p, train, validation in (
            (0.25, 6, 6),
            (0.5, 8, 9),
            (0.75, 13, 14),
            (0.9, 21, 23),
            (0.95, 28, 30),
            (0.99, 42, 51),
        )
        for row in both(
            f"slate length, p{p * 100:.0f}", lambda w, p=p: quantile(w.size, p), train, validation, "quantile"
        )
    ],
    *each("slate length, least", lambda w: w.size.min(), (5, 5), "within"),
    *both("slate length, most", lambda w: w.size.max(), 100, 93, "quantile"),
    *[
        row
        for size, share in ((5, 0.176), (6, 0.138), (7, 0.103), (8, 0.086), (9, 0.074))
        for row in each(f"slates of {size}", lambda w, size=size: (w.size == size).mean(), share, "share")
    ],
    *each("slates all fresh", lambda w: (w.old_share == 0).mean(), 0.32, "share"),
    # Clicks
    *each("one click", lambda w: (w.clicks == 1).mean(), (0.993, 0.9965), "within"),
    *each("two clicks", lambda w: (w.clicks == 2).mean(), (0.003, 0.0065), "within"),
    *each("slates all clicked or none", lambda w: ((w.clicks == 0) | (w.clicks == w.size)).sum(), (0, 0), "within"),
    *each(
        "click rate, first place over all",
        lambda w: w.clicked[np.cumsum(w.size) - w.size].mean() / (1 / w.size).mean(),
        (0.95, 1.05),
        "within",
    ),
    # Nulls
    *both("front page", lambda w: nulls(w.table["article_id"]), 0.702, 0.724, "share"),
    *[
        row
        for column, share in (
            ("scroll_percentage", 0.707),
            ("gender", 0.927),
            ("postcode", 0.985),
            ("age", 0.975),
            ("next_read_time", 0.027),
            ("next_scroll_percentage", 0.112),
            ("read_time", 0.0),
        )
        for row in each(f"null {column}", lambda w, c=column: nulls(w.table[c]), share, "share")
    ],
    *each("null scroll in histories", lambda w: nulls(flat(w.history["scroll_percentage_fixed"])[1]), 0.10, "share"),
    # Devices and readers
    *[
        row
        for device, share in ((2, 0.628), (1, 0.341), (3, 0.031))
        for row in each(f"device {device}", lambda w, d=device: (w.devices[0] == d).mean(), share, "share")
    ],
    *each("users of several devices", lambda w: (w.devices[1] > 1).mean(), (0.008, 0.026), "within"),
    *each("signed in, impressions", lambda w: w.table["is_sso_user"].to_numpy().mean(), 0.107, "share"),
    *each("signed in, users", lambda w: w.users_with("is_sso_user"), 0.071, "share"),
    *each("subscriber, impressions", lambda w: w.table["is_subscriber"].to_numpy().mean(), 0.066, "share"),
    *each("subscriber, users", lambda w: w.users_with("is_subscriber"), 0.037, "share"),
    *both("impressions a user, mean", lambda w: w.per_user.mean(), 15.6, 16.2, "quantile"),
    *both("impressions a user, median", lambda w: quantile(w.per_user, 0.5), 9, 10, "quantile"),
    *both("impressions a user, p90", lambda w: quantile(w.per_user, 0.9), 39, 40, "quantile"),
    *both("impressions a user, most", lambda w: w.per_user.max(), 176, 122, "quantile"),
    ("users in both weeks", lambda b: np.intersect1d(b.train.user, b.validation.user).size, (1217, 1217), "within"),
    # Sessions and reading
    *each("impressions a session, mean", lambda w: w.sessions[0].mean(), 1.91, "quantile"),
    *each("impressions a session, median", lambda w: quantile(w.sessions[0], 0.5), 1, "quantile"),
    *each("impressions a session, p90", lambda w: quantile(w.sessions[0], 0.9), 4, "quantile"),
    *each("gap in a session, median", lambda w: quantile(w.sessions[1], 0.5), 57, "quantile"),
    *each("gap in a session, p90", lambda w: quantile(w.sessions[1], 0.9), 200, "quantile"),
    *each("gap in a session, most", lambda w: w.sessions[1].max(), (600, 1800), "within"),
    *[
        row
        for p, value in ((0.5, 21), (0.9, 95), (0.99, 390))
        for row in each(
            f"read time, p{p * 100:.0f}", lambda w, p=p: quantile(w.table["read_time"].to_numpy(), p), value, "quantile"
        )
    ],
    *each(
        "read time, front page", lambda w: quantile(w.table["read_time"].to_numpy()[w.page < 0], 0.5), 17, "quantile"
    ),
    *each(
        "read time, article page", lambda w: quantile(w.table["read_time"].to_numpy()[w.page >= 0], 0.5), 50, "quantile"
    ),
    *[
        row
        for p, value in ((0.5, 21), (0.9, 130), (0.99, 1010))
        for row in each(
            f"next read time, p{p * 100:.0f}",
            lambda w, p=p: quantile(w.table["next_read_time"].drop_null().to_numpy(), p),
            value,
            "quantile",
        )
    ],
    *each("next read time, most", lambda w: pc.max(w.table["next_read_time"]).as_py(), (1500, 1800), "within"),
    # Histories
    *both("history length, median", lambda w: quantile(w.history_lengths, 0.5), 95.5, 91, "quantile"),
    *both("history length, mean", lambda w: w.history_lengths.mean(), 162, 154, "quantile"),
    *each("history length, p90", lambda w: quantile(w.history_lengths, 0.9), 410, "quantile"),
    *each("history length, least", lambda w: w.history_lengths.min(), (5, 6), "within"),
    *each("history length, most", lambda w: w.history_lengths.max(), 1460, "quantile"),
    *each("history, distinct share", lambda w: w.distinct_share, 0.87, "share"),
    *each("history, age at click, median", lambda w: quantile(w.history_age, 0.5), 1.4, "quantile"),
    *each("history, age at click, p90", lambda w: quantile(w.history_age, 0.9), 10, "quantile"),
    *each("history, premium", lambda w: w.premium_of[w.history_clicks[1]].mean(), 0.05, "share"),
    ("train clicks in validation's history", lambda b: b.kept_clicks, 0.889, "share"),
    # Ages
    *[
        row
        for p, value in ((0.1, 0.62), (0.25, 1.46), (0.5, 3.73), (0.75, 17.1), (0.9, 3351))
        for row in each(f"age in view, p{p * 100:.0f}", lambda w, p=p: quantile(w.age, p), value, "quantile")
    ],
    *each("in view, older than 30 days", lambda w: (w.age > 720).mean(), 0.13, "share"),
    *[
        row
        for p, value in ((0.1, 0.70), (0.25, 1.45), (0.5, 2.83), (0.75, 6.73), (0.9, 11.5), (0.95, 25.5))
        for row in each(f"age at click, p{p * 100:.0f}", lambda w, p=p: quantile(w.click_age, p), value, "quantile")
    ],
    *[
        row
        for low, high, rate in zip(
            AGE_BINS[:-1],
            AGE_BINS[1:],
            (0.081, 0.114, 0.123, 0.126, 0.122, 0.053, 0.034, 0.031, 0.029, 0.015, 0.013),
            strict=True,
        )
        for row in each(
            f"click rate, age {low:g} to {high:g} h",
            lambda w, a=low, b=high: w.rate(a, b),
            rate,
            "share" if rate > 0.05 else "small",
        )
    ],
    *each("publication to first in view", lambda w: quantile(w.first_seen, 0.5), 0.09, "quantile"),
    ("last seen", lambda b: quantile(b.train.last_seen, 0.5), (46, 55), "within"),
    *both("published in the week", lambda w: w.news.sum(), 817, 845, "quantile"),
    *each("published and seen", lambda w: np.isfinite(w.first_seen).mean(), 0.98, "share"),
    *both("articles in view in an hour, mean", lambda w: w.hourly.mean(), 172, 201, "quantile"),
    # Concentration
    *both("articles in view", lambda w: w.view_counts.size, 2478, 2738, "quantile"),
    *both("articles clicked", lambda w: w.click_counts.size, 1114, 1144, "quantile"),
    *both("articles in histories", lambda w: np.unique(w.history_clicks[1]).size, 4247, 4074, "quantile"),
    *[
        row
        for top, share in ((0.01, 0.047), (0.05, 0.175), (0.1, 0.295), (0.2, 0.485))
        for row in each(f"clicks on the top {top:.0%}", lambda w, t=top: w.top(t), share, "share")
    ],
    *each("Gini of clicks", lambda w: gini(w.click_counts), 0.49, "quantile"),
    *each("Gini of in-views", lambda w: gini(w.view_counts), 0.70, "quantile"),
    *each(
        "evergreen, share of slates",
        lambda w: w.view_counts[np.argsort(-w.view_counts)][0] / w.time.size,
        (0.1, 0.5),
        "within",
    ),
    # Premium
    *each("premium in view", lambda w: w.premium_of[w.article].mean(), 0.199, "share"),
    *each("premium clicked", lambda w: w.premium_of[w.clicked_article].mean(), 0.078, "share"),
    ("premium, catalogue", lambda b: b.train.premium_of.mean(), 0.331, "share"),
    # A reader's earlier exposure
    *each("shown before", lambda w: w.repeats[0].mean(), 0.30, "share"),
    *each("clicked before", lambda w: w.repeats[1].mean(), (0.025, 0.045), "within"),
    *each("click rate where clicked before", lambda w: w.clicked[w.repeats[1]].mean(), (0.012, 0.026), "within"),
    *each("in view, stands in the history", lambda w: w.in_history.mean(), 0.008, "small"),
    *each("own article shown", lambda w: w.own.sum() / (w.page >= 0).sum(), 0.47, "share"),
    *each("own article, click rate", lambda w: w.clicked[w.own].mean(), (0.006, 0.018), "within"),
    # Volume
    *each("impressions a day, least", lambda w: w.daily.min(), 3164, "quantile"),
    *each("impressions a day, most", lambda w: w.daily.max(), 3746, "quantile"),
    *each("impressions, hours 05 to 07, each", lambda w: w.by_hour[5:8].mean(), (0.06, 0.07), "within"),
    *each("impressions, hours 17 to 20, each", lambda w: w.by_hour[17:21].mean(), (0.053, 0.063), "within"),
    *each("impressions, hours 00 to 02, most", lambda w: w.by_hour[:3].max(), (0.0, 0.01), "within"),
    # Cold start
    (
        "validation clicks on articles never clicked in train",
        lambda b: 1 - np.isin(b.validation.clicked_article, b.train.clicked_article).mean(),
        0.958,
        "share",
    ),
    (
        "validation clicks on articles never in view in train",
        lambda b: 1 - np.isin(b.validation.clicked_article, b.train.article).mean(),
        0.949,
        "share",
    ),
    # Articles
    *[
        (f"category {name}", lambda b, n=name: b.share("category_str", n), share, "share")
        for name, share in (
            ("nyheder", 0.232),
            ("sport", 0.182),
            ("underholdning", 0.151),
            ("krimi", 0.133),
            ("side9", 0.074),
            ("forbrug", 0.070),
            ("auto", 0.052),
            ("sex_og_samliv", 0.039),
            ("nationen", 0.024),
            ("musik", 0.015),
            ("penge", 0.010),
        )
    ],
    ("categories", lambda b: len(pc.unique(b.articles["category_str"])), (22, 25), "within"),
    *[
        (f"article type {name}", lambda b, n=name: b.share("article_type", n), count / 20_738, "share")
        for name, count in (
            ("article_default", 18_124),
            ("page_nine_girl", 1_222),
            ("video_standalone", 799),
            ("standard_feature", 228),
            ("scribblelive", 156),
        )
    ],
    *[
        (f"sentiment {name}", lambda b, n=name: b.share("sentiment_label", n), count / 20_738, "share")
        for name, count in (("Negative", 8_886), ("Neutral", 8_377), ("Positive", 3_475))
    ],
    ("sentiment score, mean", lambda b: pc.mean(b.articles["sentiment_score"]).as_py(), 0.825, "share"),
    *[
        (f"{name}, characters, mean", lambda b, n=name: b.lengths[n].mean(), mean, "quantile")
        for name, mean in (("title", 42), ("subtitle", 110), ("body", 2342))
    ],
    *[
        (f"{name}, characters, deviation", lambda b, n=name: b.lengths[n].std(), deviation, (0.7, 1.3))
        for name, deviation in (("title", 14), ("subtitle", 57), ("body", 2064))
    ],
    ("null image_ids", lambda b: nulls(b.articles["image_ids"]), 0.09, "share"),
    ("null total_inviews", lambda b: nulls(b.articles["total_inviews"]), 0.52, "share"),
]


def bounds(expected, kind) -> tuple[float, float]:
    if kind == "within":
        return expected
    if kind == "share":
        return expected - 0.02, expected + 0.02
    if kind == "small":
        return expected - 0.01, expected + 0.01
    low, high = (0.85, 1.15) if kind == "quantile" else kind
    return expected * low, expected * high


@pytest.mark.parametrize(("name", "measure", "expected", "kind"), ROWS, ids=[row[0] for row in ROWS])
def test_statistic_as_in_the_data(demo, name, measure, expected, kind):
    low, high = bounds(expected, kind)
    measured = float(measure(demo))
    assert low <= measured <= high, f"{name}: {measured:.4g} where the data has {expected}"


def mean_auc(week: Week, score) -> float:
    """Mean over slates of the chance that a clicked article outranks another, ties counting half."""
    order = np.lexsort((score, week.row))
    start = np.cumsum(week.size) - week.size
    row, ranked = week.row[order], score[order]
    fresh = np.r_[True, (np.diff(ranked) != 0) | (np.diff(row) != 0)]
    group = np.cumsum(fresh) - 1
    place = np.arange(order.size) - start[row] + 1.0
    average = (np.bincount(group, place) / np.bincount(group))[group]
    hit = week.clicked[order]
    positive = np.bincount(row, hit)
    total = np.bincount(row, average * hit)
    return float(((total - positive * (positive + 1) / 2) / (positive * (week.size - positive))).mean())


def trailing(events, event_times, articles, times, window):
    """Events on each article in ``[time - window, time)``: strictly before."""
    span = 1 << 34
    keys = np.sort(events.astype(np.int64) * span + event_times)
    base = articles.astype(np.int64) * span
    return np.searchsorted(keys, base + times) - np.searchsorted(keys, base + times - window)


def trailing_of(bundle: Bundle, what: str, hours: int):
    weeks = (bundle.train, bundle.validation)
    week = bundle.validation
    if what == "clicks":
        events = np.concatenate([w.clicked_article for w in weeks])
        times = np.concatenate([w.time[w.clicked_row] for w in weeks])
    else:
        events = np.concatenate([w.article for w in weeks])
        times = np.concatenate([w.at for w in weeks])
    return trailing(events, times, week.article, week.at, hours * HOUR)


def trailing_rate(bundle: Bundle, hours: int):
    clicks, views = (trailing_of(bundle, what, hours) for what in ("clicks", "views"))
    prior = 1 / bundle.train.size.mean()
    return (clicks + 10 * prior) / (views + 10)


def static_rate(bundle: Bundle):
    """Clicks over in-views of the train week, slightly smoothed; what was never in view takes the mean."""
    week = bundle.train
    views = np.bincount(week.article, minlength=week.ids.size)
    clicks = np.bincount(week.article, week.clicked, minlength=week.ids.size)
    prior = week.clicked.mean()
    return ((clicks + prior) / (views + 1))[bundle.validation.article]


SCORERS: list[tuple[str, Callable[[Bundle], np.ndarray], float, float]] = [
    ("random", lambda b: np.random.default_rng(0).random(b.validation.article.size), 0.49, 0.51),
    ("newest first", lambda b: -b.validation.age, 0.46, 0.54),
    (
        "clicks of the train week",
        lambda b: np.bincount(b.train.clicked_article, minlength=b.train.ids.size)[b.validation.article],
        0.40,
        0.52,
    ),
    ("click rates of the train week", static_rate, 0.46, 0.53),
    (
        "clicks in histories",
        lambda b: np.bincount(b.validation.history_clicks[1], minlength=b.train.ids.size)[b.validation.article],
        0.40,
        0.52,
    ),
    ("clicks of the last 6 h", lambda b: trailing_of(b, "clicks", 6), 0.68, 0.75),
    ("clicks of the last 24 h", lambda b: trailing_of(b, "clicks", 24), 0.68, 0.75),
    ("click rate of the last 24 h", lambda b: trailing_rate(b, 24), 0.64, 0.72),
]


@pytest.mark.parametrize(("name", "score", "low", "high"), SCORERS, ids=[row[0] for row in SCORERS])
def test_scorer_ranks_as_on_the_data(demo, name, score, low, high):
    auc = mean_auc(demo.validation, score(demo).astype(float))
    assert low <= auc <= high, f"{name}: AUC {auc:.3f} outside {low} to {high}"
