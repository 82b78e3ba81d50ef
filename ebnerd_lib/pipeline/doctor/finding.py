"""One line of what a doctor finds: its state, what it is about, and the remedy. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, WRONG = "ok", "warn", "wrong"
"""Fine; worth a look; stops the profile."""


@dataclass(frozen=True)
class Finding:
    """What was found about one thing.

    Attributes:
        state: ``OK``, ``WARN`` or ``WRONG``.
        name: what it is about, a word or two.
        text: what was found.
        remedy: what to do about it, empty where nothing is to be done.
    """

    state: str
    name: str
    text: str
    remedy: str = ""


def gigabytes(size: float) -> str:
    """Write a number of bytes.

    >>> gigabytes(21.5e6), gigabytes(1.94e9), gigabytes(64e9)
    ('22 MB', '1.9 GB', '64 GB')
    """
    if size < 1e9:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e9:.1f} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"


def few(names: list[str], most: int = 6) -> str:
    """Write some names, the first few and how many more there are.

    >>> few(["a", "b"]), few(list("abcdefgh"))
    ('a, b', 'a, b, c, d, e, f and 2 more')
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
