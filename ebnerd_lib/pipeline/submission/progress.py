"""How far a long command is, in lines on a terminal or in a log."""

import time
from collections.abc import Callable


class Progress:
    """Tells how far each step is, at most every five seconds, with the time that the step has left."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._step = say, ""
        self._start = self._told = 0.0

    def step(self, name: str, share: float) -> None:
        """Take note of the share of a step that is done."""
        now = time.monotonic()
        if name != self._step:
            self._step, self._start, self._told = name, now, now
        if now - self._told >= 5 and 0 < share < 1:
            self._told = now
            left = (now - self._start) / share * (1 - share)
            self._say(f"{name}: {share:.0%}, about {left:.0f} s left")
