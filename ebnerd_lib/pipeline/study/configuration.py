"""What a study tries, and what a trial works on."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.features.store import Features


@dataclass(frozen=True)
class Ground:
    """What every configuration of a bundle works on, and where it may write.

    Attributes:
        dataset: of the bundle.
        features: of its parts.
        cells: holds a folder for each cell of the bundle, named as its configuration.
        folder: the cell's own among them, for its model and scores.
        logs: for logs and checkpoints.
    """

    dataset: Dataset
    features: dict[str, Features]
    cells: Path
    folder: Path
    logs: Path


@dataclass(frozen=True)
class Procedure:
    """How a configuration gets its figures.

    Attributes:
        run: returns an entry of ``metrics.json`` with the figures of ``tuning`` and maybe of ``validation``. A cell is
            computed anew when the module that defines it changes, or one that this imports.
        packages: whose versions its figures depend on.
    """

    run: Callable[["Configuration", Ground], dict[str, Any]]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class Configuration:
    """One scorer with its parameters.

    Attributes:
        name: in files and tables.
        tier: the information tier that it is trained for.
        procedure: how it gets its figures.
        parameters: all that it depends on beside code, packages and data, in plain types, and nothing else.
        after: name of the configuration whose trained model it starts from, if any.
    """

    name: str
    tier: str
    procedure: Procedure
    parameters: dict[str, Any] = field(default_factory=dict)
    after: str | None = None

    def listed(self) -> dict[str, Any]:
        """Return tier and parameters as tables and lists of what was tried show them."""
        start = {"starts_from": self.after} if self.after else {}
        return {"tier": self.tier, **start, **self.parameters}
