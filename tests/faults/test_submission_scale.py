"""A submission for a generated test set of size demo: its memory, and its lines read by an independent reader."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ebnerd_lib.sample import SIZES, generate_test

pytestmark = pytest.mark.slow

LINE = re.compile(rb"(\d+) \[([\d,]+)\]\n")
MEMORY_MB = 4_000


def run(project: Path, *words: object) -> float:
    """Run a command; return its peak memory in MB, as the system tells it."""
    child = subprocess.Popen(
        [sys.executable, "-m", "ebnerd_lib", *map(str, words)], cwd=project, stdout=sys.stderr,
        env={**os.environ, "PYTHONPATH": str(project)},
    )  # fmt: skip
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def read(file: Path, behaviors: Path) -> int:
    """Check every line of a submission against the test file row by row; return the number of ranks."""
    ranks = 0
    batches = pq.ParquetFile(behaviors).iter_batches(50_000, columns=["impression_id", "article_ids_inview"])
    with zipfile.ZipFile(file) as archive, archive.open("predictions.txt") as lines:
        for batch in batches:
            lengths = batch["article_ids_inview"].value_lengths().to_pylist()
            for number, length in zip(batch["impression_id"].to_pylist(), lengths, strict=True):
                found = LINE.fullmatch(lines.readline())
                assert found and int(found[1]) == number
                assert sorted(map(int, found[2].split(b","))) == list(range(1, length + 1))
                ranks += length
        assert not lines.read()
    return ranks


def test_a_large_submission_is_right_and_stays_within_memory(finished, tmp_path):
    test_set, file = tmp_path / "testset", tmp_path / "predictions.zip"
    generate_test(test_set, seed=0, size="demo")
    words = ("--profile", "smoke", "--model", "mlp_exposure", "--test", test_set, "--out", file)
    memory = run(finished, "submit", *words)
    assert read(file, test_set / "test" / "behaviors.parquet") > SIZES["demo"].test_impressions
    run(finished, "check-submission", "--file", file, "--test", test_set)
    assert memory <= MEMORY_MB
