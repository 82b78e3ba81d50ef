"""The readers of the sample: how active they are, in which weeks, on which device, and what is known of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ebnerd_lib.sample.random import scramble, stream_key

GOLDEN_RATIO = 0.6180339887498949

# Inverse distribution functions (probability, value) of impressions per user and week and of history lengths.
WEEK_COUNTS = (
    ((0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0), (1.0, 1.0, 3.0, 9.0, 19.5, 39.5, 50.0, 80.0, 172.0)),
    ((0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0), (1.0, 1.0, 3.6, 9.8, 21.5, 40.5, 52.0, 80.0, 122.0)),
)
HISTORY_LENGTHS = (
    (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0),
    (5.0, 14.0, 40.0, 95.0, 195.0, 410.0, 530.0, 800.0, 1250.0, 1460.0),
)
VALIDATION_HISTORY = 0.95  # length of a validation history relative to a train one
KEPT_CLICKS = 0.889  # of the train week's clicks, those that validation's history holds
NEW_READERS = 0.1  # share of the test week's users who are in neither week before
RETURNING = 4.0  # weight of a validation reader among those who come back, relative to another

DEVICE_SHARES = (0.341, 0.628, 0.031)  # desktop, mobile, tablet: codes 1, 2, 3
SECOND_DEVICE = 0.025
MALE = 0.88


@dataclass(frozen=True)
class Audience:
    """Readers in the order train only, both weeks, validation only, test only; arrays are aligned on them.

    Attributes:
        user_id: Public id.
        counts: Impressions in the train and the validation week, and in the test week where there is one, shape
            (weeks, users); 0 where absent.
        early: History clicks three weeks before the train week, known to the train history alone.
        middle: History clicks in the two weeks before the train week, known to both histories.
        late: History clicks in the train week other than those of its impressions.
        device: Usual device code.
        second_device: The other device used at times, 0 for most.
        sso: Whether signed in.
        subscriber: Whether subscribed.
        gender: 0 male, 1 female, -1 unknown.
        postcode: 0 to 4, -1 unknown.
        age: Bin of ten years, -1 unknown.
    """

    user_id: NDArray[np.uint32]
    counts: NDArray[np.int64]
    early: NDArray[np.int64]
    middle: NDArray[np.int64]
    late: NDArray[np.int64]
    device: NDArray[np.int8]
    second_device: NDArray[np.int8]
    sso: NDArray[np.bool_]
    subscriber: NDArray[np.bool_]
    gender: NDArray[np.int8]
    postcode: NDArray[np.int8]
    age: NDArray[np.int8]

    def __len__(self) -> int:
        return self.user_id.size


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each value's mid-rank in (0, 1)."""
    ranks = np.empty(values.size)
    ranks[np.argsort(values, kind="stable")] = (np.arange(values.size) + 0.5) / values.size
    return ranks


def _apportion(shares: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Round to integers of at least 1 that sum to ``total``, in proportion as nearly as they can be."""
    scaled = np.maximum(1.0, shares * (total / shares.sum()))
    counts = np.floor(scaled).astype(np.int64)
    order = np.argsort(counts - scaled, kind="stable")
    lacking = total - int(counts.sum())
    if lacking < 0:
        # Take one each from the most active users until the total fits.
        for user in np.resize(np.argsort(-counts, kind="stable")[: max(1, counts.size // 2)], -lacking):
            counts[user] -= 1
        return counts
    counts += lacking // counts.size
    counts[order[: lacking % counts.size]] += 1
    return counts


def _spread(order: NDArray[np.int64], offset: float) -> NDArray[np.float64]:
    """Return uniform numbers that are even over users of every presence and activity, given in that order.

    A plain draw would let a handful of heavy users move a share by more than the calibration allows.
    """
    place = np.empty(order.size, np.int64)
    place[order] = np.arange(order.size)
    return np.mod(place * GOLDEN_RATIO + offset, 1.0)


def draw_audience(seed: int, users: tuple[int, int], distinct: int, impressions: tuple[int, int]) -> Audience:
    """Draw the readers of a bundle.

    Args:
        seed: Seed of the sample.
        users: Users of the train and of the validation week.
        distinct: Users of either week.
        impressions: Impressions of each week, met exactly.
    """
    rng = np.random.default_rng([seed, 1])
    both = users[0] + users[1] - distinct
    inside = np.zeros((2, distinct), bool)
    inside[0, : users[0]] = True
    inside[1, users[0] - both :] = True

    activity = rng.standard_normal(distinct) + 0.5 * (inside[0] & inside[1])
    habit = 0.75 * activity + 0.66 * rng.standard_normal(distinct)
    counts = np.zeros((2, distinct), np.int64)
    lengths = np.zeros((2, distinct), np.int64)
    for split in (0, 1):
        member = inside[split]
        latent = 0.85 * activity[member] + 0.53 * rng.standard_normal(member.sum())
        counts[split, member] = _apportion(np.interp(_ranks(latent), *WEEK_COUNTS[split]), impressions[split])
        scale = VALIDATION_HISTORY if split else 1.0
        length = np.interp(_ranks(habit[member]), *HISTORY_LENGTHS) * scale
        lengths[split, member] = np.maximum(5, np.rint(length))

    middle = np.where(inside[0], lengths[0], lengths[1]) * 2 // 3
    early = np.where(inside[0], lengths[0] - middle, 0)
    kept = np.rint(KEPT_CLICKS * counts[0]).astype(np.int64)
    # A floor on what is known without the train week keeps the shortest validation history at 5.
    late = np.where(inside[1], np.maximum(np.maximum(0, 5 - middle), lengths[1] - middle - kept), 0)

    return Audience(
        user_id=_user_ids(seed, distinct),
        counts=counts,
        early=early,
        middle=middle,
        late=late,
        **_people(rng, counts.sum(0) / inside.sum(0), inside[0] + 2 * inside[1]),
    )


def continue_audience(
    seed: int, audience: Audience, users: int, impressions: int
) -> tuple[Audience, NDArray[np.int64]]:
    """Draw the readers of the hidden test week: most are of the weeks before, some are new.

    Args:
        seed: Seed of the sample.
        audience: The readers of the train and the validation week, who keep their places.
        users: Users of the test week.
        impressions: Their impressions, met exactly.

    Returns:
        All readers with their impressions of three weeks, and by reader the history clicks in the validation week
        other than those of its impressions.
    """
    rng = np.random.default_rng([seed, 31])
    new = round(NEW_READERS * users)
    inside = audience.counts > 0
    # Who read in the validation week is likelier to come back; Gumbel noise picks without replacement.
    liking = np.where(inside[1], np.log(RETURNING), 0.0) - np.log(-np.log1p(-rng.random(len(audience))) + 1e-300)
    back = np.sort(np.argsort(-liking, kind="stable")[: users - new])
    member = np.concatenate([back, len(audience) + np.arange(new)])

    weekly = np.concatenate([audience.counts.sum(0) / inside.sum(0), np.interp(rng.random(new), *WEEK_COUNTS[1])])
    latent = _ranks(weekly[member]) + 0.22 * rng.standard_normal(users)
    counts = np.zeros((3, len(audience) + new), np.int64)
    counts[:2, : len(audience)] = audience.counts
    counts[2, member] = _apportion(np.interp(_ranks(latent), *WEEK_COUNTS[1]), impressions)
    length = np.interp(_ranks(_ranks(weekly[len(audience) :]) + 0.5 * rng.random(new)), *HISTORY_LENGTHS)
    week_clicks = np.rint(VALIDATION_HISTORY * length / 3).astype(np.int64)
    middle = np.concatenate([audience.middle, 2 * week_clicks])
    kept = np.rint(KEPT_CLICKS * counts[1]).astype(np.int64)
    # The same floor: nothing else need lie in the three weeks before the test week.
    latest = np.maximum(5, middle // 2 - kept)

    people = _people(rng, weekly[len(audience) :], np.zeros(new, np.int64))
    return Audience(
        user_id=_user_ids(seed, len(audience) + new),
        counts=counts,
        early=np.concatenate([audience.early, np.zeros(new, np.int64)]),
        middle=middle,
        late=np.concatenate([audience.late, week_clicks]),
        **{name: np.concatenate([getattr(audience, name), values]) for name, values in people.items()},
    ), latest


def _user_ids(seed: int, number: int) -> NDArray[np.uint32]:
    return scramble(np.arange(number), stream_key(seed, 2), 22) + np.uint32(10_000)


def _people(rng: np.random.Generator, weekly: NDArray[np.float64], presence: NDArray[np.integer]) -> dict[str, NDArray]:
    """Draw devices and what is known of readers, given their impressions a week and the weeks they are in."""
    number = weekly.size
    ranks = _ranks(weekly + 0.5 * rng.random(number))
    offsets = rng.random(2)
    order = np.lexsort((ranks, presence))
    standing = _spread(order, offsets[0])
    sso = standing < 0.007 + 0.129 * ranks
    subscriber = standing < 0.104 * ranks - 0.015
    codes = np.searchsorted(np.cumsum(DEVICE_SHARES)[:-1], _spread(order[::-1], offsets[1]), side="right") + 1
    second = np.where(rng.random(number) < SECOND_DEVICE, np.where(codes == 2, 1, 2), 0)
    told = rng.random((3, number))
    return {
        "device": codes.astype(np.int8),
        "second_device": second.astype(np.int8),
        "sso": sso,
        "subscriber": subscriber,
        "gender": np.where(sso & (told[0] < 0.68), rng.random(number) >= MALE, -1).astype(np.int8),
        "postcode": np.where(sso & (told[1] < 0.14), rng.integers(0, 5, number), -1).astype(np.int8),
        "age": np.where(sso & (told[2] < 0.235), rng.integers(2, 8, number), -1).astype(np.int8),
    }
