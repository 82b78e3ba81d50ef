"""Features on disk: one memory-mapped array a part, and the list of its columns beside it."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.features.build import CHUNK, THREADS, FeatureChunk, FeatureContext, compute_features
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


def feature_context(dataset: Dataset) -> FeatureContext:
    """Return the past that a dataset's features look at."""
    return FeatureContext(dataset.log, dataset.metadata, dataset.histories, len(dataset.users))


def write(
    dataset: Dataset,
    folder: Path,
    progress: Callable[[float], None] | None = None,
    half: bool = False,
    leave_out: Sequence[str] = (),
    chunk: int = CHUNK,
    threads: int = THREADS,
) -> None:
    """Compute the features of all parts in one pass, straight into files that can be mapped into memory.

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
    with ExitStack() as opened:
        first, files = 0, []
        for part, slates in dataset.parts.items():
            file = _Rows(folder / f"features_{part}.npy", slates.candidates, len(names), kind)
            files.append((first, slates, opened.enter_context(file)))
            first += len(slates)

        def put(described: FeatureChunk) -> None:
            for first, slates, file in files:
                rows = described.rows - first
                inside = (rows >= 0) & (rows < len(slates))
                if inside.any():
                    mine = np.flatnonzero(described.slates.per_candidate(inside))
                    matrix = np.empty((len(mine), len(names)), kind)
                    described.lay_out(names, matrix, np.arange(len(mine)), mine)
                    file.put(candidate_rows(slates.offsets, rows[inside]), matrix)

        done = 0
        for described in compute_features(
            dataset.log, feature_context(dataset), names, chunk, threads=threads, then=put
        ):
            done += described.slates.candidates
            if progress is not None:
                progress(done / dataset.log.candidates)
    text = json.dumps([vars(column) for column in columns], indent=1, ensure_ascii=False)
    (folder / COLUMNS_FILE).write_text(text + "\n")


class _Rows:
    """A file of rows, written piece by piece from any thread: what ``np.save`` writes of a matrix.

    Args:
        path: file to write.
        rows: how many there will be.
        columns: numbers in a row.
        kind: of the numbers.

    Raises:
        OSError: there is not enough space.
    """

    def __init__(self, path: Path, rows: int, columns: int, kind: type[np.generic]) -> None:
        self._path, self._width = path, columns * np.dtype(kind).itemsize
        self._stream = path.open("wb", buffering=0)
        about = {"descr": np.lib.format.dtype_to_descr(np.dtype(kind)), "fortran_order": False}
        with self._named():
            np.lib.format.write_array_header_1_0(self._stream, {**about, "shape": (rows, columns)})
            self._start = self._stream.tell()
            self._stream.truncate(self._start + rows * self._width)

    def put(self, where: np.ndarray, matrix: np.ndarray) -> None:
        """Write rows to their places: int64 (m,), (m, columns). Those that follow each other are written at once."""
        ends = np.concatenate((np.flatnonzero(np.diff(where) != 1) + 1, [len(where)])).tolist()
        bytes_, begin = matrix.reshape(-1).view(np.uint8).data, 0
        for end in ends:
            piece, at = bytes_[begin * self._width : end * self._width], self._start + int(where[begin]) * self._width
            while piece:
                with self._named():
                    written = os.pwrite(self._stream.fileno(), piece, at)
                piece, at = piece[written:], at + written
            begin = end

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let errors of the system name the file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from None

    def __enter__(self) -> "_Rows":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


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
        leave_out: columns, and groups of columns that it does without.

    Raises:
        ConfigError: the tier is unknown, or a name to leave out is neither a column nor a group.
    """
    names = set(allowed(tier)) - columns_named(leave_out)
    return [place for place, name in enumerate(features.columns) if name in names]
