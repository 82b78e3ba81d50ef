"""Let a trained model learn on through the tuning day and validation."""

from dataclasses import fields
from typing import Any

from ebnerd_lib.evaluation.publish import publish
from ebnerd_lib.pipeline.study.configuration import Configuration, Ground, Procedure
from ebnerd_lib.training.model_file import load_model
from ebnerd_lib.training.online import Learning, learn_on

PACKAGES = ("torch", "pytorch-lightning", "numpy", "pandas", "numba")
_UPDATE = "update_"


def used_by(given: dict[str, Any]) -> dict[str, Any]:
    """Return those of a training stage's parameters that learning on uses.

    >>> used_by({"update_minutes": 15, "update_replay": 3.0, "batch_size": 256, "epochs": 12, "seed": 0})
    {'update_minutes': 15, 'update_replay': 3.0, 'seed': 0}
    """
    return {name: value for name, value in given.items() if _field(name)}


def _field(name: str) -> str | None:
    """Return the field of ``Learning`` that a parameter of the notebooks sets: ``update_replay`` sets ``replay``."""
    if name in ("update_minutes", "warmup_hours", "seed"):
        return name
    known = {entry.name for entry in fields(Learning)}
    return name.removeprefix(_UPDATE) if name.startswith(_UPDATE) and name.removeprefix(_UPDATE) in known else None


def _learn(configuration: Configuration, ground: Ground) -> dict[str, Any]:
    """Walk on from the model that another cell has trained; judge the scores given on the way."""
    before = configuration.after
    model = load_model(ground.cells / str(before) / f"model_{before}.pt")
    settings = {field: value for name, value in configuration.parameters.items() if (field := _field(name))}
    learned = learn_on(model, ground.dataset, ground.features, Learning(**settings))
    seed = configuration.parameters["seed"]
    entry = publish(learned.model, ground.dataset, ground.features, ground.folder, seed, learned.scores)
    return {**entry, "columns": len(learned.model.columns)}


LEARN = Procedure(_learn, PACKAGES)
