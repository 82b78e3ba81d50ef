"""The readers of the sample: how active they are, in which weeks, on which device, and what is known of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebnerd_lib.sample.articles import Flags, Floats, Places, joined

GOLDEN_RATIO = 0.6180339887498949

# Inverse distribution functions (probability, value) of impressions per user and week and of history lengths.
PROBABILITIES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
WEEK_COUNTS = (
    (PROBABILITIES, (1.0, 1.0, 3.0, 9.0, 19.5, 39.5, 50.0, 80.0, 172.0)),
    (PROBABILITIES, (1.0, 1.0, 3.6, 9.8, 21.5, 40.5, 52.0, 80.0, 122.0)),
)
HISTORY_LENGTHS = (
    (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0),
    (5.0, 14.0, 40.0, 95.0, 195.0, 410.0, 530.0, 800.0, 1250.0, 1460.0),
)
VALIDATION_HISTORY = 0.95  # length of a validation history relative to a train one
KEPT_CLICKS = 0.889  # of a week's clicks, those that the next week's history holds
NEW_READERS = 0.1  # share of the test week's users who are in neither week before
RETURNING = 4.0  # weight of a validation reader among those who come back, relative to another
DEVICE_SHARES = (0.341, 0.628, 0.031)  # desktop, mobile, tablet: codes 1, 2, 3
SECOND_DEVICE = 0.025
MALE = 0.88


class Readers(NamedTuple):
    """Readers in the order train only, both weeks, validation only, test only; arrays are aligned on them."""

    counts: Places  # (3, readers): impressions in the train, the validation and the test week; 0 where absent
    # (4, readers): history clicks other than those of the weeks' impressions: three weeks before the train week, which
    # only the train history reaches; in the two weeks before it; in the train week; in the validation week.
    history: Places
    device: NDArray[np.int8]  # usual device code
    second_device: NDArray[np.int8]  # the other device used at times, 0 for most
    sso: Flags  # whether signed in
    subscriber: Flags
    gender: NDArray[np.int8]  # 0 male, 1 female, -1 unknown
    postcode: NDArray[np.int8]  # 0 to 4, -1 unknown
    age: NDArray[np.int8]  # bin of ten years, -1 unknown


def sample_readers(seed: int, users: tuple[int, int], distinct: int, impressions: tuple[int, int]) -> Readers:
    """Sample the readers of a bundle.

    Of the train and of the validation week, ``users`` and ``impressions`` are met exactly; ``distinct`` is the number
    of users of either.
    """
    rng = np.random.default_rng([seed, 1])
    inside = np.zeros((2, distinct), bool)
    inside[0, : users[0]] = True
    inside[1, distinct - users[1] :] = True

    activity = rng.standard_normal(distinct) + 0.5 * (inside[0] & inside[1])
    habit = 0.75 * activity + 0.66 * rng.standard_normal(distinct)
    counts = np.zeros((3, distinct), np.int64)
    lengths = np.zeros((2, distinct), np.int64)
    for split, scale in enumerate((1.0, VALIDATION_HISTORY)):
        member = inside[split]
        latent = 0.85 * activity[member] + 0.53 * rng.standard_normal(member.sum())
        counts[split, member] = _apportion(np.interp(_ranks(latent), *WEEK_COUNTS[split]), impressions[split])
        lengths[split, member] = np.maximum(5, np.rint(np.interp(_ranks(habit[member]), *HISTORY_LENGTHS) * scale))

    history = np.zeros((4, distinct), np.int64)
    history[1] = np.where(inside[0], lengths[0], lengths[1]) * 2 // 3
    history[0] = np.where(inside[0], lengths[0] - history[1], 0)
    # A floor on what is known without the train week keeps the shortest validation history at 5.
    late = np.maximum(np.maximum(0, 5 - history[1]), lengths[1] - history[1] - np.rint(KEPT_CLICKS * counts[0]))
    history[2] = np.where(inside[1], late, 0)
    return Readers(counts, history, **_people(rng, counts.sum(0) / inside.sum(0), inside[0] + 2 * inside[1]))


def continue_readers(seed: int, former: Readers, users: int, impressions: int) -> Readers:
    """Return the readers with those of the hidden test week: most are of the weeks before, some are new.

    The former ones keep their places. The week's ``users`` and their ``impressions`` are met exactly.
    """
    rng = np.random.default_rng([seed, 31])
    new, old = round(NEW_READERS * users), former.device.size
    inside = former.counts[:2] > 0
    # Who read in the validation week is likelier to come back; Gumbel noise picks without replacement.
    liking = np.where(inside[1], np.log(RETURNING), 0.0) - np.log(-np.log1p(-rng.random(old)) + 1e-300)
    back = np.sort(np.argsort(-liking, kind="stable")[: users - new])
    member = np.concatenate([back, old + np.arange(new)])

    weekly = np.concatenate([former.counts.sum(0) / inside.sum(0), np.interp(rng.random(new), *WEEK_COUNTS[1])])
    new_weekly = weekly[old:]
    latent = _ranks(weekly[member]) + 0.22 * rng.standard_normal(users)
    length = np.interp(_ranks(_ranks(new_weekly) + 0.5 * rng.random(new)), *HISTORY_LENGTHS)
    clicks = np.rint(VALIDATION_HISTORY * length / 3).astype(np.int64)
    none = np.zeros(new, np.int64)
    history = np.stack([none, 2 * clicks, clicks, none])
    readers = joined(former, Readers(np.zeros((3, new), np.int64), history, **_people(rng, new_weekly, none)))
    readers.counts[2, member] = _apportion(np.interp(_ranks(latent), *WEEK_COUNTS[1]), impressions)
    # The same floor: nothing else need lie in the three weeks before the test week.
    readers.history[3] = np.maximum(5, readers.history[1] // 2 - np.rint(KEPT_CLICKS * readers.counts[1]))
    return readers


def _ranks(values: Floats) -> Floats:
    """Return each value's mid-rank in (0, 1)."""
    return (np.argsort(np.argsort(values, kind="stable")) + 0.5) / values.size


def _apportion(shares: Floats, total: int) -> Places:
    """Round to integers of at least 1 that sum to ``total``, a few for each, in proportion as nearly as they can be."""
    scaled = np.maximum(1.0, shares * (total / shares.sum()))
    counts = np.floor(scaled).astype(np.int64)
    order = np.argsort(counts - scaled, kind="stable")
    lacking = total - int(counts.sum())
    counts += lacking // counts.size
    counts[order[: lacking % counts.size]] += 1
    return counts


def evenly(places: Places, offset: float) -> Floats:
    """Return numbers in [0, 1) by place that are even over all places and over any few that lie side by side.

    Independent ones would let a handful of heavy users, or of large categories, move a share by more than the
    calibration allows.
    """
    return np.mod(places * GOLDEN_RATIO + offset, 1.0)


def _people(rng: np.random.Generator, weekly: Floats, presence: NDArray[np.integer]) -> dict[str, NDArray]:
    """Sample devices and what is known of readers, given their impressions a week and the weeks they are in."""
    number = weekly.size
    ranks = _ranks(weekly + 0.5 * rng.random(number))
    offsets = rng.random(2)
    order = np.lexsort((ranks, presence))
    standing = evenly(np.argsort(order), offsets[0])
    sso = standing < 0.007 + 0.129 * ranks
    luck = evenly(np.argsort(order[::-1]), offsets[1])
    codes = np.searchsorted(np.cumsum(DEVICE_SHARES)[:-1], luck, side="right") + 1
    second = np.where(rng.random(number) < SECOND_DEVICE, np.where(codes == 2, 1, 2), 0)
    known = rng.random((3, number))
    return {
        "device": codes.astype(np.int8),
        "second_device": second.astype(np.int8),
        "sso": sso,
        "subscriber": standing < 0.104 * ranks - 0.015,
        "gender": np.where(sso & (known[0] < 0.68), rng.random(number) >= MALE, -1).astype(np.int8),
        "postcode": np.where(sso & (known[1] < 0.14), rng.integers(0, 5, number), -1).astype(np.int8),
        "age": np.where(sso & (known[2] < 0.235), rng.integers(2, 8, number), -1).astype(np.int8),
    }
