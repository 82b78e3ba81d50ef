"""The features, read like a table: each family names its columns, their tier, group, unit and formula.

In the formulae t is the time of the impression, a the candidate and u the user; events count only if they are
strictly before t. Where a value is unknown it is NaN, which models take for the training mean.
"""

from typing import TYPE_CHECKING

import numpy as np

from ebnerd_lib.data.dataset import UNKNOWN_TIME
from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.features.events import history_past, relative, user_past
from ebnerd_lib.features.registry import Column, family

if TYPE_CHECKING:
    from ebnerd_lib.features.build import Chunk

WINDOWS = {"30m": 0.5, "1h": 1.0, "3h": 3.0, "6h": 6.0, "24h": 24.0, "48h": 48.0, "week": 24.0 * 7}
HALF_LIVES = {"1h": 1.0, "6h": 6.0, "24h": 24.0}
PRIOR_RATE, PRIOR_INVIEWS = 0.09, 20.0
"""A rate starts at one click in eleven candidates, worth twenty times in view."""


@family(
    "slate",
    Column("age_hours", "content", "age", "hours", "t − publication of a; 0 if published after t"),
)
def age(chunk: "Chunk") -> np.ndarray:
    """Age of the candidate; NaN where the articles table has no time of publication."""
    published = chunk.world.metadata.published[chunk.slates.article]
    hours = np.maximum(chunk.slates.per_candidate(chunk.slates.time) - published, 0) / HOUR
    return np.where(published == UNKNOWN_TIME, np.nan, hours)[:, None]


@family(
    "slate",
    Column("slate_length", "content", "request", "candidates", "number of candidates in the slate"),
    Column("hour_sin", "content", "request", "", "sin(2π · hour of day of t / 24)"),
    Column("hour_cos", "content", "request", "", "cos(2π · hour of day of t / 24)"),
    Column("desktop", "content", "request", "0/1", "device_type is 1"),
    Column("mobile", "content", "request", "0/1", "device_type is 2"),
    Column("tablet", "content", "request", "0/1", "device_type is 3"),
    Column("front_page", "content", "request", "0/1", "the front page is being read"),
    Column("subscriber", "content", "request", "0/1", "u subscribes"),
)
def request(chunk: "Chunk") -> np.ndarray:
    """What is known of the request, the same for every candidate of a slate."""
    slates = chunk.slates
    angle = (slates.time % (24 * HOUR)) / (24 * HOUR) * 2 * np.pi
    columns = [slates.lengths, np.sin(angle), np.cos(angle), slates.device == 1, slates.device == 2, slates.device == 3,
               slates.front_page, slates.subscriber]  # fmt: skip
    return slates.per_candidate(np.stack(columns, axis=1).astype(np.float32))


@family(
    "slate",
    Column("premium", "content", "article", "0/1", "a is behind the paywall"),
    Column("premium_subscriber", "content", "article", "0/1", "a is behind the paywall and u subscribes"),
    Column("own_article", "content", "article", "0/1", "a is the article of the page being read"),
)
def article(chunk: "Chunk") -> np.ndarray:
    """What the articles table and the page say of the candidate."""
    slates = chunk.slates
    premium = chunk.world.metadata.premium[slates.article]
    own = (slates.article == slates.per_candidate(slates.page)) & (slates.article > 0)
    return np.stack([premium, premium & slates.per_candidate(slates.subscriber), own], axis=1).astype(np.float32)


@family(
    "user",
    Column("history_article", "content", "history", "clicks", "clicks of u on a in the history of the week"),
    Column("history_category", "content", "history", "share", "share of the category of a among these clicks"),
    Column("history_sentiment", "content", "history", "0 to 1", "mean sentiment shares of these clicks · those of a"),
    Column("history_length", "content", "history", "clicks", "number of these clicks"),
)
def history(chunk: "Chunk") -> np.ndarray:
    """How the candidate relates to what the user clicked in the 21 days before the week."""
    world, slates = chunk.world, chunk.slates
    shifts = np.cumsum([0] + [len(week.article) for week in world.histories[:-1]])
    starts = np.stack([week.offsets + shift for week, shift in zip(world.histories, shifts, strict=True)])
    clicked = np.concatenate([week.article for week in world.histories])
    times = np.concatenate([week.time for week in world.histories])
    meta = world.metadata
    return history_past(
        slates.user, slates.week, slates.time, slates.offsets, slates.article, starts, clicked, times,
        meta.category, meta.sentiment, world.articles, int(meta.category.max()) + 1,
    )  # fmt: skip


@family(
    "time",
    *(Column(f"inviews_{w}", "exposure", "exposure", "times", f"times a was in view in [t − {w}, t)") for w in WINDOWS),
)
def inview_counts(chunk: "Chunk") -> np.ndarray:
    """Trailing counts of the article in view."""
    return chunk.inviews.trailing(chunk.slates, tuple(WINDOWS.values()))


@family(
    "time",
    *(Column(f"inviews_decay_{h}", "exposure", "exposure", "times", f"Σ 2^(−age/{h}) over times a was in view")
      for h in HALF_LIVES),
)  # fmt: skip
def inview_decays(chunk: "Chunk") -> np.ndarray:
    """Exponentially decayed counts of the article in view."""
    return chunk.inviews.decayed(chunk.slates, tuple(HALF_LIVES.values()))


@family(
    "time",
    Column("hours_since_first_inview", "exposure", "age", "hours", "t − first time a was in view"),
)
def first_inview(chunk: "Chunk") -> np.ndarray:
    """Time since the site began to show the article."""
    return chunk.inviews.hours_since_first(chunk.slates)


@family(
    "user",
    Column("user_shown", "exposure", "seen before", "times", "times a was shown to u"),
    Column("user_clicked", "clicks", "seen before", "times", "times u clicked a"),
    Column("user_hours_since_shown", "exposure", "seen before", "hours", "t − last time a was shown to u"),
    Column("user_shown_session", "exposure", "seen before", "times", "times a was shown to u in this session"),
    Column("user_impressions", "exposure", "request", "impressions", "impressions of u so far"),
)
def seen_before(chunk: "Chunk") -> np.ndarray:
    """What this user was shown and clicked before."""
    slates, log, by_user = chunk.slates, chunk.world.log, chunk.world.by_user
    return user_past(
        slates.user, slates.time, slates.session, slates.offsets, slates.article, by_user.offsets, by_user.row,
        log.time, log.session, log.offsets, log.article, log.clicked, chunk.world.articles,
    )  # fmt: skip


@family(
    "time",
    *(Column(f"clicks_{w}", "clicks", "clicks", "clicks", f"clicks on a in [t − {w}, t)") for w in WINDOWS),
)
def click_counts(chunk: "Chunk") -> np.ndarray:
    """Trailing counts of clicks on the article."""
    return chunk.clicks.trailing(chunk.slates, tuple(WINDOWS.values()))


@family(
    "time",
    *(
        Column(f"clicks_decay_{h}", "clicks", "clicks", "clicks", f"Σ 2^(−age/{h}) over clicks on a")
        for h in HALF_LIVES
    ),
)
def click_decays(chunk: "Chunk") -> np.ndarray:
    """Exponentially decayed counts of clicks on the article."""
    return chunk.clicks.decayed(chunk.slates, tuple(HALF_LIVES.values()))


@family(
    "time",
    Column("hours_since_click", "clicks", "clicks", "hours", "t − last click on a"),
)
def last_click(chunk: "Chunk") -> np.ndarray:
    """Time since anybody clicked the article."""
    return chunk.clicks.hours_since_last(chunk.slates)


_RATES = ("1h", "6h", "24h", "week", "decay_1h", "decay_6h")


@family(
    "slate",
    *(Column(f"rate_{w}", "clicks", "click rate", "share", f"(clicks_{w} + 1.8) / (inviews_{w} + 20)") for w in _RATES),
    reads=tuple(f"{kind}_{w}" for kind in ("clicks", "inviews") for w in _RATES),
)
def rates(chunk: "Chunk") -> np.ndarray:
    """Clicks per time in view, drawn to the prior where there were few."""
    return np.stack(
        [
            (chunk.columns[f"clicks_{w}"] + PRIOR_RATE * PRIOR_INVIEWS)
            / (chunk.columns[f"inviews_{w}"] + PRIOR_INVIEWS)
            for w in _RATES
        ],
        axis=1,
    )


def within_slate(chunk: "Chunk") -> np.ndarray:
    """Where the candidate stands among those it competes with: rank and ratio of each column read."""
    return np.concatenate([relative(values, chunk.slates.offsets) for values in chunk.columns.values()], axis=1)


_RELATIVE = {
    "content": {"age_hours": "age"},
    "exposure": {
        "inviews_1h": "exposure",
        "inviews_6h": "exposure",
        "inviews_24h": "exposure",
        "inviews_decay_1h": "exposure",
        "user_shown": "seen before",
    },
    "clicks": {
        "clicks_1h": "clicks",
        "clicks_3h": "clicks",
        "clicks_6h": "clicks",
        "clicks_24h": "clicks",
        "clicks_decay_1h": "clicks",
        "clicks_decay_6h": "clicks",
        "rate_6h": "click rate",
        "rate_24h": "click rate",
        "rate_decay_1h": "click rate",
    },
}
for _tier, _columns in _RELATIVE.items():
    family(
        "slate",
        *(
            column
            for base, group in _columns.items()
            for column in (
                Column(f"{base}_rank", _tier, group, "0 to 1", f"average rank of {base} within the slate, scaled"),
                Column(f"{base}_ratio", _tier, group, "", f"{base} / its mean over the slate"),
            )
        ),
        reads=tuple(_columns),
        name=f"within_slate_{_tier}",
    )(within_slate)
