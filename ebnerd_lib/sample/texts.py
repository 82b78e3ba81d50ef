"""Danish-looking texts put together from parts: every word list here was written for the sample."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FORENAMES = (
    "Mette", "Lars", "Anne", "Søren", "Kirsten", "Jens", "Hanne", "Peter", "Camilla", "Morten", "Louise",
    "Rasmus", "Ida", "Mads", "Freja", "Oliver", "Signe", "Emil", "Laura", "Kasper", "Maja", "Jonas",
    "Karen", "Henrik", "Sofie", "Anders", "Line", "Thomas", "Julie", "Nikolaj",
)  # fmt: skip
SURNAMES = (
    "Holmgaard", "Brandstrup", "Kjeldsen", "Vestermark", "Lindegaard", "Ravnsborg", "Toftlund", "Skovbo",
    "Engelbrecht", "Dalsgaard", "Nørskov", "Bækgaard", "Klitmand", "Aagesen", "Stenholt", "Fjordbak",
    "Egelund", "Mosegaard", "Havbro", "Kildetoft",
)  # fmt: skip
PLACES = (
    "København", "Aarhus", "Odense", "Aalborg", "Esbjerg", "Randers", "Kolding", "Horsens", "Vejle",
    "Roskilde", "Helsingør", "Silkeborg", "Herning", "Næstved", "Viborg", "Fredericia", "Køge", "Holstebro",
    "Slagelse", "Svendborg",
)  # fmt: skip
ORGANISATIONS = (
    "Byrådet", "Fagforeningen", "Nordtoget", "Havneselskabet", "Landsforeningen", "Sundhedsrådet",
    "Boligfonden", "Østbanken", "Forbrugerhuset", "Vestpolitiet", "Kystmuseet", "Energiringen",
)  # fmt: skip

SUBJECTS: dict[str, str] = {
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
}
GENERAL_SUBJECTS = "redaktionen|danskerne|eksperten|familien|beboerne|gæsterne|en kendt profil|holdet bag"
VERBS = (
    "afviser", "kræver", "fortæller om", "advarer mod", "jubler over", "frygter", "undersøger", "afslører",
    "forsvarer", "skuffer med", "venter på", "tager afsted efter", "overrasker med", "siger farvel til",
    "kæmper for", "fejrer", "ryster over", "taler ud om",
)  # fmt: skip
OBJECTS = (
    "nye planer", "den store aftale", "en dyr fejl", "sommerens udfordring", "det vilde forløb",
    "et farligt forslag", "sit livs chance", "gamle hemmeligheder", "den svære tid", "en uventet gave",
    "de høje priser", "den lange ventetid", "kritikken", "et nyt kapitel", "den afgørende kamp", "sagen",
    "drømmen om mere", "det sidste ord", "en usædvanlig dag",
)  # fmt: skip
ENDINGS = (
    "", "", " i nat", " efter weekenden", " før sommerferien", " trods kritik", " igen",
    " for første gang i ti år", " i fuld offentlighed", " med kort varsel", " uden forklaring",
    " på rekordtid", " mens naboerne ser til",
)  # fmt: skip
LINKS = (
    "Det oplyser {org} til avisen.", "Ifølge {per} var der ikke andet at gøre.",
    "Ingen havde ventet det i {loc}.", "{per} har endnu ikke ønsket at svare.",
    "Sagen har fyldt meget i {loc} den seneste uge.", "{org} følger udviklingen tæt.",
    "Der er brug for klare svar, mener {per}.", "Tallene er ikke tidligere lagt frem.",
    "Flere beboere i {loc} har henvendt sig.", "Nu skal det hele gås efter.",
    "Det bliver ikke sidste gang, lyder vurderingen.", "Næste møde holdes om få dage.",
)  # fmt: skip

GENERAL_TOPICS = (
    "Kendt", "Konflikt og krig", "Begivenhed", "Livsstil", "Økonomi", "Politik", "Sundhed", "Vejr",
    "Teknologi", "Bolig",
)  # fmt: skip
POOL = 700


class Texts(NamedTuple):
    """Texts of the articles, aligned on them."""

    titles: list[str]
    subtitles: list[str]
    bodies: list[str]
    entities: list[list[str]]
    groups: list[list[str]]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentences(rng: np.random.Generator, subjects: Sequence[str], number: int) -> list[str]:
    """Compose ``number`` short statements without their full stop."""
    parts = [rng.integers(0, len(p), number).tolist() for p in (subjects, VERBS, OBJECTS, ENDINGS)]
    return [_capital(f"{subjects[s]} {VERBS[v]} {OBJECTS[o]}{ENDINGS[e]}") for s, v, o, e in zip(*parts, strict=True)]


class _Paragraphs:
    """A long running text of one category, of which a body is a stretch from one sentence to another."""

    def __init__(self, rng: np.random.Generator, subjects: Sequence[str]):
        picks = rng.integers(0, (len(FORENAMES), len(SURNAMES), len(PLACES), len(ORGANISATIONS)), (POOL, 4)).tolist()
        which = rng.integers(0, len(LINKS), POOL).tolist()
        pieces = []
        for statement, (f, s, p, o), link in zip(_sentences(rng, subjects, POOL), picks, which, strict=True):
            names = {"per": f"{FORENAMES[f]} {SURNAMES[s]}", "loc": PLACES[p], "org": ORGANISATIONS[o]}
            pieces.append(f"{statement}. {LINKS[link].format(**names)} ")
        pieces += pieces  # so that a stretch may start anywhere
        self.text = "".join(pieces)
        self.ends = np.cumsum([len(piece) for piece in pieces])


def compose(rng: np.random.Generator, categories: Sequence[str], category: NDArray[np.integer]) -> Texts:
    """Compose the texts of articles of the given categories, with the lengths that EBNeRD's have.

    Args:
        rng: Source of chance.
        categories: Names of the categories.
        category: Category of each article, as a position in ``categories``.
    """
    number = category.size
    wanted = np.clip(rng.lognormal(7.44, 0.78, number), 120, 60_000)
    starts = rng.integers(0, POOL, number)
    extra = rng.random((2, number))
    first = np.array(rng.integers(0, len(FORENAMES), number)).tolist()
    family = rng.integers(0, len(SURNAMES), number).tolist()
    place = rng.integers(0, len(PLACES), number).tolist()
    organisation = rng.integers(0, len(ORGANISATIONS), number).tolist()
    kind = rng.random(number)
    titles, subtitles, bodies = [""] * number, [""] * number, [""] * number
    entities: list[list[str]] = [[] for _ in range(number)]
    groups: list[list[str]] = [[] for _ in range(number)]
    for code in np.unique(category).tolist():
        subjects = SUBJECTS.get(categories[code], GENERAL_SUBJECTS).split("|")
        members = np.flatnonzero(category == code)
        heads = _sentences(rng, subjects, members.size)
        leads = _sentences(rng, subjects, 2 * members.size)
        running = _Paragraphs(rng, subjects)
        offsets = np.concatenate([[0], running.ends])[starts[members]]
        stops = np.searchsorted(running.ends, np.minimum(offsets + wanted[members], running.ends[-1]))
        ends = running.ends[np.minimum(stops, running.ends.size - 1)]
        for i, (article, begin, end) in enumerate(zip(members.tolist(), offsets.tolist(), ends.tolist(), strict=True)):
            person = f"{FORENAMES[first[article]]} {SURNAMES[family[article]]}"
            town, body_of = PLACES[place[article]], ORGANISATIONS[organisation[article]]
            title = heads[i]
            if kind[article] < 0.1:
                title = f"{person}: {title}"
            elif kind[article] > 0.65:
                title = title.split(" ", 2)[-1]
            titles[article] = _capital(title)
            lead = f"{leads[2 * i]}, fortæller {person} fra {town}."
            if extra[0, article] < 0.25:
                lead = f"{leads[2 * i]}."
            elif extra[0, article] > 0.45:
                lead += f" {leads[2 * i + 1]}, siger {body_of}."
            if extra[1, article] < 0.04:
                lead = ""
            subtitles[article] = lead
            bodies[article] = f"{person}, {town}. {running.text[begin:end]}"[:60_000].rstrip()
            if extra[1, article] < 0.9:
                entities[article] = [person, town, body_of][: 1 + int(extra[0, article] * 3)]
                groups[article] = ["PER", "LOC", "ORG"][: len(entities[article])]
    return Texts(titles, subtitles, bodies, entities, groups)
