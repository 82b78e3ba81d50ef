"""Train LightGBM on the columns and rows of a model, and judge it."""

from dataclasses import fields
from typing import Any

from ebnerd_lib.evaluation.reference import Boosting, publish_reference, train_reference
from ebnerd_lib.pipeline.study.configuration import Configuration, Ground, Procedure
from ebnerd_lib.pipeline.study.ground import training_size, warmup_for


def _boost(configuration: Configuration, ground: Ground) -> dict[str, Any]:
    """Boost, write the scores, judge on the tuning day and on validation."""
    given = configuration.parameters
    slates = ground.dataset.parts["train"]
    warmup = warmup_for(slates, given["warmup_hours"], given.get("share_of_days", 1.0))
    settings = {entry.name: given[entry.name] for entry in fields(Boosting) if entry.name in given}
    boosting = Boosting(**settings | {"warmup_hours": warmup})
    trained = train_reference(ground.dataset, ground.features, configuration.tier, boosting)
    entry = publish_reference(trained, ground.dataset, ground.folder, configuration.name, boosting.seed)
    return {**entry, "columns": len(trained.columns), "training": training_size(slates, warmup)}


BOOST = Procedure(_boost, ("lightgbm", "numpy", "pandas", "numba"))
