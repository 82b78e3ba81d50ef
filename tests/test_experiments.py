"""Variations of a stage: files, selections, copies for JupyterLab, removing outputs, variables of make."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from runs import start_holder

from ebnerd_lib.errors import ConfigError, LockedError
from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline import run as runner
from ebnerd_lib.pipeline.experiments import clean, keep, select, write_variant
from ebnerd_lib.pipeline.lab import write_copies
from ebnerd_lib.pipeline.params import load_config, load_profile, read_assignments
from ebnerd_lib.pipeline.paths import ROOT, StagePaths, acquire, release

NEW = "03_train_mlp.mine"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project without data and outputs."""
    for name in ("notebooks", "params", "templates"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


def write(stage, text, profile="sample"):
    write_variant(profile, stage, read_assignments(text, "SET"), "SET")


def test_a_variant_is_written_with_what_it_changes_and_what_that_means(project):
    write(NEW, "hidden=[8, 4]; training.id_dropout=1.0e-3; tier=exposure; training.patience=2")
    file = project / "params" / "sample" / f"{NEW}.yaml"
    changes = {"hidden": [8, 4], "training.id_dropout": 0.001, "training.patience": 2, "tier": "exposure"}
    assert load_config("sample", NEW).changes == changes
    lines = file.read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z_]+:|( {2})?[a-z_]+: \S.*  # \S.*", line)] == []
    before = file.read_bytes()
    write(NEW, "tier=exposure; hidden=[8,4]; training={patience: 2, id_dropout: 0.001}")
    with pytest.raises(ConfigError, match=re.escape(file.name)):
        write(NEW, "hidden=[8]")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("stage", "text", "named"),
    [
        (NEW, "dropuot=0.2", "'dropout'"),
        (NEW, "dropout=2", "dropout"),
        (NEW, " ; ", "no parameter"),
        ("03_train_mpl.mine", "dropout=0.2", "'03_train_mlp'"),
        ("03_train_mlp", "dropout=0.2", "03_train_mlp.wide"),
        ("03_train_mlp.lab3", "dropout=0.2", "lab3"),
        ("../notebooks/03_train_mlp.mine", "dropout=0.2", "03_train_mlp"),
        ("04_recommend.mine", "models=[mlpp]", "'mlp'"),
        ("03_train_news.mlp_exposure", 'model="nrms"', "as 03_train_mlp.exposure does"),
    ],
)
def test_a_variant_that_is_refused_leaves_no_file(project, stage, text, named):
    before = sorted(project.rglob("*"))
    with pytest.raises(ConfigError, match=named):
        write(stage, text)
    assert sorted(project.rglob("*")) == before


def test_a_run_by_hand_is_kept_as_what_it_changes(project):
    own = load_config("smoke", "03_train_mlp").parameters
    manifest = StagePaths("smoke", "03_train_mlp.lab1").manifest
    paths.write_json(manifest, {"parameters": {**own, "hidden": [8], "trainer": {**own["trainer"], "devices": 2}}})
    keep("smoke/03_train_mlp.lab1", NEW)
    kept = load_config("smoke", NEW)
    assert kept.changes == {"hidden": [8], "trainer.devices": 2, "update_minutes": 1440}, "online is not inherited"
    for run, new in (("smoke/03_train_mlp.lab2", NEW), ("smoke/03_train_mlp.lab1", "02_train_mf.mine")):
        with pytest.raises(ConfigError, match=re.escape(run)):
            keep(run, new)


CONFIGS = load_profile("smoke")
FIRST, OTHER, ONE = "01_preprocess", "02_train_mf.ids", "03_train_mlp.exposure"
LAST = {"05_compare", "06_explore"}


def test_a_selection_runs_what_it_names_and_what_that_needs():
    assert select(CONFIGS) == (set(CONFIGS), set(CONFIGS))
    assert select(CONFIGS, only=ONE) == ({ONE}, {FIRST, ONE})
    assert select(CONFIGS, only=f"03_train_mlp.* {OTHER}")[0] == {ONE, "03_train_mlp.live", OTHER}
    assert select(CONFIGS, start=ONE) == ({ONE, *LAST}, {FIRST, ONE, *LAST})
    for choice, named in (({"only": "03_trian_mlp"}, "'03_train_mlp'"), ({"only": "a", "start": "b"}, "ONLY=a")):
        with pytest.raises(ConfigError, match=named):
            select(CONFIGS, **choice)


def started(monkeypatch, stale, force=False, **choice):
    """The stages that a run starts where some are stale, and those that it leaves."""
    monkeypatch.setattr(runner, "fingerprint", lambda config, hashes: config.stage)
    monkeypatch.setattr(runner, "is_fresh", lambda config, wanted, hashes: config.stage not in stale)
    asked, may_run = select(CONFIGS, **choice)
    one, stages = runner._Run("smoke", CONFIGS, may_run, asked if force else set(), 1, {}), set()
    for stage in CONFIGS:
        if one._stale(stage):
            stages.add(stage)
            one.ended[stage] = runner.COMPLETE
    return stages, [stage for stage, how in one.ended.items() if how == runner.LEFT]


def test_a_selection_runs_stale_inputs_and_leaves_readers_of_other_stale_stages(project, monkeypatch, capsys):
    assert started(monkeypatch, {ONE}, start=ONE) == ({ONE}, [])
    assert started(monkeypatch, {ONE, FIRST}, only=ONE) == ({ONE, FIRST}, [])
    assert started(monkeypatch, set(), start=ONE, force=True) == ({ONE, *LAST}, [])
    assert started(monkeypatch, {ONE, OTHER}, only="05_compare", force=True) == ({ONE, OTHER, "05_compare"}, [])
    capsys.readouterr()
    assert started(monkeypatch, {ONE, OTHER}, start="03_train_mlp.*") == ({ONE}, [OTHER, "05_compare", "06_explore"])
    assert all(line.startswith(tuple(LAST)) and OTHER in line for line in capsys.readouterr().out.splitlines())


def cells(file, source=None):
    """The cells of a copy; with a source, the cell of parameters is given it."""
    content = json.loads(file.read_text())
    (own,) = [cell for cell in content["cells"] if "injected-parameters" in cell["metadata"].get("tags", [])]
    if source is not None:
        own["source"] = source
        file.write_text(json.dumps(content))
    return content["cells"], own


def test_copies_for_jupyterlab_have_the_parameters_and_what_was_edited_is_kept(project):
    sources = {file: file.read_bytes() for file in (project / "notebooks").iterdir()}
    write_copies("smoke")
    copies = {stage: project / "outputs" / "smoke" / "lab" / f"{stage}.ipynb" for stage in load_profile("smoke")}
    for stage, config in load_profile("smoke").items():
        namespace = {}
        exec("".join(cells(copies[stage])[1]["source"]), namespace)  # noqa: S102 a cell of parameters
        assert {name: namespace[name] for name in config.parameters} == config.parameters
    edited, opened, run = copies["03_train_mlp"], copies["03_train_mlp.exposure"], copies["03_train_mlp.live"]
    cells(edited, "hidden = [3]")
    content = json.loads(opened.read_text())
    opened.write_text(json.dumps(content | {"metadata": content["metadata"] | {"language_info": {"name": "python"}}}))
    content = json.loads(run.read_text())
    content["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "0.7"}]
    run.write_text(json.dumps(content))
    before = {file: file.read_bytes() for file in (edited, run)}
    parameters = project / "params" / "smoke" / "03_train_mlp.yaml"
    parameters.write_text(parameters.read_text() + "dropout: 0.3\n")
    told = write_copies("smoke")
    assert {file: file.read_bytes() for file in (edited, run)} == before
    assert len(told) == 3 and all(file.name in told[place] for place, file in enumerate((edited, run)))
    assert "dropout = 0.3" in "".join(cells(opened)[1]["source"]), "opened, but neither edited nor run"
    assert {file: file.read_bytes() for file in (project / "notebooks").iterdir()} == sources
    edited.write_text("{")
    write_copies("smoke")
    assert edited.read_text() == "{"


def test_clean_removes_what_is_named_and_nothing_else(project):
    outputs, stages = project / "outputs" / "smoke", ("03_train_mlp", "03_train_mlp.lab1", "03_train_mlp.wide")
    for stage in stages:
        own = StagePaths("smoke", stage)
        for file in (own.artifacts / "a.pt", own.logs / "a.csv", own.executed, own.report, own.failed):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("{}")
    for name in ("history.jsonl", "lab/mine.ipynb", "logs/hashes.json"):
        (outputs / name).parent.mkdir(exist_ok=True)
        (outputs / name).write_text("{}")
    other = StagePaths("smoke", "03_train_mlp.wide")
    assert clean("smoke", "03_train_mlp") == ["03_train_mlp"]
    assert clean("smoke", "*.lab*") == ["03_train_mlp.lab1"]
    left = {other.artifacts, other.logs, other.executed, other.report, other.failed}
    assert {*outputs.rglob("*03_train_mlp*")} == left
    assert (outputs / "history.jsonl").exists() and (outputs / "logs" / "hashes.json").exists()
    for profile, stage, named in (("smoke", "03_train_mlp.wid", "wide'"), ("smok", "", "smoke"), ("..", "", "smoke")):
        with pytest.raises(ConfigError, match=named):
            clean(profile, stage)
    for held in (other.lock, other.logs / "seeds.lock"):
        with start_holder(held) as process:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(LockedError):
                clean("smoke")
            process.stdin.close()
    assert (other.artifacts / "a.pt").exists()
    assert clean("smoke") == ["03_train_mlp.wide"]
    assert {path.name for path in outputs.iterdir()} == {"lab", "index.html"}
    acquire(other.lock, "a later run")
    release(other.lock)


def make(*words, **environment):
    told = {**os.environ, **environment}
    words = ["make", "-n", *words, f"PYTHON={sys.executable}"]
    return subprocess.run(words, cwd=ROOT, env=told, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        ("run-all PROFIL=smoke", "PROFILE"),
        ("clean PROFIL=smoke", "PROFILE"),
        ("run-all ONYL=03_train_mlp", "ONLY"),
        ("lab SET=a=1", "PORT PROFILE"),
        ("test STAGE=03_train_mlp", "none"),
    ],
)
def test_a_variable_without_effect_is_refused(words, nearest):
    done = make(*words.split())
    assert done.returncode == 2 and nearest in done.stderr and not done.stdout


def test_variables_reach_their_verbs_and_those_of_other_programs_do_not():
    done = make("run-all", "PROFILE=smoke", f"NEW={NEW}", "SET=tier='ids'; hidden=[8]", "FORCE=1")
    assert done.returncode == 0 and '--new "$NEW"' in done.stdout and '--set "$SET"' in done.stdout
    assert "--force" in done.stdout and "--only" not in done.stdout
    assert "--force" not in make("run-all", "PROFILE=smoke", FORCE="1").stdout + make("run-all", "FORCE=0").stdout
    assert "rm -rf" in make("clean", STAGE="prod").stdout
    for own in (make("clean", "STAGE=03_train_mlp"), make("clean", "PROFILE=smoke"), make("clean", PROFILE="smoke")):
        assert own.returncode == 0 and "rm -rf" not in own.stdout and "ebnerd_lib clean" in own.stdout
