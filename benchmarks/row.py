"""A row of results: a figure of ours, a rival's, their ratio, the bar, and whether it is met."""

from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.timing import Times


@dataclass(frozen=True)
class Bar:
    """What is to be reached: a figure of a row at least, or at most, as large as a limit.

    Attributes:
        of: the ``ratio`` of the row, or ``ours`` where there is no rival to divide by.
        sign: ``≥`` or ``≤``.
        limit: what it is compared with.
    """

    of: Literal["ratio", "ours"]
    sign: Literal["≥", "≤"]
    limit: float

    def met(self, value: float) -> bool:
        """Say whether a figure reaches the limit."""
        return value >= self.limit if self.sign == "≥" else value <= self.limit

    def text(self) -> str:
        """Write the bar as a table shows it."""
        limit = f"{self.limit:,.0f}" if self.limit >= 1000 else f"{self.limit:g}"
        return f"{self.of} {self.sign} {limit}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what was measured, and against what.
        ours: our figure, ``None`` if it was not measured.
        rival: the rival's, ``None`` if there is none or it was not measured.
        unit: of both.
        ratio: the figure that a bar on ratios looks at.
        ratio_is: how it was divided, as ``rival / ours``.
        bar: what is to be reached, ``None`` for a row that only informs.
        runs: how often each side was measured, the warm-up left out.
        note: sizes, shares and extrapolations, or why it was not measured.
        spread: least and largest figure by side.
    """

    name: str
    ours: float | None
    unit: str
    rival: float | None = None
    ratio: float | None = None
    ratio_is: str = ""
    bar: Bar | None = None
    runs: int = 0
    note: str = ""
    spread: dict[str, list[float]] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached; ``None`` where there is no bar, or nothing to compare with it."""
        value = self.ratio if self.bar is not None and self.bar.of == "ratio" else self.ours
        return None if self.bar is None or value is None else self.bar.met(value)

    def plain(self) -> dict[str, Any]:
        """Return the row in the types of JSON."""
        bar = None if self.bar is None else {"text": self.bar.text(), **vars(self.bar)}
        return {**vars(self), "bar": bar, "met": self.met}


def faster(
    name: str, ours: Times, rival: Times, least: float | None, note: str = "", times: float = 1.0, unit: str = "s"
) -> Row:
    """Compare times: by how much ours is faster.

    Args:
        name: of the row.
        ours: our times.
        rival: the rival's.
        least: the bar on rival / ours, ``None`` for none.
        note: of the row.
        times: how many times its measured share the rival would take for the whole, see ``benchmarks.timing.Share``.
        unit: of the times.
    """
    whole = rival.scaled(times)
    bar = None if least is None else Bar("ratio", "≥", least)
    return _compared(name, ours, whole, whole.median / ours.median, "rival / ours", bar, note, unit)


def at_most(name: str, ours: Times, rival: Times, most: float, note: str = "") -> Row:
    """Compare times with those of a floor: how many times the floor's ours are, ``most`` at the most."""
    return _compared(name, ours, rival, ours.median / rival.median, "ours / rival", Bar("ratio", "≤", most), note, "s")


def not_measured(name: str, bar: Bar | None, reason: str, unit: str = "s") -> Row:
    """Return a row that says why there is no figure."""
    return Row(name, None, unit, bar=bar, note=f"not measured: {reason}")


def _compared(
    name: str, ours: Times, rival: Times, ratio: float, ratio_is: str, bar: Bar | None, note: str, unit: str
) -> Row:
    spread = {"ours": ours.ends, "rival": rival.ends}
    return Row(
        name, ours.median, unit, rival.median, ratio, ratio_is, bar, len(ours.seconds), note, spread
    )  # fmt: skip
