"""Do the findings hold on other data? All scorers on several generated bundles, and claims checked against the figures.

A **cell** is one configuration on one bundle. It is computed once: its file says from which parameters, modules and
bundle its figures come, and is written when all else is there, so an interrupted study continues where it stopped.
"""

import hashlib
import inspect
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.layout import STAMP, check_files, generated_stamp
from ebnerd_lib.data.sample import GENERATOR_VERSION, generate
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.evaluation import reference
from ebnerd_lib.evaluation.intervals import user_bootstrap
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.evaluation.publish import publish
from ebnerd_lib.features import store
from ebnerd_lib.features.store import Features
from ebnerd_lib.models.base import SlateModel, find_model
from ebnerd_lib.pipeline.config import load_config
from ebnerd_lib.pipeline.fingerprint import closure, module_files, sha256
from ebnerd_lib.pipeline.json_file import read_json, write_json
from ebnerd_lib.pipeline.layout import relative
from ebnerd_lib.pipeline.manifest import environment
from ebnerd_lib.pipeline.page import TIERS, fill, machinery, page_key, write_page
from ebnerd_lib.training.fit import Plan, train

_TRAINER = ("accelerator", "devices", "strategy", "num_nodes", "precision")
_NOT_SETTINGS = ("profile", "reads", "models", "tiers")
_SPLIT_STAGE = "01_preprocess"


# --- what is tried -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ground:
    """What every configuration of a seed works on, and where it may write.

    Attributes:
        dataset: of the seed's bundle.
        features: of its parts.
        folder: for files of the cell: model and scores.
        logs: for logs and checkpoints.
    """

    dataset: Dataset
    features: dict[str, Features]
    folder: Path
    logs: Path


@dataclass(frozen=True)
class Procedure:
    """How a configuration gets its figures.

    Attributes:
        run: returns an entry of ``metrics.json`` with the figures of ``tuning`` and ``validation``.
        modules: what it runs; a cell is computed again when one of them, or one that they import, changes.
    """

    run: Callable[["Configuration", Ground], dict[str, Any]]
    modules: tuple[str, ...]


@dataclass(frozen=True)
class Configuration:
    """One scorer with its parameters.

    Attributes:
        name: in files and tables.
        tier: its information tier.
        procedure: how it gets its figures.
        parameters: all that it depends on beside code and data, in plain types.
    """

    name: str
    tier: str
    procedure: Procedure
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """Scorers that should come in this order, worst first, on every bundle.

    Attributes:
        text: the claim as the report words it.
        order: names of scorers.
        slack: AUC by which one may fall below the one before it; with 0 it must lie above.
    """

    text: str
    order: tuple[str, ...]
    slack: float = 0.0


CLAIMS = [
    Claim("mlp ≥ lightgbm − .002", (reference.NAME, "mlp"), slack=0.002),
    Claim("ids < content < exposure < clicks", ("mf_ids", "mlp_content", "mlp_exposure", "mlp")),
]


def configurations(profile: str) -> list[Configuration]:
    """Return what a study tries, with the parameters of a profile. A variant is one line more.

    Raises:
        ConfigError: see ``load_config``.
    """
    return [
        _network(profile, "02_train_mf", "mf_ids", "ids"),
        _network(profile, "02_train_mf", "mf_features", "clicks"),
        _network(profile, "03_train_mlp", "mlp", "content", "mlp_content"),
        _network(profile, "03_train_mlp", "mlp", "exposure", "mlp_exposure"),
        _network(profile, "03_train_mlp", "mlp", "clicks"),
        _boosted(profile, "03_train_mlp", "clicks"),
    ]


def _train(configuration: Configuration, ground: Ground) -> dict[str, Any]:
    """Train a model of ``ebnerd_lib.models`` as the notebooks do, and publish it."""
    given = configuration.parameters
    known = _settings_of(find_model(given["module"], given["model"]))
    fit = train(
        ground.dataset, ground.features, given["module"], given["model"], configuration.tier, configuration.name,
        {key: value for key, value in given.items() if key in known},
        Plan(trainer={key: given[key] for key in _TRAINER}, **_pick(Plan, given)),
        ground.logs,
    )  # fmt: skip
    return publish(fit.model, ground.dataset, ground.features, ground.folder, given["seed"])


def _boost(configuration: Configuration, ground: Ground) -> dict[str, Any]:
    """Train LightGBM and publish its scores."""
    boosting = reference.Boosting(**_pick(reference.Boosting, configuration.parameters))
    trained = reference.train_reference(ground.dataset, ground.features, configuration.tier, boosting)
    return reference.publish_reference(trained, ground.dataset, ground.folder, configuration.name, boosting.seed)


_PREPARING = ("ebnerd_lib.data.bundle", "ebnerd_lib.data.dataset", "ebnerd_lib.features.store")
TRAIN = Procedure(_train, (*_PREPARING, "ebnerd_lib.training.fit", "ebnerd_lib.evaluation.publish"))
BOOST = Procedure(_boost, (*_PREPARING, "ebnerd_lib.evaluation.reference"))


def _network(
    profile: str, stage: str, model: str, tier: str, name: str = "", procedure: Procedure = TRAIN, **changes: Any
) -> Configuration:
    """Return a model with the parameters that a training stage has in a profile, and ``changes`` of them."""
    given = load_config(profile, stage).parameters
    if model not in given["models"]:
        raise ConfigError(f"params/{profile}/{stage}.yaml: models lacks '{model}', which a study trains. Add it.")
    settings = {key: value for key, value in given.items() if key not in _NOT_SETTINGS}
    return Configuration(name or model, tier, procedure, {**settings, "model": model, **changes})


def _boosted(profile: str, stage: str, tier: str, name: str = reference.NAME, **changes: Any) -> Configuration:
    """Return LightGBM with the training rows and the seed of a training stage."""
    given = load_config(profile, stage).parameters
    boosting = reference.Boosting(warmup_hours=given["warmup_hours"], seed=given["seed"], **changes)
    # Only the extra pins LightGBM, so its version counts as a parameter.
    installed = version("lightgbm") if reference.installed() else None
    return Configuration(name, tier, BOOST, {**asdict(boosting), "lightgbm": installed})


def _settings_of(kind: type[SlateModel]) -> set[str]:
    """Return the names of the hyperparameters that a model's classes take."""
    classes = [each for each in kind.__mro__ if issubclass(each, SlateModel)]
    return {name for each in classes for name in inspect.signature(each.__init__).parameters}


def _pick(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    return {entry.name: given[entry.name] for entry in fields(kind) if entry.name in given}


# --- the study ---------------------------------------------------------------------------------------------


def study(seeds: list[int], out: Path, size: str = "demo", profile: str = "sample") -> dict[str, Any]:
    """Compute what is missing of a study, write its figures and render its report.

    Writes ``results.json`` (no times), ``timings.json`` and ``report.html`` into ``out``, and beside them ``bundles/``,
    ``cells/`` (one JSON file each, and its model and scores), ``logs/`` and ``tried.json``, every set of parameters
    that was ever computed there.

    Args:
        seeds: of the generator, one bundle each; training and intervals keep the seed of the profile.
        out: folder of the study.
        size: of the bundles, see ``ebnerd_lib.data.sample``.
        profile: whose parameters to train with.

    Returns:
        What ``results.json`` holds.

    Raises:
        ConfigError: there is no seed, one is negative or repeats, or size or profile are wrong.
        BundleError: a folder of bundles holds something that was not generated.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds: {seeds} must be one or more different numbers, as in 0,1,2.")
    every = configurations(profile)
    left_out = {c.name: reference.MISSING for c in every if c.procedure is BOOST and not reference.installed()}
    chosen = [configuration for configuration in every if configuration.name not in left_out]
    _say(f"study of {len(chosen)} configurations on {len(seeds)} bundles of size {size}, outputs in {relative(out)}/")
    for name, reason in left_out.items():
        _say(f"{name} is left out. {reason}")
    cells = [cell for seed in seeds for cell in _cells_of(seed, out, size, profile, chosen)]

    def interval(before: str, after: str, seed: int) -> tuple[float, float]:
        cells, bundle = out / "cells" / f"seed-{seed}", out / "bundles" / f"seed-{seed}"
        return paired_interval(
            _scores(cells, before), _scores(cells, after), bundle / "validation" / "behaviors.parquet"
        )

    results = _results(seeds, size, profile, chosen, [cell["row"] for cell in cells], left_out, interval)
    about = environment()
    about["packages"] |= {"lightgbm": version("lightgbm")} if reference.installed() else {}
    timings = {
        "environment": about,
        "cells": [
            {"seed": cell["row"]["seed"], "name": cell["row"]["name"], "seconds": cell["seconds"]} for cell in cells
        ],
    }
    write_json(out / "results.json", results)
    write_json(out / "timings.json", timings)
    tried = sum(len(each) for each in (read_json(out / "tried.json") or {}).values())
    _render(out / "report.html", results, timings, tried)
    for line in summary(results):
        _say(line)
    _say(f"report: {relative(out / 'report.html')}")
    return results


def _cells_of(seed: int, out: Path, size: str, profile: str, chosen: list[Configuration]) -> Iterator[dict[str, Any]]:
    """Yield the cells of a seed in the order of the configurations, computing those that do not stand."""
    bundle = _bundle(out / "bundles" / f"seed-{seed}", seed, size)
    sums = {file.relative_to(bundle).as_posix(): sha256(file) for file in check_files(bundle)}
    split = load_config(profile, _SPLIT_STAGE).parameters["split"]
    folder = out / "cells" / f"seed-{seed}"
    keys = {each.name: _key(each, split, sums) for each in chosen}
    stale = [name for name, key in keys.items() if not _stands(folder, name, key)]
    with ExitStack() as stack:
        if stale:
            dataset, features = stack.enter_context(_prepared(bundle, split, out, seed))
        for place, each in enumerate(chosen, 1):
            file = folder / f"{each.name}.json"
            head = f"seed {seed}  {place}/{len(chosen)}  {each.name} ({each.tier})"
            if each.name in stale:
                _say(f"{head}: …")
                _note(out / "tried.json", each)
                ground = Ground(dataset, features, folder / each.name, out / "logs" / f"seed-{seed}")
                _compute(each, ground, file, seed, keys[each.name])
            cell = read_json(file) or {}
            took = f"{cell['seconds']:.1f} s" if each.name in stale else "unchanged"
            _say(f"{head}: AUC {cell['row']['validation']['auc']:.4f}, {took}")
            yield cell


def _stands(folder: Path, name: str, key: str) -> bool:
    return (read_json(folder / f"{name}.json") or {}).get("key") == key and _scores(folder, name).exists()


def _scores(folder: Path, name: str) -> Path:
    """Return where ``publish`` leaves the scores on validation."""
    return folder / name / f"scores_{name}.parquet"


def _compute(configuration: Configuration, ground: Ground, file: Path, seed: int, key: str) -> None:
    """Compute a cell. Its file goes first and comes last: what an interrupted run leaves has none."""
    start = time.monotonic()
    file.unlink(missing_ok=True)
    shutil.rmtree(ground.folder, ignore_errors=True)
    ground.folder.mkdir(parents=True)
    entry = configuration.procedure.run(configuration, ground)
    row = {"seed": seed, "name": configuration.name, **entry}
    write_json(file, {"key": key, "row": row, "seconds": round(time.monotonic() - start, 2)})


def _key(configuration: Configuration, split: str, bundle: dict[str, str]) -> str:
    """Return one sum over all that the figures of a cell depend on."""
    procedure = configuration.procedure
    names = [*procedure.modules]
    if "module" in configuration.parameters:
        names.append(f"ebnerd_lib.models.{configuration.parameters['module']}")
    files = closure({file for name in names for file in module_files(name)})
    parts = {
        "configuration": [configuration.name, configuration.tier, configuration.parameters, split],
        "modules": {relative(file): sha256(file) for file in files},
        "procedure": inspect.getsource(procedure.run),
        "bundle": bundle,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _bundle(folder: Path, seed: int, size: str) -> Path:
    """Return a generated bundle, made anew where its stamp differs or the generator has changed since."""
    wanted = {"generator_version": GENERATOR_VERSION, "seed": seed, "size": size}
    sources = closure(set(module_files("ebnerd_lib.data.sample")))
    stamp = folder / STAMP
    if generated_stamp(folder) != wanted or any(f.stat().st_mtime > stamp.stat().st_mtime for f in sources):
        _say(f"seed {seed}  generating {relative(folder)}")
        generate(folder, seed=seed, size=size)
    return folder


@contextmanager
def _prepared(bundle: Path, split: str, out: Path, seed: int) -> Iterator[tuple[Dataset, dict[str, Features]]]:
    """Prepare the dataset and its features in a folder that is gone afterwards: it is larger than quick to make."""
    folder = out / f".prepared-{seed}.{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        _say(f"seed {seed}  preparing slates and features")
        dataset, _, _ = datasets.prepare(open_bundle(bundle), split)
        store.write(dataset, folder)
        yield dataset, {part: store.read(folder, part) for part in dataset.parts}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _note(file: Path, configuration: Configuration) -> None:
    """Enter a configuration in the list of all that were ever computed, once for the same tier and parameters."""
    tried = read_json(file) or {}
    known = tried.setdefault(configuration.name, [])
    entry = {"tier": configuration.tier, **configuration.parameters}
    if entry not in known:
        known.append(entry)
        write_json(file, tried)


# --- figures -----------------------------------------------------------------------------------------------


Interval = Callable[[str, str, int], tuple[float, float]]


def _results(
    seeds: list[int], size: str, profile: str, chosen: list[Configuration], rows: list[dict[str, Any]],
    left_out: dict[str, str], interval: Interval,
) -> dict[str, Any]:  # fmt: skip
    auc = {c.name: {r["seed"]: r["validation"]["auc"] for r in rows if r["name"] == c.name} for c in chosen}
    scorers = [
        {
            "name": each.name,
            "tier": each.tier,
            "auc": [auc[each.name][seed] for seed in seeds],
            "mean": statistics.fmean(auc[each.name].values()),
            "spread": max(auc[each.name].values()) - min(auc[each.name].values()),
        }
        for each in chosen
    ]
    return {
        "generated": {"generator_version": GENERATOR_VERSION, "size": size},
        "profile": profile,
        "seeds": seeds,
        "configurations": {each.name: {"tier": each.tier, **each.parameters} for each in chosen},
        "left_out": left_out,
        "rows": rows,
        "scorers": sorted(scorers, key=lambda scorer: (-scorer["mean"], scorer["name"])),
        "checks": [check(claim, auc, seeds, interval) for claim in CLAIMS],
    }


def check(claim: Claim, auc: dict[str, dict[int, float]], seeds: list[int], interval: Interval) -> dict[str, Any]:
    """Hold a claim against figures.

    Args:
        claim: the order that should hold.
        auc: AUC on validation by name of the scorer and seed.
        seeds: the bundles.
        interval: of the difference of two scorers, from their names and the seed.

    Returns:
        The claim; ``met``, whether it holds on **every** bundle, ``None`` if a scorer was not tried; ``seeds``, for
        each bundle the ``steps`` from one scorer to the next with their difference in AUC and its interval, the
        smallest of them as ``margin``, and ``met``; and the ``mean`` of the margins.

    Examples:
        >>> auc = {"a": {0: 0.5, 1: 0.75}, "b": {0: 0.75, 1: 0.75}}
        >>> found = check(Claim("a < b", ("a", "b")), auc, [0, 1], lambda before, after, seed: (0.0, 0.5))
        >>> found["met"], [each["margin"] for each in found["seeds"]], found["mean"]
        (False, [0.25, 0.0], 0.125)
    """
    about = {"claim": claim.text, "order": list(claim.order), "slack": claim.slack}
    if any(name not in auc for name in claim.order):
        return {**about, "met": None, "seeds": [], "mean": None}
    lines: list[dict[str, Any]] = []
    for seed in seeds:
        steps: list[dict[str, Any]] = [
            {
                "from": before,
                "to": after,
                "difference": auc[after][seed] - auc[before][seed],
                "difference_ci": list(interval(before, after, seed)),
            }
            for before, after in pairwise(claim.order)
        ]
        margin = min(step["difference"] for step in steps)
        met = margin >= -claim.slack if claim.slack else margin > 0
        lines.append({"seed": seed, "steps": steps, "margin": margin, "met": met})
    mean = statistics.fmean(line["margin"] for line in lines)
    return {**about, "met": all(line["met"] for line in lines), "seeds": lines, "mean": mean}


def paired_interval(before: Path, after: Path, behaviors: Path) -> tuple[float, float]:
    """Return the 95 % interval over users of what one scorer's AUC lies above another's, impression by impression.

    Args:
        before: scores file of the one.
        after: scores file of the other, of the same impressions.
        behaviors: the file of the bundle that says whose impressions they are.
    """
    first, second = _auc_by_impression(before), _auc_by_impression(after)
    if not first.index.equals(second.index):
        raise StageError(f"{before.name} and {after.name} hold different impressions. Remove one and run again.")
    columns = ["impression_id", "user_id"]
    user = pd.read_parquet(behaviors, columns=columns).set_index("impression_id")["user_id"].loc[first.index]
    low, high = user_bootstrap((second - first).to_numpy()[:, None], user.to_numpy())[0]
    return float(low), float(high)


def _auc_by_impression(scores: Path) -> pd.Series:
    table = pd.read_parquet(scores)
    impression = table["impression_id"].to_numpy()
    begins = np.flatnonzero(np.append(True, impression[1:] != impression[:-1]))
    values = per_slate(table["score"].to_numpy(), table["clicked"].to_numpy(), np.append(begins, len(table)))
    return pd.Series(values[:, 0], index=impression[begins])


def summary(results: dict[str, Any]) -> list[str]:
    """Return scorers by seed and the checks as lines for the terminal."""
    width = max(len(scorer["name"]) for scorer in results["scorers"])
    seeds = "  ".join(f"{f'seed {seed}':>8}" for seed in results["seeds"])
    lines = [f"{'scorer':{width}}  {'tier':8}  {seeds}  {'mean':>6}  spread"]
    for scorer in results["scorers"]:
        figures = "  ".join(f"{value:>8.4f}" for value in scorer["auc"])
        head = f"{scorer['name']:{width}}  {scorer['tier']:8}"
        lines.append(f"{head}  {figures}  {scorer['mean']:.4f}  {scorer['spread']:.4f}")
    for found in results["checks"]:
        margins = ", ".join(f"{line['margin']:+.4f}" for line in found["seeds"])
        figures = f"smallest step {margins}; mean {found['mean']:+.4f}" if margins else "a scorer of it was not tried"
        lines.append(f"{found['claim']}: {_VERDICTS[found['met']]} ({figures})")
    return lines


_VERDICTS = {True: "met", False: "not met", None: "not tried"}


# --- files -------------------------------------------------------------------------------------------------


def _render(file: Path, results: dict[str, Any], timings: dict[str, Any], tried: int) -> None:
    seeds = results["seeds"]
    seconds = {(cell["name"], cell["seed"]): cell["seconds"] for cell in timings["cells"]}
    page = fill(
        "study.html.j2",
        results=results,
        generated={**results["generated"], "seed": ", ".join(map(str, seeds))},
        environment=timings["environment"],
        rows=sorted(results["rows"], key=lambda row: (seeds.index(row["seed"]), -row["validation"]["auc"])),
        seconds=seconds,
        total=sum(seconds.values()),
        tried=tried,
        by_step=lambda found: list(zip(*(line["steps"] for line in found["seeds"]), strict=True)),
        verdicts=_VERDICTS,
        tiers=TIERS,
    )
    write_page(file, page, page_key(machinery(), results, timings, tried))


def _say(line: str) -> None:
    print(line, flush=True)
