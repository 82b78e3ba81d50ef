"""Generated bundles to measure on, kept in ``data/bench`` from run to run, and their features."""

import hashlib
import shutil
from pathlib import Path

from benchmarks.preprocessing import preprocess
from ebnerd_lib.pipeline.json_file import read_json
from ebnerd_lib.pipeline.layout import ROOT
from ebnerd_lib.sample import GENERATOR_VERSION, generate

SEED = 0
FOLDER = ROOT / "data" / "bench"


def bundle(size: str) -> Path:
    """Return a generated bundle of a size of ``ebnerd_lib.sample``; it is generated where it is missing or old."""
    folder = FOLDER / size
    stamp = read_json(folder / "generated.json")
    if stamp is None or stamp["generator_version"] != GENERATOR_VERSION:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        generate(folder, seed=SEED, size=size)
    return folder


def features(size: str) -> Path:
    """Return a folder with slates and features of a bundle, made by the package as it is now."""
    folder, stamp = FOLDER / f"{size}_features", FOLDER / f"{size}_features" / "made_by"
    if not stamp.exists() or stamp.read_text() != _sum_of_sources():
        shutil.rmtree(folder, ignore_errors=True)
        preprocess(bundle(size), folder)
        stamp.write_text(_sum_of_sources())
    return folder


def _sum_of_sources() -> str:
    total = hashlib.sha256()
    for room in ("data", "features"):
        for file in sorted((ROOT / "ebnerd_lib" / room).rglob("*.py")):
            total.update(file.read_bytes())
    return total.hexdigest()
