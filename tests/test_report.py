"""Reports and the index, rendered from notebooks written by hand: no kernels run here."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from ebnerd_lib.pipeline import layout
from ebnerd_lib.pipeline.layout import StagePaths
from ebnerd_lib.pipeline.pages import body, report, scorers
from ebnerd_lib.pipeline.pages.page import TIERS

PROFILE = "tiny"
SCHEMA = new_code_cell('profile: str = "tiny"  # of params/', metadata={"tags": ["parameters"]})
STAGES = ["01_preprocess", "02_train_mf", "03_train_mlp", "04_recommend"]
PIXEL = base64.b64encode(b"\x89PNG not really").decode()
SCRIPT = "<script>alert(1)</script>"
TABLE = (
    '<style type="text/css"></style><table id="T_1"><caption>Scores by model</caption>'
    '<thead><tr><th class="col0">name</th><th class="col1">auc</th></tr></thead>'
    "<tbody><tr><td>mlp</td><td>0.7034</td></tr><tr><td>mf &lt;b&gt;</td><td>–</td></tr></tbody></table>"
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copytree(layout.ROOT / "templates", tmp_path / "templates")
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    return tmp_path


def notebook(*cells):
    return new_notebook(
        cells=[new_markdown_cell("# Factorisation\n\nWhy."), *cells],
        metadata={
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
            "papermill": {
                "parameters": {"bundle": "data/tiny", "profile": PROFILE},
                "start_time": "2025-01-02T03:04:05+00:00",
                "duration": 83.4,
                "environment_variables": {"SECRET": "hush"},
                "input_path": "/srv/somewhere/in.ipynb",
            },
        },
    )


def usual_cells():
    return [
        new_code_cell("seed: int = 0", metadata={"tags": ["parameters"]}),
        new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]}),
        new_markdown_cell(
            "## Scores & ranks\n\nAs [preprocessing](01_preprocess.ipynb) says, "
            "[a paper](https://example.org/a), https://example.org/b, ![far](https://example.org/x.png).\n\n"
            "## Scores & ranks\n\n### Deeper"
        ),
        new_code_cell(
            "import numpy\nshow(table)",
            outputs=[
                new_output("execute_result", {"text/html": TABLE, "text/plain": "<Styler>"}, execution_count=1),
                new_output(
                    "display_data",
                    {"image/png": PIXEL, "text/plain": "<Figure>"},
                    metadata={"image/png": {"alt": 'AUC by "model" & day'}},
                ),
                new_output("execute_result", {"text/plain": SCRIPT}, execution_count=1),
                new_output("stream", name="stdout", text=f"{SCRIPT}\n10 %\r100 %\n"),
                new_output("stream", name="stderr", text=f"{layout.ROOT}/ebnerd_lib/x.py:3: \x1b[33mmind\x1b[0m\n"),
                new_output("display_data", {"application/javascript": "alert(2)", "text/plain": "plain instead"}),
            ],
        ),
    ]


def failing_cell():
    trace = [
        "\x1b[31m----\x1b[39m",
        f"File \x1b[32m{layout.ROOT}/ebnerd_lib/models/mf.py:12\x1b[39m, in fit",
        f"File \x1b[32m{layout.ROOT}/.venv/lib/python3.11/site-packages/torch/nn.py:7\x1b[39m",
        f"File {Path.home()}/scratch/x.py:1 and /home/ann/y.py:2",
        "/tmp/ipykernel_12/345.py:1",
        "\x1b[31mValueError\x1b[39m: no <b>clicks</b>",
    ]
    return new_code_cell(
        "fit()", outputs=[new_output("error", ename="ValueError", evalue="no <b>clicks</b>", traceback=trace)]
    )


def figures(auc):
    same = dict.fromkeys(("mrr", "ndcg@5", "ndcg@10", "logloss", "f1", "accuracy"), 0.25)
    return {"auc": auc, "auc_ci": [auc - 0.02, auc + 0.02], "impressions": 12345, "left_out": 0, **same}


def entry(tier, auc):
    return {"tier": tier, "validation": figures(auc), "tuning": figures(auc)}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def complete(stage, metrics=None, cells=None, **changes):
    paths = StagePaths(PROFILE, stage)
    manifest = {
        "stage": stage, "profile": PROFILE, "status": "complete", "run": "batch", "fingerprint": "f",
        "generated": {"generator_version": 7, "seed": 42, "size": "smoke"},
        "parameters": {"profile": PROFILE, "bundle": "data/tiny", "seed": 1, "rate": 0.001, "note": SCRIPT},
        "git": {"commit": "0123456789abcdef", "dirty": True}, "packages": {"numpy": "2.2"},
        "python": "3.11.9", "platform": "Linux x86_64", "device": "cpu", "threads": 2, "inputs": {},
        "outputs": {"scores.parquet": "s1"},
        "started": "2025-01-02T03:04:05+00:00", "duration_seconds": 83.4, "peak_memory_mb": 2048.0, **changes,
    }  # fmt: skip
    write(paths.manifest, json.dumps(manifest))
    write(paths.artifacts / "metrics.json", json.dumps(metrics or {}))
    write(paths.executed, nbformat.writes(notebook(*(cells if cells is not None else usual_cells()))))
    return paths


def fail(stage, message="ValueError: no <b>clicks</b>"):
    paths = StagePaths(PROFILE, stage)
    write(paths.failed, nbformat.writes(notebook(failing_cell())))
    write(paths.failure, json.dumps({"message": message}))
    return paths


def rendered(stage="02_train_mf", **changes):
    paths = complete(stage, **changes)
    assert report.render_profile(PROFILE, STAGES) == 1
    return paths.report.read_text(encoding="utf-8")


class Attributes(HTMLParser):
    """Collect every start tag with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def index_page():
    return (StagePaths(PROFILE, "").outputs / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def both_pages(project):
    complete("01_preprocess", {"baselines": {"random": entry("ids", 0.5)}})
    page = rendered_with_index()
    return page, index_page()


def rendered_with_index():
    complete("02_train_mf", {"models": {"mf_ids": entry("ids", 0.61)}})
    assert report.render_profile(PROFILE, STAGES) == 2
    report.render_overview()
    return StagePaths(PROFILE, "02_train_mf").report.read_text(encoding="utf-8")


# --- one file that loads nothing ---------------------------------------------------------------------------


def test_pages_refer_to_nothing_outside(both_pages):
    for page in both_pages:
        tags = Attributes(page)
        references = tags.all("src") + tags.all("href") + re.findall(r"url\(([^)]*)\)", page)
        assert references
        assert [r for r in references if re.match(r"\s*['\"]?(\w+:)?//", r)] == []
        assert not re.search(r"https?://", page)
        assert not {"script", "iframe", "object", "embed"} & {tag for tag, _ in tags.tags}


def test_every_link_leads_somewhere(both_pages):
    folder = StagePaths(PROFILE, "").report.parent
    for page, base in zip(both_pages, (folder, folder.parent), strict=True):
        anchors = set(Attributes(page).all("id"))
        for target in (a["href"] for a in Attributes(page).named("a")):
            file, _, anchor = target.partition("#")
            if file:
                assert (base / file).resolve().is_file(), target
                there = set(Attributes((base / file).read_text(encoding="utf-8")).all("id"))
            assert not anchor or anchor.replace("%26", "&") in (there if file else anchors), target


def test_external_addresses_are_written_out(project):
    page = rendered()
    assert "a paper (example.org/a)" in page
    assert "example.org/b" in page and "far" in page


def test_notebook_links_lead_to_reports(both_pages):
    assert '<a href="01_preprocess.html">preprocessing</a>' in both_pages[0]


def test_neighbours_are_linked_in_the_order_of_the_profile(both_pages):
    rel = {attrs.get("rel"): attrs["href"] for attrs in Attributes(both_pages[0]).named("a")}
    assert rel["prev"] == "01_preprocess.html" and "next" not in rel
    assert '<a href="../index.html">' in both_pages[0]


def test_contents_lists_headings_with_anchors_of_their_own(project):
    page = rendered()
    anchors = [attrs["href"] for attrs in Attributes(page).named("a") if attrs["href"].startswith("#")]
    assert anchors == ["#Scores-%26-ranks", "#Scores-%26-ranks-2", "#Deeper"]
    assert page.count("<h1") == 1


def test_usual_reports_are_small(project):
    assert len(rendered().encode()) < 60_000


# --- cells -------------------------------------------------------------------------------------------------


def test_code_is_folded_and_parameters_are_named(project):
    page = rendered()
    folded = [attrs for attrs in Attributes(page).named("details") if attrs.get("class") == "code"]
    assert len(folded) == 3 and all("open" not in attrs for attrs in folded)
    assert "declared, with their defaults" in page and "given for this run" in page
    assert re.search(r"<summary>.*show\(table\).*</summary>", page)
    assert '<span class="kn">import</span>' in page


def test_alternative_texts_come_from_the_outputs(project):
    (image,) = Attributes(rendered()).named("img")
    assert image["alt"] == 'AUC by "model" & day'
    assert image["src"] == f"data:image/png;base64,{PIXEL}"


def test_image_without_alternative_text_says_so(project):
    cell = new_code_cell("plot()", outputs=[new_output("display_data", {"image/png": PIXEL})])
    (image,) = Attributes(rendered(cells=[cell])).named("img")
    assert image["alt"] == "A figure without a description"


def test_text_outputs_are_inert(project):
    page = rendered()
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3  # a result, a stream and a parameter
    assert "alert(2)" not in page and "plain instead" in page


def test_html_outputs_lose_what_runs(project):
    html = f'{SCRIPT}<table onclick="x()"><tbody><tr><td>kept</td></tr></tbody></table><iframe src="a"></iframe>'
    cell = new_code_cell("x", outputs=[new_output("display_data", {"text/html": html})])
    page = rendered(cells=[cell])
    assert "kept" in page
    assert not re.search(r"<script|<iframe|onclick", page)


def test_streams_are_plain(project):
    page = rendered()
    assert "\x1b" not in page
    assert "ebnerd_lib/x.py:3: mind" in page
    assert "100 %" in page and "10 %\r" not in page and ">10 %" not in page


def test_tables_scroll_by_themselves_under_their_caption(project):
    page = rendered()
    caption = r'<figcaption><span class="number">Table 1. </span>Scores by model</figcaption>'
    assert re.search(rf'<figure class="table">{caption}<div[^>]*class="scroll"', page)
    assert re.search(r"<td data-number=\"\">0.7034</td>", page)
    assert re.search(r'<th class="col1" data-number="">auc</th>', page)
    assert "<td>mlp</td>" in page and "mf &lt;b&gt;" in page


def test_columns_are_aligned_from_the_right_where_spans_shift_them(project):
    html = (
        '<table><thead><tr><th></th><th colspan="2">both</th></tr></thead><tbody>'
        '<tr><th rowspan="2">a</th><th>x</th><td>1</td></tr>'
        "<tr><th>y</th><td>[0.1, 0.2]</td></tr></tbody></table>"
    )
    page = rendered(cells=[new_code_cell("x", outputs=[new_output("display_data", {"text/html": html})])])
    assert page.count('data-number=""') == 2
    assert '<td data-number="">[0.1, 0.2]</td>' in page


def test_local_things_stay_local(project):
    page = rendered()
    for secret in (str(project), str(Path.home()), "hush", "SECRET", "/srv/somewhere", "papermill"):
        assert secret not in page, secret


# --- what the data are -------------------------------------------------------------------------------------


def test_generated_data_are_announced_before_the_title(both_pages):
    for page in both_pages:
        body = page[page.index("<body") :]
        assert body.index("Generated data") < re.search("<h1|<nav", body).start()
        assert "size smoke, seed 42" in re.sub(r"\s+", " ", body) and "generator version 7" in body


def test_real_data_are_named_and_not_called_generated(project):
    page = rendered(generated=None)
    assert "Generated data" not in page and "Generated data" not in index_page()
    assert '<p class="origin">Data: data/tiny</p>' in page


def test_failed_first_run_takes_the_stamp_of_the_declared_bundle(project):
    write(project / "params" / PROFILE / "01_preprocess.yaml", 'bundle: "data/tiny"\n')
    schema = new_code_cell('profile: str = ""\nbundle: str = ""', metadata={"tags": ["parameters"]})
    write(project / "notebooks/01_preprocess.ipynb", nbformat.writes(new_notebook(cells=[schema])))
    write(project / "data/tiny/generated.json", json.dumps({"generator_version": 7, "seed": 9, "size": "smoke"}))
    fail("01_preprocess")
    report.render_profile(PROFILE, STAGES)
    assert "seed 9" in index_page()
    assert "seed 9" in StagePaths(PROFILE, "01_preprocess").failed_report.read_text(encoding="utf-8")


def test_record_of_the_run(project):
    page = re.sub(r"\s+", " ", rendered(metrics={"models": {"mf": entry("clicks", 0.6), "mf_ids": entry("ids", 0.6)}}))
    for text in (
        "ids, clicks",
        "02_train_mf, tiny",
        "generated, size smoke, seed 42",
        "2025-01-02 03:04 UTC",
        "1 min 23 s",
        "2.0 GB",
        "cpu, 2 threads",
        "0123456789",
    ):
        assert f">{text}<" in page, text
    assert "with local changes" in page and "<li>numpy 2.2</li>" in page
    assert '<code>rate</code></td><td>0.001</td><td class="quiet">default' in page
    assert '<code>bundle</code></td><td>data/tiny</td><td class="quiet">parameter file' in page


# --- failures and other states -----------------------------------------------------------------------------


def test_failed_run_is_marked_and_its_error_comes_first(project):
    paths = fail("02_train_mf")
    assert report.render_profile(PROFILE, STAGES) == 1
    page = paths.failed_report.read_text(encoding="utf-8")
    assert not paths.report.exists()
    assert "<title>FAILED: Factorisation" in page
    first = page.index("ValueError: no &lt;b&gt;clicks&lt;/b&gt;")
    assert page.index("FAILED.</strong>") < first < page.index("traceback", page.index("<body"))
    assert 'href="#failed-cell"' in page and 'id="failed-cell"' in page
    assert re.search(r'<details class="code" open', page)


def test_tracebacks_hold_neither_escapes_nor_local_paths(project):
    paths = fail("02_train_mf")
    report.render_profile(PROFILE, STAGES)
    page = paths.failed_report.read_text(encoding="utf-8")
    assert "\x1b" not in page and "[31m" not in page
    for kept in (
        "File ebnerd_lib/models/mf.py:12",
        "File …/torch/nn.py:7",
        "~/scratch/x.py",
        "~/y.py",
        "(cell):1",
    ):
        assert kept in page, kept
    for path in (str(project), str(Path.home()) + "/", "/home/", "ipykernel_", "site-packages"):
        assert path not in page, path


def test_an_executed_notebook_is_made_plain_and_a_broken_one_is_left(project):
    paths = fail("02_train_mf")
    body.make_plain(paths.failed)
    text = paths.failed.read_text(encoding="utf-8")
    assert "File ebnerd_lib/models/mf.py:12" in text and "File …/torch/nn.py:7" in text and "no <b>clicks</b>" in text
    assert str(project) not in text and "/home/" not in text and "u001b" not in text
    before = nbformat.read(paths.failed, as_version=4)
    body.make_plain(paths.failed)
    assert nbformat.read(paths.failed, as_version=4) == before
    paths.failed.write_text('{"cells": [')
    body.make_plain(paths.failed)
    assert paths.failed.read_text() == '{"cells": ['
    assert [file.name for file in paths.failed.parent.iterdir()] == [paths.failed.name]


def test_papermills_own_notes_are_left_out(project):
    note = new_markdown_cell("An Exception was encountered", metadata={"tags": ["papermill-error-cell-tag"]})
    paths = StagePaths(PROFILE, "02_train_mf")
    write(paths.failed, nbformat.writes(notebook(note, failing_cell())))
    report.render_profile(PROFILE, STAGES)
    page = paths.failed_report.read_text(encoding="utf-8")
    assert "An Exception was encountered" not in page
    assert "ValueError: no &lt;b&gt;clicks" in page  # from the notebook, where failure.json is missing


def status_of(stage):
    row = index_page().split(f">{stage}<", 1)[1].split("</tr>", 2)
    return re.search(r'class="status [\w-]+">([\w ]+)<', row[0])[1], row[1]


def test_index_tells_the_states_apart(project):
    complete("01_preprocess")
    complete("02_train_mf", run="interactive", fingerprint=None)
    fail("03_train_mlp")
    report.render_profile(PROFILE, STAGES)
    assert status_of("01_preprocess")[0] == "complete"
    assert status_of("02_train_mf")[0] == "by hand" and "make run-all" in status_of("02_train_mf")[1]
    assert status_of("03_train_mlp")[0] == "failed"
    assert "ValueError: no &lt;b&gt;clicks&lt;/b&gt;" in status_of("03_train_mlp")[1]
    assert 'href="reports/03_train_mlp.failed.html"' in index_page()
    assert status_of("04_recommend")[0] == "not run" and "reports/04_recommend" not in index_page()


def test_index_of_a_run_that_left_no_notebook(project):
    paths = StagePaths(PROFILE, "01_preprocess")
    write(paths.failure, json.dumps({"message": f"DeadKernelError: {project}/x died"}))
    assert report.render_profile(PROFILE, STAGES) == 0
    assert status_of("01_preprocess")[0] == "failed"
    assert "DeadKernelError: x died" in index_page() and 'href="reports' not in index_page()


def test_artifacts_made_from_other_inputs_are_out_of_date(project):
    inputs = {f"outputs/{PROFILE}/artifacts/01_preprocess/scores.parquet": "s1"}
    complete("01_preprocess")
    complete("02_train_mf", inputs=inputs)
    report.render_profile(PROFILE, STAGES)
    assert status_of("02_train_mf")[0] == "complete"
    complete("01_preprocess", outputs={"scores.parquet": "s2"})
    report.render_profile(PROFILE, STAGES)
    assert status_of("02_train_mf")[0] == "out of date" and "01_preprocess ran again" in status_of("02_train_mf")[1]


def test_report_of_an_earlier_batch_run_does_not_borrow_the_record_of_a_later_one(project):
    page = rendered(run="interactive", started="2031-01-01T00:00:00+00:00")
    assert "2031-" not in page and "2025-01-02 03:04 UTC" in page
    assert "run by hand since" in page


def test_run_by_hand_after_a_failure_counts(project):
    paths = complete("01_preprocess", run="interactive")
    write(paths.failure, json.dumps({"message": "old"}))
    os.utime(paths.failure, (1, 1))
    report.render_profile(PROFILE, STAGES)
    assert status_of("01_preprocess")[0] == "by hand"


# --- when to render ----------------------------------------------------------------------------------------


def test_nothing_is_rendered_twice(project):
    complete("01_preprocess")
    complete("02_train_mf")
    assert report.render_profile(PROFILE, STAGES) == 2
    pages = sorted(StagePaths(PROFILE, "").outputs.rglob("*.html"))
    before = {page: (page.stat().st_mtime_ns, page.stat().st_ino) for page in pages}
    assert len(pages) == 3
    assert all(b"<!-- render " in page.read_bytes()[:300] for page in pages)
    assert report.render_profile(PROFILE, STAGES) == 0
    assert before == {page: (page.stat().st_mtime_ns, page.stat().st_ino) for page in pages}
    assert not list(StagePaths(PROFILE, "").outputs.rglob("*.tmp"))


@pytest.mark.parametrize("template", ["style.css", "page.html.j2", "report/index.html.j2"])
def test_a_changed_template_renders_everything(project, template):
    complete("01_preprocess", cells=[])
    complete("02_train_mf", cells=[])
    report.render_profile(PROFILE, STAGES)
    before = index_page()
    file = project / "templates" / template
    file.write_text(file.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert report.render_profile(PROFILE, STAGES) == 2
    assert index_page()[:200] != before[:200]


def test_only_what_changed_is_rendered(project):
    complete("01_preprocess", cells=[])
    complete("02_train_mf", cells=[])
    report.render_profile(PROFILE, STAGES)
    complete("02_train_mf", cells=[new_markdown_cell("more")])
    assert report.render_profile(PROFILE, STAGES) == 1
    StagePaths(PROFILE, "01_preprocess").report.unlink()
    assert report.render_profile(PROFILE, STAGES) == 1


def test_checking_imports_nothing_that_renders(project):
    complete("01_preprocess", cells=[])
    report.render_profile(PROFILE, STAGES)
    code = (
        "import sys, pathlib; from ebnerd_lib.pipeline import layout\n"
        "from ebnerd_lib.pipeline.pages import report, scorers\n"
        f"layout.ROOT = pathlib.Path({str(project)!r})\n"
        f"assert report.render_profile({PROFILE!r}, {STAGES!r}) == 0\n"
        f"scorers.headline({PROFILE!r}, {STAGES!r})\n"
        "heavy = {'nbconvert', 'jinja2', 'nbformat', 'bs4', 'pandas', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    repository = Path(report.__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_profile_without_outputs_gets_none(project):
    assert report.render_profile(PROFILE, STAGES) == 0
    assert not (project / "outputs").exists()


# --- figures -----------------------------------------------------------------------------------------------


@pytest.fixture
def scored(project):
    complete("01_preprocess", {"baselines": {"random": entry("ids", 0.5), "popular": entry("clicks", 0.61)}}, [])
    complete("02_train_mf", {"models": {"mf_ids": entry("ids", 0.55)}}, [])
    complete("03_train_mlp", {"models": {"mlp": entry("clicks", 0.7123), SCRIPT: entry("content", 0.4)}}, [])
    return project


def test_headline_is_sorted_and_aligned(scored):
    head, *lines = scorers.headline(PROFILE, STAGES)
    assert [line.split()[0] for line in lines] == ["mlp", "popular", "mf_ids", "random", SCRIPT]
    assert lines[0].split() == ["mlp", "clicks", "0.7123", "0.6923", "to", "0.7323", "0.2500"]
    assert {line.index(" 0.") for line in lines} == {head.index(" AUC")}
    assert "(baseline)" in lines[1] and "(baseline)" not in lines[0]


def test_headline_leaves_out_what_failed(scored):
    fail("03_train_mlp")
    assert [line.split()[0] for line in scorers.headline(PROFILE, STAGES)[1:]] == [
        "popular",
        "mf_ids",
        "random",
    ]


def test_headline_without_figures_is_empty(project):
    complete("01_preprocess", {"rows": 3, "baselines": {"broken": {}}}, [])
    assert scorers.headline(PROFILE, STAGES) == []
    report.render_profile(PROFILE, STAGES)
    assert "No stage has left figures yet" in index_page()


def test_index_shows_every_scorer_with_its_interval(scored):
    report.render_profile(PROFILE, STAGES)
    page = index_page()
    rows = re.findall(r'<tr class="(model|baseline)">(.*?)</tr>', page, re.DOTALL)
    assert [kind for kind, _ in rows] == ["model", "baseline", "model", "baseline", "model"]
    assert "0.7123" in rows[0][1] and "0.6923 to 0.7323" in rows[0][1] and "12,345" in page
    assert 'role="img" aria-label="AUC 0.7123, 95 % interval 0.6923 to 0.7323; chance is 0.5"' in rows[0][1]
    assert SCRIPT not in page and "&lt;script&gt;" in page
    for tier in TIERS:
        assert f"<dt>{tier}</dt>" in page


def test_interval_bars_lie_on_one_scale(scored):
    report.render_profile(PROFILE, STAGES)
    points = [float(x) for x in re.findall(r'class="point" x1="([\d.]+)"', index_page())]
    chance = {float(x) for x in re.findall(r'class="chance" x1="([\d.]+)"', index_page())}
    assert points == sorted(points, reverse=True) and all(0 < x < 128 for x in points)
    assert chance == {points[3]}  # random scores exactly 0.5


# --- the summary -------------------------------------------------------------------------------------------


def summary_of(page):
    return re.sub(r"\s+", " ", page.split('aria-label="Summary"', 1)[1].split("</section>", 1)[0])


def test_the_summary_comes_first_and_compares_with_baselines_that_know_no_more(scored):
    report.render_profile(PROFILE, STAGES)
    page = StagePaths(PROFILE, "03_train_mlp").report.read_text(encoding="utf-8")
    told = summary_of(page)
    assert page.index('aria-label="Summary"') < page.index("<main>")
    assert "0.7123" in told and "0.6923 to 0.7323" in told and "12,345" in told
    assert "+0.1023</span> <small>above popular (clicks)</small>" in told, "popular knows clicks, as mlp does"
    assert "-0.1000</span> <small>below random (ids)</small>" in told, "a content scorer is not compared with clicks"
    page = StagePaths(PROFILE, "01_preprocess").report.read_text(encoding="utf-8")
    assert "popular" in summary_of(page) and "verdict" not in summary_of(page)


def test_close_scorers_are_not_told_apart(project):
    complete("01_preprocess", {"baselines": {"random": entry("ids", 0.5)}}, [])
    complete("02_train_mf", {"models": {"mf_ids": entry("ids", 0.53)}}, [])
    report.render_profile(PROFILE, STAGES)
    told = summary_of(StagePaths(PROFILE, "02_train_mf").report.read_text(encoding="utf-8"))
    assert "+0.0300</span> <small>not told apart from random (ids)</small>" in told


def test_a_stage_puts_figures_of_its_own_first(project):
    told = [
        {"what": "users served", "value": 1234},
        {"what": "diversity", "value": 0.51234, "interval": [0.5, 0.52], "note": "clicks"},
        {"what": SCRIPT, "value": SCRIPT},
        "not an entry",
    ]
    page = summary_of(rendered(metrics={"headline": told}))
    assert "<b>1,234</b>" in page and "<b>0.512</b> <span>0.500 to 0.520</span> <small>clicks</small>" in page
    assert "not an entry" not in page and "<script" not in page and page.count("&lt;script&gt;") == 3


def test_a_report_of_an_earlier_run_shows_no_figures_of_the_present_one(project):
    page = rendered(
        run="interactive", metrics={"models": {"mf_ids": entry("ids", 0.61)}, "headline": [{"what": "n", "value": 7}]}
    )
    assert "0.6100" not in summary_of(page) and "<b>7</b>" not in page


def test_the_question_is_under_the_title_and_nowhere_else(project):
    page = rendered(cells=[new_markdown_cell("**Question.** What *is* learnt?\n\n**In:** slates.")])
    assert (
        '<p class="question">What is learnt?</p>' in page
        and page.count("What ") == 1
        and "<strong>In:</strong>" in page
    )


def test_figures_have_numbers_and_their_description_as_a_caption(project):
    page = rendered()
    caption = (
        '<figcaption aria-hidden="true"><span class="number">Figure 1. </span>AUC by "model" &amp; day</figcaption>'
    )
    assert caption in page


def test_what_a_cell_tagged_fold_shows_is_folded(project):
    shown = [new_output("display_data", {"text/html": TABLE})]
    page = rendered(cells=[new_code_cell("show()", metadata={"tags": ["fold"]}, outputs=shown)])
    assert re.search(r'<details class="fold"><summary>Table 1. Scores by model</summary>\s*<div class="output">', page)
    assert "data-fold" not in page and "<figcaption" not in page


def test_the_best_of_each_tier_is_marked(scored):
    report.render_profile(PROFILE, STAGES)
    assert re.findall(r'data-label="AUC" data-number class="best">([\d.]+)<', index_page()) == ["0.7123", "0.5500"]


# --- what changed, and the index over all profiles ---------------------------------------------------------


def test_stale_stages_are_told_with_what_changed(project):
    complete("01_preprocess", cells=[])
    report.render_profile(PROFILE, STAGES, {"01_preprocess": "its parameters changed: seed 1, now 2"})
    state, message = status_of("01_preprocess")
    assert state == "out of date" and "seed 1, now 2; `make run-all` runs this stage again." in message


def test_the_index_shows_the_last_lines_of_a_traceback(project):
    fail("02_train_mf")
    report.render_profile(PROFILE, STAGES)
    told = re.search(r'<pre tabindex="0">(.*?)</pre>', index_page(), re.DOTALL)[1]
    assert told.endswith("ValueError: no &lt;b&gt;clicks&lt;/b&gt;") and "ebnerd_lib/models/mf.py:12" in told
    assert "\x1b" not in told and str(project) not in told


def overview():
    report.render_overview()
    return report.overview_file().read_text(encoding="utf-8")


def test_the_index_of_all_tells_states_figures_and_reasons(scored):
    for stage in STAGES:
        write(scored / "params" / PROFILE / f"{stage}.yaml", "")
        write(scored / "notebooks" / f"{stage}.ipynb", nbformat.writes(new_notebook(cells=[SCHEMA])))
    write(scored / "outputs/study/report.html", "<html><title>Study on 3 &amp; more</title></html>")
    fail("03_train_mlp", "ValueError: lost")
    page = re.sub(r"\s+", " ", overview())
    assert '<a href="tiny/index.html">tiny</a>' in page and "0 of 4 complete" in page
    assert "popular <small>clicks, 0.6100</small>" in page and ">0.5500<" in page and "0.5300 to 0.5700" in page
    assert "03_train_mlp failed</span> ValueError: lost" in page
    assert "01_preprocess out of date" in page and "its parameters changed: bundle" in page
    assert '<a href="study/report.html">Study on 3 &amp; more</a>' in page
    assert not re.search(r"https?://|<script", page)


def test_the_index_of_all_is_written_again_only_when_it_changes(scored):
    overview()
    before = report.overview_file().stat().st_mtime_ns
    overview()
    assert report.overview_file().stat().st_mtime_ns == before
    write(scored / "outputs/bench/report.html", "<title>Benchmarks</title>")
    assert "Benchmarks" in overview()


def test_all_pages_are_rendered_again_without_running(scored):
    write(scored / "params" / PROFILE / "01_preprocess.yaml", "")
    write(scored / "params/never_run/01_preprocess.yaml", "")
    write(scored / "notebooks/01_preprocess.ipynb", nbformat.writes(new_notebook(cells=[SCHEMA])))
    assert report.render_all() == ["tiny: 1 reports rendered, index outputs/tiny/index.html"]
    assert report.overview_file().exists() and "never_run" not in overview()
    write(scored / "params" / PROFILE / "01_preprocess.yaml", "sed: 1\n")
    (line,) = report.render_all()
    assert line.startswith("tiny: not rendered: params/tiny/01_preprocess.yaml") and "sed" in overview()
