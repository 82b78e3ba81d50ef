"""What features mean, event by event; random logs; tables in other types; whether two datasets are the same."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from ebnerd_lib.data.dataset import UNKNOWN_TIME, Metadata
from ebnerd_lib.data.slates import HOUR, Slates
from ebnerd_lib.features.catalogue import HALF_LIVES, WINDOWS
from ebnerd_lib.features.context import FeatureContext

PRIOR = {"inviews": 2, "clicks": 1}  # of trends
ARTICLES, USERS = 9, 5  # of a random log


def assert_same(one: object, other: object, name: str = "") -> None:
    """Arrays and frames, and what holds them, are the same to the bit."""
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
    elif is_dataclass(one):
        for field in fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name), f"{name} {field.name}")
    elif isinstance(one, dict | list):
        assert len(one) == len(other), name
        for key in one if isinstance(one, dict) else range(len(one)):
            assert_same(one[key], other[key], f"{name} {key}")
    else:
        np.testing.assert_array_equal(one, other, err_msg=name, strict=True)


def as_pandas_writes(table: pa.Table, unit: str = "ns") -> pa.Table:
    """A table in the widths of pandas, times in some unit."""
    return table.cast(pa.schema([field.with_type(_width_of_pandas(field.type, unit)) for field in table.schema]))


def _width_of_pandas(kind: pa.DataType, unit: str) -> pa.DataType:
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_width_of_pandas(kind.value_type, unit))
    if pa.types.is_timestamp(kind):
        return pa.timestamp(unit, tz=kind.tz)
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return pa.int64()
    return pa.string() if pa.types.is_large_string(kind) else pa.float64() if pa.types.is_floating(kind) else kind


def random_log(rng: np.random.Generator, impressions: int, hours: float = 60.0) -> Slates:
    """A log with many impressions in the same microsecond, several clicks, unknown users and articles."""
    lengths = rng.integers(1, 6, impressions)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    slates = [rng.choice(ARTICLES, n, replace=False) for n in lengths]
    article = np.concatenate([np.zeros(0), *slates]).astype(np.int32)
    instants = rng.integers(0, int(hours * HOUR), max(impressions // 2, 1))
    return Slates(
        impression_id=np.arange(impressions, dtype=np.uint32),
        user_id=np.zeros(impressions, np.uint32),
        user=rng.integers(0, USERS, impressions).astype(np.int32),
        time=10 * HOUR + np.sort(rng.choice(instants, impressions)),
        session=rng.integers(0, 3, impressions),
        device=rng.integers(0, 4, impressions).astype(np.int8),
        subscriber=rng.random(impressions) < 0.5,
        page=rng.integers(0, ARTICLES, impressions).astype(np.int32),
        front_page=rng.random(impressions) < 0.5,
        week=rng.integers(0, 2, impressions).astype(np.int8),
        offsets=offsets,
        article_id=article.copy(),
        article=article,
        clicked=rng.random(len(article)) < 0.4,
        row=np.arange(impressions),
    )


def oracle(log: Slates, world: FeatureContext, row: int, place: int) -> dict[str, float]:
    """What most columns of a candidate are, by masks over all that was in view before; NaN where unknown."""
    t, u, a, p, meta = log.time[row], log.user[row], log.article[place], log.page[row], world.metadata
    earlier = np.flatnonzero(log.time < t)
    owner = np.repeat(earlier, log.lengths[earlier])  # of each candidate in view before
    c = np.concatenate([np.zeros(0, int), *(np.arange(log.offsets[r], log.offsets[r + 1]) for r in earlier)])
    b, click, when = log.article[c], log.clicked[c], log.time[owner]
    same, own = (b == a) & (a > 0), (log.user[owner] == u) & (u > 0)
    history = world.histories[log.week[row]]
    past = slice(history.offsets[u], history.offsets[u + 1])
    read, chosen = history.article[past][history.time[past] < t], b[own & click]
    known = meta.category[a] > 0
    last = max(zip(when[own & same], log.session[owner][own & same], strict=True), default=(0, None))[1]
    in_session = own & same & (log.session[owner] == log.session[row]) & (last == log.session[row])
    values = {
        "slate_length": log.lengths[row], "desktop": log.device[row] == 1, "mobile": log.device[row] == 2,
        "tablet": log.device[row] == 3, "front_page": log.front_page[row], "subscriber": log.subscriber[row],
        "weekend": np.datetime64(int(t), "us").item().weekday() >= 5,
        "hour_sin": np.sin(t % (24 * HOUR) / (24 * HOUR) * 2 * np.pi),
        "premium": meta.premium[a], "premium_subscriber": meta.premium[a] and log.subscriber[row],
        "negative": meta.sentiment[a, 0], "positive": meta.sentiment[a, 2], "own_article": a == p and a > 0,
        "age_hours": np.nan if meta.published[a] == UNKNOWN_TIME else max(t - meta.published[a], 0) / HOUR,
        "user_shown": (own & same).sum(), "user_clicked": (own & same & click).sum(),
        "user_shown_session": in_session.sum(),
        "user_passed_session": in_session.sum() * (not (in_session & click).any()),
        "user_hours_since_shown": (t - when[own & same].max()) / HOUR if (own & same).any() else np.nan,
        "user_hours_since_clicked": (t - max(when[own & same & click], default=np.nan)) / HOUR,
        "user_click_share": len(chosen) / own.sum() if own.any() else np.nan,
        "user_category": np.mean(meta.category[chosen] == meta.category[a]) * known if len(chosen) else np.nan,
        "user_impressions": (log.user[earlier] == u).sum() * (u > 0),
        "user_sentiment": _mood(meta, chosen, a), "user_topics": _mean(_shared(meta, chosen, a)),
        "user_vector": _cosine(meta.vectors[chosen].sum(axis=0), meta.vectors[a]),
        "hours_since_first_inview": (t - min(when[same], default=np.nan)) / HOUR,
        "hours_since_click": (t - max(when[same & click], default=np.nan)) / HOUR,
        "history_length": len(read), "history_article": (read == a).sum() * (a > 0),
        "history_category": np.mean(meta.category[read] == meta.category[a]) * known if len(read) else 0,
        "history_sentiment": _mood(meta, read, a), "history_topics": _mean(_shared(meta, read, a)),
        "history_vector": _cosine(meta.vectors[read].sum(axis=0), meta.vectors[a]),
        "page_category": float(meta.category[a] == meta.category[p] > 0) if a > 0 < p else np.nan,
        "page_topics": _mean(_shared(meta, [p], a)) if a > 0 < p else np.nan,
        "page_vector": _cosine(meta.vectors[p], meta.vectors[a]) if a > 0 < p else np.nan,
    }  # fmt: skip

    def decayed(worth: np.ndarray, hours: float) -> float:
        return float((worth * 2.0 ** (-(t - when) / (hours * HOUR))).sum())

    page, audience = (same & (of[owner] == of[row]) for of in (log.front_page, log.subscriber))
    category = (meta.category[b] == meta.category[a]) & known
    for kind, which in (("inviews", np.ones_like(click)), ("clicks", click)):
        values |= {f"{kind}_{w}": (same & which & (when >= t - hours * HOUR)).sum() for w, hours in WINDOWS.items()}
        values |= {f"{kind}_decay_{h}": decayed(same & which, hours) for h, hours in HALF_LIVES.items()}
        values |= {f"category_{kind}_decay_{h}": decayed(category & which, HALF_LIVES[h]) for h in ("6h", "24h")}
        values[f"{kind}_page_decay_6h"] = decayed(page & which, 6)
        values[f"audience_{kind}_decay_6h"] = decayed(audience & which, 6)
        unknown = 0 if _topics(meta, a) else np.nan
        values[f"topic_{kind}_decay_6h"] = decayed(_shared(meta, b, a) * which, 6) + unknown
        values[f"{kind}_trend"] = (values[f"{kind}_1h"] + PRIOR[kind]) / (values[f"{kind}_6h"] / 6 + PRIOR[kind])
    for h, hours in HALF_LIVES.items():
        values[f"chances_decay_{h}"] = decayed(same / log.lengths[owner], hours)
        values[f"lift_{h}"] = (values[f"clicks_decay_{h}"] + 2) / (values[f"chances_decay_{h}"] + 2)
    for w in ("1h", "6h", "week", "decay_1h", "page_decay_6h"):
        values[f"rate_{w}"] = (values[f"clicks_{w}"] + 1.8) / (values[f"inviews_{w}"] + 20)
    for of in ("category", "topic", "audience"):
        inviews, clicks = (values[f"{of}_{kind}_decay_6h"] for kind in PRIOR)
        values[f"{of}_rate_6h"] = (clicks + 1.8) / (inviews + 20)
    return values


def _topics(meta: Metadata, a: int) -> set[int]:
    return set(meta.topics[meta.topic_starts[a] : meta.topic_starts[a + 1]].tolist())


def _shared(meta: Metadata, articles: Iterable[int], a: int) -> np.ndarray:
    """The share of the topics of ``a`` that each of some articles has."""
    own = _topics(meta, a)
    return np.array([len(own & _topics(meta, b)) / len(own) if own else np.nan for b in articles])


def _mood(meta: Metadata, articles: np.ndarray, a: int) -> float:
    moods = meta.sentiment[articles][~np.isnan(meta.sentiment[articles, 0])]
    return moods.mean(axis=0) @ meta.sentiment[a] if len(moods) else np.nan


def _mean(values: np.ndarray) -> float:
    return values.mean() if len(values) else np.nan


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    norms = np.linalg.norm(one) * np.linalg.norm(other)
    return one @ other / norms if norms > 0 else np.nan
