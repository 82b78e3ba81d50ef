"""Check a submission against the test set that it ranks, whoever wrote it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ebnerd_lib.data.hidden import read_lengths
from ebnerd_lib.data.layout import TEST, check_hidden_files
from ebnerd_lib.errors import SubmissionError
from ebnerd_lib.pipeline.submission.predictions import MEMBER, WRONG, check_block, read_lines


def check_submission(file: Path, test: Path, progress: Callable[[str, float], None]) -> int:
    """Check every line of a submission: its id, the number of its ranks, and that they are a permutation.

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
    check_hidden_files(test)
    path = test / TEST / "behaviors.parquet"
    ids, lengths = read_lengths(path, lambda share: progress(f"reading {TEST}/behaviors.parquet", share))
    seen = np.zeros(int(lengths.max(initial=0)) + 1, np.int64)
    verdict = np.zeros(len(ids), np.uint8)
    lines = 0
    for block in read_lines(file):
        lines = check_block(np.frombuffer(block, np.uint8), ids, lengths, lines, seen, verdict)
        progress(f"checking {file.name}", min(1.0, lines / len(ids)))
    faults = [_fault(verdict, code, text) for code, text in WRONG.items() if (verdict == code).any()]
    if lines != len(ids):
        faults.append(f"{lines} lines for {len(ids)} rows of {TEST}/behaviors.parquet")
    if faults:
        raise SubmissionError(
            f"{file}: {MEMBER}: {'; '.join(faults)}. Write one line a row of the test file, in its order."
        )
    return lines


def _fault(verdict: np.ndarray, code: int, text: str) -> str:
    found = np.flatnonzero(verdict == code)
    if len(found) == 1:
        return f"line {found[0] + 1} {text}"
    return f"line {found[0] + 1}, the first of {len(found)} such, {text}"
