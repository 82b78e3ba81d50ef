"""The study: what is tried, what is computed and kept, what decides, and what the report says."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from bs4 import BeautifulSoup

from ebnerd_lib.__main__ import main
from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.errors import BundleError, ConfigError, StageError
from ebnerd_lib.evaluation import reference
from ebnerd_lib.features.registry import allowed, every_column
from ebnerd_lib.pipeline.study import cells, ground, parts, profile, search
from ebnerd_lib.pipeline.study import run as module
from ebnerd_lib.pipeline.study.boosting import BOOST
from ebnerd_lib.pipeline.study.claims import Claim, check
from ebnerd_lib.pipeline.study.configuration import Procedure
from ebnerd_lib.pipeline.study.differences import auc_by_impression, paired_interval
from ebnerd_lib.pipeline.study.learning import LEARN
from ebnerd_lib.pipeline.study.static import TRAIN, TUNE
from ebnerd_lib.training.batches import training_rows
from ebnerd_lib.training.model_file import load_model

GROUPS = {"age", "clicks"}
SEARCHED = {"longer": "learning_rate: 3.0e-3\nepochs: 4\n", "factors": 'model: "mf_features"\nepochs: 1\n'}
SCORERS = [
    "mf_ids", "mf_ids_learning", "mf_features", "mf_features_content", "mf_features_exposure", "mf_features_learning",
    "mlp", "mlp_content", "mlp_exposure", "mlp_learning",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small spend their time waiting for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    for name, text in SEARCHED.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def run(searched):
    """Run a study of few groups, seeds, shares and files: what there is to see of a part shows on them."""

    def run(out, wanted=None, lightgbm=False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "every_column", lambda: [c for c in every_column() if c.group in GROUPS])
            patch.setattr(parts, "TRAINING_SEEDS", 2)
            patch.setattr(parts, "SHARES", (0.5, 1.0))
            patch.setattr(search, "files", lambda: sorted(searched.glob("*.yaml")))
            if not lightgbm:
                patch.setattr(reference, "installed", lambda: False)
            return module.study([0], out, "smoke", "smoke", wanted)

    return run


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A study that was killed after its second cell: its folder, and when each cell was written."""
    out = tmp_path_factory.mktemp("study") / "out"
    command = ["study", "--size", "smoke", "--seeds", "0", "--parts", "seeds", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ebnerd_lib", *command], env=environment, stdout=subprocess.DEVNULL,
        cwd=Path(module.__file__).parents[3],
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while len(times(out)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL, "the study ended by itself"
    return out, times(out)


@pytest.fixture(scope="module")
def original(killed, run):
    """The killed study, carried on with all parts."""
    out, _ = killed
    run(out)
    return out


@pytest.fixture
def done(original, tmp_path):
    """A finished study of its own for a test; times of files are kept, so bundles are not generated again."""
    shutil.copytree(original, tmp_path / "out")
    return tmp_path / "out"


def results_of(out):
    return json.loads((out / "results.json").read_text())


def times(out):
    return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in out.glob("cells/*/*.json")}


def changed(out, before):
    return {Path(name).stem for name, stamp in times(out).items() if before.get(name) != stamp}


# What is tried.


def test_every_model_of_the_profile_is_tried_in_every_tier_and_learning_on():
    found = {each.name: each for each in parts.scorers("sample")}
    assert set(SCORERS) <= set(found) and "lightgbm" in found
    assert [found[name].tier for name in ("mf_ids", "mlp_content", "mlp_exposure", "mlp", "lightgbm")] == [
        "ids", "content", "exposure", "clicks", "clicks",
    ]  # fmt: skip
    assert found["mf_ids_learning"].parameters["update_minutes"] == 15
    assert found["mf_ids_learning"].after == "mf_ids"
    smoke = {each.name: each for each in parts.scorers("smoke")}
    assert (found["mlp"].parameters["hidden"], smoke["mlp"].parameters["hidden"]) == ([128, 64], [16, 8])
    assert found["lightgbm"].parameters["warmup_hours"] == found["mlp"].parameters["warmup_hours"]


def test_models_come_from_the_parameter_files_of_all_profiles_on_the_same_data(monkeypatch):
    assert "nrms" in [model.name for model in profile.models("sample")], "from the profile nrms, on the same bundle"
    assert [model.name for model in profile.models("smoke")] == ["mf_ids", "mf_features", "mlp"]
    real = profile.load_config

    def load(name, stage):
        config = real(name, stage)
        models = {"02_train_mf": ["mf_features"]}.get(stage)
        return replace(config, parameters=config.parameters | ({"models": models} if models else {}))

    monkeypatch.setattr(profile, "load_config", load)
    assert [each.after for each in parts.scorers("smoke") if each.procedure is LEARN] == ["mf_features", "mlp"]
    monkeypatch.setattr(profile, "profile_stages", lambda name: ["01_preprocess", "02_train_mf"])
    with pytest.raises(ConfigError, match="no stage trains 'mlp'"):
        parts.scorers("smoke")


def test_configurations_list_only_what_they_use():
    every = [each for part in parts.PARTS.values() for each in part("sample")]
    for each in every:
        updates = {name for name in each.parameters if name.startswith("update_")}
        assert bool(updates) == (each.procedure is LEARN), each.name
        assert not {"reads", "models", "tiers", "profile"} & set(each.parameters), each.name
        assert ("history_length" in each.parameters) == (each.parameters.get("model") in ("nrms", "mf_features")), each
        assert ("hidden" in each.parameters) == (each.parameters.get("model") == "mlp"), each.name
        assert ("epochs" in each.parameters) == (each.procedure in (TRAIN, TUNE)), each.name
        assert ("rounds" in each.parameters) == (each.procedure is BOOST), each.name
    by_name = {}
    for each in every:
        assert by_name.setdefault(each.name, each) == each, "one name, one configuration"


def test_each_group_is_left_out_once_and_sentiment_in_every_tier():
    found = parts.left_out("sample")
    groups = {entry.title: entry.columns for entry in found if entry.title != "all of sentiment"}
    assert sorted(name for own in groups.values() for name in own) == sorted(allowed("clicks"))
    sentiment = {entry.full: set(entry.columns) for entry in found if entry.title == "all of sentiment"}
    assert set(sentiment) == {"mlp", "mlp_content", "mlp_exposure"}
    assert sentiment["mlp"] >= {"history_sentiment", "negative", "positive"}
    assert not sentiment["mlp"] & {"history_category", "age_hours"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hiden: [4]\n", r"wrong\.yaml: training mlp does not use the key 'hiden'; did you mean 'hidden'"),
        ("update_minutes: 15\n", "does not use the key 'update_minutes'"),
        ('model: "svd"\n', r"'svd' is none of the profile's: mf_ids, mf_features, mlp"),
        ("hidden: 4\n", r"hidden must be a list"),
        ("hidden: [4\n", "not valid YAML"),
    ],
)
def test_a_wrong_file_to_search_over_is_refused(text, message, tmp_path, monkeypatch):
    (tmp_path / "wrong.yaml").write_text(text)
    monkeypatch.setattr(search, "files", lambda: [tmp_path / "wrong.yaml"])
    with pytest.raises(ConfigError, match=message):
        search.candidates("smoke")


def test_the_files_of_the_repository_differ_from_the_profile_and_each_other():
    found = search.candidates("sample")
    assert len(found) == 1 + len(search.files()) >= 4
    changes = [json.dumps(search.changes_of(each, "sample")) for each in found]
    assert changes[0] == "{}" and len(set(changes)) == len(found)


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_must_be_different_numbers(tmp_path, seeds):
    with pytest.raises(ConfigError, match="as in 0,1,2"):
        module.study(list(seeds), tmp_path, "smoke", "smoke")


@pytest.mark.parametrize("wanted", [[], ["seeds", "seeds"], ["group"]])
def test_parts_must_be_known_and_different(tmp_path, wanted):
    with pytest.raises(ConfigError, match="different ones of seeds,groups,training,days,search"):
        module.study([0], tmp_path, "smoke", "smoke", wanted)


# What is computed and kept.


def test_a_killed_study_goes_on_where_it_stopped(killed, original):
    before = killed[1]
    assert before and len(before) < len(SCORERS)
    after = times(original)
    assert {name: after[name] for name in before} == before, "what was done was not computed again"
    names = {row["name"] for row in results_of(original)["rows"]}
    assert names == {Path(name).stem for name in after} >= set(SCORERS)
    assert not list(original.glob(".prepared*"))


def test_a_second_study_computes_nothing_and_writes_the_same_bytes(done, run, monkeypatch):
    before, written = times(done), (done / "results.json").read_bytes()
    monkeypatch.setattr(cells, "prepared", None)  # called if anything were to be computed
    run(done)
    assert not changed(done, before)
    assert (done / "results.json").read_bytes() == written


def test_only_what_is_missing_or_spoilt_is_computed_and_comes_out_the_same(done, run):
    before, written = times(done), (done / "results.json").read_bytes()
    (done / "cells/seed-0/mf_ids_seed_1.json").unlink()
    (done / "cells/seed-0/mf_ids.json").write_text('{"key": "')
    (done / "cells/seed-0/mf_ids_learning/scores_mf_ids_learning.parquet").unlink()
    run(done)
    assert changed(done, before) == {"mf_ids_seed_1", "mf_ids", "mf_ids_learning"}
    assert (done / "results.json").read_bytes() == written


def test_a_cell_is_keyed_by_code_parameters_packages_data_and_the_cell_before(monkeypatch):
    known = {each.name: each for each in parts.scorers("smoke")}
    keys = lambda: {name: cells._key(each, "official", {"a": "1"}, None) for name, each in known.items()}  # noqa: E731
    before = keys()
    moved = lambda: {name for name, key in keys().items() if key != before[name]}  # noqa: E731
    assert not moved()
    with monkeypatch.context() as patch:
        real = cells.sha256
        patch.setattr(cells, "sha256", lambda file: "new" if file.match("models/mf.py") else real(file))
        assert moved() == {"mf_ids", "mf_features", "mf_features_content", "mf_features_exposure"}
        patch.setattr(cells, "sha256", lambda file: "new" if file.match("evaluation/reference.py") else real(file))
        assert moved() == {"lightgbm"}
        patch.setattr(cells, "sha256", lambda file: "new" if file.match("training/online.py") else real(file))
        assert moved() == {"mf_ids_learning", "mf_features_learning", "mlp_learning"}
        patch.setattr(cells, "sha256", lambda file: "new" if file.match("study/page.py") else real(file))
        assert not moved()
    for package, names in (("torch", set(known) - {"lightgbm"}), ("lightgbm", {"lightgbm"}), ("numpy", set(known))):
        with monkeypatch.context() as patch:
            real = cells._version
            patch.setattr(cells, "_version", lambda name, of=package, real=real: "0" if name == of else real(name))
            assert moved() == names
    mlp = known["mlp"]
    other = replace(mlp, parameters={**mlp.parameters, "hidden": [1]})
    given = [
        (other, "official", {"a": "1"}, None), (mlp, "quantile", {"a": "1"}, None),
        (mlp, "official", {"a": "2"}, None), (mlp, "official", {"a": "1"}, "before"),
        (replace(mlp, procedure=TUNE), "official", {"a": "1"}, None),
    ]  # fmt: skip
    assert len({before["mlp"], *(cells._key(*each) for each in given)}) == 6


def test_a_changed_parameter_recomputes_its_configuration_and_counts_as_tried(done, run):
    def wider(name):
        small = {"embedding_size": 2, "epochs": 1}
        return [replace(c, parameters={**c.parameters, **small}) for c in parts.scorers(name) if c.name == "mf_ids"]

    before, tried = times(done), results_of(done)["tried"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(parts.PARTS, "seeds", wider)
        found = run(done, wanted=["seeds"])
    assert changed(done, before) == {"mf_ids"} and found["tried"] == tried + 1
    assert f"Configurations tried</dt><dd>{tried + 1}<" in (done / "report.html").read_text()


def test_a_cell_that_fails_leaves_no_file_and_what_was_done_stays(done, run):
    def fail(configuration, where):
        (where.folder / "scores_mlp.parquet").write_bytes(b"half")
        raise StageError("broken off")

    def broken(name):
        every = parts.scorers(name)
        return [replace(c, procedure=Procedure(fail, ())) if c.name == "mlp" else c for c in every]

    before = times(done)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StageError, match="broken off"):
        patch.setitem(parts.PARTS, "seeds", broken)
        run(done, wanted=["seeds"])
    assert times(done) == {name: stamp for name, stamp in before.items() if name != "cells/seed-0/mlp.json"}
    assert not list(done.glob(".prepared*"))


def test_bundles_are_the_generators(original, smoke_bundle):
    for file in smoke_bundle.rglob("*.parquet"):
        name = file.relative_to(smoke_bundle)
        assert (original / "bundles" / "seed-0" / name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("reason", ["another seed", "older than the generator"])
def test_a_bundle_that_does_not_fit_is_made_anew_and_gives_the_same_cells(done, run, reason):
    bundle, before = done / "bundles/seed-0", times(done)
    stamp = bundle / "generated.json"
    if reason == "another seed":
        stamp.write_text(stamp.read_text().replace('"seed": 0', '"seed": 5'))
    else:
        os.utime(stamp, (0, 0))
    (bundle / "articles.parquet").write_bytes(b"to be replaced")
    run(done)
    assert (bundle / "articles.parquet").stat().st_size > 100 and not changed(done, before)


def test_an_incomplete_or_real_bundle_is_left_alone(done, run, tmp_path):
    (done / "bundles/seed-0/articles.parquet").unlink()
    with pytest.raises(BundleError, match=r"missing: articles\.parquet"):
        run(done)
    file = tmp_path / "real" / "bundles" / "seed-0" / "articles.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"mine")
    with pytest.raises(BundleError, match="left alone"):
        run(tmp_path / "real")
    assert file.read_bytes() == b"mine"


# The parts.


def test_groups_left_out_are_not_among_the_columns_of_the_model(original):
    found = results_of(original)
    full = set(load_model(original / "cells/seed-0/mlp/model_mlp.pt").columns)
    groups = {line["name"]: line for line in found["groups"]}
    assert set(groups) == {
        "mlp_without_age", "mlp_without_clicks", "mlp_without_sentiment", "mlp_content_without_sentiment",
        "mlp_exposure_without_sentiment",
    }  # fmt: skip
    for group in GROUPS:
        name = f"mlp_without_{group}"
        columns = load_model(original / f"cells/seed-0/{name}/model_{name}.pt").columns
        assert full - set(columns) == {c.name for c in every_column() if c.group == group}
        assert groups[name]["seen"] == len(columns) and groups[name]["left"] == len(full) - len(columns)
    auc = {row["name"]: row["validation"]["auc"] for row in found["rows"] if "validation" in row}
    for line in found["groups"]:
        (step,) = line["steps"]
        assert step["difference"] == pytest.approx(auc[step["to"]] - auc[line["name"]])
        assert step["difference_ci"][0] <= step["difference"] <= step["difference_ci"][1]


def test_the_latest_days_are_kept(smoke):
    slates = smoke.parts["train"]
    rows = training_rows(slates, ground.warmup_for(slates, 48.0, 0.25))
    every = training_rows(slates, 48.0)
    span = (slates.time.max() - slates.time.min()) / HOUR - 48
    assert set(rows) < set(every)
    assert set(every) - set(rows) == set(every[slates.time[every] < slates.time.max() - int(0.25 * span * HOUR)])
    assert ground.warmup_for(slates, 48.0, 1.0) == 48.0


def test_the_learning_curve_has_days_and_impressions_of_each_share(original):
    lines = {(line["scorer"], line["share"]): line for line in results_of(original)["days"]}
    assert set(lines) == {(name, share) for name in ("mf_ids", "mf_features", "mlp") for share in (0.5, 1.0)}
    half, whole = lines["mlp", 0.5], lines["mlp", 1.0]
    assert half["days"] == pytest.approx(whole["days"] / 2, abs=0.001) and half["impressions"] < whole["impressions"]
    assert half["auc"] != whole["auc"] == next(s for s in results_of(original)["scorers"] if s["name"] == "mlp")["auc"]


def test_training_seeds_are_tabulated_on_one_bundle(original):
    found = {line["name"]: line for line in results_of(original)["training"]}
    assert set(found) == {"mf_ids", "mf_features", "mlp"}
    for line in found.values():
        first, second = line["auc"]
        assert line["seeds"] == [0, 1] and first != second
        assert line["spread"] == pytest.approx(abs(first - second))
        assert line["deviation"] == pytest.approx(abs(first - second) / np.sqrt(2))
    assert results_of(original)["training_noise"] == pytest.approx(found["mlp"]["spread"])


def test_a_search_is_decided_on_the_tuning_day_and_only_its_choice_is_judged_on_validation(original):
    found = results_of(original)
    table = found["search"]
    names = [line["name"] for line in table["candidates"]]
    assert sorted(names) == ["search_factors", "search_longer", "search_profile"] and table["tried"] == 3
    assert table["chosen"]["candidate"] == names[0] == max(table["candidates"], key=lambda line: line["mean"])["name"]
    for name in names:
        (row,) = [row for row in found["rows"] if row["name"] == name]
        assert "validation" not in row and not (original / f"cells/seed-0/{name}/scores_{name}.parquet").exists()
    judged = [row["name"] for row in found["rows"] if row["name"].startswith("chosen_")]
    assert judged == [table["chosen"]["name"]] == ["chosen_longer"]


def test_a_search_chooses_the_same_when_validation_changes(done, run):
    before = results_of(done)["search"]
    file = done / "bundles/seed-0/validation/behaviors.parquet"
    table = pq.read_table(file)
    last = [[shown[-1]] for shown in table["article_ids_inview"].to_pylist()]
    place = table.column_names.index("article_ids_clicked")
    kind = table.schema.field("article_ids_clicked").type
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(last, type=kind)), file)
    after = run(done, wanted=["search"])["search"]
    assert after["candidates"] == before["candidates"] and after["tried"] == before["tried"]
    assert after["chosen"]["name"] == before["chosen"]["name"]
    assert after["chosen"]["mean"] != before["chosen"]["mean"], "the perturbation was seen where it may be"


@pytest.mark.skipif(not reference.installed(), reason="LightGBM is optional: pip install 'lightgbm>=4.6'")
def test_with_lightgbm_all_claims_are_decided_and_every_step_has_its_interval(done, run):
    found = run(done, wanted=["seeds"], lightgbm=True)
    assert not found["left_out"] and len(found["rows"]) == len(SCORERS) + 1
    assert all(one["met"] in (True, False) for one in found["checks"])
    columns = {row["name"]: row["columns"] for row in found["rows"]}
    assert columns["lightgbm"] == columns["mlp"], "the same columns"


# What the report says.


def test_claims_of_every_model_are_held_against_the_figures(original):
    found = results_of(original)
    verdicts = {one["claim"]: one["met"] for one in found["checks"]}
    assert verdicts.pop("mlp ≥ lightgbm − .002") is None
    assert set(verdicts) == {
        "ids < content < exposure < clicks", "mf_ids learning on ≥ static + .12", "mf_ids learning on ≥ static",
        "mf_features learning on ≥ static", "mlp learning on ≥ static",
    }  # fmt: skip
    assert None not in verdicts.values()
    for step in [step for one in found["checks"] for line in one["seeds"] for step in line["steps"]]:
        assert step["difference_ci"][0] <= step["difference"] <= step["difference_ci"][1]


def test_the_report_stands_alone_and_shows_a_tier_and_how_much_was_tried_in_every_table(original):
    page = (original / "report.html").read_text()
    found = results_of(original)
    assert not re.search(r"https?://|<script|<link rel=\"stylesheet", page)
    assert "Generated data" in page and "seed 0," in page
    assert f"Configurations tried</dt><dd>{found['tried']}<" in page
    assert "3 configurations were tried" in page and "Best of 3 tried".lower() in page.lower()
    assert "pip install" in page, "how to get LightGBM"
    soup = BeautifulSoup(page, "html.parser")
    assert [h.get_text() for h in soup.find_all("h2")][:6] == [
        "Checks", "Scorers by bundle", "What groups of features are worth", "Training seeds", "Share of training days",
        "Search over parameter files",
    ]  # fmt: skip
    ranked = [table for table in soup.select("table.wide") if "claim" not in table.get_text()]
    assert len(ranked) == 6 and all("tier" in table.select_one("thead").get_text() for table in ranked)


def test_every_figure_of_the_report_stands_in_results_and_times_in_timings(original):
    def numbers(thing):
        if isinstance(thing, dict | list):
            return [n for each in (thing.values() if isinstance(thing, dict) else thing) for n in numbers(each)]
        return [thing] if isinstance(thing, int | float) and not isinstance(thing, bool) else []

    known = set()
    for value in numbers(results_of(original)):
        known |= {f"{value:.4f}", f"{value:+.4f}", f"{value:,.0f}", f"{value:.2f}"}
    soup = BeautifulSoup((original / "report.html").read_text(), "html.parser")
    shown = [cell.get_text(" ").strip() for cell in soup.select("td[data-number]")]
    times_shown = [text for text in shown if re.fullmatch(r"[\d.]+ s|\d+ min \d+ s", text)]
    figures = [n for text in shown if text not in times_shown for n in re.findall(r"[-+]?\d[\d,]*(?:\.\d+)?", text)]
    assert len(figures) > 200 and set(figures) <= known
    timings = json.loads((original / "timings.json").read_text())
    assert len(times_shown) == len(timings["cells"]) == results_of(original)["cells"]
    assert {f"{cell['seconds']:.1f} s" for cell in timings["cells"]} >= set(times_shown)
    assert "seconds" not in (original / "results.json").read_text()


NO_INTERVAL = lambda before, after, seed: (0.0, 0.0)  # noqa: E731


@pytest.mark.parametrize(
    ("least", "strict", "second", "met"),
    [
        (0.0, True, 0.71, True), (0.0, True, 0.7, False), (0.0, False, 0.7, True), (0.0, False, 0.6999, False),
        (-0.002, False, 0.6985, True), (-0.002, False, 0.6975, False), (0.12, False, 0.83, True),
        (0.12, False, 0.81, False),
    ],
)  # fmt: skip
def test_a_claim_must_hold_on_every_bundle(least, strict, second, met):
    auc = {"a": {0: 0.6, 1: 0.7}, "b": {0: 0.9, 1: second}}
    found = check(Claim("", ("a", "b"), least, strict), auc, [0, 1], NO_INTERVAL)
    assert found["met"] is met
    assert [line["met"] for line in found["seeds"]] == [True, met]
    assert found["mean"] == pytest.approx((0.3 + second - 0.7) / 2)


def test_a_claim_over_several_scorers_fails_at_its_smallest_step():
    auc = {"a": {0: 0.5}, "b": {0: 0.7}, "c": {0: 0.69}}
    found = check(Claim("", ("a", "b", "c"), strict=True), auc, [0], NO_INTERVAL)
    assert found["met"] is False and found["mean"] == pytest.approx(-0.01)
    assert [step["difference"] for step in found["seeds"][0]["steps"]] == pytest.approx([0.2, -0.01])


def test_the_interval_is_of_paired_differences_and_needs_the_same_impressions(tmp_path):
    users = 40
    impression = np.repeat(np.arange(users, dtype=np.uint32), 3)
    clicked = np.tile([True, False, False], users)
    behaviors = tmp_path / "behaviors.parquet"
    pd.DataFrame({"impression_id": np.arange(users, dtype=np.uint32)[::-1], "user_id": np.arange(users)}).to_parquet(
        behaviors
    )
    base = np.random.default_rng(0).random(users * 3)
    auc = {}
    for name, score in (("base", base), ("best", np.where(clicked, 2.0, 0.0)), ("same", base * 2)):
        pd.DataFrame({"impression_id": impression, "clicked": clicked, "score": score}).to_parquet(tmp_path / name)
        auc[name] = auc_by_impression(tmp_path / name)
    low, high = paired_interval(auc["base"], auc["best"], behaviors)
    others = base.reshape(-1, 3)
    mean = 1 - (others[:, :1] > others[:, 1:]).mean()
    assert 0 < low < mean < high < 1
    assert paired_interval(auc["base"], auc["same"], behaviors) == (0.0, 0.0)
    with pytest.raises(StageError, match="different impressions"):
        paired_interval(auc["base"], auc["best"].iloc[1:], behaviors)


def test_the_command_passes_its_options_on(monkeypatch, tmp_path):
    heard = []
    monkeypatch.setattr(module, "study", lambda *given: heard.append(given))
    options = ["--seeds", "3,4", "--out", str(tmp_path), "--size", "smoke"]
    assert main(["study", *options, "--parts", "days,search"]) == 0
    assert main(["study", "--out", str(tmp_path)]) == 0
    assert heard == [
        ([3, 4], tmp_path, "smoke", "smoke", ["days", "search"]), ([0, 1, 2], tmp_path, "demo", "sample", None),
    ]  # fmt: skip
    with pytest.raises(SystemExit):
        main(["study", "--seeds", "one"])
