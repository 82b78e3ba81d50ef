"""docs/design.md names every room and module of the package, and the order in which rooms may import each other."""

import re
import tomllib

from ebnerd_lib.pipeline.layout import ROOT

PAGE = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "ebnerd_lib"
TOP = "ebnerd_lib/"
"""The row of modules that lie in no folder."""


def named() -> dict[str, list[str]]:
    """Modules by room, as the page's table names them."""
    rows = re.findall(r"^\| `([\w/]+/)` \| (.*) \|$", PAGE, re.MULTILINE)
    return {room: re.findall(r"`(\w+)`", text) for room, text in rows}


def there() -> dict[str, set[str]]:
    """Modules by room, as they are."""
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        room = f"{file.parent.relative_to(PACKAGE).as_posix()}/"
        if file.stem != "__init__":
            found.setdefault(TOP if room == "./" else room, set()).add(file.stem)
    return found


def test_every_room_and_every_module_is_named_and_no_other():
    page, package = named(), there()
    lacking = [f"{room}{name}" for room, names in package.items() for name in sorted(names - set(page.get(room, [])))]
    gone = [f"{room}{name}" for room, names in page.items() for name in sorted(set(names) - package.get(room, set()))]
    assert not lacking, f"add to the table of docs/design.md, with one idea each: {', '.join(lacking)}"
    assert not gone, f"take out of the table of docs/design.md: {', '.join(gone)}"
    assert all(len(names) == len(set(names)) for names in page.values()) and sum(map(len, page.values())) > 100


def test_the_order_of_rooms_is_that_of_the_contract():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = [entry["layers"] for entry in contract if entry["type"] == "layers"]
    (line,) = re.findall(r"^Order, the highest first: (.*)$", PAGE, re.MULTILINE)
    stated = [set(re.findall(r"`(\w+)`", step)) for step in line.split(" · ")]
    assert stated == [set(layer.split(" | ")) for layer in reversed(layers)], (
        "write the rooms of [tool.importlinter] in pyproject.toml, last first, into the line 'Order' of docs/design.md"
    )


def test_the_page_is_one_page():
    prose = [line for line in PAGE.splitlines() if not line.startswith("|")]
    assert len(prose) < 75 and len(re.findall(r"\w+", "\n".join(prose))) < 900


def test_what_makes_a_stage_stale_is_what_its_fingerprint_sums():
    source = (PACKAGE / "pipeline" / "fingerprint.py").read_text(encoding="utf-8")
    summed = re.findall(r'^        "(\w+)": ', source[source.index("def fingerprint") :], re.MULTILINE)
    assert summed == ["cells", "parameters", "modules", "inputs"]
    section = PAGE[PAGE.index("## What makes a stage stale") : PAGE.index("## What makes bytes repeat")]
    assert all(word in section for word in summed)
