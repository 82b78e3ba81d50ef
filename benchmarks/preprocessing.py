"""The package's way from a bundle to slates and features: the one place where benchmarks call it."""

from pathlib import Path
from typing import Any

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.features import store
from ebnerd_lib.features.store import Features
from ebnerd_lib.pipeline.config import load_config

SPLIT = "official"
PROFILES = {"small": "ebnerd_small", "tenth": "ebnerd_large", "large": "ebnerd_large"}
"""The profiles whose parameters say how features of a size are stored; those of other sizes are stored as sample's."""


def slates(bundle: Path) -> Dataset:
    """Turn a bundle into slates with labels, histories and tables."""
    return datasets.prepare(open_bundle(bundle), SPLIT)[0]


def storage(size: str) -> dict[str, Any]:
    """Return how 01_preprocess stores the features of a bundle of a size: precision, and columns left out."""
    parameters = load_config(PROFILES.get(size, "sample"), "01_preprocess").parameters
    return {"half": parameters["stored_as"] == "float16", "leave_out": parameters["leave_out"]}


def features(bundle: Path, folder: Path, tables: bool = False) -> int:
    """Write the features of a bundle, and maybe its tables, from its parquet files on; return how many candidates."""
    folder.mkdir(parents=True, exist_ok=True)
    data = slates(bundle)
    if tables:
        datasets.save(data, folder)
    store.write(data, folder, **storage(bundle.name))
    return data.log.candidates


def preprocess(bundle: Path, folder: Path) -> int:
    """Write slates and features of a bundle into a folder as 01_preprocess does; return how many candidates."""
    return features(bundle, folder, tables=True)


def read(folder: Path) -> tuple[Dataset, dict[str, Features]]:
    """Read what ``preprocess`` wrote."""
    data = datasets.load(folder)
    return data, {part: store.read(folder, part) for part in data.parts}
