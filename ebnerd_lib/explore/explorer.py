"""One reader, one moment, one article: what happened, what a model would recommend, and why.

Every answer is a table with its caption, the same in a report as in the live view of ``app``.
"""

import gc
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from ebnerd_lib import plots
from ebnerd_lib.data.bundle import microseconds, open_parquet
from ebnerd_lib.data.dataset import UNKNOWN_TIME, Dataset
from ebnerd_lib.data.layout import SPLITS, check_files
from ebnerd_lib.data.schema import HISTORY, cast_column, check_schema, flat
from ebnerd_lib.data.slates import HOUR, Slates, candidate_rows
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.errors import BundleError, ConfigError
from ebnerd_lib.evaluation.diversity import article_space
from ebnerd_lib.evaluation.evaluate import SCORED, find_scores, load_scores
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.features.build import Checkpoints
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.recommend import candidate_slates, lists
from ebnerd_lib.recommend import requests as rec
from ebnerd_lib.recommend.requests import in_words
from ebnerd_lib.tables import show
from ebnerd_lib.training.model_file import TrainedModel, find_model_file, load_model

CLICKED, SHOWN = "● clicked", "shown"
"""Words for what was made of an article: a mark is seen, a word is read aloud."""
_DIGITS = {"age_hours": 1, "read_time": 0}
_TOLERANCE = 1e-4
_Z = 1.959964  # of the normal distribution, 97.5 %


# --- a reader's moments --------------------------------------------------------------------------------------


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
        """Return the moment as people write it, with what was shown."""
        return f"{in_words(self.time)}, {self.candidates} candidates, {self.part}"

    def slate(self, dataset: Dataset) -> Slates:
        """Return the impression alone."""
        return dataset.parts[self.part].take(np.array([self.row]))


def readers(dataset: Dataset) -> np.ndarray:
    """Return the ids of all who have an impression on offer, ascending: uint32."""
    return np.unique(np.concatenate([dataset.parts[part].user_id for part in SCORED]))


def moments(dataset: Dataset, user_id: int) -> list[Moment]:
    """Return the impressions of a reader that are on offer, in order of time.

    Raises:
        ConfigError: there is none.
    """
    rows = {part: np.flatnonzero(dataset.parts[part].user_id == user_id).tolist() for part in SCORED}
    found = [moment_of(dataset, part, row) for part in SCORED for row in rows[part]]
    if not found:
        known = readers(dataset)
        near = known[np.argsort(np.abs(known - float(user_id)), kind="stable")[:3]]
        raise ConfigError(
            f"user_ids: {user_id} has no impression in {' or '.join(SCORED)}, where scores are saved. Sample one, or "
            f"choose one of the {len(known):,} users who have, as {', '.join(map(str, np.sort(near)))}."
        )
    return sorted(found, key=lambda moment: moment.time)


def moment_of(dataset: Dataset, part: str, row: int) -> Moment:
    """Return the impression in a row of a part."""
    slates = dataset.parts[part]
    ids = int(slates.impression_id[row]), int(slates.user_id[row])
    return Moment(part, row, *ids, int(slates.time[row]), int(slates.lengths[row]))


def sample_moment(dataset: Dataset, rng: np.random.Generator) -> Moment:
    """Sample an impression of validation that can be evaluated: who reads much is sampled more often."""
    able = np.flatnonzero(dataset.parts["validation"].has_choice)
    return moment_of(dataset, "validation", int(rng.choice(able)))


# --- what was read before ------------------------------------------------------------------------------------


class ReadTimes:
    """How long readers read what the histories of a bundle's files hold, a row group read when it is asked for.

    What is held is who stands in which row. Datasets leave read times out: no feature may know them. A person who
    looks at one reader may.

    Raises:
        BundleError: a file is missing, or of another form.
    """

    def __init__(self, bundle: Path) -> None:
        check_files(bundle)
        self._files = [bundle / split / "history.parquet" for split in SPLITS]
        self._users: list[list[np.ndarray]] = []  # of each row group of each file
        for file in self._files:
            opened = open_parquet(file)
            check_schema(file, opened.schema_arrow, HISTORY)
            groups = (opened.read_row_group(group, columns=["user_id"]) for group in range(opened.num_row_groups))
            self._users.append([group["user_id"].to_numpy() for group in groups])

    def of(self, user_id: int, week: int, clicks: int) -> np.ndarray:
        """Return the seconds of each click of a user's history, in the order of ``Dataset.histories[week]``.

        Args:
            user_id: as in the file.
            week: 0 for the train file, 1 for the validation file.
            clicks: how many the dataset knows.

        Returns:
            float32 (clicks,), NaN where unknown.

        Raises:
            BundleError: the file holds values that no history may, or is not the one that the dataset was made of.
        """
        file, names = self._files[week], ["impression_time_fixed", "read_time_fixed"]
        seconds = np.zeros(0, np.float32)
        for group, users in enumerate(self._users[week]):
            for found in np.flatnonzero(users == user_id).tolist():  # once at most: a user has one row
                row = open_parquet(file).read_row_group(group, columns=names).slice(found, 1).combine_chunks()
                times, read = (flat(cast_column(file, name, row[name], HISTORY[name])) for name in names)
                seconds = np.full(len(times), np.nan, np.float32)
                if len(read) == len(times):  # else nobody knows which is whose
                    order = np.argsort(microseconds(times), kind="stable")
                    seconds[:] = pc.fill_null(read, np.nan).to_numpy(zero_copy_only=False)[order]
        if len(seconds) != clicks:
            raise BundleError(
                f"{file}: user {user_id} has {len(seconds)} clicks, and {clicks} in the dataset. "
                "Name the bundle that 01_preprocess read with the parameter `bundle`."
            )
        return seconds


def history(dataset: Dataset, moment: Moment, read_times: ReadTimes) -> pd.DataFrame:
    """Return what a reader had clicked before a moment, the latest first.

    That is what the history of the week holds, and what was clicked in the log since; what was clicked in the week
    before is taken from the log only if the history lacks the article. All of it is strictly before the moment.

    Returns:
        One row a click: ``time`` (text), ``article_id``, ``title``, ``category``, ``age_hours`` (of the article when
        it was clicked), ``read_time`` (seconds; the history alone tells) and ``source``, ``history`` or ``log``.
    """
    slate, log = moment.slate(dataset), dataset.log
    user, week = int(slate.user[0]), int(slate.week[0])
    own = dataset.histories[week]
    begin, end = own.offsets[user : user + 2]
    past = own.time[begin:end] < moment.time
    read, read_at = own.article[begin:end][past], own.time[begin:end][past]
    seconds = read_times.of(moment.user_id, week, int(end - begin))[past]
    since = log.take((log.user == user) & (log.time < moment.time) & (user > 0))
    clicked, clicked_at, clicked_in = (
        values[since.clicked]
        for values in (since.article, since.per_candidate(since.time), since.per_candidate(since.week))
    )
    new = (clicked_in == week) | ~np.isin(clicked, read)
    article = np.concatenate([read, clicked[new]])
    time = np.concatenate([read_at, clicked_at[new]])
    table = _described(dataset, article, time).assign(
        time=[in_words(each) for each in time.tolist()],
        read_time=np.concatenate([seconds, np.full(int(new.sum()), np.nan, np.float32)]),
        source=["history"] * len(read) + ["log"] * int(new.sum()),
    )
    table = table[["time", "article_id", "title", "category", "age_hours", "read_time", "source"]]
    return table.iloc[np.argsort(-time, kind="stable")].reset_index(drop=True)


def _described(dataset: Dataset, article: np.ndarray, time: np.ndarray | int) -> pd.DataFrame:
    """Return what is known of articles, given as indices, at some times; the age is 0 before publication."""
    rows, published = dataset.articles.iloc[article], dataset.metadata.published[article]
    return pd.DataFrame(
        {
            "article_id": rows["article_id"].to_numpy(),
            "title": rows["title"].to_numpy(),
            "category": rows["category_str"].to_numpy(),
            "age_hours": np.where(published == UNKNOWN_TIME, np.nan, np.maximum(time - published, 0) / HOUR),
        }
    )


# --- the slate that was shown --------------------------------------------------------------------------------


def shown_slate(dataset: Dataset, moment: Moment, scores: np.ndarray) -> pd.DataFrame:
    """Return the candidates of an impression with scores, one a candidate, the best score first.

    Returns:
        One row a candidate: ``rank`` (1 best, tied ones share their mean, as in the metrics), ``article_id``,
        ``title``, ``category``, ``age_hours`` at the moment, ``score``, and ``clicked``, a mark or nothing.
    """
    slate = moment.slate(dataset)
    table = _described(dataset, slate.article, moment.time).assign(article_id=slate.article_id, score=scores)
    table.insert(0, "rank", pd.Series(scores).rank(ascending=False))
    table["clicked"] = np.where(slate.clicked, CLICKED, "")
    return table.sort_values("rank", kind="stable", ignore_index=True)


def outcome(dataset: Dataset, moment: Moment) -> dict[int, str]:
    """Return what was made of each article of the slate that was shown, by id: clicked or only shown."""
    slate = moment.slate(dataset)
    return dict(zip(slate.article_id.tolist(), np.where(slate.clicked, CLICKED, SHOWN).tolist(), strict=True))


# --- one user's list -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """How lists are made, with the names and the meaning of the parameters of 04_recommend."""

    k: int = 10
    diversity: float = 0.0
    pool_hours: float = 24.0
    slate_draws: int = 2
    seed: int = 0


class Recommender:
    """Makes the list of one user at any moment of the log, the way of 04_recommend, from what was known before it.

    The last request is kept: another model asks it of the same features.

    Raises:
        ConfigError: a model was updated online, through all of validation: at any moment of it, it would know the
            future.
    """

    def __init__(self, dataset: Dataset, models: list[TrainedModel], settings: Settings) -> None:
        late = [model.name for model in models if model.is_online]
        if late:
            raise ConfigError(
                f"models: {', '.join(late)} was updated online through all of validation, so at a moment of it the "
                "model file knows what came after. Name models that are not updated online."
            )
        self.models = {model.name: model for model in models}
        self.settings = settings
        self._dataset = dataset
        self._checkpoints: Checkpoints | None = None
        self._space = article_space(dataset)
        self._length = candidate_slates.typical_length(dataset.parts["train"])
        self._last: tuple[tuple[int, int, bool], tuple[rec.Requests, candidate_slates.CandidateSlates]] | None = None

    def recommend(self, name: str, user_id: int, time: int) -> pd.DataFrame:
        """Return a model's list for a user at a time, the best first: the rows of ``lists.recommend``.

        Raises:
            ConfigError: nothing is live then, or the user has read all of it.
        """
        model, data = self.models[name], self._dataset
        requests, slates = self._serve(user_id, time, model)
        scores = candidate_slates.score_live([model], data, requests, slates)[name]
        picked = lists.pick(requests, scores, self._space, self.settings.k, self.settings.diversity)
        return lists.recommend(model, data, requests, slates, scores, picked)

    def keep_past(self, since: int) -> None:
        """Keep checkpoints of the log from a moment on, so that what is asked later need not walk all along it.

        One pass along the log: worth it for who asks more than once or twice. Lists do not depend on it.
        """
        if self._checkpoints is None:
            self._checkpoints = Checkpoints(feature_context(self._dataset), since)

    def pool(self, name: str, user_id: int, time: int) -> int:
        """Return how many articles are live for a model, read or not."""
        return len(self._serve(user_id, time, self.models[name])[0].pool)

    def _serve(
        self, user_id: int, time: int, model: TrainedModel
    ) -> tuple[rec.Requests, candidate_slates.CandidateSlates]:
        exposure, settings = knows_exposure(model.tier), self.settings
        key = (user_id, time, exposure)
        if self._last is None or self._last[0] != key:
            live = rec.live_articles(self._dataset, time, settings.pool_hours, exposure)
            requests = rec.make_requests(self._dataset, np.array([user_id], np.uint32), time, live, self._checkpoints)
            slates = candidate_slates.sample_slates(
                requests, self._length, settings.slate_draws, exposure, settings.seed
            )
            self._last = key, (requests, slates)
        return self._last[1]


def knows_exposure(tier: str) -> bool:
    """Say whether a tier may know what was in view: where not, live is what was published recently."""
    return tier in ("exposure", "clicks")


def repeated(recommender: Recommender, earlier: pd.DataFrame, time: int, users: int) -> pd.DataFrame:
    """Make the lists that 04 wrote for its first users at its moment again, one user at a time, and compare.

    Returns:
        One row a user and model: ``user_id``, ``model``, ``articles`` of the list, how many of them are ``shared``, and
        whether the scores are the ``same`` by rank, to four digits. Left out are models that the recommender does not
        have or serves from another pool: 04 has one pool for all models, that of the one which may know least.
    """
    exposure = bool(earlier["tier"].map(knows_exposure).all())
    rows = []
    for user in earlier["user_id"].drop_duplicates().head(users).tolist():
        for name, list_ in earlier[earlier["user_id"] == user].groupby("model", sort=False):
            model = recommender.models.get(str(name))
            if model is None or knows_exposure(model.tier) != exposure:
                continue
            again = recommender.recommend(str(name), user, time)
            shared = len(np.intersect1d(again["article_id"], list_["article_id"]))
            same = len(again) == len(list_) and np.allclose(again["score"], list_["score"], _TOLERANCE, _TOLERANCE)
            rows.append({"user_id": user, "model": name, "articles": len(list_), "shared": shared, "same": same})
    return pd.DataFrame(rows, columns=["user_id", "model", "articles", "shared", "same"])


# --- the life of an article ----------------------------------------------------------------------------------


def find_article(dataset: Dataset, article_id: int) -> int:
    """Return the index of an article. Raises ``ConfigError`` where the bundle does not know it."""
    known = Vocabulary(dataset.articles["article_id"].to_numpy()[1:])
    place = int(known.index_of(np.array([article_id]))[0])
    if not place:
        raise ConfigError(
            f"article: {article_id} is in no table, slate or history of the bundle. Choose one that is listed."
        )
    return place


def life(dataset: Dataset, article: int) -> pd.DataFrame:
    """Count how often an article, an index, was in view and clicked, by hour of the clock, in all of the log.

    Returns:
        One row an hour in which it was in view: ``hour`` (int64, microseconds, its beginning), ``inviews``, ``clicks``,
        ``rate`` (clicks a time in view) and ``low`` and ``high``, the 95 % interval of Wilson for it.
    """
    log = dataset.log
    where = np.flatnonzero(log.article == article)
    time = log.time[np.searchsorted(log.offsets, where, side="right") - 1]
    hour, place = np.unique(time // HOUR, return_inverse=True)
    inviews = np.bincount(place, minlength=len(hour))
    clicks = np.bincount(place[log.clicked[where]], minlength=len(hour))
    low, high = wilson(clicks, inviews)
    counts = {"hour": hour * HOUR, "inviews": inviews, "clicks": clicks, "rate": clicks / np.maximum(inviews, 1)}
    return pd.DataFrame({**counts, "low": low, "high": high})


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


# --- the answers ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A table that answers a choice, what it says, and other numbers of the caption, for ``metrics.json``."""

    table: pd.DataFrame
    caption: str
    values: dict[str, Any]

    def styled(self) -> Styler:
        """Return the table for display; cells of clicked rows are of class ``clicked``, the best of class ``best``."""
        table, styler = self.table, show(self.table, self.caption, _DIGITS)
        classes = pd.DataFrame("", index=table.index, columns=table.columns)
        for name in {"clicked", "shown"} & set(table.columns):
            classes[table[name] == CLICKED] = "clicked"
        if "rank" in table:
            best = (table["rank"] == table["rank"].min()) & (table["rank"].nunique() > 1)
            classes.loc[best, ["rank", "title"]] += " best"
            styler = styler.format("{:g}", subset=["rank"])  # a tie of two has half a rank
        return styler.set_td_classes(classes)


class Explorer:
    """All that is loaded once, and the answers to what is chosen after.

    Args:
        dataset: of 01_preprocess.
        bundle: the folder that it was made of; tells how long readers read.
        names: of the models on offer.
        folders: artifact folders of the stages that trained them, of which the first that has a file is taken.
        settings: how lists are made.

    Raises:
        ConfigError: a model was updated online.
        StageError: a model or its scores are missing.
        BundleError: the bundle's histories are missing or damaged.
    """

    def __init__(
        self, dataset: Dataset, bundle: Path, names: list[str], folders: list[Path], settings: Settings
    ) -> None:
        self.dataset = dataset
        models = [load_model(find_model_file(name, folders)) for name in names]
        self.recommender = Recommender(dataset, models, settings)
        self._files = {(name, part): find_scores(name, part, folders) for name in names for part in SCORED}
        self._scores: dict[tuple[str, str], np.ndarray] = {}  # a file is read when it is first asked for
        self.read_times = ReadTimes(bundle)

    def prepare(self) -> None:
        """Get ready for many choices; answers do not depend on it."""
        self.recommender.keep_past(min(int(self.dataset.parts[part].time[0]) for part in SCORED))
        gc.freeze()  # what is loaded stays: to look through it for garbage would take half a second of some answer

    @property
    def models(self) -> list[str]:
        """The names of the models on offer."""
        return list(self.recommender.models)

    def history(self, moment: Moment, most: int) -> Answer:
        """Return what the reader clicked last before a moment, at most so many."""
        table = history(self.dataset, moment, self.read_times)
        caption = (
            f"User {moment.user_id}: the last {min(most, len(table))} of {len(table):,} clicks before "
            f"{in_words(moment.time)}. Age of the article in hours when it was clicked; read_time in seconds, known "
            "of the history of the week alone. Tier content: the history; tier clicks: the log since."
        )
        return Answer(table.head(most), caption, {"clicks": len(table)})

    def slate(self, moment: Moment, model: str) -> Answer:
        """Return the slate that was shown at a moment, as a model scored it."""
        key, part = (model, moment.part), self.dataset.parts[moment.part]
        if key not in self._scores:
            self._scores[key] = load_scores(self._files[key], part)
        scores = self._scores[key][candidate_rows(part.offsets, np.array([moment.row]))]
        table = shown_slate(self.dataset, moment, scores)
        clicks = int((table["clicked"] == CLICKED).sum())
        values: dict[str, Any] = {"candidates": len(table), "clicks": clicks}
        told = "Nothing in it was clicked." if not clicks else "All of it was clicked."
        if 0 < clicks < len(table):
            shown = moment.slate(self.dataset)
            values["auc"] = float(per_slate(scores, shown.clicked, shown.offsets)[0, 0])
            told = f"AUC of this slate {values['auc']:.3f}."
        caption = (
            f"Impression {moment.impression_id} of {moment.part}, {in_words(moment.time)}: the {len(table)} candidates "
            f"that were shown, with the scores that {model} saved (tier {self._tier(model)}). Rank 1 is the best; "
            f"clicked is what came of it. {told}"
        )
        return Answer(table, caption, values)

    def recommended(self, moment: Moment, model: str) -> Answer:
        """Return what a model would recommend at a moment from the live articles, and why.

        Raises:
            ConfigError: nothing is live then, or the user has read all of it.
        """
        table = self.recommender.recommend(model, moment.user_id, moment.time)
        pool = self.recommender.pool(model, moment.user_id, moment.time)
        live = "in view" if knows_exposure(self._tier(model)) else "published"
        settings, was = self.recommender.settings, outcome(self.dataset, moment)
        table["shown"] = [was.get(each, "") for each in table["article_id"].tolist()]
        caption = (
            f"What {model} (tier {self._tier(model)}) would recommend to user {moment.user_id} at "
            f"{in_words(moment.time)}, from the {pool:,} articles {live} in the {settings.pool_hours:g} h before, "
            f"less what was read; diversity {settings.diversity:g}. Age in hours; reasons are groups of features with "
            "what they add to the score; shown says whether the slate had the article, and what came of it."
        )
        return Answer(table.drop(columns=["user_id", "model", "tier"]), caption, {"pool": pool})

    def life(self, article_id: int) -> Answer:
        """Return the life of an article, hour by hour.

        Raises:
            ConfigError: nobody knows the article.
        """
        place = find_article(self.dataset, article_id)
        hours = life(self.dataset, place)
        row = self.dataset.articles.iloc[place]
        published = "–" if pd.isna(row["published_time"]) else str(row["published_time"])[:16]
        inviews, clicks = int(hours["inviews"].sum()), int(hours["clicks"].sum())
        title = "not in the articles table" if pd.isna(row["title"]) else f"“{row['title']}”"
        caption = (
            f"Article {article_id}, {title}, published {published}: {inviews:,} times in view and {clicks:,} clicks "
            f"in {len(hours):,} hours of the log. Rate is clicks a time in view with its 95 % interval (Wilson). All "
            "of the log, also after the moment above."
        )
        return Answer(hours, caption, {"inviews": inviews, "clicks": clicks, "hours": len(hours)})

    def life_figure(self, answer: Answer, moment: Moment) -> Figure:
        """Draw the life of an article, the moment marked."""
        return plots.article_life(answer.table, moment.time)

    def mentioned(self, answers: Iterable[Answer]) -> dict[int, str]:
        """Return the articles of some answers, each once, as they come: id to title."""
        found: dict[int, str] = {}
        for answer in answers:
            for each, title in zip(answer.table["article_id"].tolist(), answer.table["title"].tolist(), strict=True):
                found.setdefault(each, "without a title" if pd.isna(title) else str(title))
        return found

    def _tier(self, model: str) -> str:
        return self.recommender.models[model].tier


def hours_shown(answer: Answer, most: int) -> Answer:
    """Return the first hours of the life of an article, for a page that has no room for all."""
    head = answer.table.head(most)
    head = head.assign(hour=[in_words(each)[:16] for each in head["hour"].tolist()])
    caption = answer.caption
    if len(answer.table) > most:
        caption += f" The first {most} of them."
    return Answer(head, caption, answer.values)
