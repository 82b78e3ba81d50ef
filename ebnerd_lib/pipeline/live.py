"""What a notebook that is run by hand shows: a bar with the time left, a curve that grows, errors without traceback."""

from typing import Any

from ebnerd_lib.errors import EbnerdError


class LiveView:
    """Shows what a stage tells of its progress."""

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
