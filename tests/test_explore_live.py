"""The explorer in JupyterLab, in a browser: a choice changes the view."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Page
from test_servers import served, told_token

from ebnerd_lib.pipeline.paths import ROOT

pytestmark = pytest.mark.slow

PATIENCE = 180_000.0
"""Milliseconds that a page of a busy machine may take for anything; whatever takes less goes on at once."""
FAILED = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr']:has-text('Traceback')"
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


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory) -> Path:
    """A copy of the finished project, its explorer with the parameters of the profile smoke."""
    root = tmp_path_factory.mktemp("live") / "p"
    shutil.copytree(finished, root)
    shutil.copy(ROOT / "Makefile", root)
    (root / "data" / "sample").mkdir()
    (root / "data" / "sample" / "generated.json").write_text("{}")
    own = {"profile": "smoke", **yaml.safe_load((root / "params" / "smoke" / "06_explore.yaml").read_text())}
    file = root / "notebooks" / "06_explore.ipynb"
    content = json.loads(file.read_text(encoding="utf-8"))
    cell = next(cell for cell in content["cells"] if "parameters" in cell["metadata"].get("tags", []))
    for name, value in own.items():
        lines = [re.sub(rf"^({name}: [^=]+= ).*?(  # )", rf"\g<1>{value!r}\g<2>", line) for line in cell["source"]]
        assert lines != cell["source"], name
        cell["source"] = lines
    file.write_text(json.dumps(content), encoding="utf-8")
    settings = root / "home" / "config" / "lab" / "user-settings" / "@jupyterlab"
    for name, value in {
        "apputils-extension/notification": {"fetchNews": "false"},
        "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight are there too
    }.items():
        (settings / name).parent.mkdir(parents=True, exist_ok=True)
        settings.joinpath(f"{name}.jupyterlab-settings").write_text(json.dumps(value))
    exposed = "c.LabApp.expose_app_in_browser = True\n"  # to run cells by command, not by a menu that may not be ready
    (root / "home" / "config" / "jupyter_lab_config.py").write_text(exposed)
    return root


@pytest.fixture(scope="module")
def page(browser, project) -> Iterator[Page]:
    """JupyterLab with all cells of the explorer run."""
    with served(project, "lab") as (port, lines, _):
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.goto(f"http://127.0.0.1:{port}/lab/tree/06_explore.ipynb?token={told_token(lines)}")
        page.wait_for_selector(".jp-NotebookPanel .jp-Notebook-ExecutionIndicator[data-status='idle']")
        page.evaluate(RUN_ALL)
        page.wait_for_selector(f".explorer img, {FAILED}")
        yield page
        page.close()


def panel(page, heading: str) -> str:
    """What the panel below a heading says."""
    return page.locator(".explorer .widget-html", has=page.locator("h4", has_text=heading)).inner_text()


def wait_until_changed(page, heading: str, before: str) -> str:
    """Wait until the panel below a heading says something else, and return it."""
    page.wait_for_function(
        """([heading, before]) => [...document.querySelectorAll('.explorer .widget-html')].some(
            (panel) => panel.querySelector('h4')?.innerText.includes(heading) && panel.innerText.trim() != before)""",
        arg=[heading, before.strip()],
    )
    return panel(page, heading)


READ, SHOWN, LIST = "What the user had read", "The slate that was shown", "What the model would recommend"


def test_the_live_view_is_there_and_fits_the_page(page):
    assert not page.locator(FAILED).count(), page.locator(FAILED).all_inner_texts()
    assert "(tier clicks)" in panel(page, SHOWN) and "candidates are" not in panel(page, SHOWN)
    fits = "[...document.querySelectorAll('.explorer, .explorer .box')].every(e => e.scrollWidth <= e.clientWidth + 1)"
    assert page.evaluate(fits), "nothing scrolls sideways at a width of 1200 px"
    assert page.locator(".explorer img").get_attribute("alt").startswith("In-views, clicks and click rate by hour.")


def test_a_sampled_reader_changes_all_of_the_view(page):
    before = {heading: panel(page, heading) for heading in (READ, SHOWN, LIST)}
    page.get_by_role("button", name="Sample one").click()
    for heading, text in before.items():
        assert wait_until_changed(page, heading, text) != text
    user = page.get_by_label("User").input_value()
    assert f"User {user}:" in panel(page, READ) and f"to user {user} at" in panel(page, LIST)
