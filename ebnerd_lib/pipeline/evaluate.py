"""Evaluate scores that come from elsewhere, with the code of 05_compare: the same metrics, intervals and slices."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ebnerd_lib.configs import SplitName
from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.data.slates import Slates
from ebnerd_lib.errors import BundleError, ConfigError, first_line
from ebnerd_lib.evaluation import compare
from ebnerd_lib.evaluation.compare import slices_of
from ebnerd_lib.evaluation.evaluate import Scorer, evaluate_scorer
from ebnerd_lib.pipeline.paths import ROOT, write_json

COLUMNS = ["impression_id", "article_id", "score"]
UNDECLARED = "not declared"
SEED = 0  # of the bootstrap


def evaluate(
    scores: Path,
    bundle: Path,
    part: str = "validation",
    tier: str = UNDECLARED,
    tuning: Path | None = None,
    reference: Path | None = None,
    out: Path | None = None,
    cut: SplitName = "official",
) -> dict[str, Any]:
    """Evaluate a scores file, print its table, and write ``metrics.json`` in the form of 05_compare.

    Args:
        scores: every candidate of every impression of the part, see ``read_scores``.
        bundle: folder of the bundle that was scored.
        part: ``validation`` or ``tuning``.
        tier: information tier of the scorer, shown beside its metrics.
        tuning: the same scorer's scores of the tuning day, without which there are no probabilities, so no log loss,
            F1, accuracy and calibration. Scores of the tuning day itself are calibrated on themselves.
        reference: scores of the part by a scorer to compare with, impression by impression.
        out: folder to write; ``outputs/evaluate/<name of the file>`` if not given.
        cut: how the bundle is split into parts.

    Raises:
        BundleError: the bundle or a scores file is wrong.
        ConfigError: two files have one name, or scores of the tuning day are given twice.
    """
    if tuning is not None and part == "tuning":
        raise ConfigError(f"--tuning {tuning}: {scores} are scores of the tuning day themselves. Leave it out.")
    data = datasets.prepare(open_bundle(bundle), cut)[0]
    scorers = [_scorer(scores, data, part, tier, tuning)]
    if reference is not None:
        scorers.append(_scorer(reference, data, part, UNDECLARED, None))
        if scorers[0].name == scorers[1].name:
            raise ConfigError(f"{reference}: has the name of {scores}, and tables tell scorers by name. Rename one.")
    slates, base = data.parts[part], scorers[-1].name
    evaluated = [evaluate_scorer(each, data.parts, SEED) for each in scorers]
    entries = {each.name: each.metrics for each in evaluated}
    difference = compare.differences(evaluated, base, slates, part, SEED)
    metrics = {
        "models": entries,
        "differences": {"reference": base if difference else None, "scorers": difference},
        "slices": compare.compare_slices(evaluated, base, slices_of(data, part), slates, part, SEED),
        "calibration": compare.calibration_curves(evaluated, slates, part),
    }
    file = (out or ROOT / "outputs" / "evaluate" / scorers[0].name) / "metrics.json"
    write_json(file, metrics)
    table = compare.comparison_table(entries, part).dropna(axis=1, how="all").set_index("scorer")
    if difference:
        paired = compare.difference_table(difference, {}, base).set_index("scorer")
        table[f"ΔAUC vs. {base}"] = paired["auc"].reindex(table.index, fill_value="reference")
    print(table.T.to_string(na_rep="–"))
    print(f"metrics: {file}")
    return metrics


def read_scores(path: Path, slates: Slates) -> np.ndarray:
    """Read a scores file of any tool: float64 (m,), one a candidate in the order of ``slates``.

    The file is parquet with ``impression_id``, ``article_id`` and ``score``: one row a candidate in any order, or one
    row an impression with the latter two as lists. Further columns are ignored.

    Raises:
        BundleError: the file or a column cannot be read, or candidates are missing, extra, repeated or not finite.
    """
    try:
        table = pd.read_parquet(path, columns=COLUMNS)
        if table["article_id"].dtype == object:
            table = table.explode(["article_id", "score"])
        ids = [table[name].to_numpy(np.float64) for name in COLUMNS[:2]]  # exact for ids below 2 ** 53
        score = table["score"].to_numpy(np.float64, na_value=np.nan)
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        remedy = f"Write parquet with numbers in {', '.join(COLUMNS)}."
        raise BundleError(f"{path}: cannot be read ({first_line(error)}). {remedy}") from error
    given = pd.MultiIndex.from_arrays(ids)
    known = slates.per_candidate(slates.impression_id), slates.article_id
    wanted = pd.MultiIndex.from_arrays([each.astype(np.float64) for each in known])
    place = given.get_indexer(wanted) if given.is_unique else np.zeros(0, np.int64)
    for what, wrong in {
        "repeated, score each once": given[given.duplicated()],
        f"extra, not among the {len(slates)} impressions of this part": given[~given.isin(wanted)],
        "without a finite score": given[~np.isfinite(score)],
        "missing, score every candidate": wanted[place < 0] if len(place) else wanted[:0],
    }.items():
        if len(wrong):
            first = "article {1:.0f} in impression {0:.0f}".format(*wrong[0])
            raise BundleError(f"{path}: {len(wrong)} candidates {what}, such as {first}.")
    return score[place]


def _scorer(file: Path, data: Dataset, part: str, tier: str, tuning: Path | None) -> Scorer:
    files = {part: file} | ({"tuning": tuning} if tuning is not None else {})
    name = file.stem.removeprefix("scores_").removeprefix("tuning_") or file.stem
    return Scorer(name, tier, {part: read_scores(path, data.parts[part]) for part, path in files.items()})
