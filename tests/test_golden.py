"""Headline metrics that are kept in git: what a change of code or of a library must not move unseen.

``RENEW=1 python -m pytest -m "slow or not slow" tests/test_golden.py`` keeps what is found. Counts, features and
baselines are arithmetic and equal to 1e-6. Trained models may move by 0.002: other processors train by another path.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from runs import command, copy_of

from ebnerd_lib.data.dataset import PARTS
from ebnerd_lib.features.build import read_features
from ebnerd_lib.pipeline.paths import ROOT, profile_stages

TOLERANCES = {"measured": 1e-6, "trained": 0.002}
METRICS = ("auc", "mrr", "ndcg@5", "ndcg@10")


def found_in(artifacts: Path) -> dict[str, dict[str, float]]:
    """Read the headline metrics of a profile by kind and name, to nine digits."""
    stages = [stage for stage in profile_stages(artifacts.parent.name) if stage < "04"]
    first, *training = [
        json.loads((artifacts / stage / "metrics.json").read_text(encoding="utf-8")) for stage in stages
    ]
    measured = {f"counts/{name}": count for name, count in first["counts"].items()}
    for part in PARTS:
        features = read_features(artifacts / "01_preprocess", part)
        for name in features.columns:
            values = pd.Series(features.column(name), dtype=np.float64)
            measured[f"features/{part}/{name}/missing"] = values.isna().mean()
            if values.notna().any():
                measured[f"features/{part}/{name}/mean"] = values.mean()
    measured |= of_scorers(first["baselines"])
    trained = {name: value for own in training for name, value in of_scorers(own.get("models", {})).items()}
    kinds = {"measured": measured, "trained": trained}
    return {kind: {name: float(f"{own[name]:.9g}") for name in sorted(own)} for kind, own in kinds.items()}


def of_scorers(entries: dict) -> dict[str, float]:
    return {
        f"{name}/{part}/{metric}": entry[part][metric]
        for name, entry in entries.items()
        for part in ("validation", "tuning")
        for metric in METRICS
    }


def assert_as_kept(profile: str, outputs: Path) -> None:
    file, found = ROOT / "tests" / "golden" / f"{profile}.json", found_in(outputs / "artifacts")
    if os.environ.get("RENEW"):
        file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    kept = json.loads(file.read_text(encoding="utf-8"))
    for kind, tolerance in TOLERANCES.items():
        assert found[kind] == pytest.approx(kept[kind], rel=tolerance, abs=tolerance), kind
    assert len(found["measured"]) > 300 and len(found["trained"]) > 40


def test_smoke_has_the_metrics_that_are_kept(finished):
    assert_as_kept("smoke", finished / "outputs" / "smoke")


@pytest.mark.slow
def test_sample_has_the_metrics_that_are_kept(tmp_path):
    """Run the profile sample in a copy of the project that starts from what this checkout has of it."""
    copy_of(ROOT, tmp_path)
    for name in ("data/sample", "outputs/sample"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name)
    commands = [] if (tmp_path / "data/sample").is_dir() else [["sample", "--out", "data/sample"]]
    for words in [*commands, ["run", "--profile", "sample"]]:
        done = command(tmp_path, *words)
        assert done.returncode == 0, done.stdout + done.stderr
    assert_as_kept("sample", tmp_path / "outputs" / "sample")
