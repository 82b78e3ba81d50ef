"""Write docs/reliability.md from the figures that `make test-faults` has recorded."""

import json
import platform
import sys
from typing import Any

from share import RECORDS, ROOT

PAGE = ROOT / "docs" / "reliability.md"
HEAD = """# Reliability

What happens to this project when a machine fails, a file is broken or a run is repeated. The figures are those of the
tests themselves: `make test-faults` tries everything and writes this page anew (here with Python {python} on {system});
`make test` tries a share of it. The tests are in [tests/faults](../tests/faults).
"""
SECTIONS: list[tuple[str, str, str]] = [
    (
        "Kills",
        "kills",
        "`make run-all` on `smoke` is killed (SIGKILL) at random moments over its whole length: the runner, one of its "
        "kernels, or all of them. In between, no stage looks done that is not: each folder that can be seen has a "
        "manifest whose sums match. The next run ends what was begun, and its artifacts are those of a run that nobody "
        "disturbed, byte for byte.",
    ),
    (
        "Interruptions",
        "interruptions",
        "Ctrl-C, SIGTERM and a closed terminal at random moments, while stages run and while reports are rendered. The "
        "run ends within five seconds, says which stages are complete and kept, and calls none failed.",
    ),
    (
        "Full disks and closed folders",
        "full_disk",
        "Runs whose outputs lie on a disk of a few megabytes, or under a limit on the size of files. Each fails with "
        "one message that names the place and the remedy; with room, the same command goes on to the same bytes.",
    ),
    (
        "Cut-off training",
        "resume",
        "The process that trains is killed at chosen places and at random moments, and its checkpoints are spoilt. The "
        "next one goes on from the last whole epoch, or anew where nothing can be trusted, to the same weights, byte "
        "for byte, and the same learning curve.",
    ),
    (
        "Broken bundles",
        "hostile_bundles",
        "Bundles spoilt in one or two ways at random. Each ends in one error that names file, column, count and "
        "remedy, or is read right: slates, labels, parts, histories and features then equal those of an oracle that "
        "goes row by row and shares no code with the package.",
    ),
    (
        "Broken parameter files",
        "hostile_parameters",
        "Parameter files spoilt at random. Each is refused before a kernel starts, with file, key and valid range or "
        "nearest valid key, or it is accepted and valid.",
    ),
    (
        "Repeatability",
        "verify",
        "`make verify` runs a profile from scratch several times, on one thread and on two, and once killed and run "
        "again, each in a folder of its own, and compares every artifact by sha256.",
    ),
    (
        "Submission",
        "submission",
        "A generated hidden test week of a tenth of EBNeRD's rows is ranked by a model of tier `exposure`, read by an "
        "independent reader that knows the published format alone, and by `check-submission`. Time and memory are "
        "those of the whole command.",
    ),
]


def read(name: str) -> dict[str, Any]:
    """Return the figures of a record."""
    file = RECORDS / f"{name}.json"
    if not file.exists():
        sys.exit(f"outputs/reliability/{name}.json: no such record. Run `make test-faults` to its end first.")
    return json.loads(file.read_text(encoding="utf-8"))


def words(value: Any) -> str:
    """Return a figure as it stands in a table."""
    if isinstance(value, dict):
        return "; ".join(f"{words(key)}: {words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:,}" if isinstance(value, int | float) else str(value)
    return text.replace("|", "\\|").replace("_", " ")


def table(rows: list[tuple[str, ...]], head: tuple[str, ...]) -> str:
    """Return rows as a table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def planted() -> str:
    """Return the table of planted bugs."""
    records = [read(file.stem) for file in sorted(RECORDS.glob("planted_*.json"))]
    if not records:
        sys.exit("outputs/reliability/: no planted bug is on record. Run `make test-faults` to its end first.")
    rows = [(words(each["breaks"]), f"`{each['file']}`", f"`{each['caught_by']}`") for each in records]
    return table(rows, ("bug", "planted in", "caught by"))


def main() -> None:
    """Write the page."""
    parts = [HEAD.format(python=platform.python_version(), system=platform.system())]
    for title, name, text in SECTIONS:
        rows = [(words(key.replace("_", " ")), words(value)) for key, value in read(name).items()]
        parts.append(f"## {title}\n\n{text}\n\n{table(rows, ('', 'figure'))}\n")
    parts.append(
        "## Planted bugs\n\nWhat a test suite is worth shows in what it catches: each of these bugs, planted by hand "
        f"in a copy of the project, fails the test beside it, which passes without it.\n\n{planted()}\n"
    )
    PAGE.write_text("\n".join(parts), encoding="utf-8")
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
