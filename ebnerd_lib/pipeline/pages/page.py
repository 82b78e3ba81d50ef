"""Pages that open offline: templates filled, texts made plain, files written whole and only when they changed.

The head of a page holds a sum over all that it shows, so whether it is up to date is told by the standard library
alone; Jinja is imported when there is something to fill.
"""

import datetime
import hashlib
import json
import re
import site
import sys
from pathlib import Path
from typing import Any

from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline.paths import write_whole

TIERS = {
    "ids": "the identities of readers and articles, as far as training saw them",
    "content": "also what was published before t, the reader's own history and the request",
    "exposure": "also what was in view before t",
    "clicks": "also what was clicked before t",
}
"""What a scorer of each tier may know when it scores an impression at time t; each adds to the one before."""


def fill(template: str, **context: Any) -> str:
    """Return a template of ``templates/`` filled; its filters write times, durations, figures and parameters."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(paths.ROOT / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(moment=_moment, duration=_duration, memory=_memory)
    environment.filters.update(figure=_figure, value=_value, amount=_amount)
    return environment.get_template(template).render(**context)


def _moment(stamp: str | None) -> str:
    """Write a time of ISO format in UTC, to the minute; times without a zone are UTC.

    >>> _moment("2025-01-02T04:05:06+01:00")
    '2025-01-02 03:05 UTC'
    """
    try:
        moment = datetime.datetime.fromisoformat(stamp or "")
    except ValueError:
        return "–"
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _duration(seconds: float | None) -> str:
    """Write a duration to about three digits.

    >>> _duration(4.21), _duration(83.4), _duration(7384)
    ('4.2 s', '1 min 23 s', '2 h 03 min')
    """
    if seconds is None or not is_number(seconds):
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _memory(megabytes: float | None) -> str:
    """Write an amount of memory.

    >>> _memory(512.3), _memory(1843.2)
    ('512 MB', '1.8 GB')
    """
    if not megabytes:
        return "–"
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1024:.1f} GB"


def _figure(value: Any, digits: int) -> str:
    return f"{value:,.{digits}f}" if is_number(value) else "–"


def _amount(value: Any) -> str:
    """Write a headline figure: counts in full, shares and the like to three digits, texts as they are.

    >>> _amount(25356), _amount(0.78761), _amount("mlp")
    ('25,356', '0.788', 'mlp')
    """
    if not is_number(value):
        return plain(str(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _value(value: Any) -> str:
    """Write a parameter's value as a parameter file does."""
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def machinery(*modules: Path) -> str:
    """Return one sum over all that renders: the modules that do, by their files, this one, and the templates."""
    total = hashlib.sha256()
    for module in (Path(__file__), *modules):
        total.update(module.read_bytes())
    templates = paths.ROOT / "templates"
    for file in sorted(path for path in templates.rglob("*") if path.is_file()):
        total.update(file.relative_to(templates).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()


def page_key(*parts: Any) -> str:
    """Return a sum over what a page shows."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
        total.update(b"\0")
    return total.hexdigest()


def is_rendered(target: Path, key: str) -> bool:
    """Say whether a page is there and was written with this key."""
    try:
        with target.open("rb") as stream:
            return f"<!-- render {key} -->".encode() in stream.read(300)
    except OSError:
        return False


def write_page(target: Path, page: str, key: str) -> None:
    """Write a page, the key in its head; it is whole whenever it can be seen."""
    head, body = page.split("\n", 1)
    write_whole(target, f"{head}<!-- render {key} -->\n{body}")


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_OVERWRITTEN = re.compile(r"^[^\n]*\r(?=[^\r\n])", re.MULTILINE)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]|\r(?!\n)")
_PREFIXES = [
    (re.compile(r"[^\s\"'`<>(=,]*/ipykernel_\d+/\d+\.py"), "(cell)"),
    (re.compile(r"[^\s\"'`<>(=,]*/(?:site|dist)-packages/"), "…/"),
    (re.compile(r"[^\s\"'`<>(=,]*/lib/python3\.\d+/"), "…/"),
]
_HOMES = re.compile(r"(?<![\w.~-])/(?:home|Users)/[^/\s\"'`<>:]+")


def printable(text: str) -> str:
    r"""Drop what would command a terminal: its escapes, other control characters, lines that were written over.

    >>> printable("\x1b[31mred\x1b[0m\a 10 %\r100 %")
    '100 %'
    """
    return _CONTROLS.sub("", _OVERWRITTEN.sub("", _ESCAPES.sub("", text)))


def plain(text: str) -> str:
    r"""Drop terminal escapes, lines that were written over, and the prefixes of local paths.

    >>> plain("\x1b[31mred\x1b[0m, " + str(paths.ROOT / "ebnerd_lib" / "errors.py") + ", /home/ann/x")
    'red, ebnerd_lib/errors.py, ~/x'
    """
    text = printable(text)
    for pattern, short in _PREFIXES:
        text = pattern.sub(short, text)
    for prefix, short in _local_prefixes():
        text = re.sub(rf"(?<![\w.~-]){re.escape(prefix)}(?:(?=[^\w.-])|$)/?", short, text)
    return _HOMES.sub("~", text)


def _local_prefixes() -> list[tuple[str, str]]:
    """Return folders whose paths are no reader's business, longest first, each with what to write instead."""
    root, home = str(paths.ROOT), str(Path.home())
    pairs = {root: "", home: "~/", sys.prefix: "…/", sys.base_prefix: "…/", site.getuserbase(): "…/"}
    pairs[root] = ""
    if root.startswith(home + "/"):
        pairs["~" + root.removeprefix(home)] = ""
    return [(prefix, pairs[prefix]) for prefix in sorted(pairs, key=len, reverse=True) if len(prefix) > 1]


def is_number(value: Any) -> bool:
    """Say whether a value read from JSON is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
