"""Searches over parameters: each has its own journal, resumes, and loses no trial where a process is killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from runs import copy_of, wait_until

from ebnerd_lib.configs import flat
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.pipeline import paths, tune
from ebnerd_lib.pipeline.params import base_config, read_assignments, with_values
from ebnerd_lib.pipeline.paths import holder
from ebnerd_lib.pipeline.tune import Search

SPACE = {"dropout": {"low": 0.0, "high": 0.5}, "hidden": [[8], [16, 8]], "training.weight_decay": [0.01, 0.1]}


class FakeAside:
    """Trains nothing: two epochs, whose AUC is one minus the dropout; the class notes what was trained."""

    trained: list[dict] = []  # noqa: RUF012
    fault: BaseException | None = None

    def __init__(self, profile, preprocessed):
        pass

    def train(self, parameters, logs, name, report=None):
        (logs / name).mkdir(parents=True)
        if FakeAside.fault is not None:
            fault, FakeAside.fault = FakeAside.fault, None
            raise fault
        auc = 1.0 - parameters["dropout"]
        for epoch in (1, 2):
            report({"step": "a share of an epoch", "share": 0.5})
            report({"epoch": epoch, "epochs": 3, "val/auc": auc - 0.001 * (3 - epoch)})
        FakeAside.trained.append(parameters)
        return SimpleNamespace(curve=pd.DataFrame({"val/auc": [auc - 0.001, auc]})), None


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with the parameters of smoke, in which trainings cost nothing; ``prints`` are the fingerprints."""
    for name in ("notebooks", "params"):
        shutil.copytree(paths.ROOT / name, tmp_path / name)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(tune, "Aside", FakeAside)
    monkeypatch.setattr(FakeAside, "trained", [])
    monkeypatch.setattr(tune, "fingerprint", lambda config, hashes: f"{config.parameters}")
    return tmp_path


def states(search):
    return [trial.state for trial in search.study.trials]


def test_a_search_is_of_one_stage_on_one_data_set_over_one_space(project, monkeypatch):
    def folder(stage="03_train_mlp", space=SPACE, seed=0):
        return Search("smoke", stage, space, seed).folder

    folders = [folder(), folder("03_train_mlp.exposure"), folder(space={"dropout": [0.1]}), folder(space={})]
    assert folder(seed=7) == folders[0]
    file = project / "params" / "smoke" / "03_train_mlp.yaml"
    file.write_text(file.read_text() + "learning_rate: 3.0e-3\n")
    folders.append(folder())
    monkeypatch.setattr(tune, "fingerprint", lambda config, hashes: "other data")
    assert len({*folders, folder()}) == 6


def test_trials_count_over_runs_and_the_first_has_the_stages_own_parameters(project):
    search = Search("smoke", "03_train_mlp", SPACE)
    search.run(3)
    assert search.config({}).parameters == FakeAside.trained[0]
    again = Search("smoke", "03_train_mlp", SPACE)
    again.run(5)
    again.run(5)
    assert len(FakeAside.trained) == 5 and states(again) == [TrialState.COMPLETE] * 5
    assert not list(search.folder.glob("trial-*")) and not list(search.folder.glob("*.holder"))
    table = again.table()
    assert len(table) == 5 and table["as it is"].sum() == 1 and table["AUC"].is_monotonic_decreasing
    assert set(SPACE) <= set(table.columns) and set(again.importance()) == set(SPACE)


def test_the_trial_of_a_process_that_ended_is_marked_as_failed_and_tried_again_first(project):
    search = Search("smoke", "03_train_mlp", SPACE)
    search.run(1)
    FakeAside.fault = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        search.run(3)
    Search("smoke", "03_train_mlp", SPACE).run(3)
    assert states(search) == [TrialState.COMPLETE, TrialState.FAIL, *[TrialState.COMPLETE] * 2]
    _, lost, again, _ = (trial.params for trial in search.study.trials)
    assert lost == again and len({str(trial.params) for trial in search.finished}) == 3
    assert not list(search.folder.glob("trial-*"))


def test_a_trial_that_cannot_be_trained_is_left_and_the_stage_itself_must_be(project):
    search = Search("smoke", "03_train_mlp", SPACE)
    FakeAside.fault = ConfigError("no memory")
    with pytest.raises(ConfigError, match="no memory"):
        search.run(2)
    search.run(1)
    FakeAside.fault = ConfigError("the loss is not finite")
    search.run(2)
    assert states(search) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    assert search.study.trials[2].params != search.study.trials[3].params, "not tried again"
    own = {name: value for name, value in flat(search.base.parameters).items() if name in SPACE}
    assert search.command(own).startswith("#"), "a command that changes nothing would be refused"


def test_a_trial_worse_than_the_median_stops_early_and_counts(project):
    search = Search("smoke", "03_train_mlp", {"dropout": {"low": 0.0, "high": 0.1}})
    search.run(5)
    search.study.enqueue_trial({"dropout": 0.1})
    search.run(6)
    assert states(search)[5] == TrialState.PRUNED and len(search.finished) == 6
    assert search.table()["stopped early"].sum() == 1 and not list(search.folder.glob("trial-*"))


def test_the_command_for_the_winner_makes_its_parameters(project):
    for stage, new in (
        ("03_train_mlp", "03_train_mlp.tuned"),
        ("03_train_mlp.exposure", "03_train_mlp.exposure_tuned"),
    ):
        search = Search("smoke", stage, SPACE)
        values = {"hidden": [64, 32], "dropout": 0.25, "training.weight_decay": 1e-05}
        found = re.fullmatch(r'make run-all PROFILE=smoke NEW=(\S+) SET="(.*)"', search.command(values))
        assert found[1] == new
        made = with_values(base_config("smoke", new), read_assignments(found[2], "SET"), "SET").parameters
        wanted = search.config(values).parameters
        assert {**made, "update_minutes": None, "online": None} == {**wanted, "update_minutes": None, "online": None}


def test_a_space_that_fits_no_stage_is_refused_and_every_training_notebook_has_one_that_does(project):
    for space in ({"droput": [0.1]}, {"dropout": [0.1, 2.0]}, {"dropout": {"low": 0.5, "high": 0.1}}):
        with pytest.raises(ConfigError, match="drop"):
            Search("smoke", "03_train_mlp", space)
    with pytest.raises(ConfigError, match="03_train_mlp"):
        Search("smoke", "03_train_mpl")
    (project / "params" / "smoke" / "03_train_trees.yaml").touch()
    stages = [("smoke", "02_train_mf.ids"), ("smoke", "03_train_mlp"), ("smoke", "03_train_trees")]
    for profile, stage in [*stages, ("news", "03_train_news.nrms")]:
        assert Search(profile, stage).space


@pytest.mark.slow
def test_of_two_processes_one_is_killed_and_restarted_and_no_trial_is_lost_or_run_twice(finished, tmp_path):
    project, trials = copy_of(finished, tmp_path / "p", "data", "outputs"), 6
    words = ["-m", "ebnerd_lib", "tune", "--profile", "smoke", "--stage", "03_train_mlp", "--trials", str(trials)]

    def start():
        environment = {**os.environ, "PYTHONPATH": str(project)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([sys.executable, *words], cwd=project, env=environment, **pipes)

    def running(process):
        for journal in (project / "outputs" / "smoke" / "logs" / "tune").glob("*/journal.log"):
            study = optuna.load_study(study_name=None, storage=JournalStorage(JournalFileBackend(str(journal))))
            for trial in study.get_trials(states=(TrialState.RUNNING,)):
                if f"pid {process.pid} " in holder(journal.with_name(f"trial-{trial.number}.lock")):
                    return study
        return None

    first, second = start(), start()
    wait_until(lambda: running(second), second, 300)
    study = running(second)
    assert study is not None, "it was in the middle of a trial"
    os.kill(second.pid, signal.SIGKILL)
    second.wait()
    third = start()
    outputs = [process.communicate(timeout=600)[0] for process in (first, third)]
    assert first.returncode == third.returncode == 0, outputs
    done = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    failed = study.get_trials(states=(TrialState.FAIL,))
    assert len(done) == trials and len(failed) == 1 and len(study.trials) == trials + 1
    assert len({str(trial.params) for trial in done}) == trials
    assert failed[0].params in [trial.params for trial in done]
    left = [path.name for path in (project / "outputs" / "smoke" / "logs" / "tune").glob("*/*")]
    assert not [name for name in left if name.startswith("trial-") or name.endswith(".holder")]
    assert all("make run-all PROFILE=smoke NEW=03_train_mlp.tuned SET=" in text for text in outputs)
    assert (project / "outputs" / "smoke" / "reports" / "07_tune.mlp.html").exists()
