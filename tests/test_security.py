"""No input runs code and no output tells where it was made: files read, bundles shown in reports, runs recorded."""

import ast
import contextlib
import getpass
import http.server
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ebnerd_lib import plots, tables
from ebnerd_lib.__main__ import main
from ebnerd_lib.errors import StageError
from ebnerd_lib.features import store
from ebnerd_lib.pipeline.config import code_cells
from ebnerd_lib.pipeline.layout import ROOT
from ebnerd_lib.pipeline.pages.body import Body
from ebnerd_lib.training.model_file import load_model

# --- what the code may call --------------------------------------------------------------------------------

RUNS_CODE = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "marshal.load", "marshal.loads", "shelve.open", "joblib.load", "dill.load", "dill.loads", "cloudpickle.load",
    "cloudpickle.loads", "pd.read_pickle", "pandas.read_pickle", "yaml.unsafe_load", "yaml.full_load",
    "yaml.unsafe_load_all", "yaml.full_load_all", "torch.hub.load", "runpy.run_path",
}  # fmt: skip
UNPACKS = {"extractall", "unpack_archive"}
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader", "SafeLoader", "CSafeLoader"}
ALLOWED = {
    ("tests/test_security.py", "pickle.loads"),  # of its own payloads
    ("tests/test_security.py", "np.save"),
}


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


def unsafe_calls(source: str) -> list[str]:
    """Return the calls in a module that could run what a file holds, or hand it to a shell."""
    tree = ast.parse(source)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    safe = SAFE_LOADERS | {c.name for c in classes if {ast.unparse(base) for base in c.bases} & SAFE_LOADERS}
    found = []
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name, last = called(node), called(node).split(".")[-1]
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg}
        loader = given.get("Loader") or (ast.unparse(node.args[1]) if len(node.args) > 1 else None)
        if (
            name in RUNS_CODE
            or last in UNPACKS
            or (name == "torch.load" and given.get("weights_only") != "True")
            or (last == "load_from_checkpoint" and given.get("weights_only") != "True")
            or (given.get("ckpt_path", "None") != "None" and given.get("weights_only") != "True")
            or (given.get("weights_only", "True") != "True" and last != "save_checkpoint")
            or given.get("allow_pickle", "False") != "False"
            or given.get("shell", "False") != "False"
            or (name in ("yaml.load", "yaml.load_all") and loader not in safe)
            or (last == "Environment" and "autoescape" not in given and "loader" in given)
        ):
            found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


def sources() -> dict[str, str]:
    files = [*(ROOT / "ebnerd_lib").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").rglob("*.py")]
    found = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        cells = code_cells(notebook)
        found |= {f"{notebook.stem} cell {number}": cell["source"] for number, cell in enumerate(cells)}
    return found


def test_no_call_runs_what_a_file_holds():
    texts = sources()
    assert len(texts) > 150
    bad = {name: calls for name, source in texts.items() if (calls := unsafe_calls(source))}
    for name, call in ALLOWED:
        bad[name] = [line for line in bad[name] if not line.split(": ", 1)[1].startswith(f"{call}(")]
    assert {name: calls for name, calls in bad.items() if calls} == {}


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)", "torch.load(path, weights_only=False)", "torch.load(path, weights_only=safe)",
        "Model.load_from_checkpoint(path)", "trainer.fit(model, ckpt_path='last')", "np.load(path, allow_pickle=True)",
        "pickle.loads(text)", "yaml.load(text, Loader=yaml.Loader)", "yaml.load(text)", "yaml.unsafe_load(text)",
        "class L(yaml.FullLoader): ...\nyaml.load(text, L)", "subprocess.run(line, shell=True)", "os.system(line)",
        "eval(text)", "tar.extractall(out)", "shutil.unpack_archive(path)", "jinja2.Environment(loader=files)",
        "pd.read_pickle(path)",
    ],
)  # fmt: skip
def test_the_check_sees_what_is_unsafe(line):
    assert unsafe_calls(line)


def test_the_check_lets_pass_what_is_safe():
    line = (
        "class L(yaml.SafeLoader): ...\nyaml.load(t, L)\nnetwork.eval()\nnp.load(p)\ntorch.load(p, weights_only=True)"
    )
    assert unsafe_calls(line) == []


# --- files that would run code -----------------------------------------------------------------------------


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.fixture
def trace(tmp_path):
    file = tmp_path / "payload-ran"
    pickle.loads(pickle.dumps(Payload(file)))  # this test's own payload, to know that it works
    assert file.exists()
    file.unlink()
    return file


def test_a_model_file_with_a_payload_is_refused_and_does_not_run(tmp_path, trace):
    plain = {"name": "mlp", "module": "mlp", "model": "mlp", "hyperparameters": {}, "weights": Payload(trace)}
    torch.save(plain, tmp_path / "model_mlp.pt")
    torch.save({"state_dict": {}, "callbacks": {"hook": Payload(trace)}, "epoch": 1}, tmp_path / "best.ckpt")
    (tmp_path / "model_old.pt").write_bytes(pickle.dumps(Payload(trace)))
    for file in ("model_mlp.pt", "best.ckpt", "model_old.pt"):
        with pytest.raises(StageError, match="not a model file that this version can read"):
            load_model(tmp_path / file)
        assert not trace.exists()


def test_features_that_are_objects_are_refused_and_do_not_run(tmp_path, trace):
    np.save(tmp_path / "features_train.npy", np.array([Payload(trace)], dtype=object), allow_pickle=True)
    (tmp_path / store.COLUMNS_FILE).write_text("[]")
    with pytest.raises(StageError, match=r"features_train\.npy: not an array of numbers"):
        store.read(tmp_path, "train")
    assert not trace.exists()


def test_a_parameter_file_with_a_python_tag_is_refused_and_does_not_run(tmp_path, trace, capsys, monkeypatch):
    from ebnerd_lib.pipeline import layout

    folder = tmp_path / "params" / "p"
    folder.mkdir(parents=True)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    (folder / "01_preprocess.yaml").write_text(f"bundle: !!python/object/apply:os.mkdir ['{trace}']\n")
    for module in ("layout", "runner"):
        monkeypatch.setattr(f"ebnerd_lib.pipeline.{module}.ROOT", tmp_path)
    assert tmp_path == layout.ROOT
    assert main(["run", "--profile", "p"]) == 1
    assert "not valid YAML" in capsys.readouterr().err
    assert not trace.exists()


def test_a_message_commands_no_terminal(tmp_path, capsys):
    path = tmp_path / "\x1b[31mred\x1b[0m\x1b]0;title\x07\x08\x9b2J.zip"
    assert main(["unpack", "--archive", str(path), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "red2J.zip: no such file" in told and not set(told) & set("\x1b\x07\x08\x9b")


# --- a hostile bundle in reports ---------------------------------------------------------------------------

MARK = "document.documentElement.setAttribute('data-hacked','1')"
HOSTILE = [
    f"<script>{MARK}</script>",
    f'<img src=x onerror="{MARK}">',
    f'[a](javascript:{MARK}) <a id=hacked href="javascript:{MARK}">x</a>',
    f"</script></style></title></td></table></pre></details><script>{MARK}</script><i id=hacked>",
    "&lt;script&gt; &amp;amp; &#60;b&#62; **bold** # head ![i](http://evil.test/a.png) `code`",
    "$\\frac{1}{0}$ $\\undefined{x}$ $x^2 _ { $$ a \\$",
    "\x1b[31mred\x1b[0m\x1b]8;;http://evil.test\x07l\x1b]8;;\x07\r\n\x07",
    "<img src=http://evil.test/p.png><link rel=stylesheet href=http://evil.test/s.css><style>@import "
    f"'http://evil.test/i.css'; body{{background:url(http://evil.test/b.png)}}</style><svg onload=\"{MARK}\">",
    "{{ 7*7 }}{% raw %}${7*7}%s %(x)s {0}",
    f'"\' onmouseover="{MARK}" x=\'',
    "__init__",
    "",
]
TEXTS = ("title", "subtitle", "body", "url", "article_type", "category_str", "sentiment_label")
LISTS = ("topics", "ner_clusters", "entity_groups")


def hostile(articles: pa.Table) -> pa.Table:
    """Put hostile texts in all columns of texts; two in three articles keep their sentiment, which is counted."""
    rows = range(articles.num_rows)
    columns = {name: [HOSTILE[row % len(HOSTILE)] for row in rows] for name in TEXTS}
    columns["category_str"] = [HOSTILE[category % len(HOSTILE)] for category in articles["category"].to_pylist()]
    moods = articles["sentiment_label"].to_pylist()
    columns["sentiment_label"] = [HOSTILE[row % len(HOSTILE)] if row % 3 == 0 else moods[row] for row in rows]
    columns |= {name: [[HOSTILE[row % len(HOSTILE)], HOSTILE[-row % len(HOSTILE)]] for row in rows] for name in LISTS}
    for name, values in columns.items():
        place = articles.schema.get_field_index(name)
        articles = articles.set_column(place, name, pa.array(values, articles.schema.field(name).type))
    return articles


@pytest.fixture(scope="module")
def pages(tmp_path_factory, smoke_bundle) -> list[Path]:
    """The reports and the index of a run on a hostile bundle; the stages that show no article are left out."""
    project = tmp_path_factory.mktemp("hostile") / "p"
    for name in ("ebnerd_lib", "notebooks", "templates"):
        shutil.copytree(ROOT / name, project / name)
    shutil.copytree(smoke_bundle, project / "data" / "smoke")
    articles = project / "data" / "smoke" / "articles.parquet"
    pq.write_table(hostile(pq.read_table(articles)), articles)
    stamp = {"generator_version": 1, "seed": 0, "size": HOSTILE[3]}
    (project / "data" / "smoke" / "generated.json").write_text(json.dumps(stamp))
    shutil.copytree(ROOT / "params" / "smoke", project / "params" / "smoke")
    if os.environ.get("FAULTS") != "all":
        for stage in ("00_audit", "02_train_mf", "05_compare"):
            (project / "params" / "smoke" / f"{stage}.yaml").unlink()
        for stage, more in (("04_recommend", ""), ("06_explore", ', "04_recommend"')):
            own = f'reads: ["01_preprocess", "03_train_mlp"{more}]\nmodels: ["mlp"]\n'
            file = project / "params" / "smoke" / f"{stage}.yaml"
            file.write_text(re.sub(r"models: .*\n", "", file.read_text()) + own)
        file = project / "params" / "smoke" / "03_train_mlp.yaml"
        file.write_text(re.sub(r"update_minutes: .*", "", file.read_text()))
    words = [sys.executable, "-m", "ebnerd_lib", "run", "--profile", "smoke"]
    environment = {**os.environ, "PYTHONPATH": str(project)}
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr + done.stdout
    outputs = project / "outputs" / "smoke"
    return [*sorted((outputs / "reports").glob("*.html")), outputs / "index.html"]


class Page(HTMLParser):
    """What is active in a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.active: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag in {"script", "iframe", "object", "embed", "form", "base", "audio", "video"}:
            self.active.append(f"<{tag}>")
        for name, value in attrs:
            value = value or ""
            allowed = r"data:,|#[^:]*|[\w./#%-]*" if (tag, name) in (("a", "href"), ("link", "href")) else None
            if (tag, name) == ("img", "src"):
                allowed = r"data:image/(png|jpeg|svg\+xml);base64,[\w+/=]*"
            loads = name in {"href", "src", "srcset", "action", "formaction", "poster", "background", "xlink:href"}
            bad = not re.fullmatch(allowed, value) if allowed else loads
            if bad or name.startswith("on") or (name, value) == ("id", "hacked") or "url(" in value.lower():
                self.active.append(f"<{tag} {name}={value[:80]}>")

    def handle_data(self, data):
        if self.cdata_elem == "style":
            self.active += re.findall(r"url\([^)]*\)|@import.*", data)
        self.text += data


def test_a_hostile_bundle_is_shown_as_text_and_nothing_else(pages):
    assert [page.stem for page in pages][-3:] in (
        ["05_compare", "06_explore", "index"],
        ["04_recommend", "06_explore", "index"],
    )
    seen = {file.stem: Page(file.read_text(encoding="utf-8")) for file in pages}
    assert {name: page.active for name, page in seen.items() if page.active} == {}
    for name in ("04_recommend", "06_explore"):
        shown = [text for text in HOSTILE if text.strip() and "\x1b" not in text and text in seen[name].text]
        assert len(shown) >= 8, (name, shown)
    for page in seen.values():
        assert HOSTILE[3] in page.text  # as the size that was generated
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", page.text)


@pytest.mark.parametrize("text", [text for text in HOSTILE if "<" in text])
def test_the_check_sees_what_is_active(text):
    assert Page(f"<!doctype html><table><tr><td>{text}</td></tr></table>").active


class Listener(http.server.BaseHTTPRequestHandler):
    """A proxy that keeps what it is asked for and has nothing."""

    asked: list[str]

    def do_GET(self):
        self.asked.append(self.path)
        self.send_error(404)

    do_CONNECT = do_GET

    def log_message(self, format, *arguments):
        pass


@pytest.fixture
def proxy():
    asked: list[str] = []
    handler = type("Handler", (Listener,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1], asked
        server.shutdown()


def opened(browser: str, page: Path, port: int, folder: Path) -> str:
    """Return the document that a browser makes of a page, with the policy against scripts taken out of it."""
    text = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page.read_text(encoding="utf-8"))
    assert "Content-Security-Policy" not in text
    mark = "document.documentElement.setAttribute('data-link', a.href)"
    text += f"<script>for (const a of document.links) if (a.protocol === 'javascript:') {mark}</script>"
    copy = folder / page.name
    copy.write_text(text, encoding="utf-8")
    words = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions",
        "--disable-background-networking", "--disable-component-update", "--no-first-run",
        f"--user-data-dir={folder / page.stem}", f"--proxy-server=127.0.0.1:{port}", "--virtual-time-budget=2000",
        "--dump-dom", copy.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_browser_runs_nothing_and_fetches_nothing_of_a_hostile_bundle(pages, proxy, tmp_path, chromium):
    port, asked = proxy
    trap = tmp_path / "trap.html"
    trap.write_text(f"<!doctype html><html><body>{HOSTILE[0]}{HOSTILE[2]}{HOSTILE[7]}</body></html>", encoding="utf-8")
    trapped = opened(chromium, trap, port, tmp_path)
    assert 'data-hacked="1"' in trapped and 'data-link="javascript' in trapped
    assert any("evil.test" in address for address in asked), "the proxy hears of what a page fetches"
    asked.clear()
    with ThreadPoolExecutor(2) as pool:
        documents = list(pool.map(lambda page: opened(chromium, page, port, tmp_path), pages))
    for document in documents:
        root = re.search(r"<html[^>]*>", document)
        assert root and "data-hacked" not in root[0] and "data-link" not in root[0]
        assert 'id="hacked"' not in document and "onerror=" not in Page(document).active
    assert [address for address in asked if "evil" in address] == []


def test_a_policy_in_every_page_forbids_scripts_and_other_hosts(pages):
    for page in pages:
        policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page.read_text())
        assert policy and policy[1].startswith("default-src 'none'") and "script-src" not in policy[1]


@pytest.mark.parametrize(
    "html",
    [
        '<img src="data:image/png;base64,AAAA" srcset="http://evil.test/x.png 2x">',
        "<style>@import 'http://evil.test/x.css';</style>", '<td style="background:URL (http://evil.test/x)">x</td>',
        '<svg><a xlink:href="javascript:x()">x</a></svg>', '<svg><set attributeName="href" to="javascript:x()"/></svg>',
        '<video poster="http://evil.test/x.png" src="http://evil.test/x"></video>', '<a href=" java\nscript:x()">x</a>',
        '<table background="http://evil.test/x.png"></table>', '<button formaction="javascript:x()">x</button>',
        '<input type="image" src="http://evil.test/x.png">', '<a href="//evil.test" ping="http://evil.test">x</a>',
    ],
)  # fmt: skip
def test_html_of_an_output_loses_all_that_acts(html):
    cleaned = Body(html, {}).html
    assert "javascript" not in cleaned and not re.search(r"=\"[^\"]*evil\.test|@import|url", cleaned, re.IGNORECASE)


def test_names_of_columns_and_captions_are_text():
    table = pd.DataFrame({HOSTILE[1]: [HOSTILE[0]]}, index=[HOSTILE[0]])
    html = tables.show(table, HOSTILE[0], index=True).to_html()
    assert Page(html).active == [] and html.count("&lt;script&gt;") == 3 and "&lt;img src=x" in html


def test_a_dollar_sign_in_a_category_begins_no_formula():
    table = pd.DataFrame({"value": [HOSTILE[5], "$x$"], "shown": [0.5, 0.5], "mlp": [0.5, 0.5]})
    figure = plots.category_shares(table)
    assert HOSTILE[5] not in plots.image(figure, "").data and plots.svg(figure).startswith("<svg")
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [HOSTILE[5], "$x$"]


# --- what outputs tell of the machine ----------------------------------------------------------------------


def secrets(project: Path) -> list[str]:
    """Return names of places and of people that no output may hold."""
    names = [str(project), str(project.parent), str(Path.home()), sys.prefix, sys.base_prefix, tempfile_prefix()]
    with contextlib.suppress(OSError, KeyError):
        names.append(getpass.getuser())
    return [*names, socket.gethostname()]


def tempfile_prefix() -> str:
    import tempfile

    return tempfile.gettempdir() + "/"


def tells(text: str, name: str) -> bool:
    """Say whether a text holds a name as such, not as a part of a longer word or path."""
    return len(name) > 1 and re.search(rf"(?<![\w.-]){re.escape(name.rstrip('/'))}(?![\w-])", text) is not None


def readable(file: Path) -> str:
    """Return the text of a page, notebook or record, pictures left out."""
    text = file.read_text(encoding="utf-8")
    return re.sub(r"base64,[\w+/=]+", "", text)


def test_reports_records_and_notebooks_say_nothing_of_the_machine(finished, canary):
    outputs = finished / "outputs" / "smoke"
    files = [file for file in outputs.rglob("*") if file.is_file() and "logs" not in file.relative_to(outputs).parts]
    texts = [file for file in files if file.suffix in {".json", ".html", ".ipynb"}]
    assert {file.suffix for file in files} >= {".json", ".html", ".ipynb", ".parquet", ".npy", ".pt"}
    assert len(texts) >= 6 * 4
    for file in texts:
        text = readable(file)
        told = [name for name in secrets(finished) if tells(text, name) and name != "root"]
        assert not told, (file.relative_to(outputs), told)
    for file in files:
        content = file.read_bytes()
        for name in (str(finished), sys.prefix, canary):
            assert name.encode() not in content, file.relative_to(outputs)


def test_the_check_sees_paths_and_names():
    assert tells("File /home/ann/x.py", "/home/ann") and tells('"host": "vm"', "vm") and tells("by ann.", "ann")
    assert not tells("/home/annette", "/home/ann") and not tells("svm", "vm")
