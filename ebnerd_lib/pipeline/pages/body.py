"""The cells of an executed notebook as HTML that is safe to pass on.

nbconvert turns the cells into HTML with ``templates/report``; `Body` takes out what would run or load, leads links
between notebooks to their reports, finds the headings, and numbers and captions tables and figures.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline.pages.page import plain

_DISPLAYED = ["image/svg+xml", "image/png", "image/jpeg", "text/html", "text/markdown", "text/plain"]
_PAPERMILL_NOTE = "papermill-error-cell-tag"


def cells(executed: Any) -> str:
    """Return the cells of an executed notebook as HTML, every text of it plain."""
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor
    from traitlets.config import Config

    executed.cells = [cell for cell in executed.cells if _PAPERMILL_NOTE not in cell.metadata.get("tags", [])]
    _make_plain(executed)
    exporter = HTMLExporter(
        config=Config({"NbConvertBase": {"display_data_priority": _DISPLAYED}}),
        extra_template_basedirs=[str(paths.ROOT / "templates")],
        template_name="report",
        exclude_anchor_links=True,
    )
    exporter.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)
    exporter.register_filter("preview", _preview)
    exporter.log.setLevel("ERROR")
    html, _ = exporter.from_notebook_node(executed)
    return str(html)


def _preview(source: str) -> str:
    r"""Return the line that stands for a folded cell: the first that is neither comment nor import.

    >>> _preview("import numpy as np\n\n# figures\nshow(table)")
    'show(table)'
    """
    lines = [line for line in source.splitlines() if line.strip()]
    telling = (line for line in lines if not line.lstrip().startswith(("#", "import ", "from ")))
    return next(telling, lines[0] if lines else "").strip()


def make_plain(notebook: Path) -> None:
    """Rid the outputs of an executed notebook of colours and of paths that only mean something on one machine.

    A notebook that cannot be read or written anew stays as it is.
    """
    import nbformat

    temporary = notebook.with_name(f".{notebook.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError, ValueError):
        try:
            executed = nbformat.read(notebook, as_version=4)
            _make_plain(executed)
            nbformat.write(executed, temporary)
            temporary.replace(notebook)
        finally:
            temporary.unlink(missing_ok=True)


def _make_plain(executed: Any) -> None:
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            _make_output_plain(output)


def _make_output_plain(output: Any) -> None:
    if output.output_type == "stream":
        output.text = plain(output.text)
    elif output.output_type == "error":
        output.traceback = [plain(line) for line in output.traceback]
        output.ename, output.evalue = plain(output.ename), plain(output.evalue)
    else:
        for kind in output.data:
            if kind.startswith("text/") and isinstance(output.data[kind], str):
                output.data[kind] = plain(output.data[kind])


_ACTIVE = (
    "script", "iframe", "frame", "object", "embed", "applet", "link", "meta", "base", "form", "animate", "set",
)  # fmt: skip
_ADDRESSES = {
    "src", "srcset", "href", "xlink:href", "poster", "background", "data", "action", "formaction", "ping", "srcdoc",
}  # fmt: skip
_LOADS = re.compile(r"url\s*\(|@import|image-set|expression\s*\(", re.IGNORECASE)


def _acts(tag: str, attribute: str, value: str) -> bool:
    """Say whether an attribute runs code or leads elsewhere; sources of pictures and links are seen to apart."""
    if attribute.lower() == "style":
        return bool(_LOADS.search(value))
    allowed = (tag, attribute) in (("a", "href"), ("img", "src"))
    return attribute.lower().startswith("on") or (attribute.lower() in _ADDRESSES and not allowed)


class Body:
    """The cells of a report made safe to pass on.

    Attributes:
        title: the notebook's first heading, which is taken out; empty if it has none.
        question: the paragraph that begins with **Question.**, which is taken out; empty if there is none.
        contents: ``(level, anchor, text)`` of its other headings.
        html: the cells.
    """

    def __init__(self, cells: str, pages: dict[str, str]) -> None:
        from bs4 import BeautifulSoup

        self._soup = BeautifulSoup(cells, "html.parser")
        self._pages = pages
        self._disarm()
        self._delink()
        self.title = self._take_title()
        self.question = self._take_question()
        self.contents = self._anchor_headings()
        for number, table in enumerate(self._soup.find_all("table"), 1):
            _align(table)
            self._frame(table, number)
        for number, picture in enumerate(self._soup.select("figure.picture"), 1):
            self._caption(picture, number)
        for output in self._soup.select("[data-fold]"):
            self._fold(output)
        self.html = str(self._soup)

    def _disarm(self) -> None:
        for element in self._soup(_ACTIVE):
            element.decompose()
        for element in self._soup.find_all(True):
            for name in [name for name in element.attrs if _acts(element.name, name, str(element[name]))]:
                del element[name]
        for style in [style for style in self._soup.find_all("style") if _LOADS.search(style.get_text())]:
            style.decompose()
        for image in self._soup.find_all("img"):
            if not str(image.get("src", "")).startswith("data:image/"):
                image.replace_with(str(image.get("alt", "")))

    def _delink(self) -> None:
        """Keep links inside the report, lead those to notebooks to their reports, write out all others."""
        for link in self._soup.find_all("a"):
            target = urlsplit(str(link.get("href", "")))
            stage = Path(target.path).stem if target.path.endswith(".ipynb") else None
            if stage in self._pages:
                link["href"] = self._pages[stage] + (f"#{target.fragment}" if target.fragment else "")
            elif target.scheme in ("http", "https"):
                address = f"{target.netloc}{target.path}".rstrip("/")
                if link.get_text().split("://")[-1].rstrip("/") == address:
                    link.string = address
                else:
                    link.append(f" ({address})")
                link.unwrap()
            elif target.scheme or target.netloc or target.path:
                link.unwrap()

    def _take_title(self) -> str:
        heading = self._soup.select_one(".markdown h1")
        if heading is None:
            return ""
        heading.extract()
        return heading.get_text().strip()

    def _take_question(self) -> str:
        for mark in self._soup.select(".markdown > p > strong:first-child"):
            if mark.get_text().strip() == "Question.":
                paragraph: Any = mark.parent
                return str(paragraph.extract().get_text()).strip().removeprefix("Question.").strip()
        return ""

    def _anchor_headings(self) -> list[tuple[int, str, str]]:
        """Give every heading the anchor that Jupyter gives it, numbered where it occurs again."""
        contents, seen = [], {"top", "failed-cell"}
        for heading in self._soup.select(".markdown :is(h1, h2, h3, h4)"):
            text = heading.get_text().strip()
            wanted = re.sub(r"\s+", "-", text) or "section"
            anchor, number = wanted, 2
            while anchor in seen:
                anchor, number = f"{wanted}-{number}", number + 1
            seen.add(anchor)
            heading["id"] = anchor
            if heading.name in ("h1", "h2", "h3"):
                contents.append((max(int(heading.name[1]), 2), quote(anchor), text))
        return contents

    def _frame(self, table: Any, number: int) -> None:
        """Put a table in a box that scrolls by itself, its caption with its number above the box."""
        box = self._soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0", "role": "region"})
        figure = table.wrap(self._soup.new_tag("figure", attrs={"class": "table"}))
        caption = table.find("caption")
        label = f"Table {number}"
        table.wrap(box)
        if caption and caption.get_text().strip():
            caption.name = "figcaption"
            figure.insert(0, caption.extract())
            label = f"{label}. {caption.get_text().strip()}"
            caption.insert(0, self._number("Table", number))
        box["aria-label"] = label

    def _caption(self, picture: Any, number: int) -> None:
        """Write the description of a picture below it too; those who hear it need not hear it twice."""
        caption = self._soup.new_tag("figcaption", attrs={"aria-hidden": "true"})
        caption.append(self._number("Figure", number))
        caption.append(str(picture.img.get("alt", "")) if picture.img else "")
        picture.append(caption)

    def _number(self, kind: str, number: int) -> Any:
        mark = self._soup.new_tag("span", attrs={"class": "number"})
        mark.string = f"{kind} {number}. "
        return mark

    def _fold(self, output: Any) -> None:
        """Fold what a cell tagged ``fold`` shows: it is long, and for those who look for it."""
        caption = output.find("figcaption")
        summary = self._soup.new_tag("summary")
        summary.string = caption.get_text().strip() if caption else "Output"
        if caption:
            caption.decompose()
        output.wrap(self._soup.new_tag("details", attrs={"class": "fold"})).insert(0, summary)
        del output["data-fold"]


_NUMBER = re.compile(r"[-−+]?\d[\d,]*(?:\.\d*)?(?:e[-+]?\d+)?\s*%?(?:\s*(?:±|to|–)\s*[\d.,]+)?", re.IGNORECASE)
_INTERVAL = re.compile(r"(?:[-−+]?\d[\d,.]*\s+)?[\[(]\s*[-−+]?[\d.]+\s*(?:,|to|–)\s*[-−+]?[\d.]+\s*[\])]")
_NOTHING = {"", "–", "-", "nan", "NaN", "None", "<NA>", "NaT"}


def _align(table: Any) -> None:
    """Mark the columns that hold numbers; counted from the right, since spans leave cells out on the left."""
    rows = [row.find_all(["td", "th"], recursive=False) for row in table.select("tbody tr")]
    width = max((len(row) for row in rows), default=0)
    columns = {place: [row[-place] for row in rows if place <= len(row)] for place in range(1, width + 1)}
    numeric = [place for place, cells in columns.items() if _is_numeric(cells)]
    for row in table.find_all("tr"):
        cells = row.find_all(["td", "th"], recursive=False)
        if any(cell.get("colspan", "1") != "1" for cell in cells):
            continue
        for place in numeric:
            if place <= len(cells):
                cells[-place]["data-number"] = ""


def _is_numeric(cells: list[Any]) -> bool:
    texts = [cell.get_text().strip() for cell in cells]
    told = [text for text in texts if text not in _NOTHING]
    return bool(told) and all(_NUMBER.fullmatch(text) or _INTERVAL.fullmatch(text) for text in told)
