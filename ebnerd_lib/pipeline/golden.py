"""Headline figures of a profile, kept in git: what a change of code or of a library must not move unseen.

``tests/golden/<profile>.json`` holds them; they are renewed on purpose only.
"""

from pathlib import Path
from typing import Any

from ebnerd_lib.errors import StageError
from ebnerd_lib.pipeline.config import load_config
from ebnerd_lib.pipeline.fingerprint import Hashes, fingerprint
from ebnerd_lib.pipeline.json_file import read_json, write_json
from ebnerd_lib.pipeline.layout import ROOT, StagePaths, profile_stages, relative
from ebnerd_lib.pipeline.runner import is_fresh
from ebnerd_lib.pipeline.stage import read_metrics

TOLERANCES = {"measured": 1e-6, "trained": 0.002}
"""How far figures may lie from those kept, relative where they exceed 1: counts, features and baselines are
arithmetic; training takes another path on another processor."""
HEADLINE = ("auc", "mrr", "ndcg@5", "ndcg@10")
Figures = dict[str, dict[str, float]]


def golden_file(profile: str) -> Path:
    """Return the file that keeps the figures of a profile."""
    return ROOT / "tests" / "golden" / f"{profile}.json"


def golden(profile: str, renew: bool = False) -> bool:
    """Compare the figures of a profile's outputs with those kept, or keep them.

    Args:
        profile: a folder of ``outputs``.
        renew: keep what is found instead of comparing.

    Returns:
        Whether every figure is within its tolerance.

    Raises:
        ConfigError: there is no such profile.
        StageError: its outputs are not up to date, or no figures are kept for it.
    """
    require_fresh(profile)
    file, found = golden_file(profile), figures(StagePaths(profile, "").outputs / "artifacts")
    if renew:
        write_json(file, {kind: dict(sorted(own.items())) for kind, own in found.items()})
        print(f"{relative(file)}: kept {sum(map(len, found.values()))} figures")
        return True
    kept = read_json(file)
    if kept is None:
        raise StageError(
            f"{relative(file)}: no figures are kept. Keep them with `make golden PROFILE={profile} RENEW=1`."
        )
    lines = differences(kept, found)
    for line in lines:
        print(line)
    print(f"{relative(file)}: {sum(map(len, kept.values()))} figures, {len(lines)} differ")
    return not lines


def require_fresh(profile: str) -> None:
    """Raise ``StageError`` unless every stage of a profile is complete and up to date."""
    hashes = Hashes(StagePaths(profile, "").hashes)
    for stage in profile_stages(profile):
        config = load_config(profile, stage)
        if not is_fresh(config, fingerprint(config, hashes), hashes):
            raise StageError(
                f"outputs/{profile}: {stage} is not up to date. Run `make run-all PROFILE={profile}` first."
            )


def figures(artifacts: Path) -> Figures:
    """Read the headline figures from the artifacts of a profile, by kind and name, to nine digits.

    Measured are counts, mean and share of missing values of every feature in every part, and the baselines'
    metrics; trained are the models' metrics.
    """
    metrics = {stage: read_metrics(artifacts / stage) for stage in ("01_preprocess", "02_train_mf", "03_train_mlp")}
    measured = {f"counts/{name}": count for name, count in metrics["01_preprocess"]["counts"].items()}
    measured |= _features(artifacts / "01_preprocess")
    measured |= _scorers(metrics["01_preprocess"]["baselines"])
    trained = _scorers(metrics["02_train_mf"]["models"]) | _scorers(metrics["03_train_mlp"]["models"])
    kinds = {"measured": measured, "trained": trained}
    return {kind: {name: float(f"{value:.9g}") for name, value in own.items()} for kind, own in kinds.items()}


def _scorers(entries: dict[str, Any]) -> dict[str, float]:
    return {
        f"{name}/{part}/{metric}": entry[part][metric]
        for name, entry in entries.items()
        for part in ("validation", "tuning")
        for metric in HEADLINE
    }


def _features(folder: Path) -> dict[str, float]:
    import numpy as np

    from ebnerd_lib.data.splits import PARTS
    from ebnerd_lib.features import store

    found: dict[str, float] = {}
    for part in PARTS:
        features = store.read(folder, part)
        for name in features.columns:
            values = features.column(name).astype(np.float64)
            known = values[~np.isnan(values)]
            found[f"features/{part}/{name}/missing"] = 1 - len(known) / max(len(values), 1)
            if len(known):
                found[f"features/{part}/{name}/mean"] = float(known.mean())
    return found


def differences(kept: Figures, found: Figures) -> list[str]:
    """Return a line for every figure that is gone, new, or further from the one kept than its kind may be."""
    lines = []
    for kind, tolerance in TOLERANCES.items():
        own, other = kept.get(kind, {}), found.get(kind, {})
        for name in sorted(own.keys() | other.keys()):
            if name not in other or name not in own:
                lines.append(f"{name}: {'not found' if name not in other else 'not kept'}")
            elif not abs(own[name] - other[name]) <= tolerance * max(1.0, abs(own[name])):
                lines.append(f"{name}: {other[name]:.9g}, kept {own[name]:.9g}, {tolerance:g} allowed")
    return lines
