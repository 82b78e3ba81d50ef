"""The features, read like a table: each family names its columns, their tier, group, unit and formula.

In the formulae t is the time of the impression, a the candidate and u the user; events count only if they are
strictly before t. Where a value is unknown it is NaN, which models take for the training mean.

The hidden test tells neither the clicks of its week nor the page being read. What looks at either is of tier
``clicks``, so that a model of a lower tier can be submitted.
"""

import re
from collections.abc import Iterable

import numpy as np
from numba import njit

from ebnerd_lib.data.dataset import UNKNOWN_TIME, Dataset
from ebnerd_lib.data.slates import HOUR, candidate_rows
from ebnerd_lib.features import events
from ebnerd_lib.features.context import By, Chunk, Kind
from ebnerd_lib.features.registry import Column, every_column, family
from ebnerd_lib.features.users import history_past, own_past, user_past

WINDOWS = {"30m": 0.5, "1h": 1.0, "3h": 3.0, "6h": 6.0, "24h": 24.0, "48h": 48.0, "week": 24.0 * 7}
HALF_LIVES = {"1h": 1.0, "6h": 6.0, "24h": 24.0}
STRENGTH_RATES = {"slow": 0.1, "fast": 0.4}
PRIOR_RATE, PRIOR_INVIEWS = 0.09, 20.0
"""A rate starts at one click in eleven candidates, worth twenty times in view."""
PRIOR_CHANCES = 2.0
"""A lift starts at 1, worth two clicks by chance."""
DAY = 24 * HOUR
_RECENT = 5  # clicks of a user that count as the last ones
_PAIRS = 1 << 16  # slots of the table of pairs at first
_SHORT = 64  # values of which each is faster compared with all than all are sorted


# ---- content: the request, the article, the history of the week


@family(
    Column("age_hours", "content", "age", "hours", "t − publication of a; 0 if published after t"),
    Column("published_sin", "content", "age", "", "sin(2π · hour of day of publication / 24)"),
    Column("published_cos", "content", "age", "", "cos(2π · hour of day of publication / 24)"),
)
def age(chunk: Chunk) -> np.ndarray:
    """Age of the candidate and its hour of publication; NaN where the table has no time of publication."""
    published = chunk.context.metadata.published[chunk.slates.article]
    hours = np.maximum(chunk.slates.per_candidate(chunk.slates.time) - published, 0) / HOUR
    angle = (published % DAY) / DAY * 2 * np.pi
    hours[published == UNKNOWN_TIME] = angle[published == UNKNOWN_TIME] = np.nan
    return np.stack([hours, np.sin(angle), np.cos(angle)], axis=1)


@family(
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
    Column("page_category", "clicks", "page", "0/1", "a is of the category of the page's own article"),
    Column("page_topics", "clicks", "page", "share", "share of the topics of a that the page's own article has too"),
    Column("page_vector", "clicks", "page", "cosine", "vector of a against that of the page's own article"),
)
def page(chunk: Chunk) -> np.ndarray:
    """How the candidate relates to the article being read; NaN on the front page and where either is unknown."""
    slates, meta = chunk.slates, chunk.context.metadata
    return _page_match(
        slates.offsets, slates.article, slates.page, meta.category, meta.topic_starts, meta.topics, meta.vectors
    )


@njit(cache=True, nogil=True)
def _page_match(offsets, article, page, category, topic_starts, topics, vectors):  # type: ignore[no-untyped-def]
    """Compare each candidate with the page's own article: float32 (candidates, 3).

    That is 1 for the same known category, else 0; the share of the candidate's topics that the page's article has too,
    NaN where the candidate has none; the cosine of the vectors, NaN where either is missing. All NaN where the page is
    no known article.
    """
    out = np.full((len(article), 3), np.nan, dtype=np.float32)
    for row in range(len(page)):
        p = page[row]
        if p == 0:
            continue
        for candidate in range(offsets[row], offsets[row + 1]):
            a = article[candidate]
            if a == 0:
                continue
            out[candidate, 0] = category[a] == category[p] and category[a] > 0
            own = topic_starts[a + 1] - topic_starts[a]
            shared = 0
            for mine in range(topic_starts[a], topic_starts[a + 1]):
                for other in range(topic_starts[p], topic_starts[p + 1]):
                    shared += topics[mine] == topics[other]
            if own > 0:
                out[candidate, 1] = shared / own
            cosine = norm = other_norm = 0.0
            for d in range(vectors.shape[1]):
                cosine += vectors[a, d] * vectors[p, d]
                norm += vectors[a, d] * vectors[a, d]
                other_norm += vectors[p, d] * vectors[p, d]
            if norm > 0 and other_norm > 0:
                out[candidate, 2] = cosine / np.sqrt(norm * other_norm)
    return out


@family(
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
    for week, (past, profiles) in enumerate(zip(context.histories, context.read, strict=True)):
        history_past(
            slates.user, slates.week, slates.time, slates.offsets, slates.article, week, past.offsets, past.article,
            past.time, context.about, profiles, out,
        )  # fmt: skip
    return out


# ---- exposure and clicks: past events of articles, their categories and their pages


def decayed(
    kind: Kind, by: By, name: str, tier: str, group: str, unit: str, formula: str, half_lives: Iterable[str] = ("6h",)
) -> None:
    """Register decayed sums of events by the keys of the candidate, a column for each half-life."""
    columns = [Column(f"{name}_decay_{h}", tier, group, unit, formula.format(h)) for h in half_lives]
    hours = tuple(HALF_LIVES[h] for h in half_lives)
    family(*columns)(lambda chunk: chunk.walk.decayed(kind, chunk.slates, hours, by))


def past_events(kind: Kind, tier: str, unit: str, what: str, audience: str) -> None:
    """Register counts of a kind of events, where ``what`` and ``audience`` say of what and of whom."""
    windows = (Column(f"{kind}_{w}", tier, tier, unit, f"{what} in [t − {w}, t)") for w in WINDOWS)
    family(*windows)(lambda chunk: chunk.walk.trailing(kind, chunk.slates, tuple(WINDOWS.values())))
    decayed(kind, "article", kind, tier, tier, unit, f"Σ 2^(−age/{{}}) over {what}", HALF_LIVES)
    if kind == "inviews":
        since = Column("hours_since_first_inview", tier, "age", "hours", "t − first time a was in view")
    else:
        since = Column("hours_since_click", tier, tier, "hours", "t − last click on a")
    family(since)(lambda chunk: chunk.walk.hours_since(kind, chunk.slates, first=kind == "inviews"))
    # The hidden test does not tell the page.
    decayed(kind, "page", f"{kind}_page", "clicks", tier, unit, f"{kind}_decay_{{}} on this kind of page only")
    if kind == "inviews":
        chance = "Σ 2^(−age/{}) / slate length over a in view"
        decayed("chances", "article", "chances", tier, tier, "clicks", chance, HALF_LIVES)
    of_category = f"{kind}_decay_{{}} over the category of a"
    decayed(kind, "category", f"category_{kind}", tier, "trends", unit, of_category, ("6h", "24h"))
    decayed(kind, "audience", f"audience_{kind}", tier, tier, unit, f"{kind}_decay_{{}} {audience}")
    decayed(kind, "topic", f"topic_{kind}", tier, "trends", unit, f"mean of {kind}_decay_{{}} over the topics of a")


past_events("inviews", "exposure", "times", "times a was in view", "to subscribers or others, as u")
past_events("clicks", "clicks", "clicks", "clicks on a", "by subscribers or by others, as u")


@family(
    *(
        Column(f"strength_{name}", "clicks", "click rate", "log odds", f"bias of a learnt slate by slate, rate {rate}")
        for name, rate in STRENGTH_RATES.items()
    ),
)
def strength(chunk: Chunk) -> np.ndarray:
    """What the choices so far say of the article against those it was shown with, see ``events.strengths``."""
    slates, log, rates = chunk.slates, chunk.context.log, np.array(list(STRENGTH_RATES.values()))
    tables = chunk.walk.tables(
        "strength", slates, lambda: [np.zeros(1, np.int64), np.zeros((chunk.context.articles, len(rates)))]
    )
    out = np.zeros((slates.candidates, len(rates)), np.float32)
    events.strengths(
        slates.time, slates.offsets, slates.article, log.time, log.offsets, log.article, log.clicked, rates, *tables,
        out,
    )  # fmt: skip
    return out


@family(
    Column("together_user", "clicks", "together", "clicks", "clicks on a by readers of the last five clicks of u"),
    Column("together_page", "clicks", "together", "clicks", "clicks on a by readers of the page's own article"),
)
def together(chunk: Chunk) -> np.ndarray:
    """What readers of the same articles clicked within their next five clicks, see ``events.together``."""
    slates, context, log = chunk.slates, chunk.context, chunk.context.log
    tables = chunk.walk.tables(
        "together", slates,
        lambda: [
            np.full(_PAIRS, -1, np.int64), np.zeros(_PAIRS, np.int32), np.zeros((context.users, _RECENT), np.int32),
            np.zeros(2, np.int64),
        ],
    )  # fmt: skip
    out = np.zeros((slates.candidates, 2), np.float32)
    tables[:2] = events.together(
        slates.time, slates.offsets, slates.article, slates.user, slates.page, log.time, log.offsets, log.article,
        log.clicked, log.user, context.articles, *tables, out,
    )  # fmt: skip
    return out


# ---- the user so far this week and in the weeks of the log before


@family(
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
    order = np.lexsort((chunk.slates.time, chunk.slates.user, chunk.slates.week))
    slates, own = chunk.slates.take(order), chunk.context.by_user
    out = np.empty((chunk.slates.candidates, 6), np.float32)
    out[candidate_rows(chunk.slates.offsets, order)] = user_past(
        slates.user, slates.time, slates.session, slates.offsets, slates.article, own.offsets, own.time, own.session,
        own.slates, own.article, own.clicked, chunk.context.articles,
    )  # fmt: skip
    return out


@family(
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
    """What this user did so far, and how the candidate relates to what the user clicked, see ``users.own_past``."""
    slates, context, log = chunk.slates, chunk.context, chunk.context.log
    tables = chunk.walk.tables(
        "own", slates,
        lambda: [
            np.zeros(1, np.int64), np.zeros(context.users, np.int32), np.zeros(context.users, np.int64),
            context.about.profiles(context.users),
        ],
    )  # fmt: skip
    out = np.zeros((slates.candidates, 6), np.float32)
    own_past(
        slates.user, slates.time, slates.offsets, slates.article, log.time, log.offsets, log.article, log.clicked,
        log.user, context.about, *tables, out,
    )  # fmt: skip
    return out


# ---- derived features

CLICK_PRIOR, LIFT_PRIOR = (PRIOR_RATE * PRIOR_INVIEWS, PRIOR_INVIEWS), (PRIOR_CHANCES, PRIOR_CHANCES)
RATES = ("1h", "6h", "24h", "week", "decay_1h", "decay_6h", "decay_24h", "page_decay_6h")


def quotient(
    column: str, formula: str, above: str, below: str, group: str = "click rate", tier: str = "clicks",
    unit: str = "share", prior: tuple[float, float] = CLICK_PRIOR, below_hours: float = 1.0,
) -> None:  # fmt: skip
    """Register (above + prior) / (below / hours + prior): a share or a trend, near the prior where there is little."""

    def compute(chunk: Chunk) -> np.ndarray:
        return (chunk.columns[above] + prior[0])[:, None] / (chunk.columns[below] / below_hours + prior[1])[:, None]

    family(Column(column, tier, group, unit, formula), reads=(above, below))(compute)


for w in RATES:
    quotient(f"rate_{w}", f"(clicks_{w} + 1.8) / (inviews_{w} + 20)", f"clicks_{w}", f"inviews_{w}")
for h in HALF_LIVES:
    formula = f"(clicks_decay_{h} + 2) / (chances_decay_{h} + 2)"
    quotient(f"lift_{h}", formula, f"clicks_decay_{h}", f"chances_decay_{h}", unit="", prior=LIFT_PRIOR)
for of, h, formula in (
    ("category", "6h", "(category clicks + 1.8) / (in-views + 20), 6h"),
    ("category", "24h", "(category clicks + 1.8) / (in-views + 20), 24h"),
    ("topic", "6h", "(topic clicks + 1.8) / (topic in-views + 20), decayed over 6h"),
    ("audience", "6h", "(audience clicks + 1.8) / (audience in-views + 20)"),
):
    group = "click rate" if of == "audience" else "trends"
    quotient(f"{of}_rate_{h}", formula, f"{of}_clicks_decay_{h}", f"{of}_inviews_decay_{h}", group)
for kind, tier, prior in (("inviews", "exposure", 2.0), ("clicks", "clicks", 1.0)):
    formula = f"({kind}_1h + {prior:g}) / ({kind}_6h / 6 + {prior:g})"
    quotient(f"{kind}_trend", formula, f"{kind}_1h", f"{kind}_6h", tier, tier, "", (prior, prior), 6.0)


@njit(cache=True, nogil=True)
def relative(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Place a column's values within their slates.

    Returns float32 (2, candidates): the average rank scaled to 0 (lowest) to 1 (highest), ties sharing their
    mean, .5 for all in a slate of one; and the ratio to the slate's mean, 1 where that mean is 0. NaNs stay NaN and
    are left out of ranks and means.
    """
    out = np.full((2, len(values)), np.nan, dtype=np.float32)
    for row in range(len(offsets) - 1):
        own = values[offsets[row] : offsets[row + 1]]
        total, known = 0.0, 0
        for value in own:
            if not np.isnan(value):
                total += value
                known += 1
        ordered = np.sort(own) if len(own) > _SHORT else own
        for place in range(len(own)):
            value = own[place]
            if np.isnan(value):
                continue
            if len(own) > _SHORT:
                at, stop = np.searchsorted(ordered[:known], value), np.searchsorted(ordered[:known], value, "right")
            else:
                at, stop = _place(value, own)
            out[0, offsets[row] + place] = 0.5 if known == 1 else (at + stop - 1) / 2 / (known - 1)
            out[1, offsets[row] + place] = value * known / total if total != 0 else 1.0
    return out


@njit(cache=True, nogil=True)
def _place(value: float, values: np.ndarray) -> tuple[np.int32, np.int32]:
    """Return how many values are smaller, and how many are not larger."""
    at = stop = np.int32(0)
    for other in values:
        at += np.int32(other < value)
        stop += np.int32(other <= value)
    return at, stop


def within_slate(chunk: Chunk) -> np.ndarray:
    """Where the candidate stands among those it competes with: rank and ratio of the column read."""
    (values,) = chunk.columns.values()
    return relative(np.ascontiguousarray(values), chunk.slates.offsets).T


def behind(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return each value less the largest of its slate, at most 0: float32 (candidates,). NaNs stay NaN."""
    ended = np.append(values, np.float32(np.nan))  # so that slates at the end may be empty
    return values - np.repeat(np.fmax.reduceat(ended, offsets[:-1]), np.diff(offsets))


def behind_best(chunk: Chunk) -> np.ndarray:
    """How far the candidate is behind the best of its slate."""
    (values,) = chunk.columns.values()
    return behind(values, chunk.slates.offsets)[:, None]


# Of the tier and the group of the column that they read.
_OF = {column.name: column for column in every_column()}
for base in (
    "age_hours", "history_topics",
    "inviews_1h", "inviews_6h", "inviews_24h", "inviews_decay_1h", "user_shown",
    "clicks_1h", "clicks_3h", "clicks_6h", "clicks_24h", "clicks_decay_1h", "clicks_decay_6h",
    "rate_6h", "rate_24h", "rate_decay_1h", "lift_6h", "together_user", "audience_rate_6h",
):  # fmt: skip
    tier, group = _OF[base].tier, _OF[base].group
    family(
        Column(f"{base}_rank", tier, group, "0 to 1", f"average rank of {base} within the slate, scaled"),
        Column(f"{base}_ratio", tier, group, "", f"{base} / its mean over the slate"),
        reads=(base,),
    )(within_slate)
for base in (
    "history_vector", "inviews_decay_1h", "clicks_decay_1h", "clicks_decay_6h", "lift_6h", "strength_slow",
    "strength_fast", "page_vector",
):  # fmt: skip
    tier, group = _OF[base].tier, _OF[base].group
    family(
        Column(f"{base}_behind", tier, group, "", f"{base} less the largest in the slate"),
        reads=(base,),
    )(behind_best)


def left_out(dataset: Dataset) -> dict[str, list[str]]:
    """Return the features that say nothing, by the column they need and of which the dataset knows nothing.

    Features are known by what their names hold. The ``article_id of behaviors`` is the page being read.
    """
    log, meta = dataset.log, dataset.metadata
    needed = {
        "published_time": (meta.published != UNKNOWN_TIME, "age_hours|published_"),
        "category": (meta.category, "_category|category_"), "topics": (meta.topics >= 0, "_topics|topic_"),
        "premium": (meta.premium, "premium"), "sentiment_label": (meta.sentiment > 0, "negative|positive|_sentiment"),
        "article vectors": (meta.vectors, "_vector"), "article_id of behaviors": (~log.front_page, "page|own_article"),
        "device_type": (log.device, "desktop|mobile|tablet"),
        "is_subscriber": (log.subscriber, "subscriber|audience_"), "session_id": (log.session >= 0, "_session"),
    }  # fmt: skip
    names = [column.name for column in every_column()]
    lacking = {column: held for column, (known, held) in needed.items() if not known.any()}
    return {column: [name for name in names if re.search(held, name)] for column, held in lacking.items()}
