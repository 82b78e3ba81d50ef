"""The models of a profile, read from its parameter files, and the configurations made of them."""

from dataclasses import asdict, dataclass
from typing import Any

from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation import reference
from ebnerd_lib.models.base import SlateModel, find_model
from ebnerd_lib.pipeline.config import load_config
from ebnerd_lib.pipeline.layout import profile_stages, profiles
from ebnerd_lib.pipeline.study import learning, static
from ebnerd_lib.pipeline.study.boosting import BOOST
from ebnerd_lib.pipeline.study.configuration import Configuration, Procedure
from ebnerd_lib.pipeline.study.learning import LEARN
from ebnerd_lib.pipeline.study.static import TRAIN

MAIN = "mlp"
"""The model that is taken apart and held against LightGBM."""
PREPROCESSING = "01_preprocess"
"""The stage whose parameters say which bundle a profile takes and how it is cut."""


@dataclass(frozen=True)
class Model:
    """A model that a profile trains.

    Attributes:
        name: of its class.
        stage: the stage that trains it.
        tier: the main information tier that the stage trains it for.
        kind: its class.
        given: the stage's effective parameters.
    """

    name: str
    stage: str
    tier: str
    kind: type[SlateModel]
    given: dict[str, Any]


def models(profile: str) -> list[Model]:
    """Return the models of a profile, and those that only other profiles on the same bundle and split train.

    Models are found in training stages, which are those with ``module``, ``models`` and ``tiers``.

    Raises:
        ConfigError: see ``load_config``; or the main model is not among them.
    """
    found = {model.name: model for model in _own_models(profile)}
    if MAIN not in found:
        raise ConfigError(f"params/{profile}: no stage trains '{MAIN}', which a study takes apart. Add it to `models`.")
    for other in profiles():
        if other != profile and _data(other) == _data(profile):
            found |= {model.name: model for model in _own_models(other) if model.name not in found}
    return list(found.values())


def _own_models(profile: str) -> list[Model]:
    found = []
    for stage in profile_stages(profile):
        given = load_config(profile, stage).parameters
        if {"module", "models", "tiers"} <= set(given):
            for name in given["models"]:
                kind = find_model(given["module"], name)
                tier = given["tiers"][0] if kind.uses_features else kind.own_tier
                found.append(Model(name, stage, tier, kind, given))
    return found


def _data(profile: str) -> tuple[str, str]:
    """Return the bundle of a profile and how it is cut."""
    given = load_config(profile, PREPROCESSING).parameters
    return given["bundle"], given["split"]


def main_model(profile: str) -> Model:
    """Return the model that is taken apart."""
    return next(model for model in models(profile) if model.name == MAIN)


def trained(
    model: Model, name: str = "", tier: str = "", procedure: Procedure = TRAIN, **changes: Any
) -> Configuration:
    """Return a model with the parameters of its stage and ``changes`` of them, under its own name and main tier."""
    used = static.used_by(model.kind, model.given)
    parameters = {**used, "model": model.name, **changes}
    return Configuration(name or model.name, tier or model.tier, procedure, parameters)


def learning_on(model: Model) -> Configuration | None:
    """Return a model learning on from its static self; ``None`` where the profile has it not learn on."""
    if not model.given.get("update_minutes"):
        return None
    return Configuration(f"{model.name}_learning", "clicks", LEARN, learning.used_by(model.given), model.name)


def boosted(model: Model, name: str = reference.NAME, **changes: Any) -> Configuration:
    """Return LightGBM with the columns, training rows and seed of a model, and ``changes`` of its settings."""
    boosting = reference.Boosting(warmup_hours=model.given["warmup_hours"], seed=model.given["seed"])
    return Configuration(name, model.tier, BOOST, {**asdict(boosting), **changes})
