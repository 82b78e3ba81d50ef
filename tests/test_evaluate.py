"""Scores that come from elsewhere: the same figures as ours, one clear error for each thing that can be wrong."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bs4 import BeautifulSoup

from ebnerd_lib.__main__ import main
from ebnerd_lib.errors import BundleError, ConfigError
from ebnerd_lib.evaluation.judge import judge_saved
from ebnerd_lib.evaluation.scores_file import read_scores
from ebnerd_lib.pipeline.evaluate import evaluate


@pytest.fixture(scope="module")
def ours(smoke, tmp_path_factory):
    """Scores as a training stage saves them, and their entry of metrics.json."""
    folder = tmp_path_factory.mktemp("ours")
    rng = np.random.default_rng(0)
    scores = {part: rng.normal(size=s.candidates) + s.clicked for part, s in smoke.parts.items()}
    entry = judge_saved("x", "clicks", scores, smoke, folder)
    return SimpleNamespace(folder=folder, entry=entry, frame=pd.read_parquet(folder / "scores_x.parquet"))


def wide_and_shuffled(frame, file):
    frame.sample(frac=1, random_state=1).astype({"impression_id": "int64", "article_id": "uint64"}).assign(
        extra="column"
    )[["extra", "score", "article_id", "impression_id"]].to_parquet(file, index=False)


def in_doubles(frame, file):
    frame.astype("float64").iloc[::-1].to_parquet(file)


def as_large_lists(frame, file):
    lists = frame.groupby("impression_id", sort=True)[["article_id", "score"]].agg(list).reset_index()
    kinds = {
        "impression_id": pa.uint64(), "article_id": pa.large_list(pa.int64()), "score": pa.large_list(pa.float64())
    }  # fmt: skip
    pq.write_table(pa.table({name: pa.array(lists[name].tolist(), kind) for name, kind in kinds.items()}), file)


@pytest.mark.parametrize("write", [wide_and_shuffled, in_doubles, as_large_lists])
def test_a_file_of_another_tool_gives_our_figures(ours, smoke_bundle, tmp_path, capsys, write):
    write(ours.frame, tmp_path / "other.parquet")
    write(pd.read_parquet(ours.folder / "tuning_x.parquet"), tmp_path / "day.parquet")
    words = ["--bundle", smoke_bundle, "--tier", "clicks", "--out", tmp_path / "out"]
    words += ["--scores", tmp_path / "other.parquet", "--tuning", tmp_path / "day.parquet"]
    assert main(["evaluate", *map(str, words)]) == 0
    entry = json.loads((tmp_path / "out" / "metrics.json").read_text())["models"]["other"]
    assert entry["tier"] == "clicks"
    for part in ("validation", "tuning"):
        assert set(entry[part]) == set(ours.entry[part])
        for name, value in ours.entry[part].items():
            np.testing.assert_allclose(entry[part][name], value, rtol=0, atol=1e-12, err_msg=name)
    assert f"other   clicks  {ours.entry['validation']['auc']:.4f}" in capsys.readouterr().out


def test_the_tuning_day_alone_and_a_reference(ours, smoke_bundle, tmp_path):
    day = ours.folder / "tuning_x.parquet"
    frame = pd.read_parquet(day)
    frame.assign(score=frame["score"] + 0.0).to_parquet(tmp_path / "equal.parquet")
    found = evaluate(day, smoke_bundle, "tuning", "ids", reference=tmp_path / "equal.parquet", out=tmp_path / "o")
    assert found["models"]["x"] == {"tier": "ids", "tuning": ours.entry["tuning"]}
    (difference,) = found["differences"]["scorers"].values()
    assert found["differences"]["reference"] == "equal" and difference["auc"] == 0 and difference["auc_ci"] == [0, 0]


def test_the_report_shows_the_figures_opens_offline_and_repeats(ours, smoke_bundle, tmp_path):
    file = ours.folder / "scores_x.parquet"
    for out in ("a", "b"):
        evaluate(file, smoke_bundle, tuning=ours.folder / "tuning_x.parquet", out=tmp_path / out)
    assert (tmp_path / "a" / "metrics.json").read_bytes() == (tmp_path / "b" / "metrics.json").read_bytes()
    text = (tmp_path / "a" / "report.html").read_text()
    page = BeautifulSoup(text, "html.parser")
    assert f"{ours.entry['validation']['auc']:.4f}" in page.find("table").get_text()
    captions = [caption.get_text() for caption in page.find_all("figcaption")]
    assert any("by slice" in caption for caption in captions) and any("Calibration" in caption for caption in captions)
    assert page.find_all("img") and all(image["alt"] for image in page.find_all("img"))
    assert "http:" not in text and "https:" not in text and str(smoke_bundle.parent) not in text


def test_without_the_tuning_day_only_rankings_are_judged(ours, smoke_bundle, tmp_path):
    found = evaluate(ours.folder / "scores_x.parquet", smoke_bundle, out=tmp_path)
    figures = found["models"]["x"]["validation"]
    assert figures["auc"] == ours.entry["validation"]["auc"] and "logloss" not in figures
    assert found["calibration"] == {} and found["models"]["x"]["tier"] == "not declared"


def missing(frame):
    return frame.drop(index=[3, 5]), r"column score: 2 of \d+ candidates are missing, as article {3} in impression"


def extra(frame):
    row = frame.iloc[[3]].assign(article_id=7)
    return pd.concat([frame, row]), r"column article_id: 1 rows are extra: no such candidate .*, as article 7 in"


def of_another_impression(frame):
    row = frame.iloc[[3]].assign(impression_id=1)
    return pd.concat([frame, row]), r"column article_id: 1 rows are extra: .*article {3} in impression 1\. Drop them"


def repeated(frame):
    return pd.concat([frame, frame.iloc[[3, 4, 4]]]), r"column article_id: 3 rows repeat a candidate, as article {3} in"


def not_a_number(frame):
    return frame.assign(
        score=frame["score"].where(frame.index != 3)
    ), r"column score: 1 scores are not finite .* {3} in"


def infinite(frame):
    return frame.assign(score=frame["score"].mask(frame.index == 3, np.inf)), r"column score: 1 scores are not finite"


def nameless(frame):
    return frame.drop(columns="article_id"), r"column article_id is missing\. A scores file has the columns impression"


def fractions(frame):
    return frame.assign(article_id=frame["article_id"] + 0.5), r"column article_id is double and holds no whole numbers"


def texts(frame):
    return frame.assign(score="high"), r"column score is (large_)?string\. Write scores as numbers"


def null_ids(frame):
    gaps = frame["article_id"].astype("Int64").mask(frame.index < 2)
    return frame.assign(article_id=gaps), r"column article_id is null in 2 rows\. Name every candidate"


def uneven(frame):
    lists = frame.groupby("impression_id")[["article_id", "score"]].agg(list).reset_index()
    lists.loc[4, "score"].append(1.0)
    return lists, r"article_id and score differ in length in 1 rows, as in impression \d+\. Each article needs"


def half_lists(frame):
    return frame.assign(score=[[one] for one in frame["score"]]), r"columns score hold lists\. Give one row a candidate"


WRONG = [
    missing, extra, of_another_impression, repeated, not_a_number, infinite, nameless, fractions, texts, null_ids,
    uneven, half_lists,
]  # fmt: skip


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_each_thing_that_is_wrong_has_one_clear_error(ours, smoke, tmp_path, spoil):
    frame, message = spoil(ours.frame)
    file = tmp_path / "other.parquet"
    frame.to_parquet(file, index=False)
    article = ours.frame["article_id"][3]
    with pytest.raises(BundleError, match=rf"other\.parquet: .*{message.replace('{3}', str(article))}"):
        read_scores(file, smoke.parts["validation"])


def test_files_that_are_no_parquet_and_words_that_are_unknown_are_refused(ours, smoke_bundle, tmp_path, capsys):
    file = tmp_path / "other.parquet"
    file.write_text("impression_id,article_id,score\n")
    assert main(["evaluate", "--scores", str(file), "--bundle", str(smoke_bundle)]) == 1
    assert "other.parquet: not a readable parquet file" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"split 'test' is unknown. Use one of validation, tuning"):
        evaluate(file, smoke_bundle, "test")
    with pytest.raises(ConfigError, match=r"tier 'all' is unknown. Use one of ids"):
        evaluate(file, smoke_bundle, tier="all")
    with pytest.raises(ConfigError, match=r"has the name of"):
        own = ours.folder / "scores_x.parquet"
        evaluate(own, smoke_bundle, reference=own, out=tmp_path / "o")


def test_the_wrong_part_is_told_by_its_extra_rows(ours, smoke):
    with pytest.raises(BundleError, match=r"rows are extra: .*check --bundle and --split"):
        read_scores(ours.folder / "scores_x.parquet", smoke.parts["tuning"])
