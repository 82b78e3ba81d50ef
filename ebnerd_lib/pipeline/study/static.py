"""Train a model of ``ebnerd_lib.models`` as the notebooks do, and judge it."""

from dataclasses import fields
from typing import Any

import numpy as np

from ebnerd_lib.evaluation.calibration import fit_calibration
from ebnerd_lib.evaluation.judge import judge, load_scores, save_scores
from ebnerd_lib.evaluation.publish import publish
from ebnerd_lib.models.base import SlateModel
from ebnerd_lib.pipeline.study.configuration import Configuration, Ground, Procedure
from ebnerd_lib.pipeline.study.ground import training_size, warmup_for
from ebnerd_lib.training.fit import Fit, Plan, train

TRAINER = ("accelerator", "devices", "strategy", "num_nodes", "precision")
PACKAGES = ("torch", "pytorch-lightning", "numpy", "pandas", "numba")


def used_by(kind: type[SlateModel], given: dict[str, Any]) -> dict[str, Any]:
    """Return those of a training stage's parameters that training a model of this kind uses."""
    used = kind.settings() | {entry.name for entry in fields(Plan)} | set(TRAINER) | {"module"}
    if not kind.uses_vectors:
        used.discard("history_length")  # of the vectors that it does not look at
    return {name: value for name, value in given.items() if name in used}


def _train(configuration: Configuration, ground: Ground) -> dict[str, Any]:
    """Train, write model and scores, judge on the tuning day and on validation."""
    fit, warmup = _fit(configuration, ground)
    entry = publish(fit.model, ground.dataset, ground.features, ground.folder, configuration.parameters["seed"])
    size = training_size(ground.dataset.parts["train"], warmup)
    return {**entry, "columns": len(fit.model.columns), "training": size}


def _tune(configuration: Configuration, ground: Ground) -> dict[str, Any]:
    """Train and judge on the tuning day; validation is neither scored nor judged."""
    fit, _ = _fit(configuration, ground)
    slates, features = ground.dataset.parts["tuning"], ground.features["tuning"]
    path = ground.folder / f"tuning_{configuration.name}.parquet"
    save_scores(path, slates, fit.model.score(ground.dataset, slates, features.matrix, features.columns))
    scores: np.ndarray = load_scores(path, slates)
    calibration = fit_calibration(scores, slates.clicked)
    figures = judge(scores, slates, calibration, configuration.parameters["seed"])
    return {"tier": fit.model.tier, "tuning": figures, "columns": len(fit.model.columns)}


def _fit(configuration: Configuration, ground: Ground) -> tuple[Fit, float]:
    """Return the trained model and the warm-up that it had."""
    given = configuration.parameters
    warmup = warmup_for(ground.dataset.parts["train"], given["warmup_hours"], given.get("share_of_days", 1.0))
    plan = {entry.name: given[entry.name] for entry in fields(Plan) if entry.name in given}
    plan |= {"warmup_hours": warmup, "trainer": {name: given[name] for name in TRAINER if name in given}}
    fit = train(
        ground.dataset, ground.features, given["module"], given["model"], configuration.tier, configuration.name,
        given, Plan(**plan), ground.logs, leave_out=given.get("leave_out", ()),
    )  # fmt: skip
    return fit, warmup


TRAIN = Procedure(_train, PACKAGES)
TUNE = Procedure(_tune, PACKAGES)
