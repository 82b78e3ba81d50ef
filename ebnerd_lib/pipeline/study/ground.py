"""A bundle made ready for all configurations, and the training days that one of them sees."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import HOUR, Slates
from ebnerd_lib.features import store
from ebnerd_lib.features.store import Features
from ebnerd_lib.training.batches import training_rows


@contextmanager
def prepared(bundle: Path, split: str, out: Path) -> Iterator[tuple[Dataset, dict[str, Features]]]:
    """Prepare the dataset and its features in a folder that is gone afterwards: it is larger than quick to make.

    What a killed study left of it is cleared away first.
    """
    folder = out / f".prepared-{bundle.name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        dataset, _, _ = datasets.prepare(open_bundle(bundle), split)
        store.write(dataset, folder)
        yield dataset, {part: store.read(folder, part) for part in dataset.parts}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def warmup_for(slates: Slates, warmup_hours: float, share: float) -> float:
    """Return the warm-up that keeps a share of the time that training rows span, its latest part.

    Features of the rows kept look at the whole past as ever: fewer days are learnt from, none is forgotten.

    Args:
        slates: of the train part.
        warmup_hours: start of the train part that is left out in any case.
        share: of the time after it, above 0 and up to 1.
    """
    return warmup_hours + (1 - share) * max(_hours(slates) - warmup_hours, 0.0)


def training_size(slates: Slates, warmup_hours: float) -> dict[str, float | int]:
    """Return how many ``days`` and ``impressions`` of the train part are learnt from after a warm-up."""
    return {
        "days": round(max(_hours(slates) - warmup_hours, 0.0) / 24, 3),
        "impressions": len(training_rows(slates, warmup_hours)),
    }


def _hours(slates: Slates) -> float:
    return float((slates.time.max() - slates.time.min()) / HOUR)
