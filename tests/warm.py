"""Run the notebooks of the profile smoke on bundles, one after another in this process: python warm.py NAME...

A bundle lies in data/NAME of the project in whose folder this runs. Of each, a line of JSON is written to the file
kinds.jsonl: by stage what it failed with, an empty text where it did not, and what its cells displayed.
"""

import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import IPython.display

from ebnerd_lib.pipeline.params import StageConfig, code_cells, load_profile
from ebnerd_lib.pipeline.paths import ROOT, StagePaths, notebook_path, release
from ebnerd_lib.pipeline.stage import BATCH_VARIABLE


def run(config: StageConfig, shown: list[str]) -> None:
    """Execute the code cells of a stage; ``shown`` gains what they display and print."""
    os.environ[BATCH_VARIABLE] = json.dumps({"stage": config.stage, "fingerprint": "0", "reads": config.reads})
    IPython.display.display = lambda *things: shown.extend(as_text(thing) for thing in things)
    space = {"print": lambda *words: shown.append(" ".join(map(str, words)))}
    for cell in code_cells(notebook_path(config.stage)):
        exec(compile(cell["source"], config.stage, "exec"), space)  # noqa: S102 cells of our own notebooks
        if "parameters" in cell["metadata"].get("tags", []):
            space |= {**config.given, "profile": config.profile}


def as_text(thing: object) -> str:
    """What a page shows of a thing."""
    if hasattr(thing, "_repr_html_"):
        return str(thing._repr_html_())
    return str(getattr(thing, "data", thing))


def outcome(bundle: str) -> dict[str, object]:
    """Run every stage that does not read a failed one on a bundle."""
    link = ROOT / "data" / "smoke"  # what the parameter files name
    link.unlink(missing_ok=True)
    link.symlink_to(bundle)
    shutil.rmtree(StagePaths("smoke", "").outputs, ignore_errors=True)
    ended: dict[str, str] = {}
    pages: dict[str, str] = {}
    for stage, config in load_profile("smoke").items():
        shown: list[str] = []
        if any(ended.get(other) for other in config.reads):
            ended[stage] = "not run"
            continue
        try:
            run(config, shown)
        except Exception as error:
            release(StagePaths("smoke", stage).lock)
            ended[stage] = f"{type(error).__name__}: {error}"
        pages[stage] = "\n".join(shown)
    return {"bundle": bundle, "failed": {name: text for name, text in ended.items() if text}, "pages": pages}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with Path("kinds.jsonl").open("w", encoding="utf-8") as stream:
        for name in sys.argv[1:]:
            stream.write(json.dumps(outcome(name)) + "\n")
            stream.flush()
