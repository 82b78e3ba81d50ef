"""Scores that come from elsewhere: the same metrics as ours, one clear error for each thing that can be wrong."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ebnerd_lib.__main__ import main
from ebnerd_lib.errors import BundleError, ConfigError
from ebnerd_lib.evaluation.evaluate import Scorer, save_scorer
from ebnerd_lib.pipeline.evaluate import evaluate, read_scores


@pytest.fixture(scope="module")
def ours(smoke, tmp_path_factory):
    """Scores as a training stage saves them, and their entry of metrics.json."""
    folder = tmp_path_factory.mktemp("ours")
    rng = np.random.default_rng(0)
    scores = {part: rng.normal(size=s.candidates) + s.clicked for part, s in smoke.parts.items()}
    entry = save_scorer(Scorer("x", "clicks", scores), smoke.parts, folder).metrics
    return SimpleNamespace(folder=folder, entry=entry, frame=pd.read_parquet(folder / "scores_x.parquet"))


def wide_and_shuffled(frame, file):
    mixed = frame.sample(frac=1, random_state=1).astype({"impression_id": "int64", "article_id": "uint64"})
    mixed.assign(extra="column")[["extra", "score", "article_id", "impression_id"]].to_parquet(file, index=False)


def as_lists(frame, file):
    frame.groupby("impression_id", sort=True)[["article_id", "score"]].agg(list).reset_index().to_parquet(file)


@pytest.mark.parametrize("write", [wide_and_shuffled, as_lists])
def test_a_file_of_another_tool_gives_our_metrics(ours, smoke_bundle, tmp_path, capsys, write):
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
    assert f"{ours.entry['validation']['auc']:.4f}" in capsys.readouterr().out


def test_the_tuning_day_alone_with_a_reference_and_validation_alone_without_probabilities(ours, smoke_bundle, tmp_path):
    day = ours.folder / "tuning_x.parquet"
    pd.read_parquet(day).to_parquet(tmp_path / "equal.parquet")
    found = evaluate(day, smoke_bundle, "tuning", "ids", reference=tmp_path / "equal.parquet", out=tmp_path / "o")
    assert found["models"]["x"] == {"tier": "ids", "tuning": ours.entry["tuning"]}
    (difference,) = found["differences"]["scorers"].values()
    assert found["differences"]["reference"] == "equal" and difference["auc"] == 0 and difference["auc_ci"] == [0, 0]
    found = evaluate(ours.folder / "scores_x.parquet", smoke_bundle, out=tmp_path)
    metrics = found["models"]["x"]["validation"]
    assert metrics["auc"] == ours.entry["validation"]["auc"] and "logloss" not in metrics
    assert found["calibration"] == {} and found["models"]["x"]["tier"] == "not declared"


WRONG = {
    "missing": (lambda frame: frame.drop(index=[3, 5]), "2 candidates missing"),
    "extra": (lambda frame: pd.concat([frame, frame.iloc[[3]].assign(article_id=7)]), "1 candidates extra"),
    "repeated": (lambda frame: pd.concat([frame, frame.iloc[[3, 4, 4]]]), "3 candidates repeated"),
    "not_finite": (lambda frame: frame.assign(score=frame["score"].mask(frame.index == 3, np.inf)), "1 candidates"),
    "null": (lambda frame: frame.assign(score=frame["score"].mask(frame.index < 2)), "2 candidates without"),
    "no_column": (lambda frame: frame.drop(columns="article_id"), "article_id"),
    "texts": (lambda frame: frame.assign(score="high"), "score"),
}


@pytest.mark.parametrize("what", WRONG)
def test_each_thing_that_is_wrong_has_one_clear_error(ours, smoke, tmp_path, what):
    spoil, told = WRONG[what]
    file = tmp_path / "other.parquet"
    spoil(ours.frame).to_parquet(file, index=False)
    with pytest.raises(BundleError, match=rf"other\.parquet: .*{told}"):
        read_scores(file, smoke.parts["validation"])


def test_files_that_are_no_parquet_and_unknown_words_are_refused(ours, smoke_bundle, tmp_path, capsys):
    file = tmp_path / "other.parquet"
    file.write_text("impression_id,article_id,score\n")
    assert main(["evaluate", "--scores", str(file), "--bundle", str(smoke_bundle)]) == 1
    assert "other.parquet" in capsys.readouterr().err
    for wrong in ("--split=test", "--tier=all", "--cut=half"):
        assert main(["evaluate", "--scores", str(file), "--bundle", str(smoke_bundle), wrong]) == 2
    own = ours.folder / "scores_x.parquet"
    with pytest.raises(ConfigError):
        evaluate(own, smoke_bundle, out=tmp_path / "o", reference=own)
    assert not (tmp_path / "o").exists()
