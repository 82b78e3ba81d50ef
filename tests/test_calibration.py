"""The sample against published aggregates of EBNeRD's demo bundle, and against how scorers rank on it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from ebnerd_lib.data.layout import VECTORS
from ebnerd_lib.evaluation.metrics import official
from ebnerd_lib.sample import generate

HOUR = pd.Timedelta(hours=1)


class Week(NamedTuple):
    impressions: pd.DataFrame
    candidates: pd.DataFrame  # one row for each article of a slate, in the order of the slates
    clicks: pd.DataFrame  # one row for each click, of ``candidates``
    history: pd.DataFrame  # one row for each click of a history


def read_week(folder: Path, articles: pd.DataFrame) -> Week:
    names = {"article_id": "page", "impression_time": "time"}
    impressions = pd.read_parquet(folder / "behaviors.parquet").rename(columns=names)
    candidates = impressions.explode("article_ids_inview").rename(columns={"article_ids_inview": "article_id"})
    clicks = impressions.explode("article_ids_clicked")
    pairs = pd.MultiIndex.from_frame(clicks[["impression_id", "article_ids_clicked"]])
    candidates["clicked"] = pd.MultiIndex.from_frame(candidates[["impression_id", "article_id"]]).isin(pairs)
    candidates = candidates.merge(articles[["article_id", "published_time", "premium"]], how="left")
    candidates["age"] = (candidates["time"] - candidates["published_time"]) / HOUR
    by_time = candidates.sort_values("time", kind="stable")
    candidates["shown_before"] = by_time.duplicated(["user_id", "article_id"])
    earlier_clicks = by_time.groupby(["user_id", "article_id"])["clicked"].cumsum() - by_time["clicked"]
    candidates["clicked_before"] = earlier_clicks > 0
    history = pd.read_parquet(folder / "history.parquet").explode(["article_id_fixed", "impression_time_fixed"])
    history = history.rename(columns={"article_id_fixed": "article_id", "impression_time_fixed": "time"})
    history = history.merge(articles[["article_id", "published_time"]], how="left")
    history["age"] = (pd.to_datetime(history["time"]) - history["published_time"]) / HOUR
    return Week(impressions, candidates, candidates[candidates["clicked"]], history)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[pd.DataFrame, Week, Week]:
    """The articles and both weeks of a generated bundle of the demo's size."""
    folder = tmp_path_factory.mktemp("sample") / "demo"
    generate(folder, seed=0, size="demo")
    articles = pd.read_parquet(folder / "articles.parquet").merge(pd.read_parquet(folder / VECTORS))
    return articles, read_week(folder / "train", articles), read_week(folder / "validation", articles)


def of_week(week: Week) -> list[tuple]:
    """What was published of both weeks: name, what is measured, the published values by week, and their kind."""
    impressions, candidates, clicks, history = week
    sizes, clicked = impressions["article_ids_inview"].str.len(), impressions["article_ids_clicked"].str.len()
    first = candidates.drop_duplicates("impression_id")["clicked"].mean() / (1 / sizes).mean()
    per_user, per_session = impressions["user_id"].value_counts(), impressions["session_id"].value_counts()
    hour = impressions["time"].dt.hour
    per_day = impressions["time"].dt.floor("D").value_counts().sort_index().iloc[1:-1]  # between two half days
    lengths, popularity = history["user_id"].value_counts(), clicks["article_id"].value_counts(normalize=True)
    age, own = candidates["age"], candidates["article_id"] == candidates["page"]
    by_age = candidates.groupby(pd.cut(age, [0, 1, 2, 4, 16, 24], right=False), observed=True)["clicked"].mean()
    again = candidates["clicked_before"]
    return [
        ("slate length, mean", sizes.mean(), (11.25, 12.03), "amount"),
        ("slate length, median", sizes.median(), (8, 9), "amount"),
        ("slate length, p99", sizes.quantile(0.99), (42, 51), "amount"),
        ("slate length, least", sizes.min(), (5, 5), "range"),
        ("slates of 5", (sizes == 5).mean(), (0.176, 0.176), "share"),
        ("slates of one click", (clicked == 1).mean(), (0.993, 0.9965), "range"),
        ("slates of none or all clicked", ((clicked == 0) | (clicked == sizes)).sum(), (0, 0), "range"),
        ("click rate of the first place over that of all", first, (0.95, 1.05), "range"),
        ("front page", impressions["page"].isna().mean(), (0.702, 0.724), "share"),
        ("null scroll", impressions["scroll_percentage"].isna().mean(), (0.707, 0.707), "share"),
        ("mobile", (impressions["device_type"] == 2).mean(), (0.628, 0.628), "share"),
        ("impressions a user, mean", per_user.mean(), (15.6, 16.2), "amount"),
        ("impressions a session, mean", per_session.mean(), (1.91, 1.91), "amount"),
        ("read time, median", impressions["read_time"].median(), (21, 21), "amount"),
        ("history length, median", lengths.median(), (95.5, 91), "amount"),
        ("history, age at click, median", history["age"].median(), (1.4, 1.4), "amount"),
        ("age in view, p10", age.quantile(0.1), (0.62, 0.62), "amount"),
        ("age in view, median", age.median(), (3.73, 3.73), "amount"),
        ("in view, older than 30 days", (age > 720).mean(), (0.13, 0.13), "share"),
        ("age at click, median", clicks["age"].median(), (2.83, 2.83), "amount"),
        ("age at click, p90", clicks["age"].quantile(0.9), (11.5, 11.5), "amount"),
        ("click rate, first hour", by_age.iloc[0], (0.081, 0.081), "share"),
        ("click rate, 2 to 4 h", by_age.iloc[2], (0.123, 0.123), "share"),
        ("click rate, 16 to 24 h", by_age.iloc[4], (0.053, 0.053), "share"),
        ("articles in view", candidates["article_id"].nunique(), (2478, 2738), "amount"),
        ("articles clicked", popularity.size, (1114, 1144), "amount"),
        ("clicks on the top 1 %", popularity.iloc[: round(0.01 * popularity.size)].sum(), (0.047, 0.047), "share"),
        ("clicks on the top 10 %", popularity.iloc[: round(0.1 * popularity.size)].sum(), (0.295, 0.295), "share"),
        ("premium in view", candidates["premium"].mean(), (0.199, 0.199), "share"),
        ("premium clicked", clicks["premium"].mean(), (0.078, 0.078), "share"),
        ("shown before", candidates["shown_before"].mean(), (0.3, 0.3), "share"),
        ("clicked before", again.mean(), (0.025, 0.045), "range"),
        ("click rate where clicked before", candidates.loc[again, "clicked"].mean(), (0.012, 0.026), "range"),
        ("own article shown", own.sum() / impressions["page"].notna().sum(), (0.47, 0.47), "share"),
        ("own article, click rate", candidates.loc[own, "clicked"].mean(), (0.006, 0.018), "range"),
        ("impressions a day, least", per_day.min(), (3164, 3164), "amount"),
        ("impressions a day, most", per_day.max(), (3746, 3746), "amount"),
        ("impressions, hours 05 to 07", hour.between(5, 7).mean(), (0.18, 0.21), "range"),
        ("impressions, hours 00 to 02", hour.between(0, 2).mean(), (0, 0.03), "range"),
    ]


def of_bundle(articles: pd.DataFrame, train: Week, validation: Week) -> list[tuple]:
    """What was published of the articles and of both weeks together, as ``of_week``."""
    clicked, keys = validation.clicks["article_id"], ["user_id", "article_id", "time"]
    known = train.clicks[train.clicks["user_id"].isin(validation.history["user_id"])][keys]
    kept = pd.MultiIndex.from_frame(known).isin(pd.MultiIndex.from_frame(validation.history[keys]))
    both_weeks = set(train.impressions["user_id"]) & set(validation.impressions["user_id"])
    rows = [
        ("users in both weeks", len(both_weeks), 1217, "range"),
        ("train clicks in validation's history", kept.mean(), 0.889, "share"),
        ("clicked, never clicked in train", 1 - clicked.isin(train.clicks["article_id"]).mean(), 0.958, "share"),
        ("clicked, never in view in train", 1 - clicked.isin(train.candidates["article_id"]).mean(), 0.949, "share"),
        ("premium, catalogue", articles["premium"].mean(), 0.331, "share"),
        ("category nyheder", (articles["category_str"] == "nyheder").mean(), 0.232, "share"),
        ("sentiment Negative", (articles["sentiment_label"] == "Negative").mean(), 0.4285, "share"),
        ("null total_inviews", articles["total_inviews"].isna().mean(), 0.52, "share"),
    ]
    return [(name, measured, (published, published), kind) for name, measured, published, kind in rows]


def deviation(name: str, measured: float, published: tuple[float, float], kind: str, week: int = 0) -> str:
    """Say how a statistic deviates: an amount by more than 15 %, a share by more than 0.02, or out of its range."""
    value = published[week]
    bounds = {"amount": (0.85 * value, 1.15 * value), "share": (value - 0.02, value + 0.02), "range": published}
    low, high = bounds[kind]
    return "" if low <= measured <= high else f"{name}, week {week}: {measured:.4g} instead of {value}"


def test_statistics_are_those_of_the_data(demo):
    found = [deviation(*row) for row in of_bundle(*demo)]
    found += [deviation(*row, week) for week in (0, 1) for row in of_week(demo[1 + week])]
    assert [line for line in found if line] == []


def recent(events: pd.DataFrame, candidates: pd.DataFrame, hours: int) -> np.ndarray:
    """Count the events on each candidate in so many hours before its impression."""
    span = 1 << 34

    def key(frame: pd.DataFrame) -> np.ndarray:
        return frame["article_id"].to_numpy(np.int64) * span + frame["time"].to_numpy("datetime64[s]").astype(np.int64)

    past, now = np.sort(key(events)), key(candidates)
    return np.searchsorted(past, now) - np.searchsorted(past, now - hours * 3600)


def likeness_to_history(articles: pd.DataFrame, week: Week) -> np.ndarray:
    """The cosine of each candidate with the mean of the user's history, but for a factor by user; vectors centred."""
    vectors = np.stack(articles["contrastive_vector"])
    vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = pd.Index(articles["article_id"])
    users, starts = np.unique(week.history["user_id"], return_index=True)  # a user's clicks lie together
    order = np.argsort(starts)
    read = np.add.reduceat(vectors[places.get_indexer(week.history["article_id"])], starts[order])
    user = pd.Index(users[order]).get_indexer(week.candidates["user_id"])
    return np.einsum("ij,ij->i", read[user], vectors[places.get_indexer(week.candidates["article_id"])])


def test_scorers_rank_as_on_the_data(demo):
    articles, train, validation = demo
    candidates = validation.candidates
    sizes = validation.impressions["article_ids_inview"].str.len()
    clicks, views = (pd.concat(pair) for pair in ((train.clicks, validation.clicks), (train.candidates, candidates)))
    train_clicks = train.clicks["article_id"].value_counts()
    train_rate = train_clicks / train.candidates["article_id"].value_counts()
    rate = (recent(clicks, candidates, 24) + 1) / (recent(views, candidates, 24) + 10)
    for name, scores, low, high in [
        ("random", np.random.default_rng(0).random(len(candidates)), 0.49, 0.51),
        ("newest first", -candidates["age"], 0.46, 0.54),
        ("clicks of the train week", candidates["article_id"].map(train_clicks), 0.40, 0.52),
        ("click rates of the train week", candidates["article_id"].map(train_rate), 0.46, 0.53),
        ("clicks of the last 6 h", recent(clicks, candidates, 6), 0.68, 0.75),
        ("clicks of the last 24 h", recent(clicks, candidates, 24), 0.68, 0.75),
        ("click rate of the last 24 h", rate, 0.64, 0.72),
        ("likeness to the history", likeness_to_history(articles, validation), 0.55, 0.595),
    ]:
        filled = np.nan_to_num(np.asarray(scores, np.float32))
        auc = official(filled, candidates["clicked"].to_numpy(), np.r_[0, np.cumsum(sizes)])[:, 0].mean()
        assert low <= auc <= high, f"{name}: AUC {auc:.3f}"
