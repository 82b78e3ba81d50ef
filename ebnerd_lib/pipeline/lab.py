"""Copies of a profile's notebooks for JupyterLab: each stage's parameters are in them, and edits are the user's."""

import hashlib
import json
from typing import Any

from ebnerd_lib.pipeline.params import StageConfig, load_profile
from ebnerd_lib.pipeline.paths import StagePaths, notebook_path, read_json, relative, write_json

_MADE = "ebnerd_lib_made_of"
"""The key of a copy's metadata that holds a checksum of its cells as they were written."""


def write_copies(profile: str) -> list[str]:
    """Write a copy of the notebook of each stage to ``outputs/<profile>/lab``.

    A copy that was edited or holds outputs is left as it is; another is renewed where its source or parameters changed.

    Returns:
        What to tell the user, a line each.

    Raises:
        ConfigError: the profile or a parameter is wrong.
    """
    folder, lines = StagePaths(profile, "").outputs / "lab", []
    for stage, config in load_profile(profile).items():
        file, wanted = folder / f"{stage}.ipynb", _copy(config)
        there = read_json(file) or {}
        made_of = there.get("metadata", {}).get(_MADE)
        used = any(cell.get("outputs") for cell in there.get("cells", []))
        if not file.exists() or (made_of == _sources(there) != _sources(wanted) and not used):
            write_json(file, wanted)
        elif made_of != wanted["metadata"][_MADE]:
            lines.append(f"{relative(file)}: kept as you left it; its source or parameters have changed since.")
    return [*lines, f"{relative(folder)}/: a notebook for each stage of profile {profile}, with its parameters."]


def _copy(config: StageConfig) -> dict[str, Any]:
    """Return the notebook of a stage with its effective parameters in a cell of their own, as papermill has it."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    source = load_notebook_node(str(notebook_path(config.stage)))
    comment = f"The parameters of {config.profile}/{config.stage}, in the place of those above: change them here"
    copy: dict[str, Any] = parameterize_notebook(source, config.parameters, comment=comment)
    del copy["metadata"]["papermill"]
    copy["metadata"][_MADE] = _sources(copy)
    return copy


def _sources(notebook: dict[str, Any]) -> str:
    """Return a checksum of the cells of a notebook, outputs left out."""
    cells = [[cell.get("cell_type"), "".join(cell.get("source", ""))] for cell in notebook.get("cells", [])]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()
