"""Convert MIND, the Microsoft News Dataset (Wu et al., 2020), into a bundle in EBNeRD's schema.

What MIND lacks is null: times of publication, premium, sentiment, devices, subscribers, sessions, pages, read times,
and the times of the clicks in histories.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ebnerd_lib.data import schema
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.download import writing
from ebnerd_lib.data.layout import SPLITS, VECTORS
from ebnerd_lib.data.schema import flat, list_lengths, refuse, table_of
from ebnerd_lib.data.vocabulary import distinct
from ebnerd_lib.errors import BundleError

BEHAVIORS = ("impression id", "user", "time", "history", "news-label pairs")
NEWS = ("id", "category", "subcategory", "title", "abstract", "url", "title entities", "abstract entities")
"""Columns of behaviors.tsv, whose pairs are as ``N1-0 N2-1`` with 1 for a click, and of news.tsv."""
_PAIRS = BEHAVIORS[-1]
_TIME = "%m/%d/%Y %I:%M:%S %p"
_BLOCK = 1 << 24  # bytes of lines that are read at a time
Words = tuple[pa.Array, np.ndarray]
"""Texts, and the line of a block that each stands in, from 0: int64 (n,), ascending."""


class _Lines(NamedTuple):
    """A block of lines of a file."""

    path: Path
    before: int  # lines of the file before these
    columns: dict[str, pa.Array]  # by name, without spaces around the values
    size: int  # lines

    def column(self, name: str) -> Words:
        """Return the values of a column."""
        return self.columns[name], np.arange(self.size)

    def words(self, name: str) -> Words:
        """Return what stands between spaces in a column."""
        lists = pc.split_pattern(self.columns[name], " ")
        texts, line = flat(lists), np.repeat(np.arange(self.size), list_lengths(lists))
        some = pc.not_equal(texts, "")
        return texts.filter(some), line[np.asarray(some)]

    def refuse(self, name: str, words: Words, wrong: np.ndarray, remedy: str) -> None:
        """Raise ``BundleError`` for the first of some words of a column that is wrong, bool (n,)."""
        if wrong.any():
            at = int(wrong.argmax())
            place = f"{self.path}: line {self.before + words[1][at] + 1}: {name} {words[0][at].as_py()[:40]!r}"
            raise BundleError(f"{place}. {remedy}")

    def numbers(self, name: str, letter: str, words: Words | None = None) -> np.ndarray:
        """Return the numbers behind the letter of the ids in a column, or of some words of it: int64 (n,).

        Raises:
            BundleError: a word is no such id.
        """
        words = words or self.column(name)
        ids = words[0].dictionary_encode()  # most stand there many times
        # Without leading zeros, so that each number is one id, and within 31 bits.
        good = pc.match_substring_regex(ids.dictionary, f"^{letter}[1-9][0-9]{{0,8}}$")
        remedy = f"Ids are as {letter}123, numbers from 1 and below a billion: fix it, or drop the line."
        self.refuse(name, words, ~np.asarray(good.take(ids.indices)), remedy)
        return pc.utf8_slice_codeunits(ids.dictionary, len(letter)).cast(pa.int64()).take(ids.indices).to_numpy()


def convert(train: Path, validation: Path, out: Path, vectors: Path | None = None) -> dict[str, int]:
    """Write a bundle of two folders of MIND, each with ``behaviors.tsv`` and ``news.tsv``; see docs/data.md.

    MIND gives each impression a history, EBNeRD each user and week. What is taken is that of the user's first
    impression of the part: it holds no click of the part, so it is in the past of every impression, and what the user
    clicked since is in the log. Lines are read in blocks: memory holds ids and times of impressions, and the news.

    Args:
        train: folder of the first part.
        validation: folder of the part that follows it, with labels.
        out: folder to write, new or empty; it appears whole or not at all.
        vectors: parquet of ``article_id``, the number behind ``N``, and one list of numbers.

    Returns the numbers of impressions of both parts, users and articles.

    Raises:
        BundleError: a file is missing or empty, a line breaks the form, or ``out`` holds something.
    """
    refuse(out.is_file() or any(out.glob("*")), f"{out}: is a file or holds files. Name a new folder, or empty it.")
    with writing(out.parent), TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as holder:
        bundle, folders = Path(holder) / "bundle", dict(zip(SPLITS, (train, validation), strict=True))
        for split in folders:
            (bundle / split).mkdir(parents=True)
        parts = [_write_split(folder / "behaviors.tsv", bundle / split) for split, folder in folders.items()]
        users, seen = (distinct(np.concatenate(ids)) for ids in zip(*(part[1:] for part in parts), strict=True))
        articles = _write_articles([folder / "news.tsv" for folder in folders.values()], seen, bundle)
        for letter, name, ids in (("N", "article", articles), ("U", "user", users)):
            table = pa.table({"mind_id": np.char.add(letter, ids.astype(str)), f"{name}_id": ids})
            pq.write_table(table, bundle / f"mind_{name}s.parquet")
        if vectors is not None:
            shutil.copyfile(vectors, bundle / VECTORS)
        open_bundle(bundle)
        bundle.rename(out)
    return {"impressions": sum(part[0] for part in parts), "users": len(users), "articles": len(articles)}


def _write_split(path: Path, folder: Path) -> tuple[int, np.ndarray, np.ndarray]:
    """Write behaviors and histories of a part; return its number of impressions, and the ids of users and articles."""
    kept, seen = [], []
    every = folder / "every"  # the history of each impression, until it is known which is its user's first
    with (
        pq.ParquetWriter(folder / "behaviors.parquet", schema.arrow_schema(schema.BEHAVIORS)) as behaviors,
        pq.ParquetWriter(every, schema.arrow_schema(schema.HISTORY)) as histories,
    ):
        for lines in _read_lines(path, BEHAVIORS):
            shown, read = _read_behaviors(lines)
            behaviors.write_table(shown)
            histories.write_table(read)
            names = ("impression_id", "user_id", "impression_time")
            kept.append([shown[name].cast(pa.int64()).to_numpy() for name in names])
            seen += [pc.unique(flat(lists)) for lists in (shown["article_ids_inview"], read["article_id_fixed"])]
    ids, users, times = (np.concatenate(own) for own in zip(*kept, strict=True))
    _refuse_repeat(path, "impression id", ids)
    order, first = np.lexsort((times, users)), np.zeros(len(users), bool)
    first[order[np.unique(users[order], return_index=True)[1]]] = True
    with pq.ParquetWriter(folder / "history.parquet", schema.arrow_schema(schema.HISTORY)) as histories:
        for batch in pq.ParquetFile(every).iter_batches():
            histories.write_batch(batch.filter(pa.array(first[: len(batch)])))
            first = first[len(batch) :]
    every.unlink()
    return len(users), distinct(users).astype(np.uint32), distinct(np.concatenate(seen))


def _read_behaviors(lines: _Lines) -> tuple[pa.Table, pa.Table]:
    """Return behaviors and histories of a block, in both of them a row a line."""
    number, user, when = lines.numbers("impression id", ""), lines.numbers("user", "U"), lines.column("time")
    time = pd.to_datetime(when[0].to_pandas(), format=_TIME, errors="coerce")
    lines.refuse("time", when, time.isna().to_numpy(), "Times are as 11/11/2019 9:05:58 AM: fix it, or drop the line.")
    past, pairs = lines.words("history"), lines.words(_PAIRS)
    read = lines.numbers("history", "N", past)
    empty = np.bincount(pairs[1], minlength=lines.size) == 0
    lines.refuse(_PAIRS, lines.column(_PAIRS), empty, "Nothing was in view: drop the line.")
    label = pc.utf8_slice_codeunits(pairs[0], -2)
    clicked = np.asarray(pc.equal(label, "-1"))
    remedy = "Pairs are as N1-0 N2-1. A test split has no labels to evaluate by: convert a part that has."
    lines.refuse(_PAIRS, pairs, ~(clicked | np.asarray(pc.equal(label, "-0"))), remedy)
    shown = lines.numbers(_PAIRS, "N", (pc.utf8_slice_codeunits(pairs[0], 0, -2), pairs[1]))
    ids = {"user_id": pa.array(user, pa.uint32())}
    known = {
        "impression_id": pa.array(number, pa.uint32()),
        "impression_time": pa.array(time, pa.timestamp("us")),
        "article_ids_inview": _lists(pairs[1], shown, lines.size, once=True),
        "article_ids_clicked": _lists(pairs[1][clicked], shown[clicked], lines.size, once=True),
    }
    read_lists = _lists(past[1], read, lines.size)
    return table_of(ids | known, schema.BEHAVIORS), table_of(ids | {"article_id_fixed": read_lists}, schema.HISTORY)


def _write_articles(files: list[Path], seen: np.ndarray, bundle: Path) -> np.ndarray:
    """Write what news.tsv say of all articles in them or seen elsewhere; return their ids, ascending."""
    tables = []
    for path in files:
        blocks = [
            pa.table({"article_id": lines.numbers("id", "N"), **{name: lines.columns[name] for name in NEWS[1:6]}})
            for lines in _read_lines(path, NEWS)
        ]
        tables.append(pa.concat_tables(blocks).to_pandas())
        _refuse_repeat(path, "id", tables[-1]["article_id"].to_numpy())
    news = pd.concat(tables).drop_duplicates("article_id").set_index("article_id").replace("", None)
    news = news.reindex(distinct(np.concatenate([news.index.to_numpy(np.int32), seen])))
    code = {name: pd.Series(pd.Categorical(news[name]).codes + 1, news.index) for name in ("category", "subcategory")}
    named = news["subcategory"].notna()
    columns = {
        "article_id": news.index, "title": news["title"], "subtitle": news["abstract"], "url": news["url"],
        "category": code["category"].where(news["category"].notna()), "category_str": news["category"],
        "subcategory": code["subcategory"].map(lambda one: [one]).where(named, None),
        "topics": news["subcategory"].map(lambda one: [one]).where(named, None),
    }  # fmt: skip
    arrays = {name: pa.array(values, schema.ARTICLES[name], from_pandas=True) for name, values in columns.items()}
    pq.write_table(table_of(arrays, schema.ARTICLES), bundle / "articles.parquet")
    return news.index.to_numpy()


def _read_lines(path: Path, names: tuple[str, ...]) -> Iterator[_Lines]:
    """Yield the lines of a tab-separated file, some at a time; quotes are plain characters.

    Raises:
        BundleError: there is no such file or no line in it, or a line is not UTF-8 or has another number of columns.
    """
    refuse(not path.is_file(), f"{path}: no such file. Unpack MIND there: each folder has behaviors.tsv and news.tsv.")
    before = 0
    with path.open("rb") as stream:
        while lines := stream.readlines(_BLOCK):
            try:
                texts = pa.array(lines, pa.large_binary()).cast(pa.large_string())
            except pa.ArrowInvalid:
                wrong = [line.decode(errors="replace").encode() != line for line in lines].index(True)
                raise BundleError(f"{path}: line {before + wrong + 1}: not UTF-8. Save the file as UTF-8.") from None
            fields = pc.split_pattern(pc.utf8_rtrim(texts, "\r\n"), "\t")
            odd = list_lengths(fields) != len(names)
            remedy = f"There are {len(names)}, with tabs between them: {', '.join(names)}. Fix it, or drop the line."
            _Lines(path, before, {}, len(lines)).refuse("columns", (texts, np.arange(len(lines))), odd, remedy)
            columns = {name: pc.utf8_trim_whitespace(pc.list_element(fields, at)) for at, name in enumerate(names)}
            yield _Lines(path, before, columns, len(lines))
            before += len(lines)
    refuse(not before, f"{path}: 0 lines. Check that the file is complete.")


def _refuse_repeat(path: Path, name: str, ids: np.ndarray) -> None:
    """Raise ``BundleError`` where a line repeats the id of one before it."""
    repeats = pd.Series(ids).duplicated()
    line = int(repeats.argmax())
    refuse(repeats.any(), f"{path}: line {line + 1}: {name} {ids[line]} stands there again. Drop one of the lines.")


def _lists(line: np.ndarray, ids: np.ndarray, lines: int, once: bool = False) -> pa.Array:
    """Return the ids of each line as a list column, repeats in a line left out if each is to stand there ``once``."""
    if once:
        first = ~pd.Series(line << 32 | ids).duplicated().to_numpy()
        line, ids = line[first], ids[first]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(line, minlength=lines))))
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(ids, pa.int32()))
