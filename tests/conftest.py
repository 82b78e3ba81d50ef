"""Shared data: a generated smoke bundle, and a tiny bundle whose every figure can be counted by hand."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from playwright.sync_api import Browser, sync_playwright
from runs import command, copy_of

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.schema import ARTICLES, BEHAVIORS, HISTORY, table_of
from ebnerd_lib.features.build import Features, read_features, write_features
from ebnerd_lib.pipeline.paths import ROOT
from ebnerd_lib.sample import generate

for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)  # the make that runs the tests is none of those that tests run
Change = Callable[[pa.Table], pa.Table]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")  # names under which systems have Chromium
FAR_USER = 4_000_000_000  # beyond int32: user ids are unsigned
CANARY = "canary-5b1f7c2e90d34"  # what the environment of the finished run holds and no output of it may
LOST_ARTICLE = 1099  # in slates and histories, not in the articles table

# id, page, day and time of May 2023, device, slate, clicks, user, subscriber, session; in no order of time
TRAIN = [
    (102, 1002, "18T09:30", 2, [1001, 1003], [1003], 7, False, 1),
    (101, None, "18T08:00", 1, [1001, 1002, 1003], [1002], 7, False, 1),
    (103, None, "20T12:00", 2, [1003, 1004, 1005, 1001], [1001, 1004], 8, True, 2),
    (105, None, "24T07:00", 2, [1005, 1006], [1006], 8, True, 4),
    (104, None, "24T06:59", 3, [1004, 1005], [1005], 9, False, 3),
    (106, 1006, "25T06:50", 2, [1004, 1006, 1007], [], 7, False, 5),
]
VALIDATION = [
    (201, None, "25T07:00", 1, [1006, 1007], [1007], 7, False, 1),
    (204, None, "31T20:00", 2, [1010, 1011], [1010], 8, True, 4),
    (202, None, "26T10:00", 2, [1007, 1008, LOST_ARTICLE], [LOST_ARTICLE], FAR_USER, True, 2),
    (203, 1008, "28T23:15", 0, [1002, 1008, 1009, 1010], [1009], 9, False, 3),
]
# user, articles and days clicked
TRAIN_HISTORY = [
    (7, [1001, 1002, 1001], ["10T08:00", "12T09:00", "01T10:00"]),
    (8, [1003], ["11T08:00"]),
    (9, [], []),
]
VALIDATION_HISTORY = [
    (FAR_USER, [1012], ["09T07:00"]),
    (9, [1005, 1004], ["24T06:59", "20T10:00"]),
    (7, [1002, 1003, LOST_ARTICLE], ["18T08:00", "18T09:30", "19T12:00"]),
]
# id, published, premium, category, sentiment
TABLE = [
    (1012, "01T00:00", True, 142, "Positive", 0.9),
    (1001, "18T07:00", False, 118, "Negative", 0.8),
    (1002, "18T06:00", True, 142, "Neutral", 0.6),
    (1003, "18T09:00", False, 118, "Positive", 0.9),
    (1004, "20T11:30", False, 457, None, None),
    (1005, "20T00:00", None, None, "Positive", None),
    (1006, "24T05:00", False, 118, "Neutral", 0.5),
    (1007, "25T06:00", True, 142, "Negative", 1.0),
    (1008, None, False, 457, None, 0.7),
    (1009, "28T23:00", False, 118, "Positive", 0.4),
    (1010, "28T23:30", False, 457, "Neutral", 0.7),
    (1011, "31T12:00", True, 142, "Negative", 0.6),
]


def micros(day: str) -> int:
    """A day and time of May 2023 in microseconds since 1970."""
    return pa.scalar(f"2023-05-{day}").cast(pa.timestamp("us")).value


def behaviors(rows: list[tuple]) -> pa.Table:
    ids, pages, days, devices, slates, clicks, users, subscribers, sessions = zip(*rows, strict=True)
    known = {
        "impression_id": ids, "article_id": pages, "impression_time": [micros(day) for day in days],
        "read_time": [1.5] * len(rows), "device_type": devices, "article_ids_inview": slates,
        "article_ids_clicked": clicks, "user_id": users, "is_sso_user": [False] * len(rows),
        "is_subscriber": subscribers, "session_id": sessions,
    }  # fmt: skip
    return table_of(known, BEHAVIORS)


def history(rows: list[tuple]) -> pa.Table:
    users, articles, days = zip(*rows, strict=True)
    known = {
        "user_id": users,
        "article_id_fixed": articles,
        "impression_time_fixed": [[micros(day) for day in own] for own in days],
        "scroll_percentage_fixed": [[None] * len(own) for own in articles],
        "read_time_fixed": [[2.0] * len(own) for own in articles],
    }
    return table_of(known, HISTORY)


def articles(rows: list[tuple]) -> pa.Table:
    ids, published, premium, category, label, score = zip(*rows, strict=True)
    known = {
        "article_id": ids,
        "title": [f"Title {number}" for number in ids],
        "published_time": [day and micros(day) for day in published],
        "premium": premium,
        "category": category,
        "category_str": [number and f"category {number}" for number in category],
        "sentiment_score": score,
        "sentiment_label": label,
        "topics": [["Sport", "Livsstil"]] * len(rows),
    }
    return table_of(known, ARTICLES)


def write_tiny(folder: Path, row_group_size: int | None = None, **changes: Change | None) -> Path:
    """Write the tiny bundle; ``train_history=f`` writes ``f(table)`` instead, ``train_history=None`` no such file."""
    tables = {
        "articles": articles(TABLE),
        "train_behaviors": behaviors(TRAIN),
        "train_history": history(TRAIN_HISTORY),
        "validation_behaviors": behaviors(VALIDATION),
        "validation_history": history(VALIDATION_HISTORY),
    }
    assert set(changes) <= set(tables), f"no such table among {set(changes)}"
    for name, table in tables.items():
        change = changes.get(name, lambda same: same)
        if change is not None:
            file = folder / f"{name.replace('_', '/')}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(change(table), file, row_group_size=row_group_size)
    return folder


@pytest.fixture
def tiny_bundle(tmp_path) -> Callable[..., Path]:
    """Write a tiny bundle into the test's folder, varied by the test: see ``write_tiny``."""
    return partial(write_tiny, tmp_path / "bundle")


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory) -> Path:
    """The tiny bundle as it is, for reading only."""
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_path) -> datasets.Dataset:
    return datasets.prepare(open_bundle(tiny_path), "official")[0]


@pytest.fixture(scope="session")
def smoke_bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "smoke"
    generate(folder, seed=0, size="smoke")
    return folder


@pytest.fixture(scope="session")
def smoke(smoke_bundle) -> datasets.Dataset:
    return datasets.prepare(open_bundle(smoke_bundle), "official")[0]


@pytest.fixture(scope="session")
def smoke_features(smoke, tmp_path_factory) -> Path:
    """A folder with the dataset and its features, as stage 01 leaves it."""
    folder = tmp_path_factory.mktemp("preprocessed")
    datasets.save(smoke, folder)
    write_features(smoke, folder)
    return folder


@pytest.fixture(scope="session")
def features(smoke, smoke_features) -> dict[str, Features]:
    """The stored features of the smoke bundle, by part."""
    return {part: read_features(smoke_features, part) for part in smoke.parts}


@pytest.fixture(scope="session")
def finished(tmp_path_factory, smoke_bundle) -> Path:
    """A copy of the project in which the profile smoke has run, for reading only; test processes share it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    project = folder / "a"
    with FileLock(f"{folder}.lock"):
        if (folder / "done").exists():
            return project
        copy_of(ROOT, project)
        shutil.copytree(smoke_bundle, project / "data" / "smoke")
        leaks = dict.fromkeys(("API_TOKEN", "LOGNAME", "USER"), CANARY)
        leaks |= {"RANK": "1", "LOCAL_RANK": "1", "PYTHONSTARTUP": "/nowhere", "PYTHONWARNINGS": "error"}
        leaks |= {"PYTHONSAFEPATH": "1", "PL_TRAINER_LIMIT_TRAIN_BATCHES": "1", "OMP_NUM_THREADS": "2,1"}
        done = command(project, "run", "--profile", "smoke", **leaks)  # none changes a result
        assert done.returncode == 0 and "Exception ignored" not in done.stderr, done.stderr + done.stdout
        (folder / "done").touch()
    return project


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium of the system; tests that need one are skipped where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()
