"""Reports and the index, rendered from notebooks written by hand, and those of a finished run."""

import base64
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from conftest import CANARY
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from page import Page

from ebnerd_lib.features.registry import TIERS
from ebnerd_lib.pipeline import paths as layout
from ebnerd_lib.pipeline import report, runs
from ebnerd_lib.pipeline.paths import StagePaths

PROFILE = "tiny"
STAGES = ["01_preprocess", "02_train_mf", "03_train_mlp", "04_recommend"]
PIXEL = base64.b64encode(b"\x89PNG not really").decode()
SCRIPT = "<script>alert(1)</script>"
PARAMETERS = "<table><caption>Effective parameters</caption><tbody><tr><td>rate</td><td>0.001</td></tr></tbody></table>"
TABLE = (
    '<style type="text/css"></style><table id="T_1"><caption>Scores by model</caption>'
    '<thead><tr><th class="col0">name</th><th class="col1">auc</th></tr></thead>'
    "<tbody><tr><td>mlp</td><td>0.7034</td></tr><tr><td>mf &lt;b&gt;</td><td>–</td></tr></tbody></table>"
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    for name in ("templates", "notebooks"):
        shutil.copytree(layout.ROOT / name, tmp_path / name)
    monkeypatch.setattr(layout, "ROOT", tmp_path)
    monkeypatch.setattr(runs, "stale_stages", lambda profile, configs: {})  # these artifacts were not run
    for stage in STAGES:
        write(tmp_path / "params" / PROFILE / f"{stage}.yaml", "")
    write(tmp_path / "params" / PROFILE / "04_recommend.yaml", 'models: ["mlp"]')
    return tmp_path


def notebook(*cells):
    papermill = {
        "parameters": {"bundle": "data/tiny", "profile": PROFILE}, "start_time": "2025-01-02T03:04:05+00:00",
        "duration": 83.4, "environment_variables": {"SECRET": "hush"}, "input_path": "/srv/somewhere/in.ipynb",
    }  # fmt: skip
    language = {"name": "python", "pygments_lexer": "ipython3"}
    return new_notebook(
        cells=[new_markdown_cell("# Factorisation\n\nWhy."), *cells],
        metadata={"language_info": language, "papermill": papermill},
    )


def usual_cells():
    return [
        new_code_cell("seed: int = 0", metadata={"tags": ["parameters"]}),
        new_code_cell("seed = 1", metadata={"tags": ["injected-parameters"]}),
        new_code_cell("start()", outputs=[new_output("display_data", {"text/html": PARAMETERS})]),
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


def results(auc):
    same = dict.fromkeys(("mrr", "ndcg@5", "ndcg@10", "logloss", "f1", "accuracy"), 0.25)
    return {"auc": auc, "auc_ci": [auc - 0.02, auc + 0.02], "impressions": 12345, "left_out": 0, **same}


def entry(tier, auc):
    return {"tier": tier, "validation": results(auc), "tuning": results(auc)}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def complete(stage, metrics=None, cells=None, **changes):
    paths = StagePaths(PROFILE, stage)
    manifest = {
        "stage": stage, "profile": PROFILE, "status": "complete", "run": "batch", "fingerprint": "f",
        "generated": {"generator_version": 7, "seed": 42, "size": "smoke"},
        "parameters": {"profile": PROFILE, "bundle": "data/tiny", "seed": 1, "tier": "clicks", "note": SCRIPT},
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


def page_of(stage):
    return StagePaths(PROFILE, stage).report.read_text(encoding="utf-8")


def rendered(stage="02_train_mf", **changes):
    complete(stage, **changes)
    assert report.render_profile(PROFILE) == 1
    return page_of(stage)


def index_page():
    return (StagePaths(PROFILE, "").outputs / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def both_pages(project):
    """A report with a neighbour, and the index."""
    complete("01_preprocess", {"baselines": {"random": entry("ids", 0.5)}})
    complete("02_train_mf", {"models": {"mf_ids": entry("ids", 0.61)}})
    assert report.render_profile(PROFILE) == 2
    return page_of("02_train_mf"), index_page()


def test_outputs_of_a_run_say_nothing_of_the_machine(finished):
    outputs = finished / "outputs" / "smoke"
    files = [file for file in outputs.rglob("*") if file.is_file() and "logs" not in file.relative_to(outputs).parts]
    assert {file.suffix for file in files} >= {".json", ".html", ".ipynb", ".parquet", ".npy", ".pt"}
    for file in files:
        content = re.sub(rb"base64,[\w+/=]+", b"", file.read_bytes())
        for name in (str(finished), str(Path.home()) + "/", sys.prefix, tempfile.gettempdir() + "/", CANARY):
            assert name.encode() not in content, (file, name)


def test_pages_of_a_run_are_safe_and_their_links_lead_somewhere(finished):
    pages = sorted((finished / "outputs").glob("**/*.html"))
    assert len(pages) > 5
    for page in pages:
        assert Page(page.read_text(encoding="utf-8")).active == []
    assert_links(pages)


def assert_links(pages: list[Path]) -> None:
    """See that every link of some pages leads to one of them and an anchor that it has, to a file, or holds a table."""
    tags = {page.resolve(): Page(page.read_text(encoding="utf-8")) for page in pages}
    anchors = {page: {"", *own.all("id")} for page, own in tags.items()}
    for page, own in tags.items():
        for target in (attrs["href"] for attrs in own.named("a") if "download" not in attrs):
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            assert unquote(anchor) in anchors[file] if file in tags else file.suffix in (".ipynb", ".json"), target
            assert file.exists()


def test_pages_refer_to_nothing_outside_and_link_each_other(both_pages):
    for page in both_pages:
        assert Page(page).active == []
        assert not re.search(r"https?://", page)
    assert_links(list(report.overview_file().parent.glob("**/*.html")))
    page = both_pages[0]
    assert "a paper (example.org/a)" in page and "example.org/b" in page, "addresses are written out"
    links = Page(page).named("a")
    assert {"href": "01_preprocess.html"} in links, "a link to a notebook leads to its report"
    neighbours = {attrs.get("rel"): attrs["href"] for attrs in links}
    assert neighbours["prev"] == "01_preprocess.html" and "next" not in neighbours
    anchors = [attrs["href"] for attrs in links if re.match("#[SD]", attrs["href"])]
    assert anchors == ["#Scores-%26-ranks", "#Scores-%26-ranks-2", "#Deeper"] and page.count("<h1") == 1


def test_code_is_folded_and_pictures_have_their_description_and_one_for_phones(project):
    svg = new_output("display_data", {"image/svg+xml": "<svg/>", "text/plain": "x"},
                     metadata={"image/svg+xml": {"alt": "a", "narrow": "<svg id='narrow'/>"}})  # fmt: skip
    page = rendered(cells=[*usual_cells(), new_code_cell("x", outputs=[svg])])
    folded = [attrs for attrs in Page(page).named("details") if attrs.get("class") == "code"]
    assert len(folded) == 5 and all("open" not in attrs for attrs in folded)
    assert '<span class="kn">import</span>' in page
    image, _ = Page(page).named("img")
    assert image == {"alt": 'AUC by "model" & day', "src": f"data:image/png;base64,{PIXEL}"}
    assert re.search(r"<figcaption[^>]*>.*AUC by \"model\" &amp; day</figcaption>", page)
    (source,) = Page(page).named("source")
    assert "max-width" in source["media"] and b"narrow" in base64.b64decode(source["srcset"].partition(",")[2])
    assert Page(page).active == []


def test_tables_scroll_under_their_caption_with_numbers_aligned_and_intervals_below_them(project):
    shown = [new_output("display_data", {"text/html": TABLE.replace("0.7034", "0.7034 [0.6934, 0.7134]")})]
    page = rendered(cells=[new_code_cell("show()", metadata={"tags": ["fold"]}, outputs=shown)])
    assert re.search(r'<details class="fold"><summary>.*Scores by model</summary>', page)
    assert re.search(r'<figcaption>.*Scores by model<a.*</figcaption><div[^>]*class="scroll"', page)
    (link,) = [attrs for attrs in Page(page).named("a") if "download" in attrs]
    csv = base64.b64decode(link["href"].partition(",")[2]).decode()
    assert csv.splitlines() == ["name,auc", 'mlp,"0.7034 [0.6934, 0.7134]"', "mf <b>,–"]
    assert '<td data-number="">0.7034 <small>[0.6934, 0.7134]</small></td>' in page
    assert '<th class="col1" data-number="">auc</th>' in page and "<td>mlp</td>" in page and "mf &lt;b&gt;" in page


def test_outputs_are_inert_and_plain(project):
    html = f'{SCRIPT}<table onclick="x()"><tbody><tr><td>kept</td></tr></tbody></table><iframe src="a"></iframe>'
    cell = new_code_cell("x", outputs=[new_output("display_data", {"text/html": html})])
    page = rendered(cells=[*usual_cells(), cell])
    assert Page(page).active == []
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2, "a result and a stream"
    assert "alert(2)" not in page and "plain instead" in page and "kept" in page
    assert "\x1b" not in page and "ebnerd_lib/x.py:3: mind" in page
    assert "100 %" in page and ">10 %" not in page, "a line that was written over"
    for secret in (str(project), str(Path.home()), "hush", "SECRET", "/srv/somewhere", "papermill"):
        assert secret not in page, secret


def test_generated_data_are_announced_before_the_title_and_real_data_named(both_pages):
    for page in both_pages:
        body = page[page.index("<body") :]
        assert body.index("Generated data") < re.search("<h1|<nav", body).start() and "seed 42" in body
    for stage in STAGES[:2]:
        complete(stage, generated=None)
    report.render_profile(PROFILE)
    page = page_of("02_train_mf")
    assert "Generated data" not in page + index_page() and "data/tiny" in page


def test_record_of_the_run(project):
    page = re.sub(r"\s+", " ", rendered(metrics={"rows": 3}))
    for text in ("clicks", "2025-01-02 03:04 UTC", "1 min 23 s"):
        assert f">{text}<" in page, text
    links = {attrs["href"] for attrs in Page(page).named("a")}
    assert {f"../{name}" for name in ("notebooks/02_train_mf.ipynb", "artifacts/02_train_mf/metrics.json")} <= links
    assert ">2.0 GB<" in index_page() and ">0123456789<" in index_page()


def test_many_lines_are_folded_under_the_picture_that_shows_them(project):
    printed = new_code_cell("fit()", outputs=[new_output("stream", text="\n".join(f"epoch {n}" for n in range(30)))])
    picture = new_code_cell("plot()", outputs=[new_output("display_data", {"image/png": PIXEL, "text/plain": "x"})])
    page = rendered(cells=[printed, picture])
    assert page.index("<img") < page.index("epoch 7") and re.search(r"<summary>30 .*epoch 29</summary>", page)
    assert '<details class="fold">' not in rendered(cells=[new_code_cell("x", outputs=printed.outputs[:0])])


def test_a_failed_run_is_marked_with_its_error_first_and_no_local_path(project):
    paths = fail("02_train_mf")
    assert report.render_profile(PROFILE) == 1
    page = paths.failed_report.read_text(encoding="utf-8")
    assert not paths.report.exists() and "<title>FAILED" in page
    assert page.index("ValueError: no &lt;b&gt;clicks&lt;/b&gt;") < page.index("traceback", page.index("<body"))
    assert 'href="#failed-cell"' in page and 'id="failed-cell"' in page
    assert re.search(r'<details class="code" open', page) and "\x1b" not in page and "[31m" not in page
    for kept in ("File ebnerd_lib/models/mf.py:12", "File …/torch/nn.py:7", "~/scratch/x.py", "~/y.py", "(cell):1"):
        assert kept in page, kept
    report.make_plain(paths.failed)
    executed = paths.failed.read_text(encoding="utf-8")
    assert "File ebnerd_lib/models/mf.py:12" in executed and "u001b" not in executed
    for path in (str(project), str(Path.home()) + "/", "/home/", "ipykernel_", "site-packages"):
        assert path not in page + executed, path


def status_of(stage):
    row = index_page().split(f">{stage}<", 1)[1].split("</tr>", 2)
    return re.search(r'class="status [\w-]+">([\w ]+)<', row[0])[1], row[1]


def test_the_index_shows_the_state_of_each_stage_and_of_other_runs(project, monkeypatch):
    complete("01_preprocess")
    complete("02_train_mf", run="train")
    fail("03_train_mlp")
    others = ["03_train_mlp.gone", "03_train_mlp.lab1"]
    for stage in others:
        complete(stage, {"models": {stage: entry("clicks", 0.9)}}, parameters={"hidden": [7]}).executed.unlink()
    changed = {"01_preprocess": "its parameters changed: seed 1, now 2"}
    monkeypatch.setattr(runs, "stale_stages", lambda profile, configs: changed)
    report.render_profile(PROFILE)
    states = ["out of date", "complete", "failed", "not run", "left over", "by hand"]
    assert [status_of(stage)[0] for stage in [*STAGES, *others]] == states
    assert "seed 1, now 2" in status_of("01_preprocess")[1] and "03_train_mlp.gone.yaml" in status_of(others[0])[1]
    assert index_page().count("hidden [7]") == 2 and runs.headline(PROFILE) == [], "no scorers of the profile"
    assert "ValueError: no &lt;b&gt;clicks&lt;/b&gt;" in status_of("03_train_mlp")[1]
    assert 'href="reports/03_train_mlp.failed.html"' in index_page() and "reports/04_recommend" not in index_page()


def test_a_report_of_an_earlier_run_shows_nothing_of_the_present_one(project):
    metrics = {"models": {"mf_ids": entry("ids", 0.61)}, "headline": [{"what": "n", "value": 7}]}
    page = rendered(run="interactive", started="2031-01-01T00:00:00+00:00", metrics=metrics)
    assert "2031-" not in page and "2025-01-02 03:04 UTC" in page
    assert "0.6100" not in summary_of(page) and "<b>7</b>" not in page


def test_the_last_complete_report_stays_and_says_so_while_a_newer_run_is_not_complete(project):
    paths = complete("01_preprocess")
    report.render_profile(PROFILE)
    fail("01_preprocess")
    report.render_profile(PROFILE)
    assert status_of("01_preprocess")[0] == "failed"
    page = paths.report.read_text(encoding="utf-8")
    assert "FAILED" not in page and "last batch run that was complete" in page
    assert f'href="{paths.report.name}"' in paths.failed_report.read_text(encoding="utf-8")
    for file in (paths.failed, paths.failure, paths.failed_report):
        file.unlink()
    os.utime(paths.manifest, ns=(2**62, 2**62))  # the artifacts are newer than the notebook that a kill left
    report.render_profile(PROFILE)
    assert status_of("01_preprocess")[0] == "out of date"
    assert "last batch run that was complete" in paths.report.read_text(encoding="utf-8")


def test_only_what_changed_is_rendered_again(project):
    for stage in STAGES[:2]:
        complete(stage, cells=[])
    assert report.render_profile(PROFILE) == 2
    before = {page: page.stat().st_mtime_ns for page in StagePaths(PROFILE, "").outputs.rglob("*.html")}
    assert len(before) == 3 and report.render_profile(PROFILE) == 0
    assert before == {page: page.stat().st_mtime_ns for page in StagePaths(PROFILE, "").outputs.rglob("*.html*")}
    complete("02_train_mf", cells=[new_markdown_cell("more")])
    StagePaths(PROFILE, "01_preprocess").report.unlink()
    assert report.render_profile(PROFILE) == 2
    complete("02_train_mf", cells=[])
    assert report.render_profile(PROFILE) == 1
    write(project / "templates" / "style.css", "")
    assert report.render_profile(PROFILE) == 2, "a changed template renders everything"


@pytest.fixture
def scored(project):
    complete("01_preprocess", {"baselines": {"random": entry("ids", 0.5), "popular": entry("clicks", 0.61)}}, [])
    complete("02_train_mf", {"models": {"mf_ids": entry("ids", 0.53)}, **vs("mf_ids", "random", 0.03)}, [])
    both = {"mlp": entry("clicks", 0.7123), SCRIPT: entry("content", 0.4)}
    complete("03_train_mlp", {"models": both, **vs("mlp", "popular", 0.1)}, [])
    return project


def vs(model, baseline, difference):
    """What a training stage says of its model and the best baseline, and its answer."""
    ends = [difference - 0.04, difference + 0.04]
    own = {"baseline": baseline, "tier": "ids", "auc": difference, "auc_ci": ends}
    return {"vs_baseline": {model: own}, "answer": f"{model} is told of <b>"}


def test_the_lines_for_the_terminal_are_sorted_aligned_and_leave_out_what_failed(scored):
    head, *lines = runs.headline(PROFILE)
    assert [line.split()[0] for line in lines] == ["mlp", "popular", "mf_ids", "random", SCRIPT]
    assert lines[0].split()[:3] == ["mlp", "clicks", "0.7123"] and "[0.6923, 0.7323]" in lines[0]
    assert {line[head.index("AUC") :][:2] for line in lines} == {"0."}
    fail("03_train_mlp")
    assert [line.split()[0] for line in runs.headline(PROFILE)[1:]] == ["popular", "mf_ids", "random"]


def test_the_indexes_tell_what_is_best_on_what_and_against_what(scored):
    complete("01_preprocess", {"parts": [{"part": "validation", "impressions": 4321, "users": 7}]}, [])
    told = {stage: f"{stage} answers" for stage in ("04_recommend", "05_compare")}
    for stage, answer in told.items():
        write(scored / "params" / PROFILE / f"{stage}.yaml", 'models: ["mlp"]')
        complete(stage, {"answer": answer}, [])
    write(scored / "params/never_run/01_preprocess.yaml", "")
    assert len(report.render_all()) == 1
    for page in (index_page().partition("<main>")[0], overview()):
        assert page.index(told["05_compare"]) < page.index(told["04_recommend"])
        assert "4,321" in page and "too few" in page and "+0.1000" in page and "[0.0600, 0.1400]" in page
        assert "popular" in page and "generated" in page.lower() and "never_run" not in page
    assert all(f"<dt>tier {tier}</dt>" in overview() for tier in TIERS)
    assert '<a href="tiny/index.html">tiny</a>' in overview() and Page(overview()).active == []
    before = report.overview_file().stat().st_mtime_ns
    report.render_all()
    assert report.overview_file().stat().st_mtime_ns == before, "written again only when it changes"


def test_what_is_wrong_stands_on_both_indexes(scored):
    write(StagePaths(PROFILE, "03_train_mlp").failure, json.dumps({"message": f"DeadKernelError: {scored}/x died"}))
    report.render_profile(PROFILE)
    for page in (index_page(), overview()):
        assert "failed" in page and "DeadKernelError: x died" in page, "though it left no notebook"
    write(scored / "params" / PROFILE / "01_preprocess.yaml", "sed: 1\n")
    report.render_profile(PROFILE)
    assert all("params/tiny/01_preprocess.yaml" in page and "sed" in page for page in (index_page(), overview()))


def test_without_outputs_there_are_no_pages_and_without_scorers_no_lines(project):
    assert report.render_profile(PROFILE) == 0 and not (project / "outputs").exists()
    complete("01_preprocess", {"rows": 3, "baselines": {"broken": {}}}, [])
    assert runs.headline(PROFILE) == [] and report.render_profile(PROFILE) == 1


def test_the_index_shows_every_scorer_with_its_interval_on_one_scale(scored):
    report.render_profile(PROFILE)
    page = index_page()
    rows = re.findall(r'<tr class="(model|baseline)">(.*?)</tr>', page, re.DOTALL)
    assert [kind for kind, _ in rows] == ["model", "baseline", "model", "baseline", "model"]
    assert "0.7123" in rows[0][1] and "[0.6923, 0.7323]" in rows[0][1] and "12,345" in page
    assert re.search(r'role="img" aria-label="AUC 0\.7123', rows[0][1])
    assert SCRIPT not in page and "&lt;script&gt;" in page
    points = [float(x) for x in re.findall(r'class="point" x1="([\d.]+)"', page)]
    chance = {float(x) for x in re.findall(r'class="chance" x1="([\d.]+)"', page)}
    assert points == sorted(points, reverse=True) and chance == {points[3]} == {0.5}, "random scores exactly 0.5"
    best = re.findall(r'data-label="AUC" data-number class="best">([\d.]+) <', page)
    assert best == ["0.7123", "0.5300"], "of tiers with more than one scorer, and only models"


def summary_of(page):
    return re.sub(r"\s+", " ", page.split('aria-label="Summary"', 1)[1].split("</section>", 1)[0])


def test_the_summary_comes_first_and_compares_with_baselines_that_know_no_more(scored):
    report.render_profile(PROFILE)
    page = page_of("03_train_mlp")
    assert page.index('aria-label="Summary"') < page.index("<main>")
    assert all(number in summary_of(page) for number in ("0.7123", "[0.6923, 0.7323]", "12,345"))
    assert "+0.1000" in summary_of(page) and 'class="verdict above"' in page and "popular" in summary_of(page)
    assert 'class="verdict unclear"' in page_of("02_train_mf") and "–" in summary_of(page), "one has no baseline"
    known = runs.read_runs(PROFILE)
    found = {each["name"]: each["against"] for run in known for each in runs.own_scorers(run, known)}
    assert found["mlp"]["baseline"] == "popular" and found[SCRIPT] is None and found["popular"] is None


def test_a_stage_puts_results_of_its_own_and_its_question_first(project):
    told = [
        {"what": "users served", "value": 1234},
        {"what": "diversity", "value": 0.51234, "interval": [0.5, 0.52], "note": "clicks"},
        {"what": SCRIPT, "value": SCRIPT},
    ]
    question = new_markdown_cell("**Question.** What *is* learnt?\n\n**In:** slates.")
    page = rendered(metrics={"headline": told, "answer": f"Much {SCRIPT}."}, cells=[question])
    assert page.index("What is learnt?") < page.index("Much &lt;script&gt;") < page.index('aria-label="Summary"')
    summary = summary_of(page)
    assert "<b>1,234</b>" in summary and "<b>0.5123</b>" in summary and "[0.5000, 0.5200]" in summary
    assert summary.count("&lt;script&gt;") == 2
    assert '<p class="question">What is learnt?</p>' in page and page.count("What ") == 1


def overview():
    return report.overview_file().read_text(encoding="utf-8")
