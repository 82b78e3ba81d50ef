"""The history of a profile: a whole line for each finished run, and the same run in MLflow where that is asked for."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from unittest.mock import MagicMock

import pytest

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.pipeline import history, paths, stage, stale
from ebnerd_lib.pipeline.history import append_line, last_runs, read_lines, send
from ebnerd_lib.pipeline.params import StageConfig
from ebnerd_lib.pipeline.paths import StagePaths

URI = "http://127.0.0.1:5000"
METRICS = {
    "models": {"mlp": {"tier": "clicks", "tuning": {"auc": 0.8}, "validation": {"auc": 0.7, "auc_ci": [0.6, 0.8]}}},
    "headline": [{"what": "clicks", "value": 3}],
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project without data."""
    for module in (paths, stage, stale):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    return tmp_path


def finish(name="03_train_mlp", how="batch", **parameters):
    config = StageConfig(name, "smoke", {"seed": 0, "reads": [], **parameters}, {})
    begun = stage.Stage(config, how, "f")
    curve = begun.logs / str(begun.model) / "metrics.csv"
    curve.parent.mkdir(exist_ok=True)
    curve.write_text("epoch,val/auc\n0,0.6\n1,0.8\n")
    begun.metrics |= METRICS
    return begun.finish()


def test_lines_of_two_writers_at_once_stay_whole(tmp_path):
    file, start = tmp_path / "new" / "history.jsonl", Barrier(2)

    def write(name: str) -> None:
        start.wait()
        for number in range(300):
            append_line(file, {"writer": name, "number": number, "text": "æ" * 20_000})

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, "ab"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    numbers = {name: [line["number"] for line in lines if line["writer"] == name] for name in "ab"}
    assert numbers == {"a": [*range(300)], "b": [*range(300)]}


@pytest.mark.parametrize("how", ["batch", "train", "interactive"])
def test_every_way_of_running_adds_a_line(project, how):
    manifest = finish(how=how, dropout=0.1)
    (line,) = read_lines(project / "outputs" / "smoke" / "history.jsonl")
    assert line["stage"] == "03_train_mlp" and line["run"] == how and line["parameters"]["dropout"] == 0.1
    assert line["metrics"] == {"mlp.validation.auc": 0.7} and line["duration_seconds"] == manifest["duration_seconds"]
    curve = StagePaths("smoke", "03_train_mlp").artifacts / "curve_mlp.csv"
    assert curve.name in manifest["outputs"] and curve.read_text().startswith("epoch,")


def test_a_history_that_cannot_be_written_loses_no_run(project):
    (project / "outputs" / "smoke" / "history.jsonl").mkdir(parents=True)
    finish()
    assert StagePaths("smoke", "03_train_mlp").manifest.exists() and last_runs("smoke") == {}


def test_the_last_runs_of_a_stage_say_what_changed_and_broken_lines_are_left_out(project):
    for dropout in (0.1, 0.2, 0.2):
        finish(dropout=dropout)
    file = project / "outputs" / "smoke" / "history.jsonl"
    with file.open("a") as stream:
        stream.write('{"stage": "03_tr\n[1]\n{\n')
    for number in range(1, 9):
        read = {"inputs": "other data" if number == 8 else "data"}
        append_line(file, {"stage": f"03_train_mlp.lab{number}", "parameters": {"seed": number}, **read})
    runs = last_runs("smoke")
    assert [run["changes"] for run in runs["03_train_mlp"]] == [{}, {"dropout": 0.2}, None]
    by_hand = runs["03_train_mlp, by hand"]
    assert [run["stage"][-1] for run in by_hand] == list("87654") and by_hand[1]["changes"] == {"seed": 7}
    assert by_hand[0]["changes"] == {"seed": 8, "inputs": "changed"}


# --- MLflow ------------------------------------------------------------------------------------------------


def test_a_missing_package_is_told_before_training_starts(project, monkeypatch):
    monkeypatch.setattr(history.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[mlflow\]'"):
        finish(mlflow=URI)
    assert not StagePaths("smoke", "03_train_mlp").logs.exists()
    finish(mlflow="")


@pytest.fixture
def mlflow(monkeypatch):
    """In the place of the package: notes what it is told."""
    package = MagicMock()
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setattr(history.importlib.util, "find_spec", lambda name: True)
    return package


def test_a_finished_run_is_sent_with_parameters_metrics_curve_model_and_report(project, mlflow):
    found = StagePaths("smoke", "03_train_mlp")
    finish(mlflow=URI, trainer={"devices": 1})
    for file in (found.artifacts / "model_mlp.pt", found.report):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    assert URI in send(found)
    mlflow.set_tracking_uri.assert_called_once_with(URI)
    mlflow.set_experiment.assert_called_once_with("smoke")
    assert mlflow.start_run.call_args.kwargs["run_name"] == "03_train_mlp"
    assert mlflow.log_params.call_args.args[0]["trainer.devices"] == "1"
    metrics, *epochs = (call.args for call in mlflow.log_metrics.call_args_list)
    assert metrics == ({"mlp.tuning.auc": 0.8, "mlp.validation.auc": 0.7},) and [step for _, step in epochs] == [1, 2]
    files = [Path(call.args[0]).name for call in mlflow.log_artifact.call_args_list]
    assert files == ["model_mlp.pt", "manifest.json", "03_train_mlp.html"]


def test_a_server_that_does_not_answer_loses_nothing(project, mlflow, capsys):
    mlflow.set_experiment.side_effect = ConnectionError("refused")
    finish("03_train_mlp.lab1", "interactive", mlflow=URI)
    assert "ConnectionError: refused" in capsys.readouterr().out
    assert StagePaths("smoke", "03_train_mlp.lab1").manifest.exists()
