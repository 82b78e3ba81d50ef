"""The file of a submission, and its check: a zip with ``predictions.txt``, one line a row of the test file, in order.

A line is ``<impression_id> [r1,r2,…]`` where ``ri`` is the rank (1 is best) of the i-th article of the row's
``article_ids_inview``: the ranks are a permutation of 1 to the length of the slate.
"""

# The kernels are typed by numba at their first call; annotations would promise what nothing checks.
# mypy: disable-error-code="no-untyped-def"

import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numba import njit

from ebnerd_lib.data.bundle import batches, list_lengths
from ebnerd_lib.data.layout import TEST, check_files
from ebnerd_lib.data.schema import TEST_BEHAVIORS
from ebnerd_lib.errors import SubmissionError

MEMBER = "predictions.txt"
_ROWS = 1 << 16  # rows written or read at a time
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same bytes on every day
_NEWLINE, _SPACE, _OPEN, _CLOSE, _COMMA, _ZERO = (ord(sign) for sign in "\n [],0")
WRONG = {
    1: "is not of the form `<impression_id> [r1,r2,…]`, without spaces inside the brackets",
    2: "has another impression_id than its row of the test file",
    3: "has not as many ranks as its row of the test file has candidates",
    4: "has ranks that are no permutation of 1 to the number of candidates",
}
"""What may be wrong with a line, by code; 0 is a right one."""


class Progress:
    """Tells how far each step is, at most every five seconds, with the time that the step has left."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._step = say, ""
        self._start = self._told = 0.0

    def step(self, name: str, share: float) -> None:
        """Take note of the share of a step that is done."""
        now = time.monotonic()
        if name != self._step:
            self._step, self._start, self._told = name, now, now
        if now - self._told >= 5 and 0 < share < 1:
            self._told = now
            left = (now - self._start) / share * (1 - share)
            self._say(f"{name}: {share:.0%}, about {left:.0f} s left")


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

    Args:
        path: the zip file.
        impression_id: uint32 (n,), in the order of the test file.
        offsets: int64 (n + 1,), where slates begin.
        ranks: integers (m,).
        progress: called with the share done.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    member = zipfile.ZipInfo(MEMBER, _EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    try:
        with zipfile.ZipFile(temporary, "w") as archive, archive.open(member, "w", force_zip64=True) as stream:
            for start in range(0, len(impression_id), _ROWS):
                stop = min(start + _ROWS, len(impression_id))
                stream.write(_text(impression_id, offsets, ranks, start, stop).data)
                progress(stop / len(impression_id))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_submission(file: Path, test: Path, progress: Callable[[str, float], None]) -> int:
    """Check every line of a submission, whoever wrote it: its id, and that its ranks are a permutation for its row.

    Args:
        file: the zip file.
        test: the hidden-test bundle.
        progress: told how far it is.

    Returns:
        The number of lines, all of them right.

    Raises:
        BundleError: the test set is incomplete or malformed.
        SubmissionError: the file is no zip, holds something else, has too few or too many lines, or lines are wrong:
            how many of each kind, and which is the first.
    """
    check_files(test, (TEST,))
    id_parts, length_parts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    names = ("impression_id", "article_ids_inview")
    for rows in batches(test / TEST / "behaviors.parquet", TEST_BEHAVIORS, names):
        id_parts.append(rows["impression_id"].to_numpy().astype(np.int64))
        length_parts.append(list_lengths(rows["article_ids_inview"]))
    ids, lengths = np.concatenate(id_parts), np.concatenate(length_parts)
    seen = np.zeros(int(lengths.max(initial=0)) + 1, np.int64)
    verdict = np.zeros(len(ids), np.uint8)
    lines = 0
    for block in _blocks(file):
        lines = _check_block(np.frombuffer(block, np.uint8), ids, lengths, lines, seen, verdict)
        progress(f"checking {file.name}", min(1.0, lines / max(len(ids), 1)))
    faults = []
    for code, text in WRONG.items():
        found = np.flatnonzero(verdict == code)
        if len(found):
            more = f", the first of {len(found)} such," if len(found) > 1 else ""
            faults.append(f"line {found[0] + 1}{more} {text}")
    if lines != len(ids):
        faults.append(f"{lines} lines for {len(ids)} rows of {TEST}/behaviors.parquet")
    if faults:
        raise SubmissionError(
            f"{file}: {MEMBER}: {'; '.join(faults)}. Write one line a row of the test file, in its order."
        )
    return lines


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield the text of a submission in blocks of whole lines, a newline at the end of each.

    Raises:
        SubmissionError: the file is no zip, does not hold ``predictions.txt`` alone, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if names != [MEMBER]:
                raise SubmissionError(f"{path}: holds {', '.join(names) or 'nothing'}; it must hold {MEMBER} alone.")
            with archive.open(MEMBER) as stream:
                rest = b""
                while block := stream.read(1 << 24):
                    whole, newline, rest = (rest + block).rpartition(b"\n")
                    if newline:
                        yield whole + newline
                if rest:
                    yield rest + b"\n"
    except FileNotFoundError:
        raise SubmissionError(f"{path}: no such file. Write one with `python -m ebnerd_lib submit`.") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise SubmissionError(f"{path}: not a readable zip file ({error}). Write it again.") from error


@njit(cache=True, nogil=True)
def _digits(out, at, number):
    """Write a number at a place and return the place after it."""
    end = at
    rest = number
    while True:
        end += 1
        rest //= 10
        if rest == 0:
            break
    for place in range(end - 1, at - 1, -1):
        out[place] = _ZERO + number % 10
        number //= 10
    return end


@njit(cache=True, nogil=True)
def _write(out, ids, offsets, ranks):
    at = 0
    for row in range(len(ids)):
        at = _digits(out, at, np.int64(ids[row]))
        out[at] = _SPACE
        at += 1
        for place in range(offsets[row], offsets[row + 1]):
            out[at] = _COMMA if place > offsets[row] else _OPEN
            at = _digits(out, at + 1, np.int64(ranks[place - offsets[0]]))
        out[at] = _CLOSE
        out[at + 1] = _NEWLINE
        at += 2
    return at


def _text(ids: np.ndarray, offsets: np.ndarray, ranks: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Return the lines of some rows as bytes."""
    begin, end = int(offsets[start]), int(offsets[stop])
    out = np.empty((stop - start) * 14 + (end - begin) * 11, np.uint8)
    return out[: _write(out, ids[start:stop], offsets[start : stop + 1], ranks[begin:end])]


@njit(cache=True, nogil=True)
def _check_block(text, ids, lengths, row, seen, verdict):
    # Writes the code of each line to ``verdict``, ``row`` being the number of lines before the block, and returns that
    # after it; lines beyond the rows get no code. ``seen`` has room for the longest slate.
    at = 0
    while at < len(text):
        end = at
        while text[end] != _NEWLINE:
            end += 1
        if row < len(ids):
            verdict[row] = _check_line(text, at, end, ids[row], lengths[row], seen, row + 1)
        row += 1
        at = end + 1
    return row


@njit(cache=True, nogil=True)
def _check_line(text, at, end, wanted, length, seen, mark):
    number = np.int64(0)
    start = at
    while at < end and _ZERO <= text[at] <= _ZERO + 9 and at - start < 11:
        number = number * 10 + (text[at] - _ZERO)
        at += 1
    if at == start or at + 2 >= end or text[at] != _SPACE or text[at + 1] != _OPEN or text[end - 1] != _CLOSE:
        return 1
    given = number
    at += 2
    ranks = 0
    permutation = True
    while True:
        start = at
        number = np.int64(0)
        while at < end and _ZERO <= text[at] <= _ZERO + 9 and at - start < 10:
            number = number * 10 + (text[at] - _ZERO)
            at += 1
        if at == start:
            return 1
        ranks += 1
        if number < 1 or number > length or seen[number] == mark:
            permutation = False
        else:
            seen[number] = mark
        if text[at] == _CLOSE and at == end - 1:
            break
        if text[at] != _COMMA:
            return 1
        at += 1
    if given != wanted:
        return 2
    if ranks != length:
        return 3
    return 0 if permutation else 4
