"""Counter-based random numbers: every draw is a function of a key, so no result depends on the order of work.

The generator is SplitMix64 (Steele, Lea and Flood 2014). A user's stream starts from a key made of the seed, the
purpose and the user, which is what makes the sample the same whatever the chunk size.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

_STEP = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_ALL = 0xFFFFFFFFFFFFFFFF

STEP = np.uint64(_STEP)
FIRST = np.uint64(_FIRST)
SECOND = np.uint64(_SECOND)
S11, S27, S30, S31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)


def stream_key(seed: int, purpose: int) -> np.uint64:
    """Return the key of one purpose's stream under a seed."""
    state = (seed * 0xD1342543DE82EF95 + purpose * _STEP) & _ALL
    for _ in range(2):
        state = ((state ^ (state >> 30)) * _FIRST) & _ALL
        state = ((state ^ (state >> 27)) * _SECOND) & _ALL
        state ^= state >> 31
    return np.uint64(state)


def hashed_uniforms(key: np.uint64, counters: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return one uniform number in [0, 1) for each counter: equal counters give equal numbers."""
    state = counters.astype(np.uint64) * STEP + key
    for _ in range(2):
        state = (state ^ (state >> S30)) * FIRST
        state = (state ^ (state >> S27)) * SECOND
        state = state ^ (state >> S31)
    return (state >> S11).astype(np.float64) * 2.0**-53


def scramble(ordinals: NDArray[np.integer], key: np.uint64, bits: int) -> NDArray[np.uint32]:
    """Map ordinals below ``2**bits`` one to one onto ids below ``2**bits`` that show no order.

    >>> ids = scramble(np.arange(1 << 10), stream_key(0, 1), 10)
    >>> len(set(ids.tolist()))
    1024
    """
    mask = np.uint64((1 << bits) - 1)
    shift = np.uint64((bits + 1) // 2)
    ids = ordinals.astype(np.uint64)
    for odd in (0x2C1B3C6D, 0x297A2D39, 0x1B56C4E9):
        ids = (ids + (key & mask)) & mask
        ids = (ids * np.uint64(odd)) & mask
        ids = ids ^ (ids >> shift)
    return ids.astype(np.uint32)


@nb.njit(cache=True, nogil=True)
def mixed(state: np.uint64) -> np.uint64:
    """Scatter the bits of a 64-bit state."""
    state = (state ^ (state >> S30)) * FIRST
    state = (state ^ (state >> S27)) * SECOND
    return state ^ (state >> S31)


@nb.njit(cache=True, nogil=True)
def uniform(state: NDArray[np.uint64]) -> float:
    """Advance a one-element state and return a uniform number in [0, 1)."""
    state[0] += STEP
    return np.float64(mixed(state[0]) >> S11) * 2.0**-53


@nb.njit(cache=True, nogil=True)
def bell(state: NDArray[np.uint64]) -> float:
    """Return a bell-shaped number of mean 0 and variance 1, never beyond 3.47 (four uniforms summed)."""
    total = uniform(state) + uniform(state) + uniform(state) + uniform(state)
    return (total - 2.0) * 1.7320508075688772
