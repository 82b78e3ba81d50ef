"""What readers see of a profile: one HTML file a stage and an index, which open offline and load nothing.

Whether a file is up to date is told by the standard library alone; what renders is imported when there is
work. A page is three steps: nbconvert turns the cells into HTML with ``templates/report``, `Body` makes that
safe to pass on (no scripts, no addresses) and finds its headings, ``templates/report.html.j2`` adds the
record of the run.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from ebnerd_lib.data.layout import generated_stamp
from ebnerd_lib.errors import EbnerdError
from ebnerd_lib.pipeline import layout
from ebnerd_lib.pipeline.json_file import read_json
from ebnerd_lib.pipeline.layout import StagePaths
from ebnerd_lib.pipeline.page import TIERS, fill, is_number, is_rendered, machinery, page_key, plain, write_page

BY_HAND = ("interactive", "train")
"""The runs, as manifests name them, that are not the runner's: the next one of these runs the stage again."""
_DISPLAYED = ["image/svg+xml", "image/png", "image/jpeg", "text/html", "text/markdown", "text/plain"]
_PAPERMILL_NOTE = "papermill-error-cell-tag"
_SCALE = 128
"""Width of the interval bars in px."""


# --- what lies on disk -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    """What is known of a stage: record and figures of its artifacts, and why its last batch run failed."""

    paths: StagePaths
    manifest: dict[str, Any] | None
    metrics: dict[str, Any]
    failure: str | None

    @property
    def stage(self) -> str:
        return self.paths.stage

    @cached_property
    def page(self) -> str | None:
        """The file name of the stage's report, or ``None`` where no notebook was executed."""
        if self.paths.failed.exists():
            return self.paths.failed_report.name
        return self.paths.report.name if self.paths.executed.exists() else None

    @property
    def by_hand(self) -> bool:
        return self.manifest is not None and self.manifest.get("run") in BY_HAND

    def sources(self) -> Iterator[tuple[Path, Path, bool]]:
        """Yield executed notebook, its report and whether the run failed."""
        if self.paths.executed.exists():
            yield self.paths.executed, self.paths.report, False
        if self.paths.failed.exists():
            yield self.paths.failed, self.paths.failed_report, True


def _read_run(paths: StagePaths) -> _Run:
    failure = read_json(paths.failure)
    if failure is not None and paths.manifest.exists():
        manifest = read_json(paths.manifest) or {}
        if manifest.get("run") in BY_HAND and _is_newer(paths.manifest, paths.failure):
            failure = None
    message = None if failure is None else plain(str(failure.get("message", "")))
    metrics = read_json(paths.artifacts / "metrics.json") or {}
    return _Run(paths, read_json(paths.manifest), metrics, message)


def _is_newer(file: Path, other: Path) -> bool:
    return file.stat().st_mtime_ns > other.stat().st_mtime_ns


def _status(run: _Run, runs: list[_Run]) -> tuple[str, str]:
    """Return the state of a stage and what to know of it."""
    if run.failure is not None:
        return "failed", run.failure
    if run.manifest is None:
        return "not run", ""
    if run.by_hand:
        return "by hand", "Made by hand, in Jupyter or by `train`; `make run-all` runs this stage again."
    if not run.paths.executed.exists():
        return "out of date", "Its last batch run did not finish; what it left is from an earlier one."
    if changed := _changed_inputs(run, runs):
        return "out of date", f"{', '.join(changed)} ran again since; `make run-all` runs this stage again."
    return "complete", ""


def _changed_inputs(run: _Run, runs: list[_Run]) -> list[str]:
    """Return the stages whose artifacts are no longer those that a stage read."""
    inputs = (run.manifest or {}).get("inputs", {})
    changed = []
    for other in runs:
        folder = f"outputs/{other.paths.profile}/artifacts/{other.stage}/"
        written = (other.manifest or {}).get("outputs", {})
        read = {name.removeprefix(folder): value for name, value in inputs.items() if name.startswith(folder)}
        if any(written.get(name) != value for name, value in read.items()):
            changed.append(other.stage)
    return changed


def _origin(runs: list[_Run]) -> dict[str, Any]:
    """Return where the data of a profile come from: the stamp of generated ones, and the bundle's folder."""
    records = [run.manifest for run in runs if run.manifest]
    bundle = next((r["parameters"]["bundle"] for r in records if "bundle" in r.get("parameters", {})), None)
    for record in records:
        if isinstance(record.get("generated"), dict):
            return {"generated": record["generated"], "bundle": bundle}
    if records:
        return {"generated": None, "bundle": bundle}
    return _declared_origin(runs)


def _declared_origin(runs: list[_Run]) -> dict[str, Any]:
    """Return the origin that the parameter files declare, for a profile of which no stage is complete."""
    from ebnerd_lib.pipeline.config import load_config

    with contextlib.suppress(EbnerdError):
        for run in runs:
            if bundle := load_config(run.paths.profile, run.stage).parameters.get("bundle"):
                return {"generated": generated_stamp(layout.ROOT / bundle), "bundle": bundle}
    return {"generated": None, "bundle": None}


# --- figures of all scorers --------------------------------------------------------------------------------


def _scorers(runs: list[_Run]) -> list[dict[str, Any]]:
    """Return every scorer with its figures on validation, best AUC first; equal ones by name.

    Stages that failed are left out: what lies in their folder is from another run. A name that occurs in
    several stages counts once, where it comes first.
    """
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        state, _ = _status(run, runs)
        for kind in ("models", "baselines"):
            entries = run.metrics.get(kind)
            for name, entry in entries.items() if isinstance(entries, dict) else ():
                figures = entry.get("validation") if isinstance(entry, dict) else None
                if state != "failed" and name not in found and figures and is_number(figures.get("auc")):
                    found[name] = {
                        **figures,
                        "name": name,
                        "kind": kind.removesuffix("s"),
                        "tier": str(entry.get("tier", "")),
                        "stage": run.stage,
                        "page": run.page,
                        "note": "" if state == "complete" else state,
                        "interval": _interval(figures),
                    }
    return sorted(found.values(), key=lambda scorer: (-scorer["auc"], scorer["name"]))


def _interval(figures: dict[str, Any]) -> tuple[float, float] | None:
    interval = figures.get("auc_ci")
    if isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval)):
        return interval[0], interval[1]
    return None


def headline(profile: str, stages: list[str]) -> list[str]:
    """Return a table of every scorer as lines for the terminal, best AUC first; none if there are none."""
    scorers = _scorers([_read_run(StagePaths(profile, stage)) for stage in stages])
    if not scorers:
        return []
    rows = [["scorer", "tier", "AUC", "95 % interval", "nDCG@10"]]
    for scorer in scorers:
        low_high = scorer["interval"]
        name = scorer["name"] + (" (baseline)" if scorer["kind"] == "baseline" else "")
        rows.append(
            [
                name + (f" [{scorer['note']}]" if scorer["note"] else ""),
                scorer["tier"],
                f"{scorer['auc']:.4f}",
                f"{low_high[0]:.4f} to {low_high[1]:.4f}" if low_high else "–",
                f"{scorer['ndcg@10']:.4f}" if is_number(scorer.get("ndcg@10")) else "–",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in padded]


# --- rendering ---------------------------------------------------------------------------------------------


def render_profile(profile: str, stages: list[str]) -> int:
    """Render what is missing or out of date of a profile's reports, and its index.

    Args:
        profile: a folder of ``outputs``; nothing is written where it holds no outputs.
        stages: the stages of the profile in order.

    Returns:
        How many reports were rendered; the index does not count.
    """
    runs = [_read_run(StagePaths(profile, stage)) for stage in stages]
    origin, renders = _origin(runs), machinery(Path(__file__))
    facts = [[run.stage, run.page, *_status(run, runs)] for run in runs]
    rendered = 0
    for run in runs:
        for notebook, target, failed in run.sources():
            key = page_key(renders, facts, origin, run.manifest, run.metrics, notebook.read_bytes())
            if not is_rendered(target, key):
                write_page(target, _report(run, runs, origin, notebook, failed), key)
                rendered += 1
    index = StagePaths(profile, "").outputs / "index.html"
    key = page_key(renders, facts, origin, [[run.manifest, run.metrics] for run in runs])
    if index.parent.is_dir() and not is_rendered(index, key):
        write_page(index, _index(profile, runs, origin), key)
    return rendered


def _report(run: _Run, runs: list[_Run], origin: dict[str, Any], notebook: Path, failed: bool) -> str:
    import nbformat

    executed = nbformat.read(notebook, as_version=4)
    body = Body(_cells(executed), {other.stage: other.page for other in runs if other.page})
    place = runs.index(run)
    record = _record(run, executed, failed)
    return fill(
        "report.html.j2",
        stage=run.stage,
        profile=run.paths.profile,
        title=body.title or run.stage,
        body=body.html,
        contents=body.contents,
        record=record,
        given=_papermill(executed).get("parameters", {}),
        tiers=_tiers(run, record),
        generated=record.get("generated", origin["generated"]),
        bundle=record.get("parameters", {}).get("bundle", origin["bundle"]),
        status=("failed", run.failure or _error_line(executed)) if failed else _status(run, runs),
        earlier=run.by_hand and not failed,
        before=next((other for other in reversed(runs[:place]) if other.page), None),
        after=next((other for other in runs[place + 1 :] if other.page), None),
    )


def _record(run: _Run, executed: Any, failed: bool) -> dict[str, Any]:
    """Return the record of the run that a notebook shows; the artifacts may be of another one."""
    if run.manifest and not failed and not run.by_hand:
        return run.manifest
    noted = _papermill(executed)
    return {
        "parameters": noted.get("parameters", {}),
        "started": noted.get("start_time"),
        "duration_seconds": noted.get("duration"),
        "run": "batch",
    }


def _papermill(executed: Any) -> dict[str, Any]:
    noted = executed.metadata.get("papermill", {})
    return {**noted, "parameters": {k: v for k, v in noted.get("parameters", {}).items() if k != "profile"}}


def _tiers(run: _Run, record: dict[str, Any]) -> list[str]:
    """Return the tiers of a run, those of its figures before those of its parameters."""
    models = run.metrics.get("models")
    if isinstance(models, dict) and models:
        found = {str(entry.get("tier")) for entry in models.values()}
        return [tier for tier in TIERS if tier in found]
    declared = record.get("parameters", {}).get("tiers")
    return [str(tier) for tier in declared] if isinstance(declared, list) else []


def _error_line(executed: Any) -> str:
    for cell in executed.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return plain(f"{output.ename}: {output.evalue}")
    return "The run ended without an error message."


def _index(profile: str, runs: list[_Run], origin: dict[str, Any]) -> str:
    scorers = _scorers(runs)
    records = [run.manifest for run in runs if run.manifest]
    return fill(
        "index.html.j2",
        profile=profile,
        rows=[(run, *_status(run, runs)) for run in runs],
        scorers=scorers,
        scale=_scale(scorers),
        tiers=TIERS,
        records=records,
        latest=max(records, key=lambda record: str(record.get("started")), default=None),
        **origin,
    )


def _scale(scorers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the ends of a scale that holds every interval and chance, and a function from AUC to px."""
    ends = [0.5, *(end for s in scorers for end in (s["interval"] or (s["auc"], s["auc"])))]
    margin = max(0.05 * (max(ends) - min(ends)), 0.005)
    low, high = min(ends) - margin, max(ends) + margin
    per_unit = _SCALE / (high - low)
    return {"low": low, "high": high, "width": _SCALE, "x": lambda auc: round((auc - low) * per_unit, 1)}


# --- the cells ---------------------------------------------------------------------------------------------


def _cells(executed: Any) -> str:
    """Return the cells of an executed notebook as HTML, every text of it plain."""
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor
    from traitlets.config import Config

    executed.cells = [cell for cell in executed.cells if _PAPERMILL_NOTE not in cell.metadata.get("tags", [])]
    _make_plain(executed)
    exporter = HTMLExporter(
        config=Config({"NbConvertBase": {"display_data_priority": _DISPLAYED}}),
        extra_template_basedirs=[str(layout.ROOT / "templates")],
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
        self.contents = self._anchor_headings()
        for table in self._soup.find_all("table"):
            _align(table)
            self._frame(table)
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

    def _frame(self, table: Any) -> None:
        """Put a table in a box that scrolls by itself, its caption above the box."""
        box = self._soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0", "role": "region"})
        figure = table.wrap(self._soup.new_tag("figure", attrs={"class": "table"}))
        caption = table.find("caption")
        text = caption.get_text().strip() if caption else ""
        box["aria-label"] = text or "table"
        table.wrap(box)
        if caption:
            caption.name = "figcaption"
            figure.insert(0, caption.extract())


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
