"""What one scorer's AUC lies above another's on the same impressions, with its interval over users."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ebnerd_lib.errors import StageError
from ebnerd_lib.evaluation.intervals import user_bootstrap
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.pipeline.study.cells import bundle_folder, scores_file

Interval = Callable[[str, str, int], tuple[float, float]]
"""From the names of two scorers and the seed of the bundle to the ends of an interval of second less first."""


def intervals(out: Path) -> Interval:
    """Return the function that gives paired intervals between the cells of a study; it reads each file once."""
    read = cache(auc_by_impression)

    def between(before: str, after: str, seed: int) -> tuple[float, float]:
        behaviors = bundle_folder(out, seed) / "validation" / "behaviors.parquet"
        return paired_interval(read(scores_file(out, seed, before)), read(scores_file(out, seed, after)), behaviors)

    return between


def paired_interval(before: pd.Series, after: pd.Series, behaviors: Path) -> tuple[float, float]:
    """Return the 95 % interval over users of what one scorer's AUC lies above another's, impression by impression.

    Args:
        before: AUC of the one, by impression.
        after: AUC of the other, of the same impressions.
        behaviors: the file of the bundle that says whose impressions they are.

    Raises:
        StageError: the impressions are not the same.
    """
    if not before.index.equals(after.index):
        raise StageError(f"{before.name} and {after.name} hold different impressions. Remove one and run again.")
    columns = ["impression_id", "user_id"]
    user = pd.read_parquet(behaviors, columns=columns).set_index("impression_id")["user_id"].loc[before.index]
    low, high = user_bootstrap((after - before).to_numpy()[:, None], user.to_numpy())[0]
    return float(low), float(high)


def auc_by_impression(scores: Path) -> pd.Series:
    """Return the AUC of each impression of a scores file, NaN where it has none, named as the file."""
    table = pd.read_parquet(scores)
    impression = table["impression_id"].to_numpy()
    begins = np.flatnonzero(np.append(True, impression[1:] != impression[:-1]))
    values = per_slate(table["score"].to_numpy(), table["clicked"].to_numpy(), np.append(begins, len(table)))
    return pd.Series(values[:, 0], index=impression[begins], name=scores.name)


def step(before: str, after: str, auc: dict[str, dict[int, float]], seed: int, interval: Interval) -> dict[str, Any]:
    """Return the way from one scorer to another on a bundle: difference in AUC, second less first, and its interval."""
    return {
        "from": before,
        "to": after,
        "difference": auc[after][seed] - auc[before][seed],
        "difference_ci": list(interval(before, after, seed)),
    }
