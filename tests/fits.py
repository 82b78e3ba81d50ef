"""One training as a stage does it, with the parameters of a profile and some set anew."""

from pathlib import Path
from typing import Any

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.features.build import Features
from ebnerd_lib.pipeline.params import load_config
from ebnerd_lib.pipeline.train import Fit, fit, inputs_of, model_class

PROFILE = {"03_train_news.nrms": "news"}


def parameters(stage: str = "03_train_mlp", **changes: Any) -> dict[str, Any]:
    """The parameters of a stage, those of profile smoke where it has it; keys of `training` are set in that group."""
    given = load_config(PROFILE.get(stage, "smoke"), stage).parameters
    training = {name: changes.pop(name) for name in given["training"] if name in changes}
    return {**given, **changes, "training": {**given["training"], "warmup_hours": 24.0, **training}}


def fitted(
    data: Dataset, features: dict[str, Features], logs: Path, stage: str = "03_train_mlp", report=None, **changes: Any
) -> Fit:
    """A model that is trained on the CPU, its logs in a folder named as the model."""
    given = parameters(stage, **{"trainer": {"accelerator": "cpu", "devices": 1}, **changes})
    kind = model_class(given)
    return fit(kind, given, inputs_of(given, data, features), logs, kind.name, report)
