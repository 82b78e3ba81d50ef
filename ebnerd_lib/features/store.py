"""Features of slates; on disk one memory-mapped array a part, and the list of its columns beside it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ebnerd_lib.errors import StageError
from ebnerd_lib.features import catalogue as catalogue  # registers the features
from ebnerd_lib.features.registry import allowed, every_column

COLUMNS_FILE = "features.json"


@dataclass(frozen=True)
class Features:
    """The features of a part, or of a chunk of slates."""

    matrix: np.ndarray  # float32 or float16 (candidates, columns) in the order of the slates; of a part memory-mapped
    columns: list[str]  # names
    log_chance: np.ndarray | None = None  # float32 (candidates,), where slates are samples: of the candidate's chance

    def column(self, name: str) -> np.ndarray:
        """Return one column, float32 (candidates,). Raises ``StageError`` where there is none of that name."""
        if name not in self.columns:
            raise StageError(
                f"feature '{name}' is not among the {len(self.columns)} that 01_preprocess wrote. See that its "
                "parameter leave_out does not name it, and run it again."
            )
        return self.matrix[:, self.columns.index(name)].astype(np.float32)

    def select(self, names: list[str]) -> np.ndarray:
        """Return columns in the order of ``names``: (candidates, len(names))."""
        if names == self.columns:
            return self.matrix
        return np.take(self.matrix, np.array([self.columns.index(name) for name in names], dtype=np.int64), axis=1)


def read(folder: Path, part: str) -> Features:
    """Map the features of a part. Raises ``StageError`` where the folder lacks them or holds something else."""
    path = folder / f"features_{part}.npy"
    if not path.exists():
        raise StageError(f"{path}: no such file. Run 01_preprocess for this profile first.")
    columns = json.loads((folder / COLUMNS_FILE).read_text(encoding="utf-8"))
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise StageError(f"{path}: not an array of numbers ({error}). Run 01_preprocess again.") from error
    return Features(matrix, [column["name"] for column in columns])


def columns_table(names: Sequence[str]) -> pd.DataFrame:
    """Return what the registry says of some columns: name, tier, group, unit and formula, in order of registration."""
    return pd.DataFrame([vars(column) for column in every_column() if column.name in names])


def usable(features: Features, tier: str) -> list[int]:
    """Return the positions of the stored columns, of any part, that a model of a tier may see.

    The registry decides, not the file: columns that are not registered are ignored.

    Raises:
        ConfigError: the tier is unknown.
    """
    names = set(allowed(tier))
    return [place for place, name in enumerate(features.columns) if name in names]
