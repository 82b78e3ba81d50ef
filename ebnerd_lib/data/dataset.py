"""A bundle made ready: parts, histories and metadata of articles."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, repeat
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numba import njit

from ebnerd_lib.configs import SplitName
from ebnerd_lib.data import slates as slates_io
from ebnerd_lib.data.bundle import UNKNOWN_TIME as UNKNOWN_TIME
from ebnerd_lib.data.bundle import Bundle, History, build_history, build_slates
from ebnerd_lib.data.layout import SPLITS, TEST
from ebnerd_lib.data.schema import SENTIMENT_LABELS
from ebnerd_lib.data.slates import HOUR, Slates
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.errors import BundleError, StageError

PARTS = ("train", "tuning", "validation")
BEYOND = "beyond_accuracy"
"""The part of a hidden test whose slates were made up for beyond-accuracy measures and shown to nobody."""
HIDDEN_PARTS = ("validation", "test", BEYOND)


def split_parts(name: SplitName, train_time: np.ndarray, validation_time: np.ndarray) -> np.ndarray:
    """Assign every impression of both weeks, of which the times are given in any order (int64, µs), to a part.

    Returns int8 (n,), the train file first: 0 train, 1 tuning, 2 validation. Parts are half-open intervals of time.

    Raises:
        BundleError: a part would be empty, or the weeks overlap under ``official``.
    """
    cut = _official if name == "official" else _quantile
    found = cut(train_time, validation_time)
    counts = np.bincount(found, minlength=len(PARTS))
    if not counts.all():
        empty = ", ".join(part for part, count in zip(PARTS, counts, strict=True) if not count)
        raise BundleError(
            f"split '{name}': no impressions for {empty} ({', '.join(map(str, counts))} in {', '.join(PARTS)}). "
            "train/behaviors.parquet and validation/behaviors.parquet must cover more than a day each: check that they "
            "are complete."
        )
    return found


def _official(train_time: np.ndarray, validation_time: np.ndarray) -> np.ndarray:
    if train_time.max() >= validation_time.min():
        late = int((train_time >= validation_time.min()).sum())
        raise BundleError(
            f"train/behaviors.parquet: {late} impressions are not before the first of validation/behaviors.parquet. "
            "The official split needs the train week first: check that the files are not mixed up."
        )
    # Weeks end on a full hour; the last impression falls just short of it.
    week_end = (int(train_time.max()) // HOUR + 1) * HOUR
    return np.concatenate([train_time >= week_end - 24 * HOUR, np.full(len(validation_time), 2)]).astype(np.int8)


def _quantile(train_time: np.ndarray, validation_time: np.ndarray) -> np.ndarray:
    time = np.concatenate([train_time, validation_time])
    validation_start = int(np.quantile(time, 0.9, method="higher"))
    tuning_start = validation_start - (validation_start - int(time.min())) // 10
    return (time >= tuning_start).astype(np.int8) + (time >= validation_start).astype(np.int8)


VECTORS_FILE = "vectors.npy"
_GROUP = 1 << 14  # users of a row group of histories
_SHARES = tuple(f"sentiment_{label.lower()}" for label in SENTIMENT_LABELS)


@dataclass(frozen=True)
class Metadata:
    """What the articles table says, by article index; row 0 is the unknown article."""

    published: np.ndarray  # int64 (articles,), microseconds; ``UNKNOWN_TIME`` where the table has none
    premium: np.ndarray  # bool (articles,), false where unknown
    category: np.ndarray  # int32 (articles,), index into the bundle's sorted categories, 0 unknown
    sentiment: np.ndarray  # float32 (articles, 3), shares of negative, neutral, positive; NaN where unknown
    topic_starts: np.ndarray  # int64 (articles + 1,): article ``a`` has ``topics[topic_starts[a]:topic_starts[a + 1]]``
    topics: np.ndarray  # int32, indices into the bundle's sorted topics, from 0
    # float32 (articles, size), of length 1, zeros where there is none; size 0 without article vectors
    vectors: np.ndarray

    @property
    def topic_count(self) -> int:
        """Number of topics."""
        return int(self.topics.max(initial=-1)) + 1


@dataclass(frozen=True)
class Dataset:
    """Slates, tables and histories that share one article index and one user index; index 0 is unknown."""

    # one row an article index, row 0 the unknown: ``article_id`` (0 in row 0), ``in_table``, title, category, the first
    # subcategory, times and sentiment shares; null where the articles table says nothing
    articles: pd.DataFrame
    # one row a user index, row 0 the unknown: ``user_id``, and for each week ``history_<week>`` (clicks) and the mean
    # sentiment shares of these clicks
    users: pd.DataFrame
    # the slates of ``train``, ``tuning`` and ``validation``, or those of ``HIDDEN_PARTS``, each in order of time, and
    # as in the file where times are equal
    parts: dict[str, Slates]
    # the histories of the train week and of the validation week, or that of the hidden test alone
    histories: list[History]
    # float32 (articles, size) of length 1, zeros where there is none; ``None`` without article vectors
    vectors: np.ndarray | None = None

    @cached_property
    def log(self) -> Slates:
        """The impressions of all parts, one part after the other; of a hidden test those that somebody was shown."""
        return slates_io.concatenate([slates for part, slates in self.parts.items() if part != BEYOND])

    @cached_property
    def categories(self) -> np.ndarray:
        """Raw ids of the category and of the first subcategory: int32 (articles, 2), -1 where unknown."""
        return self.articles[["category", "subcategory"]].fillna(-1).to_numpy(np.int32)

    @cached_property
    def metadata(self) -> Metadata:
        """The articles table as arrays."""
        table = self.articles
        published = table["published_time"].to_numpy().astype("datetime64[us]")
        return Metadata(
            published=np.where(np.isnat(published), UNKNOWN_TIME, published.astype(np.int64)),
            premium=table["premium"].fillna(False).to_numpy(bool),
            category=pd.Categorical(table["category"]).codes.astype(np.int32) + 1,
            sentiment=table[list(_SHARES)].to_numpy(np.float32),
            topic_starts=np.concatenate(([0], np.cumsum(table["topics"].map(len)))).astype(np.int64),
            topics=pd.Categorical(table["topics"].explode().dropna()).codes.astype(np.int32),
            vectors=np.zeros((len(table), 0), np.float32) if self.vectors is None else self.vectors,
        )


def prepare(bundle: Bundle, split: SplitName) -> tuple[Dataset, pd.DataFrame]:
    """Build a dataset from a bundle, with the ``official`` or the ``quantile`` split.

    Every article that is in the table, in a slate or in a history gets an index, so counts of past events work
    for articles that the table lacks. Each split's slates meet the history of that split alone.

    Returns:
        The dataset; and, one row a split file, how many impressions and users it has, how many
        history rows, how many impressions met a history, and how many articles in view the table lacks.

    Raises:
        BundleError: see ``ebnerd_lib.data.bundle``; or nothing can be learnt from a part, or evaluated on it, as no
            slate of it has a click and something beside it.
    """
    table = bundle.articles()
    with ThreadPoolExecutor(len(SPLITS)) as pool:  # what they do outside of Python runs at the same time
        behaviors = list(pool.map(bundle.behaviors, SPLITS))
        clicks = list(pool.map(bundle.clicks, SPLITS))
        ids = [table["article_id"].to_numpy(), *(part.seen for part in behaviors + clicks)]
        articles = Vocabulary(np.concatenate(ids))
        users = Vocabulary(
            np.concatenate([rows.request["user_id"] for rows in behaviors] + [rows.user_id for rows in clicks])
        )
        weeks = list(pool.map(build_slates, behaviors, repeat(articles), repeat(users), range(len(SPLITS))))
        past = list(pool.map(build_history, clicks, repeat(articles), repeat(users)))
    rows_of_history = [len(rows.user_id) for rows in clicks]
    del behaviors, clicks, ids  # they are as large as what was made of them
    parts = _cut(weeks, split_parts(split, weeks[0].time, weeks[1].time), PARTS)
    for part, slates in parts.items():
        if not slates.has_choice.any():
            raise BundleError(
                f"{bundle.path}: split '{split}': none of the {len(slates)} impressions of {part} has a click and a "
                "candidate beside it. Check article_ids_clicked in train/behaviors.parquet and "
                "validation/behaviors.parquet."
            )
    known = article_table(table, articles)
    dataset = Dataset(
        articles=known,
        users=_user_table(users, past, known[list(_SHARES)].to_numpy(np.float32)),
        parts=parts,
        histories=past,
        vectors=article_vectors(bundle.vectors(), articles),
    )
    in_table = known["in_table"].to_numpy()
    joins = [
        {
            "split": name,
            "impressions": len(week),
            "users": int(slates_io.marked(week.user, len(users)).sum()),
            "history rows": rows,
            "impressions with history": int((own.lengths[week.user] > 0).sum()),
            "articles not in table": int((slates_io.marked(week.article, len(articles)) & ~in_table).sum()),
        }
        for name, week, rows, own in zip(SPLITS, weeks, rows_of_history, past, strict=True)
    ]
    return dataset, pd.DataFrame(joins)


def prepare_hidden(before: Bundle, test: Bundle) -> tuple[Dataset, int]:
    """Build the dataset of a hidden test: its slates, with the validation week of the bundle before it as the past.

    Impressions of that week that are not before the first of the test are left out.

    Returns:
        The dataset, whose parts are ``HIDDEN_PARTS`` and whose only history is that of the test, ``row`` being the row
        of the test file; and how many impressions of the week before are left out.

    Raises:
        BundleError: see ``ebnerd_lib.data.bundle``.
    """
    table = test.articles()
    asked, past, clicks = test.behaviors(TEST), before.behaviors(SPLITS[1]), test.clicks(TEST)
    pa.default_memory_pool().release_unused()  # what reading took
    articles = Vocabulary(np.concatenate([table["article_id"].to_numpy(), asked.seen, past.seen, clicks.seen]))
    users = Vocabulary(np.concatenate([asked.request["user_id"], past.request["user_id"], clicks.user_id]))
    weeks = [build_slates(behaviors, articles, users, week) for week, behaviors in enumerate((asked, past))]
    late = weeks[1].time >= weeks[0].time.min()
    part = np.concatenate([asked.request["beyond"].astype(np.int8) + 1, np.where(late, len(HIDDEN_PARTS), 0)])
    history = build_history(clicks, articles, users)
    del asked, past, clicks  # they are as large as what was made of them
    vectors = test.vectors()
    return Dataset(
        articles=article_table(table, articles),
        users=pd.DataFrame({"user_id": np.append(np.uint32(0), users.ids)}),
        parts=_cut(weeks, part, HIDDEN_PARTS),
        histories=[history],
        vectors=article_vectors(before.vectors() if vectors is None else vectors, articles),  # they are the same
    ), int(late.sum())


def _cut(weeks: list[Slates], part: np.ndarray, names: tuple[str, ...]) -> dict[str, Slates]:
    """Return the parts, each in order of time, as neighbouring views of the same arrays; higher numbers are left out.

    ``part`` holds the number of the part of each impression, one week after the other.
    """
    order = np.lexsort((np.concatenate([week.time for week in weeks]), part))
    ends = np.concatenate(([0], np.cumsum(np.bincount(part, minlength=len(names))[: len(names)]))).tolist()
    log = slates_io.gathered(weeks, order[: ends[-1]])
    log.row[:] = order[: ends[-1]]  # the files follow each other as the weeks do
    return {part: log.between(start, stop) for part, (start, stop) in zip(names, pairwise(ends), strict=True)}


def save(dataset: Dataset, folder: Path) -> None:
    """Write articles, users, histories and slates as parquet files into an existing folder."""
    dataset.articles.to_parquet(folder / "articles.parquet", index=False)
    dataset.users.to_parquet(folder / "users.parquet", index=False)
    for name, history in zip(SPLITS, dataset.histories, strict=True):
        columns = {"article": history.article, "time": history.time}
        slates_io.write_columns(folder / f"history_{name}.parquet", columns, history.offsets, tuple(columns), _GROUP)
    for part, slates in dataset.parts.items():
        slates_io.save(slates, folder / f"slates_{part}.parquet")
    if dataset.vectors is not None:
        np.save(folder / VECTORS_FILE, dataset.vectors)


def load(folder: Path) -> Dataset:
    """Read what ``save`` wrote. Raises ``StageError`` where the folder lacks it."""
    if not (folder / "articles.parquet").exists():
        raise StageError(f"{folder}: no articles.parquet. Run 01_preprocess for this profile first.")
    return Dataset(
        articles=pd.read_parquet(folder / "articles.parquet"),
        users=pd.read_parquet(folder / "users.parquet"),
        parts=dict(zip(PARTS, slates_io.load([folder / f"slates_{part}.parquet" for part in PARTS]), strict=True)),
        histories=[_load_history(folder / f"history_{name}.parquet") for name in SPLITS],
        vectors=np.load(folder / VECTORS_FILE) if (folder / VECTORS_FILE).exists() else None,
    )


def _load_history(path: Path) -> History:
    columns = slates_io.read_columns([path], ("article", "time"))
    return History(columns["article"].offsets, columns["article"].values, columns["time"].values)


def sentiment_shares(label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Spread a sentiment over three shares that add up to 1: float32 (n, 3), negative, neutral, positive.

    ``score`` is the probability of ``label``, not a polarity: the label gets it, the other two half of the rest
    each. Rows whose label or score is unknown are NaN.

    >>> sentiment_shares(np.array(["Positive", None]), np.array([0.8, 0.5])).round(2)
    array([[0.1, 0.1, 0.8],
           [nan, nan, nan]], dtype=float32)
    """
    score = score.astype(np.float64)
    is_label = np.stack([label == name for name in SENTIMENT_LABELS], axis=1)
    shares = np.where(is_label, score[:, None], (1 - score[:, None]) / 2)
    return np.where(is_label.any(axis=1, keepdims=True), shares, np.nan).astype(np.float32)


def article_table(table: pa.Table, articles: Vocabulary) -> pd.DataFrame:
    """Return what the articles table says, one row an article index: ``Dataset.articles``."""
    label = np.array(table["sentiment_label"].to_pylist(), dtype=object)
    shares = sentiment_shares(label, table["sentiment_score"].to_numpy())
    known = table.drop_columns(["sentiment_score", "sentiment_label"]).to_pandas()
    known = known.assign(in_table=True, **dict(zip(_SHARES, shares.T, strict=True)))
    every = pd.DataFrame({"article_id": np.concatenate([np.zeros(1, np.int32), articles.ids])})
    joined = every.merge(known, on="article_id", how="left", validate="one_to_one")
    return joined.assign(
        in_table=joined["in_table"].notna(),
        topics=joined["topics"].map(_distinct),
        premium=joined["premium"].astype("boolean"),
        category=joined["category"].astype("Int16"),
        subcategory=joined["subcategory"].map(_first).astype("Int16"),
    )


def _first(items: object) -> object:
    """Return the first item of a list; null where there is none."""
    return items[0] if isinstance(items, np.ndarray) and len(items) else pd.NA


def _distinct(topics: object) -> np.ndarray:
    """Return the topics of an article, each once, as they stand; without nulls, which name none."""
    known = dict.fromkeys(topics.tolist()) if isinstance(topics, np.ndarray) else {}
    return np.array([topic for topic in known if topic is not None], dtype=object)


def article_vectors(found: tuple[np.ndarray, np.ndarray] | None, articles: Vocabulary) -> np.ndarray | None:
    """Return vectors of length 1 by article index, zeros where there is none; ``None`` where none were found."""
    if found is None:
        return None
    ids, rows = found
    out = np.zeros((len(articles), rows.shape[1]), np.float32)
    place = articles.index_of(ids)
    # By a power of two, which rounds nothing: squares of what is very large or small leave the range of float32.
    rows = np.ldexp(rows, -np.frexp(np.abs(rows).max(axis=1, keepdims=True))[1])
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    out[place[place > 0]] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)[place > 0]
    return out


def _user_table(users: Vocabulary, histories: list[History], shares: np.ndarray) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {"user_id": np.concatenate([np.zeros(1, np.uint32), users.ids])}
    for name, history in zip(SPLITS, histories, strict=True):
        columns[f"history_{name}"] = history.lengths
        means = np.full((len(users), len(_SHARES)), np.nan, np.float32)
        _mean_shares(history.offsets, history.article, shares, means)
        columns |= {f"{label}_{name}": means[:, place] for place, label in enumerate(_SHARES)}
    return pd.DataFrame(columns)


@njit(cache=True, nogil=True)
def _mean_shares(offsets, article, shares, out):  # type: ignore[no-untyped-def]
    """Fill in the mean sentiment shares of the clicks of each user whose sentiment is known; leave NaN of none."""
    total = np.zeros(shares.shape[1])
    for user in range(len(out)):
        total[:] = 0.0
        known = 0
        for click in range(offsets[user], offsets[user + 1]):
            own = shares[article[click]]
            if not np.isnan(own[0]):
                known += 1
                for share in range(len(total)):
                    total[share] += own[share]
        for share in range(len(total)):
            if known > 0:
                out[user, share] = total[share] / known
