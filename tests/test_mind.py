"""MIND as a bundle: every row and id as in its files, and broken files refused by line."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import copy_of, python

from ebnerd_lib.__main__ import main
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import UNKNOWN_TIME, prepare
from ebnerd_lib.data.mind import convert
from ebnerd_lib.data.schema import ARTICLES, BEHAVIORS, HISTORY, arrow_schema
from ebnerd_lib.errors import BundleError
from ebnerd_lib.features.build import read_features, write_features
from ebnerd_lib.features.catalogue import left_out
from ebnerd_lib.features.registry import every_column
from ebnerd_lib.pipeline.paths import ROOT
from ebnerd_lib.training.inputs import TrainingInputs

COMMANDS = re.search(r"```sh\n(.*?)```", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), re.DOTALL)[
    1
].splitlines()
NEWS = [
    'N1\tnews\tnewsus\tA "plain" quote\tShort, "unclosed\thttps://x/1\t[]\t[]',
    "N20\tsports\tsoccer\tÆ\t\thttps://x/20\t[]\t[]",
    "N3\tnews\t\tThree\t\t\t\t",
]
TRAIN = [
    "1\tU7\t11/11/2019 9:05:58 AM\tN1 N1 N20\tN1-0 N20-1",
    "2\tU7\t11/11/2019 12:05:58 AM\tN1\tN20-0 N3-1 N99-1 N20-0",  # earlier, so its history is that of U7
    "3\tU8\t11/13/2019 12:00:00 PM\t\tN3-1 N1-0",
    "4\tU9\t11/14/2019 3:04:05 PM\tN55 N56\tN3-1 N1-0",
]
DEV = ["1\tU9\t11/15/2019 3:04:05 PM\tN55 N56 N3\tN3-0 N1-1"]


@pytest.fixture
def folders(tmp_path):
    """A function that writes two folders of MIND, of which some files are given."""

    def write(**files):
        texts = {"train/news": NEWS, "train/behaviors": TRAIN, "dev/news": NEWS[:1], "dev/behaviors": DEV, **files}
        for name, lines in texts.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            content = lines if isinstance(lines, bytes) else "".join(f"{line}\n" for line in lines).encode()
            (tmp_path / f"{name}.tsv").write_bytes(content)
        return tmp_path / "train", tmp_path / "dev", tmp_path / "data" / "out"

    return write


def table(folder, name):
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


def test_what_mind_says_is_kept_and_the_rest_is_null(folders):
    train, dev, out = folders()
    assert convert(train, dev, out) == {"impressions": 5, "users": 3, "articles": 6}
    for name, kinds in (("articles", ARTICLES), ("train/behaviors", BEHAVIORS), ("train/history", HISTORY)):
        assert pq.read_schema(out / f"{name}.parquet").equals(arrow_schema(kinds))
    known = {"impression_id", "user_id", "impression_time", "article_ids_inview", "article_ids_clicked"}
    found = [{name: row[name] for name in row if name in known} for row in table(out, "train/behaviors")]
    assert found[1] == {
        "impression_id": 2, "user_id": 7, "impression_time": pd.Timestamp("2019-11-11 00:05:58"),
        "article_ids_inview": [20, 3, 99], "article_ids_clicked": [3, 99],
    }  # fmt: skip
    assert [f"{row['impression_time']:%d %H}" for row in found] == ["11 09", "11 00", "13 12", "14 15"]
    assert {row[name] for row in table(out, "train/behaviors") for name in row if name not in known} == {None}
    past = {row["user_id"]: row["article_id_fixed"] for row in table(out, "train/history")}
    assert past == {7: [1], 8: [], 9: [55, 56]}  # at the user's first impression of the part
    assert {row["impression_time_fixed"] for row in table(out, "train/history")} == {None}
    articles = {row["article_id"]: row for row in table(out, "articles")}
    assert list(articles) == [1, 3, 20, 55, 56, 99]
    told = {name: value for name, value in articles[1].items() if value is not None}
    assert told == {
        "article_id": 1, "title": 'A "plain" quote', "subtitle": 'Short, "unclosed', "url": "https://x/1",
        "category": 1, "category_str": "news", "subcategory": [1], "topics": ["newsus"],
    }  # fmt: skip
    assert [name for name, value in articles[3].items() if value is not None] == [
        "article_id", "title", "category", "category_str",
    ]  # fmt: skip
    assert {value for name, value in articles[99].items() if name != "article_id"} == {None}
    assert [(row["mind_id"], row["article_id"]) for row in table(out, "mind_articles")] == [
        (f"N{n}", n) for n in articles
    ]
    assert [(row["mind_id"], row["user_id"]) for row in table(out, "mind_users")] == [("U7", 7), ("U8", 8), ("U9", 9)]


def test_lines_may_end_as_on_windows_and_in_spaces(folders):
    plain, odd = folders(), None
    convert(*plain)
    content = "".join(f"{line}  \r\n" for line in TRAIN).encode().removesuffix(b"\r\n")
    train, dev, _ = folders(**{"train/behaviors": content})
    odd = plain[2].with_name("odd")
    convert(train, dev, odd)
    for file in plain[2].rglob("*.parquet"):
        assert pq.read_table(file).equals(pq.read_table(odd / file.relative_to(plain[2]))), file


def test_vectors_are_taken_by_id(folders, tmp_path):
    train, dev, out = folders()
    pq.write_table(
        pa.table({"article_id": pa.array([20, 1], pa.int32()), "v": [[1.0, 0.0], [0.0, 1.0]]}), tmp_path / "v.parquet"
    )
    convert(train, dev, out, tmp_path / "v.parquet")
    ids, vectors = open_bundle(out).vectors()
    assert (ids.tolist(), vectors.tolist()) == ([20, 1], [[1.0, 0.0], [0.0, 1.0]])


def changed(place, old, new):
    return [line.replace(old, new) if number == place else line for number, line in enumerate(TRAIN)]


@pytest.mark.parametrize(
    ("name", "lines", "place"),
    [
        ("train/behaviors", changed(2, "\t\t", "\t"), "line 3"),
        ("train/behaviors", [*TRAIN, ""], "line 5"),
        ("train/behaviors", changed(1, "11/11", "2/30"), "line 2"),
        ("train/behaviors", changed(1, "12:05:58 AM", "13:05:58"), "line 2"),
        ("train/behaviors", changed(0, "N20-1", "N20-2"), "line 1"),
        ("train/behaviors", changed(0, "N1-0 N20-1", ""), "line 1"),
        ("train/behaviors", changed(0, "N1 N1", "N1,N1"), "line 1"),
        ("train/behaviors", changed(0, "U7", "U07"), "line 1"),
        ("train/behaviors", changed(0, "N1-0", f"N{2**31}-0"), "line 1"),
        ("train/behaviors", [*TRAIN, TRAIN[1]], "line 5"),
        ("train/behaviors", b"1\tU7\xff", "line 1"),
        ("train/behaviors", "\n".join(TRAIN).encode("utf-16"), "line 1"),
        ("train/behaviors", [], "0 lines"),
        ("train/news", [*NEWS, NEWS[0]], "line 4"),
        ("train/news", [NEWS[0], NEWS[1] + "\t"], "line 2"),
        ("dev/news", [NEWS[0].replace("N1", "1")], "line 1"),
    ],
)  # fmt: skip
def test_a_broken_line_is_refused_by_its_number_and_nothing_stays(name, lines, place, folders):
    train, dev, out = folders(**{name: lines})
    with pytest.raises(BundleError) as caught:
        convert(train, dev, out)
    assert f"{name}.tsv: {place}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(out.parent.iterdir()) == []


def test_what_is_there_is_left_alone(folders):
    train, dev, out = folders()
    out.mkdir(parents=True)
    (out / "mine").touch()
    with pytest.raises(BundleError, match="out"):
        convert(train, dev, out)
    assert [file.name for file in out.iterdir()] == ["mine"]


def write_mind(bundle: Path, out: Path) -> tuple[Path, Path]:
    """Write the impressions of a bundle as ``MINDsmall_train`` and ``MINDsmall_dev``; return the two folders.

    The last article of each part's slates is left out of its news.tsv, as real ones lack some.
    """
    articles = pd.read_parquet(bundle / "articles.parquet").set_index("article_id")
    articles["topic"] = articles["topics"].str[0]
    entities, folders = json.dumps([{"Label": 'A "quoted" name', "Type": "P", "WikidataId": "Q1"}]), []
    for split, name in (("train", "MINDsmall_train"), ("validation", "MINDsmall_dev")):
        rows = pd.read_parquet(bundle / split / "behaviors.parquet")
        past = pd.read_parquet(bundle / split / "history.parquet").set_index("user_id")["article_id_fixed"]
        lines = []
        for number, row in enumerate(rows.itertuples(), 1):
            read = " ".join(f"N{article}" for article in past.get(row.user_id, []))
            pairs = " ".join(f"N{each}-{int(each in row.article_ids_clicked)}" for each in row.article_ids_inview)
            lines.append(f"{number}\tU{row.user_id}\t{row.impression_time:%-m/%-d/%Y %-I:%M:%S %p}\t{read}\t{pairs}\n")
        told = articles.drop(rows["article_ids_inview"].explode().max())
        told = told[["category_str", "topic", "title", "subtitle", "url"]].fillna("").itertuples()
        news = ["\t".join([f"N{article}", *texts, entities, "[]"]) + "\n" for article, *texts in told]
        folders.append(out / name)
        folders[-1].mkdir(parents=True)
        (folders[-1] / "behaviors.tsv").write_text("".join(lines), encoding="utf-8")
        (folders[-1] / "news.tsv").write_text("".join(news), encoding="utf-8")
    return folders[0], folders[1]


@pytest.fixture(scope="module")
def made_up(smoke_bundle, tmp_path_factory):
    """The generated bundle as MIND, converted by the command of docs/data.md."""
    folder = tmp_path_factory.mktemp("mind")
    write_mind(smoke_bundle, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(COMMANDS[0].split()[3:]) == 0
    return prepare(open_bundle(folder / "data" / "mind_small"), "official")[0]


def test_a_made_up_mind_becomes_the_data_set_it_was_made_of(made_up, smoke):
    for part, slates in smoke.parts.items():
        own = made_up.parts[part]
        for name in ("article_id", "clicked", "user_id"):
            assert (getattr(own, name) == getattr(slates, name)).all(), f"{name} of {part}"
        assert (own.time == slates.time // 1_000_000 * 1_000_000).all()
    for ours, theirs in zip(made_up.histories, smoke.histories, strict=True):
        clicks = [
            known.articles["article_id"].to_numpy()[own.article] for known, own in ((made_up, ours), (smoke, theirs))
        ]
        assert clicks[0].tolist() == clicks[1].tolist() and set(ours.time.tolist()) == {UNKNOWN_TIME}


def test_features_of_what_mind_lacks_are_left_out_and_the_others_say_something(made_up, smoke, tmp_path):
    assert left_out(smoke) == {}
    lacking = left_out(made_up)
    assert set(lacking) == {
        "published_time", "premium", "sentiment_label", "article vectors", "article_id of behaviors", "device_type",
        "is_subscriber", "session_id",
    }  # fmt: skip
    write_features(made_up, tmp_path)
    stored = [read_features(tmp_path, part) for part in ("train", "validation")]
    names = {name for own in lacking.values() for name in own}
    assert [column.name for column in every_column() if column.name not in names] == stored[0].columns
    values = np.concatenate([own.matrix for own in stored])
    constant = np.nanmin(values, axis=0) == np.nanmax(values, axis=0)
    assert [name for name, same in zip(stored[0].columns, constant, strict=True) if same] == []
    pools = {"impressions": 20, "evenly": 3, "by_views": 3, "tuning_impressions": 5}
    live = TrainingInputs.live(made_up, "clicks", 0.0, 0, **pools)
    assert live.features["train"].columns == stored[0].columns


@pytest.mark.slow
def test_all_stages_of_its_profile_run_on_a_made_up_mind(smoke_bundle, tmp_path):
    project = copy_of(ROOT, tmp_path / "project")
    write_mind(smoke_bundle, project)
    with (project / "params" / "mind_small" / "06_explore.yaml").open("a", encoding="utf-8") as file:
        file.write("\nhistory_rows: 1000\n")  # so that clicks of unknown times are among those shown
    for line in COMMANDS:
        words = line.replace("make run-all PROFILE=", "python -m ebnerd_lib run --profile ").split()
        done = python(project, *words[1:])
        assert done.returncode == 0, done.stdout + done.stderr
    reports = project / "outputs" / "mind_small" / "reports"
    told = (reports / "01_preprocess.html").read_text(encoding="utf-8")
    assert all(name in told for name in ("user_passed_session", "hours_since_first_inview", "MRR, first click"))
    for page in reports.glob("*.html"):
        text = re.sub(r"<(style|svg)\b.*?</\1>|<[^>]+>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"\b(?:nan|NaN|NaT|inf)\b", text), page.name
