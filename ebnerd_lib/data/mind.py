"""Convert MIND, the Microsoft News Dataset (Wu et al., 2020), into a bundle in EBNeRD's schema.

What MIND lacks is null: times of publication, premium, sentiment, devices, subscribers, sessions, pages, read times,
and the times of the clicks in histories.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ebnerd_lib.data import schema
from ebnerd_lib.data.bundle import open_bundle, open_parquet
from ebnerd_lib.data.layout import SPLITS, VECTORS
from ebnerd_lib.data.schema import flat, list_lengths, refuse
from ebnerd_lib.data.vocabulary import distinct
from ebnerd_lib.errors import BundleError, first_line

BEHAVIORS = ("impression id", "user", "time", "history", "news-label pairs")
"""Columns of behaviors.tsv; pairs are as ``N1-0 N2-1``, 1 for a click."""
NEWS = ("id", "category", "subcategory", "title", "abstract", "url", "title entities", "abstract entities")
"""Columns of news.tsv."""
_NEWS, _USER = "N", "U"  # what ids begin with
_TIME = "%m/%d/%Y %I:%M:%S %p"
_BLOCK = 1 << 24  # bytes of lines that are read at a time


class _Words(NamedTuple):
    """Texts, and the line of a block that each stands in, from 0: int64 (n,), ascending."""

    texts: pa.Array
    line: np.ndarray


class _Lines(NamedTuple):
    """A block of lines of a file."""

    path: Path
    before: int  # lines of the file before these
    columns: dict[str, pa.Array]  # by name, without spaces around the values

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def column(self, name: str) -> _Words:
        """Return the values of a column."""
        return _Words(self.columns[name], np.arange(len(self)))

    def words(self, name: str) -> _Words:
        """Return what stands between spaces in a column."""
        lists = pc.split_pattern(self.columns[name], " ")
        line, texts = np.repeat(np.arange(len(self)), list_lengths(lists)), flat(lists)
        some = pc.not_equal(texts, "")
        return _Words(texts.filter(some), line[_flags(some)])

    def refuse(self, name: str, words: _Words, wrong: np.ndarray, remedy: str) -> None:
        """Raise ``BundleError`` for the first of some words of a column that is wrong, bool (n,)."""
        if wrong.any():
            at = int(wrong.argmax())
            place = f"{self.path}: line {self.before + words.line[at] + 1}: {name}"
            raise BundleError(f"{place} {words.texts[at].as_py()[:40]!r}. {remedy}")

    def numbers(self, name: str, letter: str, words: _Words | None = None) -> np.ndarray:
        """Return the numbers behind the letter of the ids in a column, or of some words of it: int64 (n,).

        Raises:
            BundleError: a word is no such id.
        """
        words = words or self.column(name)
        ids = words.texts.dictionary_encode()  # most stand there many times
        # Without leading zeros, so that each number is one id, and below 2^31.
        good = pc.match_substring_regex(ids.dictionary, f"^{letter}[1-9][0-9]{{0,8}}$")
        remedy = f"Ids are as {letter}123, a number above 0 and below a billion: fix it, or drop the line."
        self.refuse(name, words, ~_flags(good.take(ids.indices)), remedy)
        return pc.utf8_slice_codeunits(ids.dictionary, len(letter)).cast(pa.int64()).take(ids.indices).to_numpy()


def convert(train: Path, validation: Path, out: Path, vectors: Path | None = None) -> dict[str, int]:
    """Write a bundle of two folders of MIND, each with ``behaviors.tsv`` and ``news.tsv``.

    ``N123`` becomes the article 123 and ``U456`` the user 456; ``mind_articles.parquet`` and ``mind_users.parquet``
    lead back. An article has a row if a news.tsv, a slate or a history names it; where both news.tsv do, that of
    ``train`` counts. A subcategory becomes the article's topic, an abstract its subtitle; entities are left out. A
    candidate that an impression names twice stands once in its slate.

    MIND gives each impression a history, EBNeRD each user and week. What is taken is the history of the user's first
    impression of the part. It holds no click of the part, so it is in the past of all of them; of later ones, the
    clicks of the part are in the log.

    Lines are read in blocks: memory holds ids and times of impressions, and what news.tsv says.

    Args:
        train: folder of the first part.
        validation: folder of the part that follows it, with labels.
        out: folder to write, new or empty; it appears whole or not at all.
        vectors: parquet of ``article_id``, numbers or as ``N123``, and one list of numbers.

    Returns:
        Numbers of impressions of both parts, users and articles.

    Raises:
        BundleError: a file is missing or empty, a line breaks the form, or ``out`` holds something.
    """
    refuse(out.is_file() or any(out.glob("*")), f"{out}: is a file or holds files. Name a new folder, or empty it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as holder:
        bundle, folders = Path(holder) / "bundle", dict(zip(SPLITS, (train, validation), strict=True))
        for split in folders:
            (bundle / split).mkdir(parents=True)
        parts = [_write_split(folder / "behaviors.tsv", bundle / split) for split, folder in folders.items()]
        users, seen = (distinct(np.concatenate(ids)) for ids in zip(*(part[1:] for part in parts), strict=True))
        news = pd.concat([_read_news(folder / "news.tsv") for folder in folders.values()])
        articles = _write_articles(news.drop_duplicates("article_id"), seen, bundle / "articles.parquet")
        for letter, name, ids in ((_NEWS, "article", articles), (_USER, "user", users)):
            table = pa.table({"mind_id": np.char.add(letter, ids.astype(str)), f"{name}_id": ids})
            pq.write_table(table, bundle / f"mind_{name}s.parquet")
        if vectors is not None:
            _write_vectors(vectors, bundle / VECTORS)
        open_bundle(bundle)
        if out.exists():
            out.rmdir()
        bundle.rename(out)
    return {"impressions": sum(part[0] for part in parts), "users": len(users), "articles": len(articles)}


def _write_split(path: Path, folder: Path) -> tuple[int, np.ndarray, np.ndarray]:
    """Write behaviors and histories of a part; return its number of impressions, and the ids of users and articles."""
    number, user, time, seen = [], [], [], []
    every = folder / "every"  # the history of each impression, until it is known which is its user's first
    with (
        pq.ParquetWriter(folder / "behaviors.parquet", schema.arrow_schema(schema.BEHAVIORS)) as behaviors,
        pq.ParquetWriter(every, schema.arrow_schema(schema.HISTORY)) as histories,
    ):
        for lines in _read_lines(path, BEHAVIORS):
            shown, read = _read_behaviors(lines)
            behaviors.write_table(shown)
            histories.write_table(read)
            number.append(shown["impression_id"].to_numpy())
            user.append(shown["user_id"].to_numpy())
            time.append(shown["impression_time"].cast(pa.int64()).to_numpy())
            lists = shown["article_ids_inview"], read["article_id_fixed"]
            seen += [pc.unique(flat(column)).to_numpy() for column in lists]
    ids, users, times = (np.concatenate(each) for each in (number, user, time))
    _refuse_repeat(path, "impression id", ids)
    order, first = np.lexsort((times, users)), np.zeros(len(users), bool)
    first[order[np.unique(users[order], return_index=True)[1]]] = True
    with pq.ParquetWriter(folder / "history.parquet", schema.arrow_schema(schema.HISTORY)) as histories:
        for batch in pq.ParquetFile(every).iter_batches():
            histories.write_batch(batch.filter(pa.array(first[: len(batch)])))
            first = first[len(batch) :]
    every.unlink()
    return len(ids), distinct(users), distinct(np.concatenate(seen))


def _read_behaviors(lines: _Lines) -> tuple[pa.Table, pa.Table]:
    """Return behaviors and histories of a block, in both of them a row a line."""
    number, user, when = lines.numbers("impression id", ""), lines.numbers("user", _USER), lines.column("time")
    time = pd.to_datetime(when.texts.to_pandas(), format=_TIME, errors="coerce")
    lines.refuse("time", when, time.isna().to_numpy(), "Times are as 11/11/2019 9:05:58 AM: fix it, or drop the line.")
    past = lines.words("history")
    read = _lists(past.line, lines.numbers("history", _NEWS, past), len(lines))
    name, pairs = "news-label pairs", lines.words("news-label pairs")
    empty = np.bincount(pairs.line, minlength=len(lines)) == 0
    lines.refuse(name, lines.column(name), empty, "Nothing was in view: drop the line.")
    each = pairs.texts.dictionary_encode()
    label = pc.utf8_slice_codeunits(each.dictionary, -2)
    unlabelled = ~_flags(pc.is_in(label, pa.array(["-0", "-1"], label.type)).take(each.indices))
    lines.refuse(
        name, pairs, unlabelled,
        "Pairs are as N1-0 N2-1; a test split, whose news have no label, cannot be learned from or evaluated on: "
        "convert a part with labels.",
    )  # fmt: skip
    article = lines.numbers(name, _NEWS, _Words(pc.utf8_slice_codeunits(pairs.texts, 0, -2), pairs.line))
    clicked = _flags(pc.equal(label, "-1").take(each.indices))
    ids = {"user_id": pa.array(user, pa.uint32())}
    known = {
        "impression_id": pa.array(number, pa.uint32()),
        "impression_time": pa.array(time, pa.timestamp("us")),
        "article_ids_inview": _lists(*_once(pairs.line, article), len(lines)),
        "article_ids_clicked": _lists(*_once(pairs.line[clicked], article[clicked]), len(lines)),
    }
    return _table(schema.BEHAVIORS, ids | known), _table(schema.HISTORY, ids | {"article_id_fixed": read})


def _read_news(path: Path) -> pd.DataFrame:
    """Return the articles of a news.tsv: ``article_id`` and the columns of ``NEWS`` that are kept, null where empty."""
    tables = []
    for lines in _read_lines(path, NEWS):
        texts = {name: lines.columns[name] for name in NEWS[1:6]}
        known = {name: pc.if_else(pc.equal(own, ""), None, own) for name, own in texts.items()}
        tables.append(pa.table({"article_id": lines.numbers("id", _NEWS), **known}))
    found = pa.concat_tables(tables).to_pandas()
    _refuse_repeat(path, "id", found["article_id"].to_numpy())
    return found


def _write_articles(news: pd.DataFrame, seen: np.ndarray, path: Path) -> np.ndarray:
    """Write what is known of all articles in news or seen elsewhere; return their ids, ascending."""
    known = news.set_index("article_id")
    known = known.reindex(distinct(np.concatenate([known.index.to_numpy(np.int32), seen])))
    codes = {name: pd.Categorical(known[name]).codes.astype(np.int16) + 1 for name in ("category", "subcategory")}
    named = codes["subcategory"] > 0

    def listed(values: object, kind: pa.DataType) -> pa.Array:
        offsets = pa.array(np.concatenate(([0], np.cumsum(named))))
        return pa.LargeListArray.from_arrays(offsets, pa.array(values, kind), mask=pa.array(~named))

    texts = {"title": "title", "subtitle": "abstract", "url": "url", "category_str": "category"}
    columns = {
        "article_id": pa.array(known.index, pa.int32()),
        "category": pa.array(codes["category"], pa.int16(), mask=codes["category"] == 0),
        "subcategory": listed(codes["subcategory"][named], pa.int16()),
        "topics": listed(known["subcategory"][named], pa.large_string()),
    } | {name: pa.array(known[own], pa.large_string(), from_pandas=True) for name, own in texts.items()}
    pq.write_table(_table(schema.ARTICLES, columns), path)
    return known.index.to_numpy()


def _write_vectors(source: Path, path: Path) -> None:
    """Copy a parquet of vectors, its ids as numbers; what else is wrong with it is found when it is read."""
    table = open_parquet(source).read()
    if "article_id" in table.column_names and not pa.types.is_integer(table["article_id"].type):
        ids = pc.replace_substring_regex(table["article_id"].cast(pa.string()), f"^{_NEWS}", "")
        try:
            table = table.set_column(table.column_names.index("article_id"), "article_id", ids.cast(pa.int32()))
        except pa.ArrowInvalid as error:
            raise BundleError(f"{source}: article_id: {first_line(error)}. Ids are as N123: fix them.") from error
    pq.write_table(table, path)


def _read_lines(path: Path, names: tuple[str, ...]) -> Iterator[_Lines]:
    """Yield the lines of a tab-separated file, some at a time; quotes are plain characters.

    Raises:
        BundleError: there is no such file or no line in it, or a line is not UTF-8 or has another number of columns.
    """
    refuse(not path.is_file(), f"{path}: no such file. Unpack MIND there: behaviors.tsv and news.tsv in each folder.")
    before = 0
    with path.open("rb") as stream:
        while lines := stream.readlines(_BLOCK):
            try:
                texts = pa.array(lines, pa.large_binary()).cast(pa.large_string())
            except pa.ArrowInvalid:
                wrong = [line.decode(errors="replace").encode() != line for line in lines].index(True)
                raise BundleError(f"{path}: line {before + wrong + 1}: not UTF-8. Save the file as UTF-8.") from None
            fields = pc.split_pattern(pc.utf8_rtrim(texts, "\r\n"), "\t")
            found = list_lengths(fields)
            if (odd := found != len(names)).any():
                raise BundleError(
                    f"{path}: line {before + odd.argmax() + 1}: {found[odd.argmax()]} columns instead of {len(names)} "
                    f"({', '.join(names)}). Separate them by tabs, or drop the line."
                )
            columns = {name: pc.utf8_trim_whitespace(pc.list_element(fields, at)) for at, name in enumerate(names)}
            yield _Lines(path, before, columns)
            before += len(lines)
    refuse(not before, f"{path}: 0 lines. Check that the file is complete.")


def _refuse_repeat(path: Path, name: str, ids: np.ndarray) -> None:
    """Raise ``BundleError`` where a line repeats the id of one before it."""
    if (repeats := pd.Series(ids).duplicated().to_numpy()).any():
        line = int(repeats.argmax())
        raise BundleError(f"{path}: line {line + 1}: {name} {ids[line]} stands there again. Drop one of the lines.")


def _once(line: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids of each line without repeats, in order."""
    pairs = line << 32 | ids
    if len(distinct(pairs)) < len(pairs):
        first = np.sort(np.unique(pairs, return_index=True)[1])
        return line[first], ids[first]
    return line, ids


def _lists(line: np.ndarray, ids: np.ndarray, lines: int) -> pa.Array:
    """Return the ids of each line as a list column."""
    offsets = np.concatenate(([0], np.cumsum(np.bincount(line, minlength=lines))))
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(ids, pa.int32()))


def _flags(booleans: pa.Array) -> np.ndarray:
    return booleans.to_numpy(zero_copy_only=False)


def _table(kinds: dict[str, pa.DataType], known: dict[str, pa.Array]) -> pa.Table:
    """Return a table in a schema, null where nothing is known."""
    rows = len(next(iter(known.values())))
    return pa.table([known.get(name, pa.nulls(rows, kind)) for name, kind in kinds.items()], schema.arrow_schema(kinds))
