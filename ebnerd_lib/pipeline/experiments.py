"""Variations of stages: their parameter files, which stages a run takes, and removing outputs again."""

import fnmatch
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ebnerd_lib.configs import nested
from ebnerd_lib.errors import ConfigError, LockedError
from ebnerd_lib.pipeline import params, paths, report
from ebnerd_lib.pipeline.params import StageConfig, hint
from ebnerd_lib.pipeline.paths import StagePaths
from ebnerd_lib.pipeline.stale import reached


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
    known = {name: config.parameters for name, config in params.load_profile(profile).items()}
    notebook, _, variant = stage.partition(".")
    kind = params.config_class(notebook)
    if not variant:
        raise ConfigError(f"NEW={stage}: a new variant needs a name of its own, as {stage}.wide.")
    paths.check_stage(profile, stage)
    config = params.with_values(params.base_config(profile, stage), values, where)
    if stage in known:
        if known[stage] != config.parameters:
            raise ConfigError(f"NEW={stage}: params/{profile}/{stage}.yaml says otherwise. Choose another name.")
        return
    if not values:
        raise ConfigError(f"NEW={stage}: {where} changes no parameter. Name what differs, as SET='dropout=0.2'.")
    params.check_models(profile, [*known, stage])
    params.read_stages(config, {**known, stage: config.parameters})
    paths.write_whole(paths.parameter_file(profile, stage), "".join(_lines(values, kind)))


def _lines(values: Mapping[str, Any], kind: Any, indent: str = "") -> Iterator[str]:
    """Yield the lines of a parameter file, each key with what it means; ``kind`` is its class or that of a group."""
    for name, value in values.items():
        field = kind.model_fields[name]
        if isinstance(value, dict) and hasattr(field.annotation, "model_fields"):
            yield f"{indent}{name}:\n"
            yield from _lines(value, field.annotation, "  ")
        else:
            text = yaml.safe_dump([value], default_flow_style=True, width=2**20)[1:-2]
            yield f"{indent}{name}: {text}  # {field.description}\n"


def keep(run: str, new: str) -> None:
    """Write the parameters of a run, as ``smoke/03_train_mlp.lab1``, as a new variant of its profile.

    Raises:
        ConfigError: there is no such run, or as ``write_variant``.
    """
    profile, _, stage = run.partition("/")
    manifest = paths.read_json(StagePaths(profile, stage).manifest)
    if manifest is None:
        raise ConfigError(f"RUN={run}: there is no such finished run. Name one as smoke/03_train_mlp.lab1.")
    changed = params.differences(params.base_config(profile, new).parameters, manifest["parameters"])
    write_variant(profile, new, nested(changed), run)


def select(configs: Mapping[str, StageConfig], only: str = "", start: str = "") -> tuple[set[str], set[str]]:
    """Return the stages of a profile that are asked for, and those that may run: they, and what the named ones read.

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
        if not (found := fnmatch.filter(configs, word)):
            raise ConfigError(f"{'ONLY' if only else 'FROM'}={word}: no such stage; {hint(word, configs)}")
        named |= {*found}
    asked = reached(named, readers.__getitem__) if start else named
    return asked, asked | reached(named, reads.__getitem__)


def clean(profile: str, stage: str = "") -> list[str]:
    """Remove the outputs of a profile, or of those stages and runs by hand in it that a name or pattern fits.

    Of a whole profile only the notebooks in ``lab`` are kept, of stages the profile's other files.

    Returns:
        The names of the stages whose outputs were removed.

    Raises:
        ConfigError: there is no such profile or stage.
        LockedError: another process runs the profile or such a stage; nothing is removed.
    """
    paths.profile_stages(profile)  # refuses what is no profile
    whole = StagePaths(profile, "")
    there = {folder.name for kind in ("artifacts", "logs") for folder in whole.outputs.glob(f"{kind}/[!.]*/")}
    chosen = [StagePaths(profile, name) for name in sorted(fnmatch.filter(there, stage or "*"))]
    if stage and not chosen:
        raise ConfigError(f"STAGE={stage}: nothing to remove in outputs/{profile}; {hint(stage, sorted(there))}")
    for lock in (whole.lock, *(file for own in chosen for file in sorted(own.logs.rglob("*.lock")))):
        if told := paths.holder(lock):
            raise LockedError(f"{paths.relative(lock)} is held by {told}. Wait until it has ended.")
    doomed = [path for path in whole.outputs.glob("*") if path.name != "lab"]
    if stage:
        doomed = [
            path
            for own in chosen
            for path in (own.artifacts, own.logs, own.executed, own.failed, own.report, own.failed_report)
        ]
    for path in doomed:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    report.render_profile(profile)
    return [own.stage for own in chosen]
