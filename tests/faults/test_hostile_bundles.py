"""Hostile bundles: each is refused in one message to act on, or read right, as its rows say."""

import contextlib
import io
import math
import os
import random
import re
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from kinds import BEHAVIORS, DAY, HISTORIES, HOUR, WEEKS, read
from oracle import oracle
from test_bundle import put

from ebnerd_lib.data import summary
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import UNKNOWN_TIME, Dataset, prepare
from ebnerd_lib.data.schema import ARTICLES, table_of
from ebnerd_lib.errors import EbnerdError
from ebnerd_lib.features.build import build
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.features.registry import every_column

TABLES = ("articles", *BEHAVIORS, *HISTORIES)
VECTORS = "contrastive_vector"
IDS = [(each, "article_ids_inview") for each in BEHAVIORS] + [(each, "article_ids_clicked") for each in BEHAVIORS]
PAST = [(each, "article_id_fixed") for each in HISTORIES]
TIMES = [
    *((each, "impression_time") for each in BEHAVIORS), *((each, "impression_time_fixed") for each in HISTORIES),
    ("articles", "published_time"), ("articles", "last_modified_time"),
]  # fmt: skip
LABELS = ("Negative", "Neutral", "Positive")


@dataclass
class Case:
    """A bundle about to be written, and what was done to it."""

    tables: dict[str, pa.Table]  # by path without the suffix
    change: Callable[[Path], object] = lambda folder: None  # what is done to the folder once it is written
    hit: tuple[str, ...] = ()  # the files at fault, of which a refusal must name one
    column: str = ""  # the column at fault, which a refusal must name
    valid: bool | None = None  # whether it must be taken, ``None`` where it depends

    def put(self, name: str, column: str, values: list | pa.Array, kind: pa.DataType | None = None) -> None:
        """Write a column anew and note it as the one at fault."""
        self.tables[name] = put(column, values, kind)(self.tables[name])
        self.at(name, column)

    def at(self, name: str, column: str = "", valid: bool | None = None) -> None:
        self.hit, self.column, self.valid = (name,), column, valid

    def values(self, name: str, column: str) -> list:
        return self.tables[name][column].to_pylist()


def filled_row(rng, values: list) -> int:
    """Return the place of a value that is no empty list."""
    return rng.choice([row for row, value in enumerate(values) if value != []])


def damage_file(rng, case):
    """Bytes of a file changed or cut: what still opens is read as pyarrow reads it, or refused."""
    name, flips, data_only = rng.choice(TABLES), rng.choice([1, 3, 30]), rng.random() < 0.5
    how = rng.choice(["no bytes", "noise", "cut", "pages", "text", "no magic", *["flipped"] * 4])

    def change(folder: Path) -> None:
        file = folder / f"{name}.parquet"
        whole = file.read_bytes()
        noise, data = rng.randbytes(len(whole)), len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
        flipped = bytearray(whole)
        for _ in range(flips):
            flipped[rng.randrange(4, data if data_only else len(whole))] = rng.randrange(256)
        content = {
            "no bytes": b"", "noise": noise, "cut": whole[: rng.randrange(len(whole))], "text": b"a,b\n1,2\n",
            "pages": b"PAR1" + noise[4:data] + whole[data:], "no magic": whole[:-4] + b"XXXX", "flipped": flipped,
        }  # fmt: skip
        file.write_bytes(content[how])

    case.change = change
    case.at(name, valid=None if how in ("pages", "flipped") else False)


def wrong_type(rng, case):
    name = rng.choice(TABLES)
    column = rng.choice(case.tables[name].column_names)
    kind = rng.choice([
        pa.string(), pa.float64(), pa.bool_(), pa.date32(), pa.binary(), pa.int64(), pa.uint64(), pa.float16(),
        pa.timestamp("us", tz="UTC"), pa.timestamp("s"), pa.time64("us"), pa.duration("us"), pa.decimal128(20, 2),
        pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.int32()), pa.list_(pa.string()), pa.list_(pa.int64(), 2),
        pa.list_(pa.list_(pa.int32())), pa.struct({"a": pa.int8()}), pa.map_(pa.string(), pa.int32()), pa.null(),
        pa.large_list(pa.timestamp("us", tz="UTC")), pa.large_list(pa.float32()),
    ])  # fmt: skip
    rows = case.tables[name].num_rows
    try:
        new = case.tables[name][column].cast(kind).combine_chunks()
    except (pa.ArrowException, NotImplementedError):
        new = pa.nulls(rows, kind)
    case.put(name, column, pa.array([[1, 2]] * rows, kind) if pa.types.is_fixed_size_list(kind) else new, kind)


def null_values(rng, case):
    name = rng.choice(TABLES)
    column = rng.choice(case.tables[name].column_names)
    old = case.values(name, column)
    inside = pa.types.is_nested(case.tables[name][column].type) and rng.random() < 0.5
    for row in rng.sample(range(len(old)), rng.randint(1, len(old))):
        own = list(old[row] or []) if inside else []
        own.insert(rng.randint(0, len(own)), None)
        old[row] = own if inside else None
    case.put(name, column, old)


def odd_values(rng, case):
    """Values as no real file has them, in some rows or all."""
    column, value, valid = rng.choice([
        ("sentiment_score", math.nan, True), ("sentiment_score", 5e-324, True), ("sentiment_score", -0.0, True),
        ("sentiment_score", 1.5, False), ("sentiment_score", -math.inf, False), ("total_read_time", 1e300, True),
        ("read_time", math.nan, True), ("next_scroll_percentage", -math.inf, True), ("is_subscriber", True, True),
        ("sentiment_label", "positive", True), ("sentiment_label", "", True), ("premium", None, True),
        ("title", "<script>\x00", True), ("title", "é" * 100_000, True), ("title", None, True),
        ("url", "javascript:alert(1)", True), ("category_str", "a\nb", True), ("topics", None, True),
        ("topics", ["Sport", "", None, "sport"], True), ("category", None, True), ("category", -32_768, True),
        ("session_id", 0, True), ("session_id", 2**32 - 1, True), ("device_type", 4, False), ("device_type", -1, False),
    ])  # fmt: skip
    name = "articles" if column in case.tables["articles"].column_names else rng.choice(BEHAVIORS)
    old = case.values(name, column)
    for row in rng.sample(range(len(old)), rng.randint(1, len(old))):
        old[row] = rng.sample(value, rng.randint(0, len(value))) if isinstance(value, list) else value
    case.put(name, column, old, pa.float64() if isinstance(value, float) else None)
    case.valid = valid


def far_dates(rng, case):
    name, column = rng.choice(TIMES)
    unit, second = rng.choice([("s", 1), ("ms", 1_000), ("us", 1_000_000), ("ns", 1_000_000_000)])
    after = 4_102_444_800 * second  # the first second of 2100
    far = [-(2**63) + 1, -62_135_596_800 * second, -1, 0, 1_684_393_200, after - 1, after, 2 * after, 2**63 - 1]
    value = rng.choice([value for value in far if abs(value) < 2**63 // (1_000 if unit == "s" else 1)])
    kind, wide, listed = pa.timestamp(unit), pa.int64(), column.endswith("fixed")
    if listed:
        kind, wide = pa.large_list(kind), pa.large_list(wide)
    old = case.tables[name][column].cast(kind, safe=False).cast(wide).to_pylist()
    row = filled_row(rng, old)
    old[row] = [value, *old[row][1:]] if listed else value
    case.put(name, column, pa.array(old, wide).cast(kind), kind)
    case.hit = (name, "behaviors")
    if column == "last_modified_time":
        case.valid = True
    elif not 0 <= value < after:
        case.valid = False
    if column == "impression_time":
        case.column = ""


def far_ids(rng, case):
    own = ("impression_id", "user_id", "session_id", "article_id")
    name, column = rng.choice([
        *((each, column) for each in BEHAVIORS for column in own), *((each, "user_id") for each in HISTORIES), *IDS,
        *PAST, ("articles", "article_id"), ("articles", "category"), (BEHAVIORS[0], "device_type"),
    ])  # fmt: skip
    edges = [value for power in (2, 7, 15, 31, 32, 63) for value in (2**power, 2**power - 1, -(2**power))]
    value = rng.choice([-1, 0, 1, 2**64 - 1, *edges])
    kind, old = pa.uint64() if value >= 2**63 else pa.int64(), case.values(name, column)
    row = filled_row(rng, old)
    listed = isinstance(old[row], list)
    old[row] = [value, *old[row][1:]] if listed else value
    case.put(name, column, old, pa.large_list(kind) if listed else kind)
    limits = {"category": (-(2**15), 2**15), "device_type": (0, 4)} | dict.fromkeys(own[:3], (0, 2**32))
    low, high = limits.get(column, (1, 2**31))
    if not low <= value < high:
        case.valid = False
    elif column in ("category", "device_type", "session_id", "article_id_fixed"):
        case.valid = True
    if column.startswith("article_ids"):
        case.column = "article_ids_"  # one of the two: what is in view decides what may be clicked


def article_vectors(rng, case):
    """Vectors of articles, as they should be or not."""
    ids, size = list(range(1_001, 1_001 + rng.randint(2, 14))), rng.randint(1, 6)
    rows, each = [[rng.uniform(0.1, 1.0) for _ in range(size)] for _ in ids], len(ids)
    first, rest, floats = rows[0], rows[1:], pa.list_(rng.choice([pa.float32(), pa.float64()]))
    good = [[[x * scale for x in own] for own in rows] for scale in (1.0, 0.0, 1e38, 1e-30)]
    bad = [[[x] * size, *rest] for x in (math.nan, -math.inf, None)]
    bad += [[[*first, 1.0], *rest], [None, *rest], [[]] * each]
    ids, lists, kind, valid = rng.choice([
        *((ids, lists, floats, lists in good) for lists in (*good, *bad)), ([], [], floats, False),
        ([*ids, 123_456], [*rows, first], floats, True), ([*ids[1:], ids[1]], rows, floats, False),
        ([0, *ids[1:]], rows, floats, False), (ids, [[1, 2]] * each, pa.list_(pa.int64()), True),
        (ids, [["a"]] * each, pa.list_(pa.string()), False), (ids, [1.0] * each, pa.float64(), False),
        (ids, [[1e300] * size, *rest], pa.list_(pa.float64()), False),
    ])  # fmt: skip
    names = rng.choice([("article_id", "vector"), ("article_id", "vector"), ("article_id", "v"), ("id", "vector")])
    case.tables[VECTORS] = pa.table([pa.array(ids, pa.int32()), pa.array(lists, kind)], names=names)
    case.at(VECTORS, valid=valid and names[0] == "article_id")


def damage_stamp(rng, case):
    text = rng.choice([
        b"", b"{", b"null", b"3", b"{}", b"NaN", b"\xff\xfe", b"[" * 100_000, b'{"size": ' + b"9" * 5_000 + b"}",
        b'{"seed": "0", "size": 1, "generator_version": null}', b'{"seed": 0, "size": "a", "generator_version": 1}',
    ])  # fmt: skip
    case.change = lambda folder: (folder / "generated.json").write_bytes(text)
    case.at("generated.json", valid=b'"generator_version": 1' in text)


# What is done to bundles, each with a source of random numbers and the case.
CORRUPTIONS = [
    damage_file, wrong_type, null_values, odd_values, far_dates, far_ids, article_vectors, damage_stamp,
]  # fmt: skip


def write_case(folder: Path, case: Case, rng: random.Random) -> None:
    row_group_size = rng.choice([None, None, 2, 7])
    for name, table in case.tables.items():
        file = folder / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file, row_group_size=row_group_size)
    case.change(folder)


def ready(folder: Path, split: str) -> tuple[Dataset, np.ndarray]:
    """All that preprocessing does: open, describe, prepare, and compute the features of the log."""
    bundle = open_bundle(folder)
    dataset = prepare(bundle, split)[0]
    summary.null_shares(bundle)
    summary.part_counts(dataset)
    summary.cold_start(dataset)
    return dataset, build(dataset.log, feature_context(dataset))


def rows_of(file: Path, columns: tuple[str, ...], time: str) -> list[dict]:
    """The rows of a file as plain Python has them, with whole microseconds, or lists of them, as ``time``."""
    table = pq.ParquetFile(file).read([*columns, time])
    micros, whole = pa.timestamp("us"), pa.int64()
    if time.endswith("fixed"):
        micros, whole = pa.large_list(micros), pa.large_list(whole)
    return table.append_column("time", table[time].cast(micros, safe=False).cast(whole)).to_pylist()


def impressions_of(folder: Path, split: str) -> list[dict]:
    """The impressions of both weeks in order of time, each with its week and its part, cut as ``split`` says."""
    columns = ("impression_id", "user_id", "device_type", "is_subscriber", "article_id", "article_ids_inview",
               "article_ids_clicked")  # fmt: skip
    weeks = [rows_of(folder / f"{name}.parquet", columns, "impression_time") for name in BEHAVIORS]
    rows = sorted(((row["time"], week, row) for week in (0, 1) for row in weeks[week]), key=lambda each: each[:2])
    validation = rows[math.ceil(0.9 * (len(rows) - 1))][0]
    tuning = validation - (validation - rows[0][0]) // 10
    if split == "official":
        validation = min(row["time"] for row in weeks[1])
        tuning = (max(row["time"] for row in weeks[0]) // HOUR + 1) * HOUR - DAY
    parts = ("train", "tuning", "validation")
    return [{**row, "week": week, "part": parts[(t >= tuning) + (t >= validation)]} for t, week, row in rows]


def assert_right(folder: Path, split: str, dataset: Dataset, features: np.ndarray, rng: random.Random) -> None:
    """Compare parts, slates, labels, histories and articles with the rows, and some features with their oracle."""
    log, context = dataset.log, feature_context(dataset)
    ids, users = dataset.articles["article_id"].to_numpy(), dataset.users["user_id"].to_numpy()
    names = [column.name for column in every_column()]
    assert not np.isinf(features).any()
    unknown = [names[place] for place in np.flatnonzero(np.isnan(features).any(axis=0))]
    assert [name for name in unknown if not NAN_BY_DESIGN.match(name)] == []
    expected = impressions_of(folder, split)
    parts = [part for part, slates in dataset.parts.items() for _ in range(len(slates))]
    assert parts == [row["part"] for row in expected]
    for place, row in enumerate(expected):
        own = slice(int(log.offsets[place]), int(log.offsets[place + 1]))
        slate = row["article_ids_inview"]
        assert log.article_id[own].tolist() == ids[log.article[own]].tolist() == slate
        assert log.clicked[own].tolist() == [article in row["article_ids_clicked"] for article in slate]
        assert log.user_id[place] == users[log.user[place]] == row["user_id"]
        asked = [of[place] for of in (log.impression_id, log.time, log.week, log.device, log.subscriber)]
        known = [row["impression_id"], row["time"], row["week"], row["device_type"] or 0, bool(row["is_subscriber"])]
        assert asked == known
        assert (None if log.front_page[place] else ids[log.page[place]]) == row["article_id"]
    for candidate in rng.choices(range(log.candidates), k=12):
        place = int(np.searchsorted(log.offsets, candidate, side="right")) - 1
        for name, value in oracle(log, context, place, candidate).items():
            if "session" not in name:  # which session was the last one is ambiguous at one moment
                found = features[candidate, names.index(name)]
                np.testing.assert_allclose(found, value, rtol=2e-4, atol=2e-5, err_msg=f"{name} of {candidate}")
    for history, name in zip(dataset.histories, HISTORIES, strict=True):
        rows = rows_of(folder / f"{name}.parquet", ("user_id", "article_id_fixed"), "impression_time_fixed")
        clicks = {
            row["user_id"]: sorted(
                zip(row["time"] or [UNKNOWN_TIME] * len(row["article_id_fixed"]), row["article_id_fixed"], strict=True),
                key=lambda click: click[0],
            )
            for row in rows
        }
        for user in range(1, len(users)):
            own = slice(int(history.offsets[user]), int(history.offsets[user + 1]))
            past = zip(history.time[own].tolist(), ids[history.article[own]].tolist(), strict=True)
            assert list(past) == clicks.get(int(users[user]), [])
        assert len(history.article) == sum(map(len, clicks.values()))
    assert_articles(folder, dataset)


def assert_articles(folder: Path, dataset: Dataset) -> None:
    meta, vectors = dataset.metadata, {}
    columns = ("article_id", "premium", "category", "topics", "sentiment_label", "sentiment_score")
    table = {row["article_id"]: row for row in rows_of(folder / "articles.parquet", columns, "published_time")}
    if (file := folder / f"{VECTORS}.parquet").exists():
        vectors = dict(zip(*(column.to_pylist() for column in pq.ParquetFile(file).read().columns), strict=True))
    known = [table.get(number, defaultdict(lambda: None)) for number in dataset.articles["article_id"]]
    assert meta.published.tolist() == [UNKNOWN_TIME if row["time"] is None else row["time"] for row in known]
    assert meta.premium.tolist() == [bool(row["premium"]) for row in known]
    categories = sorted({row["category"] for row in known} - {None})
    assert meta.category.tolist() == [[None, *categories].index(row["category"]) for row in known]
    topics_of = [set(row["topics"] or []) - {None} for row in known]
    topics = sorted(set().union(*topics_of))
    for place, row in enumerate(known):
        own = meta.topics[meta.topic_starts[place] : meta.topic_starts[place + 1]].tolist()
        assert sorted(own) == sorted(map(topics.index, topics_of[place]))
        label, score = row["sentiment_label"], row["sentiment_score"]
        mood = [math.nan] * 3
        if label in LABELS and score is not None:
            mood = [score if label == each else (1 - score) / 2 for each in LABELS]
        np.testing.assert_allclose(meta.sentiment[place], mood, rtol=1e-6, atol=1e-45)
        vector = vectors.get(dataset.articles["article_id"][place], [])
        length = math.hypot(*vector)
        unit = [x / length for x in vector] if length else [0.0] * meta.vectors.shape[1]
        np.testing.assert_allclose(meta.vectors[place], unit, rtol=1e-5, atol=1e-7)


NAN_BY_DESIGN = re.compile(
    r"age_hours|published_|negative|positive|page_|history_(sentiment|topics|vector)|hours_since|topic_|"
    r"user_(hours|click_share|category|sentiment|topics|vector)"
)


def check(folder: Path, case: Case, rng: random.Random) -> None:
    """See that a bundle is refused with its file and column in one line, or read right."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("error", RuntimeWarning)
            dataset, features = ready(folder, "official")
    except EbnerdError as error:
        message = str(error)
        assert not case.valid, message
        assert any(name in message for name in case.hit), f"no file of {case.hit}: {message}"
        assert case.column in message, f"no column {case.column}: {message}"
        assert "\n" not in message and len(message) < 1_500, message
    else:
        assert case.valid is not False, "taken, though it must be refused"
        assert_right(folder, "official", dataset, features, rng)


@pytest.mark.parametrize("seeds", [range(5), pytest.param(range(5, 60), marks=pytest.mark.slow)], ids=["few", "many"])
@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda kind: kind.__name__)
def test_hostile_bundles_are_refused_clearly_or_read_right(corrupt, seeds, tiny_path, tmp_path):
    for seed in seeds:
        rng, folder = random.Random(f"{corrupt.__name__} {seed}"), tmp_path / str(seed)
        case = Case(read(tiny_path))
        corrupt(rng, case)
        folder.mkdir()
        write_case(folder, case, rng)
        check(folder, case, rng)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def pilot(tmp_path_factory) -> Path:
    """A bundle around the pilot's real rows, cut in two weeks at the middle; half of their articles have a row."""
    source = Path(os.environ.get("EBNERD_PILOT", "nowhere"))
    if not (source / "behaviors.parquet").exists():
        pytest.skip("EBNERD_PILOT names no folder with the pilot's behaviors.parquet and history.parquet")
    behaviors, history = (pq.read_table(source / f"{name}.parquet") for name in ("behaviors", "history"))
    middle = np.sort(behaviors["impression_time"].to_numpy())[behaviors.num_rows // 2]
    folder = tmp_path_factory.mktemp("pilot")
    for week, early in zip(WEEKS, (True, False), strict=True):
        (folder / week).mkdir()
        rows = pc.equal(pc.less(behaviors["impression_time"], pa.scalar(middle)), early)
        pq.write_table(behaviors.filter(rows), folder / week / "behaviors.parquet")
        pq.write_table(history, folder / week / "history.parquet")
    lists = [*behaviors["article_ids_inview"].to_pylist(), *history["article_id_fixed"].to_pylist()]
    half = sorted({number for own in lists for number in own})[::2]
    pq.write_table(table_of({"article_id": half}, ARTICLES), folder / "articles.parquet")
    return folder


@pytest.mark.parametrize("bundle", ["smoke_bundle", "pilot"])
@pytest.mark.parametrize("split", ["official", "quantile"])
def test_rows_of_whole_bundles_are_read_right(bundle, split, request):
    """Real rows are read where they lie and never copied into the project."""
    folder = request.getfixturevalue(bundle)
    assert_right(folder, split, *ready(folder, split), random.Random(split))
