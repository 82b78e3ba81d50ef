"""Copies of a profile's notebooks for JupyterLab: each stage's parameters are in them, and edits are the user's."""

import hashlib
import json
from typing import Any

from ebnerd_lib.pipeline.params import StageConfig, load_profile
from ebnerd_lib.pipeline.paths import StagePaths, notebook_path, read_json, relative, write_whole

_COMMENT = "The parameters of {profile}/{stage}, in the place of those above: change them here"
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
        there = read_json(file)
        if there is not None and _sources(there) == _sources(wanted):
            continue
        if file.exists() and not _is_untouched(there):
            lines.append(f"{relative(file)}: kept as you left it; its source or parameters have changed since.")
            continue
        write_whole(file, json.dumps(wanted, indent=1, ensure_ascii=False) + "\n")
    return [*lines, f"{relative(folder)}/: a notebook for each stage of profile {profile}, with its parameters."]


def _copy(config: StageConfig) -> dict[str, Any]:
    """Return the notebook of a stage with its effective parameters in a cell of their own, as papermill has it."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    source = load_notebook_node(str(notebook_path(config.stage)))
    comment = _COMMENT.format(profile=config.profile, stage=config.stage)
    copy = parameterize_notebook(source, config.parameters, comment=comment)
    copy.metadata.pop("papermill")
    for cell in copy.cells:
        cell.metadata.pop("papermill", None)
    copy.metadata[_MADE] = _sources(copy)
    return dict(copy)


def _sources(notebook: dict[str, Any]) -> str:
    """Return a checksum of the cells of a notebook, outputs left out."""
    cells = [[cell.get("cell_type"), "".join(cell.get("source", ""))] for cell in notebook.get("cells", [])]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def _is_untouched(notebook: dict[str, Any] | None) -> bool:
    """Say whether the cells of a copy are as they were written and none was run."""
    if notebook is None or any(cell.get("outputs") for cell in notebook.get("cells", [])):
        return False
    return bool(notebook.get("metadata", {}).get(_MADE) == _sources(notebook))
