"""Gradient-boosted trees as a reference: how far the same columns and rows get without a network.

LightGBM is optional (of the extra ``bench``). Trees need no transform of their inputs and no ids, so a network that
stays far below them has not yet learnt what its features say.
"""

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.errors import StageError
from ebnerd_lib.evaluation.judge import judge_saved
from ebnerd_lib.evaluation.metrics import mean_metrics, per_slate
from ebnerd_lib.features.store import Features, usable
from ebnerd_lib.training.batches import training_rows

NAME = "lightgbm"
MISSING = "LightGBM is not installed, and the reference needs it. Install it with `pip install 'lightgbm>=4.6'`."


@dataclass(frozen=True)
class Boosting:
    """How to boost, with LambdaRank (Burges, 2010).

    The kind was chosen by AUC on the tuning day of one generated bundle (size ``demo``, seed 0) among ten settings
    with at most 600 rounds and patience 40: LambdaRank .786 to .789 there, XE-NDCG .786, binary .782 to .784.

    Attributes:
        rounds: trees at the most.
        patience: trees without a better AUC on the tuning day before training stops.
        learning_rate: shrinkage of each tree.
        num_leaves: leaves of a tree at the most.
        min_data_in_leaf: candidates in a leaf at the least.
        feature_fraction: share of the columns that a tree sees.
        bagging_fraction: share of the candidates that a tree sees.
        lambda_l2: penalty on the values of leaves.
        truncation: pairs count that have one candidate among this many best ones of their slate.
        warmup_hours: start of the train part that is left out.
        seed: of the draws of columns and candidates.
    """

    rounds: int = 1000
    patience: int = 50
    learning_rate: float = 0.05
    num_leaves: int = 15
    min_data_in_leaf: int = 100
    feature_fraction: float = 0.5
    bagging_fraction: float = 0.8
    lambda_l2: float = 0.0
    truncation: int = 100
    warmup_hours: float = 48.0
    seed: int = 0


@dataclass(frozen=True)
class Reference:
    """A trained booster's scores.

    Attributes:
        tier: its information tier.
        columns: names of the columns it saw.
        trees: how many are kept, as the tuning day decided.
        scores: float64 (candidates,) of ``tuning`` and of ``validation``, in the order of the slates.
    """

    tier: str
    columns: list[str]
    trees: int
    scores: dict[str, np.ndarray]


def installed() -> bool:
    """Say whether LightGBM is there to be imported."""
    return find_spec("lightgbm") is not None


def train_reference(dataset: Dataset, features: dict[str, Features], tier: str, boosting: Boosting) -> Reference:
    """Train LightGBM on the columns and training rows of a model of this tier, and score with the best number of trees.

    It trains on one thread with fixed seeds: the same input gives the same scores. Columns are taken raw, NaN as
    missing. Validation is scored and not looked at otherwise.

    Args:
        dataset: the slates.
        features: of all parts.
        tier: information tier; decides which columns it sees.
        boosting: how to train.

    Raises:
        StageError: LightGBM is not installed or cannot be loaded.
        ConfigError: the tier is unknown, or no training row is left.
    """
    lightgbm = _lightgbm()
    columns = usable(features["train"], tier)
    parameters = _parameters(boosting)
    slates, tuning = dataset.parts["train"], dataset.parts["tuning"]
    rows = training_rows(slates, boosting.warmup_hours)
    where = candidate_rows(slates.offsets, rows)
    learning = lightgbm.Dataset(
        features["train"].matrix[where][:, columns].astype(np.float32),
        slates.clicked[where],
        group=slates.lengths[rows],
        params=parameters,
    )
    stopping = lightgbm.Dataset(
        features["tuning"].matrix[:, columns].astype(np.float32),
        tuning.clicked,
        group=tuning.lengths,
        reference=learning,
    )

    def auc(scores: np.ndarray, _: Any) -> tuple[str, float, bool]:
        return "auc", mean_metrics(per_slate(scores, tuning.clicked, tuning.offsets))["auc"], True

    booster = lightgbm.train(
        parameters, learning, boosting.rounds, valid_sets=[stopping], feval=auc,
        callbacks=[lightgbm.early_stopping(boosting.patience, verbose=False)],
    )  # fmt: skip
    scores = {
        part: booster.predict(features[part].matrix[:, columns].astype(np.float32), num_threads=1)
        for part in ("tuning", "validation")
    }
    names = [features["train"].columns[place] for place in columns]
    return Reference(tier, names, int(booster.best_iteration), scores)


def publish_reference(
    reference: Reference, dataset: Dataset, folder: Path, name: str = NAME, seed: int = 0
) -> dict[str, object]:
    """Write a reference's scores and judge them as saved, as ``publish`` does for models: an entry of ``metrics.json``.

    Writes ``scores_<name>.parquet`` (validation) and ``tuning_<name>.parquet``. ``seed`` is of the bootstrap.
    """
    entry = judge_saved(name, reference.tier, reference.scores, dataset, folder, seed)
    return {**entry, "trees": reference.trees}


def _parameters(boosting: Boosting) -> dict[str, Any]:
    """Return LightGBM's own parameters; all that could make two runs differ is pinned."""
    settings = asdict(boosting)
    for name in ("rounds", "patience", "warmup_hours"):
        settings.pop(name)
    return {
        "objective": "lambdarank",
        "lambdarank_truncation_level": settings.pop("truncation"),
        "bagging_freq": 1,
        "metric": "None",  # the AUC over slates decides when to stop
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
        **settings,
    }


def _lightgbm() -> ModuleType:
    try:
        import lightgbm
    except ImportError as error:
        raise StageError(MISSING) from error
    except OSError as error:
        raise StageError(
            f"LightGBM is installed but does not load ({error}). It needs the OpenMP runtime: install libgomp1 "
            "(Debian, Ubuntu), libgomp (Fedora) or libomp (macOS, Homebrew)."
        ) from error
    return lightgbm
