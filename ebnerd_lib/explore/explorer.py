"""One user, one moment, one article: what happened, what models would recommend, and why.

Every answer is a table with its caption, the same in a report as in the live view of ``app``.
"""

import gc
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pandas.io.formats.style import Styler

from ebnerd_lib.data.bundle import microseconds, readable
from ebnerd_lib.data.dataset import UNKNOWN_TIME, Dataset
from ebnerd_lib.data.layout import SPLITS, check_files
from ebnerd_lib.data.schema import HISTORY, cast_column, flat
from ebnerd_lib.data.slates import HOUR, Slates, candidate_rows
from ebnerd_lib.errors import BundleError, ConfigError
from ebnerd_lib.evaluation.diversity import article_space
from ebnerd_lib.evaluation.evaluate import SCORED, load_scores, scores_file
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.features.build import Checkpoints
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.recommend import lists
from ebnerd_lib.recommend import requests as rec
from ebnerd_lib.recommend.next_click import click_ranks
from ebnerd_lib.recommend.requests import in_words
from ebnerd_lib.tables import show
from ebnerd_lib.training.model_file import find_model_file, load_model

CLICKED, SHOWN, ONLY = "● clicked", "shown", "only here"
"""Words for what was made of an article, and that another list lacks it: a mark is seen, a word is read aloud."""
FOUND = 200
"""Results of a search that are listed, at most."""
_LISTED = ("rank", "article_id", "title", "category", "age_hours", "score", "reasons", "shown")
_VERSUS = "vs. "
_CLICKS = ["article_id_fixed", "impression_time_fixed", "read_time_fixed"]
_Z = 1.959964  # of the normal distribution, 97.5 %


# --- a user's moments ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """An impression on offer: a row of ``tuning`` or ``validation``, which models have scored."""

    part: str
    row: int
    impression_id: int
    user_id: int
    time: int
    candidates: int

    def __str__(self) -> str:
        return f"{in_words(self.time)}, {self.candidates} candidates, {self.part}"

    def slate(self, dataset: Dataset) -> Slates:
        """Return the impression alone."""
        return dataset.parts[self.part].take(np.array([self.row]))


def users(dataset: Dataset) -> np.ndarray:
    """Return the ids of all users who have an impression on offer, ascending: uint32."""
    return np.unique(np.concatenate([dataset.parts[part].user_id for part in SCORED]))


def moments(dataset: Dataset, wanted: int | str) -> list[Moment]:
    """Return the impressions on offer that a search finds, in order of time; of each part the last ``FOUND``.

    Wanted is a user's id, or words: these find impressions with a click on an article that ``matches`` finds.

    Raises:
        ConfigError: there is none.
    """
    text, found = str(wanted), []
    for part in SCORED:
        slates = dataset.parts[part]
        if is_id(text):
            rows = np.flatnonzero(slates.user_id == int(text))
        else:
            hits = np.flatnonzero(slates.clicked & matches(dataset, text)[slates.article])
            rows = np.unique(np.searchsorted(slates.offsets, hits, "right") - 1)
        found += [moment_of(dataset, part, row) for row in rows[-FOUND:].tolist()]
    if not found:
        known = users(dataset)
        raise ConfigError(
            f"user: nobody on offer has the id '{text.strip()[:40]}', or clicked an article with that in its "
            f"title. Sample a user, or choose one of the {len(known):,} on offer, as {', '.join(map(str, known[:3]))}."
        )
    return sorted(found, key=lambda moment: moment.time)


def moment_of(dataset: Dataset, part: str, row: int) -> Moment:
    """Return the impression in a row of a part."""
    slates = dataset.parts[part]
    ids = int(slates.impression_id[row]), int(slates.user_id[row])
    return Moment(part, row, *ids, int(slates.time[row]), int(slates.lengths[row]))


def sample_moment(dataset: Dataset, rng: np.random.Generator) -> Moment:
    """Sample an impression of validation that can be evaluated: busy users are sampled more often."""
    able = np.flatnonzero(dataset.parts["validation"].has_choice)
    return moment_of(dataset, "validation", int(rng.choice(able)))


# --- search --------------------------------------------------------------------------------------------------


def matches(dataset: Dataset, text: str) -> np.ndarray:
    """Say which articles a search finds, by id or by all the words of a text in the title: bool (articles,).

    Case does not count, and a word may be part of a longer one. An empty text finds nothing.
    """
    known = np.arange(len(dataset.articles)) > 0
    if is_id(text):
        return known & (dataset.articles["article_id"].to_numpy() == int(text))
    title = dataset.articles["title"].fillna("").str.casefold()
    for word in text.casefold().split():
        known &= title.str.contains(word, regex=False).to_numpy(np.bool_)
    return known & bool(text.strip())


def find_articles(dataset: Dataset, text: str) -> pd.DataFrame:
    """Return the rows of the articles that a search finds, see ``matches``, those most in view first.

    Raises:
        ConfigError: there is none.
    """
    found = np.flatnonzero(matches(dataset, text))
    if not len(found):
        raise ConfigError(f"article: none has '{text.strip()[:40]}' as id or in its title. Type fewer words or an id.")
    inviews = np.bincount(dataset.log.article, minlength=len(dataset.articles))
    return dataset.articles.iloc[found[np.argsort(-inviews[found], kind="stable")]]


def is_id(text: str) -> bool:
    """Say whether a search is for an id: one to ten digits."""
    return re.fullmatch(r"\s*[0-9]{1,10}\s*", text) is not None


# --- what was read before ------------------------------------------------------------------------------------


def read_times(bundle: Path, user_id: int, week: int, clicks: int) -> np.ndarray:
    """Return how many seconds a user read each article of a history, in the order of ``Dataset.histories[week]``.

    Datasets leave read times out: no feature may know them. A person who looks at one user may. Week 0 is the train
    file's. The dataset knows so many ``clicks``; of them float32 (clicks,), NaN where unknown.

    Raises:
        BundleError: the file is missing or damaged, holds values that no history may, or is not the one that the
            dataset was made of.
    """
    file = bundle / SPLITS[week] / "history.parquet"
    with readable(file):
        row = pq.read_table(file, columns=_CLICKS, filters=[("user_id", "=", user_id)])
    ids, times, read = (flat(cast_column(file, name, row[name], HISTORY[name])) for name in _CLICKS)
    if len(ids) != clicks:
        raise BundleError(
            f"{file}: user {user_id} has {len(ids)} clicks, and {clicks} in the dataset. "
            "Name the bundle that 01_preprocess read with the parameter `bundle`."
        )
    if len(read) != clicks:  # nobody knows which is whose
        return np.full(clicks, np.nan, np.float32)
    order = np.argsort(microseconds(times), kind="stable") if len(times) else slice(None)
    return np.asarray(pc.fill_null(read, np.nan), np.float32)[order]


def _described(dataset: Dataset, article: np.ndarray, time: np.ndarray | int) -> pd.DataFrame:
    """Return what is known of articles, given as indices, at some times; the age is 0 before publication."""
    rows, published = dataset.articles.iloc[article], dataset.metadata.published[article]
    unknown = (published == UNKNOWN_TIME) | (time == UNKNOWN_TIME)
    return pd.DataFrame(
        {
            "article_id": rows["article_id"].to_numpy(),
            "title": rows["title"].to_numpy(),
            "category": rows["category_str"].to_numpy(),
            "age_hours": np.where(unknown, np.nan, np.maximum(time - published, 0) / HOUR),
        }
    )


# --- the answers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How lists are made, with the names and meanings of the parameters of 04_recommend."""

    k: int = 10
    diversity: float = 0.0
    pool_hours: float = 24.0


@dataclass(frozen=True)
class Answer:
    """A table that answers a choice, its caption, and the caption's other numbers for ``metrics.json``."""

    table: pd.DataFrame
    caption: str
    values: dict[str, Any]

    def styled(self) -> Styler:
        """Return the table for display; classes mark what was ``clicked``, is ``best``, or is in this list ``only``."""
        table, styler = self.table, show(self.table, self.caption, {"age_hours": 1, "read_time": 0})
        classes = pd.DataFrame("", index=table.index, columns=table.columns)
        for name in {"clicked", "shown"} & set(table.columns):
            classes[table[name] == CLICKED] = "clicked"
        for name in [name for name in table.columns if name.startswith(_VERSUS)]:
            classes.loc[table[name] == ONLY, ["title", name]] += " only"
        if "rank" in table and len(table):
            best = (table["rank"] == table["rank"].min()) & (table["rank"].nunique() > 1)
            classes.loc[best, ["rank", "title"]] += " best"
            styler = styler.format("{:g}", subset=["rank"], na_rep="–")  # a tie of two has half a rank
        return styler.set_td_classes(classes)


def compared(own: Answer, other: Answer, name: str) -> Answer:
    """Return a slate or a list for half a page, with a column that compares its ranks with those of another model.

    The column, ``vs. <name>``, says how many ranks an article stands higher (▲) or lower (▼) than there, ``=`` where
    it stands alike, ``ONLY`` where the other list lacks it, and a dash where either has no score. An empty list is
    not compared with. The article's id, its category and the score are left out.
    """
    table = own.table.drop(columns=["article_id", "category", "score"], errors="ignore")
    if not len(other.table):
        return replace(own, table=table)
    theirs = other.table.drop_duplicates("article_id").set_index("article_id")["rank"]
    ahead = own.table["article_id"].map(theirs) - own.table["rank"]
    marks = ahead.map(
        lambda more: "–" if pd.isna(more) else f"{'▲' if more > 0 else '▼'} {abs(more):g}" if more else "="
    )
    marks = marks.where(own.table["article_id"].isin(theirs.index), ONLY)
    table.insert(1, _VERSUS + name, marks)
    return replace(own, table=table)


class Explorer:
    """All that is loaded once, and the answers to what is chosen after.

    Args:
        dataset: of 01_preprocess.
        bundle: the folder that it was made of; tells how long users read.
        names: of the models on offer; those trained on what was live come first, since they alone make lists.
        folders: artifact folders of the stages that trained them, of which the first that has a file is taken.
        settings: how lists are made, the way of 04_recommend; may be replaced at any time.

    Raises:
        ConfigError: a model was updated online, through all of validation: at any moment of it, it would know the
            future.
        StageError: a model is missing.
        BundleError: a file of the bundle is missing.
    """

    def __init__(
        self, dataset: Dataset, bundle: Path, names: list[str], folders: list[Path], settings: Settings
    ) -> None:
        self.dataset, self.bundle, self.settings = dataset, bundle, settings
        self._files = {name: find_model_file(name, folders) for name in names}
        loaded = map(load_model, self._files.values())
        self._models = {model.name: model for model in sorted(loaded, key=lambda model: model.trained_on != "live")}
        if late := [model.name for model in self._models.values() if model.is_online]:
            raise ConfigError(
                f"models: {', '.join(late)} was updated online through all of validation, so at a moment of it the "
                "model file knows what came after. Name models that are not updated online."
            )
        check_files(bundle)
        self._scores: dict[tuple[str, str], np.ndarray] = {}  # a file is read when it is first asked for
        self._space = article_space(dataset)
        self._checkpoints: Checkpoints | None = None
        self._last: tuple[tuple[int, int, float], rec.Requests] | None = None  # for another model

    @property
    def models(self) -> dict[str, str]:
        """The models on offer by name, in order, each with its tier and whether it makes lists, in words."""
        more = {"live": "", "logged": ", slates only"}
        return {name: f"{name} ({model.tier}{more[model.trained_on]})" for name, model in self._models.items()}

    def prepare(self) -> None:
        """Get ready for many choices, by one pass along the log; answers do not depend on it."""
        since = min(int(self.dataset.parts[part].time[0]) for part in SCORED)
        self._checkpoints = self._checkpoints or Checkpoints(feature_context(self.dataset), since)
        gc.freeze()  # what is loaded stays: to look through it for garbage would take half a second of some answer

    def history(self, moment: Moment, most: int) -> Answer:
        """Return what the user clicked last before a moment, at most so many, the latest first.

        That is what the history of the week holds, and what was clicked in the log since; what was clicked in the week
        before is taken from the log only if the history lacks the article. All of it is strictly before the moment.

        One row a click: ``time`` (text), ``article_id``, ``title``, ``category``, ``age_hours`` (of the article when it
        was clicked), ``read_time`` (seconds; the history alone tells) and ``source``, ``history`` or ``log``.
        """
        slate, log = moment.slate(self.dataset), self.dataset.log
        user, week = int(slate.user[0]), int(slate.week[0])
        own = self.dataset.histories[week]
        begin, end = own.offsets[user : user + 2]
        past = own.time[begin:end] < moment.time
        read, read_at = own.article[begin:end][past], own.time[begin:end][past]
        seconds = read_times(self.bundle, moment.user_id, week, int(end - begin))[past]
        since = log.take((log.user == user) & (log.time < moment.time) & (user > 0))
        new = since.clicked & ((since.per_candidate(since.week) == week) | ~np.isin(since.article, read))
        article = np.concatenate([read, since.article[new]])
        time = np.concatenate([read_at, since.per_candidate(since.time)[new]])
        table = _described(self.dataset, article, time).assign(
            read_time=np.concatenate([seconds, np.full(int(new.sum()), np.nan, np.float32)]),
            source=["history"] * len(read) + ["log"] * int(new.sum()),
        )
        words = ["before the week" if each == UNKNOWN_TIME else in_words(each) for each in time.tolist()]
        table.insert(0, "time", words)
        unknown = time == UNKNOWN_TIME  # of these the last comes first, after all others
        latest = np.lexsort((-np.arange(len(time)) * unknown, -np.where(unknown, 0, time)))
        caption = (
            f"User {moment.user_id}: the last {min(most, len(table))} of {len(table):,} clicks before "
            f"{in_words(moment.time)}. Age is that of the article at the click. Read times are known for the week's "
            "history only. Models of tier content and above know the history; those of tier clicks also the log."
        )
        return Answer(table.iloc[latest].head(most).reset_index(drop=True), caption, {"clicks": len(table)})

    def slate(self, moment: Moment, model: str) -> Answer:
        """Return the slate that was shown at a moment, as a model scored it, the best score first.

        Tied candidates share their mean rank, as in the metrics; ``clicked`` is a mark or nothing.
        """
        scores, told = self._slate_scores(moment, model)
        shown = moment.slate(self.dataset)
        table = _described(self.dataset, shown.article, moment.time).assign(article_id=shown.article_id, score=scores)
        table.insert(0, "rank", pd.Series(scores).rank(ascending=False))
        table["clicked"] = np.where(shown.clicked, CLICKED, "")
        clicks = int(shown.clicked.sum())
        values: dict[str, Any] = {"candidates": len(table), "clicks": clicks}
        if 0 < clicks < len(table) and np.isfinite(scores).all():
            values["auc"] = float(per_slate(scores, shown.clicked, shown.offsets)[0, 0])
            told += f" AUC of this slate {values['auc']:.3f}."
        caption = (
            f"{model} (tier {self._models[model].tier}) on impression {moment.impression_id} of {moment.part}, "
            f"{in_words(moment.time)}, with {len(table)} candidates. Rank 1 is best. The clicks are the outcome. {told}"
        )
        return Answer(table.sort_values("rank", kind="stable", ignore_index=True), caption, values)

    def recommended(self, moment: Moment, model: str) -> Answer:
        """Return what a model would recommend at a moment from the live articles, and why.

        The table is empty and the caption says why where nothing is live, where the user has read all of it, and for
        a model of logged slates, which makes no lists.
        """
        try:
            requests, scores = self._score(model, moment.user_id, moment.time)
        except ConfigError as error:
            return Answer(pd.DataFrame(columns=_LISTED), str(error), {"pool": 0, "clicked_ranks": []})
        table, tier = self.listed(model, moment.user_id, moment.time), self._models[model].tier
        shown = moment.slate(self.dataset)
        was = dict(zip(shown.article_id.tolist(), np.where(shown.clicked, CLICKED, SHOWN).tolist(), strict=True))
        table["shown"] = [was.get(each, "") for each in table["article_id"].tolist()]
        clicked = np.isin(requests.slates.article, shown.article[shown.clicked])
        ranks = click_ranks(scores, clicked, requests.slates.offsets).tolist()
        stands = f"has rank {', '.join(f'{rank:g}' for rank in ranks)}" if ranks else "is not among them"
        caption = (
            f"{model} (tier {tier}) for user {moment.user_id} at {in_words(moment.time)}. Candidates are the "
            f"{len(scores):,} unread articles in view in the {self.settings.pool_hours:g} h before; diversity "
            f"{self.settings.diversity:g}. The article clicked next {stands}. Reasons are groups of features with what "
            "they add to the score. The last column says whether the slate had the article, and if it was clicked."
        )
        table = table.drop(columns=["user_id", "model", "tier"])
        return Answer(table, caption, {"pool": len(scores), "clicked_ranks": ranks})

    def listed(self, model: str, user_id: int, time: int) -> pd.DataFrame:
        """Return a model's list for a user at any time, as 04 makes it, see ``lists.recommend``."""
        requests, scores = self._score(model, user_id, time)
        picked = lists.pick(requests.slates, scores, self._space, self.settings.k, self.settings.diversity)
        return lists.recommend(self._models[model], self.dataset, requests, scores, picked)

    def _slate_scores(self, moment: Moment, model: str) -> tuple[np.ndarray, str]:
        """Return scores of the slate that was shown, and where they come from.

        Those that the model saved; or, of one trained on what is live, those of the pool, NaN for what is not in it.
        """
        if self._models[model].trained_on == "live":
            try:
                requests, scores = self._score(model, moment.user_id, moment.time)
            except ConfigError as error:
                return np.full(moment.candidates, np.nan), f"There are no scores: {error}"
            own = pd.Series(scores, requests.slates.article).reindex(moment.slate(self.dataset).article).to_numpy()
            return own, "Scores are those among all live articles; new and read ones have none."
        key, part = (model, moment.part), self.dataset.parts[moment.part]
        if key not in self._scores:
            self._scores[key] = load_scores(scores_file(self._files[model].parent, *key), part)
        return self._scores[key][candidate_rows(part.offsets, np.array([moment.row]))], "Scores are the saved ones."

    def _score(self, name: str, user_id: int, time: int) -> tuple[rec.Requests, np.ndarray]:
        """Return the request of a user at a time, and a model's scores of the pool."""
        hours = self.settings.pool_hours
        if self._last is None or self._last[0] != (user_id, time, hours):
            user = np.array([user_id], np.uint32)
            self._last = (user_id, time, hours), rec.make_requests(self.dataset, user, time, hours, self._checkpoints)
        requests = self._last[1]
        return requests, lists.score(self._models[name], self.dataset, requests)

    def life(self, article_id: int) -> Answer:
        """Return how often an article was in view and clicked, by hour of the clock, in all of the log.

        Its table has one row an hour in which it was in view: ``hour`` (int64, microseconds, its beginning),
        ``inviews``, ``clicks``, ``rate`` (clicks a time in view) and ``low`` and ``high``, its 95 % interval.

        Raises:
            ConfigError: the bundle does not know the article.
        """
        place = np.flatnonzero(matches(self.dataset, str(article_id)))
        if not len(place):
            raise ConfigError(
                f"article: {article_id} is in no table, slate or history of the bundle. Choose one from the list."
            )
        log = self.dataset.log
        shown = np.flatnonzero(log.article == place[0])
        hour, row = np.unique(log.time[np.searchsorted(log.offsets, shown, "right") - 1] // HOUR, return_inverse=True)
        inviews = np.bincount(row, minlength=len(hour))
        clicks = np.bincount(row[log.clicked[shown]], minlength=len(hour))
        low, high = wilson(clicks, inviews)
        counts = {"hour": hour * HOUR, "inviews": inviews, "clicks": clicks, "rate": clicks / np.maximum(inviews, 1)}
        article = self.dataset.articles.iloc[place[0]]
        published = "–" if pd.isna(article["published_time"]) else str(article["published_time"])[:16]
        nameless = "without a title" if article["in_table"] else "not in the articles table"
        title = nameless if pd.isna(article["title"]) else f"“{article['title']}”"
        values = {"inviews": int(inviews.sum()), "clicks": int(clicks.sum()), "hours": len(hour)}
        caption = (
            f"Article {article_id}, {title}, published {published}: {values['inviews']:,} times in view and "
            f"{values['clicks']:,} clicks in {len(hour):,} hours of the log, also after the moment. The rate is clicks "
            "per time in view, with its 95 % interval (Wilson)."
        )
        return Answer(pd.DataFrame({**counts, "low": low, "high": high}), caption, values)


def wilson(clicks: np.ndarray, inviews: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the 95 % interval of a share (Wilson, 1927): it never leaves 0 to 1, however few there are.

    Examples:
        >>> low, high = wilson(np.array([0, 5]), np.array([10, 10]))
        >>> low.round(3), high.round(3)
        (array([0.   , 0.237]), array([0.278, 0.763]))
    """
    n = np.maximum(inviews, 1).astype(np.float64)
    share = clicks / n
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)
