"""What JupyterLab gets: copies of a profile's notebooks, whose edits are the user's, and what runs by hand show."""

import hashlib
import json
from typing import Any

from ebnerd_lib.errors import EbnerdError
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


class Progress:
    """Shows what a stage that is run by hand tells of its progress: a bar with the time left, a curve that grows."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._picture: Any = None
        self._epochs: list[dict[str, Any]] = []

    def show(self, what: dict[str, Any]) -> None:
        """Move the bar by the ``share`` of a ``step`` that is done, or draw the curve up to an ``epoch``."""
        if "epoch" in what:
            self._epochs.append(what)
            self._draw(what["model"], what["best_by"])
            return
        share = what.get("share", 1.0)
        if self._bar is None or share < self._bar.n:
            from IPython.display import HTML, display
            from tqdm.auto import tqdm

            form = "{desc}  {percentage:.0f} % |{bar}| {elapsed} passed, {remaining} left"
            self._bar = tqdm(total=1.0, initial=share, bar_format=form)
            self._picture = display(HTML(""), display_id=True)  # a place for the curve above what is printed
        self._bar.set_description_str(what["step"], refresh=False)
        self._bar.n = share
        self._bar.refresh()
        if share >= 1:
            self._bar.close()

    def _draw(self, model: str, best_by: str) -> None:
        """Draw loss and metric of the epochs so far, the best one marked."""
        import pandas as pd

        from ebnerd_lib import plots

        curve = pd.DataFrame(self._epochs)
        curve["epoch"] -= 1
        best = int(curve["epoch"].iloc[int(curve[best_by].argmax())])
        lines = plots.learning_curves({model: curve}, {model: best}, best_by)
        self._picture.update(plots.image(lines, "Loss and the metric on the tuning day, by epoch so far."))


def show_errors() -> None:
    """Have IPython show an error that a user can act on by its message alone, and bring the cell that failed into view.

    JupyterLab itself stays at the end of the notebook, where all cells were asked to run.
    """
    from IPython import get_ipython

    EbnerdError._render_traceback_ = lambda error: [f"{type(error).__name__}: {error}"]  # type: ignore[attr-defined]
    if (shell := get_ipython()) is not None:
        shell.events.register("post_run_cell", _bring_into_view)


def _bring_into_view(result: Any) -> None:
    from IPython.display import Javascript, display

    if not result.success:
        script = "setTimeout(() => element.scrollIntoView({block: 'center'}), 500)"  # after JupyterLab's own move
        display(Javascript(script))
