"""Cells: each configuration on each bundle, computed once and kept."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ebnerd_lib.data.layout import STAMP, check_files, generated_stamp
from ebnerd_lib.data.sample import GENERATOR_VERSION, generate
from ebnerd_lib.pipeline.fingerprint import closure, module_files, sha256
from ebnerd_lib.pipeline.json_file import read_json, write_json
from ebnerd_lib.pipeline.layout import relative
from ebnerd_lib.pipeline.study.configuration import Configuration, Ground
from ebnerd_lib.pipeline.study.ground import prepared
from ebnerd_lib.training.kept import forget


def bundle_folder(out: Path, seed: int) -> Path:
    """Return where a study keeps the bundle of a seed."""
    return out / "bundles" / f"seed-{seed}"


def cells_folder(out: Path, seed: int) -> Path:
    """Return where a study keeps the cells of a bundle: for each a ``<name>.json`` and a folder ``<name>``."""
    return out / "cells" / f"seed-{seed}"


def scores_file(out: Path, seed: int, name: str) -> Path:
    """Return the scores of a cell on validation."""
    return cells_folder(out, seed) / name / f"scores_{name}.parquet"


def compute(out: Path, seed: int, size: str, split: str, wanted: list[Configuration]) -> Iterator[dict[str, Any]]:
    """Yield the cells of a bundle in the order of the configurations, computing those that do not stand.

    A cell stands while its key is that of its parameters, of the modules that it runs and all that they import, of
    the packages it uses and of the bundle, and while the files beside it are there.

    Args:
        out: the study's folder.
        seed: of the bundle, which is generated if it is not there.
        size: of the bundle.
        split: how it is cut.
        wanted: configurations; one that starts from another's model comes after it.

    Raises:
        BundleError: the bundle's folder holds something that was not generated.
    """
    bundle = _bundle(bundle_folder(out, seed), seed, size)
    sums = {file.relative_to(bundle).as_posix(): sha256(file) for file in check_files(bundle)}
    folder = cells_folder(out, seed)
    keys: dict[str, str] = {}
    for each in wanted:
        keys[each.name] = _key(each, split, sums, keys.get(each.after or ""))
    stale = [name for name, key in keys.items() if not _stands(folder, name, key)]
    say(f"seed {seed}  {len(wanted) - len(stale)} of {len(wanted)} cells stand")
    with ExitStack() as stack:
        if stale:
            say(f"seed {seed}  preparing slates and features")
            dataset, features = stack.enter_context(prepared(bundle, split, out))
        for place, each in enumerate(wanted, 1):
            head = f"seed {seed}  {place}/{len(wanted)}  {each.name} ({each.tier})"
            if each.name in stale:
                say(f"{head}: …")
                _note(out / "tried.json", each)
                ground = Ground(dataset, features, folder, folder / each.name, out / "logs" / f"seed-{seed}")
                _compute(each, ground, seed, keys[each.name])
            cell = read_json(folder / f"{each.name}.json") or {}
            if each.name in stale:
                part = "validation" if "validation" in cell["row"] else "tuning"
                say(f"{head}: AUC on {part} {cell['row'][part]['auc']:.4f}, {cell['seconds']:.1f} s")
            yield cell


def count_tried(out: Path, prefix: str = "") -> int:
    """Return how many different configurations were ever computed in a study's folder, by start of their name."""
    tried = read_json(out / "tried.json") or {}
    entries = [entry for name, own in tried.items() if name.startswith(prefix) for entry in own]
    return len({json.dumps(entry, sort_keys=True) for entry in entries})


def say(line: str) -> None:
    """Tell a person who watches."""
    print(line, flush=True)


def _stands(folder: Path, name: str, key: str) -> bool:
    cell = read_json(folder / f"{name}.json") or {}
    return cell.get("key") == key and all((folder / name / file).exists() for file in cell["files"])


def _compute(configuration: Configuration, ground: Ground, seed: int, key: str) -> None:
    """Compute a cell. Its file goes first and comes last: what an interrupted run leaves has none."""
    file = ground.cells / f"{configuration.name}.json"
    start = time.monotonic()
    file.unlink(missing_ok=True)
    shutil.rmtree(ground.folder, ignore_errors=True)
    ground.folder.mkdir(parents=True)
    entry = configuration.procedure.run(configuration, ground)
    row = {"seed": seed, "name": configuration.name, **entry}
    files = sorted(path.name for path in ground.folder.iterdir())
    write_json(file, {"key": key, "row": row, "files": files, "seconds": round(time.monotonic() - start, 2)})
    forget(ground.logs)


def _key(configuration: Configuration, split: str, bundle: dict[str, str], before: str | None) -> str:
    """Return one sum over all that the figures of a cell depend on; ``before`` is that of the cell it starts from."""
    names = [configuration.procedure.run.__module__]
    if "module" in configuration.parameters:
        names.append(f"ebnerd_lib.models.{configuration.parameters['module']}")
    files = _modules(*names)
    parts = {
        "configuration": [configuration.name, configuration.listed(), split],
        "modules": {relative(file): sha256(file) for file in files},
        "procedure": configuration.procedure.run.__qualname__,
        "packages": {name: _version(name) for name in configuration.procedure.packages},
        "bundle": bundle,
        "before": before,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def _modules(*names: str) -> list[Path]:
    return closure({file for name in names for file in module_files(name)})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _bundle(folder: Path, seed: int, size: str) -> Path:
    """Return a generated bundle, made anew where its stamp differs or the generator has changed since."""
    wanted = {"generator_version": GENERATOR_VERSION, "seed": seed, "size": size}
    sources = closure(set(module_files("ebnerd_lib.data.sample")))
    stamp = folder / STAMP
    if generated_stamp(folder) != wanted or any(f.stat().st_mtime > stamp.stat().st_mtime for f in sources):
        say(f"seed {seed}  generating {relative(folder)}")
        generate(folder, seed=seed, size=size)
    return folder


def _note(file: Path, configuration: Configuration) -> None:
    """Enter a configuration in the list of all that were ever computed, once for the same tier and parameters."""
    tried = read_json(file) or {}
    known = tried.setdefault(configuration.name, [])
    if configuration.listed() not in known:
        known.append(configuration.listed())
        write_json(file, tried)
