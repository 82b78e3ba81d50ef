"""How far a run is: what each stage does, how long it took last time, what time is left. Standard library only."""

from dataclasses import dataclass, field
from typing import Any

from ebnerd_lib.pipeline.paths import StagePaths, read_json
from ebnerd_lib.pipeline.runs import is_number


def clock(seconds: float) -> str:
    """Write a duration as minutes and seconds, with hours from the first one on.

    >>> clock(7.9), clock(83), clock(3725)
    ('0:07', '1:23', '1:02:05')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass(frozen=True)
class Left:
    """Seconds that something has left, at the least where ``more`` follows that is not known.

    >>> str(Left(83)), str(Left(83, more=True)), str(Left(0)), str(Left(0, more=True))
    ('1:23', '1:23+', '0:00', '')
    """

    seconds: float
    more: bool = False

    def __str__(self) -> str:
        if self.more and self.seconds <= 0:
            return ""
        return clock(self.seconds) + ("+" if self.more else "")


@dataclass
class Row:
    """What is known of a stage of a run. Moments are seconds of any one clock.

    Attributes:
        last: seconds that it took the last time, ``None`` where that is not known.
        state: ``waiting``, ``running`` or how it ended.
        began: when it began, ``None`` before.
        ended: when it ended, ``None`` before.
        now: what it does, in parts, the telling ones first.
    """

    last: float | None = None
    state: str = "waiting"
    began: float | None = None
    ended: float | None = None
    now: list[str] = field(default_factory=list)
    _until: float | None = None  # when the step at hand ends
    _step: tuple[str, float, float] = ("", 0.0, 0.0)  # its name, when it was first told of, the share done by then

    def elapsed(self, at: float) -> float:
        """Return the seconds since it began, until it ended; 0 before it began."""
        return 0.0 if self.began is None else (at if self.ended is None else self.ended) - self.began

    def tell(self, what: dict[str, Any], at: float) -> None:
        """Take note of a heading, an epoch or a share of a step, as `Stage.progress` writes the latter two.

        Raises:
            KeyError: it is none of these.
        """
        if "heading" in what:
            self._until, self.now = None, [what["heading"]]
        elif "epoch" in what:
            self._until = at + what["seconds_left"]
            self.now = [
                f"{what['model']} epoch {what['epoch']:.0f}/{what['epochs']:.0f}",
                f"val/auc {what['val/auc']:.4f}",
                f"loss {what['train/loss']:.4f}",
            ]
        else:
            name, share = what["step"], what.get("share", 1.0)
            if self._step[0] != name:
                self._step = (name, at, share)
            _, since, first = self._step
            self._until = at + (at - since) / (share - first) * (1 - share) if share > first else None
            self.now = [f"{name} {share:.0%}"]

    def left(self, at: float) -> Left:
        """Return the time that it has left: by the last run, but no less than the step at hand has."""
        if self.state == "waiting":
            return Left(self.last or 0.0, more=self.last is None)
        if self.state != "running":
            return Left(0.0)
        step = max(0.0, self._until - at) if self._until is not None else 0.0
        if self.last is not None and self.elapsed(at) < self.last:
            return Left(max(self.last - self.elapsed(at), step))
        return Left(step, more=True)


def left(levels: list[list[Row]], jobs: int, at: float) -> Left:
    """Return the time that a run has left: level after level, ``jobs`` stages of a level at a time.

    >>> levels = [[Row(last=30.0), Row(last=10.0)], [Row(last=20.0)]]
    >>> str(left(levels, jobs=2, at=0.0)), str(left(levels, jobs=1, at=0.0)), str(left([[Row()]], jobs=1, at=0.0))
    ('0:50', '1:00', '')
    """
    seconds, more = 0.0, False
    for level in levels:
        own = [row.left(at) for row in level]
        parts = [each.seconds for each in own]
        seconds += max(*parts, sum(parts) / jobs)
        more |= any(each.more for each in own)
    return Left(seconds, more)


def last_seconds(profile: str, stage: str) -> float | None:
    """Return how long a stage took the last time.

    The executed notebook knows it with the start of the kernel, the manifest, which outlives a failed run, without.
    """
    paths = StagePaths(profile, stage)
    noted = (read_json(paths.executed) or {}).get("metadata", {}).get("papermill", {}).get("duration")
    known: list[Any] = [noted, (read_json(paths.manifest) or {}).get("duration_seconds")]
    return next((float(seconds) for seconds in known if is_number(seconds)), None)
