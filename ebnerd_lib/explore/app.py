"""The live view: choose a user, a moment, models and an article, and see the answers. The one module of widgets."""

import html
import time
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import numpy as np
import pandas as pd

from ebnerd_lib.data.slates import HOUR
from ebnerd_lib.errors import EbnerdError
from ebnerd_lib.explore import explorer as explore
from ebnerd_lib.explore.explorer import Answer, Explorer, Moment, Settings, compared
from ebnerd_lib.plots import BLUE, GREY, ORANGE, SKY
from ebnerd_lib.recommend.requests import in_words

_SUGGESTED = 200  # users in the box: any other may be typed
_STYLE = """<style>
.explorer .widget-html-content { line-height: 1.35; overflow: visible; }
.explorer h4 { margin: .9em 0 .2em; font-size: 15px; }
.explorer .note, .explorer caption { color: var(--jp-ui-font-color2, #616161); font-size: 12px; line-height: 1.4; }
.explorer .refusal { border-left: 3px solid #b3261e; background: #b3261e14; padding: 0 .6em; max-width: 34em; }
.explorer .pair { display: flex; gap: 12px; }
.explorer .pair > * { flex: 1; min-width: 0; }
.explorer .box { overflow: auto; max-height: 28rem; max-width: 100%; border: 1px solid rgba(128, 128, 128, .3); }
.explorer table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
.explorer caption { caption-side: top; text-align: left; padding: .4em .6em; }
.explorer th { position: sticky; top: 0; background: var(--jp-layout-color2, #eeeeee); }
.explorer th, .explorer td { padding: .25em .5em; text-align: left; vertical-align: top; }
.explorer .pair th:nth-child(2) { min-width: 5em; overflow-wrap: anywhere; }
.explorer td:last-child { white-space: nowrap; }
.explorer tbody tr td.clicked { background: rgba(0, 114, 178, .14); }
.explorer tbody tr td.only { background: rgba(213, 94, 0, .16); }
.explorer td.best { font-weight: 700; }
</style>"""


class LiveView(widgets.VBox):
    """The explorer with choices. Displaying it shows it; a choice changes what follows from it.

    First it shows ``moment``, of a history so many ``rows``. The settings of the explorer follow the controls. Users
    are suggested and sampled with the seed.
    """

    def __init__(self, explorer: Explorer, moment: Moment, rows: int = 10, seed: int = 0) -> None:
        self._explorer, self._rows, self._busy = explorer, rows, False
        self._rng = np.random.default_rng(seed)
        self._found = explorer.dataset.articles.iloc[:0]  # by the last search for articles
        self.notes: dict[str, widgets.HTML] = {}  # at each field: what is wrong with a choice, or what a search found
        self.panels = {name: widgets.HTML() for name in ("history", "slate", "recommended", "life", "time")}
        self.figure = widgets.Output()
        explorer.prepare()
        super().__init__([widgets.HTML(_STYLE), *self._build(moment)])
        self.add_class("explorer")
        self._answer("user", lambda: self._choose(explore.moments(explorer.dataset, moment.user_id), moment))

    def _build(self, moment: Moment) -> list[widgets.Widget]:
        """Make the choices and the panels, and return them in rows."""
        known, settings = explore.users(self._explorer.dataset), self._explorer.settings
        some = self._rng.choice(known, min(_SUGGESTED, len(known)), replace=False)
        names = [str(each) for each in sorted({*some.tolist(), moment.user_id})]
        models = [(label, name) for name, label in self._explorer.models.items()]
        label: dict[str, Any] = {"style": {"description_width": "8em"}}
        typed = label | {"continuous_update": False, "placeholder": "id, or words of a title"}
        self.user = widgets.Combobox(options=names, description="User", **typed)
        self.sample = widgets.Button(description="Sample one", tooltip="Sample an impression of validation")
        self.moment = widgets.Dropdown(description="Moment", layout={"width": "36em"}, **label)
        self.model = widgets.Dropdown(options=models, description="Model", layout={"width": "28em"}, **label)
        self.other = widgets.Dropdown(
            options=[("nothing", ""), *models], description="Compare with", layout={"width": "28em"}, **label
        )
        slider = label | {"continuous_update": False}
        self.k = widgets.IntSlider(settings.k, 1, max(50, settings.k), description="List length", **slider)
        self.diversity = widgets.FloatSlider(settings.diversity, max=1.0, step=0.05, description="Diversity", **slider)
        self.hours = widgets.BoundedFloatText(
            settings.pool_hours, max=10_000, description="Hours live", layout={"width": "14em"}, **label
        )
        self.search = widgets.Text(description="Find article", **typed)
        self.article = widgets.Dropdown(description="Article", layout={"width": "40em", "max_width": "100%"}, **label)
        rows: list[dict[str, Callable[[], None]]] = [
            {"user": self._show_user, "sample": self._sample, "moment": self._show_moment},
            {"model": self._show_models, "other": self._show_models},
            {"k": self._set, "diversity": self._set, "hours": self._set},
            {"search": self._show_found, "article": self._show_life},
        ]
        choices = [
            widgets.Box([self._field(*each) for each in row.items()], layout={"flex_flow": "row wrap"}) for row in rows
        ]
        *above, life, time_taken = self.panels.values()
        heading = widgets.HTML("<h4>The life of an article</h4>")
        return [*choices[:3], *above, heading, choices[3], self.figure, life, time_taken]

    def _field(self, name: str, act: Callable[[], None]) -> widgets.VBox:
        """Return a choice above its note; an act follows from it."""
        choice, self.notes[name] = getattr(self, name), widgets.HTML()
        if isinstance(choice, widgets.Button):
            choice.on_click(lambda _: self._answer(name, act))
        else:
            choice.observe(lambda _: self._answer(name, act), "value")
        return widgets.VBox([choice, self.notes[name]])

    def _answer(self, name: str, act: Callable[[], None]) -> None:
        """Answer a choice; what is wrong with it is told at its field, and what was shown stays."""
        if self._busy:  # a choice that an answer sets is part of that answer
            return
        start, self.notes[name].value, self._busy = time.perf_counter(), "", True
        try:
            act()
        except EbnerdError as error:
            self.notes[name].value = f'<p class="refusal" role="alert">{html.escape(str(error))}</p>'
        finally:
            self._busy = False
        self.panels["time"].value = f'<p class="note">Answered in {time.perf_counter() - start:.2f} s.</p>'

    def _sample(self) -> None:
        moment = explore.sample_moment(self._explorer.dataset, self._rng)
        self._choose(explore.moments(self._explorer.dataset, moment.user_id), moment)

    def _show_user(self) -> None:
        found = explore.moments(self._explorer.dataset, self.user.value)
        self._choose(found, found[-1])

    def _choose(self, found: list[Moment], moment: Moment) -> None:
        """Offer moments, and show one of them."""
        self._moments, users = found, len({each.user_id for each in found})
        if users == 1:
            self.user.value = str(moment.user_id)
        self.moment.options = [(f"{each}, user {each.user_id}", place) for place, each in enumerate(found)]
        self.moment.value = found.index(moment)
        self.notes["user"].value = _note(f"{len(found)} moments of {users} users found." if users > 1 else "")
        self._show_moment()

    def _show_moment(self) -> None:
        self._history = self._explorer.history(self._moment, self._rows)
        self.panels["history"].value = _section("What the user had read", self._history)
        self._show_models()

    def _set(self) -> None:
        """Make lists in another way."""
        self._explorer.settings = Settings(self.k.value, self.diversity.value, self.hours.value)
        self._show_models()

    def _show_models(self) -> None:
        names = list(dict.fromkeys(filter(None, (self.model.value, self.other.value))))
        slates = [self._explorer.slate(self._moment, name) for name in names]
        lists = [self._explorer.recommended(self._moment, name) for name in names]
        self._mentioned = pd.concat([answer.table for answer in (*lists, *slates, self._history)])
        if len(names) == 2:
            for pair in (slates, lists):
                pair[:] = compared(pair[0], pair[1], names[1]), compared(pair[1], pair[0], names[0])
        self.panels["slate"].value = _section("The slate that was shown", *slates)
        self.panels["recommended"].value = _section("What the model would recommend, and why", *lists)
        self._offer(self.article.value)

    def _show_found(self) -> None:
        dataset, text = self._explorer.dataset, self.search.value
        found = explore.find_articles(dataset, text) if text else dataset.articles.iloc[:0]
        self._found = found[: explore.FOUND]
        self.notes["search"].value = _note(f"{len(found):,} found, those most in view first." if text else "")
        self._offer(*self._found["article_id"].tolist()[:1])

    def _offer(self, wanted: int | None = None) -> None:
        """Offer the articles that were found and those of the tables, and show the one wanted or the first."""
        named = pd.concat([self._found, self._mentioned]).drop_duplicates("article_id").set_index("article_id")["title"]
        self.article.options = [(f"{title} ({each})", each) for each, title in named.fillna("without a title").items()]
        self.article.value = wanted if wanted in named.index else named.index[0]
        self._show_life()

    def _show_life(self) -> None:
        answer = self._explorer.life(self.article.value)
        drawn = {"data": _life_figure(answer.table, self._moment.time), "metadata": {}}
        self.figure.outputs = ({"output_type": "display_data", **drawn},)
        self.panels["life"].value = _note(answer.caption)

    @property
    def _moment(self) -> Moment:
        return self._moments[self.moment.value]


def _section(heading: str, *answers: Answer) -> str:
    tables = "".join(map(_table, answers))
    return f'<h4>{html.escape(heading)}</h4><div class="pair">{tables}</div>'


def _table(answer: Answer) -> str:
    kinds = enumerate(answer.table.dtypes)
    numbers = ", ".join(f"th.col{place}, td.col{place}" for place, kind in kinds if pd.api.types.is_numeric_dtype(kind))
    styled = answer.styled().set_table_styles([{"selector": numbers or "th.none", "props": "text-align: right"}])
    return f'<div class="box" tabindex="0">{styled.to_html()}</div>'


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>' if text else ""


def _life_figure(hours: pd.DataFrame, moment: int) -> dict[str, Any]:
    """Draw what ``plots.article_life`` draws, for a pointer to rest on: a figure for plotly's extension of JupyterLab.

    Its Python library would take longer to make one than all the rest of an answer.
    """
    middle = pd.to_datetime(hours["hour"] + HOUR // 2, unit="us").dt.strftime("%Y-%m-%d %H:%M").tolist()
    often = hours["high"][hours["inviews"] >= hours["inviews"].max() / 10].max()
    time, grid = in_words(moment), {"gridcolor": "rgba(128, 128, 128, .25)", "zeroline": False}
    rate = {
        "name": "click rate", "x": middle, "y": hours["rate"].tolist(), "yaxis": "y2", "mode": "markers",
        "marker": {"color": BLUE}, "cliponaxis": False, "customdata": hours[["low", "high"]].to_numpy().tolist(),
        "hovertemplate": "%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]",
        "error_y": {
            "type": "data", "symmetric": False, "width": 0, "thickness": 1,
            "array": (hours["high"] - hours["rate"]).tolist(), "arrayminus": (hours["rate"] - hours["low"]).tolist(),
        },
    }  # fmt: skip
    bars = [
        {"type": "bar", "name": name, "x": middle, "y": hours[column].tolist(), "marker": {"color": colour}}
        for column, name, colour in (("inviews", "in view", SKY), ("clicks", "clicks", BLUE))
    ]
    layout = {
        "barmode": "overlay", "bargap": 0, "hovermode": "x unified", "hoversubplots": "axis", "height": 360,
        "margin": {"l": 60, "r": 20, "t": 10, "b": 30}, "legend": {"orientation": "h", "y": 1.15},
        "paper_bgcolor": "rgba(0, 0, 0, 0)", "plot_bgcolor": "rgba(0, 0, 0, 0)", "font": {"color": GREY},
        "xaxis": {"type": "date", "anchor": "y2", "hoverformat": "%e %B, %H:00 to %H:59", **grid},
        "yaxis": {"domain": [0.42, 1], "title": {"text": "times an hour"}, "rangemode": "tozero", **grid},
        "yaxis2": {"domain": [0, 0.36], "title": {"text": "click rate"}, **grid,
                   "range": [0, 1.05 * often if often > 0 else 1]},
        "shapes": [{"type": "line", "x0": time, "x1": time, "yref": "paper", "y0": 0, "y1": 1,
                    "line": {"color": ORANGE, "dash": "dot", "width": 1.5}}],
    }  # fmt: skip
    return {"application/vnd.plotly.v1+json": {"data": [*bars, rate], "layout": layout}}
