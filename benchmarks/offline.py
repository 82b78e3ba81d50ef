"""What an HTML page would fetch from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path

_FETCHED = {
    "src", "srcset", "poster", "data", "background", "action", "formaction",
}  # fmt: skip
_REMOTE = re.compile(r"\s*(?:\w+:)?//")
_IN_STYLES = re.compile(r"""(?:url\(|@import)\s*['"]?((?:\w+:)?//[^'")\s]*)""")


def fetched(page: str) -> list[str]:
    """Return the addresses of other hosts that a page loads; links that a reader may follow do not count."""
    finder = _Finder()
    finder.feed(page)
    return finder.found + _IN_STYLES.findall(page)


def pages(folder: Path) -> list[Path]:
    """Return the HTML files of the outputs of a profile: its index and its reports."""
    return [file for file in (folder / "index.html", *sorted((folder / "reports").glob("*.html"))) if file.exists()]


class _Finder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        loads = _FETCHED | ({"href", "xlink:href"} if tag != "a" else set())
        self.found += [value for name, value in attrs if name in loads and value and _REMOTE.match(value)]
