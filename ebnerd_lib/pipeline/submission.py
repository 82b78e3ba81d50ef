"""Rank every slate of the hidden test set with a trained model and write the file to send."""

import datetime
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.dataset import BEYOND, Dataset, prepare_hidden
from ebnerd_lib.data.layout import SPLITS, TEST, check_files
from ebnerd_lib.data.slates import candidate_rows, concatenate, large_zeros
from ebnerd_lib.errors import SubmissionError
from ebnerd_lib.features.build import compute_features
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline.params import load_config
from ebnerd_lib.pipeline.paths import PREPROCESSED, ROOT, StagePaths
from ebnerd_lib.pipeline.predictions import ranks_of, step_bar, write_predictions
from ebnerd_lib.pipeline.stale import sha256
from ebnerd_lib.training.model_file import TrainedModel, find_model_file, load_model

_OTHER_SCALE = 3.0


def submit(profile: str, model_name: str, test: Path, out: Path) -> Path:
    """Write a submission of a model of a profile.

    What was in view in the profile's validation week, and in the hidden week itself strictly before each impression, is
    the past; ids are looked up among those that the model, of tier ``exposure`` or below, saw in training. Writes the
    zip file, which is returned, and beside it a record that ends in ``.json``.

    Raises:
        ConfigError: there is no such profile.
        StageError: the model was not trained.
        BundleError: a file of the test set or of the profile's bundle is missing or malformed.
        SubmissionError: the model knows clicks, scores something that is no number, or the disk is full.
    """
    start, began = time.monotonic(), datetime.datetime.now(datetime.UTC)
    if out.suffix != ".zip":
        raise SubmissionError(f"{out}: a submission is a zip file. Name it predictions.zip, for example.")
    stages = paths.profile_stages(profile)
    file = find_model_file(model_name, [StagePaths(profile, stage).artifacts for stage in stages])
    model = load_model(file)
    _check_tier(model, profile, stages)
    before = ROOT / load_config(profile, PREPROCESSED).parameters["bundle"]
    inputs = check_files(test, (TEST,))
    hidden = open_bundle(test, (TEST,))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()  # whether it can be written shows before the work is done
        print(f"reading {test / TEST} and {before / SPLITS[1]}")
        dataset, left_out = prepare_hidden(open_bundle(before), hidden)
        print("\n".join(_remarks(dataset, left_out)))
        with step_bar(f"ranking with {model.name}") as bar:
            impression_id, offsets, ranks = rank(model, dataset, lambda share: bar.update(share - bar.n))
        with step_bar(f"writing {out.name}") as bar:
            write_predictions(out, impression_id, offsets, ranks, lambda share: bar.update(share - bar.n))
    except OSError as error:
        raise SubmissionError(
            f"{out}: cannot be written ({error.strerror or error}). Free space in {out.parent}, and for working files "
            f"in {tempfile.gettempdir()}, or name other folders with --out and the environment variable TMPDIR."
        ) from error
    seconds, memory = time.monotonic() - start, paths.peak_memory_mb()
    record = {
        "profile": profile, "model": model.name, "tier": model.tier, "model_sha256": sha256(file),
        "rows": len(impression_id), "candidates": len(ranks), "beyond_accuracy": len(dataset.parts[BEYOND]),
        "impressions_before": len(dataset.parts["validation"]), "generated": hidden.generated, **paths.environment(),
        "inputs": {f"{path.relative_to(test)}": sha256(path) for path in inputs}, "sha256": sha256(out),
        "started": began.isoformat(timespec="seconds"), "duration_seconds": round(seconds, 1), "peak_memory_mb": memory,
    }  # fmt: skip
    paths.write_json(out.with_suffix(".json"), record)
    print(
        f"{out}: {len(impression_id):,} rows ranked by {model.name} (tier {model.tier}) in {seconds:.0f} s, "
        f"{memory:,.0f} MB at the most. Check it with `python -m ebnerd_lib check-submission`."
    )
    return out


def rank(
    model: TrainedModel, dataset: Dataset, progress: Callable[[float], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank the candidates of every row of a hidden test.

    Returns:
        Ids of impressions (n,), where their slates begin (n + 1,), and ranks (m,), in the order of the test file.

    Raises:
        SubmissionError: a score is no number.
    """
    asked = concatenate([dataset.parts["test"], dataset.parts[BEYOND]])
    order = asked.file_order
    offsets = np.concatenate(([0], np.cumsum(asked.lengths[order])))
    ranks = large_zeros(asked.candidates, np.min_scalar_type(int(asked.lengths.max())))
    done = 0
    for part in compute_features(asked, feature_context(dataset), model.columns):
        scores = model.score(dataset, part.slates, part.matrix(model.columns), model.columns)
        lost = int((~np.isfinite(scores)).sum())
        if lost:
            raise SubmissionError(
                f"model {model.name}: {lost} of {len(scores)} scores are no finite numbers. Train it again."
            )
        ranks[candidate_rows(offsets, part.slates.row)] = ranks_of(scores, part.slates.offsets)
        done += len(scores)
        progress(done / asked.candidates)
    return asked.impression_id[order], offsets, ranks


def _check_tier(model: TrainedModel, profile: str, stages: list[str]) -> None:
    if model.tier != "clicks" and model.trained_on == "logged":
        model.check(model.columns)
        return
    files = [path for stage in stages for path in sorted(StagePaths(profile, stage).artifacts.glob("model_*.pt"))]
    fit = [other.name for other in map(load_model, files) if other.tier != "clicks" and other.trained_on == "logged"]
    why = "tier clicks knows what was clicked before, and the hidden test does not tell the clicks of its week"
    if model.trained_on == "live":
        why = "it was trained to rank all that is live, and the hidden test asks for the order of pages"
    raise SubmissionError(
        f"model {model.name}: {why}. Submit a model of tier exposure or below, trained on pages of the log: "
        f"{', '.join(fit) or 'none is trained; add `03_train_mlp.exposure.yaml` with `tier: exposure`'}."
    )


def _remarks(dataset: Dataset, left_out: int) -> list[str]:
    """Return what a reader should know of the weeks."""
    before, shown, beyond = dataset.parts.values()
    lines = [
        f"{len(shown) + len(beyond):,} rows with {shown.candidates + beyond.candidates:,} candidates, {len(beyond):,} "
        f"of the rows for beyond-accuracy measures; {len(before):,} impressions of the week before"
    ]
    if left_out:
        lines.append(f"note: {left_out:,} impressions of {TEST}'s week before are not before its first one: left out")
    ratio = shown.candidates / max(before.candidates, 1)
    if not 1 / _OTHER_SCALE < ratio < _OTHER_SCALE:
        lines.append(
            f"note: articles were in view {ratio:.3g} times as often as in the week before: counts are on another "
            "scale than the model was trained on. Train on a bundle of the same scale: ebnerd_large for ebnerd_testset."
        )
    return lines
