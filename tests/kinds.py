"""Kinds of bundles that people have: each is made of the generated one by leaving out or changing something."""

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Tables = dict[str, pa.Table]
WEEKS = ("train", "validation")
HOUR = 3_600_000_000


def read(folder: Path) -> Tables:
    """The tables of a bundle by their paths without the suffix."""
    return {str(f.relative_to(folder).with_suffix("")): pq.read_table(f) for f in sorted(folder.rglob("*.parquet"))}


def write(tables: Tables, folder: Path, base: Path) -> Path:
    """Write tables as a bundle, with the stamp of the bundle that they are made of."""
    for name, table in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / f"{name}.parquet")
    shutil.copy(base / "generated.json", folder)
    return folder


def _set(tables: Tables, table: str, **columns: object) -> None:
    """Give columns of a table other values, of their types."""
    for name, values in columns.items():
        own = tables[table]
        field = own.schema.field(name)
        array = pa.nulls(own.num_rows, field.type) if values is None else pa.array(values, field.type, from_pandas=True)
        tables[table] = own.set_column(own.schema.get_field_index(name), field, array)


def _times(tables: Tables, week: str) -> np.ndarray:
    return tables[f"{week}/behaviors"]["impression_time"].cast(pa.int64()).to_numpy()


def _keep(tables: Tables, name: str, rows: np.ndarray) -> None:
    tables[name] = tables[name].filter(pa.array(rows))


def _lists(tables: Tables, week: str) -> tuple[list[list[int]], list[list[int]]]:
    own = tables[f"{week}/behaviors"]
    return own["article_ids_inview"].to_pylist(), own["article_ids_clicked"].to_pylist()


def plain(tables: Tables) -> None:
    """Nothing is missing."""


def ids_of_articles_only(tables: Tables) -> None:
    """The table of articles holds ids and no more."""
    _set(tables, "articles", **{name: None for name in tables["articles"].column_names if name != "article_id"})
    del tables["contrastive_vector"]


def no_content(tables: Tables) -> None:
    """Of articles the time of publication and whether they are for subscribers are known."""
    known = ("article_id", "published_time", "premium")
    _set(tables, "articles", **{name: None for name in tables["articles"].column_names if name not in known})
    del tables["contrastive_vector"]


def no_sentiment(tables: Tables) -> None:
    """Nobody classified the sentiment of the texts."""
    _set(tables, "articles", sentiment_score=None, sentiment_label=None)


def one_sentiment(tables: Tables) -> None:
    """The classifier says the same of every text."""
    rows = tables["articles"].num_rows
    _set(tables, "articles", sentiment_score=np.full(rows, 0.7), sentiment_label=["Positive"] * rows)


def one_long_category(tables: Tables) -> None:
    """All articles are of one category, whose name is long."""
    rows = tables["articles"].num_rows
    _set(tables, "articles", category=np.full(rows, 7), category_str=[("all the news of this site, " * 4)[:80]] * rows)


def unpublished(tables: Tables) -> None:
    """No time of publication is known."""
    _set(tables, "articles", published_time=None)


def no_histories(tables: Tables) -> None:
    """Nobody has clicked anything before."""
    for week in WEEKS:
        name = f"{week}/history"
        empty = [[]] * tables[name].num_rows
        _set(tables, name, **dict.fromkeys(tables[name].column_names[1:], empty))


def no_history_rows(tables: Tables) -> None:
    """The history files have no row."""
    for week in WEEKS:
        tables[f"{week}/history"] = tables[f"{week}/history"].slice(0, 0)


def one_user(tables: Tables) -> None:
    """All impressions are of one user: the site keeps no accounts."""
    for week in WEEKS:
        _set(tables, f"{week}/behaviors", user_id=[1] * tables[f"{week}/behaviors"].num_rows)
        tables[f"{week}/history"] = tables[f"{week}/history"].slice(0, 1)
        _set(tables, f"{week}/history", user_id=[1])


def one_readers_export(tables: Tables) -> None:
    """The rows of the busiest user of both weeks."""
    both = [tables[f"{week}/behaviors"]["user_id"].to_numpy() for week in WEEKS]
    known = np.intersect1d(*both)
    busiest = known[np.argmax(np.isin(np.concatenate(both), known) @ (np.concatenate(both)[:, None] == known))]
    for name in (f"{week}/{table}" for week in WEEKS for table in ("behaviors", "history")):
        _keep(tables, name, tables[name]["user_id"].to_numpy() == busiest)


def other_users_later(tables: Tables) -> None:
    """No user is in both weeks, as where ids are drawn anew each week."""
    for name in ("validation/behaviors", "validation/history"):
        _set(tables, name, user_id=tables[name]["user_id"].to_numpy().astype(np.int64) + 40_000_000)


def one_click_later(tables: Tables) -> None:
    """One impression of validation has a click."""
    clicks = _lists(tables, "validation")[1]
    own = [click if place == len(clicks) // 2 else [] for place, click in enumerate(clicks)]
    _set(tables, "validation/behaviors", article_ids_clicked=own)


def never_clicked_later(tables: Tables) -> None:
    """No impression of validation has a click."""
    _set(tables, "validation/behaviors", article_ids_clicked=[[]] * tables["validation/behaviors"].num_rows)


def few_rows(tables: Tables) -> None:
    """Every 25th row, as somebody takes to try things out."""
    for week in WEEKS:
        _keep(tables, f"{week}/behaviors", np.arange(tables[f"{week}/behaviors"].num_rows) % 25 == 0)


def short_slates(tables: Tables) -> None:
    """Hardly any slate has more than one candidate."""
    for week in WEEKS:
        shown, clicks = _lists(tables, week)
        pairs = [(own, click) if place % 40 == 0 else (click[:1] or own[:1], click[:1])
                 for place, (own, click) in enumerate(zip(shown, clicks, strict=True))]  # fmt: skip
        _set(tables, f"{week}/behaviors", article_ids_inview=[own for own, _ in pairs],
             article_ids_clicked=[click for _, click in pairs])  # fmt: skip


def nothing_new(tables: Tables) -> None:
    """Thirty articles stay all the time, each as well liked as ever."""
    rng = np.random.default_rng(7)
    ids = tables["articles"]["article_id"].to_numpy()[:30]
    for week in WEEKS:
        shown = [rng.permutation(30)[:6] for _ in range(tables[f"{week}/behaviors"].num_rows)]
        liked = [ids[own[np.argmax(own / 5 + rng.gumbel(size=6))]] for own in shown]
        _set(tables, f"{week}/behaviors", article_ids_inview=[ids[own].tolist() for own in shown],
             article_ids_clicked=[[int(one)] for one in liked], article_id=None)  # fmt: skip


def half_have_read_everything(tables: Tables) -> None:
    """Every second user has clicked all that is ever shown before each week."""
    shown = np.unique(np.concatenate([np.concatenate(_lists(tables, week)[0]) for week in WEEKS])).tolist()
    for week in WEEKS:
        name, start = f"{week}/history", int(_times(tables, week).min())
        values = {
            "article_id_fixed": shown,
            "impression_time_fixed": [np.datetime64(start - HOUR, "us").item()] * len(shown),
        }
        values |= dict.fromkeys(("scroll_percentage_fixed", "read_time_fixed"), [0.0] * len(shown))
        half = np.arange(tables[name].num_rows) % 2 == 0
        old = {column: tables[name][column].to_pylist() for column in values}
        _set(
            tables,
            name,
            **{
                column: [values[column] if full else own for full, own in zip(half, old[column], strict=True)]
                for column in values
            },
        )


def one_hour_later(tables: Tables) -> None:
    """Validation is one hour."""
    times = _times(tables, "validation")
    _keep(tables, "validation/behaviors", times < times.min() + HOUR)


def weeks_apart(tables: Tables) -> None:
    """A month lies between the two weeks."""
    _set(tables, "validation/behaviors", impression_time=_times(tables, "validation") + 30 * 24 * HOUR)


def short_training(tables: Tables) -> None:
    """The train week is of 30 hours: what is left after the tuning day is shorter than the warm-up."""
    times = _times(tables, "train")
    _keep(tables, "train/behaviors", times >= times.max() - 30 * HOUR)


def times_of_days(tables: Tables) -> None:
    """Of the times of impressions the day is kept."""
    for week in WEEKS:
        _set(tables, f"{week}/behaviors", impression_time=_times(tables, week) // (24 * HOUR) * 24 * HOUR)


NO_KINDS = ("read", "write")
KINDS: dict[str, Callable[[Tables], None]] = {
    name: own
    for name, own in list(globals().items())
    if inspect.isfunction(own) and name[0] != "_" and name not in NO_KINDS
}
