"""Convert MIND, the Microsoft News Dataset (Wu et al., 2020), into a bundle in EBNeRD's schema.

What MIND lacks is null: times of publication, premium, sentiment, devices, subscribers, sessions, pages, read times,
and the times of the clicks in histories.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

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

_ID = "[1-9][0-9]{0,8}"  # without leading zeros, so that each number is one id, and within 31 bits
BEHAVIORS = (
    rf"^{_ID}\tU{_ID}\t[^\t]+\t(N{_ID}( +N{_ID})*)?\tN{_ID}-[01]( +N{_ID}-[01])*$",
    "1, U2, 11/11/2019 9:05:58 AM, N3 N4, N5-0 N6-1 (impression id, user, time, history, news-label pairs, with "
    "tabs between; a test split has no labels: convert a part that has)",
)
NEWS = (
    rf"^N{_ID}(\t[^\t]*){{7}}$",
    "N1, category, subcategory, title, abstract, url, title entities, abstract entities, with tabs between",
)
"""The lines of behaviors.tsv and of news.tsv, as an expression and in words."""
_TIME = "%m/%d/%Y %I:%M:%S %p"
_BLOCK = 1 << 24  # bytes of lines that are read at a time


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
        for shown, read in _read_behaviors(path):
            behaviors.write_table(shown)
            histories.write_table(read)
            names = ("impression_id", "user_id", "impression_time")
            kept.append([shown[name].cast(pa.int64()).to_numpy() for name in names])
            seen += [pc.unique(flat(lists)) for lists in (shown["article_ids_inview"], read["article_id_fixed"])]
    ids, users, times = (np.concatenate(own) for own in zip(*kept, strict=True))
    _refuse_lines(path, 0, pd.Series(ids).duplicated().to_numpy(), "others, with an impression id of its own")
    order, first = np.lexsort((times, users)), np.zeros(len(users), bool)
    first[order[np.unique(users[order], return_index=True)[1]]] = True
    with pq.ParquetWriter(folder / "history.parquet", schema.arrow_schema(schema.HISTORY)) as histories:
        for batch in pq.ParquetFile(every).iter_batches():
            histories.write_batch(batch.filter(pa.array(first[: len(batch)])))
            first = first[len(batch) :]
    every.unlink()
    return len(users), distinct(users).astype(np.uint32), distinct(np.concatenate(seen))


def _read_behaviors(path: Path) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield behaviors and histories of some lines at a time, in both of them a row a line."""
    for before, (number, user, when, history, pairs) in _read_lines(path, *BEHAVIORS):
        time = pd.to_datetime(when.to_pandas(), format=_TIME, errors="coerce")
        _refuse_lines(path, before, time.isna().to_numpy(), BEHAVIORS[1])
        (read, read_line), (shown, shown_line) = _words(history), _words(pairs)
        ids, clicked = _numbers(shown, 1, -2), np.asarray(pc.ends_with(shown, "-1"))
        users = {"user_id": pa.array(_numbers(user, 1), pa.uint32())}
        known = {
            "impression_id": pa.array(_numbers(number, 0), pa.uint32()),
            "impression_time": pa.array(time, pa.timestamp("us")),
            "article_ids_inview": _lists(shown_line, ids, len(time), once=True),
            "article_ids_clicked": _lists(shown_line[clicked], ids[clicked], len(time), once=True),
        }
        past = {"article_id_fixed": _lists(read_line, _numbers(read, 1), len(time))}
        yield table_of(users | known, schema.BEHAVIORS), table_of(users | past, schema.HISTORY)


def _words(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return what stands between spaces in some texts, and the text that each word stands in: int64 (n,), ascending."""
    lists = pc.split_pattern(texts, " ")
    words, text = flat(lists), np.repeat(np.arange(len(texts)), list_lengths(lists))
    some = pc.not_equal(words, "")
    return words.filter(some), text[np.asarray(some)]


def _numbers(ids: pa.Array, start: int, stop: int | None = None) -> np.ndarray:
    """Return the numbers that stand from a letter to another of some ids: int64 (n,)."""
    each = ids.dictionary_encode()  # most stand there many times
    numbers = pc.utf8_slice_codeunits(each.dictionary, start, stop).cast(pa.int64())
    return numbers.take(each.indices).to_numpy()


def _write_articles(files: list[Path], seen: np.ndarray, bundle: Path) -> np.ndarray:
    """Write what news.tsv say of all articles in them or seen elsewhere; return their ids, ascending."""
    tables = []
    for path in files:
        names = ["article_id", "category", "subcategory", "title", "abstract", "url"]
        blocks = [
            pa.table([pa.array(_numbers(ids, 1)), *map(pc.utf8_trim_whitespace, texts[:5])], names)
            for _, (ids, *texts) in _read_lines(path, *NEWS)
        ]
        tables.append(pa.concat_tables(blocks).to_pandas())
        _refuse_lines(path, 0, tables[-1].duplicated("article_id").to_numpy(), "others, with an id of its own")
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


def _read_lines(path: Path, form: str, in_words: str) -> Iterator[tuple[int, list[pa.Array]]]:
    """Yield how many lines stand before some lines of a file, and their columns; quotes are plain characters.

    Raises:
        BundleError: there is no such file or no line in it, or a line is not UTF-8 or not of the form.
    """
    refuse(not path.is_file(), f"{path}: no such file. Unpack MIND there: each folder has behaviors.tsv and news.tsv.")
    before = 0
    with path.open("rb") as stream:
        while lines := stream.readlines(_BLOCK):
            try:
                texts = pc.utf8_rtrim(pa.array(lines, pa.large_binary()).cast(pa.large_string()), " \r\n")
            except pa.ArrowInvalid:
                odd = np.array([line.decode(errors="replace").encode() != line for line in lines])
                _refuse_lines(path, before, odd, "UTF-8")
            _refuse_lines(path, before, ~np.asarray(pc.match_substring_regex(texts, form)), in_words)
            fields = pc.split_pattern(texts, "\t")
            yield before, [pc.list_element(fields, at) for at in range(len(fields[0]))]
            before += len(lines)
    refuse(not before, f"{path}: 0 lines. Check that the file is complete.")


def _refuse_lines(path: Path, before: int, wrong: np.ndarray, in_words: str) -> None:
    """Raise ``BundleError`` for the first line that is not as it must be, bool (lines,)."""
    line = before + int(wrong.argmax()) + 1
    refuse(wrong.any(), f"{path}: line {line} is not as {in_words}. Fix it, or drop the line.")


def _lists(line: np.ndarray, ids: np.ndarray, lines: int, once: bool = False) -> pa.Array:
    """Return the ids of each line as a list column, repeats in a line left out if each is to stand there ``once``."""
    if once:
        first = ~pd.Series(line << 32 | ids).duplicated().to_numpy()
        line, ids = line[first], ids[first]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(line, minlength=lines))))
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(ids, pa.int32()))
