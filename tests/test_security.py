"""No input runs code, and no page of a hostile bundle does anything but show it."""

import json
import pickle
import re

import kinds
import numpy as np
import pandas as pd
import pytest
import torch
from page import Page
from runs import Payload, command, copy_of

from ebnerd_lib import plots, tables
from ebnerd_lib.__main__ import main
from ebnerd_lib.errors import StageError
from ebnerd_lib.features.build import COLUMNS_FILE, read_features
from ebnerd_lib.pipeline.paths import ROOT
from ebnerd_lib.pipeline.report import Body
from ebnerd_lib.training.model_file import load_model


def test_files_with_a_payload_are_refused_and_do_not_run(tmp_path):
    trace = tmp_path / "payload-ran"
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists(), "the payload works"
    trace.unlink()
    plain = {"name": "mlp", "module": "mlp", "model": "mlp", "hyperparameters": {}, "weights": Payload(trace)}
    torch.save(plain, tmp_path / "model_mlp.pt")
    torch.save({"state_dict": {}, "callbacks": {"hook": Payload(trace)}, "epoch": 1}, tmp_path / "best.ckpt")
    (tmp_path / "model_old.pt").write_bytes(pickle.dumps(Payload(trace)))
    for file in ("model_mlp.pt", "best.ckpt", "model_old.pt"):
        with pytest.raises(StageError, match=re.escape(file)):
            load_model(tmp_path / file)
    np.save(tmp_path / "features_train.npy", np.array([Payload(trace)], dtype=object), allow_pickle=True)
    (tmp_path / COLUMNS_FILE).write_text("[]")
    with pytest.raises(StageError, match=r"features_train\.npy"):
        read_features(tmp_path, "train")
    assert not trace.exists()


def test_a_message_commands_no_terminal(tmp_path, capsys):
    path = tmp_path / "\x1b[31mred\x1b[0m\x1b]0;title\x07\x08\x9b2J.zip"
    assert main(["unpack", "--archive", str(path), "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "red2J.zip" in told and not set(told) & set("\x1b\x07\x08\x9b")


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


@pytest.mark.parametrize(
    "html",
    [
        *(text for text in HOSTILE if "<" in text),
        '<img src="data:image/png;base64,AAAA" srcset="http://evil.test/x.png 2x">',
        '<td style="background:URL (http://evil.test/x)">x</td>', '<svg><a xlink:href="javascript:x()">x</a></svg>',
        '<a href=" java\nscript:x()">x</a>', '<a href="//evil.test" ping="http://evil.test">x</a>',
    ],
)  # fmt: skip
def test_html_of_an_output_loses_all_that_acts(html):
    cleaned = Body(html, {}).html
    assert [what for what in Page(cleaned).active if what != "<i id=hacked>"] == []
    assert not re.search(r"=\"[^\"]*(evil\.test|javascript)|@import|url", cleaned, re.IGNORECASE)
    assert Page(html).active, "the check sees it"
    cleaned = Body('<marquee><b id="x" class="c" style="color: red">kept</b></marquee><math><img></math>', {}).html
    assert '<b class="c">kept</b>' in cleaned and not re.search("<(marquee|math|img)", cleaned), "an allow-list"


def test_names_of_columns_captions_and_categories_are_text():
    html = tables.show(pd.DataFrame({HOSTILE[1]: [HOSTILE[0]]}), HOSTILE[0]).to_html()
    assert Page(html).active == [] and html.count("&lt;script&gt;") == 2 and "&lt;img src=x" in html
    table = pd.DataFrame({"value": [HOSTILE[5], "$x$"], "shown": [0.5, 0.5], "mlp": [0.5, 0.5]})
    figure = plots.category_shares(table)
    assert plots.svg(figure).startswith("<svg")
    first, second = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert HOSTILE[5].startswith(first.rstrip("… ")) and len(first) > 10 and second == "$x$", "no formula"


def hostile(tables: kinds.Tables) -> None:
    """Put hostile texts in all columns of texts; two in three articles keep their sentiment, which is counted."""
    articles, number = tables["articles"], len(HOSTILE)
    rows = range(articles.num_rows)
    texts = [HOSTILE[row % number] for row in rows]
    columns = dict.fromkeys(("title", "subtitle", "body", "url", "article_type"), texts)
    columns["category_str"] = [HOSTILE[category % number] for category in articles["category"].to_pylist()]
    labels = articles["sentiment_label"].to_pylist()
    columns["sentiment_label"] = [texts[row] if row % 3 == 0 else labels[row] for row in rows]
    lists = [[texts[row], texts[-row]] for row in rows]
    kinds.put(tables, "articles", **columns, **dict.fromkeys(("topics", "ner_clusters", "entity_groups"), lists))


@pytest.mark.slow
def test_a_hostile_bundle_is_shown_as_text_and_a_browser_runs_and_fetches_nothing(smoke_bundle, browser, tmp_path):
    """Of a run of the stages that show articles and what they read."""
    project = copy_of(ROOT, tmp_path / "p")
    bundle, tables = project / "data" / "smoke", kinds.read(smoke_bundle)
    hostile(tables)
    kinds.write(tables, bundle, smoke_bundle)
    (bundle / "generated.json").write_text(json.dumps({"generator_version": 1, "seed": 0, "size": HOSTILE[3]}))
    for stage in ("02_train_mf.ids", "02_train_mf.features", "03_train_mlp.exposure", "05_compare"):
        (project / "params" / "smoke" / f"{stage}.yaml").unlink()
    done = command(project, "run", "--profile", "smoke")
    assert done.returncode == 0, done.stderr + done.stdout
    trap = tmp_path / "trap.html"
    trap.write_text(f"<!doctype html><html><body>{HOSTILE[0]}{HOSTILE[7]}</body></html>", encoding="utf-8")
    outputs = project / "outputs" / "smoke"
    for file in (trap, *sorted(outputs.glob("reports/*.html")), outputs / "index.html"):
        text = file.read_text(encoding="utf-8")
        shown = Page(text)
        assert bool(shown.active) == (file == trap) == ("Content-Security-Policy" not in text), file.stem
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", shown.text)
        if file.stem in ("04_recommend", "06_explore"):
            assert sum(each in shown.text for each in HOSTILE if each.strip() and "\x1b" not in each) >= 8, file
        page, asked = browser.new_page(bypass_csp=True), []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.goto(file.as_uri())
        hacked = page.evaluate("document.documentElement.dataset.hacked || document.getElementById('hacked') !== null")
        scripts = page.evaluate("[...document.links].filter(a => a.protocol === 'javascript:').length")
        fetched = [url for url in asked if not url.startswith(("file:", "data:"))]
        page.close()
        assert (bool(hacked), scripts, bool(fetched)) == (file == trap, 0, file == trap), (file, fetched)
