"""`make verify`: what repeats is told to, and a planted difference is found where it is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from share import ALL, record

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.pipeline.difference import first_difference
from ebnerd_lib.pipeline.layout import ROOT
from ebnerd_lib.pipeline.verify import verify


@pytest.fixture
def project(smoke_bundle, tmp_path) -> Path:
    """The project's code with a generated bundle, where nothing has run."""
    for name in ("ebnerd_lib", "notebooks", "params", "templates"):
        shutil.copytree(ROOT / name, tmp_path / "p" / name)
    shutil.copytree(smoke_bundle, tmp_path / "p" / "data" / "smoke")
    return tmp_path / "p"


def run_verify(project: Path, *more: str) -> tuple[subprocess.CompletedProcess[str], dict]:
    words = [sys.executable, "-m", "ebnerd_lib", "verify", "--profile", "smoke", *more]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, env=environment)
    file = project / "outputs" / "verify" / "smoke.json"
    assert file.exists(), done.stderr + done.stdout
    assert [path.name for path in file.parent.iterdir()] == [file.name], "the folders of the runs are removed"
    return done, json.loads(file.read_text())


def test_a_run_that_was_killed_goes_on_to_the_same_bytes_but_where_a_difference_is_planted(project):
    for file in (project / "params" / "smoke").glob("*.yaml"):
        if file.stem != "01_preprocess":
            file.unlink()
    notebook = project / "notebooks" / "01_preprocess.ipynb"
    planted = '\\"planted\\": __import__(\\"time\\").time_ns(),\\n",\n    "        \\"counts\\": counts'
    text = notebook.read_text(encoding="utf-8")
    assert text.count('\\"counts\\": counts') == 1
    notebook.write_text(text.replace('\\"counts\\": counts', planted), encoding="utf-8")
    done, result = run_verify(project, "--runs", "killed")
    assert done.returncode == 1, done.stdout + done.stderr
    first, killed = result["runs"]
    (file,) = killed["differs"]
    assert file == "outputs/smoke/artifacts/01_preprocess/metrics.json"
    assert killed["differs"][file].startswith("key planted: ") and f"killed: {file}: key planted: " in done.stdout
    assert killed["kept"] == 0 and first["kept"] is None and not result["equal"]
    assert first["files"] == killed["files"] >= 18 and result["bytes_compared"] == killed["bytes"] > 1_000_000


@pytest.mark.skipif(not ALL, reason="five runs of a profile: in make test-faults")
def test_smoke_repeats_from_scratch_on_one_and_two_threads_and_after_a_kill(project):
    done, result = run_verify(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [run["run"] for run in result["runs"]] == ["first", "again", "1 thread", "2 threads", "killed"]
    assert all(run["files"] == result["runs"][0]["files"] >= 40 for run in result["runs"])
    assert 0 < result["runs"][-1]["kept"] < 6
    first, *others = result["runs"]
    figures = {
        "profile": "smoke",
        "runs_compared_with_the_first": [run["run"] for run in others],
        "stages_complete_when_killed": others[-1]["kept"],
        "files_a_run": first["files"],
        "files_compared": result["files_compared"],
        "bytes_compared": result["bytes_compared"],
        "files_that_differ": sum(len(run["differs"]) for run in others),
        "seconds_by_run": {run["run"]: run["seconds"] for run in result["runs"]},
    }
    record("verify", figures)


def test_an_unknown_run_is_refused():
    with pytest.raises(ConfigError, match=r"there is no run 'twice'\. Use some of again, 1 thread, 2 threads, killed"):
        verify("smoke", ["twice"])


# --- where files differ ------------------------------------------------------------------------------------


@pytest.fixture
def both(tmp_path):
    def write(name, function, one, other):
        paths = [tmp_path / side / name for side in ("ours", "theirs")]
        for path, content in zip(paths, (one, other), strict=True):
            path.parent.mkdir(exist_ok=True)
            function(path, content)
        return first_difference(*paths)

    return write


@pytest.mark.parametrize(
    "one, other, place",
    [
        ({"a": 1, "b": [1, {"c": 0.1}]}, {"a": 1, "b": [1, {"c": 0.2}]}, "key b.1.c: 0.1 and 0.2"),
        ({"a": 1}, {"a": 1, "b": 2}, "key b: only in one of them"),
        ({"a": [1]}, {"a": [1, 2]}, "key a: [1] and [1, 2]"),
        ({"a": 1}, {"a": 1.0}, "key a: 1 and 1.0"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "byte 2"),
        ({"a": 1}, {"a": 1}, None),
    ],
)
def test_json_differs_by_key(both, one, other, place):
    assert both("m.json", lambda path, content: path.write_text(json.dumps(content)), one, other) == place


@pytest.mark.parametrize(
    "change, place",
    [
        ({"score": [1.0, float("nan"), 3.5]}, "column score, row 2: 3.0 and 3.5"),
        ({"ids": [[1], [2, 4], []]}, "column ids, row 1: [2, 3] and [2, 4]"),
        ({"ids": [[1], [2, 3]], "score": [1.0, 2.0]}, "3 and 2 rows"),
        ({"more": [1, 2, 3]}, "the columns or their types"),
        ({}, None),
    ],
)
def test_parquet_differs_by_column_and_row(both, change, place):
    table = {"ids": [[1], [2, 3], []], "score": [1.0, float("nan"), 3.0]}
    write = lambda path, content: pq.write_table(pa.table(content), path)  # noqa: E731
    assert both("t.parquet", write, table, {**table, **change}) == place


def test_parquet_that_is_written_otherwise_differs_by_byte(both, tmp_path):
    table = pa.table({"score": [float("nan"), 1.0] * 100})
    found = both("t.parquet", lambda path, codec: pq.write_table(table, path, compression=codec), "snappy", "zstd")
    assert found.startswith("byte ")


def test_arrays_differ_by_index_and_features_by_name(both, tmp_path):
    ours = np.arange(12, dtype=np.float32).reshape(4, 3)
    ours[0, 0] = np.nan
    theirs = ours.copy()
    theirs[2, 1] += 1
    names = [{"name": name} for name in ("age_hours", "clicks_6h", "position")]
    for side in ("ours", "theirs"):
        (tmp_path / side).mkdir()
        (tmp_path / side / "features.json").write_text(json.dumps(names))
    assert both("features_train.npy", np.save, ours, theirs) == "row 2, column clicks_6h: 7.0 and 8.0"
    assert both("vectors.npy", np.save, ours, theirs) == "row 2, column 1: 7.0 and 8.0"
    assert both("vectors.npy", np.save, ours, ours[:3]) == "float32 (4, 3) and float32 (3, 3)"
    assert both("vectors.npy", np.save, ours, ours.copy()) is None


def test_other_and_broken_files_differ_by_byte(both):
    assert both("model.pt", Path.write_bytes, b"a" * 2_000_000 + b"b", b"a" * 2_000_000 + b"c") == "byte 2,000,000"
    assert both("model.pt", Path.write_bytes, b"ab", b"abc") == "byte 2"
    assert both("m.json", Path.write_text, "{", "[") == "byte 0"
    assert both("t.parquet", Path.write_bytes, b"PAR1", b"PAR2") == "byte 3"
