"""What is kept of every finished run: a line in the profile's ``history.jsonl`` and, where asked for, a run in MLflow.

Loads MLflow only where the parameter ``mlflow`` of a stage names a tracking URI.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ebnerd_lib.configs import flat
from ebnerd_lib.errors import ConfigError, first_line
from ebnerd_lib.pipeline.params import differences
from ebnerd_lib.pipeline.paths import StagePaths, lab_number, read_json

SHOWN = 5
"""How many runs of each stage the index shows, the latest ones."""
_HEADLINE = ("auc", "ndcg@10")


def append_line(file: Path, content: Mapping[str, Any]) -> None:
    """Append an object as one line of JSON; lines of several writers at once stay whole. Folders are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(content, allow_nan=False, ensure_ascii=False) + "\n").encode()
    with file.open("ab", buffering=0) as stream:  # one call: what others append comes before or after it
        stream.write(line)


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; none where it is missing, and without lines that are broken."""
    found = []
    with contextlib.suppress(OSError):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
    return [each for each in found if isinstance(each, dict)]


def numbers(metrics: Mapping[str, Any], names: tuple[str, ...] = ()) -> dict[str, float]:
    """Return the numbers of a stage's ``metrics.json`` by name, as ``mlp.validation.auc``; else those of its headline.

    Args:
        metrics: of a stage.
        names: the metrics to return of models, on validation alone; all of them, of both parts, where it is empty.
    """
    found = {
        f"{model}.{part}.{name}": value
        for model, entry in metrics.get("models", {}).items()
        for part in (("validation",) if names else ("tuning", "validation"))
        for name, value in entry.get(part, {}).items()
        if isinstance(value, int | float) and (not names or name in names)
    }
    told = {one["what"]: one["value"] for one in metrics.get("headline", []) if isinstance(one["value"], int | float)}
    return found or told


def note(profile: str, manifest: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Append a finished run to the history of its profile, by the manifest and the metrics of its stage."""
    keys = ("stage", "run", "started", "duration_seconds", "git", "parameters")
    inputs = hashlib.sha256(json.dumps(manifest["inputs"], sort_keys=True).encode()).hexdigest()[:12]
    line = {key: manifest[key] for key in keys} | {"inputs": inputs, "metrics": numbers(metrics, _HEADLINE)}
    append_line(StagePaths(profile, "").outputs / "history.jsonl", line)


def last_runs(profile: str) -> dict[str, list[dict[str, Any]]]:
    """Return the last runs of each stage from the history of a profile, the latest one first.

    Runs by hand of a notebook are one series. Each run has ``changes``: the parameters that differ from the run before,
    and whether its ``inputs`` do; ``None`` for the first one known.
    """
    series: dict[str, list[dict[str, Any]]] = {}
    for line in read_lines(StagePaths(profile, "").outputs / "history.jsonl"):
        stage = str(line.get("stage"))
        own = series.setdefault(f"{stage.partition('.')[0]}, by hand" if lab_number(stage) else stage, [])
        changes = differences(own[-1].get("parameters", {}), line.get("parameters", {})) if own else None
        read = own[-1].get("inputs") if own else None
        if changes is not None and read is not None and read != line.get("inputs"):
            changes["inputs"] = "changed"
        own.append({**line, "changes": changes})
    return {stage: series[stage][-SHOWN:][::-1] for stage in sorted(series)}


# --- MLflow ------------------------------------------------------------------------------------------------


def check_mlflow(uri: str) -> None:
    """Raise ``ConfigError`` where runs are to be sent to MLflow and the package is not there; nothing without a URI."""
    if uri and importlib.util.find_spec("mlflow") is None:
        raise ConfigError(
            f"mlflow: runs are to be sent to {uri}, but the package mlflow is not installed. Install it with "
            "`pip install -e '.[mlflow]'`, or leave the parameter empty."
        )


def send(paths: StagePaths) -> str:
    """Send a finished run to MLflow: parameters, metrics, model files and the report, where there is one.

    The experiment is the profile, the run's name is the stage.

    Returns:
        What to tell the user: where the run went, or why it was not sent, which loses nothing that is on disk; empty
        where the stage names no tracking URI.
    """
    manifest = read_json(paths.manifest) or {}
    uri = manifest.get("parameters", {}).get("mlflow")
    if not uri:
        return ""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its own default waits for minutes
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # said below, in plain characters
    try:
        import mlflow
        import pandas as pd

        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(paths.profile)
        with mlflow.start_run(run_name=paths.stage, log_system_metrics=False) as run:
            mlflow.log_params({name: json.dumps(value) for name, value in flat(manifest["parameters"]).items()})
            known = numbers(read_json(paths.artifacts / "metrics.json") or {})
            mlflow.log_metrics({name.replace("@", "_at_"): value for name, value in known.items()})
            mlflow.log_metric("duration_seconds", manifest["duration_seconds"])
            mlflow.set_tags({"run": manifest["run"], "commit": manifest["git"]["commit"] or ""})
            for file in sorted(paths.artifacts.glob("curve_*.csv")):
                for row in pd.read_csv(file).to_dict("records"):
                    mlflow.log_metrics(row, int(row["epoch"]) + 1)
            for file in sorted(paths.artifacts.glob("model_*.pt")):
                mlflow.log_artifact(str(file), "models")
            for file in [paths.manifest, *([paths.report] if manifest["run"] == "batch" else [])]:
                mlflow.log_artifact(str(file))
    except Exception as error:  # of a server or of the network: the run is done and stays so
        return f"{paths.stage}: not sent to MLflow at {uri} ({type(error).__name__}: {first_line(error)})"
    return f"{paths.stage}: sent to MLflow, {uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
