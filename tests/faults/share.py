"""What the fault tests share: how many cases to try, and where the figures of docs/reliability.md are kept.

`make test` tries a share of the cases, `make test-faults` (FAULTS=all) all of them and records what it found.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "outputs" / "reliability"
ALL = os.environ.get("FAULTS") == "all"


def amount(few: int, every: int) -> int:
    """Return how many cases to try: ``few`` in `make test`, ``every`` in `make test-faults`."""
    return every if ALL else few


def record(name: str, figures: dict[str, Any]) -> None:
    """Keep figures of a test for docs/reliability.md; only a run of all cases counts."""
    print(f"{name}: {json.dumps(figures)}", file=sys.stderr)
    if ALL:
        RECORDS.mkdir(parents=True, exist_ok=True)
        (RECORDS / f"{name}.json").write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
