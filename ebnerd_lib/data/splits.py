"""Which impressions are for training, for tuning and for validation.

``official``: the train week less its last 24 hours | those 24 hours | the validation week.
``quantile``: both weeks together, cut at the .9 quantile of impression time; of the first part, its last tenth
of time is for tuning. This is the original notebook's way of cutting, taken over impressions.
"""

from dataclasses import dataclass

import numpy as np

from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.errors import BundleError, ConfigError

PARTS = ("train", "tuning", "validation")
SPLIT_NAMES = ("official", "quantile")


@dataclass(frozen=True)
class Split:
    """Where both weeks, train file first, are cut. Parts are half-open intervals of time.

    Attributes:
        part: int8 (n,), per impression of both files: 0 train, 1 tuning, 2 validation.
        tuning_start: microseconds; tuning begins here.
        validation_start: microseconds; validation begins here.
    """

    part: np.ndarray
    tuning_start: int
    validation_start: int


def split_parts(name: str, train_time: np.ndarray, validation_time: np.ndarray) -> Split:
    """Assign every impression of both weeks to a part.

    Args:
        name: ``official`` or ``quantile``.
        train_time: int64 microseconds, the train file's impressions, in any order.
        validation_time: the same of the validation file.

    Raises:
        ConfigError: the name is unknown.
        BundleError: a part would be empty, or the weeks overlap under ``official``.
    """
    if name == "official":
        split = _official(train_time, validation_time)
    elif name == "quantile":
        split = _quantile(np.concatenate([train_time, validation_time]))
    else:
        raise ConfigError(f"split: '{name}' is unknown. Use one of {', '.join(SPLIT_NAMES)}.")
    counts = np.bincount(split.part, minlength=len(PARTS))
    if not counts.all():
        empty = ", ".join(part for part, count in zip(PARTS, counts, strict=True) if not count)
        raise BundleError(
            f"split '{name}': no impressions for {empty} ({', '.join(map(str, counts))} in {', '.join(PARTS)}). "
            "train/behaviors.parquet and validation/behaviors.parquet must cover more than a day each: check that they "
            "are complete."
        )
    return split


def _official(train_time: np.ndarray, validation_time: np.ndarray) -> Split:
    if train_time.max() >= validation_time.min():
        late = int((train_time >= validation_time.min()).sum())
        raise BundleError(
            f"train/behaviors.parquet: {late} impressions are not before the first of validation/behaviors.parquet. "
            "The official split needs the train week first: check that the files are not mixed up."
        )
    # Weeks end on a full hour; the last impression falls just short of it.
    week_end = (int(train_time.max()) // HOUR + 1) * HOUR
    tuning_start = week_end - 24 * HOUR
    part = np.concatenate([train_time >= tuning_start, np.full(len(validation_time), 2)]).astype(np.int8)
    return Split(part, tuning_start, int(validation_time.min()))


def _quantile(time: np.ndarray) -> Split:
    ordered = np.sort(time)
    validation_start = int(ordered[int(np.ceil(0.9 * (len(time) - 1)))])
    tuning_start = validation_start - (validation_start - int(ordered[0])) // 10
    part = (time >= tuning_start).astype(np.int8) + (time >= validation_start).astype(np.int8)
    return Split(part, tuning_start, validation_start)
