"""A bundle in numbers: the tables that 01_preprocess shows."""

import numpy as np
import pandas as pd

from ebnerd_lib.data.bundle import BATCH, Bundle, open_parquet, readable
from ebnerd_lib.data.dataset import UNKNOWN_TIME, Dataset
from ebnerd_lib.data.layout import SPLITS
from ebnerd_lib.data.slates import HOUR, concatenate, large_zeros, marked
from ebnerd_lib.data.vocabulary import Vocabulary

_AT_A_TIME = 1 << 17  # slates: memory is bounded by these, not by all
_LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
AGE_EDGES = (0, 1, 2, 4, 8, 16, 24, 48, 96, 240, 720, np.inf)
AGE_LABELS = ("<1 h", "1–2 h", "2–4 h", "4–8 h", "8–16 h", "16–24 h", "1–2 d", "2–4 d", "4–10 d", "10–30 d", ">30 d")


def null_shares(bundle: Bundle) -> pd.DataFrame:
    """Return the share of null rows of every column that has any: ``file``, ``column``, ``share``."""
    rows = []
    for name in ("articles", *(f"{split}/{table}" for split in SPLITS for table in ("behaviors", "history"))):
        file = open_parquet(path := bundle.path / f"{name}.parquet")
        for column in dict.fromkeys(file.schema_arrow.names):
            nulls = 0
            with readable(path):
                for batch in file.iter_batches(BATCH, columns=[column]):
                    nulls += batch.column(batch.schema.get_all_field_indices(column)[0]).null_count
            if nulls:
                rows.append({"file": name, "column": column, "share": nulls / file.metadata.num_rows})
    return pd.DataFrame(rows, columns=["file", "column", "share"])


def part_counts(dataset: Dataset) -> pd.DataFrame:
    """Return counts of each part: impressions, candidates, clicks, users, articles, first and last time."""
    return pd.DataFrame(
        {
            "part": part,
            "impressions": len(slates),
            "candidates": slates.candidates,
            "clicks": int(slates.clicked.sum()),
            "users": int(marked(slates.user, len(dataset.users)).sum()),
            "articles in view": int(marked(slates.article, len(dataset.articles)).sum()),
            "first": f"{pd.Timestamp(slates.time.min(), unit='us'):%Y-%m-%d %H:%M}",
            "last": f"{pd.Timestamp(slates.time.max(), unit='us'):%Y-%m-%d %H:%M}",
        }
        for part, slates in dataset.parts.items()
    )


def quantiles(values: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return mean, extremes and quantiles of several quantities, one row each; empty ones are all NaN."""
    rows = []
    for name, numbers in values.items():
        known = numbers[~np.isnan(numbers)]
        known = known if len(known) else np.full(1, np.nan)
        spread = dict(zip((f"p{level * 100:g}" for level in _LEVELS), np.quantile(known, _LEVELS), strict=True))
        row = {"mean": known.mean(), "min": known.min(), **spread, "max": known.max()}
        rows.append({"": name, **{key: float(value) for key, value in row.items()}})
    return pd.DataFrame(rows)


def candidate_age(dataset: Dataset, part: str) -> np.ndarray:
    """Return the age in hours of every candidate when it was in view, at least 0; NaN where unknown."""
    slates = dataset.parts[part]
    published = dataset.metadata.published
    out = large_zeros(slates.candidates, np.float64)
    for start in range(0, len(slates), _AT_A_TIME):
        some = slates.between(start, min(start + _AT_A_TIME, len(slates)))
        born = published[some.article]
        hours = np.maximum(some.per_candidate(some.time) - born, 0) / HOUR
        first = int(slates.offsets[start])
        out[first : first + some.candidates] = np.where(born == UNKNOWN_TIME, np.nan, hours)
    return out


def click_rate_by_age(dataset: Dataset, part: str) -> pd.DataFrame:
    """Return times in view, clicks and their ratio by age of the article; NaN where nothing was in view."""
    place = np.digitize(candidate_age(dataset, part), AGE_EDGES) - 1
    known = place < len(AGE_LABELS)
    shown = np.bincount(place[known], minlength=len(AGE_LABELS))
    clicks = np.bincount(place[known], weights=dataset.parts[part].clicked[known], minlength=len(AGE_LABELS))
    rate = np.divide(clicks, shown, out=np.full(len(shown), np.nan), where=shown > 0)
    return pd.DataFrame({"age": AGE_LABELS, "in view": shown, "clicks": clicks.astype(int), "click rate": rate})


def cold_start(dataset: Dataset) -> dict[str, float]:
    """Return how much of validation is new: shares of its candidates, clicks and impressions.

    "Before" means in the train or tuning part. A model that knows articles by their ids alone can say something
    of its own only about those seen before.
    """
    before, articles = concatenate([dataset.parts["train"], dataset.parts["tuning"]]), len(dataset.articles)
    seen, clicked = marked(before.article, articles), marked(before.article[before.clicked], articles)
    users = marked(before.user, len(dataset.users))
    validation = dataset.parts["validation"]
    hits = validation.article[validation.clicked]
    return {
        "candidates never in view before": float((~seen[validation.article]).mean()),
        "clicks on articles never in view before": float((~seen[hits]).mean()),
        "clicks on articles never clicked before": float((~clicked[hits]).mean()),
        "impressions of users never seen before": float((~users[validation.user]).mean()),
    }


def seen_candidates(dataset: Dataset, part: str, articles: Vocabulary) -> dict[str, float]:
    """Return how much of a part's slates a model can tell apart that knows articles by id alone.

    ``articles`` are those in view where the model is trained; all others are one and the same unknown to it.
    """
    seen = articles.index_of(dataset.articles["article_id"].to_numpy()) > 0
    slates = dataset.parts[part]
    known = np.add.reduceat(seen[slates.article].astype(np.int64), slates.offsets[:-1])
    return {
        "candidates that training has seen": float(seen[slates.article].mean()),
        "clicks on articles that training has seen": float(seen[slates.article[slates.clicked]].mean()),
        "slates in which training has seen nothing": float((known == 0).mean()),
        "slates in which training has seen everything": float((known == slates.lengths).mean()),
    }


def hour_of_day(dataset: Dataset, part: str) -> np.ndarray:
    """Return the hour of day, as stored, of every impression of a part."""
    return dataset.parts[part].time // HOUR % 24
