"""What is measured on: generated bundles, their slates and features, and models with the parameters of profiles."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import FOLDER
from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.features.build import Features, read_features, write_features
from ebnerd_lib.models.base import SlateModel
from ebnerd_lib.pipeline.params import base_config, load_config
from ebnerd_lib.pipeline.paths import read_json
from ebnerd_lib.pipeline.train import Fit, fit, inputs_of
from ebnerd_lib.sample import GENERATOR_VERSION, generate
from ebnerd_lib.training.inputs import TrainingInputs
from ebnerd_lib.training.lightning import SlateData
from ebnerd_lib.training.model_file import TrainedModel
from ebnerd_lib.training.trees import fit_trees

PROFILES = {"smoke": "smoke", "demo": "sample", "small": "ebnerd_small", "large": "ebnerd_large"}
"""The profile whose parameters a size of a generated bundle is preprocessed and trained with."""
TIER = "clicks"


def bundle(size: str) -> Path:
    """Return a generated bundle of one of the sizes of ``PROFILES``; it is generated where it is missing or old."""
    folder = FOLDER / size
    if (read_json(folder / "generated.json") or {}).get("generator_version") != GENERATOR_VERSION:
        generate(folder, seed=0, size=size)
    return folder


def slates(folder: Path) -> Dataset:
    """Read a bundle as slates with labels, histories and tables."""
    return datasets.prepare(open_bundle(folder), "official")[0]


def preprocess(size: str, folder: Path) -> Dataset:
    """Write slates and features of a bundle as 01_preprocess does, from its parquet files on."""
    folder.mkdir(parents=True, exist_ok=True)
    data, given = slates(bundle(size)), load_config(PROFILES[size], "01_preprocess").parameters
    datasets.save(data, folder)
    write_features(data, folder, half=given["stored_as"] == "float16", leave_out=given["leave_out"])
    return data


def prepared(size: str, folder: Path) -> tuple[Dataset, dict[str, Features]]:
    """Preprocess a bundle and return its slates, and its features by part."""
    data = preprocess(size, folder / size)
    return data, {part: read_features(folder / size, part) for part in data.parts}


def parameters(size: str, model: str) -> dict[str, Any]:
    """Return the effective parameters of the stage that trains a model, in the profile of a size."""
    stage = "03_train_mlp" if model == "mlp" else model.replace("mf_", "02_train_mf.")
    return load_config(PROFILES[size], stage).parameters


def batches(size: str, data: Dataset, features: dict[str, Features], model: str, network: SlateModel) -> SlateData:
    """Return the batches on which a model is trained in the profile of a size, for a network of it."""
    given = parameters(size, model)
    learned_from, negatives = inputs_of(given, data, features), given["training"]["negatives"]
    return SlateData(learned_from, network, given["batch_size"], negatives, given["seed"])


def fitted(
    size: str, data: Dataset, features: dict[str, Features], model: str, work: Path, epochs: int | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> Fit:  # fmt: skip
    """Train a model on the CPU as its notebook does in the profile of a size.

    ``epochs`` trains as many and stops no earlier; ``report`` is called after each. Logs go to a new folder in
    ``work``, since a training that is complete there would not be done again.
    """
    given = parameters(size, model) | {"trainer": {"accelerator": "cpu", "devices": 1}}
    if epochs is not None:
        given |= {"epochs": epochs, "training": {**given["training"], "patience": epochs}}
    inputs = inputs_of(given, data, features)
    return fit(given, inputs, Path(tempfile.mkdtemp(dir=work)), model, report)


def boosted(size: str, data: Dataset, features: dict[str, Features]) -> TrainedModel:
    """Train boosted trees as 03_train_trees does, on one thread, from the impressions that ``mlp`` learns from."""
    given = base_config(PROFILES[size], "03_train_trees").parameters
    warmup_hours = parameters(size, "mlp")["training"]["warmup_hours"]
    one_thread = {**given, "boosting": {**given["boosting"], "num_threads": 1}}
    return fit_trees(TrainingInputs.of(data, features, TIER, warmup_hours), "trees", one_thread)
