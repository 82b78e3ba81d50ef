"""Training of boosted trees on the columns and slates of the networks, stopped by the tuning day's AUC."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.models.base import slate_auc
from ebnerd_lib.models.trees import Trees, lightgbm
from ebnerd_lib.training.batches import SlateBatches
from ebnerd_lib.training.inputs import IdEncoder, TrainingInputs
from ebnerd_lib.training.model_file import SCORE_BATCH, TrainedModel

_FIXED = {
    "metric": "None", "lambdarank_truncation_level": 100, "bagging_freq": 1, "deterministic": True,
    "force_row_wise": True, "verbosity": -1,
}  # fmt: skip


def fit_trees(
    inputs: TrainingInputs,
    name: str,
    parameters: Mapping[str, Any],
    report: Callable[[dict[str, Any]], None] | None = None,
) -> TrainedModel:
    """Train boosted trees; the same seed gives the same bytes on any number of cores.

    ``lambdarank`` moves pairs of a slate apart (Burges, From RankNet to LambdaRank to LambdaMART, 2010), ``binary`` is
    the cross entropy of each candidate. Columns are taken raw, NaN as missing.

    Args:
        inputs: what they learn from; the mean AUC over the tuning day's slates decides how many trees are kept.
        name: the model's name in files and tables.
        parameters: of ``03_train_trees``, checked.
        report: called after each tree with the name of the model and the share of trees done.

    Raises:
        ConfigError: LightGBM is not installed, or the tier lets it see no feature.
    """
    network, boosting, seed = inputs.new(Trees), dict(parameters["boosting"]), parameters["seed"]
    patience, _ = boosting.pop("patience"), boosting.pop("warmup_hours")
    options = {
        **_FIXED, **boosting, "objective": parameters["objective"], "num_leaves": parameters["leaves"],
        "learning_rate": parameters["learning_rate"], "seed": seed,
        "num_threads": boosting["num_threads"] or os.cpu_count(),
    }  # fmt: skip
    tuning = np.arange(len(inputs.dataset.parts["tuning"]))
    training = lightgbm.Dataset(
        **_rows(inputs, "train", inputs.rows), feature_name=inputs.names(network), params=options
    )
    encoder = IdEncoder.between(inputs.dataset, inputs.users, inputs.articles)
    slates = list(SlateBatches(inputs.dataset.parts["tuning"], [], [], encoder, tuning, SCORE_BATCH))

    def auc(scores: np.ndarray, _: Any) -> tuple[str, float, bool]:
        pieces = torch.from_numpy(scores).float().split([len(batch.slate) for batch in slates])
        found = torch.cat([slate_auc(piece, batch) for piece, batch in zip(pieces, slates, strict=True)])
        return "auc", float(found.mean()), True

    def tell(state: Any) -> None:
        if report is not None:
            report({"step": name, "share": (state.iteration + 1) / state.end_iteration})

    booster = lightgbm.train(
        options, training, parameters["trees"], feval=auc,
        valid_sets=[lightgbm.Dataset(**_rows(inputs, "tuning", tuning), reference=training)],
        callbacks=[lightgbm.early_stopping(patience, verbose=False), tell],
    )  # fmt: skip
    # What follows the trees repeats the options, the number of cores among them.
    text = booster.model_to_string(num_iteration=booster.best_iteration).partition("\nparameters:")[0]
    return TrainedModel.of(name, Trees(**network.hyperparameters | {"text": text}).eval(), inputs)


def _rows(inputs: TrainingInputs, part: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return what LightGBM wants of some slates of a part: features, labels, and the length of each slate."""
    slates, where = inputs.dataset.parts[part], candidate_rows(inputs.dataset.parts[part].offsets, rows)
    matrix = inputs.features[part].matrix[where][:, inputs.columns(Trees)].astype(np.float32)
    return {"data": matrix, "label": slates.clicked[where], "group": slates.lengths[rows]}
