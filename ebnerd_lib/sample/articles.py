"""The articles of the sample: when they were published, on what, how much they appeal, their texts and their table.

The texts look Danish and are put together from parts; every word list here was written for the sample.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ebnerd_lib.data.schema import ARTICLES, SENTIMENT_LABELS, table_of

HOUR, DAY, WEEK = 3_600, 86_400, 604_800  # seconds
TRAIN_BEGIN = int(np.datetime64("2023-05-18T07:00:00", "s").astype(np.int64))
HISTORY_BEGIN = TRAIN_BEGIN - 3 * WEEK
END = TRAIN_BEGIN + 2 * WEEK
# From here on articles come out daily: before the histories, so that their first slots have a choice.
WARM_UP_BEGIN = HISTORY_BEGIN - 5 * DAY // 2
OLDEST = int(np.datetime64("2006-01-05", "s").astype(np.int64))

# Share of the articles, percent; EBNeRD's numeric code, or a plausible one; topics, with bars between.
CATEGORIES: dict[str, tuple[float, int, str]] = {
    "nyheder": (23.2, 118, "Politik|Konflikt og krig|Økonomi|Samfund|Transport|Vejr"),
    "sport": (18.2, 142, "Fodbold|Håndbold|Cykling|Tennis|Ishockey|Motorsport"),
    "underholdning": (15.1, 414, "Kendt|Film og tv|Kongehuset|Reality|Mode"),
    "krimi": (13.3, 140, "Kriminalitet|Personfarlig kriminalitet|Bandekriminalitet|Ulykke|Retssag"),
    "side9": (7.4, 572, "Erotik"), "forbrug": (7.0, 457, "Privatøkonomi|Mad og drikke|Bolig|Sundhed"),
    "auto": (5.2, 2, "Bil|Trafik"), "sex_og_samliv": (3.9, 498, "Sex|Parforhold"),
    "nationen": (2.4, 512, "Debat|Familieliv"), "musik": (1.5, 561, "Musik|Festival"),
    "penge": (1.0, 565, "Aktier|Pension"), "ferie": (0.5, 539, "Livsstil"), "opinionen": (0.4, 125, "Livsstil"),
    "dagsorden": (0.2, 1, "Livsstil"), "podcast": (0.15, 2975, "Livsstil"), "plus": (0.1, 455, "Livsstil"),
    "vin": (0.1, 546, "Livsstil"), "horoskoper": (0.1, 674, "Livsstil"), "video": (0.1, 468, "Livsstil"),
    "haandvaerkeren": (0.05, 585, "Livsstil"), "spil": (0.05, 431, "Livsstil"),
    "om_ekstra_bladet": (0.05, 223, "Livsstil"), "eblive": (0.03, 1293, "Livsstil"),
    "services": (0.03, 2077, "Livsstil"), "webtv": (0.03, 104, "Livsstil"),
}  # fmt: skip
GENERAL_TOPICS = "Kendt|Konflikt og krig|Begivenhed|Livsstil|Økonomi|Politik|Sundhed|Vejr|Teknologi|Bolig"
NAMES = tuple(CATEGORIES)
ALL_TOPICS = tuple(dict.fromkeys(topic for _, _, topics in CATEGORIES.values() for topic in topics.split("|")))
PREMIUM_RECENT, PREMIUM_OLD = 0.14, 0.445
UNCOUNTED = 0.52  # share of the articles, the oldest, whose totals are unknown
SENTIMENTS = (0.4285, 0.404, 0.1675)  # shares of ``SENTIMENT_LABELS``
TYPES = ("article_default", "video_standalone", "standard_feature", "scribblelive")
TYPE_SHARES = (0.939, 0.041, 0.012, 0.008)
VECTOR_SIZE = 64

# Articles by hour as stored, in relative numbers: the newsroom sleeps from 22 to 02.
_DESK = (0.6, 0.4, 0.6, 2, 5, 6, 6, 6, 6, 6, 6.5, 6.5, 6.5, 6, 6, 5.5, 5.5, 5.5, 5.5, 5, 4, 2.5, 1.6, 0.9)

# What the texts are put together from, with bars between the choices; subjects by category.
WORDS: dict[str, str] = {
    "forename": "Mette|Lars|Anne|Søren|Kirsten|Jens|Hanne|Peter|Camilla|Morten|Louise|Rasmus|Ida|Mads|Freja|Oliver|"
    "Signe|Emil|Laura|Kasper|Maja|Jonas|Karen|Henrik|Sofie|Anders|Line|Thomas|Julie|Nikolaj",
    "surname": "Holmgaard|Brandstrup|Kjeldsen|Vestermark|Lindegaard|Ravnsborg|Toftlund|Skovbo|Engelbrecht|Dalsgaard|"
    "Nørskov|Bækgaard|Klitmand|Aagesen|Stenholt|Fjordbak|Egelund|Mosegaard|Havbro|Kildetoft",
    "place": "København|Aarhus|Odense|Aalborg|Esbjerg|Randers|Kolding|Horsens|Vejle|Roskilde|Helsingør|Silkeborg|"
    "Herning|Næstved|Viborg|Fredericia|Køge|Holstebro|Slagelse|Svendborg",
    "organisation": "Byrådet|Fagforeningen|Nordtoget|Havneselskabet|Landsforeningen|Sundhedsrådet|Boligfonden|"
    "Østbanken|Forbrugerhuset|Vestpolitiet|Kystmuseet|Energiringen",
    "nyheder": "regeringen|kommunen|ministeren|borgmesteren|et flertal|embedsværket|en ny rapport|oppositionen",
    "sport": "landsholdet|træneren|angriberen|klubben|målmanden|topholdet|cykelrytteren|håndboldpigerne",
    "underholdning": "skuespilleren|sangeren|tv-værten|realitystjernen|kongehuset|komikeren|filmparret|dommeren",
    "krimi": "politiet|anklageren|en 34-årig mand|retten|to unge mænd|efterforskerne|en butiksansat|vidnet",
    "side9": "dagens pige|modellen|sommerens ansigt|den smilende brunette|studinen|den glade jyde",
    "forbrug": "butikskæden|forbrugerne|supermarkedet|eksperten|elselskabet|kunderne|prisen på smør|appen",
    "auto": "elbilen|bilejerne|mekanikeren|den nye model|trafikanterne|motoren|bilmærket|synshallen",
    "sex_og_samliv": "parret|sexologen|singlerne|kærlighedslivet|kæresten|læserne|den nyskilte mor|datingeksperten",
    "nationen": "læserne|debattøren|danskerne|naboerne|pensionisterne|vælgerne|en vred far",
    "musik": "bandet|rapperen|festivalen|albummet|koncertgæsterne|popstjernen",
    "penge": "banken|boligejerne|økonomen|pensionskassen|renten|investorerne|skattevæsenet",
    "other": "redaktionen|danskerne|eksperten|familien|beboerne|gæsterne|en kendt profil|holdet bag",
    "verb": "afviser|kræver|fortæller om|advarer mod|jubler over|frygter|undersøger|afslører|forsvarer|skuffer med|"
    "venter på|tager afsted efter|overrasker med|siger farvel til|kæmper for|fejrer|ryster over|taler ud om",
    "object": "nye planer|den store aftale|en dyr fejl|sommerens udfordring|det vilde forløb|et farligt forslag|"
    "sit livs chance|gamle hemmeligheder|den svære tid|en uventet gave|de høje priser|den lange ventetid|kritikken|"
    "et nyt kapitel|den afgørende kamp|sagen|drømmen om mere|det sidste ord|en usædvanlig dag",
    "ending": "|| i nat| efter weekenden| før sommerferien| trods kritik| igen| for første gang i ti år|"
    " i fuld offentlighed| med kort varsel| uden forklaring| på rekordtid| mens naboerne ser til",
    "link": "Det oplyser {org} til avisen.|Ifølge {per} var der ikke andet at gøre.|Ingen havde ventet det i {loc}.|"
    "{per} har endnu ikke ønsket at svare.|Sagen har fyldt meget i {loc} den seneste uge.|"
    "{org} følger udviklingen tæt.|Der er brug for klare svar, mener {per}.|Tallene er ikke tidligere lagt frem.|"
    "Flere beboere i {loc} har henvendt sig.|Nu skal det hele gås efter.|"
    "Det bliver ikke sidste gang, lyder vurderingen.|Næste møde holdes om få dage.",
}  # fmt: skip
NAMED = ("forename", "surname", "place", "organisation")
STATEMENTS = 700  # of a category's running text

Floats = NDArray[np.float64]
Places = NDArray[np.int64]  # positions, counts and times
Ids = NDArray[np.int32]
Flags = NDArray[np.bool_]


class Articles(NamedTuple):
    """The articles in order of publication; arrays are aligned on them."""

    article_id: Ids  # public, growing with the time of publication
    published: Places  # seconds since 1970
    category: NDArray[np.int16]  # position in ``NAMES``
    topic: NDArray[np.int16]  # position in ``ALL_TOPICS``
    premium: Flags  # behind the paywall
    appeal: Floats  # what old articles have of it, of mean 0 and variance 1, uniform: none appeals to everybody
    tide: Floats  # phase of the rise and fall of interest, in turns


def sample_articles(seed: int, number: int, daily: float) -> Articles:
    """Sample the articles of a bundle, of which ``daily`` a day are published in the five weeks that it covers."""
    rng = np.random.default_rng([seed, 3])
    recent = round(daily * (END - WARM_UP_BEGIN) / DAY)
    fresh = _publication_times(rng, WARM_UP_BEGIN, END, recent)
    # The nearer the present, the more articles: the cube of a uniform number, counted backwards.
    past = WARM_UP_BEGIN - 1 - (WARM_UP_BEGIN - OLDEST) * rng.random(number - recent) ** 3
    published = np.sort(np.concatenate([past, fresh]).astype(np.int64))
    shares = np.array([share for share, _, _ in CATEGORIES.values()])
    category = rng.choice(len(NAMES), number, p=shares / shares.sum()).astype(np.int16)
    topic = np.empty(number, np.int16)
    for code, (_, _, topics) in enumerate(CATEGORIES.values()):
        own = [ALL_TOPICS.index(name) for name in topics.split("|")]
        members = category == code
        topic[members] = rng.choice(own, members.sum())
    # Ids follow a made-up editorial system: some ten million by 2023, with gaps.
    dates = [OLDEST, HISTORY_BEGIN - 120 * DAY, WARM_UP_BEGIN, END]
    place = np.interp(published, dates, [1.1e6, 9.2e6, 9.7e6, 9.79e6])
    article_id = np.arange(number) + np.maximum.accumulate((place - number).astype(np.int64))
    premium = np.where(np.arange(number) < number - recent, PREMIUM_OLD, PREMIUM_RECENT)
    return _with_appeal(rng, article_id, published, category, topic, premium)


def sample_later_articles(seed: int, former: Articles, daily: float) -> Articles:
    """Sample the articles of the hidden test week, ``daily`` a day, which come after the ``former`` ones."""
    rng = np.random.default_rng([seed, 30])
    number = round(daily * WEEK / DAY)
    published = _publication_times(rng, END, END + WEEK, number).astype(np.int64)
    # Categories and topics are those of former articles: readers' profiles are sampled category by category, and one
    # more would shift the random numbers of the weeks before.
    model = rng.integers(0, former.published.size, number)
    grown = np.interp(published, [END, END + WEEK], [0.0, 1.7e4]).astype(np.int64)
    article_id = former.article_id[-1] + 1 + np.arange(number) + grown
    return _with_appeal(rng, article_id, published, former.category[model], former.topic[model], PREMIUM_RECENT)


def joined(former: Any, later: Any) -> Any:
    """Return a named tuple of arrays with those of ``later`` behind those of ``former``, along the last axis."""
    return type(former)(*(np.concatenate(pair, axis=-1) for pair in zip(former, later, strict=True)))


def _publication_times(rng: np.random.Generator, begin: int, end: int, number: int) -> Floats:
    """Return times spread evenly over the newsroom's hours, so that a week has its count; chance gives the minute."""
    hours = np.arange(begin, end + 1, HOUR)
    desk = np.cumsum([0.0, *np.take(_DESK, hours[:-1] // HOUR % 24)])
    return np.interp((np.arange(number) + rng.random(number)) / number, desk / desk[-1], hours)


def _with_appeal(
    rng: np.random.Generator, article_id: Places, published: Places, category: NDArray[np.int16],
    topic: NDArray[np.int16], premium: Floats | float,
) -> Articles:  # fmt: skip
    """Return articles, sampling whether they are premium, which is as likely as given, and how much they appeal."""
    luck, appeal, tide = rng.random((3, published.size))
    appeal = np.sqrt(3.0) * (2.0 * appeal - 1.0)
    return Articles(article_id.astype(np.int32), published, category, topic, luck < premium, appeal, tide)


def article_table(
    rng: np.random.Generator, articles: Articles, shown: Floats, clicked: Floats, uncounted: float = UNCOUNTED
) -> pa.Table:
    """Return the articles' table.

    ``shown`` and ``clicked`` are how often each article is expected to be in view and opened on the whole site in the
    weeks of the bundle. Its totals are unknown for the oldest articles, of which ``uncounted`` is the share.
    """
    number = articles.published.size
    texts = _texts(rng, articles.category)
    codes = np.array([code for _, code, _ in CATEGORIES.values()], np.int16)
    kinds = rng.choice(len(TYPES), number, p=TYPE_SHARES)
    nine = (articles.category == NAMES.index("side9")) & (rng.random(number) < 0.8)
    images = rng.integers(1, 4, number)
    images[rng.random(number) < 0.09] = 0
    general = _pick(rng, GENERAL_TOPICS, number)
    more = (rng.random(number) < 0.55).tolist()
    topics = [
        list(dict.fromkeys([ALL_TOPICS[own], second])) if both else [ALL_TOPICS[own]]
        for own, second, both in zip(articles.topic.tolist(), general, more, strict=True)
    ]
    parts = rng.integers(0, 2, number)
    label = rng.choice(len(SENTIMENTS), number, p=SENTIMENTS)
    score = np.clip(1.0 - 0.6 * rng.beta(1.1, 2.7, number), 0.36, 0.999)
    names = np.take(NAMES, articles.category).tolist()
    unknown = np.arange(number) < round(uncounted * number)
    opened = np.rint(clicked * rng.lognormal(0.0, 0.1, number))
    # A bulk reprocessing, weeks after.
    modified = np.datetime64("2023-06-29T06:48:00", "us") + rng.integers(0, DAY, number).astype("timedelta64[s]")
    columns = texts | {
        "article_id": articles.article_id,
        "last_modified_time": modified,
        "premium": articles.premium,
        "published_time": articles.published.astype("datetime64[s]").astype("datetime64[us]"),
        "image_ids": list_column(images, rng.integers(3_000_000, 9_990_000, images.sum()), null=pa.array(images == 0)),
        "article_type": np.where(nine, "page_nine_girl", np.take(TYPES, kinds)),
        "url": [
            f"https://ekstrabladet.dk/{name}/article{i}.ece"
            for name, i in zip(names, articles.article_id.tolist(), strict=True)
        ],
        "topics": topics,
        "category": codes[articles.category],
        "subcategory": list_column(parts, codes[np.repeat(articles.category, parts)] + np.int16(37)),
        "category_str": names,
        "total_inviews": pa.array(np.rint(shown * rng.lognormal(0.0, 0.1, number)).astype(np.int32), mask=unknown),
        "total_pageviews": pa.array(opened.astype(np.int32), mask=unknown),
        "total_read_time": pa.array((opened * rng.lognormal(3.9, 0.35, number)).astype(np.float32), mask=unknown),
        "sentiment_score": score.astype(np.float32),
        "sentiment_label": np.take(SENTIMENT_LABELS, label),
    }
    return table_of(columns, ARTICLES)


def vector_table(seed: int, articles: Articles) -> pa.Table:
    """Return one unit vector an article: what its category and its topic have in common, and noise."""
    rng = np.random.default_rng([seed, 5])
    by_category = rng.standard_normal((len(NAMES), VECTOR_SIZE))
    by_topic = rng.standard_normal((len(ALL_TOPICS), VECTOR_SIZE))
    vectors = by_category[articles.category] + by_topic[articles.topic]
    vectors += 1.1 * rng.standard_normal((articles.published.size, VECTOR_SIZE))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    offsets = np.arange(articles.published.size + 1, dtype=np.int32) * VECTOR_SIZE
    values = pa.ListArray.from_arrays(offsets, pa.array(vectors.astype(np.float32).ravel()))
    return pa.table({"article_id": articles.article_id, "contrastive_vector": values})


def starts_of(sizes: NDArray[np.integer]) -> Places:
    """Return where each of the parts of given sizes starts, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes)])


def list_column(sizes: NDArray[np.integer], values: NDArray | pa.Array, null: pa.Array | None = None) -> pa.Array:
    """Return a column of lists: ``values`` cut into ``sizes``, null where ``null``."""
    return pa.LargeListArray.from_arrays(pa.array(starts_of(sizes)), pa.array(values), mask=null)


def _pick(rng: np.random.Generator, words: str, number: int) -> list[str]:
    choice = words.split("|")
    return [choice[i] for i in rng.integers(0, len(choice), number).tolist()]


def _statements(rng: np.random.Generator, subjects: str, number: int) -> list[str]:
    """Compose short statements without their full stop."""
    parts = [_pick(rng, words, number) for words in (subjects, WORDS["verb"], WORDS["object"], WORDS["ending"])]
    return [f"{subject} {verb} {what}{end}".capitalize() for subject, verb, what, end in zip(*parts, strict=True)]


def _running_text(rng: np.random.Generator, subjects: str) -> tuple[str, Places]:
    """Return a long text, of which a body is a stretch, and where its sentences begin and end."""
    words = [WORDS[name].split("|") for name in NAMED]
    names = rng.integers(0, [len(w) for w in words], (STATEMENTS, len(words))).tolist()
    links = _pick(rng, WORDS["link"], STATEMENTS)
    pieces = []
    for statement, picked, link in zip(_statements(rng, subjects, STATEMENTS), names, links, strict=True):
        first, family, place, organisation = (w[i] for w, i in zip(words, picked, strict=True))
        pieces.append(f"{statement}. {link.format(per=f'{first} {family}', loc=place, org=organisation)} ")
    pieces += pieces  # so that a stretch may start anywhere
    return "".join(pieces), np.cumsum([0, *map(len, pieces)])


def _texts(rng: np.random.Generator, category: NDArray[np.integer]) -> dict[str, list]:
    """Compose the columns of text of articles of the given categories, with the lengths that EBNeRD's have."""
    number = category.size
    wanted = np.clip(rng.lognormal(7.44, 0.78, number), 120, 60_000)
    starts = rng.integers(0, STATEMENTS, number)
    lead_kind, luck = rng.random((2, number))
    forenames, surnames, places, organisations = (_pick(rng, WORDS[name], number) for name in NAMED)
    title_kind = rng.random(number)
    rows: list[tuple] = [()] * number
    for code in np.unique(category).tolist():
        subjects = WORDS.get(NAMES[code], WORDS["other"])
        members = np.flatnonzero(category == code)
        titles = _statements(rng, subjects, members.size)
        leads = iter(_statements(rng, subjects, 2 * members.size))
        running, bounds = _running_text(rng, subjects)
        begins = bounds[starts[members]]
        ends = bounds[np.searchsorted(bounds, np.minimum(begins + wanted[members], bounds[-1]))]
        for i, title, begin, end in zip(members.tolist(), titles, begins.tolist(), ends.tolist(), strict=True):
            person = f"{forenames[i]} {surnames[i]}"
            if title_kind[i] < 0.1:
                title = f"{person}: {title}"
            elif title_kind[i] > 0.65:
                title = title.split(" ", 2)[-1].capitalize()
            lead, further = next(leads), next(leads)
            lead = f"{lead}." if lead_kind[i] < 0.25 else f"{lead}, fortæller {person} fra {places[i]}."
            if lead_kind[i] > 0.45:
                lead += f" {further}, siger {organisations[i]}."
            subtitle = lead if luck[i] >= 0.04 else ""
            body = f"{person}, {places[i]}. {running[begin:end]}"[:60_000].rstrip()
            entities = [person, places[i], organisations[i]][: 1 + int(lead_kind[i] * 3) if luck[i] < 0.9 else 0]
            rows[i] = (title, subtitle, body, entities, ["PER", "LOC", "ORG"][: len(entities)])
    names = ("title", "subtitle", "body", "ner_clusters", "entity_groups")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
