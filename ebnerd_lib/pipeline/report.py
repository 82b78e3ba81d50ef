"""Pages that open offline: a report a stage, an index a profile, and an index over all profiles.

A report is made in two steps: nbconvert and `Body` turn the cells of a notebook into safe HTML, and
``templates/stage.html.j2`` puts a summary before them. The head of a page holds a checksum over all that it shows, so
the standard library tells whether a page is up to date; what renders is imported when there is work.
"""

import base64
import contextlib
import csv
import hashlib
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ebnerd_lib.data.layout import size_in_words
from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline import runs as known
from ebnerd_lib.pipeline.history import last_runs
from ebnerd_lib.pipeline.paths import StagePaths, read_json, write_whole
from ebnerd_lib.pipeline.runs import Run, is_number, plain, read_runs
from ebnerd_lib.pipeline.stale import sha256

# nbformat, and so papermill, loads all checks of jsonschema, of which that of international addresses compiles a
# grammar for more than a second, in each process. No notebook needs it, and jsonschema does without.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def render_profile(profile: str, reports: bool = True) -> int:
    """Render what is missing or out of date: a profile's reports, which take seconds, its index and the index over all.

    Nothing is written for a profile without outputs. Returns how many reports were rendered.
    """
    runs = read_runs(profile)
    origin = known.origin(runs)
    of_runs = [[run.stage, run.page, run.state, run.message, run.metrics.get("vs_baseline")] for run in runs]
    facts = [_renderer(), origin, of_runs]
    rendered = 0
    for run in runs if reports else ():
        for notebook, report, failed in run.sources:
            key = _key(facts, run.manifest, run.metrics, sha256(notebook))
            told = partial(_stage_page, run, runs, origin, notebook, failed)
            rendered += render(report, key, "stage.html.j2", told)
    index = StagePaths(profile, "").outputs / "index.html"
    more = {"profile": profile, "history": last_runs(profile), "comparisons": comparisons(profile), **origin}
    key = _key(facts, [[run.manifest, run.metrics, run.changes] for run in runs], more)
    shown = {"runs": runs, "scorers": known.scorers(runs), "summary": _summary(runs), **more}
    is_same = index.parent.is_dir() and not render(index, key, "index.html.j2", lambda: shown)
    if rendered or not is_same or not overview_file().exists():
        _render_overview()
    return rendered


def render_all() -> list[str]:
    """Render the pages of every profile that has outputs and the index over all; return a line a profile."""
    rendered = {profile: render_profile(profile) for profile in _profiles()}
    _render_overview()
    return [f"{name}: {number} reports rendered, index outputs/{name}/index.html" for name, number in rendered.items()]


def overview_file() -> Path:
    """Return the path of the index over all profiles."""
    return paths.ROOT / "outputs" / "index.html"


def _render_overview() -> None:
    """Render the index over all profiles that have outputs."""
    from ebnerd_lib.features.registry import TIER_MEANINGS

    rows = []
    for profile in _profiles():
        runs = read_runs(profile)
        rows.append({"profile": profile, **_summary(runs), **known.origin(runs)})
    shown = {"rows": rows, "comparisons": comparisons(), "tiers": TIER_MEANINGS}
    if overview_file().parent.is_dir():
        render(overview_file(), _key(_renderer(), shown), "index.html.j2", lambda: shown)


def comparisons(profile: str = "") -> list[dict[str, Any]]:
    """Return the pages that ``compare`` wrote, of those with runs of a profile if it is given; the latest one first."""
    found = []
    for file in (overview_file().parent / "compare").glob("*.json"):
        told = read_json(file) or {}
        if any(run.startswith(f"{profile}/" if profile else "") for run in told.get("runs", [])):
            found.append({"page": f"compare/{file.stem}.html", "runs": told["runs"], "written": told["written"]})
    return sorted(found, key=lambda each: each["written"], reverse=True)


def _profiles() -> list[str]:
    """Return the profiles that have outputs."""
    return [profile for profile in paths.profiles() if StagePaths(profile, "").outputs.is_dir()]


# --- what the templates are given --------------------------------------------------------------------------


def _stage_page(run: Run, runs: list[Run], origin: dict[str, Any], notebook: Path, failed: bool) -> dict[str, Any]:
    executed = _read_plain(notebook)
    pages = {other.stage: other.page for other in reversed(runs) if other.page}
    notebooks = {stage.partition(".")[0]: page for stage, page in pages.items()}  # of a variant where there is no other
    body = Body(_cells_html(executed), {**notebooks, **pages}, run.stage)
    noted = executed.metadata.get("papermill", {})
    earlier = not failed and (
        run.by_hand or run.state == "failed" or (bool(run.manifest) and not run.paths.is_reported)
    )
    record, metrics = run.manifest, run.metrics
    if failed or earlier or not record:  # the artifacts may be of another run than the notebook
        record, metrics = {"started": noted.get("start_time"), "duration_seconds": noted.get("duration")}, {}
    parameters = record.get("parameters", noted.get("parameters", {}))
    files = [notebook, *([run.paths.artifacts / "metrics.json", run.paths.manifest] if metrics else [])]
    scorers = known.own_scorers(run, runs) if metrics else []
    place = runs.index(run)
    return {
        "run": run,
        "body": body,
        "title": " · ".join([body.title or run.stage, *filter(None, [run.stage.partition(".")[2]])]),
        "record": record,
        "tier": parameters.get("tier"),
        "generated": record.get("generated", origin["generated"]),
        "bundle": parameters.get("bundle", origin["bundle"]),
        "state": "failed" if failed else "complete" if earlier else run.state,
        "message": run.failure if failed else run.message,
        "earlier": earlier,
        "complete_page": run.paths.report.name if failed and run.paths.executed.exists() else "",
        "scorers": scorers,
        "compared": pages.get("05_compare") if run.stage != "05_compare" else None,
        "headline": metrics.get("headline", []),
        "answer": metrics.get("answer"),
        "files": {file.name: os.path.relpath(file, run.paths.report.parent) for file in files},
        "before": next((other for other in reversed(runs[:place]) if other.page), None),
        "after": next((other for other in runs[place + 1 :] if other.page), None),
    }


def _summary(runs: list[Run]) -> dict[str, Any]:
    """Return what is to be said of a profile and its scorers in a line or two."""
    runs = [run for run in runs if run.belongs]
    told = {run.stage: run for run in runs if run.metrics.get("answer") and run.state != "failed"}
    seconds = [run.manifest["duration_seconds"] for run in runs if is_number(run.manifest.get("duration_seconds"))]
    answering = [stage for stage in ("05_compare", "04_recommend") if stage in told]  # for the profile
    parts = {part["part"]: part for run in runs for part in run.metrics.get("parts", [])}
    order = ("failed", "out of date", "not run", "complete")
    return {
        "state": min((run.state for run in runs), key=order.index, default="not run"),
        "complete": sum(run.state == "complete" for run in runs),
        "stages": len(runs),
        "troubles": [(run.stage, run.state, run.message) for run in runs if run.message],
        "answers": [(stage, told[stage].metrics["answer"]) for stage in answering],
        "validation": parts.get("validation", {}),
        "model": next((scorer for scorer in known.scorers(runs) if scorer["kind"] == "model"), None),
        "seconds": sum(seconds) if seconds else None,
        "started": max((run.manifest["started"] for run in runs if run.manifest.get("started")), default=None),
    }


def _scale(scorers: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the ends of a scale of AUCs that holds every interval and the random level."""
    ends = [0.5, *(end for scorer in scorers for end in (scorer.get("auc_ci") or [scorer["auc"]]))]
    margin = max(0.05 * (max(ends) - min(ends)), 0.005)
    return min(ends) - margin, max(ends) + margin


# --- templates and files -----------------------------------------------------------------------------------


def _duration(seconds: Any) -> str:
    """Write a duration to about three digits.

    >>> _duration(4.21), _duration(83.4), _duration(7384), _duration(None)
    ('4.2 s', '1 min 23 s', '2 h 03 min', '–')
    """
    if not is_number(seconds):
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _number(value: Any, digits: int) -> str:
    """Write a number with so many digits; whole numbers in full.

    >>> _number(25356, 3), _number(0.78761, 3), _number(None, 3)
    ('25,356', '0.788', '–')
    """
    if not is_number(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


_FILTERS = {
    "base64": _base64,
    "scale": _scale,
    "size": size_in_words,
    "duration": _duration,
    "number": _number,
    "ends": lambda interval: f"[{interval[0]:,.4f}, {interval[1]:,.4f}]" if interval else "–",
    "moment": lambda stamp: f"{stamp[:10]} {stamp[11:16]} UTC" if stamp else "–",  # ISO format, all in UTC
    "memory": lambda megabytes: f"{megabytes / 1024:.1f} GB" if megabytes else "–",
    "value": lambda value: plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)),
}


def _key(*parts: Any) -> str:
    """Return a checksum over what makes a page and what it shows."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _renderer() -> list[str]:
    """Return checksums of the modules and the templates that make pages."""
    templates = sorted(path for path in (paths.ROOT / "templates").rglob("*") if path.is_file())
    return [sha256(file) for file in (Path(__file__), Path(known.__file__), *templates)]


def render(target: Path, key: str, template: str, context: Callable[[], dict[str, Any]]) -> bool:
    """Write a page with its key in the head unless it is up to date; return whether it was written."""
    with contextlib.suppress(OSError), target.open("rb") as stream:
        if f"<!-- render {key} -->".encode() in stream.read(300):
            return False
    import jinja2

    loader = jinja2.FileSystemLoader(paths.ROOT / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(_FILTERS)
    head, body = environment.get_template(template).render(**context()).split("\n", 1)
    write_whole(target, f"{head}<!-- render {key} -->\n{body}")
    return True


# --- the cells of a notebook -------------------------------------------------------------------------------

_DISPLAYED = ["image/svg+xml", "image/png", "image/jpeg", "text/html", "text/markdown", "text/plain"]
_TAGS = {
    "a", "b", "blockquote", "br", "caption", "code", "col", "colgroup", "dd", "del", "details", "div", "dl", "dt", "em",
    "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "ol", "p", "picture",
    "pre", "s", "section", "small", "source", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td",
    "tfoot", "th", "thead", "tr", "u", "ul",
}  # fmt: skip
"""The elements that cells may have; of all others only the text is kept."""
_ATTRIBUTES = {
    "alt", "class", "colspan", "lang", "media", "open", "role", "rowspan", "scope", "start", "tabindex",
    "title",
}  # fmt: skip
_NUMBER = r"[-−+]?\d[\d,]*(?:\.\d*)?(?:e[-+]?\d+)?(?:\s*%)?"
_NUMBERS = re.compile(rf"({_NUMBER}(?:\s*(?:±|to|–)\s*{_NUMBER})?)?\s*(\[{_NUMBER}, {_NUMBER}\])?", re.IGNORECASE)
"""A number or two with a sign between them, an interval, or both."""
_NOTHING = {"", "–", "-", "nan", "NaN", "None", "<NA>", "NaT"}
_NOT_TEXT = re.compile(r"<(script|style)\b.*?(</\1\s*>|$)", re.DOTALL | re.IGNORECASE)


def make_plain(notebook: Path) -> None:
    """Strip colours and local paths from the outputs of a notebook; one that cannot be read or written stays."""
    import nbformat

    with contextlib.suppress(OSError, ValueError):
        write_whole(notebook, nbformat.writes(_read_plain(notebook)) + "\n")


def _read_plain(notebook: Path) -> Any:
    import nbformat

    executed = nbformat.read(notebook, as_version=4)
    for output in (output for cell in executed.cells for output in cell.get("outputs", [])):
        shown = output.get("data", output)
        for name, value in shown.items():
            if name in ("text", "ename", "evalue") or (name.startswith("text/") and isinstance(value, str)):
                shown[name] = plain(value)
            elif name == "traceback":
                shown[name] = [plain(line) for line in value]
    return executed


def _cells_html(executed: Any) -> str:
    """Return the cells of an executed notebook as HTML, not yet safe."""
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor
    from traitlets.config import Config

    executed.cells = [one for one in executed.cells if "papermill-error-cell-tag" not in one.metadata.get("tags", [])]
    exporter = HTMLExporter(
        config=Config({"NbConvertBase": {"display_data_priority": _DISPLAYED}}),
        extra_template_basedirs=[str(paths.ROOT / "templates")],
        template_name="cells",
        exclude_anchor_links=True,
        preprocessors=[CoalesceStreamsPreprocessor(enabled=True)],
        filters={"preview": _preview},
    )
    exporter.log.setLevel("ERROR")
    return str(exporter.from_notebook_node(executed)[0])


def _preview(source: str) -> str:
    r"""Return the line that stands for a folded cell: the first that is neither comment nor import.

    >>> _preview("import numpy as np\n\n# plot\nshow(table)")
    'show(table)'
    """
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    telling = (line for line in lines if not line.startswith(("#", "import ", "from ")))
    return next(telling, lines[0] if lines else "")


def _is_allowed(tag: str, name: str, value: str) -> bool:
    if name in ("src", "srcset"):
        return tag == {"src": "img", "srcset": "source"}[name] and value.startswith("data:image/")
    return name in _ATTRIBUTES or (tag, name) in (("a", "href"), ("section", "id"))


class Body:
    """The cells of a report, with none but the allowed elements, attributes and addresses.

    Links between notebooks lead to their reports, all others are written out; tables and figures are numbered.

    Attributes:
        title: the notebook's first heading, which is taken out; empty if it has none.
        question: the paragraph that begins with **Question.**, which is taken out; empty if there is none.
        contents: ``(anchor, text)`` of its other headings, down to the third level.
        html: the cells.
    """

    def __init__(self, cells: str, pages: dict[str, str], stage: str = "report") -> None:
        import bleach
        from bs4 import BeautifulSoup

        cleaner = bleach.Cleaner(tags=_TAGS, attributes=_is_allowed, protocols={"data", "http", "https"}, strip=True)
        cleaner.serializer.use_best_quote_char = False  # bleach escapes twice between single quotes
        self._soup: Any = BeautifulSoup(cleaner.clean(_NOT_TEXT.sub("", cells)), "html.parser")
        for image in self._soup.find_all("img", src=False):
            image.replace_with(str(image.get("alt", "")))
        self._lead_links(pages)
        self.title = self._take(".markdown h1")
        question = self._take('.markdown > p:has(> strong:first-child:-soup-contains("Question."))')
        self.question = question.removeprefix("Question.").strip()
        self.contents = self._anchor_headings()
        for number, table in enumerate(self._soup.find_all("table"), 1):
            self._frame(table, number, stage)
        for number, picture in enumerate(self._soup.select("figure.picture"), 1):
            # The description of a picture stands below it too; those who hear it need not hear it twice.
            caption = f"Figure {number}. {picture.img.get('alt', '') if picture.img else ''}"
            picture.append(self._soup.new_tag("figcaption", attrs={"aria-hidden": "true"}, string=caption))
        self._arrange_folds()
        self.html = str(self._soup)

    def _take(self, selector: str) -> str:
        """Take the first such element out and return its text; empty if there is none."""
        found = self._soup.select_one(selector)
        return found.extract().get_text().strip() if found else ""

    def _arrange_folds(self) -> None:
        """Name folded tables, and put long texts under the picture of what they say that begins the next cell."""
        for summary in self._soup.select("details.fold > summary"):
            if framed := summary.parent.select_one(".scroll"):
                summary.string = framed["aria-label"]
        for folded in self._soup.select("section details.fold:has(> pre)"):
            after = folded.find_parent("section").find_next_sibling("section")
            if after and (picture := after.select_one(".output:first-of-type > figure.picture")):
                picture.insert_after(folded)

    def _lead_links(self, pages: dict[str, str]) -> None:
        for link in self._soup.find_all("a"):
            target = urlsplit(str(link.get("href", "")))
            stage = Path(target.path).stem if target.path.endswith(".ipynb") else None
            if stage in pages:
                link["href"] = pages[stage] + (f"#{target.fragment}" if target.fragment else "")
                continue
            if target.scheme in ("http", "https"):
                address = f"{target.netloc}{target.path}".rstrip("/")
                same = link.get_text().split("://")[-1].rstrip("/") == address
                link.string = address if same else f"{link.get_text()} ({address})"
            if target.scheme or target.netloc or target.path:
                link.unwrap()

    def _anchor_headings(self) -> list[tuple[str, str]]:
        """Give every heading the anchor that Jupyter gives it, numbered where it occurs again."""
        contents, seen = [], Counter(["top", "failed-cell", "parameters"])
        for heading in self._soup.select(".markdown :is(h1, h2, h3, h4)"):
            text = heading.get_text().strip()
            wanted = re.sub(r"\s+", "-", text) or "section"
            seen[wanted] += 1
            heading["id"] = anchor = wanted if seen[wanted] == 1 else f"{wanted}-{seen[wanted]}"
            if heading.name != "h4":
                contents.append((quote(anchor), text))
        return contents

    def _frame(self, table: Any, number: int, stage: str) -> None:
        """Align the numbers of a table and put it in a box that scrolls by itself, its caption and a CSV above it."""
        address = f"data:text/csv;base64,{_base64(_csv(table))}"
        self._align(table)
        caption = table.find("caption")
        text = caption.get_text().strip() if caption else ""
        label = f"Table {number}. {text}" if text else f"Table {number}"
        figure = table.wrap(self._soup.new_tag("figure", attrs={"class": "table"}))
        box = {"class": "scroll", "tabindex": "0", "role": "region", "aria-label": label}
        if text == "Effective parameters":
            box["id"] = "parameters"  # to which the indexes link
        table.wrap(self._soup.new_tag("div", attrs=box))
        if text:
            caption.name = "figcaption"
            caption.insert(0, f"Table {number}. ")
            named = {"href": address, "download": f"{stage}_table_{number}.csv", "aria-label": f"Table {number} as CSV"}
            caption.append(self._soup.new_tag("a", attrs=named, string="CSV"))
            figure.insert(0, caption.extract())

    def _align(self, table: Any) -> None:
        """Mark columns of numbers, and put an interval below its number."""
        rows = [row.find_all(["td", "th"], recursive=False) for row in table.find_all("tr")]
        for column in zip(*rows, strict=False):
            texts = {cell.get_text().strip() for cell in column if cell.find_parent("tbody")} - _NOTHING
            if not texts or not all(map(_NUMBERS.fullmatch, texts)):
                continue
            for cell in column:
                cell["data-number"] = ""
                both = _NUMBERS.fullmatch(cell.get_text().strip())
                if both and both[1] and both[2]:
                    cell.string = f"{both[1]} "
                    cell.append(self._soup.new_tag("small", string=both[2]))


def _csv(table: Any) -> str:
    """Return the cells of a table as text, one row a line."""
    stream = io.StringIO()
    rows = ([cell.get_text().strip() for cell in row.find_all(["th", "td"])] for row in table.find_all("tr"))
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
