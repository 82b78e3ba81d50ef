"""The live view: choose a reader, a moment, a model and an article, and see the answers. The one module of widgets."""

import html
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ipywidgets as widgets
import numpy as np
import pandas as pd
from pandas.io.formats.style_render import CSSDict

from ebnerd_lib import plots
from ebnerd_lib.errors import ConfigError, EbnerdError
from ebnerd_lib.explore.explorer import Answer, Explorer, Moment, hours_shown, moments, readers, sample_moment

_SUGGESTED = 200  # readers in the box: any other may be typed
_HOURS = 400
_STYLE = """<style>
.explorer .widget-html-content { line-height: 1.35; overflow: visible; }
.explorer h4 { margin: .9em 0 .2em; font-size: 15px; }
.explorer .note { color: var(--jp-ui-font-color2, #616161); font-size: 12px; }
.explorer .refusal { border-left: 3px solid #b3261e; background: rgba(179, 38, 30, .08); padding: .4em .8em; }
.explorer .box { overflow: auto; max-height: 28rem; max-width: 100%; border: 1px solid rgba(128, 128, 128, .3); }
.explorer table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
.explorer caption { caption-side: top; text-align: left; padding: .4em .6em; font-size: 12px; line-height: 1.4;
  color: var(--jp-ui-font-color2, #616161); }
.explorer th { position: sticky; top: 0; background: var(--jp-layout-color2, #eeeeee); font-weight: 600; }
.explorer th, .explorer td { padding: .25em .5em; text-align: left; vertical-align: top; }
.explorer tbody tr:nth-child(even) td { background: rgba(128, 128, 128, .06); }
.explorer tbody tr td.clicked { background: rgba(0, 114, 178, .14); }
.explorer td.best { font-weight: 700; }
.explorer img { max-width: 100%; }
</style>"""


class LiveView(widgets.VBox):
    """The explorer with choices. Displaying it shows it; a choice changes what follows from it.

    Args:
        explorer: what answers.
        moment: what is shown first.
        rows: clicks of the history that are shown.
        seed: of the readers that are suggested, and of those sampled.
    """

    def __init__(self, explorer: Explorer, moment: Moment, rows: int = 10, seed: int = 0) -> None:
        self._explorer, self._rows, self._quiet = explorer, rows, False
        self._rng = np.random.default_rng(seed)
        self._moments: list[Moment] = []
        explorer.prepare()
        super().__init__([widgets.HTML(_STYLE), *self._build(moment)])
        self.add_class("explorer")
        self._choose_reader(moment.user_id, moment)
        self._listen()

    def _build(self, moment: Moment) -> list[widgets.Widget]:
        """Make the choices and the panels, and return them in rows."""
        known = readers(self._explorer.dataset)
        some = self._rng.choice(known, min(_SUGGESTED, len(known)), replace=False)
        names = [str(each) for each in sorted({*some.tolist(), moment.user_id})]
        label = {"description_width": "5em"}
        self.user = widgets.Combobox(options=names, description="User", continuous_update=False, style=label)
        tooltip = "Sample an impression of validation, and its user"
        self.sample = widgets.Button(description="Sample one", tooltip=tooltip)
        self.moment = widgets.Dropdown(description="Moment", layout={"width": "34em"}, style=label)
        self.model = widgets.Dropdown(options=self._explorer.models, description="Model", style=label)
        wide, narrow = {"width": "44em", "max_width": "100%"}, {"width": "14em"}
        self.article = widgets.Dropdown(description="Article", layout=wide, style=label)
        self.typed = widgets.Text(description="or its id", continuous_update=False, layout=narrow, style=label)
        self.panels = {name: widgets.HTML() for name in ("message", "history", "slate", "recommended", "life", "time")}
        row = {"flex_flow": "row wrap", "overflow": "visible"}
        *above, life, time_taken = self.panels.values()
        return [
            widgets.Box([self.user, self.sample, self.model, self.moment], layout=row),
            *above,
            widgets.HTML("<h4>The life of an article</h4>"),
            widgets.Box([self.article, self.typed], layout=row), life, time_taken,
        ]  # fmt: skip

    def _listen(self) -> None:
        self.user.observe(self._when(lambda: self._choose_reader(_whole_number(self.user.value, "user"))), "value")
        self.sample.on_click(lambda _: self._answer(self._sampled_reader))
        self.moment.observe(self._when(self._show_moment), "value")
        self.model.observe(self._when(self._show_model), "value")
        self.article.observe(self._when(lambda: self._show_life(self.article.value)), "value")
        self.typed.observe(self._when(self._show_typed), "value")

    def _when(self, act: Callable[[], None]) -> Callable[[object], None]:
        """Return what is called when a choice changes: nothing happens while choices are set from here."""
        return lambda _: None if self._quiet else self._answer(act)

    def _answer(self, act: Callable[[], None]) -> None:
        """Answer a choice; what is wrong with it is told, and what was shown stays."""
        start, self.panels["message"].value = time.perf_counter(), ""
        try:
            act()
        except EbnerdError as error:
            self.panels["message"].value = _refusal(str(error))
        self.panels["time"].value = f'<p class="note">Answered in {time.perf_counter() - start:.2f} s.</p>'

    def _sampled_reader(self) -> None:
        moment = sample_moment(self._explorer.dataset, self._rng)
        self._choose_reader(moment.user_id, moment)

    def _choose_reader(self, user_id: int, moment: Moment | None = None) -> None:
        self._moments = moments(self._explorer.dataset, user_id)
        chosen = self._moments[-1] if moment is None else moment
        with self._silence():
            self.user.value = str(user_id)
            self.moment.options = [(str(each), place) for place, each in enumerate(self._moments)]
            self.moment.value = self._moments.index(chosen)
        self._show_moment()

    def _show_moment(self) -> None:
        self._history = self._explorer.history(self._moment, self._rows)
        self.panels["history"].value = _section("What the user had read", self._history)
        self._show_model()

    def _show_model(self) -> None:
        moment, model = self._moment, self.model.value
        answers = [self._explorer.slate(moment, model)]
        self.panels["slate"].value = _section("The slate that was shown", answers[0])
        heading = "What the model would recommend, and why"
        try:
            answers.insert(0, self._explorer.recommended(moment, model))
            self.panels["recommended"].value = _section(heading, answers[0])
        except EbnerdError as error:  # nobody knows what is live in the first minutes of a log: the rest can be shown
            self.panels["recommended"].value = f"<h4>{heading}</h4>{_refusal(str(error))}"
        named = pd.concat([answer.table[["article_id", "title"]] for answer in (*answers, self._history)])
        mentioned = named.drop_duplicates("article_id").fillna({"title": "without a title"})
        before = self.article.value
        with self._silence():
            self.article.options = [(f"{title} ({each})", each) for each, title in mentioned.to_numpy().tolist()]
            self.article.value = before if before in mentioned["article_id"].tolist() else self.article.options[0][1]
        self._show_life(self.article.value)

    def _show_typed(self) -> None:
        if self.typed.value.strip():
            self._show_life(_whole_number(self.typed.value, "article"))

    def _show_life(self, article_id: int) -> None:
        answer = self._explorer.life(article_id)
        picture = ""
        if len(answer.table):
            text = html.escape(f"In-views, clicks and click rate by hour. {answer.caption}", quote=True)
            address = plots.address(plots.article_life(answer.table, self._moment.time))
            picture = f'<img width="880" alt="{text}" src="{address}">'
        self.panels["life"].value = f"{picture}{_table(hours_shown(answer, _HOURS))}"

    @property
    def _moment(self) -> Moment:
        return self._moments[self.moment.value]

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Let choices be set without an answer to each."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False


def _section(heading: str, answer: Answer) -> str:
    return f"<h4>{html.escape(heading)}</h4>{_table(answer)}"


def _table(answer: Answer) -> str:
    styles: list[CSSDict] = []
    for place, (name, kind) in enumerate(answer.table.dtypes.items()):
        if pd.api.types.is_numeric_dtype(kind):
            styles.append({"selector": f"th.col{place}, td.col{place}", "props": "text-align: right"})
        if name in ("time", "hour", "clicked", "shown"):
            styles.append({"selector": f"td.col{place}", "props": "white-space: nowrap"})
    return f'<div class="box" tabindex="0">{answer.styled().set_table_styles(styles).to_html()}</div>'


def _refusal(text: str) -> str:
    return f'<p class="refusal" role="alert">{html.escape(text)}</p>'


def _whole_number(text: str, what: str) -> int:
    """Return the number that a text is. Raises ``ConfigError`` where it is none."""
    if not re.fullmatch(r"\s*[0-9]{1,10}\s*", text):
        raise ConfigError(f"{what}: '{text.strip()[:40]}' is no id. Type up to ten digits, or choose from the list.")
    return int(text)
