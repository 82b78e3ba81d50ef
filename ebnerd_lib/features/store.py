"""Features on disk: one memory-mapped array a part, and the list of its columns beside it."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.features.build import CHUNK, THREADS, Described, World, describe
from ebnerd_lib.features.registry import allowed, columns_named, every_column

COLUMNS_FILE = "features.json"


@dataclass(frozen=True)
class Features:
    """The features of a part.

    Attributes:
        matrix: float32 or float16 (candidates, columns), memory-mapped, rows in the order of the part's slates.
        columns: names, one a column of ``matrix``.
    """

    matrix: np.ndarray
    columns: list[str]

    def column(self, name: str) -> np.ndarray:
        """Return one column, float32 (candidates,). Raises ``StageError`` where there is none of that name."""
        if name not in self.columns:
            raise StageError(
                f"feature '{name}' is not among the {len(self.columns)} that 01_preprocess wrote. See that its "
                "parameter leave_out does not name it, and run it again."
            )
        return self.matrix[:, self.columns.index(name)].astype(np.float32)


def world_of(dataset: Dataset) -> World:
    """Return the past that a dataset's features look at."""
    return World(dataset.log, dataset.metadata, dataset.histories, len(dataset.users))


def write(
    dataset: Dataset,
    folder: Path,
    progress: Callable[[float], None] | None = None,
    half: bool = False,
    leave_out: Sequence[str] = (),
    chunk: int = CHUNK,
    threads: int = THREADS,
) -> None:
    """Compute the features of all parts in one pass, straight into memory-mapped files in an existing folder.

    Args:
        dataset: the slates.
        folder: to write into.
        progress: called with the share done.
        half: store float16, half the space: values keep eleven binary digits and end at ±65,504.
        leave_out: columns, and groups of columns, that are not stored.
        chunk: candidates at a time; the files do not depend on it.
        threads: to compute on; the files do not depend on it.

    Raises:
        OSError: there is not enough space for them.
        ConfigError: a name to leave out is neither a column nor a group, or nothing would be left.
    """
    left_out = columns_named(leave_out)
    columns = [column for column in every_column() if column.name not in left_out]
    if not columns:
        raise ConfigError(f"leave_out: all {len(left_out)} columns are left out. Leave some in.")
    names = [column.name for column in columns]
    kind = np.float16 if half else np.float32
    first, outs = 0, []
    for part, slates in dataset.parts.items():
        out = _create(folder / f"features_{part}.npy", (slates.candidates, len(names)), kind)
        outs.append((first, slates, out))
        first += len(slates)

    def put(described: Described) -> None:
        for first, slates, out in outs:
            inside = (described.rows >= first) & (described.rows < first + len(slates))
            if inside.any():
                mine = np.flatnonzero(described.slates.per_candidate(inside))
                where = candidate_rows(slates.offsets, described.rows[inside] - first)
                described.lay_out(names, out, where, mine)

    done = 0
    for described in describe(dataset.log, world_of(dataset), names, chunk, threads=threads, then=put):
        done += described.slates.candidates
        if progress is not None:
            progress(done / dataset.log.candidates)
    text = json.dumps([vars(column) for column in columns], indent=1, ensure_ascii=False)
    (folder / COLUMNS_FILE).write_text(text + "\n")


def _create(path: Path, shape: tuple[int, int], kind: type[np.generic]) -> np.memmap:
    """Make a file that is mapped into memory, with all its space set aside.

    Where space is short, writing to a mapping of a file without it would kill the process.

    Raises:
        OSError: there is not enough space.
    """
    try:
        out = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with path.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    return out


def read(folder: Path, part: str) -> Features:
    """Map the features of a part. Raises ``StageError`` where the folder lacks them or holds something else."""
    path = folder / f"features_{part}.npy"
    if not path.exists():
        raise StageError(f"{path}: no such file. Run 01_preprocess for this profile first.")
    columns = json.loads((folder / COLUMNS_FILE).read_text())
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise StageError(f"{path}: not an array of numbers ({error}). Run 01_preprocess again.") from error
    return Features(matrix, [column["name"] for column in columns])


def columns_table(names: Sequence[str]) -> pd.DataFrame:
    """Return what the registry says of some columns: name, tier, group, unit and formula, in order of registration."""
    return pd.DataFrame([vars(column) for column in every_column() if column.name in names])


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
