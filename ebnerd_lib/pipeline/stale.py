"""Which stages are stale, and in which order they run."""

import ast
import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, get_args

from ebnerd_lib.configs import WITHOUT_EFFECT, Factorisation, Item, flat
from ebnerd_lib.data.layout import check_files
from ebnerd_lib.errors import ConfigError, EbnerdError
from ebnerd_lib.pipeline.params import StageConfig, code_cells, differences, hint, load_profile
from ebnerd_lib.pipeline.paths import (
    ROOT,
    StagePaths,
    files_in,
    notebook_path,
    parameter_file,
    read_json,
    relative,
    write_whole,
)

PACKAGE = "ebnerd_lib"
SPACES = ROOT / "params" / "tune.yaml"
"""What a search takes whose parameters name nothing to search."""


class Hashes:
    """sha256 sums of files, remembered by size and time of change, so that a check reads no large file twice."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._known: dict[str, list[Any]] = read_json(store) or {}  # by file: size, time of change, checksum

    def of(self, file: Path) -> str:
        """Return the sum of a file."""
        status = file.stat()
        key, stamp = relative(file), [status.st_size, status.st_mtime_ns]
        known = self._known.get(key)
        if known is None or known[:2] != stamp:
            self._known[key] = [*stamp, sha256(file)]
        return str(self._known[key][2])

    def save(self) -> None:
        """Write what is remembered; losing it only costs time."""
        write_whole(self._store, json.dumps(self._known))


def sha256(file: Path) -> str:
    """Return the sha256 sum of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def input_files(config: StageConfig) -> list[Path]:
    """Return the files that a stage reads: the bundle of its parameter ``bundle``, and artifacts of earlier stages.

    Raises:
        BundleError: the bundle is incomplete.
    """
    files: list[Path] = []
    if "bundle" in config.parameters:
        files += check_files(ROOT / config.parameters["bundle"])
    if config.parameters.get("space") == {}:
        files.append(SPACES)
    for stage in config.reads:
        files += files_in(StagePaths(config.profile, stage).artifacts)
    return files


def fingerprint(config: StageConfig, hashes: Hashes) -> str:
    """Return one sum over all that a stage depends on."""
    notebook = notebook_path(config.stage)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts: dict[str, Any] = {
        "cells": [[cell["cell_type"], "".join(cell["source"])] for cell in cells],
        "parameters": {name: own for name, own in config.parameters.items() if name not in WITHOUT_EFFECT},
        "modules": {relative(file): sha256(file) for file in stage_modules(config)},
        "inputs": {relative(file): hashes.of(file) for file in input_files(config)},
    }
    if searched := config.parameters.get("training_stage"):
        known = load_profile(config.profile)
        parts["searched"] = fingerprint(known[searched], hashes) if searched in known else None
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def stage_modules(config: StageConfig) -> list[Path]:
    """Return the modules that a stage runs, sorted: see ``notebook_modules``, with all that these import in turn.

    Raises:
        ConfigError: as ``notebook_modules``.
    """
    return sorted(reached(notebook_modules(config), lambda file: _imports(file.read_text(encoding="utf-8"))))


def notebook_modules(config: StageConfig) -> set[Path]:
    """Return the modules that the notebook of a stage imports.

    The module that the parameter ``model`` of a training stage names counts as imported.

    Raises:
        ConfigError: a code cell is not Python, or there is no such module.
    """
    notebook = notebook_path(config.stage)
    files: set[Path] = set()
    for number, cell in enumerate(code_cells(notebook), 1):
        try:
            files |= _cell_imports(cell["source"])
        except SyntaxError as error:
            place = f"{relative(notebook)}: code cell {number}"
            raise ConfigError(f"{place} is not Python ({error.msg}). Fix it.") from None
    if config.trains and "model" in config.parameters:
        module = model_module(config.parameters["model"])
        folder = ROOT / PACKAGE / "models"
        if not (folder / f"{module}.py").exists():
            near = hint(module, sorted(file.stem for file in folder.glob("[a-z]*.py")))
            raise ConfigError(f"{config.stage}: model: there is no {PACKAGE}/models/{module}.py; {near}")
        files |= module_files(f"{PACKAGE}.models.{module}")
    return files


def model_module(model: str) -> str:
    """Return the module of ``ebnerd_lib.models`` with the model of a name: its own, or that of matrix factorisation."""
    return "mf" if model in get_args(Factorisation) else model


def reached(start: Iterable[Item], links: Callable[[Item], Iterable[Item]]) -> set[Item]:
    """Return some items and all that links lead to from them, directly or in turn.

    >>> sorted(reached([1], {1: [2], 2: [1], 3: [2]}.__getitem__))
    [1, 2]
    """
    found, waiting = set[Item](), [*start]
    while waiting:
        if (item := waiting.pop()) not in found:
            found.add(item)
            waiting += links(item)
    return found


def _cell_imports(source: str) -> set[Path]:
    """Return what a cell imports, with ``pass`` in the place of IPython's magics, shell and help lines.

    What stands below ``%%time`` is Python, below ``%%bash`` not.
    """
    with contextlib.suppress(SyntaxError):
        return _imports(source)
    try:
        return _imports(re.sub(r"(?m)^(\s*)([%!].*|[\w.]+\s*=\s*[%!].*|.*\?)$", r"\1pass", source))
    except SyntaxError:
        if source.startswith("%%"):
            return set()
        raise


def _imports(source: str) -> set[Path]:
    return {file for name in _imported(source) for file in module_files(name)}


@cache
def _imported(source: str) -> frozenset[str]:
    """Return the names that a source may import of the package; stages share most modules, so each is parsed once."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return frozenset(name for name in found if name.split(".")[0] == PACKAGE)


@cache
def module_files(name: str) -> frozenset[Path]:
    """Return the file of a module and those of the packages around it; nothing for a name inside a module."""
    files, folder = set(), ROOT
    for part in name.split("."):
        if (folder / f"{part}.py").is_file():
            files.add(folder / f"{part}.py")
            break
        folder = folder / part
        if not (folder / "__init__.py").is_file():
            break
        files.add(folder / "__init__.py")
    return frozenset(files)


def stale_stages(profile: str, configs: Mapping[str, StageConfig]) -> dict[str, str]:
    """Return what changed since the stages of a profile ran, by stage; those in which nothing did are left out."""
    hashes = Hashes(StagePaths(profile, "").hashes)
    found = {}
    for stage, config in configs.items():
        manifest = read_json(StagePaths(profile, stage).manifest)
        if manifest is not None and (told := changes(config, manifest, hashes)):
            found[stage] = told
    return found


def changes(config: StageConfig, manifest: dict[str, Any], hashes: Hashes) -> str:
    """Say in a few words what differs between what a stage would run on now and what its manifest records.

    That is the first kind of change found: parameters, then inputs, then code; an empty text where there is none.
    """
    try:
        if manifest.get("fingerprint") == fingerprint(config, hashes):
            return ""
        inputs = {relative(file): hashes.of(file) for file in input_files(config)}
    except (EbnerdError, OSError) as error:
        return f"its inputs cannot be read now ({type(error).__name__})"
    recorded = flat(manifest.get("parameters", {}))
    moved = differences(recorded, flat(config.parameters))
    if told := [
        f"{name} {json.dumps(recorded.get(name))}, now {json.dumps(value)}"
        for name, value in moved.items()
        if name not in WITHOUT_EFFECT
    ]:
        return f"its parameters changed: {', '.join(told)}"
    if files := sorted({name for name, _ in inputs.items() ^ manifest.get("inputs", {}).items()}):
        return f"its inputs changed: {', '.join(files[:3])}" + (f" and {len(files) - 3} more" if files[3:] else "")
    return "its notebook or the package changed"


def order(configs: Mapping[str, StageConfig]) -> TopologicalSorter[str]:
    """Return a sorter of the stages of a profile, prepared: it gives each once those that it reads are done.

    Raises:
        ConfigError: stages read each other in a circle.
    """
    sorter = TopologicalSorter({stage: config.reads for stage, config in configs.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        circle = error.args[1]
        file = relative(parameter_file(configs[circle[0]].profile, circle[0]))
        raise ConfigError(f"{file}: reads: {', '.join(circle[1:])} wait for each other. Name other stages.") from None
    return sorter


def behind(reads: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Return how many stages follow one after the other on each, by what every stage reads; none read in a circle.

    >>> behind({"01": [], "02": ["01"], "03": ["01"], "04": ["03"]})
    {'01': 2, '02': 0, '03': 1, '04': 0}
    """

    @cache
    def following(stage: str) -> int:
        return max((1 + following(other) for other, read in reads.items() if stage in read), default=0)

    return {stage: following(stage) for stage in reads}
