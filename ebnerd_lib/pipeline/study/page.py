"""What readers see of a study: its report, and a summary for the terminal."""

from pathlib import Path
from typing import Any

from ebnerd_lib.pipeline.pages.page import TIERS, fill, machinery, page_key, write_page
from ebnerd_lib.pipeline.study.claims import VERDICTS


def render(file: Path, results: dict[str, Any], timings: dict[str, Any]) -> None:
    """Write the report of a study; every figure in it stands in ``results`` or, if it is a time, in ``timings``."""
    seeds = results["seeds"]
    page = fill(
        "study.html.j2",
        results=results,
        generated={**results["generated"], "seed": ", ".join(map(str, seeds))},
        environment=timings["environment"],
        seconds={(cell["name"], cell["seed"]): cell["seconds"] for cell in timings["cells"]},
        total=timings["total_seconds"],
        by_step=lambda found: list(zip(*(line["steps"] for line in found["seeds"]), strict=True)),
        verdicts=VERDICTS,
        tiers=TIERS,
    )
    write_page(file, page, page_key(machinery(Path(__file__)), results, timings))


def summary(results: dict[str, Any]) -> list[str]:
    """Return the checks, what groups are worth and the choice of a search as lines for the terminal."""
    lines = []
    for found in results.get("checks", []):
        margins = ", ".join(f"{line['margin']:+.4f}" for line in found["seeds"])
        figures = f"smallest step {margins}; mean {found['mean']:+.4f}" if margins else "a scorer of it was not tried"
        lines.append(f"{found['claim']}: {VERDICTS[found['met']]} ({figures})")
    for group in results.get("groups", []):
        lines.append(f"{group['title']} ({group['tier']}): {group['verdict']}, worth {group['mean']:+.4f} AUC")
    if search := results.get("search"):
        chosen = search["chosen"]
        lines.append(
            f"{chosen['candidate']} is best on the tuning day of {search['tried']} tried; AUC on validation "
            f"{chosen['mean']:.4f} ({chosen['tier']})"
        )
    return lines
