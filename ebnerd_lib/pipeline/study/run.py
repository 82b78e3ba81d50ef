"""A study from start to end: what is missing is computed, figures are written, the report is rendered."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from ebnerd_lib.data.sample import GENERATOR_VERSION
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation import reference
from ebnerd_lib.pipeline.config import load_config
from ebnerd_lib.pipeline.json_file import write_json
from ebnerd_lib.pipeline.layout import relative
from ebnerd_lib.pipeline.manifest import environment
from ebnerd_lib.pipeline.study import page, tables
from ebnerd_lib.pipeline.study.boosting import BOOST
from ebnerd_lib.pipeline.study.cells import compute, count_tried, say
from ebnerd_lib.pipeline.study.configuration import Configuration
from ebnerd_lib.pipeline.study.differences import intervals
from ebnerd_lib.pipeline.study.parts import ONE_BUNDLE, PARTS, check_parts
from ebnerd_lib.pipeline.study.profile import PREPROCESSING
from ebnerd_lib.pipeline.study.search import PREFIX, candidates, choose, judged

Cells = dict[tuple[str, int], dict[str, Any]]


def study(
    seeds: list[int], out: Path, size: str = "demo", profile: str = "sample", parts: list[str] | None = None
) -> dict[str, Any]:
    """Compute what is missing of a study, write its figures and render its report.

    Writes ``results.json`` (no times), ``timings.json`` and ``report.html`` into ``out``, and beside them ``bundles/``,
    ``cells/`` (one JSON file each, and its model and scores), ``logs/`` and ``tried.json``, every set of parameters
    that was ever computed there.

    Args:
        seeds: of the generator, one bundle each; training and intervals keep the seed of the profile.
        out: folder of the study.
        size: of the bundles, see ``ebnerd_lib.data.sample``.
        profile: whose parameters to train with.
        parts: of ``PARTS``; all of them if not given.

    Returns:
        What ``results.json`` holds.

    Raises:
        ConfigError: there is no seed, one is negative or repeats, or parts, size or profile are wrong.
        BundleError: a folder of bundles holds something that was not generated.
    """
    parts = list(PARTS) if parts is None else parts
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds: {seeds} must be one or more different numbers, as in 0,1,2.")
    check_parts(parts)
    split = load_config(profile, PREPROCESSING).parameters["split"]
    plan, missing = _plan(parts, seeds, profile)
    number = sum(map(len, plan.values()))
    say(f"study of {number} cells on {len(seeds)} bundles of size {size}, outputs in {relative(out)}/")
    for name, reason in missing.items():
        say(f"{name} is left out. {reason}")
    done: Cells = {}

    def complete() -> None:
        for seed in seeds:
            for cell in compute(out, seed, size, split, plan[seed]):
                done[cell["row"]["name"], seed] = cell

    complete()
    chosen = _choose(done, seeds, profile) if "search" in parts else None
    if chosen and any(judged(chosen) not in plan[seed] for seed in seeds):
        for seed in seeds:
            plan[seed] += [judged(chosen)] if judged(chosen) not in plan[seed] else []
        complete()
    results = {
        "generated": {"generator_version": GENERATOR_VERSION, "size": size},
        "profile": profile,
        "seeds": seeds,
        "parts": parts,
        "tried": count_tried(out),
        "cells": len(done),
        "configurations": {each.name: each.listed() for each in plan[seeds[0]]},
        "left_out": missing,
        "rows": [cell["row"] for cell in done.values()],
        **_tables(done, parts, seeds, profile, out, chosen),
    }
    timings = _timings(done)
    write_json(out / "results.json", results)
    write_json(out / "timings.json", timings)
    page.render(out / "report.html", results, timings)
    for line in page.summary(results):
        say(line)
    say(f"report: {relative(out / 'report.html')}")
    return results


def _plan(parts: list[str], seeds: list[int], profile: str) -> tuple[dict[int, list[Configuration]], dict[str, str]]:
    """Return what to compute for each seed, each name once, and what cannot be, with the reason."""
    plan: dict[int, dict[str, Configuration]] = {seed: {} for seed in seeds}
    missing = {}
    for part in parts:
        for each in PARTS[part](profile):
            if each.procedure is BOOST and not reference.installed():
                missing[reference.NAME] = reference.MISSING
                continue
            for seed in seeds[:1] if part in ONE_BUNDLE else seeds:
                plan[seed].setdefault(each.name, each)
    return {seed: list(wanted.values()) for seed, wanted in plan.items()}, missing


def _choose(done: Cells, seeds: list[int], profile: str) -> Configuration:
    """Return the candidate of a search that the tuning day prefers."""
    tried = {each.name: each for each in candidates(profile)}
    return tried[choose({name: [done[name, s]["row"]["tuning"]["auc"] for s in seeds] for name in tried})]


def _tables(
    done: Cells, parts: list[str], seeds: list[int], profile: str, out: Path, chosen: Configuration | None
) -> dict[str, Any]:
    """Return the tables of the parts by their names in ``results.json``."""
    rows = {place: cell["row"] for place, cell in done.items()}
    interval = intervals(out)
    found: dict[str, Any] = {}
    if "seeds" in parts:
        found["scorers"] = tables.scorer_table(rows, seeds, profile)
        found["checks"] = tables.check_table(rows, seeds, profile, interval)
    if "groups" in parts:
        found["training_noise"] = tables.training_noise(rows, seeds, profile)
        found["groups"] = tables.group_table(rows, seeds, profile, interval)
    if "training" in parts:
        found["training"] = tables.training_table(rows, seeds[0], profile)
    if "days" in parts:
        found["days"] = tables.days_table(rows, seeds, profile)
    if chosen:
        found["search"] = {
            "tried": count_tried(out, PREFIX),
            "candidates": tables.search_table(rows, seeds, candidates(profile), profile),
            "chosen": tables.choice(rows, seeds, chosen.name, judged(chosen).name),
        }
    return found


def _timings(done: Cells) -> dict[str, Any]:
    about = environment()
    about["packages"] |= {"lightgbm": version("lightgbm")} if reference.installed() else {}
    cells = [{"seed": seed, "name": name, "seconds": cell["seconds"]} for (name, seed), cell in done.items()]
    return {"environment": about, "cells": cells, "total_seconds": sum(cell["seconds"] for cell in done.values())}
