"""Copies of notebooks in JupyterLab, in a browser: a choice changes the explorer, a parameter no batch result."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page
from runs import artifacts, command, manifest
from test_servers import served

from ebnerd_lib.pipeline.paths import ROOT

pytestmark = pytest.mark.slow

PATIENCE = 180_000.0
"""Milliseconds that a page of a busy machine may take for anything; whatever takes less goes on at once."""
FAILED = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']:has-text('Traceback')"
FIGURE = ".explorer .js-plotly-plot .main-svg"
RUN_ALL = """async () => {
    await jupyterapp.restored;
    const panel = jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    const kernel = panel.sessionContext.session.kernel;
    // A kernel is called idle before it hears: what is sent to it then is lost. So it is asked until it answers.
    const patience = () => new Promise((resolve) => setTimeout(() => resolve(null), 5000));
    while (!(await Promise.race([kernel.requestExecute({ code: "1" }).done.catch(() => null), patience()])));
    jupyterapp.commands.execute("notebook:run-all-cells");
}"""
"""Runs all cells of the notebook that is open."""


SET = """async ([name, value]) => {
    await jupyterapp.restored;
    await jupyterapp.shell.currentWidget.context.ready;
    for (const cell of jupyterapp.shell.currentWidget.content.model.cells) {
        if ((cell.getMetadata("tags") || []).includes("injected-parameters")) {
            const line = new RegExp(`^${name} = .*$`, "m");
            cell.sharedModel.setSource(cell.sharedModel.getSource().replace(line, `${name} = ${value}`));
        }
    }
}"""
"""Changes a line of the cell with the stage's parameters."""


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory) -> Path:
    """A copy of the finished project."""
    root = tmp_path_factory.mktemp("live") / "p"
    shutil.copytree(finished, root)
    shutil.copy(ROOT / "Makefile", root)
    settings = root / "home" / "config" / "lab" / "user-settings" / "@jupyterlab"
    notification = settings / "apputils-extension" / "notification.jupyterlab-settings"
    notification.parent.mkdir(parents=True)
    notification.write_text(json.dumps({"fetchNews": "false"}))
    exposed = "c.LabApp.expose_app_in_browser = True\n"  # to run cells by command, not by a menu that may not be ready
    (root / "home" / "config" / "jupyter_lab_config.py").write_text(exposed)
    return root


@pytest.fixture(scope="module")
def opened(browser, project) -> Iterator[Callable[[str], Page]]:
    """Open the copy of a stage's notebook in JupyterLab, as `make lab PROFILE=smoke` starts it."""
    with served(project, "PROFILE=smoke") as (address, token, _):
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(PATIENCE)

        def open_copy(stage: str) -> Page:
            place = f"workspaces/{stage}/tree/outputs/smoke/lab/{stage}.ipynb"  # no other notebook opens beside it
            page.goto(f"{address}/lab/{place}?token={token}")
            page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")
            return page

        yield open_copy
        page.close()


@pytest.fixture(scope="module")
def page(opened) -> Page:
    """JupyterLab with all cells of the explorer run."""
    page = opened("06_explore")
    page.evaluate(RUN_ALL)
    page.wait_for_selector(f"{FIGURE}, {FAILED}")
    return page


def test_the_live_view_is_there_and_fits_the_page_with_one_model_and_with_two(page):
    assert not page.locator(FAILED).count(), page.locator(FAILED).all_inner_texts()
    for heading in ("The slate that was shown", "What the model would recommend"):
        panel = page.locator(".explorer .widget-html", has=page.locator("h4", has_text=heading))
        assert "(tier clicks)" in panel.inner_text()
    assert wide(page) == [], "nothing scrolls sideways at a width of 1200 px"
    page.get_by_label("Compare with").select_option(label="mlp_exposure (exposure, slates only)")
    page.wait_for_selector(".explorer th:has-text('vs. mlp_exposure')")
    assert wide(page) == []


def wide(page) -> list[str]:
    """What is wider than its place."""
    return page.evaluate(
        "[...document.querySelectorAll('.explorer, .explorer .box, .explorer .jp-OutputArea-output')]"
        ".filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    )


def test_the_life_of_an_article_tells_its_numbers_where_the_pointer_rests(page):
    plot, told = page.locator(".explorer .js-plotly-plot"), ""
    plot.scroll_into_view_if_needed()
    place = plot.locator(".nsewdrag").first.bounding_box()
    for share in range(1, 100):  # until it rests on an hour in which the article was in view
        page.mouse.move(place["x"] + place["width"] * share / 100, place["y"] + place["height"] / 2)
        page.wait_for_timeout(100)
        if told := plot.locator(".hoverlayer").text_content().strip():
            break
    assert "in view" in told and "clicks" in told and "click rate" in told


def test_articles_and_users_are_found_by_title_and_errors_stand_at_their_field(page):
    word = page.locator(".explorer td.best").last.inner_text().split()[-1]
    search = page.get_by_label("Find article")
    search.fill(word)
    search.press("Enter")
    page.wait_for_selector(".explorer .note:has-text('found, those most in view first')")
    user = page.get_by_label("User", exact=True)
    user.fill(word)
    user.press("Enter")
    page.wait_for_selector(".explorer .note:has-text('users found')")
    user.fill("nobody at all")
    user.press("Enter")
    refusal = page.wait_for_selector(".explorer [role=alert]").bounding_box()
    field = user.bounding_box()
    assert abs(refusal["x"] - field["x"]) < 150 and 0 <= refusal["y"] - field["y"] - field["height"] < 20


def files_beside_outputs(project: Path) -> dict[Path, bytes]:
    kinds = [("notebooks", "*.ipynb"), ("params", "*.yaml"), ("ebnerd_lib", "*.py")]
    return {file: file.read_bytes() for name, kind in kinds for file in (project / name).rglob(kind)}


def test_a_changed_parameter_makes_a_run_of_its_own_and_changes_nothing_else(opened, project):
    before, files = artifacts(project), files_beside_outputs(project)
    page = opened("03_train_mlp")
    results = page.locator(".jp-OutputArea-output", has_text="make keep RUN=smoke/03_train_mlp.lab")
    for number, hidden in ((1, "[16, 8]"), (2, "[8]")):
        page.evaluate(SET, ["hidden", hidden])
        page.evaluate(RUN_ALL)
        results.filter(has_text=f"lab{number}").wait_for()
        made = manifest(project, f"03_train_mlp.lab{number}")
        assert (made["run"], made["parameters"]["hidden"]) == ("interactive", json.loads(hidden))
    assert page.locator(".jupyter-widgets", has_text="passed").count(), "the bar of the training"
    after = artifacts(project)
    assert {name: after[name] for name in before} == before and files_beside_outputs(project) == files
    both = [f"smoke/03_train_mlp.lab{number}" for number in (1, 2)]
    told = command(project, "compare", "--runs", " ".join(both))
    assert told.returncode == 0, told.stderr
    (compared,) = json.loads(next((project / "outputs" / "compare").glob("*.json")).read_text())["tables"]
    first, second = (next(row for row in compared["rows"] if row["name"] == name) for name in both)
    assert first["changes"] == {} and second["changes"] == {"hidden": [8]} and second["difference"], (
        "paired by impression"
    )
    page.evaluate(SET, ["hidden", "[0]"])
    page.evaluate(RUN_ALL)
    error = page.locator(".jp-OutputArea-output", has_text="ConfigError")
    error.wait_for()
    # It comes into view, though JupyterLab went to the last cell.
    in_view = "e => e.getBoundingClientRect().top > 0 && e.getBoundingClientRect().bottom < innerHeight"
    page.wait_for_function(in_view, arg=error.element_handle())
    assert len(error.inner_text().splitlines()) <= 2 and "hidden[0]" in error.inner_text()
