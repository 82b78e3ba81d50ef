"""The slate that a reader was really shown, as a model scored it then, and what was clicked."""

from pathlib import Path

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.errors import StageError
from ebnerd_lib.evaluation.evaluate import load_scores
from ebnerd_lib.explore.reader import Moment, age_hours, article_columns

_FILES = {"validation": "scores", "tuning": "tuning"}
CLICKED, SHOWN = "● clicked", "shown"
"""Words for what was made of an article: a mark is seen, a word is read aloud."""


class SavedScores:
    """The scores that models saved of every impression on offer; a file is read when it is first asked for.

    Args:
        dataset: whose slates.
        names: of the models.
        folders: artifact folders, of which the first that has a model's files is taken.

    Raises:
        StageError: no folder has them.
    """

    def __init__(self, dataset: Dataset, names: list[str], folders: list[Path]) -> None:
        self._dataset = dataset
        self._paths = {(name, part): _find(name, part, folders) for name in names for part in _FILES}
        self._read: dict[tuple[str, str], np.ndarray] = {}

    def of(self, name: str, moment: Moment) -> np.ndarray:
        """Return the scores of the candidates of an impression, in the order of its slate: float32."""
        key, slates = (name, moment.part), self._dataset.parts[moment.part]
        if key not in self._read:
            self._read[key] = load_scores(self._paths[key], slates)
        begin, end = slates.offsets[moment.row : moment.row + 2]
        return self._read[key][begin:end]


def shown_slate(dataset: Dataset, moment: Moment, scores: np.ndarray) -> pd.DataFrame:
    """Return the candidates of an impression, the best score first.

    Args:
        dataset: whose impression.
        moment: which.
        scores: one a candidate, see ``SavedScores.of``.

    Returns:
        One row a candidate: ``rank`` (1 best, tied ones share their mean, as in the metrics), ``article_id``,
        ``title``, ``category``, ``age_hours`` at the moment, ``score``, and ``clicked``, a mark for what was clicked
        and empty else.
    """
    slates = dataset.parts[moment.part]
    begin, end = slates.offsets[moment.row : moment.row + 2]
    article = slates.article[begin:end]
    table = article_columns(dataset, article).assign(article_id=slates.article_id[begin:end])
    table.insert(0, "rank", pd.Series(scores).rank(ascending=False))
    table["age_hours"] = age_hours(dataset, article, np.full(len(article), moment.time))
    table["score"] = scores
    table["clicked"] = np.where(slates.clicked[begin:end], CLICKED, "")
    return table.sort_values("rank", kind="stable", ignore_index=True)


def outcome(dataset: Dataset, moment: Moment) -> dict[int, str]:
    """Return what was made of each article of the slate that was shown, by id: clicked or only shown."""
    slates = dataset.parts[moment.part]
    begin, end = slates.offsets[moment.row : moment.row + 2]
    words = np.where(slates.clicked[begin:end], CLICKED, SHOWN)
    return dict(zip(slates.article_id[begin:end].tolist(), words.tolist(), strict=True))


def _find(name: str, part: str, folders: list[Path]) -> Path:
    file = f"{_FILES[part]}_{name}.parquet"
    for folder in folders:
        if (folder / file).exists():
            return folder / file
    raise StageError(f"models: there is no {file}, the scores of '{name}'. Run the stage that trains it again.")
