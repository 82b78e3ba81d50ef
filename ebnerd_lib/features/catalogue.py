"""The features, read like a table: each family names its columns, their tier, group, unit and formula.

In the formulae t is the time of the impression, a the candidate and u the user; events count only if they are
strictly before t. Where a value is unknown it is NaN, which models take for the training mean.

The hidden test tells neither the clicks of its week nor the page being read. What looks at either is of tier
``clicks``, so that a model of a lower tier can be submitted.
"""

import numpy as np

from ebnerd_lib.data.dataset import UNKNOWN_TIME
from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.features.context import Chunk
from ebnerd_lib.features.registry import Column, family
from ebnerd_lib.features.users import history_past, user_past
from ebnerd_lib.features.within_slate import behind, page_match, relative

WINDOWS = {"30m": 0.5, "1h": 1.0, "3h": 3.0, "6h": 6.0, "24h": 24.0, "48h": 48.0, "week": 24.0 * 7}
HALF_LIVES = {"1h": 1.0, "6h": 6.0, "24h": 24.0}
STRENGTH_RATES = {"slow": 0.1, "fast": 0.4}
PRIOR_RATE, PRIOR_INVIEWS = 0.09, 20.0
"""A rate starts at one click in eleven candidates, worth twenty times in view."""
PRIOR_CHANCES = 2.0
"""A lift starts at 1, worth two clicks by chance."""
DAY = 24 * HOUR
TOPIC_HALF_LIFE = 6.0


# ---- content: the request, the article, the history of the week


@family(
    "slate",
    Column("age_hours", "content", "age", "hours", "t − publication of a; 0 if published after t"),
    Column("published_sin", "content", "age", "", "sin(2π · hour of day of publication / 24)"),
    Column("published_cos", "content", "age", "", "cos(2π · hour of day of publication / 24)"),
)
def age(chunk: Chunk) -> np.ndarray:
    """Age of the candidate and its hour of publication; NaN where the table has no time of publication."""
    meta, article = chunk.context.metadata, chunk.slates.article
    published = meta.published[article]
    hours = np.maximum(chunk.slates.per_candidate(chunk.slates.time) - published, 0) / HOUR
    hours[published == UNKNOWN_TIME] = np.nan
    sin, cos = meta.published_angle
    return np.stack([hours, sin[article], cos[article]], axis=1)


@family(
    "slate",
    Column("slate_length", "content", "request", "candidates", "number of candidates in the slate"),
    Column("hour_sin", "content", "request", "", "sin(2π · hour of day of t / 24)"),
    Column("hour_cos", "content", "request", "", "cos(2π · hour of day of t / 24)"),
    Column("weekend", "content", "request", "0/1", "t is on Saturday or Sunday"),
    Column("desktop", "content", "request", "0/1", "device_type is 1"),
    Column("mobile", "content", "request", "0/1", "device_type is 2"),
    Column("tablet", "content", "request", "0/1", "device_type is 3"),
    Column("front_page", "clicks", "request", "0/1", "the front page is being read"),
    Column("subscriber", "content", "request", "0/1", "u subscribes"),
)
def request(chunk: Chunk) -> np.ndarray:
    """What is known of the request, the same for every candidate of a slate."""
    slates = chunk.slates
    angle = (slates.time % DAY) / DAY * 2 * np.pi
    weekend = (slates.time // DAY + 3) % 7 >= 5  # 1970 began on a Thursday
    columns = [
        slates.lengths, np.sin(angle), np.cos(angle), weekend, slates.device == 1, slates.device == 2,
        slates.device == 3, slates.front_page, slates.subscriber,
    ]  # fmt: skip
    return slates.per_candidate(np.stack(columns, axis=1).astype(np.float32))


@family(
    "slate",
    Column("premium", "content", "article", "0/1", "a is behind the paywall"),
    Column("premium_subscriber", "content", "article", "0/1", "a is behind the paywall and u subscribes"),
    Column("own_article", "clicks", "article", "0/1", "a is the article of the page being read"),
    Column("negative", "content", "article", "share", "sentiment share of a, negative"),
    Column("positive", "content", "article", "share", "sentiment share of a, positive"),
)
def article(chunk: Chunk) -> np.ndarray:
    """What the articles table and the page say of the candidate."""
    slates, metadata = chunk.slates, chunk.context.metadata
    premium = metadata.premium[slates.article]
    own = (slates.article == slates.per_candidate(slates.page)) & (slates.article > 0)
    mood = metadata.sentiment[slates.article]
    columns = [premium, premium & slates.per_candidate(slates.subscriber), own, mood[:, 0], mood[:, 2]]
    return np.stack(columns, axis=1).astype(np.float32)


@family(
    "slate",
    Column("page_category", "clicks", "page", "0/1", "a is of the category of the page's own article"),
    Column("page_topics", "clicks", "page", "share", "share of the topics of a that the page's own article has too"),
    Column("page_vector", "clicks", "page", "cosine", "vector of a against that of the page's own article"),
)
def page(chunk: Chunk) -> np.ndarray:
    """How the candidate relates to the article being read; NaN on the front page and where either is unknown."""
    slates, meta = chunk.slates, chunk.context.metadata
    return page_match(
        slates.offsets, slates.article, slates.page, meta.category, meta.topic_starts, meta.topics, meta.vectors
    )


@family(
    "time",
    Column("history_article", "content", "history", "clicks", "clicks of u on a in the history of the week"),
    Column("history_category", "content", "history", "share", "share of the category of a among these clicks"),
    Column("history_sentiment", "content", "history", "0 to 1", "mean sentiment shares of these clicks · those of a"),
    Column("history_topics", "content", "history", "share", "mean share of the topics of a among these clicks"),
    Column("history_vector", "content", "history", "cosine", "vector of a against the sum of these clicks' vectors"),
    Column("history_length", "content", "history", "clicks", "number of these clicks"),
)
def history(chunk: Chunk) -> np.ndarray:
    """How the candidate relates to what the user clicked in the 21 days before the week."""
    slates, context = chunk.slates, chunk.context
    out = np.zeros((slates.candidates, 6), dtype=np.float32)
    place, profiles = chunk.walk.read
    for week, (past, profile) in enumerate(zip(context.histories, profiles, strict=True)):
        history_past(
            slates.user, slates.week, slates.time, slates.offsets, slates.article, week, past.offsets, past.article,
            past.time, *context.profiles.about, place, profile, out,
        )  # fmt: skip
    return out


# ---- exposure and clicks: past events of articles, their categories and their pages


@family(
    "time",
    *(Column(f"inviews_{w}", "exposure", "exposure", "times", f"times a was in view in [t − {w}, t)") for w in WINDOWS),
)
def inview_counts(chunk: Chunk) -> np.ndarray:
    """Trailing counts of the article in view."""
    return chunk.walk.past("inviews").trailing(chunk.slates, tuple(WINDOWS.values()))


@family(
    "time",
    *(
        Column(f"inviews_decay_{h}", "exposure", "exposure", "times", f"Σ 2^(−age/{h}) over times a was in view")
        for h in HALF_LIVES
    ),
)
def inview_decays(chunk: Chunk) -> np.ndarray:
    """Exponentially decayed counts of the article in view."""
    return chunk.walk.past("inviews").decayed(chunk.slates, tuple(HALF_LIVES.values()))


@family(
    "time",
    Column("hours_since_first_inview", "exposure", "age", "hours", "t − first time a was in view"),
)
def first_inview(chunk: Chunk) -> np.ndarray:
    """Time since the site began to show the article."""
    return chunk.walk.past("inviews").hours_since_first(chunk.slates)


@family(
    "time",
    Column("inviews_page_decay_6h", "clicks", "exposure", "times", "inviews_decay_6h on this kind of page only"),
)
def page_inviews(chunk: Chunk) -> np.ndarray:
    """How much the article is in view on the kind of page being read: front page or article page."""
    return chunk.walk.past("inviews", by="page").decayed(chunk.slates, (6.0,))


@family(
    "time",
    *(
        Column(f"chances_decay_{h}", "exposure", "exposure", "clicks", f"Σ 2^(−age/{h}) / slate length over a in view")
        for h in HALF_LIVES
    ),
)
def chances(chunk: Chunk) -> np.ndarray:
    """Clicks that the article would have had if all candidates of a slate were alike."""
    return chunk.walk.past("chances").decayed(chunk.slates, tuple(HALF_LIVES.values()))


@family(
    "time",
    Column("category_inviews_decay_6h", "exposure", "trends", "times", "inviews_decay_6h over the category of a"),
    Column("category_inviews_decay_24h", "exposure", "trends", "times", "inviews_decay_24h over the category of a"),
)
def category_inviews(chunk: Chunk) -> np.ndarray:
    """How much the article's category is in view."""
    return chunk.walk.past("inviews", by="category").decayed(chunk.slates, (6.0, 24.0))


@family(
    "time",
    Column(
        "audience_inviews_decay_6h", "exposure", "exposure", "times", "inviews_decay_6h to subscribers or others, as u"
    ),
)
def audience_inviews(chunk: Chunk) -> np.ndarray:
    """How much the article is shown to readers who subscribe as this one does, or do not."""
    return chunk.walk.past("inviews", by="audience").decayed(chunk.slates, (6.0,))


@family(
    "time",
    Column("topic_inviews_decay_6h", "exposure", "trends", "times", "mean of inviews_decay_6h over the topics of a"),
)
def topic_inviews(chunk: Chunk) -> np.ndarray:
    """How much the article's topics are in view; NaN without topics."""
    return chunk.walk.past("inviews", by="topic").decayed(chunk.slates, (TOPIC_HALF_LIFE,))


@family(
    "time",
    *(Column(f"clicks_{w}", "clicks", "clicks", "clicks", f"clicks on a in [t − {w}, t)") for w in WINDOWS),
)
def click_counts(chunk: Chunk) -> np.ndarray:
    """Trailing counts of clicks on the article."""
    return chunk.walk.past("clicks").trailing(chunk.slates, tuple(WINDOWS.values()))


@family(
    "time",
    *(
        Column(f"clicks_decay_{h}", "clicks", "clicks", "clicks", f"Σ 2^(−age/{h}) over clicks on a")
        for h in HALF_LIVES
    ),
)
def click_decays(chunk: Chunk) -> np.ndarray:
    """Exponentially decayed counts of clicks on the article."""
    return chunk.walk.past("clicks").decayed(chunk.slates, tuple(HALF_LIVES.values()))


@family(
    "time",
    Column("hours_since_click", "clicks", "clicks", "hours", "t − last click on a"),
)
def last_click(chunk: Chunk) -> np.ndarray:
    """Time since anybody clicked the article."""
    return chunk.walk.past("clicks").hours_since_last(chunk.slates)


@family(
    "time",
    Column("clicks_page_decay_6h", "clicks", "clicks", "clicks", "clicks_decay_6h on this kind of page only"),
)
def page_clicks(chunk: Chunk) -> np.ndarray:
    """Clicks on the article on the kind of page being read."""
    return chunk.walk.past("clicks", by="page").decayed(chunk.slates, (6.0,))


@family(
    "time",
    Column("category_clicks_decay_6h", "clicks", "trends", "clicks", "clicks_decay_6h over the category of a"),
    Column("category_clicks_decay_24h", "clicks", "trends", "clicks", "clicks_decay_24h over the category of a"),
)
def category_clicks(chunk: Chunk) -> np.ndarray:
    """Clicks on the article's category."""
    return chunk.walk.past("clicks", by="category").decayed(chunk.slates, (6.0, 24.0))


@family(
    "time",
    Column(
        "audience_clicks_decay_6h", "clicks", "clicks", "clicks", "clicks_decay_6h by subscribers or by others, as u"
    ),
)
def audience_clicks(chunk: Chunk) -> np.ndarray:
    """Clicks on the article by readers who subscribe as this one does, or do not."""
    return chunk.walk.past("clicks", by="audience").decayed(chunk.slates, (6.0,))


@family(
    "time",
    Column("topic_clicks_decay_6h", "clicks", "trends", "clicks", "mean of clicks_decay_6h over the topics of a"),
)
def topic_clicks(chunk: Chunk) -> np.ndarray:
    """Clicks on the article's topics; NaN without topics."""
    return chunk.walk.past("clicks", by="topic").decayed(chunk.slates, (TOPIC_HALF_LIFE,))


@family(
    "time",
    *(
        Column(f"strength_{name}", "clicks", "click rate", "log odds", f"bias of a learnt slate by slate, rate {rate}")
        for name, rate in STRENGTH_RATES.items()
    ),
)
def strength(chunk: Chunk) -> np.ndarray:
    """What the choices so far say of the article against those it was shown with."""
    return np.concatenate([chunk.walk.stream.strength(chunk.slates, rate) for rate in STRENGTH_RATES.values()], axis=1)


@family(
    "time",
    Column("together_user", "clicks", "together", "clicks", "clicks on a by readers of the last five clicks of u"),
    Column("together_page", "clicks", "together", "clicks", "clicks on a by readers of the page's own article"),
)
def together(chunk: Chunk) -> np.ndarray:
    """What readers of the same articles clicked within their next five clicks."""
    return chunk.walk.stream.clicked_together(chunk.slates)


# ---- the user so far this week and in the weeks of the log before


@family(
    "user",
    Column("user_shown", "exposure", "seen before", "times", "times a was shown to u"),
    Column("user_clicked", "clicks", "seen before", "times", "times u clicked a"),
    Column("user_hours_since_shown", "exposure", "seen before", "hours", "t − last time a was shown to u"),
    Column("user_hours_since_clicked", "clicks", "seen before", "hours", "t − last time u clicked a"),
    Column("user_shown_session", "exposure", "seen before", "times", "times a was shown to u in this session"),
    Column(
        "user_passed_session", "clicks", "seen before", "times", "the same if u clicked it not once in them, else 0"
    ),
)
def seen_before(chunk: Chunk) -> np.ndarray:
    """What this user was shown and clicked of the candidate before."""
    slates, own = chunk.slates, chunk.context.by_user
    return user_past(
        slates.user, slates.time, slates.session, slates.offsets, slates.article, own.offsets, own.time, own.session,
        own.slates, own.article, own.clicked, chunk.context.articles,
    )  # fmt: skip


@family(
    "time",
    Column("user_impressions", "exposure", "user", "impressions", "impressions of u so far"),
    Column("user_click_share", "clicks", "user", "share", "clicks of u / candidates shown to u, so far"),
    Column("user_category", "clicks", "user", "share", "share of the category of a among the clicks of u so far"),
    Column(
        "user_sentiment", "clicks", "user", "0 to 1", "mean sentiment shares of the clicks of u so far · those of a"
    ),
    Column("user_topics", "clicks", "user", "share", "mean share of the topics of a among the clicks of u so far"),
    Column("user_vector", "clicks", "user", "cosine", "vector of a against the sum of the vectors of these clicks"),
)
def user_so_far(chunk: Chunk) -> np.ndarray:
    """What this user did so far, and how the candidate relates to what the user clicked."""
    return chunk.walk.stream.own_past(chunk.slates)


# ---- columns of columns

_RATES = ("1h", "6h", "24h", "week", "decay_1h", "decay_6h", "decay_24h", "page_decay_6h")


@family(
    "slate",
    *(Column(f"rate_{w}", "clicks", "click rate", "share", f"(clicks_{w} + 1.8) / (inviews_{w} + 20)") for w in _RATES),
    reads=tuple(f"{kind}_{w}" for kind in ("clicks", "inviews") for w in _RATES),
)
def rates(chunk: Chunk) -> np.ndarray:
    """Clicks per time in view, drawn to the prior where there were few."""
    clicks = np.stack([chunk.columns[f"clicks_{w}"] for w in _RATES], axis=1)
    inviews = np.stack([chunk.columns[f"inviews_{w}"] for w in _RATES], axis=1)
    return (clicks + PRIOR_RATE * PRIOR_INVIEWS) / (inviews + PRIOR_INVIEWS)


@family(
    "slate",
    *(
        Column(f"lift_{h}", "clicks", "click rate", "", f"(clicks_decay_{h} + 2) / (chances_decay_{h} + 2)")
        for h in HALF_LIVES
    ),
    reads=tuple(f"{kind}_decay_{h}" for kind in ("clicks", "chances") for h in HALF_LIVES),
)
def lifts(chunk: Chunk) -> np.ndarray:
    """Clicks against what chance would have given in slates of these lengths."""
    clicks = np.stack([chunk.columns[f"clicks_decay_{h}"] for h in HALF_LIVES], axis=1)
    by_chance = np.stack([chunk.columns[f"chances_decay_{h}"] for h in HALF_LIVES], axis=1)
    return (clicks + PRIOR_CHANCES) / (by_chance + PRIOR_CHANCES)


@family(
    "slate",
    *(
        Column(f"category_rate_{h}", "clicks", "trends", "share", f"(category clicks + 1.8) / (in-views + 20), {h}")
        for h in ("6h", "24h")
    ),
    reads=tuple(f"category_{kind}_decay_{h}" for kind in ("clicks", "inviews") for h in ("6h", "24h")),
)
def category_rates(chunk: Chunk) -> np.ndarray:
    """How the article's category does."""
    columns = chunk.columns
    return np.stack(
        [
            (columns[f"category_clicks_decay_{h}"] + PRIOR_RATE * PRIOR_INVIEWS)
            / (columns[f"category_inviews_decay_{h}"] + PRIOR_INVIEWS)
            for h in ("6h", "24h")
        ],
        axis=1,
    )


@family(
    "slate",
    Column(
        "topic_rate_6h", "clicks", "trends", "share", "(topic clicks + 1.8) / (topic in-views + 20), decayed over 6h"
    ),
    Column("audience_rate_6h", "clicks", "click rate", "share", "(audience clicks + 1.8) / (audience in-views + 20)"),
    reads=("topic_clicks_decay_6h", "topic_inviews_decay_6h", "audience_clicks_decay_6h", "audience_inviews_decay_6h"),
)
def group_rates(chunk: Chunk) -> np.ndarray:
    """How the article's topics do, and how the article does with readers like this one; NaN without topics."""
    of, prior = chunk.columns, PRIOR_RATE * PRIOR_INVIEWS
    return np.stack(
        [
            (of[f"{group}_clicks_decay_6h"] + prior) / (of[f"{group}_inviews_decay_6h"] + PRIOR_INVIEWS)
            for group in ("topic", "audience")
        ],
        axis=1,
    )


@family(
    "slate",
    Column("inviews_trend", "exposure", "exposure", "", "(inviews_1h + 2) / (inviews_6h / 6 + 2)"),
    reads=("inviews_1h", "inviews_6h"),
)
def inviews_trend(chunk: Chunk) -> np.ndarray:
    """Whether the article is shown more than it was."""
    return ((chunk.columns["inviews_1h"] + 2) / (chunk.columns["inviews_6h"] / 6 + 2))[:, None]


@family(
    "slate",
    Column("clicks_trend", "clicks", "clicks", "", "(clicks_1h + 1) / (clicks_6h / 6 + 1)"),
    reads=("clicks_1h", "clicks_6h"),
)
def clicks_trend(chunk: Chunk) -> np.ndarray:
    """Whether the article is clicked more than it was."""
    return ((chunk.columns["clicks_1h"] + 1) / (chunk.columns["clicks_6h"] / 6 + 1))[:, None]


def within_slate(chunk: Chunk) -> np.ndarray:
    """Where the candidate stands among those it competes with: rank and ratio of each column read."""
    return np.concatenate([relative(values, chunk.slates.offsets) for values in chunk.columns.values()]).T


_RELATIVE = {
    "content": {"age_hours": "age", "history_topics": "history"},
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
        "lift_6h": "click rate",
        "together_user": "together",
        "audience_rate_6h": "click rate",
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


def behind_best(chunk: Chunk) -> np.ndarray:
    """How far the candidate is behind the best of its slate."""
    return np.stack([behind(values, chunk.slates.offsets) for values in chunk.columns.values()]).T


_BEHIND = {
    "content": {"history_vector": "history"},
    "exposure": {"inviews_decay_1h": "exposure"},
    "clicks": {"clicks_decay_1h": "clicks", "clicks_decay_6h": "clicks", "lift_6h": "click rate",
               "strength_slow": "click rate", "strength_fast": "click rate", "page_vector": "page"},
}  # fmt: skip
for _tier, _columns in _BEHIND.items():
    family(
        "slate",
        *(
            Column(f"{base}_behind", _tier, group, "", f"{base} less the largest in the slate")
            for base, group in _columns.items()
        ),
        reads=tuple(_columns),
        name=f"behind_best_{_tier}",
    )(behind_best)
