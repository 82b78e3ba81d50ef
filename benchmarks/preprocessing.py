"""The package's way from a bundle to slates and features: the one place where benchmarks call it."""

from pathlib import Path

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.features import store
from ebnerd_lib.features.store import Features

SPLIT = "official"


def slates(bundle: Path) -> Dataset:
    """Turn a bundle into slates with labels, histories and tables."""
    return datasets.prepare(open_bundle(bundle), SPLIT)[0]


def preprocess(bundle: Path, folder: Path) -> int:
    """Write slates and features of a bundle into a folder as 01_preprocess does; return how many candidates."""
    folder.mkdir(parents=True, exist_ok=True)
    data = slates(bundle)
    datasets.save(data, folder)
    store.write(data, folder)
    return sum(part.candidates for part in data.parts.values())


def read(folder: Path) -> tuple[Dataset, dict[str, Features]]:
    """Read what ``preprocess`` wrote."""
    data = datasets.load(folder)
    return data, {part: store.read(folder, part) for part in data.parts}
