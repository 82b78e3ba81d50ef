"""Slates of which training keeps the clicks and some of the rest."""

import numpy as np


def keep_some(
    slate: np.ndarray, place: np.ndarray, clicked: np.ndarray, slates: int, negatives: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose all clicked candidates of each slate and at most ``negatives`` others, any of them as likely.

    Args:
        slate: int64 (m,), ascending, which slate a candidate belongs to.
        place: int64 (m,), its place within that.
        clicked: float32 (m,), whether it was clicked.
        slates: how many there are.
        negatives: how many to keep, 1 or more.
        rng: draws them.

    Returns:
        Positions of those kept, ascending, and their places within what is left of their slates.
    """
    # In order of slate, then clicks, then chance, the candidates to keep are the first ones of each slate.
    order = np.argsort(slate + np.where(clicked > 0, 0.0, 0.25 + rng.random(len(slate)) / 2))
    clicks = np.bincount(slate, weights=clicked, minlength=slates).astype(np.int64)
    kept = np.sort(order[place < clicks[slate] + negatives])
    lengths = np.bincount(slate[kept], minlength=slates)
    return kept, np.arange(len(kept)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
