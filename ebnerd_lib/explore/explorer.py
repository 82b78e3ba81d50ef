"""The explorer's answers: each a table with its caption, the same in a report as in the live view."""

import gc
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from ebnerd_lib import plots
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.explore import article as articles
from ebnerd_lib.explore import reader
from ebnerd_lib.explore.read_time import ReadTimes
from ebnerd_lib.explore.reader import Moment
from ebnerd_lib.explore.recommendation import Recommender, Settings, knows_exposure
from ebnerd_lib.explore.slate import CLICKED, SavedScores, outcome, shown_slate
from ebnerd_lib.recommend.requests import in_words
from ebnerd_lib.tables import show
from ebnerd_lib.training.model_file import find_model_file, load_model

_DIGITS = {"age_hours": 1, "read_time": 0}


@dataclass(frozen=True)
class Answer:
    """A table that answers a choice.

    Attributes:
        table: its rows.
        caption: what it says, with units and tier.
        digits: digits after the point by column.
        figures: other numbers of the caption, for ``metrics.json``.
    """

    table: pd.DataFrame
    caption: str
    digits: dict[str, int] = field(default_factory=lambda: _DIGITS)
    figures: dict[str, Any] = field(default_factory=dict)

    def styled(self) -> Styler:
        """Return the table for display; cells of clicked rows are of class ``clicked``, the best of class ``best``."""
        table, styler = self.table, show(self.table, self.caption, self.digits)
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

    Attributes:
        dataset: the log.
        recommender: the models.
        read_times: how long readers read.

    Args:
        dataset: of 01_preprocess.
        bundle: the folder that it was made of; tells how long readers read.
        names: of the models on offer.
        folders: artifact folders of the stages that trained them.
        settings: how lists are made.

    Raises:
        ConfigError: a model learns on, or a setting lies outside its range.
        StageError: a model or its scores are missing.
        BundleError: the bundle's histories are missing or damaged.
    """

    def __init__(
        self, dataset: Dataset, bundle: Path, names: list[str], folders: list[Path], settings: Settings
    ) -> None:
        self.dataset = dataset
        self.recommender = Recommender(
            dataset, [load_model(find_model_file(name, folders)) for name in names], settings
        )
        self._scores = SavedScores(dataset, names, folders)
        self.read_times = ReadTimes(bundle)

    def prepare(self) -> None:
        """Get ready for many choices; answers do not depend on it."""
        self.recommender.keep_past(min(int(self.dataset.parts[part].time[0]) for part in reader.OFFERED))
        gc.freeze()  # what is loaded stays: to look through it for garbage would take half a second of some answer

    @property
    def models(self) -> list[str]:
        """The names of the models on offer."""
        return list(self.recommender.models)

    def history(self, moment: Moment, most: int) -> Answer:
        """Return what the reader clicked last before a moment, at most so many."""
        table = reader.history(self.dataset, moment, self.read_times)
        caption = (
            f"User {moment.user_id}: the last {min(most, len(table))} of {len(table):,} clicks before "
            f"{in_words(moment.time)}. Age of the article in hours when it was clicked; read_time in seconds, known "
            "of the history of the week alone. Tier content: the history; tier clicks: the log since."
        )
        return Answer(table.head(most), caption, figures={"clicks": len(table)})

    def slate(self, moment: Moment, model: str) -> Answer:
        """Return the slate that was shown at a moment, as a model scored it."""
        scores = self._scores.of(model, moment)
        table = shown_slate(self.dataset, moment, scores)
        clicks = int((table["clicked"] == CLICKED).sum())
        figures: dict[str, Any] = {"candidates": len(table), "clicks": clicks}
        told = "Nothing in it was clicked." if not clicks else "All of it was clicked."
        if 0 < clicks < len(table):
            slates = self.dataset.parts[moment.part].take(np.array([moment.row]))
            figures["auc"] = float(per_slate(scores, slates.clicked, slates.offsets)[0, 0])
            told = f"AUC of this slate {figures['auc']:.3f}."
        caption = (
            f"Impression {moment.impression_id} of {moment.part}, {in_words(moment.time)}: the {len(table)} candidates "
            f"that were shown, with the scores that {model} saved (tier {self._tier(model)}). Rank 1 is the best; "
            f"clicked is what came of it. {told}"
        )
        return Answer(table, caption, figures=figures)

    def recommended(self, moment: Moment, model: str) -> Answer:
        """Return what a model would recommend at a moment from the live articles, and why.

        Raises:
            ConfigError: nothing is live then, or the user has read all of it.
        """
        table = self.recommender.recommend(model, moment.user_id, moment.time)
        pool = self.recommender.pool(model, moment.user_id, moment.time)
        live = "in view" if knows_exposure(self.recommender.models[model]) else "published"
        settings, was = self.recommender.settings, outcome(self.dataset, moment)
        table["shown"] = [was.get(each, "") for each in table["article_id"].tolist()]
        caption = (
            f"What {model} (tier {self._tier(model)}) would recommend to user {moment.user_id} at "
            f"{in_words(moment.time)}, from the {pool:,} articles {live} in the {settings.pool_hours:g} h before, "
            f"less what was read; diversity {settings.diversity:g}. Age in hours; reasons are groups of features with "
            "what they add to the score; shown says whether the slate had the article, and what came of it."
        )
        return Answer(table.drop(columns=["user_id", "model", "tier"]), caption, figures={"pool": pool})

    def life(self, article_id: int) -> Answer:
        """Return the life of an article, hour by hour.

        Raises:
            ConfigError: nobody knows the article.
        """
        place = articles.find_article(self.dataset, article_id)
        hours = articles.life(self.dataset, place)
        row = self.dataset.articles.iloc[place]
        published = "–" if pd.isna(row["published_time"]) else str(row["published_time"])[:16]
        inviews, clicks = int(hours["inviews"].sum()), int(hours["clicks"].sum())
        title = "not in the articles table" if pd.isna(row["title"]) else f"“{row['title']}”"
        caption = (
            f"Article {article_id}, {title}, published {published}: {inviews:,} times in view and {clicks:,} clicks "
            f"in {len(hours):,} hours of the log. Rate is clicks a time in view with its 95 % interval (Wilson). All "
            "of the log, also after the moment above."
        )
        return Answer(hours, caption, figures={"inviews": inviews, "clicks": clicks, "hours": len(hours)})

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
    head = articles.written(answer.table.head(most))
    caption = answer.caption
    if len(answer.table) > most:
        caption += f" The first {most} of them."
    return Answer(head, caption, figures=answer.figures)


__all__ = ["Answer", "Explorer", "Settings", "hours_shown"]
