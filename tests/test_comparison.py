"""The page that puts finished runs side by side: tables by data set, paired differences, seeds, clear refusals."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation.evaluate import Scorer, save_scorer
from ebnerd_lib.pipeline import compare as page
from ebnerd_lib.pipeline import paths, runs
from ebnerd_lib.pipeline.paths import files_in, relative, write_json
from ebnerd_lib.pipeline.stale import sha256

OF_DATA = ("slates_train.parquet", "slates_tuning.parquet", "slates_validation.parquet")


@pytest.fixture
def project(tmp_path, monkeypatch, tiny):
    """Two profiles on the tiny bundle's slates, of which ``b`` says that it read others."""
    for name in ("templates", "notebooks"):
        shutil.copytree(paths.ROOT / name, tmp_path / name)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(runs, "stale_stages", lambda profile, configs: {})
    for profile in "ab":
        folder = tmp_path / "params" / profile
        folder.mkdir(parents=True)
        for stage in ("01_preprocess", "03_train_mlp", "03_train_mlp.wide", "03_train_mlp.live"):
            (folder / f"{stage}.yaml").write_text("")
        folder = tmp_path / "outputs" / profile / "artifacts" / "01_preprocess"
        folder.mkdir(parents=True)
        datasets.save(tiny, folder)
        outputs = {file.name: f"{sha256(file)}{profile * (profile == 'b')}" for file in files_in(folder)}
        record(folder, "01_preprocess", outputs=outputs, parameters={"bundle": "data/tiny"})
    for number, (profile, stage) in enumerate([("a", ""), ("a", ".wide"), ("a", ".lab1"), ("b", "")]):
        trained(tmp_path, tiny, profile, f"03_train_mlp{stage}", number)
    return tmp_path


def record(folder, stage, **more):
    """Write the record of a stage that was run by hand, so that it needs no executed notebook."""
    known = {"run": "train", "fingerprint": "f", "generated": None, "git": {"commit": "c" * 40, "dirty": False}}
    known |= {"duration_seconds": 3.5, "peak_memory_mb": 100, "started": "2025-01-02T03:04:05+00:00", "reads": []}
    write_json(folder / "manifest.json", {"stage": stage, "inputs": {}, "outputs": {}, **known, **more})


def trained(root, data, profile, stage, seed, live=False):
    """Leave what a training stage leaves, with random scores."""
    folder = root / "outputs" / profile / "artifacts" / stage
    folder.mkdir(parents=True)
    read = folder.parent / "01_preprocess"
    outputs = json.loads((read / "manifest.json").read_text())["outputs"]
    name, rng = "_".join(stage[3:].replace("train_", "").split(".")), np.random.default_rng(seed)
    scores = {part: rng.random(data.parts[part].candidates) for part in ("tuning", "validation")}
    entry = {} if live else save_scorer(Scorer(name, "clicks", scores), data.parts, folder).metrics
    write_json(folder / "metrics.json", {"live": {name: {"tier": "clicks"}}} if live else {"models": {name: entry}})
    curve = pd.DataFrame({"epoch": [0, 1], "train/loss": [2.0, 1.0], "val/loss": [2.0, 1.5], "val/auc": [0.5, 0.6]})
    curve.assign(**{"val/ndcg": [0.2, 0.1]}).to_csv(folder / f"curve_{name}.csv", index=False)
    parameters = {"seed": seed, "dropout": 0.1, "reads": ["01_preprocess"], "training": {"seeds": 1}}
    inputs = {f"{relative(read)}/{file}": own for file, own in outputs.items()}
    record(folder, stage, reads=["01_preprocess"], inputs=inputs, parameters=parameters)


def test_runs_on_other_slates_stand_apart_and_are_never_paired(project):
    names = ["a/03_train_mlp", "b/03_train_mlp", "a/03_train_mlp.wide", "a/03_train_mlp.lab1"]
    target = project / page.compare(names)
    told = json.loads(target.with_suffix(".json").read_text())
    first, second = told["tables"]
    assert [row["name"] for row in first["rows"]] == [names[0], *names[2:]] and first["comparisons"] == 2
    assert [row["name"] for row in second["rows"]] == [names[1]] and second["comparisons"] == 0
    assert first["rows"][0]["difference"] is None and first["rows"][1]["changes"] == {"seed": 1}
    reported = [row["auc"] for row in first["rows"]]
    assert first["rows"][1]["difference"]["auc"] == pytest.approx(reported[1] - reported[0])
    text = target.read_text()
    assert all(name in text for name in names) and text.count("<img") == 2
    assert not re.findall(r"(?:src|href)=\"(?!data:|\.\./|#)", text), "it opens offline"
    for index in ("index.html", "a/index.html", "b/index.html"):
        assert target.name in (project / "outputs" / index).read_text()


def test_models_of_what_was_live_are_compared_by_their_next_click(project, tiny):
    trained(project, tiny, "a", "03_train_mlp.live", 5, live=True)
    target = project / page.compare(["a/03_train_mlp", "a/03_train_mlp.live"])
    (table,) = json.loads(target.with_suffix(".json").read_text())["tables"]
    assert [row["name"] for row in table["rows"]] == ["a/03_train_mlp"]
    (row,) = table["next_clicks"]
    assert row["name"] == "a/03_train_mlp.live" and row["tuning"] == 0.2


def test_nothing_is_paired_once_the_slates_were_made_anew(project):
    file = project / "outputs" / "a" / "artifacts" / "01_preprocess" / "manifest.json"
    manifest = json.loads(file.read_text())
    write_json(file, {**manifest, "outputs": dict.fromkeys(manifest["outputs"], "anew")})
    target = project / page.compare(["a/03_train_mlp", "a/03_train_mlp.wide"])
    (table,) = json.loads(target.with_suffix(".json").read_text())["tables"]
    assert table["note"] and table["comparisons"] == 0 and len(table["rows"]) == 2


def test_what_did_not_run_or_failed_is_refused_with_the_nearest_name(project):
    with pytest.raises(ConfigError, match=r"did you mean 'a/03_train_mlp\.wide'"):
        page.compare(["a/03_train_mlp", "a/03_train_mlp.wise"])
    with pytest.raises(ConfigError, match="01_preprocess"):
        page.compare(["a/01_preprocess"])
    logs = project / "outputs" / "a" / "logs" / "03_train_mlp.wide"
    logs.mkdir(parents=True)
    write_json(logs / "failure.json", {"message": "no memory"})
    with pytest.raises(ConfigError, match=r"03_train_mlp\.wide' .* failed"):
        page.compare(["a/03_train_mlp", "a/03_train_mlp.wide"])
    assert not (project / "outputs" / "compare").exists()


def test_seeds_are_trained_once_and_the_run_itself_counts(project, tiny, monkeypatch):
    monkeypatch.setattr(page, "fingerprint", lambda config, hashes: f"{config.parameters}")
    asked = []

    def train(parameters, logs, name):
        asked.append(parameters["seed"])
        curve = pd.DataFrame({"val/ndcg": [0.1 * parameters["seed"]]})
        return SimpleNamespace(curve=curve), SimpleNamespace(best_by="val/ndcg", slates="live")

    (run,) = page.find_runs(["a/03_train_mlp"])
    before = {file.name: sha256(file) for file in files_in(run.paths.artifacts)}
    aside = SimpleNamespace(train=train)
    monkeypatch.setattr(
        page, "with_values", lambda config, values, _: replace(config, parameters=config.parameters | values)
    )
    own = run.metrics["models"]["mlp"]["validation"]["auc"]
    run.manifest["fingerprint"] = page.fingerprint(SimpleNamespace(parameters=run.manifest["parameters"]), None)
    three = page.repeats(run, 3, aside)
    assert asked == [1, 2] and three["mean"] == pytest.approx((own + 0.1 + 0.2) / 3)
    page.repeats(run, 4, aside)
    assert asked == [1, 2, 3]
    run.manifest["fingerprint"] = "of code that has changed since"
    assert page.repeats(run, 2, aside)["mean"] == pytest.approx(0.05) and asked == [1, 2, 3, 0]
    assert before == {file.name: sha256(file) for file in files_in(run.paths.artifacts)}
