"""Reading a report: how large it is, and whether it needs a network."""

from pathlib import Path

from benchmarks.context import Context, Measured
from benchmarks.offline import fetched, pages
from benchmarks.row import Bar, Row, not_measured
from ebnerd_lib.pipeline.layout import ROOT

SIZE, ONLINE = Bar("ours", "≤", 3.0), Bar("ours", "≤", 0.0)


def measure(context: Context) -> Measured:
    """Look at the reports of the profile ``sample``, as far as it has run."""
    found = pages(ROOT / "outputs" / "sample")
    if not found:
        return Measured([not_measured("reports of sample", SIZE, "no report is there. Run `make run-all`.", "MB")])
    return Measured(judged("reports of sample", found))


def judged(name: str, found: list[Path]) -> list[Row]:
    """Return the size of the largest page, and how many pages load anything from elsewhere."""
    sizes = {file.name: file.stat().st_size / 1e6 for file in found}
    needs = {file.name: fetched(file.read_text(encoding="utf-8")) for file in found}
    online = [f"{page} loads {', '.join(addresses[:3])}" for page, addresses in needs.items() if addresses]
    largest = max(sizes, key=lambda page: sizes[page])
    note = f"{len(found)} pages; the largest is {largest}."
    return [
        Row(f"{name}: the largest page", sizes[largest], "MB", bar=SIZE, runs=1, note=note),
        Row(f"{name}: pages that need a network", len(online), "pages", bar=ONLINE, runs=1, note="; ".join(online)),
    ]
