"""Features on disk: one memory-mapped array a part, and the list of its columns beside it."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.errors import StageError
from ebnerd_lib.features.build import World, build
from ebnerd_lib.features.registry import allowed, columns_named, every_column

COLUMNS_FILE = "features.json"


@dataclass(frozen=True)
class Features:
    """The features of a part.

    Attributes:
        matrix: float32 (candidates, columns), memory-mapped, rows in the order of the part's slates.
        columns: names, one a column of ``matrix``.
    """

    matrix: np.ndarray
    columns: list[str]

    def column(self, name: str) -> np.ndarray:
        """Return one column (candidates,). Raises ``StageError`` where there is none of that name."""
        if name not in self.columns:
            raise StageError(
                f"feature '{name}' is not among the {len(self.columns)} that 01_preprocess wrote. Run it again."
            )
        return self.matrix[:, self.columns.index(name)]


def world_of(dataset: Dataset) -> World:
    """Return the past that a dataset's features look at."""
    return World(dataset.log, dataset.metadata, dataset.histories, len(dataset.users))


def write(dataset: Dataset, folder: Path, progress: Callable[[float], None] | None = None) -> None:
    """Compute the features of every part straight into memory-mapped files in an existing folder.

    Raises:
        OSError: there is not enough space for them.
    """
    world = world_of(dataset)
    whole = sum(slates.candidates for slates in dataset.parts.values())
    done = 0
    for part, slates in dataset.parts.items():
        shape = (slates.candidates, len(every_column()))
        out = _create(folder / f"features_{part}.npy", shape)
        share = slates.candidates / whole

        def report(within: float, before: float = done / whole, share: float = share) -> None:
            if progress is not None:
                progress(before + within * share)

        build(slates, world, out, report)
        out.flush()
        done += slates.candidates
    columns = [vars(column) for column in every_column()]
    (folder / COLUMNS_FILE).write_text(json.dumps(columns, indent=1, ensure_ascii=False) + "\n")


def _create(path: Path, shape: tuple[int, int]) -> np.memmap:
    """Make a file that is mapped into memory, with all its space set aside.

    Where space is short, writing to a mapping of a file without it would kill the process.

    Raises:
        OSError: there is not enough space.
    """
    try:
        out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with path.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    return out


def read(folder: Path, part: str) -> Features:
    """Map the features of a part. Raises ``StageError`` where the folder lacks them."""
    path = folder / f"features_{part}.npy"
    if not path.exists():
        raise StageError(f"{path}: no such file. Run 01_preprocess for this profile first.")
    columns = json.loads((folder / COLUMNS_FILE).read_text())
    return Features(np.load(path, mmap_mode="r"), [column["name"] for column in columns])


def columns_table() -> pd.DataFrame:
    """Return the registry as a table: name, tier, group, unit and formula of every column."""
    return pd.DataFrame([vars(column) for column in every_column()])


def usable(features: Features, tier: str, leave_out: Sequence[str] = ()) -> list[int]:
    """Return the positions of the stored columns that a model of a tier may see.

    The registry decides, not the file: a column that is no longer registered is nobody's.

    Args:
        features: of any part.
        tier: the model's information tier.
        leave_out: columns, and groups of columns, that it does without, as a study does to see what they are worth.

    Raises:
        ConfigError: the tier is unknown, or a name to leave out is neither a column nor a group.
    """
    names = set(allowed(tier)) - columns_named(leave_out)
    return [place for place, name in enumerate(features.columns) if name in names]
