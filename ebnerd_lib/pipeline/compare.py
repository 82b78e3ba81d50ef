"""Finished training runs side by side on one page, those on the same slates compared impression by impression."""

import hashlib
import json
import shutil
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from ebnerd_lib import plots
from ebnerd_lib.configs import ONLINE
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation import compare as paired
from ebnerd_lib.evaluation.evaluate import Evaluated, load_scores, scores_file
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.pipeline.history import append_line, read_lines
from ebnerd_lib.pipeline.params import StageConfig, differences, hint, trained_model, with_values
from ebnerd_lib.pipeline.paths import StagePaths, acquire, profiles, read_json, relative, release, write_json
from ebnerd_lib.pipeline.report import overview_file, render, render_profile
from ebnerd_lib.pipeline.runs import Run, read_runs
from ebnerd_lib.pipeline.stale import Hashes, fingerprint
from ebnerd_lib.pipeline.tune import Aside


def compare(names: list[str], seeds: int = 1) -> str:
    """Write a page, and the numbers on it as JSON beside it, in ``outputs/compare``; the indexes link it.

    Runs on other slates than the first ones stand in tables of their own and are never paired.

    Args:
        names: of finished training runs, as ``sample/03_train_mlp.lab1``; the first of each table is its reference.
        seeds: trainings of each run in all; above 1, its AUC gets a mean and a spread, see ``repeats``.

    Returns:
        The path of the page; the same names give the same one.

    Raises:
        ConfigError: there is no such finished run.
    """
    runs = find_runs(names)
    tables: dict[Any, list[Run]] = {}
    for run in runs:
        tables.setdefault(_slates(run), []).append(run)
    shown = [name_of(run) for run in runs]
    content = {
        "runs": shown,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": seeds,
        "tables": [table(own, seeds) for own in tables.values()],
    }
    key = hashlib.sha256("\n".join(shown).encode()).hexdigest()[:8]
    page = overview_file().parent / "compare" / f"{shown[0].replace('/', '.')}.{key}.html"
    profiles = sorted({run.paths.profile for run in runs})
    more = {
        "figures": [curves(own) for own in tables.values()],
        "generated": next((run.manifest["generated"] for run in runs if run.manifest["generated"]), None),
        "profiles": profiles,
    }
    write_json(page.with_suffix(".json"), content)
    told = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    render(page, told, "compare.html.j2", lambda: {**content, **more})
    for profile in profiles:
        render_profile(profile)
    return relative(page)


def name_of(run: Run) -> str:
    """Return the name of a run over all profiles."""
    return f"{run.paths.profile}/{run.stage}"


def find_runs(names: Iterable[str]) -> list[Run]:
    """Return the finished training runs of some names, each once.

    Raises:
        ConfigError: there is none of a name, or its last run failed; the message has the nearest name.
    """
    done = {name_of(run): run for profile in profiles() for run in read_runs(profile) if run.manifest}
    known = {name: run for name, run in done.items() if trained_model(run.stage) and run.state != "failed"}
    for name in names:
        if name not in known:
            raise ConfigError(f"runs: '{name}' is no training run, has not finished or failed; {hint(name, known)}")
    return [known[name] for name in dict.fromkeys(names)]


def _slates(run: Run) -> tuple[tuple[str, str], ...]:
    """Return name and checksum of the files with the slates that a run read."""
    folder = relative(StagePaths(run.paths.profile, run.manifest["reads"][0]).artifacts)
    read = ((file.removeprefix(f"{folder}/"), own) for file, own in run.manifest["inputs"].items())
    return tuple(sorted(each for each in read if each[0].startswith("slates_")))


def table(runs: list[Run], seeds: int = 1) -> dict[str, Any]:
    """Return what is to be said of runs on the same slates.

    Returns:
        ``rows``, one a model, with its paired ``difference`` to the first one; ``comparisons``, how many were made;
        ``next_clicks``, of models that ranked what was live; ``note``, why nothing is paired, or empty.
    """
    first = runs[0]
    reads = StagePaths(first.paths.profile, first.manifest["reads"][0])
    preprocessed = read_json(reads.manifest) or {}
    aside = Aside(first.paths.profile, reads.stage)
    is_there = set(_slates(first)) <= set(preprocessed.get("outputs", {}).items())
    models = {
        name_of(run) + (" online" if name.endswith(ONLINE) else ""): (run, name, entry)
        for run in runs
        for name, entry in run.metrics.get("models", {}).items()
    }
    difference = _differences(models, aside) if is_there else {}
    spread = {name_of(run): repeats(run, seeds, aside) for run in runs if seeds > 1 and is_there}
    about = {
        name_of(run): {
            "page": run.page and f"../{run.paths.profile}/reports/{run.page}",
            "state": run.state,
            "changes": differences(first.manifest["parameters"], run.manifest["parameters"]),
            "seconds": run.manifest["duration_seconds"],
        }
        for run in runs
    }
    return {
        "generated": first.manifest["generated"],
        "bundle": preprocessed.get("parameters", {}).get("bundle"),
        "rows": [
            {"name": name, "tier": entry["tier"], **about[name_of(run)], **entry["validation"]}
            | {"tuning": entry["tuning"]["auc"], "difference": difference.get(name), "seeds": spread.get(name)}
            for name, (run, _, entry) in models.items()
        ],
        "comparisons": len(difference),
        "next_clicks": [
            {"name": name_of(run), **about[name_of(run)], **found, "seeds": spread.get(name_of(run))}
            for run in runs
            if (found := _next_click(run))
        ],
        "note": "" if is_there else f"{reads.profile}/{reads.stage} ran again since then, so nothing is paired.",
    }


def _differences(models: dict[str, tuple[Run, str, dict[str, Any]]], aside: Aside) -> dict[str, dict[str, Any]]:
    """Return the paired differences of all models to the first one, from the scores that their stages saved."""
    if len(models) < 2:
        return {}
    slates, evaluated = aside.data.parts["validation"], []
    for name, (run, model, entry) in models.items():
        scores = load_scores(scores_file(run.paths.artifacts, model, "validation"), slates)
        values = per_slate(scores, slates.clicked, slates.offsets)
        evaluated.append(Evaluated(name, entry, {"validation": values}, {}))
    return paired.differences(evaluated, next(iter(models)), slates)


def _next_click(run: Run) -> dict[str, Any]:
    """Return how well a model ranks what was live: on the tuning day, and on validation if 04 read these artifacts."""
    model, live = str(trained_model(run.stage)), run.metrics.get("live", {})
    found: dict[str, Any] = {"tier": next(iter(live.values()))["tier"], "tuning": _best(run)} if live else {}
    for file in run.paths.artifacts.parent.glob("04_*/manifest.json"):
        read = (read_json(file) or {}).get("inputs", {}).get(f"{relative(run.paths.artifacts)}/model_{model}.pt")
        if read is not None and read == run.manifest["outputs"].get(f"model_{model}.pt"):
            told = (read_json(file.with_name("metrics.json")) or {}).get("next_click", {})
            found |= told.get(model, {})
    return found


def _learning(run: Run) -> tuple[str, pd.DataFrame]:
    """Return the metric by which a run kept its best epoch, and its learning curve; empty where it kept none."""
    file = run.paths.artifacts / f"curve_{trained_model(run.stage)}.csv"
    return "val/ndcg" if "live" in run.metrics else "val/auc", pd.read_csv(file) if file.exists() else pd.DataFrame()


def _best(run: Run) -> float | None:
    """Return a run's metric on the tuning day, of the epoch that was kept; ``None`` without a learning curve."""
    metric, curve = _learning(run)
    return float(curve[metric].max()) if len(curve) else None


def curves(runs: list[Run]) -> list[Any]:
    """Draw the learning curves of runs over each other, one picture of each metric of the epoch."""
    figures = []
    for metric in ("val/auc", "val/ndcg"):
        every = {name_of(run): curve for run in runs for own, curve in [_learning(run)] if own == metric}
        known = {name: curve for name, curve in every.items() if len(curve)}
        if known:
            kept = {name: int(curve[metric].argmax()) for name, curve in known.items()}
            text = "Learning curves: loss, and the metric of the tuning day, by epoch"
            figures.append(plots.image(plots.learning_curves(known, kept, metric), text))
    return figures


def repeats(run: Run, seeds: int, aside: Aside) -> dict[str, Any]:
    """Train a run again with other seeds and return the mean and the spread of its metric.

    The run itself counts as the first, unless code or data have changed since. Each other result is a line of
    ``seeds.jsonl`` in the logs of its stage, with the fingerprint of what it was trained on, so nothing is trained
    twice, and no artifact is written.

    Returns:
        ``mean`` and ``sd`` (n - 1): of the AUC on validation, or of the next-click nDCG@10 on the tuning day of a model
        trained on what is live.
    """
    file, parameters = run.paths.logs / "seeds.jsonl", run.manifest["parameters"]
    config = StageConfig(run.stage, run.paths.profile, parameters, {}, tuple(run.manifest["reads"]))
    hashes = Hashes(StagePaths(run.paths.profile, "").hashes)
    own = next(iter(run.metrics.get("models", {}).values()), None)
    values: list[float] = []
    if run.manifest["fingerprint"] == fingerprint(config, hashes):
        values += filter(None, [own["validation"]["auc"] if own else _best(run)])
    lock, step = run.paths.logs / "seeds.lock", parameters.get("training", {}).get("seeds", 1)
    acquire(lock, f"seeds of {name_of(run)}")
    try:
        for number in range(len(values), seeds):
            other = with_values(config, {"seed": parameters["seed"] + number * step}, "seeds")
            key, name = fingerprint(other, hashes), f"seed{other.parameters['seed']}"
            known = {line["fingerprint"]: line["value"] for line in read_lines(file)}
            if key not in known:
                done, inputs = aside.train(other.parameters, run.paths.logs / "seeds", name)
                best = float(done.curve[inputs.best_by].max())
                known[key] = best if inputs.slates == "live" else aside.auc(done.model, "validation")
                append_line(file, {"fingerprint": key, "seed": other.parameters["seed"], "value": known[key]})
                shutil.rmtree(run.paths.logs / "seeds", ignore_errors=True)
                print(f"{name_of(run)}  {name}  {known[key]:.4f}", flush=True)
            values.append(known[key])
    finally:
        release(lock)
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values)}
