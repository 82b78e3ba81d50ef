"""Rank every slate of the hidden test set with a trained model and write the file to send."""

import datetime
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from ebnerd_lib.data.layout import TEST, check_hidden_files
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.errors import SubmissionError
from ebnerd_lib.features.build import compute_features
from ebnerd_lib.pipeline.params import load_config
from ebnerd_lib.pipeline.paths import ROOT, StagePaths, environment, peak_memory_mb, profile_stages, write_json
from ebnerd_lib.pipeline.stale import sha256
from ebnerd_lib.pipeline.submission.predictions import ranks_of, write_predictions
from ebnerd_lib.pipeline.submission.progress import Progress
from ebnerd_lib.pipeline.submission.week import HiddenWeek
from ebnerd_lib.training.model_file import TrainedModel, find_model_file, load_model

GROUP_CANDIDATES = 1 << 23
"""Candidates of the users in memory at a time; memory is bounded by this and by some fifty bytes an impression."""
_PREPROCESS = "01_preprocess"
_OTHER_SCALE = 3.0


def submit(profile: str, model_name: str, test: Path, out: Path, say: Callable[[str], None] = print) -> Path:
    """Write a submission of a model of a profile.

    What was in view in the profile's validation week, and in the hidden week itself strictly before each impression, is
    the past; ids are looked up among those that the model saw in training.

    Args:
        profile: in which the model was trained.
        model_name: of tier ``exposure`` or below.
        test: the hidden-test bundle.
        out: zip file to write; a record of the same name and the ending ``.json`` is written beside it.
        say: told how far it is, line by line.

    Returns:
        The zip file.

    Raises:
        ConfigError: there is no such profile.
        StageError: the model was not trained.
        BundleError: a file of the test set or of the profile's bundle is missing or malformed.
        SubmissionError: the model knows clicks, scores something that is no number, or the disk is full.
    """
    start, began = time.monotonic(), datetime.datetime.now(datetime.UTC)
    if out.suffix != ".zip":
        raise SubmissionError(f"{out}: a submission is a zip file. Name it predictions.zip, for example.")
    stages = profile_stages(profile)
    file = find_model_file(model_name, [StagePaths(profile, stage).artifacts for stage in stages])
    model = load_model(file)
    _check_tier(model, profile, stages)
    before = ROOT / load_config(profile, _PREPROCESS).parameters["bundle"]
    inputs = check_hidden_files(test)
    told = Progress(say)
    work = out.with_name(f".{out.stem}.{os.getpid()}.work")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear_work(out)
        work.mkdir()
        with HiddenWeek(test, before, work, told.step) as week:
            for line in _remarks(week):
                say(line)
            ranks = rank(model, week, lambda share: told.step(f"ranking with {model.name}", share))
            write_predictions(
                out,
                week.impression_id,
                week.offsets,
                ranks,
                lambda share: told.step(f"writing {out.name}", share),
            )
            counts = {
                "rows": len(week), "candidates": week.candidates, "beyond_accuracy": int(week.beyond.sum()),
                "impressions_before": week.before, "generated": week.generated,
            }  # fmt: skip
    except OSError as error:
        raise SubmissionError(
            f"{out}: cannot be written ({error.strerror or error}). Working files of about twice the test set need "
            f"room in {out.parent}; free some, or name another folder with --out."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    seconds = time.monotonic() - start
    record = {
        "profile": profile, "model": model.name, "tier": model.tier, "model_sha256": sha256(file), **counts,
        **environment(), "inputs": {f"{path.relative_to(test)}": sha256(path) for path in inputs},
        "sha256": sha256(out), "started": began.isoformat(timespec="seconds"), "duration_seconds": round(seconds, 1),
        "peak_memory_mb": peak_memory_mb(),
    }  # fmt: skip
    write_json(out.with_suffix(".json"), record)
    say(
        f"{out}: {counts['rows']:,} rows ranked by {model.name} (tier {model.tier}) in {seconds:.0f} s, "
        f"{peak_memory_mb():,.0f} MB at the most. Check it with `python -m ebnerd_lib check-submission`."
    )
    return out


def rank(model: TrainedModel, week: HiddenWeek, progress: Callable[[float], None]) -> np.ndarray:
    """Rank the candidates of every row: unsigned integers (candidates,), in the order of the test file.

    Raises:
        SubmissionError: a score is no number.
    """
    longest = int(np.diff(week.offsets).max())
    ranks = np.zeros(week.candidates, np.min_scalar_type(longest))
    done = 0
    for group in week.groups(max(1, -(-week.candidates // GROUP_CANDIDATES))):
        for part in compute_features(group.slates, group.context, model.columns, after_step=week.release):
            scores = model.score(group.dataset, part.slates, part.matrix(model.columns), model.columns)
            lost = int((~np.isfinite(scores)).sum())
            if lost:
                raise SubmissionError(
                    f"model {model.name}: {lost} of {len(scores)} scores are no finite numbers. Train it again."
                )
            where = candidate_rows(week.offsets, group.rows[part.rows])
            ranks[where] = ranks_of(scores, part.slates.offsets)
            done += len(scores)
            progress(done / week.candidates)
        del group  # before the next one is made
    return ranks


def _clear_work(out: Path) -> None:
    """Remove the working files of submissions to the same file that were killed."""
    for rest in out.parent.glob(f".{out.stem}.*.work"):
        number = rest.suffixes[-2].removeprefix(".")
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(rest, ignore_errors=True)


def _check_tier(model: TrainedModel, profile: str, stages: list[str]) -> None:
    if model.tier != "clicks":
        model.check(model.columns)
        return
    files = [path for stage in stages for path in sorted(StagePaths(profile, stage).artifacts.glob("model_*.pt"))]
    fit = [other.name for other in map(load_model, files) if other.tier != "clicks"]
    raise SubmissionError(
        f"model {model.name}: tier clicks knows what was clicked before an impression, and the hidden test does not "
        f"tell the clicks of its week. Submit a model of tier exposure or below: "
        f"{', '.join(fit) or 'none is trained; add exposure to the parameter tiers of 03_train_mlp'}."
    )


def _remarks(week: HiddenWeek) -> list[str]:
    """Return what a reader should know of the weeks."""
    lines = [
        f"{len(week):,} rows with {week.candidates:,} candidates, {int(week.beyond.sum()):,} of the rows for "
        f"beyond-accuracy measures; {week.before:,} impressions of the week before"
    ]
    if week.overlapping:
        lines.append(
            f"note: {week.overlapping:,} impressions of {TEST}'s week before are not before its first one: left out"
        )
    ratio = week.seen / max(week.seen_before, 1)
    if not 1 / _OTHER_SCALE < ratio < _OTHER_SCALE:
        lines.append(
            f"note: articles were in view {ratio:.3g} times as often as in the week before: counts are on another "
            "scale than the model was trained on. Train on a bundle of the same scale: ebnerd_large for ebnerd_testset."
        )
    return lines
