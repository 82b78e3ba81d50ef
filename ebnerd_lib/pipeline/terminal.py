"""What a person sees of a run: few lines where nobody watches, in a terminal a table that follows the stages.

Rich is imported when a run that has work begins in a terminal, and at no other time.
"""

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from ebnerd_lib.pipeline.progress import Row, clock, last_seconds, left
from ebnerd_lib.pipeline.runs import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_HEAD = ("stage", " time", " left")
_STYLES = {"done": "green", "failed": "bold red", "running": "bold"}
_NO_TERMINALS = ("", "dumb", "unknown")
"""Values of ``TERM`` for what cannot move its cursor."""


def say(line: str, error: bool = False) -> None:
    """Print a line that commands no terminal; characters that the encoding lacks are replaced."""
    stream = sys.stderr if error else sys.stdout
    print(_writable(line, getattr(stream, "encoding", None) or "utf-8"), file=stream, flush=True)


class Lines:
    """Tells that a stage has started and that it is complete, in a line each, and why one failed.

    Args:
        profile: whose stages they are.
        levels: the stages in the order in which they are run, those of a level side by side.
        jobs: stages at a time.
    """

    def __init__(self, profile: str, levels: list[list[str]], jobs: int) -> None:
        self._profile, self._jobs = profile, jobs
        self._rows = {stage: Row() for level in levels for stage in level}
        self._levels = [[self._rows[stage] for stage in level] for level in levels]

    def begin(self) -> None:
        """Say what is run; to be called once there is work."""
        for stage, row in self._rows.items():
            row.last = last_seconds(self._profile, stage)
        say(f"profile {self._profile}: {len(self._rows)} stages, outputs in outputs/{self._profile}/")

    def keep(self, stage: str) -> None:
        """Take note that a stage is up to date."""
        self._rows[stage].state = "up to date"

    def start(self, stage: str) -> None:
        """Take note that a stage has started; a second time changes nothing."""
        row = self._rows[stage]
        if row.began is None:
            row.began, row.state, row.now = time.monotonic(), "running", ["starting"]
            self._started(stage, row)

    def tell(self, stage: str, what: dict[str, Any]) -> None:
        """Take note of what a stage does, see `Row.tell`."""
        self._rows[stage].tell(what, time.monotonic())

    def complete(self, stage: str) -> None:
        """Take note that a stage is complete."""
        self._completed(stage, self._end(stage, "done"))

    def fail(self, stage: str, message: str) -> None:
        """Say why a stage failed."""
        self._end(stage, "failed").now = [" ".join(message.split())]
        self._failed(f"{stage}: FAILED: {message}")

    def render(self) -> None:
        """Take note that all stages have ended and reports are written."""

    def close(self) -> None:
        """Show nothing more; a second time changes nothing."""

    def _end(self, stage: str, state: str) -> Row:
        row = self._rows[stage]
        row.state, row.ended = state, time.monotonic()
        return row

    def _started(self, stage: str, row: Row) -> None:
        say(f"{stage}: started" + ("" if row.last is None else f" (last time {row.last:.0f} s)"))

    def _completed(self, stage: str, row: Row) -> None:
        say(f"{stage}: complete in {row.elapsed(time.monotonic()):.0f} s")

    def _failed(self, line: str) -> None:
        say(line, error=True)


class Table(Lines):
    """Shows the stages in a table that follows them; its last state stays in the terminal."""

    def __init__(self, profile: str, levels: list[list[str]], jobs: int) -> None:
        super().__init__(profile, levels, jobs)
        self._streams = sys.stdout, sys.stderr
        self._console: Console | None = None
        self._live: Live | None = None
        self._began, self._rendering = 0.0, False

    def begin(self) -> None:
        """Show the table."""
        from rich.console import Console
        from rich.live import Live

        super().begin()
        self._began = time.monotonic()
        self._console = Console(force_terminal=True, force_interactive=True, highlight=False)
        # What libraries print meanwhile goes above the table, unless it was sent elsewhere.
        self._live = Live(
            get_renderable=self._shown, console=self._console, redirect_stderr=sys.stderr.isatty(), refresh_per_second=5
        )
        self._console.line()
        self._live.start(refresh=True)

    def render(self) -> None:
        """Say so below the table."""
        self._rendering = True

    def close(self) -> None:
        """Leave the table as it is, and the terminal as it was, wherever an interruption fell."""
        live, console, self._live = self._live, self._console, None
        if live is None or console is None:
            return
        for row in self._rows.values():
            row.state = {"waiting": "not run", "running": "stopped"}.get(row.state, row.state)
        with contextlib.suppress(OSError):  # the terminal is no more
            try:
                live.stop()
                console.line()
            finally:
                sys.stdout, sys.stderr = self._streams
                console.show_cursor(True)

    def _started(self, stage: str, row: Row) -> None:
        pass

    def _completed(self, stage: str, row: Row) -> None:
        pass

    def _failed(self, line: str) -> None:
        from rich.text import Text

        if self._console is not None and self._streams[1].isatty():
            self._console.print(Text(_writable(line, self._console.encoding)), soft_wrap=True)
        else:
            say(line, error=True)

    def _shown(self) -> "RenderableType":
        """Return the table as it is now, in as many columns as the terminal has."""
        from rich.console import Group
        from rich.table import Table as Grid
        from rich.text import Text

        assert self._console is not None
        at = time.monotonic()
        cells = [(stage, *_times(row, at)) for stage, row in self._rows.items()]
        taken = sum(max(map(len, column)) + 2 for column in zip(_HEAD, *cells, strict=True))
        room = max(self._console.width - taken, 8)
        grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in _HEAD:
            grid.add_column(name, no_wrap=True, justify="left" if name == "stage" else "right")
        grid.add_column("now", no_wrap=True)
        for own, row in zip(cells, self._rows.values(), strict=True):
            style = _STYLES.get(row.state, "dim")
            now = Text(_writable(_fitting(_doing(row), room), self._console.encoding), style)
            now.truncate(room, overflow="crop" if self._console.options.ascii_only else "ellipsis")
            grid.add_row(*(Text(cell, style) for cell in own), now)
        return Group(grid, Text(self._summary(at), "dim")) if self._live is not None else grid

    def _summary(self, at: float) -> str:
        """Return the line below the table."""
        if self._rendering:
            return "\nwriting reports"
        ahead = str(left(self._levels, self._jobs, at))
        about = f", at least {ahead[:-1]} left" if ahead.endswith("+") else f", about {ahead} left" if ahead else ""
        return f"\n{clock(at - self._began)} so far{about}"


def view(profile: str, levels: list[list[str]], jobs: int) -> Lines:
    """Return what shows a run: a table where a person watches, lines elsewhere. See `Lines` for the arguments."""
    watched = sys.stdout.isatty() and os.environ.get("TERM", "") not in _NO_TERMINALS
    return (Table if watched else Lines)(profile, levels, jobs)


def _writable(text: str, encoding: str) -> str:
    r"""Return text without what commands a terminal, in an encoding's own characters.

    >>> _writable("\x1b[31m95 – 100", "ascii")
    '95 ? 100'
    """
    return printable(text).encode(encoding, "replace").decode(encoding)


def _times(row: Row, at: float) -> tuple[str, str]:
    """Return what is written of the time that a stage has taken and of the time that it has left."""
    spent = "" if row.began is None else clock(row.elapsed(at))
    return spent, str(row.left(at)) if row.state in ("waiting", "running") else ""


def _doing(row: Row) -> list[str]:
    """Return the words for what a stage does or how it ended, in parts."""
    if row.state == "running":
        return row.now
    if row.state == "failed":
        return [f"FAILED: {row.now[0]}"]
    return [row.state]


def _fitting(parts: list[str], room: int) -> str:
    """Join as many parts as there is room for, but the first one always.

    >>> _fitting(["mlp epoch 1/9", "val/auc 0.7", "loss 3.1"], 30)
    'mlp epoch 1/9, val/auc 0.7'
    """
    while len(parts) > 1 and len(", ".join(parts)) > room:
        parts = parts[:-1]
    return ", ".join(parts)
