"""The articles of the sample: when they were published, on what, how much they appeal, and their table."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ebnerd_lib.data.schema import ARTICLES, arrow_schema
from ebnerd_lib.sample.simulate import DAY, HOUR, WEEK
from ebnerd_lib.sample.texts import GENERAL_TOPICS, compose

TRAIN_BEGIN = int(np.datetime64("2023-05-18T07:00:00", "s").astype(np.int64))
HISTORY_BEGIN = TRAIN_BEGIN - 3 * WEEK
END = TRAIN_BEGIN + 2 * WEEK
TEST_END = END + WEEK
WARM_UP = 5 * DAY // 2  # articles this much before the histories, so that their first slots have a choice
OLDEST = int(np.datetime64("2006-01-05", "s").astype(np.int64))

# Share of the catalogue, percent, and EBNeRD's numeric code, or a plausible one.
CATEGORIES: dict[str, tuple[float, int]] = {
    "nyheder": (23.2, 118), "sport": (18.2, 142), "underholdning": (15.1, 414), "krimi": (13.3, 140),
    "side9": (7.4, 572), "forbrug": (7.0, 457), "auto": (5.2, 2), "sex_og_samliv": (3.9, 498),
    "nationen": (2.4, 512), "musik": (1.5, 561), "penge": (1.0, 565), "ferie": (0.5, 539),
    "opinionen": (0.4, 125), "dagsorden": (0.2, 1), "podcast": (0.15, 2975), "plus": (0.1, 455),
    "vin": (0.1, 546), "horoskoper": (0.1, 674), "video": (0.1, 468), "haandvaerkeren": (0.05, 585),
    "spil": (0.05, 431), "om_ekstra_bladet": (0.05, 223), "eblive": (0.03, 1293), "services": (0.03, 2077),
    "webtv": (0.03, 104),
}  # fmt: skip
TOPICS: dict[str, str] = {
    "nyheder": "Politik|Konflikt og krig|Økonomi|Samfund|Transport|Vejr",
    "sport": "Fodbold|Håndbold|Cykling|Tennis|Ishockey|Motorsport",
    "underholdning": "Kendt|Film og tv|Kongehuset|Reality|Mode",
    "krimi": "Kriminalitet|Personfarlig kriminalitet|Bandekriminalitet|Ulykke|Retssag",
    "side9": "Erotik", "forbrug": "Privatøkonomi|Mad og drikke|Bolig|Sundhed", "auto": "Bil|Trafik",
    "sex_og_samliv": "Sex|Parforhold", "nationen": "Debat|Familieliv", "musik": "Musik|Festival",
    "penge": "Aktier|Pension",
}  # fmt: skip
OTHER_TOPIC = "Livsstil"
NAMES = tuple(CATEGORIES)
ALL_TOPICS = tuple(dict.fromkeys([t for names in TOPICS.values() for t in names.split("|")] + [OTHER_TOPIC]))
PREMIUM_RECENT, PREMIUM_OLD = 0.14, 0.445
UNCOUNTED = 0.52
SENTIMENTS = (0.4285, 0.404, 0.1675)  # Negative, Neutral, Positive
SENTIMENT_NAMES = ("Negative", "Neutral", "Positive")
STANDARD_TYPES = ("article_default", "video_standalone", "standard_feature", "scribblelive")
VECTOR_SIZE = 64

# Articles by hour as stored, in relative numbers: the newsroom sleeps from 22 to 02.
_DESK = (0.6, 0.4, 0.6, 2, 5, 6, 6, 6, 6, 6, 6.5, 6.5, 6.5, 6, 6, 5.5, 5.5, 5.5, 5.5, 5, 4, 2.5, 1.6, 0.9)


@dataclass(frozen=True)
class Catalogue:
    """The articles in order of publication; arrays are aligned on them.

    Attributes:
        article_id: Public id, growing with the time of publication.
        published: Seconds since 1970.
        category: Position in ``NAMES``.
        topic: Position in ``ALL_TOPICS``.
        premium: Behind the paywall.
        appeal: Latent attraction, of mean 0 and variance 1, even: no article draws everybody.
        tide: Phase of the rise and fall of interest, in turns.
        recent: How many of the last ones were published from the warm-up on.
    """

    article_id: NDArray[np.int32]
    published: NDArray[np.int64]
    category: NDArray[np.int16]
    topic: NDArray[np.int16]
    premium: NDArray[np.bool_]
    appeal: NDArray[np.float64]
    tide: NDArray[np.float64]
    recent: int

    def __len__(self) -> int:
        return self.article_id.size


def draw_catalogue(seed: int, articles: int, daily: float) -> Catalogue:
    """Draw the articles of a bundle.

    Args:
        seed: Seed of the sample.
        articles: How many.
        daily: How many are published in a day of the five weeks that the bundle covers.
    """
    rng = np.random.default_rng([seed, 3])
    begin = HISTORY_BEGIN - WARM_UP
    recent = round(daily * (END - begin) / DAY)
    hours = np.arange(begin, END + 1, HOUR)
    desk = np.cumsum([0.0, *np.take(_DESK, hours[:-1] // HOUR % 24)])
    # Evenly spread over the newsroom's hours, so that every week has its count; chance gives the minute.
    fresh = np.interp((np.arange(recent) + rng.random(recent)) / recent, desk / desk[-1], hours)
    # Nearer the present the catalogue is denser: the cube of a uniform number, counted backwards.
    past = begin - 1 - (begin - OLDEST) * rng.random(articles - recent) ** 3
    published = np.sort(np.concatenate([past, fresh]).astype(np.int64))

    shares = np.array([share for share, _ in CATEGORIES.values()])
    category = rng.choice(len(NAMES), articles, p=shares / shares.sum()).astype(np.int16)
    topic = np.empty(articles, np.int16)
    for code, name in enumerate(NAMES):
        own = [ALL_TOPICS.index(t) for t in TOPICS.get(name, OTHER_TOPIC).split("|")]
        members = category == code
        topic[members] = rng.choice(own, members.sum())
    # Ids follow a made-up editorial system: some ten million by 2023, with gaps.
    place = np.interp(published, [OLDEST, HISTORY_BEGIN - 120 * DAY, begin, END], [1.1e6, 9.2e6, 9.7e6, 9.79e6])
    article_id = np.arange(articles) + np.maximum.accumulate((place - articles).astype(np.int64))
    return Catalogue(
        article_id=article_id.astype(np.int32),
        published=published,
        category=category,
        topic=topic,
        premium=rng.random(articles) < np.where(np.arange(articles) < articles - recent, PREMIUM_OLD, PREMIUM_RECENT),
        appeal=np.sqrt(3.0) * (2.0 * rng.random(articles) - 1.0),
        tide=rng.random(articles),
        recent=recent,
    )


def continue_catalogue(seed: int, catalogue: Catalogue, daily: float) -> Catalogue:
    """Add the articles of the hidden test week behind those there are.

    Args:
        seed: Seed of the sample.
        catalogue: The articles of the train and the validation week's bundle, which keep their positions.
        daily: How many are published in a day.
    """
    rng = np.random.default_rng([seed, 30])
    number = round(daily * (TEST_END - END) / DAY)
    hours = np.arange(END, TEST_END + 1, HOUR)
    desk = np.cumsum([0.0, *np.take(_DESK, hours[:-1] // HOUR % 24)])
    published = np.interp((np.arange(number) + rng.random(number)) / number, desk / desk[-1], hours).astype(np.int64)
    # Categories and topics are those of articles there are: readers' tastes are drawn category by category, and one
    # more would shift the draws of the weeks before.
    model = rng.integers(0, len(catalogue), number)
    grown = np.interp(published, [END, TEST_END], [0.0, 1.7e4]).astype(np.int64)
    return Catalogue(
        article_id=np.concatenate(
            [catalogue.article_id, (catalogue.article_id[-1] + 1 + np.arange(number) + grown).astype(np.int32)]
        ),
        published=np.concatenate([catalogue.published, published]),
        category=np.concatenate([catalogue.category, catalogue.category[model]]),
        topic=np.concatenate([catalogue.topic, catalogue.topic[model]]),
        premium=np.concatenate([catalogue.premium, rng.random(number) < PREMIUM_RECENT]),
        appeal=np.concatenate([catalogue.appeal, np.sqrt(3.0) * (2.0 * rng.random(number) - 1.0)]),
        tide=np.concatenate([catalogue.tide, rng.random(number)]),
        recent=catalogue.recent + number,
    )


def latest_articles(catalogue: Catalogue, first: int) -> Catalogue:
    """Return the articles from position ``first`` on."""
    return Catalogue(
        article_id=catalogue.article_id[first:],
        published=catalogue.published[first:],
        category=catalogue.category[first:],
        topic=catalogue.topic[first:],
        premium=catalogue.premium[first:],
        appeal=catalogue.appeal[first:],
        tide=catalogue.tide[first:],
        recent=min(catalogue.recent, len(catalogue) - first),
    )


def article_table(
    rng: np.random.Generator,
    catalogue: Catalogue,
    shown: NDArray[np.float64],
    clicked: NDArray[np.float64],
    uncounted: float = UNCOUNTED,
) -> pa.Table:
    """Return the articles' table.

    Args:
        rng: Source of chance.
        catalogue: The articles.
        shown: Expected number of times each was in view on the whole site in the week after publication.
        clicked: Expected number of times each was opened.
        uncounted: Share of the articles, the oldest, whose totals are unknown.
    """
    number = len(catalogue)
    texts = compose(rng, NAMES, catalogue.category)
    codes = np.array([code for _, code in CATEGORIES.values()], np.int16)
    side9 = catalogue.category == NAMES.index("side9")
    kinds = rng.choice(len(STANDARD_TYPES), number, p=[0.939, 0.041, 0.012, 0.008])
    types = [
        "page_nine_girl" if nine else STANDARD_TYPES[kind]
        for nine, kind in zip((side9 & (rng.random(number) < 0.8)).tolist(), kinds.tolist(), strict=True)
    ]
    images = rng.integers(1, 4, number)
    images[rng.random(number) < 0.09] = 0
    second = rng.integers(0, len(GENERAL_TOPICS), number).tolist()
    more = (rng.random(number) < 0.55).tolist()
    topics = [
        [ALL_TOPICS[t], GENERAL_TOPICS[s]] if m and ALL_TOPICS[t] != GENERAL_TOPICS[s] else [ALL_TOPICS[t]]
        for t, s, m in zip(catalogue.topic.tolist(), second, more, strict=True)
    ]
    parts = rng.integers(0, 2, number)
    kin = codes[catalogue.category[np.repeat(np.arange(number), parts)]] + np.int16(37)
    label = rng.choice(3, number, p=SENTIMENTS)
    score = np.clip(1.0 - 0.6 * rng.beta(1.1, 2.7, number), 0.36, 0.999)
    names = [NAMES[c] for c in catalogue.category.tolist()]
    counted = np.arange(number) >= round(uncounted * number)
    opened = np.rint(clicked * rng.lognormal(0.0, 0.1, number))
    columns = {
        "article_id": catalogue.article_id,
        "title": texts.titles,
        "subtitle": texts.subtitles,
        # A bulk reprocessing, weeks after.
        "last_modified_time": np.datetime64("2023-06-29T06:48:00", "us")
        + rng.integers(0, DAY, number).astype("timedelta64[s]"),
        "premium": catalogue.premium,
        "body": texts.bodies,
        "published_time": catalogue.published.astype("datetime64[s]").astype("datetime64[us]"),
        "image_ids": _lists(images, rng.integers(3_000_000, 9_990_000, images.sum()), pa.int64(), images == 0),
        "article_type": types,
        "url": [
            f"https://ekstrabladet.dk/{name}/article{i}.ece"
            for name, i in zip(names, catalogue.article_id.tolist(), strict=True)
        ],
        "ner_clusters": texts.entities,
        "entity_groups": texts.groups,
        "topics": topics,
        "category": codes[catalogue.category],
        "subcategory": _lists(parts, kin, pa.int16()),
        "category_str": names,
        "total_inviews": pa.array(np.rint(shown * rng.lognormal(0.0, 0.1, number)).astype(np.int32), mask=~counted),
        "total_pageviews": pa.array(opened.astype(np.int32), mask=~counted),
        "total_read_time": pa.array((opened * rng.lognormal(3.9, 0.35, number)).astype(np.float32), mask=~counted),
        "sentiment_score": score.astype(np.float32),
        "sentiment_label": [SENTIMENT_NAMES[i] for i in label.tolist()],
    }  # fmt: skip
    schema = arrow_schema(ARTICLES)
    return pa.table([pa.array(columns[name], schema.field(name).type) for name in schema.names], schema=schema)


def vector_table(seed: int, catalogue: Catalogue) -> pa.Table:
    """Return one unit vector an article: what its category and its topic have in common, and noise."""
    rng = np.random.default_rng([seed, 5])
    by_category = rng.standard_normal((len(NAMES), VECTOR_SIZE))
    by_topic = rng.standard_normal((len(ALL_TOPICS), VECTOR_SIZE))
    vectors = by_category[catalogue.category] + by_topic[catalogue.topic]
    vectors += 1.1 * rng.standard_normal((len(catalogue), VECTOR_SIZE))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    offsets = np.arange(len(catalogue) + 1, dtype=np.int32) * VECTOR_SIZE
    values = pa.ListArray.from_arrays(offsets, pa.array(vectors.astype(np.float32).ravel()))
    return pa.table({"article_id": catalogue.article_id, "contrastive_vector": values})


def _lists(
    lengths: NDArray[np.integer], values: NDArray, kind: pa.DataType, null: NDArray[np.bool_] | None = None
) -> pa.Array:
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    mask = None if null is None else pa.array(null)
    return pa.LargeListArray.from_arrays(offsets, pa.array(values, kind), mask=mask)
