"""Steps of the package and of rivals, each run in a process of its own, so that its memory is its own.

``python -m benchmarks.stages STAGE SIZE FOLDER`` runs one and prints its candidates and seconds; the time leaves out
imports and a warm-up on a tiny bundle.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import bundles, memory, packages

Stage = Callable[[str, Path], int]


def run(stage: str, size: str, folder: Path) -> dict[str, Any]:
    """Run a stage in a child process and return what it took; peak memory is ``None`` where it cannot be told.

    Raises:
        RuntimeError: it failed.
    """
    for each in ("smoke", size):  # made here, so that a stage does not count it
        bundles.features(each) if stage in READ_FEATURES else bundles.bundle(each)
    words = [sys.executable, "-m", "benchmarks.stages", stage, size, str(folder)]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    peak = memory.watch(child)
    said = child.communicate()[0]
    if child.returncode:
        raise RuntimeError(f"stage {stage} on {size} ended with code {child.returncode}")
    return {"stage": stage, "size": size, **json.loads(said.splitlines()[-1]), "peak_mb": peak}


def _slates(size: str, _: Path) -> int:
    from benchmarks import preprocessing

    return preprocessing.slates(bundles.bundle(size)).log.candidates


def _slates_polars(size: str, _: Path) -> int:
    from benchmarks.rivals import exploded

    return int(exploded.labelled(bundles.bundle(size)).slates["labels"].list.len().sum())


def _preprocess(size: str, folder: Path) -> int:
    from benchmarks import preprocessing

    return preprocessing.preprocess(bundles.bundle(size), folder / size)


def _searchsorted(size: str, folder: Path) -> int:
    from benchmarks import preprocessing
    from benchmarks.rivals import searchsorted

    data = preprocessing.slates(bundles.bundle(size))
    searchsorted.write(data, folder)
    return data.log.candidates


def _train(module: str, model: str) -> Stage:
    def stage(size: str, folder: Path) -> int:
        from benchmarks import preprocessing, training

        data, features = preprocessing.read(bundles.features(size))
        training.train_model(data, features, module, model, folder / f"{model}_{size}", epochs=2)
        return data.parts["train"].candidates

    return stage


def _score(size: str, _: Path) -> int:
    from benchmarks import preprocessing, training

    data, features = preprocessing.read(bundles.features(size))
    trained = training.untrained(data, features, "mlp", "mlp")
    for part, slates in data.parts.items():
        trained.score(data, slates, features[part].matrix, features[part].columns)
    return data.log.candidates


def _evaluate(size: str, _: Path) -> int:
    import numpy as np

    from benchmarks import preprocessing
    from ebnerd_lib.evaluation.judge import judge

    slates = preprocessing.read(bundles.features(size))[0].parts["validation"]
    judge(np.random.default_rng(0).random(slates.candidates), slates, None)
    return slates.candidates


STAGES: dict[str, Stage] = {
    "slates": _slates,
    "slates, polars": _slates_polars,
    "preprocess": _preprocess,
    "features, searchsorted": _searchsorted,
    "train mf_ids, two epochs": _train("mf", "mf_ids"),
    "train mlp, two epochs": _train("mlp", "mlp"),
    "score with mlp": _score,
    "evaluate validation": _evaluate,
}
"""By name, calls that return how many candidates they went over."""
READ_FEATURES = ("train mf_ids, two epochs", "train mlp, two epochs", "score with mlp", "evaluate validation")
NEEDS = {"slates, polars": ("polars",)}
OF_THE_PACKAGE = tuple(name for name in STAGES if name not in ("slates, polars", "features, searchsorted"))


def available() -> list[str]:
    """Return the stages whose packages are installed."""
    return [name for name in STAGES if not packages.missing(*NEEDS.get(name, ()))]


def _main(stage: str, size: str, folder: Path) -> None:
    STAGES[stage]("smoke", folder)
    start = time.perf_counter()
    candidates = STAGES[stage](size, folder)
    print(json.dumps({"candidates": candidates, "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
