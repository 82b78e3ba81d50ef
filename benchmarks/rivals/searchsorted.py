"""Causal features article by article: the times of its events in order, and ``searchsorted`` for every query."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ebnerd_lib.data.bundle import History
from ebnerd_lib.data.dataset import UNKNOWN_TIME, Dataset, Metadata
from ebnerd_lib.data.slates import HOUR, Slates

WINDOWS = {"30m": 0.5, "1h": 1.0, "3h": 3.0, "6h": 6.0, "24h": 24.0, "48h": 48.0, "week": 168.0}
HALF_LIVES = {"1h": 1, "6h": 6, "24h": 24}
DAY = 24 * HOUR
_SPAN = 1 << 41  # more microseconds than two weeks have: times of several owners in one ascending array

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Log:
    """All candidates as rows: key, owner and time of each; clicks are those with ``clicked``."""

    slates: Slates
    row: np.ndarray  # of the impression
    time: np.ndarray
    article: np.ndarray
    clicked: np.ndarray
    user: np.ndarray

    @classmethod
    def of(cls, slates: Slates) -> "Log":
        """Spread impressions over their candidates."""
        row = np.repeat(np.arange(len(slates)), slates.lengths)
        time = slates.time - slates.time.min()
        return cls(slates, row, time[row], slates.article, slates.clicked, slates.user[row].astype(np.int64))


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Compute the columns of all parts, write one array a part, and return their names."""
    columns = features(dataset)
    start = 0
    for part, slates in dataset.parts.items():
        matrix = np.empty((slates.candidates, len(columns)), np.float32)
        for place, values in enumerate(columns.values()):
            matrix[:, place] = values[start : start + slates.candidates]
        with (folder / f"rival_{part}.npy").open("wb") as stream:
            np.save(stream, matrix)
            os.fsync(stream.fileno())  # ours are on the disk too before its time is over
        start += slates.candidates
    return list(columns)


def features(dataset: Dataset) -> Columns:
    """Return columns by name, each float32 over the candidates of ``dataset.log``."""
    log = Log.of(dataset.log)
    category = dataset.metadata.category
    counted = {**_counts(log), **_sides(log), **_categories(log, category)}
    return {
        **_content(log, dataset.metadata),
        **counted,
        **_user(log, category),
        **_history(log, dataset.histories),
        **_rates(counted),
    }


def _groups(key: np.ndarray, time: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each key with its rows in order of time."""
    order = np.lexsort((time, key))
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        yield int(key[order[start]]), order[start:stop]


def _pairs(key: np.ndarray, time: np.ndarray, events: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the queries (all rows) and the events (some rows) of each key, both in order of time."""
    for _, rows in _groups(key, time):
        yield rows, rows[events[rows]]


def _decayed(times: np.ndarray, weight: np.ndarray, at: np.ndarray, before: np.ndarray, hours: int) -> np.ndarray:
    """Sum weight · 2^(-age / hours) over the first ``before`` events at each of the times ``at``."""
    if not len(times):
        return np.zeros(len(at))
    first, span = times[0], hours * HOUR
    sums = np.concatenate(([0.0], np.cumsum(weight * 2.0 ** ((times - first) / span))))
    return np.where(before > 0, sums[before] * 2.0 ** (-np.maximum(at - first, 0) / span), 0.0)


def _counts(log: Log) -> Columns:
    """Trailing counts, decayed sums and times since, of an article in view and clicked."""
    every = np.ones(len(log.time), bool)
    chance = 1.0 / log.slates.lengths[log.row]
    out: Columns = {}
    for kind, events in (("inviews", every), ("clicks", log.clicked)):
        names = [f"{kind}_{w}" for w in WINDOWS] + [f"{kind}_decay_{h}" for h in HALF_LIVES]
        names += [f"chances_decay_{h}" for h in HALF_LIVES] if kind == "inviews" else []
        names += ["hours_since_first_inview" if kind == "inviews" else "hours_since_click"]
        own = {name: np.empty(len(log.time), np.float32) for name in names}
        for rows, hits in _pairs(log.article, log.time, events):
            at, times = log.time[rows], log.time[hits]
            before = np.searchsorted(times, at)
            for name, hours in WINDOWS.items():
                own[f"{kind}_{name}"][rows] = before - np.searchsorted(times, at - int(hours * HOUR))
            for name, hours in HALF_LIVES.items():
                own[f"{kind}_decay_{name}"][rows] = _decayed(times, np.ones(len(times)), at, before, hours)
                if kind == "inviews":
                    own[f"chances_decay_{name}"][rows] = _decayed(times, chance[hits], at, before, hours)
            if kind == "inviews":
                own["hours_since_first_inview"][rows] = np.where(before > 0, (at - times[0]) / HOUR, np.nan)
            else:
                last = times[np.maximum(before - 1, 0)] if len(times) else np.zeros(len(at))
                own["hours_since_click"][rows] = np.where(before > 0, (at - last) / HOUR, np.nan)
        out |= own
    return out


def _decays_by(log: Log, key: np.ndarray, names: dict[str, int], clicked: bool) -> Columns:
    """Decayed sums of events by any key, one column a name and half-life in hours."""
    events = log.clicked if clicked else np.ones(len(log.time), bool)
    out = {name: np.zeros(len(log.time), np.float32) for name in names}
    for rows, hits in _pairs(key, log.time, events):
        at, times = log.time[rows], log.time[hits]
        before = np.searchsorted(times, at)
        for name, hours in names.items():
            out[name][rows] = _decayed(times, np.ones(len(times)), at, before, hours)
    return out


def _sides(log: Log) -> Columns:
    """Decayed sums of an article on one kind of page, and with one kind of reader."""
    out: Columns = {}
    for name, side in (("{}_page_decay_6h", log.slates.front_page), ("audience_{}_decay_6h", log.slates.subscriber)):
        key = 2 * log.article.astype(np.int64) + side[log.row]
        for kind in ("inviews", "clicks"):
            out |= _decays_by(log, key, {name.format(kind): 6}, kind == "clicks")
    return out


def _categories(log: Log, category: np.ndarray) -> Columns:
    """Decayed sums of an article's category; 0 where it is unknown."""
    key = category[log.article]
    out: Columns = {}
    for kind in ("inviews", "clicks"):
        names = {f"category_{kind}_decay_{h}h": h for h in (6, 24)}
        out |= {n: np.where(key > 0, v, 0) for n, v in _decays_by(log, key, names, kind == "clicks").items()}
    return out


def _owned(key: np.ndarray, owner: np.ndarray, time: np.ndarray, events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the events of the same key and owner before each row, and find the time of the last one, -1 for none."""
    count, last = np.zeros(len(time), np.int64), np.full(len(time), -1)
    for _, rows in _groups(key, owner * _SPAN + time):
        at = owner[rows] * _SPAN + time[rows]
        times = at[events[rows]]
        before = np.searchsorted(times, at)
        count[rows] = before - np.searchsorted(times, owner[rows] * _SPAN)
        if len(times):
            found = times[np.maximum(before - 1, 0)] - owner[rows] * _SPAN
            last[rows] = np.where(count[rows] > 0, found, -1)
    return count, last


def _user(log: Log, category: np.ndarray) -> Columns:
    """What the user was shown and clicked before."""
    every = np.ones(len(log.time), bool)
    _, session = np.unique(log.slates.session, return_inverse=True)
    shown, last_shown = _owned(log.article, log.user, log.time, every)
    clicked, last_clicked = _owned(log.article, log.user, log.time, log.clicked)
    in_session, _ = _owned(log.article, session[log.row].astype(np.int64), log.time, every)
    of_category, _ = _owned(category[log.article], log.user, log.time, log.clicked)
    nothing = np.zeros(len(log.time), np.int64)
    candidates, _ = _owned(nothing, log.user, log.time, every)
    clicks, _ = _owned(nothing, log.user, log.time, log.clicked)
    rows = np.arange(len(log.slates))
    impressions, _ = _owned(
        0 * rows, log.slates.user.astype(np.int64), log.slates.time - log.slates.time.min(), rows >= 0
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        out = {
            "user_shown": shown,
            "user_clicked": clicked,
            "user_hours_since_shown": np.where(shown > 0, (log.time - last_shown) / HOUR, np.nan),
            "user_hours_since_clicked": np.where(clicked > 0, (log.time - last_clicked) / HOUR, np.nan),
            "user_shown_session": in_session,
            "user_impressions": impressions[log.row],
            "user_click_share": np.where(candidates > 0, clicks / candidates, np.nan),
            "user_category": np.where(clicks > 0, np.where(category[log.article] > 0, of_category, 0) / clicks, np.nan),
        }
    return {name: values.astype(np.float32) for name, values in out.items()}


def _history(log: Log, histories: list[History]) -> Columns:
    """Clicks on the article, and clicks at all, in the history of the week, which ends before the week begins."""
    of_article, length = np.zeros(len(log.time), np.float32), np.zeros(len(log.time), np.float32)
    for week, history in enumerate(histories):
        mine = np.flatnonzero(log.slates.week[log.row] == week)
        owner = np.repeat(np.arange(len(history.offsets) - 1), history.lengths)
        pairs = np.sort(owner * np.int64(1 << 32) + history.article)
        wanted = log.user[mine] * np.int64(1 << 32) + log.article[mine]
        of_article[mine] = np.searchsorted(pairs, wanted, side="right") - np.searchsorted(pairs, wanted)
        length[mine] = history.lengths[log.user[mine]]
    return {"history_article": of_article, "history_length": length}


def _content(log: Log, meta: Metadata) -> Columns:
    """What is known of the article, of the page and of the request."""
    slates, article = log.slates, log.article
    published, time = meta.published[article], slates.time[log.row]
    unknown = published == UNKNOWN_TIME
    born, angle = 2 * np.pi * (published % DAY) / DAY, 2 * np.pi * (time % DAY) / DAY
    premium, subscriber = meta.premium[article], slates.subscriber[log.row]
    out = {
        "age_hours": np.where(unknown, np.nan, np.maximum(time - published, 0) / HOUR),
        "published_sin": np.where(unknown, np.nan, np.sin(born)),
        "published_cos": np.where(unknown, np.nan, np.cos(born)),
        "slate_length": slates.lengths[log.row],
        "hour_sin": np.sin(angle),
        "hour_cos": np.cos(angle),
        "weekend": (time // DAY + 3) % 7 >= 5,
        "desktop": slates.device[log.row] == 1,
        "mobile": slates.device[log.row] == 2,
        "tablet": slates.device[log.row] == 3,
        "front_page": slates.front_page[log.row],
        "subscriber": subscriber,
        "premium": premium,
        "premium_subscriber": premium & subscriber,
        "own_article": (article == slates.page[log.row]) & (article > 0),
        "negative": meta.sentiment[article, 0],
        "positive": meta.sentiment[article, 2],
    }
    return {name: values.astype(np.float32) for name, values in out.items()}


def _rates(of: Columns) -> Columns:
    """Clicks per time in view, and against what chance gives."""
    out = {f"rate_{w}": _rate(of[f"clicks_{w}"], of[f"inviews_{w}"]) for w in ("1h", "6h", "24h", "week")}
    out |= {f"rate_decay_{h}": _rate(of[f"clicks_decay_{h}"], of[f"inviews_decay_{h}"]) for h in HALF_LIVES}
    out |= {f"lift_{h}": (of[f"clicks_decay_{h}"] + 2) / (of[f"chances_decay_{h}"] + 2) for h in HALF_LIVES}
    out["rate_page_decay_6h"] = _rate(of["clicks_page_decay_6h"], of["inviews_page_decay_6h"])
    out["audience_rate_6h"] = _rate(of["audience_clicks_decay_6h"], of["audience_inviews_decay_6h"])
    out |= {
        f"category_rate_{h}": _rate(of[f"category_clicks_decay_{h}"], of[f"category_inviews_decay_{h}"])
        for h in ("6h", "24h")
    }
    out["inviews_trend"] = (of["inviews_1h"] + 2) / (of["inviews_6h"] / 6 + 2)
    out["clicks_trend"] = (of["clicks_1h"] + 1) / (of["clicks_6h"] / 6 + 1)
    return out


def _rate(clicks: np.ndarray, inviews: np.ndarray) -> np.ndarray:
    return (clicks + 1.8) / (inviews + 20)
