"""The file of a submission, and its check: a zip with ``predictions.txt``, one line a row of the test file, in order.

A line is ``<impression_id> [r1,r2,…]`` where ``ri`` is the rank (1 is best) of the i-th article of the row's
``article_ids_inview``: the ranks are a permutation of 1 to the length of the slate.
"""

import itertools
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from ebnerd_lib.data.bundle import batches
from ebnerd_lib.data.layout import TEST, check_files
from ebnerd_lib.data.schema import TEST_BEHAVIORS, list_lengths
from ebnerd_lib.errors import SubmissionError

MEMBER = "predictions.txt"
_ROWS = 1 << 16  # rows written or read at a time
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes on every day
_LINE = r"^(?P<id>[0-9]{1,11}) \[(?P<ranks>[0-9]{1,10}(?:,[0-9]{1,10})*)\]$"


def step_bar(step: str) -> tqdm:
    """Return a bar of a step: how far it is, and the time left. A log gets a line every five seconds."""
    return tqdm(total=1.0, desc=step, mininterval=5, bar_format="{desc}: {percentage:.0f} %, {remaining} left")


def ranks_of(scores: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the rank of each score within its slate: int32 (m,), 1 is the highest, ties in the order of the slate.

    >>> ranks_of(np.array([.1, .9, .5, 2., 2.]), np.array([0, 3, 5]))
    array([3, 1, 2, 1, 2], dtype=int32)
    """
    lengths = np.diff(offsets)
    slate = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((-scores, slate))
    ranks = np.empty(len(scores), np.int32)
    ranks[order] = np.arange(1, len(scores) + 1) - np.repeat(offsets[:-1], lengths)
    return ranks


def write_predictions(
    path: Path, impression_id: np.ndarray, offsets: np.ndarray, ranks: np.ndarray, progress: Callable[[float], None]
) -> None:
    """Write a submission under a temporary name and give it its own when it is whole; the same ranks, the same bytes.

    ``impression_id`` (n,), in the order of the test file, has its ranks in those of all (m,) between two ``offsets``.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    member = zipfile.ZipInfo(MEMBER, _EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    try:
        with zipfile.ZipFile(temporary, "w") as archive, archive.open(member, "w", force_zip64=True) as stream:
            for start in range(0, len(impression_id), _ROWS):
                stop = min(start + _ROWS, len(impression_id))
                stream.write(_text(impression_id[start:stop], offsets[start : stop + 1], ranks))
                progress(stop / len(impression_id))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_submission(file: Path, test: Path) -> int:
    """Check every line of a submission, whoever wrote it: its id, and that its ranks are a permutation for its row.

    Returns the number of lines, all of them right.

    Raises:
        BundleError: the test set is incomplete or malformed.
        SubmissionError: the file is no zip, holds something else, has too few or too many lines, or lines are wrong:
            how many of each kind, and which is the first.
    """
    check_files(test, (TEST,))
    asked = [np.zeros((2, 0), np.int64)]
    names = ("impression_id", "article_ids_inview")
    for rows in batches(test / TEST / "behaviors.parquet", TEST_BEHAVIORS, names):
        asked.append(np.stack([rows["impression_id"].to_numpy(), list_lengths(rows["article_ids_inview"])]))
    (ids, lengths), lines = np.concatenate(asked, axis=1), 0
    wrong: dict[str, list[int]] = {}
    with step_bar(f"checking {file.name}") as bar:
        for some in _lines(file):
            rows = slice(lines, lines + len(some))
            for fault, places in _faults(some[: len(ids[rows])], ids[rows], lengths[rows]):
                if len(places):
                    wrong.setdefault(fault, []).extend((lines + 1 + places).tolist())
            lines += len(some)
            bar.update(min(1.0, lines / max(len(ids), 1)) - bar.n)
    faults = []
    for text, numbers in wrong.items():
        more = f", the first of {len(numbers)} such," if len(numbers) > 1 else ""
        faults.append(f"line {numbers[0]}{more} {text}")
    if lines != len(ids):
        faults.append(f"{lines} lines for {len(ids)} rows of {TEST}/behaviors.parquet")
    if faults:
        raise SubmissionError(
            f"{file}: {MEMBER}: {'; '.join(faults)}. Write one line a row of the test file, in its order."
        )
    return lines


def _lines(path: Path) -> Iterator[list[bytes]]:
    """Yield the lines of a submission, without what ends them, some at a time.

    Raises:
        SubmissionError: the file is no zip, does not hold ``predictions.txt`` alone, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if names != [MEMBER]:
                raise SubmissionError(f"{path}: holds {', '.join(names) or 'nothing'}; it must hold {MEMBER} alone.")
            with archive.open(MEMBER) as stream:
                while some := list(itertools.islice(stream, _ROWS)):
                    yield [line.removesuffix(b"\n") for line in some]
    except FileNotFoundError:
        raise SubmissionError(f"{path}: no such file. Write one with `python -m ebnerd_lib submit`.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise SubmissionError(f"{path}: not a readable zip file ({error}). Write it again.") from error


def _text(ids: np.ndarray, offsets: np.ndarray, ranks: np.ndarray) -> bytes:
    """Return the lines of some rows, whose slates begin at ``offsets`` of all ``ranks``."""
    numbers = pa.array(ranks[offsets[0] : offsets[-1]]).cast(pa.string())
    lists = pa.ListArray.from_arrays(pa.array(offsets - offsets[0], pa.int32()), numbers)
    closed = pc.binary_join_element_wise(pc.binary_join(lists, ","), "]\n", "")
    lines = pc.binary_join_element_wise(pa.array(ids).cast(pa.string()), closed, " [")
    return "".join(lines.to_pylist()).encode()


def _faults(lines: list[bytes], impression_id: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what is wrong with lines for rows of the test file, and which lines; of each line its first fault."""
    found = pc.extract_regex(pa.array(lines, pa.binary()), _LINE)
    formed = np.flatnonzero(found.is_valid())
    form = "is not of the form `<impression_id> [r1,r2,…]`, without spaces inside the brackets"
    yield form, np.flatnonzero(found.is_null())
    given, lists = found.drop_null().flatten()
    same = given.cast(pa.string()).cast(pa.int64()).to_numpy() == impression_id[formed]
    yield "has another impression_id than its row of the test file", formed[~same]
    ranks = pc.split_pattern(lists.cast(pa.string()), ",")
    counts = pc.list_value_length(ranks).to_numpy()
    fits = counts == lengths[formed]
    yield "has not as many ranks as its row of the test file has candidates", formed[same & ~fits]
    values = pc.list_flatten(ranks).cast(pa.int64()).to_numpy()
    line = np.repeat(np.arange(len(formed)), counts)
    wanted = np.arange(1, len(values) + 1) - np.repeat(np.cumsum(counts) - counts, counts)
    odd = np.zeros(len(formed), bool)
    odd[line[values[np.lexsort((values, line))] != wanted]] = True
    yield "has ranks that are no permutation of 1 to the number of candidates", formed[same & fits & odd]
