"""Which values a parameter may take, as the end of its help declares them. Standard library only.

The help of a parameter ends in ``in DOMAIN`` where its type says too little:

- ``in [1, 1000]``: numbers from 1 to 1000; a round bracket leaves its end out, as in ``in (0, 1]``;
- ``in {official, quantile}``: one of these words or numbers;
- ``in NAMES``, ``in STAGES``, ``in FOLDERS`` or ``in TIMES``: text of that form, see ``FORMS``.

For a list it is the domain of each item, and the number of items stands before it: ``1 to 4 in {ids, content}``.
Texts stand in a list at most once; numbers may repeat.
"""

import datetime
import difflib
import re
import reprlib
from dataclasses import dataclass
from typing import Any

_DECLARATION = re.compile(
    r"(?<!\S)(?:(?P<least>\d+) to (?P<most>\d+) )?in "
    r"(?P<domain>[\[(][^,\[\](){}]+,[^,\[\](){}]+[\])]|\{[^{}]*\}|[A-Z]+)$"
)
FORMS = {
    "NAMES": (r"[a-z][a-z0-9_]*", "a name as mf_ids"),
    "STAGES": (r"[0-9]{2}_[a-z0-9_]+", "a stage as 01_preprocess"),
    "FOLDERS": (
        r"\w[\w .-]*(/\w[\w .-]*)*/?",
        "a folder below the project's as data/sample; link there what lies elsewhere",
    ),
    "TIMES": (r"([0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?)?)?", "a time as 2023-05-30T12:00:00"),
}
"""Forms of text: the regular expression that matches it as a whole, and how messages call it. No text is no time, and
may stand for one."""
_LONGEST = 80


@dataclass(frozen=True)
class Domain:
    """The values that a parameter may take.

    Attributes:
        text: the declaration, as in ``[1, 1000]``.
        least: items of a list at least, 0 for other types.
        most: items of a list at most, 0 for other types.
    """

    text: str
    least: int = 0
    most: int = 0

    @property
    def choices(self) -> list[str]:
        """The words or numbers of a set, none for another form."""
        return [word.strip() for word in self.text[1:-1].split(",")] if self.text.startswith("{") else []

    @property
    def limits(self) -> tuple[float, float] | None:
        """The ends of an interval, ``None`` for another form."""
        if self.text[0] not in "[(":
            return None
        low, high = self.text[1:-1].split(",")
        return float(low), float(high)

    def holds(self, value: Any) -> bool:
        """Say whether a value, or an item of a list, lies in the domain."""
        if self.limits is not None:
            low, high = self.limits
            above = value > low or (value == low and self.text[0] == "[")
            return above and (value < high or (value == high and self.text[-1] == "]"))
        if self.choices:
            return str(value) in self.choices
        return re.fullmatch(FORMS[self.text][0], value) is not None and (self.text != "TIMES" or _is_time(value))

    def fault(self, name: str, value: Any) -> str:
        """Return what is wrong with a value and how to mend it, as ``name must …``; empty where nothing is."""
        if isinstance(value, list):
            return self._fault_of_list(name, value)
        if self.holds(value):
            return ""
        if self.choices:
            near = difflib.get_close_matches(str(value), self.choices, 1)
            hint = f"; did you mean '{near[0]}'?" if near else "."
            return f"{name} must be one of {', '.join(self.choices)}; it is {shown(value)}{hint}"
        wanted = f"lie in {self.text}" if self.limits is not None else f"be {FORMS[self.text][1]}"
        return f"{name} must {wanted}; it is {shown(value)}."

    def _fault_of_list(self, name: str, items: list[Any]) -> str:
        if not self.least <= len(items) <= self.most:
            return f"{name} must hold {self.least} to {self.most} items of {self.text}; it holds {len(items)}."
        faults = (self.fault(f"{name}[{place}]", item) for place, item in enumerate(items))
        if fault := next((fault for fault in faults if fault), ""):
            return fault
        twice = [item for place, item in enumerate(items) if isinstance(item, str) and item in items[:place]]
        return f"{name} holds {shown(twice[0])} twice; name each once." if twice else ""


def read_domain(help_text: str, kind: str) -> Domain | None:
    """Return the domain that the help of a parameter declares, ``None`` where it declares none.

    Args:
        help_text: the comment of the parameter.
        kind: its type, as in ``list[int]``.

    Raises:
        ValueError: the declaration does not go with the type, or holds nothing.

    Examples:
        >>> read_domain("slates a batch, in [1, 4096]", "int").holds(0)
        False
        >>> read_domain("tiers to train, 1 to 4 in {ids, content}", "list[str]").fault("tiers", ["id"])
        "tiers[0] must be one of ids, content; it is 'id'; did you mean 'ids'?"
    """
    found = _DECLARATION.search(help_text)
    if found is None:
        return None
    text, counted = found["domain"], found["least"] is not None
    item = kind.removeprefix("list[").removesuffix("]")
    if counted != kind.startswith("list["):
        raise ValueError(f"'{text}' needs `N to M` before it for a list, and only for a list")
    domain = Domain(text, int(found["least"] or 0), int(found["most"] or 0))
    if domain.least > domain.most:
        raise ValueError(f"'{domain.least} to {domain.most}' holds nothing")
    if text[0] in "[(" and item not in ("int", "float"):
        raise ValueError(f"'{text}' is for numbers")
    if text[0].isupper() and (text not in FORMS or item != "str"):
        raise ValueError(f"'{text}' is none of {', '.join(FORMS)}, which are for text")
    if domain.limits is not None and not domain.limits[0] < domain.limits[1]:
        raise ValueError(f"'{text}' holds nothing")
    return domain


class _Shown(reprlib.Repr):
    """Short forms of any value: cut where long or deep, with all that is not ASCII escaped."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxother = 3, 8, _LONGEST

    def repr_str(self, x: str, level: int) -> str:
        return ascii(x) if len(x) <= _LONGEST else f"{x[:_LONGEST]!a} and {len(x) - _LONGEST} characters more"

    def repr_int(self, x: int, level: int) -> str:
        # Python writes no number of more than 4,300 digits.
        return str(x) if x.bit_length() < 200 else f"a number of {x.bit_length()} bits"


def shown(value: Any) -> str:
    r"""Return a value as messages show it: look-alike and control characters escaped, cut where it is long.

    >>> print(shown("\u0435pochs"))
    '\u0435pochs'
    """
    return _Shown().repr(value)


def _is_time(text: str) -> bool:
    """Say whether a text of a time's form is a day and an hour that there are, or no text."""
    try:
        return text == "" or datetime.datetime.fromisoformat(text) is not None
    except ValueError:
        return False
