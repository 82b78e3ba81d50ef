"""Times of contestants that take turns, so that what else the machine does meets all of them alike."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

RUNS = 5


@dataclass(frozen=True)
class Times:
    """Seconds of one contestant, one entry a run."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def ends(self) -> list[float]:
        """The least and the largest."""
        return [min(self.seconds), max(self.seconds)]

    def scaled(self, factor: float) -> "Times":
        """Return the times of a task that is ``factor`` times as long."""
        return Times([factor * each for each in self.seconds])

    def plus(self, other: "Times") -> "Times":
        """Return the times of this task and then another, run by run."""
        return Times([one + two for one, two in zip(self.seconds, other.seconds, strict=True)])


@dataclass(frozen=True)
class Share:
    """What of a task a rival was measured on, where the whole would take minutes and its time grows in a line.

    Attributes:
        what: what is counted, and how the share was drawn.
        measured: how many were measured.
        whole: how many the task has.
        half: seconds for half as many, to see that time grows in a line.
    """

    what: str
    measured: int
    whole: int
    half: float

    @property
    def factor(self) -> float:
        """How many times the measured share the whole would take."""
        return self.whole / self.measured

    def note(self, rival: Times) -> str:
        """State the extrapolation, and how far the two sizes are from a line."""
        one, two = self.half / (self.measured // 2), rival.median / self.measured
        return (
            f"The rival is extrapolated from {self.measured:,} of {self.whole:,} {self.what}: "
            f"{two * 1e6:.3g} µs each, and {one * 1e6:.3g} µs each on {self.measured // 2:,} of them "
            f"({two / one - 1:+.0%} from a line)."
        )


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes; garbage of earlier ones is collected before."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(contestants: Mapping[str, Callable[[], object]], runs: int = RUNS) -> dict[str, Times]:
    """Run contestants in turn, each once to warm up and then ``runs`` times; every other round goes backwards.

    Args:
        contestants: by name, calls that do the whole of the task.
        runs: rounds that count.
    """
    names = list(contestants)
    found: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        contestants[name]()
    for number in range(runs):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(seconds(contestants[name]))
    return {name: Times(each) for name, each in found.items()}
