"""How far a transfer is: a bar with rate and time left on a terminal, a line every few seconds elsewhere."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_SECONDS = 5.0
"""Between two lines where there is no terminal."""


def amount(size: float) -> str:
    """Write a number of bytes in units of a thousand, as the data set's site does.

    >>> amount(512), amount(21_499_083), amount(3.02e9)
    ('512 bytes', '21.5 MB', '3.0 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} bytes"


def seconds_left(seconds: float) -> str:
    """Write a time that is left.

    >>> seconds_left(41.2), seconds_left(754)
    ('41 s', '12 min 34 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Meter:
    """Shows how many bytes of a file have come; a context, since a bar is drawn until it is closed.

    Args:
        name: what is transferred.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._first = self._last = 0
        self._start = self._told = time.monotonic()

    def __enter__(self) -> Self:
        """Open the bar where there is a terminal that can draw one."""
        if sys.stdout.isatty():
            self._bar = _bar()
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar, which stays as it was last."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, total: int | None) -> None:
        """Take note of the bytes that are there, of all that there are if known; fewer than before start anew."""
        if self._bar is not None:
            self._draw(self._bar, done, total)
        else:
            self._write(done, total)
        self._last = done

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, flush=True)

    def _draw(self, bar: "Progress", done: int, total: int | None) -> None:
        if self._task is None:
            self._task = bar.add_task(self._name, total=total, completed=done)
        elif done < self._last:
            bar.reset(self._task, total=total, completed=done)
        else:
            bar.update(self._task, total=total, completed=done)

    def _write(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if done < self._last or not self._last:
            self._first, self._start = done, now
        if now - self._told < LINE_SECONDS:
            return
        self._told = now
        rate = (done - self._first) / max(now - self._start, 1e-9)
        share = f"{done / total:.0%} of {amount(total)}" if total else amount(done)
        left = f", {seconds_left((total - done) / rate)} left" if total and rate else ""
        print(f"{self._name}: {share}, {amount(rate)}/s{left}", flush=True)


def _bar() -> "Progress | None":
    """Return a bar with rate and time left; ``None`` for a terminal without a cursor."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console()
    if not console.is_terminal or console.is_dumb_terminal:
        return None
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=console)
