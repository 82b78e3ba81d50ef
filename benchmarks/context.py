"""What a run of the benchmarks was asked for, and what a measurement returns."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.row import Row


@dataclass(frozen=True)
class Context:
    """What was asked for.

    Attributes:
        quick: whether to measure on small sizes.
        large: whether growth includes ebnerd_large's size.
        work: an empty folder for files that are thrown away.
    """

    quick: bool
    large: bool
    work: Path

    @property
    def size(self) -> str:
        """The size of the bundle that most rows look at."""
        return "demo" if self.quick else "small"


@dataclass(frozen=True)
class Measured:
    """What a measurement found.

    Attributes:
        rows: lines of the table.
        stages: what child processes took: ``stage``, ``size``, ``candidates``, ``seconds`` and ``peak_mb``.
    """

    rows: list[Row]
    stages: list[dict[str, Any]] = field(default_factory=list)
