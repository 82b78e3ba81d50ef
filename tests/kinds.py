"""Kinds of bundles that people have: each is made of the generated one by leaving out or changing something."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Tables = dict[str, pa.Table]
WEEKS = ("train", "validation")
BEHAVIORS = tuple(f"{week}/behaviors" for week in WEEKS)
HISTORIES = tuple(f"{week}/history" for week in WEEKS)
HOUR = 3_600_000_000
DAY = 24 * HOUR


def read(folder: Path) -> Tables:
    """The tables of a bundle by their paths without the suffix."""
    return {str(f.relative_to(folder).with_suffix("")): pq.read_table(f) for f in sorted(folder.rglob("*.parquet"))}


def write(tables: Tables, folder: Path, base: Path) -> None:
    """Write tables as a bundle, with the stamp of the bundle that they are made of."""
    for name, table in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / f"{name}.parquet")
    shutil.copy(base / "generated.json", folder)


def put(tables: Tables, *names: str, **columns: object) -> None:
    """Give columns of some tables other values, of their types: one a row, or the same in all rows."""
    for name in names:
        for column, values in columns.items():
            own = tables[name]
            field = own.schema.field(column)
            every = values if isinstance(values, list | np.ndarray) else [values] * own.num_rows
            array = pa.array(every, field.type)
            tables[name] = own.set_column(own.schema.get_field_index(column), field, array)


def times(tables: Tables, week: int) -> np.ndarray:
    """The times of a week's impressions in microseconds."""
    return tables[BEHAVIORS[week]]["impression_time"].cast(pa.int64()).to_numpy()


def keep(tables: Tables, name: str, rows: np.ndarray) -> None:
    tables[name] = tables[name].filter(pa.array(rows))


def lists(tables: Tables, name: str) -> tuple[list[list[int]], list[list[int]]]:
    return tables[name]["article_ids_inview"].to_pylist(), tables[name]["article_ids_clicked"].to_pylist()


def articles_with(tables: Tables, *known: str) -> None:
    put(tables, "articles", **{name: None for name in tables["articles"].column_names if name not in known})
    del tables["contrastive_vector"]


def one_user(tables: Tables) -> None:
    """All impressions are of one user: the site keeps no accounts."""
    for name in HISTORIES:
        tables[name] = tables[name].slice(0, 1)
    put(tables, *BEHAVIORS, *HISTORIES, user_id=1)


def one_readers_export(tables: Tables) -> None:
    """The rows of the busiest user of both weeks."""
    both = [tables[name]["user_id"].to_numpy() for name in BEHAVIORS]
    known, counts = np.unique(np.concatenate(both), return_counts=True)
    busiest = known[np.argmax(counts * np.isin(known, np.intersect1d(*both)))]
    for name in (*BEHAVIORS, *HISTORIES):
        keep(tables, name, tables[name]["user_id"].to_numpy() == busiest)


def other_users_later(tables: Tables) -> None:
    """No user is in both weeks, as where ids are drawn anew each week."""
    for name in (BEHAVIORS[1], HISTORIES[1]):
        put(tables, name, user_id=tables[name]["user_id"].to_numpy().astype(np.int64) + 40_000_000)


def one_click_later(tables: Tables) -> None:
    """One impression of validation has a click."""
    clicks = lists(tables, BEHAVIORS[1])[1]
    own = [click if place == len(clicks) // 2 else [] for place, click in enumerate(clicks)]
    put(tables, BEHAVIORS[1], article_ids_clicked=own)


def short_slates(tables: Tables) -> None:
    """Hardly any slate has more than one candidate."""
    for name in BEHAVIORS:
        shown, clicks = lists(tables, name)
        for place in range(len(shown)):
            if place % 40:
                clicks[place] = clicks[place][:1]
                shown[place] = clicks[place] or shown[place][:1]
        put(tables, name, article_ids_inview=shown, article_ids_clicked=clicks)


def nothing_new(tables: Tables) -> None:
    """Thirty articles stay all the time, each as well liked as ever."""
    rng = np.random.default_rng(7)
    ids = tables["articles"]["article_id"].to_numpy()[:30]
    for name in BEHAVIORS:
        shown = [rng.permutation(30)[:6] for _ in range(tables[name].num_rows)]
        liked = [ids[own[np.argmax(own / 5 + rng.gumbel(size=6))]] for own in shown]
        put(tables, name, article_ids_inview=[ids[own].tolist() for own in shown],
            article_ids_clicked=[[int(one)] for one in liked], article_id=None)  # fmt: skip


def half_have_read_everything(tables: Tables) -> None:
    """Every second user has clicked all that is ever shown before each week."""
    shown = np.unique(np.concatenate([np.concatenate(lists(tables, name)[0]) for name in BEHAVIORS])).tolist()
    for week, name in enumerate(HISTORIES):
        before = np.datetime64(int(times(tables, week).min()) - HOUR, "us").item()
        read = {"article_id_fixed": shown, "impression_time_fixed": [before] * len(shown)}
        for column in tables[name].column_names[1:]:
            own = tables[name][column].to_pylist()
            own[::2] = [read.get(column, [0.0] * len(shown))] * len(own[::2])
            put(tables, name, **{column: own})


KINDS: dict[str, Callable[[Tables], None]] = {
    "plain": lambda t: None,
    "ids_of_articles_only": lambda t: articles_with(t, "article_id"),
    "no_content": lambda t: articles_with(t, "article_id", "published_time", "premium"),
    "no_sentiment": lambda t: put(t, "articles", sentiment_score=None, sentiment_label=None),
    "one_sentiment": lambda t: put(t, "articles", sentiment_score=0.7, sentiment_label="Positive"),
    "one_long_category": lambda t: put(t, "articles", category=7, category_str="all the news of this site, " * 3),
    "unpublished": lambda t: put(t, "articles", published_time=None),
    "no_histories": lambda t: put(t, *HISTORIES, **dict.fromkeys(t[HISTORIES[0]].column_names[1:], ())),
    "no_history_rows": lambda t: [keep(t, name, np.zeros(t[name].num_rows, bool)) for name in HISTORIES],
    "never_clicked_later": lambda t: put(t, BEHAVIORS[1], article_ids_clicked=()),
    "few_rows": lambda t: [keep(t, name, np.arange(t[name].num_rows) % 25 == 0) for name in BEHAVIORS],
    "one_hour_later": lambda t: keep(t, BEHAVIORS[1], times(t, 1) < times(t, 1).min() + HOUR),
    "weeks_apart": lambda t: put(t, BEHAVIORS[1], impression_time=times(t, 1) + 30 * DAY),
    "short_training": lambda t: keep(t, BEHAVIORS[0], times(t, 0) >= times(t, 0).max() - 30 * HOUR),
    "times_of_days": lambda t: [
        put(t, name, impression_time=times(t, week) // DAY * DAY) for week, name in enumerate(BEHAVIORS)
    ],
} | {
    each.__name__: each
    for each in (
        one_user, one_readers_export, other_users_later, one_click_later, short_slates, nothing_new,
        half_have_read_everything,
    )
}  # fmt: skip
"""What is done to the tables; of `short_training` the warm-up leaves nothing."""
