"""Model files: weights, hyperparameters and vocabularies in plain types, read with ``weights_only=True``."""

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ebnerd_lib.configs import ONLINE
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.data.vocabulary import Vocabulary
from ebnerd_lib.errors import StageError
from ebnerd_lib.features.registry import allowed, every_column
from ebnerd_lib.models.base import SlateModel, find_model, one_thread
from ebnerd_lib.models.ensemble import Ensemble
from ebnerd_lib.training.batches import SlateBatches
from ebnerd_lib.training.inputs import HistoryReader, IdEncoder, TrainingInputs

SCORE_BATCH = 1024
"""Slates scored at a time."""


@dataclass
class TrainedModel:
    """A model with all it needs to score slates of any dataset."""

    name: str  # its name in tables and files: that of the stage's model, or ``<model>_online``
    tier: str  # its information tier
    network: SlateModel  # the model, in evaluation mode
    columns: list[str]  # names of the feature columns it sees, in its order
    users: Vocabulary  # the users it saw in training
    articles: Vocabulary  # the articles it saw in training
    trained_on: str = "logged"  # ``logged`` slates, which editors put on pages, or samples of what was ``live``

    @classmethod
    def of(cls, name: str, network: SlateModel, inputs: TrainingInputs) -> "TrainedModel":
        """Return a network that was trained on some inputs under the name that its files get."""
        names = inputs.names(network)
        return cls(name, inputs.tier, network, names, inputs.users, inputs.articles, inputs.slates)

    @property
    def is_online(self) -> bool:
        """Whether the model was updated online: its file has seen the clicks of validation."""
        return self.name.endswith(ONLINE)

    def groups(self, names: list[str]) -> dict[str, list[int]]:
        """Return the feature groups that the model looks at, with the places of their columns among ``names``."""
        found: dict[str, list[int]] = {}
        for column in every_column():
            if column.name in self.columns:
                found.setdefault(column.group, []).append(names.index(column.name))
        return found

    @one_thread()
    def score(self, dataset: Dataset, slates: Slates, matrix: np.ndarray, names: list[str]) -> np.ndarray:
        """Score every candidate of slates, which use the indices of the dataset: float32 (m,).

        ``matrix`` holds their features, float32 (m, len(names)), in columns of these ``names``.

        Raises:
            StageError: a column that the model sees is not in the matrix, or the model may not see it.
        """
        self.check(names)
        columns = [names.index(name) for name in self.columns]
        encoder = IdEncoder.between(dataset, self.users, self.articles)
        reader = HistoryReader.of(dataset, self.network)
        batches = SlateBatches(slates, [matrix], columns, encoder, np.arange(len(slates)), SCORE_BATCH, reader)
        self.network.eval()
        with torch.inference_mode():
            scores = [self.network(batch).float().cpu().numpy() for batch in batches]
        return np.concatenate(scores) if scores else np.empty(0, np.float32)

    def check(self, names: list[str]) -> None:
        """Raise ``StageError`` unless features named ``names`` hold all that the model sees, and it may see it."""
        missing = [name for name in self.columns if name not in names]
        if missing:
            raise StageError(
                f"model {self.name}: features lack {', '.join(missing)}. Run 01_preprocess and train again."
            )
        barred = sorted(set(self.columns) - set(allowed(self.tier)))
        if barred:
            raise StageError(f"model {self.name}: tier {self.tier} may not see {', '.join(barred)}. Train it again.")


def save_model(model: TrainedModel, folder: Path) -> None:
    """Write ``model_<name>.pt`` into an existing folder; the same model gives the same bytes."""
    kind = model.network.members[0] if isinstance(model.network, Ensemble) else model.network
    plain: dict[str, Any] = {
        "name": model.name,
        "model": model.network.name,
        "module": type(kind).__module__.rpartition(".")[2],
        "tier": model.tier,
        "columns": model.columns,
        "hyperparameters": _interned(model.network.hyperparameters),
        "averaged": model.network.size if isinstance(model.network, Ensemble) else 0,
        "users": torch.from_numpy(model.users.ids.astype(np.int64)),
        "articles": torch.from_numpy(model.articles.ids.astype(np.int64)),
        "trained_on": model.trained_on,
        "weights": {key: value.detach().cpu().clone() for key, value in model.network.state_dict().items()},
    }
    torch.save(_interned(plain), folder / f"model_{model.name}.pt")


def _interned(values: dict[str, Any]) -> dict[str, Any]:
    """Make equal strings one object: a pickle writes an object that occurs again shorter than one that is equal."""
    return {key: sys.intern(value) if isinstance(value, str) else value for key, value in values.items()}


def find_model_file(name: str, folders: list[Path]) -> Path:
    """Return the file of a model in the first of some artifact folders that has it.

    Raises:
        StageError: none has it; the message lists those there are.
    """
    for folder in folders:
        if (folder / f"model_{name}.pt").exists():
            return folder / f"model_{name}.pt"
    known = sorted(path.stem.removeprefix("model_") for folder in folders for path in folder.glob("model_*.pt"))
    raise StageError(f"models: there is no trained model '{name}'; there are {', '.join(known) or 'none'}.")


def load_model(path: Path) -> TrainedModel:
    """Read a model file. Raises ``StageError`` where it is missing or no model file of this project."""
    try:
        plain = torch.load(path, map_location="cpu", weights_only=True)
        kind, hyperparameters = find_model(plain["module"], plain["model"]), plain["hyperparameters"]
        network = kind(**hyperparameters)
        if plain["averaged"]:
            network = Ensemble([network, *(kind(**hyperparameters) for _ in range(plain["averaged"] - 1))])
        network.load_state_dict(plain["weights"])
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError, OSError, ValueError) as error:
        raise StageError(
            f"{path}: no model file that this version can read ({type(error).__name__}). Run its training stage again."
        ) from error
    network.eval()
    return TrainedModel(
        plain["name"], plain["tier"], network, plain["columns"],
        Vocabulary(plain["users"].numpy()), Vocabulary(plain["articles"].numpy()), plain["trained_on"],
    )  # fmt: skip
