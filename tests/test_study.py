"""The study: what is computed, what is kept, what the report says, and how claims are held against figures."""

import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ebnerd_lib.__main__ import main
from ebnerd_lib.errors import BundleError, ConfigError, StageError
from ebnerd_lib.evaluation import reference
from ebnerd_lib.pipeline import study as module
from ebnerd_lib.pipeline.study import TRAIN, Claim, Procedure, check, configurations, paired_interval, study

FEW = ("mf_ids", "mlp_content", "mlp")


def few(profile):
    """Three small networks: what there is to see of a study shows on them."""
    return [replace(c, parameters={**c.parameters, "epochs": 1}) for c in configurations(profile) if c.name in FEW]


def run(out, seeds=(0, 1), chosen=few):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "configurations", chosen)
        return study(list(seeds), out, "smoke", "smoke")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    run(out)
    return out


@pytest.fixture
def done(original, tmp_path):
    """A finished study of its own for a test; times of files are kept, so bundles are not generated again."""
    shutil.copytree(original, tmp_path / "out")
    return tmp_path / "out"


def cell(out, seed, name):
    return json.loads((out / "cells" / f"seed-{seed}" / f"{name}.json").read_text())


def times(out):
    return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in out.glob("cells/*/*.json")}


def test_the_configurations_are_those_of_the_profile():
    found = {each.name: each for each in configurations("sample")}
    assert {name: each.tier for name, each in found.items()} == {
        "mf_ids": "ids", "mf_features": "clicks", "mlp_content": "content", "mlp_exposure": "exposure",
        "mlp": "clicks", "lightgbm": "clicks",
    }  # fmt: skip
    assert found["mlp"].parameters["hidden"] == [128, 64]
    assert {each.name: each for each in configurations("smoke")}["mlp"].parameters["hidden"] == [16, 8]
    assert found["lightgbm"].parameters["warmup_hours"] == found["mlp"].parameters["warmup_hours"] == 48.0
    claimed = {name for claim in module.CLAIMS for name in claim.order}
    assert claimed <= set(found)


def test_a_variant_is_one_more_line():
    variant = module._network("smoke", "02_train_mf", "mf_ids", "clicks", "mf_ids_learning", update_minutes=60)
    assert (variant.name, variant.tier, variant.procedure) == ("mf_ids_learning", "clicks", TRAIN)
    assert variant.parameters["update_minutes"] == 60 and variant.parameters["model"] == "mf_ids"


def test_every_seed_has_a_row_of_every_configuration_and_times_stand_apart(original):
    results = json.loads((original / "results.json").read_text())
    assert [(row["seed"], row["name"]) for row in results["rows"]] == [(s, n) for s in (0, 1) for n in FEW]
    for row in results["rows"]:
        low, high = row["validation"]["auc_ci"]
        assert low <= row["validation"]["auc"] <= high and 0 < row["tuning"]["auc"] < 1
    assert "seconds" not in (original / "results.json").read_text()
    timings = json.loads((original / "timings.json").read_text())
    assert [(entry["seed"], entry["name"]) for entry in timings["cells"]] == [(s, n) for s in (0, 1) for n in FEW]
    assert all(entry["seconds"] > 0 for entry in timings["cells"])


def test_mean_and_spread_are_over_the_seeds(original):
    results = json.loads((original / "results.json").read_text())
    for scorer in results["scorers"]:
        auc = [row["validation"]["auc"] for row in results["rows"] if row["name"] == scorer["name"]]
        assert scorer["auc"] == auc and len(auc) == 2
        assert scorer["mean"] == pytest.approx(sum(auc) / 2)
        assert scorer["spread"] == pytest.approx(abs(auc[0] - auc[1]))


def test_bundles_are_the_generators_and_nothing_else_is_left_behind(original, smoke_bundle):
    for file in smoke_bundle.rglob("*.parquet"):
        name = file.relative_to(smoke_bundle)
        assert (original / "bundles" / "seed-0" / name).read_bytes() == file.read_bytes()
    assert not [path.name for path in original.iterdir() if path.name.startswith(".")]


def test_a_second_study_computes_nothing_and_writes_the_same_bytes(done, monkeypatch):
    before, results = times(done), (done / "results.json").read_bytes()
    monkeypatch.setattr(module, "_prepared", None)  # called if anything were to be computed
    run(done)
    assert times(done) == before
    assert (done / "results.json").read_bytes() == results


def test_only_what_is_missing_or_spoilt_is_computed_and_comes_out_the_same(done):
    before, results = times(done), (done / "results.json").read_bytes()
    (done / "cells/seed-1/mlp.json").unlink()
    (done / "cells/seed-0/mf_ids.json").write_text('{"key": "')
    (done / "cells/seed-0/mlp/scores_mlp.parquet").unlink()
    run(done)
    changed = {name for name, stamp in times(done).items() if before[name] != stamp}
    assert changed == {"cells/seed-1/mlp.json", "cells/seed-0/mf_ids.json", "cells/seed-0/mlp.json"}
    assert (done / "results.json").read_bytes() == results


def test_a_changed_parameter_recomputes_its_configuration_and_counts_as_tried(done):
    def wider(profile):
        return [
            replace(c, parameters={**c.parameters, "embedding_size": 2}) if c.name == "mlp" else c for c in few(profile)
        ]

    before = times(done)
    run(done, chosen=wider)
    changed = {name for name, stamp in times(done).items() if before[name] != stamp}
    assert changed == {"cells/seed-0/mlp.json", "cells/seed-1/mlp.json"}
    page = (done / "report.html").read_text()
    assert re.search(r"Configurations tried</dt><dd>4, of which 3 are shown<", page)


def test_changed_code_recomputes_what_runs_it(done, monkeypatch):
    before = times(done)
    real = module.sha256
    monkeypatch.setattr(module, "sha256", lambda file: "new" if file.match("models/mf.py") else real(file))
    run(done)
    changed = {name for name, stamp in times(done).items() if before[name] != stamp}
    assert changed == {"cells/seed-0/mf_ids.json", "cells/seed-1/mf_ids.json"}


@pytest.mark.parametrize("reason", ["another seed", "older than the generator"])
def test_a_bundle_that_does_not_fit_is_made_anew_and_gives_the_same_cells(done, reason):
    bundle, before = done / "bundles/seed-0", times(done)
    stamp = bundle / "generated.json"
    if reason == "another seed":
        stamp.write_text(stamp.read_text().replace('"seed": 0', '"seed": 5'))
    else:
        os.utime(stamp, (0, 0))
    (bundle / "articles.parquet").write_bytes(b"to be replaced")
    run(done, (0,))
    assert (bundle / "articles.parquet").stat().st_size > 100 and times(done) == before


def test_another_bundle_under_the_same_stamp_is_computed_anew(done):
    shutil.copytree(done / "bundles/seed-1/train", done / "bundles/seed-0/train", dirs_exist_ok=True)
    row = cell(done, 0, "mf_ids")["row"]
    assert run(done, (0,), lambda profile: few(profile)[:1])["rows"][0] != row
    (done / "bundles/seed-0/articles.parquet").unlink()
    with pytest.raises(BundleError, match=r"missing: articles\.parquet"):
        run(done, (0,))


def test_a_cell_that_fails_leaves_no_file_and_what_was_done_stays(done):
    def fail(configuration, ground):
        (ground.folder / "scores_mlp.parquet").write_bytes(b"half")
        raise StageError("broken off")

    broken = Procedure(fail, TRAIN.modules)
    before = times(done)
    with pytest.raises(StageError, match="broken off"):
        run(done, chosen=lambda profile: [replace(c, procedure=broken) if c.name == "mlp" else c for c in few(profile)])
    assert times(done) == {name: stamp for name, stamp in before.items() if name != "cells/seed-0/mlp.json"}
    assert not list(done.glob(".prepared*"))


def test_real_data_in_the_place_of_a_bundle_is_left_alone(tmp_path):
    file = tmp_path / "bundles" / "seed-0" / "articles.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"mine")
    with pytest.raises(BundleError, match="left alone"):
        run(tmp_path, seeds=(0,))
    assert file.read_bytes() == b"mine"


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_must_be_different_numbers(tmp_path, seeds):
    with pytest.raises(ConfigError, match="as in 0,1,2"):
        run(tmp_path, seeds)


def test_the_report_stands_alone_and_shows_figures_checks_and_how_much_was_tried(original):
    page = (original / "report.html").read_text()
    results = json.loads((original / "results.json").read_text())
    assert not re.search(r"https?://|<script|<link rel=\"stylesheet", page)
    assert "Generated data" in page and "seed 0, 1," in page
    assert re.search(r"Configurations tried</dt><dd>3<", page)
    for scorer in results["scorers"]:
        cells = "".join(rf"<td data-number>{value:.4f}</td>\s*" for value in (*scorer["auc"], scorer["mean"]))
        assert re.search(rf"{scorer['name']}</th><td>{scorer['tier']}</td>\s*{cells}", page), scorer["name"]
    assert page.count("not tried") == len(module.CLAIMS)  # each has a scorer that these few lack
    assert "ids &lt; content &lt; exposure &lt; clicks" in page


def test_without_lightgbm_the_rest_is_done_and_the_report_says_how_to_get_it(original, tmp_path, monkeypatch, capsys):
    shutil.copytree(original, tmp_path / "out")
    monkeypatch.setattr(reference, "installed", lambda: False)
    found = run(tmp_path / "out", (0,), lambda profile: [*few(profile), configurations(profile)[-1]])
    assert set(found["left_out"]) == {"lightgbm"} and {row["name"] for row in found["rows"]} == set(FEW)
    assert "pip install" in (tmp_path / "out/report.html").read_text()
    assert "lightgbm is left out" in capsys.readouterr().out


@pytest.mark.skipif(not reference.installed(), reason="LightGBM is optional: pip install 'lightgbm>=4.6'")
def test_with_lightgbm_both_claims_are_decided_and_every_step_has_its_interval(tmp_path, smoke_bundle):
    shutil.copytree(smoke_bundle, tmp_path / "out/bundles/seed-0")
    found = run(
        tmp_path / "out",
        (0,),
        lambda profile: [
            replace(c, parameters={**c.parameters, "epochs": 1, "rounds": 20}) for c in configurations(profile)
        ],
    )
    assert len(found["rows"]) == 6 and not found["left_out"]
    assert all(one["met"] in (True, False) for one in found["checks"])
    steps = [step for one in found["checks"] for line in one["seeds"] for step in line["steps"]]
    assert len(steps) == 4
    for step in steps:
        assert step["difference_ci"][0] <= step["difference"] <= step["difference_ci"][1]
    page = (tmp_path / "out/report.html").read_text()
    assert all(f"{step['difference']:+.4f}" in page for step in steps)


NO_INTERVAL = lambda before, after, seed: (0.0, 0.0)  # noqa: E731


@pytest.mark.parametrize(
    ("slack", "second", "met"),
    [(0.0, 0.71, True), (0.0, 0.7, False), (0.002, 0.6985, True), (0.002, 0.6975, False)],
)
def test_a_claim_must_hold_on_every_bundle(slack, second, met):
    auc = {"a": {0: 0.6, 1: 0.7}, "b": {0: 0.9, 1: second}}
    found = check(Claim("", ("a", "b"), slack), auc, [0, 1], NO_INTERVAL)
    assert found["met"] is met
    assert [line["met"] for line in found["seeds"]] == [True, met]
    assert found["mean"] == pytest.approx((0.3 + second - 0.7) / 2)


def test_a_claim_over_several_scorers_fails_at_its_smallest_step():
    auc = {"a": {0: 0.5}, "b": {0: 0.7}, "c": {0: 0.69}}
    found = check(Claim("", ("a", "b", "c")), auc, [0], NO_INTERVAL)
    assert found["met"] is False and found["mean"] == pytest.approx(-0.01)
    assert [step["difference"] for step in found["seeds"][0]["steps"]] == pytest.approx([0.2, -0.01])


def test_the_interval_is_of_paired_differences_and_needs_the_same_impressions(tmp_path):
    users = 40
    impression = np.repeat(np.arange(users, dtype=np.uint32), 3)
    clicked = np.tile([True, False, False], users)
    pd.DataFrame({"impression_id": np.arange(users, dtype=np.uint32)[::-1], "user_id": np.arange(users)}).to_parquet(
        tmp_path / "behaviors.parquet"
    )
    base = np.random.default_rng(0).random(users * 3)
    best = np.where(clicked, 2.0, 0.0)
    for name, score in (("base", base), ("best", best), ("same", base * 2)):
        pd.DataFrame({"impression_id": impression, "clicked": clicked, "score": score}).to_parquet(tmp_path / name)
    low, high = paired_interval(tmp_path / "base", tmp_path / "best", tmp_path / "behaviors.parquet")
    others = base.reshape(-1, 3)
    mean = 1 - (others[:, :1] > others[:, 1:]).mean()
    assert 0 < low < mean < high < 1
    assert paired_interval(tmp_path / "base", tmp_path / "same", tmp_path / "behaviors.parquet") == (0.0, 0.0)
    pd.read_parquet(tmp_path / "best").iloc[3:].to_parquet(tmp_path / "short")
    with pytest.raises(StageError, match="different impressions"):
        paired_interval(tmp_path / "base", tmp_path / "short", tmp_path / "behaviors.parquet")


def test_the_command_passes_its_options_on(monkeypatch, tmp_path):
    heard = []
    monkeypatch.setattr(module, "study", lambda *given: heard.append(given))
    options = ["--seeds", "3,4", "--out", str(tmp_path), "--size", "smoke", "--profile", "smoke"]
    assert main(["study", *options]) == 0
    assert heard == [([3, 4], tmp_path, "smoke", "smoke")]
    with pytest.raises(SystemExit):
        main(["study", "--seeds", "one"])
