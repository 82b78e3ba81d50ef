"""Variations of stages: their parameter files, which stages a run takes, and removing outputs again."""

import fnmatch
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel

from ebnerd_lib.configs import CONFIGS, nested
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.pipeline import report
from ebnerd_lib.pipeline.params import (
    StageConfig,
    base_config,
    differences,
    hint,
    load_profile,
    read_stages,
    with_values,
)
from ebnerd_lib.pipeline.paths import (
    ROOT,
    StagePaths,
    acquire,
    check_stage,
    parameter_file,
    profile_stages,
    read_json,
    relative,
    release,
    write_whole,
)


def write_variant(profile: str, stage: str, values: dict[str, Any], where: str) -> None:
    """Write the parameter file of a new variant; nothing happens where it exists with the same parameters.

    Args:
        profile: a folder of ``params``.
        stage: a notebook and the variant's name, as in ``03_train_mlp.wide``.
        values: the parameters that differ from those of the notebook's own file, groups as dicts.
        where: what the values were read from, for messages.

    Raises:
        ConfigError: the name is taken or no name, or a value is not legal. No file is written.
    """
    notebooks, stages = [path.stem for path in (ROOT / "notebooks").glob("*.ipynb")], load_profile(profile)
    notebook, _, variant = stage.partition(".")
    if notebook not in notebooks:
        raise ConfigError(f"NEW={stage}: there is no notebooks/{notebook}.ipynb; {hint(notebook, notebooks)}")
    if not variant:
        raise ConfigError(f"NEW={stage}: a new variant needs a name of its own, as {stage}.wide.")
    check_stage(profile, stage)
    config, file = with_values(base_config(profile, stage), values, where), parameter_file(profile, stage)
    if stage in stages:
        if stages[stage].parameters != config.parameters:
            raise ConfigError(f"NEW={stage}: {relative(file)} is there, with other parameters. Choose another name.")
        return
    if not values:
        raise ConfigError(f"NEW={stage}: {where} changes no parameter. Name what differs, as SET='dropout=0.2'.")
    read_stages(config, {**{name: other.parameters for name, other in stages.items()}, stage: config.parameters})
    write_whole(file, "".join(f"{line}\n" for line in _lines(values, CONFIGS.get(notebook))))


def _lines(values: Mapping[str, Any], kind: Any) -> Iterator[str]:
    """Yield the lines of a parameter file, each key with what it means where it has a class."""
    for name, value in values.items():
        field = kind.model_fields[name] if kind else None
        if isinstance(value, dict) and field and issubclass(field.annotation, BaseModel):
            yield f"{name}:"
            yield from (f"  {line}" for line in _lines(value, field.annotation))
        else:
            text = yaml.safe_dump([value], default_flow_style=True, width=2**20)[1:-2]
            yield f"{name}: {text}" + (f"  # {field.description}" if field else "")


def keep(run: str, new: str) -> None:
    """Write the parameters of a run, as ``smoke/03_train_mlp.lab1``, as a new variant of its profile.

    Raises:
        ConfigError: there is no such run, or as ``write_variant``.
    """
    profile, _, stage = run.partition("/")
    known = [f"{file.parts[-4]}/{file.parent.name}" for file in ROOT.glob("outputs/*/artifacts/[!.]*/manifest.json")]
    if run not in known:
        raise ConfigError(f"RUN={run}: outputs/ holds no such run; {hint(run, known)}")
    if stage.partition(".")[0] != new.partition(".")[0]:
        raise ConfigError(f"NEW={new}: {run} is a run of another notebook. Name {stage.partition('.')[0]}.<name>.")
    recorded = (read_json(StagePaths(profile, stage).manifest) or {}).get("parameters", {})
    write_variant(profile, new, nested(differences(base_config(profile, new).parameters, recorded)), run)


class Choice(NamedTuple):
    """Stages of a profile: those asked for, those that may run for them, and all whose state matters to these."""

    asked: set[str]
    may_run: set[str]
    considered: set[str]


def select(configs: Mapping[str, StageConfig], only: str = "", start: str = "") -> Choice:
    """Choose among the stages of a profile; what the named ones read may run too, where it is stale.

    Args:
        configs: of every stage.
        only: names of stages, or patterns as ``03_train_mlp.*``, separated by spaces; all where nothing is named.
        start: the same; what reads them, directly or in turn, is asked for too.

    Raises:
        ConfigError: no stage has a name, or ``only`` and ``start`` are both given.
    """
    if only and start:
        raise ConfigError(f"ONLY={only} and FROM={start}: name one of them.")
    reads = {stage: config.reads for stage, config in configs.items()}
    readers = {stage: [other for other in reads if stage in reads[other]] for stage in reads}
    named: set[str] = set()
    for word in (only or start or "*").split():
        found = fnmatch.filter(configs, word)
        if not found:
            raise ConfigError(f"{'ONLY' if only else 'FROM'}={word}: no such stage; {hint(word, configs)}")
        named |= {*found}
    asked = _reached(named, readers) if start else named
    may_run = asked | _reached(named, reads)
    return Choice(asked, may_run, _reached(may_run, reads))


def _reached(start: Iterable[str], links: Mapping[str, Collection[str]]) -> set[str]:
    """Return some stages and all that links lead to from them."""
    found: set[str] = set()
    waiting = [*start]
    while waiting:
        if (stage := waiting.pop()) not in found:
            found.add(stage)
            waiting += links[stage]
    return found


def clean(profile: str, stage: str = "") -> list[str]:
    """Remove the outputs of a profile, or of those stages and runs by hand in it that a name or pattern fits.

    Of a whole profile only the notebooks in ``lab`` are kept, of stages the profile's other files.

    Returns:
        The names of the stages whose outputs were removed.

    Raises:
        ConfigError: there is no such profile or stage.
        LockedError: another process runs the profile or such a stage; nothing of it is removed.
    """
    profile_stages(profile)  # refuses what is no profile
    whole = StagePaths(profile, "")
    there = {folder.name for kind in ("artifacts", "logs") for folder in whole.outputs.glob(f"{kind}/[!.]*/")}
    chosen = sorted(fnmatch.filter(there, stage or "*"))
    if stage and not chosen:
        raise ConfigError(f"STAGE={stage}: nothing to remove in outputs/{profile}; {hint(stage, sorted(there))}")
    locks = [whole.lock, *(StagePaths(profile, name).lock for name in chosen)]
    try:
        for lock in locks if whole.outputs.is_dir() else []:
            acquire(lock, "make clean")
        for name in chosen:
            paths = StagePaths(profile, name)
            for folder in (paths.artifacts, paths.logs):
                shutil.rmtree(folder, ignore_errors=True)
            for file in (paths.executed, paths.failed, paths.report, paths.failed_report):
                file.unlink(missing_ok=True)
        for rest in [] if stage else [path for path in whole.outputs.glob("*") if path.name != "lab"]:
            shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
    finally:
        for lock in locks:
            release(lock)
    if not any(whole.outputs.glob("*")):
        shutil.rmtree(whole.outputs, ignore_errors=True)
    report.render_profile(profile)
    report.render_overview()
    return chosen
