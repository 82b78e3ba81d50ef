"""Benchmarks: rivals come to the same results as the package, and the harness measures and tells what it should."""

import importlib
import json
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import bundles, memory, offline, packages, preprocessing, report, stages, training
from benchmarks.context import Context
from benchmarks.rivals import bare_read, one_by_one, row_wise, searchsorted
from benchmarks.rivals.bare_loop import BareLoop
from benchmarks.rivals.row_dataset import loader
from benchmarks.row import Bar, Row, at_most, faster, not_measured
from benchmarks.rows import growth, reading, scoring
from benchmarks.rows import slates as slates_rows
from benchmarks.rows import training as training_rows
from benchmarks.timing import Share, Times, alternate
from ebnerd_lib.data.layout import SPLITS
from ebnerd_lib.data.slates import candidate_rows
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.features import store

MOODS = ("sentiment_negative", "sentiment_neutral", "sentiment_positive")


def needs(*names):
    return pytest.mark.skipif(bool(packages.missing(*names)), reason=packages.missing(*names))


@pytest.fixture(scope="module")
def features(smoke, smoke_features):
    return {part: store.read(smoke_features, part) for part in smoke.parts}


@pytest.fixture(scope="module")
def in_file_order(smoke):
    """All slates as the two behaviors files hold them: the parts of the official split follow each other by time."""
    return {int(each): row for row, each in enumerate(smoke.log.impression_id)}


def moods_of(smoke, slates):
    columns = [np.stack([smoke.users[f"{mood}_{split}"] for mood in MOODS], axis=1) for split in SPLITS]
    return np.where((slates.week == 0)[:, None], columns[0][slates.user], columns[1][slates.user])


# ---- rivals


def test_pandas_row_by_row_finds_the_same_slates_labels_and_moods(smoke, smoke_bundle, in_file_order):
    frame = row_wise.label(row_wise.joined(smoke_bundle), row_wise.moods(smoke_bundle))
    ours = smoke.log.take(np.array([in_file_order[each] for each in frame["impression_id"]]))
    assert len(frame) == len(smoke.log) and sum(map(sum, frame["labels"])) > len(frame) / 2
    assert np.array_equal(np.concatenate(frame["article_ids_inview"].to_list()), ours.article_id)
    assert np.array_equal(np.concatenate(frame["labels"].to_list()), ours.clicked)
    nothing = np.full(3, np.nan)
    theirs = np.stack([nothing if mood is None else mood for mood in frame["mood"]])
    np.testing.assert_allclose(theirs, moods_of(smoke, ours), rtol=1e-5)
    assert not np.isnan(theirs).all()


@needs("polars")
def test_polars_finds_the_same_slates_labels_indices_histories_and_moods(smoke, smoke_bundle, in_file_order):
    from benchmarks.rivals import exploded

    found = exploded.labelled(smoke_bundle)
    table = found.slates
    ours = smoke.log.take(np.array([in_file_order[each] for each in table["impression_id"]]))
    for column, expected in (
        ("article_ids_inview", ours.article_id), ("article", ours.article), ("labels", ours.clicked),
    ):  # fmt: skip
        assert np.array_equal(table[column].explode().to_numpy(), expected), column
    assert np.array_equal(table["article_ids_inview"].list.len().to_numpy(), ours.lengths)
    assert np.array_equal(table["user"].to_numpy(), ours.user)
    assert np.array_equal(table["impression_time"].cast(int).to_numpy(), ours.time)
    theirs = table.select("Negative", "Neutral", "Positive").to_numpy()
    np.testing.assert_allclose(theirs, moods_of(smoke, ours), rtol=1e-5)
    for clicks, history in zip(found.histories, smoke.histories, strict=True):
        user = np.repeat(np.arange(len(history.lengths)), history.lengths)
        assert np.array_equal(clicks["user"].to_numpy(), user)
        assert np.array_equal(clicks["article"].to_numpy(), history.article)
        assert np.array_equal(clicks["time"].cast(int).to_numpy(), history.time)


def test_the_bare_read_reads_what_the_package_reads(smoke_bundle, monkeypatch):
    read = {}

    def spied(self, path, *arguments, **settings):
        self.stem = getattr(path, "stem", None)
        return opened(self, path, *arguments, **settings)

    def spy(method):
        def reads(self, *arguments, columns=None, **settings):
            read.setdefault(self.stem, set()).update(columns)
            return method(self, *arguments, columns=columns, **settings)

        return reads

    opened = pq.ParquetFile.__init__
    monkeypatch.setattr(pq.ParquetFile, "__init__", spied)
    for name in ("read", "read_row_group", "read_row_groups", "iter_batches"):
        monkeypatch.setattr(pq.ParquetFile, name, spy(getattr(pq.ParquetFile, name)))
    preprocessing.slates(smoke_bundle)
    assert read == {name: set(columns) for name, columns in bare_read.COLUMNS.items()}
    read.clear()
    tables = bare_read.tables(smoke_bundle)
    assert read == {name: set(columns) for name, columns in bare_read.COLUMNS.items()}
    assert len(tables) == 6 and all(table.num_rows for table in tables)


def test_searchsorted_loops_find_the_same_features(smoke, features, tmp_path):
    columns = searchsorted.features(smoke)
    assert len(columns) >= 73
    ours = np.concatenate([features[part].matrix for part in smoke.parts])
    for name, values in columns.items():
        mine = ours[:, features["train"].columns.index(name)]
        np.testing.assert_allclose(values, mine, rtol=1e-4, atol=1e-5, err_msg=name)
        assert len(np.unique(mine[~np.isnan(mine)])) > 1, name
    assert searchsorted.write(smoke, tmp_path) == list(columns)
    written = [np.load(tmp_path / f"rival_{part}.npy") for part in smoke.parts]
    assert np.array_equal(np.concatenate(written), np.stack(list(columns.values()), axis=1), equal_nan=True)


def test_scikit_learn_one_by_one_finds_the_same_metrics(smoke):
    slates = smoke.parts["validation"].take(np.arange(400))
    scores = np.random.default_rng(0).random(slates.candidates)
    ours = per_slate(scores, slates.clicked, slates.offsets)[:, :4]
    np.testing.assert_allclose(one_by_one.per_slate(scores, slates.clicked, slates.offsets), ours, atol=1e-9, rtol=0)
    assert (~np.isnan(ours[:, 0])).sum() > 300
    tied = np.round(scores, 1)
    ours, theirs = (of(tied, slates.clicked, slates.offsets)[:, [0, 2, 3]] for of in (per_slate, one_by_one.per_slate))
    np.testing.assert_allclose(theirs, ours, atol=1e-9, rtol=0)


def test_the_originals_loader_hands_out_the_candidates_of_our_batches(smoke, features):
    _, batches = training.network_and_data(smoke, features, "mf", "mf_ids")
    slates = smoke.parts["train"]
    rows = training_rows.original(smoke, slates.candidates)
    theirs = torch.cat(
        [torch.stack([each["user"], each["article"], each["click"]], dim=1) for each in loader(rows)]
    ).numpy()
    where = candidate_rows(slates.offsets, np.arange(len(slates)))
    ours = np.stack([slates.per_candidate(slates.user), slates.article[where], slates.clicked[where]], axis=1)
    assert np.array_equal(
        np.unique(theirs, axis=0, return_counts=True)[1], np.unique(ours, axis=0, return_counts=True)[1]
    )
    assert np.array_equal(np.unique(theirs, axis=0), np.unique(ours, axis=0))
    some = slates.take(batches.rows)
    assert sum(float(batch.clicked.sum()) for batch in batches.train_dataloader()) == some.clicked.sum()
    first = rows[5]
    assert first["click"] + first["noclick"] == 1 and "sentiment" in first


@pytest.mark.parametrize(("module", "model"), [("mf", "mf_ids"), ("mf", "mf_features"), ("mlp", "mlp")])
def test_the_bare_loop_comes_to_the_same_weights(smoke, features, tmp_path, monkeypatch, module, model):
    monkeypatch.setattr(training, "PROFILE", "smoke")  # of smaller batches, so that there are several
    fit = training.train_model(smoke, features, module, model, tmp_path, epochs=1)
    network, batches = training.network_and_data(smoke, features, module, model)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loop = BareLoop(network, len(batches.train_dataloader()))
    # The package draws dropout from the seed and the epoch.
    drawn = np.random.SeedSequence((training.parameters(module)["seed"], 0)).generate_state(1, np.uint64)
    torch.manual_seed(int(drawn[0] >> np.uint64(1)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    auc = loop.epoch(batches.train_dataloader(), batches.val_dataloader())
    torch.set_num_threads(threads)
    assert auc == pytest.approx(fit.curve["val/auc"].iloc[0], abs=1e-6)
    for name, value in fit.model.network.state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_bare_forward_pass_gives_the_same_scores(smoke, features):
    model = training.untrained(smoke, features, "mlp", "mlp")
    slates, names = smoke.parts["tuning"], features["tuning"].columns
    seconds, scores = scoring.bare_forward(model, smoke, slates, features["tuning"].matrix, names)
    assert np.array_equal(torch.cat(scores).numpy(), model.score(smoke, slates, features["tuning"].matrix, names))
    assert seconds > 0 and np.std(torch.cat(scores).numpy()) > 0


@needs("implicit")
def test_bpr_learns_the_clicks_of_our_slates_and_scores_our_candidates(smoke):
    from benchmarks.rivals.bpr import Bpr, clicks

    slates = smoke.parts["train"]
    matrix = clicks(slates, len(smoke.users), len(smoke.articles))
    pairs = {
        (int(user), int(article))
        for user, article, hit in zip(slates.per_candidate(slates.user), slates.article, slates.clicked, strict=True)
        if hit
    }
    assert set(zip(*(axis.tolist() for axis in matrix.nonzero()), strict=True)) == pairs
    model = Bpr(learning_rate=0.2)
    model.fit(matrix, 50)
    scores = model.score(slates)
    assert scores.shape == (slates.candidates,) and np.isfinite(scores).all()
    assert training.auc_of(smoke, scores, "train") > 0.7
    again = Bpr(learning_rate=0.2)
    for _ in range(5):
        again.fit(matrix, 10)
    assert training.auc_of(smoke, again.score(slates), "train") > 0.7, "epochs add up over several calls"


@needs("lightgbm")
def test_lightgbm_sees_the_columns_and_candidates_of_the_model(smoke, features, tmp_path, monkeypatch):
    from ebnerd_lib.evaluation.reference import Boosting, train_reference

    monkeypatch.setattr(training, "PROFILE", "smoke")
    fit = training.train_model(smoke, features, "mlp", "mlp", tmp_path, epochs=1)
    found = train_reference(smoke, features, training.TIER, Boosting(rounds=3))
    assert found.columns == fit.model.columns
    for part in ("tuning", "validation"):
        assert found.scores[part].shape == training.score_part(fit, smoke, features, part).shape


# ---- the harness


def test_contestants_take_turns_and_the_warm_up_does_not_count(monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: None)  # slow beside all that the other tests hold
    order = []
    times = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, runs=3)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert [len(each.seconds) for each in times.values()] == [3, 3]


def test_rows_say_what_was_divided_by_what_and_whether_the_bar_is_met():
    fast, slow = Times([1.0, 2.0, 9.0]), Times([40.0, 60.0, 50.0])
    row = faster("x", fast, slow, 20)
    assert (row.ours, row.rival, row.ratio, row.ratio_is, row.met) == (2.0, 50.0, 25.0, "rival / ours", True)
    assert row.spread == {"ours": [1.0, 9.0], "rival": [40.0, 60.0]}
    assert faster("x", fast, slow, 30).met is False
    assert faster("x", fast, slow, 50, times=2).met is True, "the rival's share is scaled to the whole"
    floor = at_most("x", slow, fast, 1.3)
    assert (floor.ratio, floor.ratio_is, floor.met) == (25.0, "ours / rival", False)
    assert Row("x", 3.0, "MB", bar=Bar("ours", "≤", 3.0)).met is True
    assert Row("x", 3.0, "MB").met is None
    assert Bar("ours", "≥", 1e6).text() == "ours ≥ 1,000,000"
    lost = not_measured("x", Bar("ratio", "≥", 3), "polars is not installed")
    assert lost.met is None and lost.plain()["note"].startswith("not measured: polars")
    json.dumps([row.plain(), lost.plain()], allow_nan=False)


def test_a_share_is_extrapolated_and_says_how_far_it_is_from_a_line():
    share = Share("slates", measured=100, whole=1000, half=1.0)
    assert share.factor == 10
    note = share.note(Times([2.2]))
    assert "100 of 1,000 slates" in note and "+10% from a line" in note


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells anonymous memory")
def test_peak_memory_is_what_a_child_allocates_and_not_what_it_maps(tmp_path):
    np.save(tmp_path / "mapped.npy", np.ones(30_000_000))
    allocate = "import numpy as np, time; x = np.ones(30_000_000); time.sleep(.1)"
    of_file = (
        f"import numpy as np, time; x = np.load({str(tmp_path / 'mapped.npy')!r}, mmap_mode='r').sum(); time.sleep(.1)"
    )
    peaks = [memory.watch(subprocess.Popen([sys.executable, "-c", words], text=True)) for words in (allocate, of_file)]
    assert peaks[0] - peaks[1] > 200
    assert 228 < peaks[0] < 600


def test_memory_is_unknown_where_the_platform_does_not_tell(monkeypatch):
    monkeypatch.setattr(memory, "_anonymous_kb", lambda pid: None)
    assert memory.watch(subprocess.Popen([sys.executable, "-c", ""], text=True)) is None
    found = [{"size": "demo", "candidates": 10, "seconds": 1.0, "peak_mb": None}]
    assert growth._memory(found, "demo").note.startswith("not measured")


def test_growth_tells_a_line_from_a_square():
    def run(power):
        return [
            {"size": size, "candidates": n, "seconds": n**power / 1e6}
            for size, n in (("demo", 1000), ("small", 10_000), ("large", 100_000))
        ]

    sizes = ["demo", "small", "large"]
    assert growth.exponent(run(1), sizes) == pytest.approx(1)
    assert growth.exponent(run(2), sizes) == pytest.approx(2)
    line, square = (growth._time(run(power), sizes)[0] for power in (1, 2))
    assert line.met is True and line.ours == pytest.approx(0) and square.met is False


def test_pages_that_load_from_elsewhere_are_found():
    page = (
        "<a href='https://example.org/followed'>x</a><img src='data:,'><img src='https://example.org/i.png'>"
        "<link href='//example.org/s.css'><style>@import 'http://example.org/t.css'; b{background:url(https://e.org/b)}</style>"
    )
    assert offline.fetched(page) == [
        "https://example.org/i.png", "//example.org/s.css", "http://example.org/t.css", "https://e.org/b",
    ]  # fmt: skip


def test_a_large_page_and_one_that_needs_a_network_miss_their_bars(tmp_path):
    (tmp_path / "a.html").write_text("<p>" + "x" * 3_100_000)
    (tmp_path / "b.html").write_text("<script src='https://example.org/x.js'></script>")
    size, online = reading.judged("reports", [tmp_path / "a.html", tmp_path / "b.html"])
    assert size.met is False and online.met is False and "b.html loads https://example.org/x.js" in online.note
    (tmp_path / "a.html").write_text("<p>small")
    assert [row.met for row in reading.judged("reports", [tmp_path / "a.html"])] == [True, True]


@pytest.fixture
def smoke_size(tmp_path, smoke_bundle, monkeypatch):
    """Bundles and features lie in the test's folder, and rows look at the size ``smoke``."""
    monkeypatch.setattr("gc.collect", lambda: None)  # slow beside all that the other tests hold
    monkeypatch.setitem(slates_rows.SHARE, True, 200)
    (tmp_path / "smoke").symlink_to(smoke_bundle)
    monkeypatch.setattr(bundles, "FOLDER", tmp_path)
    monkeypatch.setattr(Context, "size", "smoke")
    work = tmp_path / "work"
    work.mkdir()
    return Context(quick=True, large=False, work=work)


def test_every_stage_goes_over_the_candidates(smoke, smoke_size, monkeypatch):
    monkeypatch.setattr(training, "PROFILE", "smoke")
    found = {name: stages.STAGES[name]("smoke", smoke_size.work) for name in stages.available()}
    for name, candidates in found.items():
        part = "train" if name.startswith("train") else "validation" if name.startswith("evaluate") else None
        assert candidates == (smoke.log if part is None else smoke.parts[part]).candidates, name
    made_by = bundles.FOLDER / "smoke_features" / "made_by"
    before = made_by.stat().st_mtime_ns
    bundles.features("smoke")
    assert made_by.stat().st_mtime_ns == before, "features of the same sources are kept"
    made_by.write_text("other sources")
    bundles.features("smoke")
    assert made_by.read_text() != "other sources"


@pytest.mark.parametrize("group", ["slates", "features"])
def test_rows_have_a_figure_a_ratio_and_a_bar(group, smoke, smoke_size):
    found = importlib.import_module(f"benchmarks.rows.{group}").measure(smoke_size)
    assert len(found.rows) == {"slates": 3, "features": 1}[group]
    for row in found.rows:
        if row.note.startswith("not measured"):
            continue
        assert row.ours > 0 and row.rival > 0 and row.bar is not None and row.runs >= 5
        numerator, denominator = (row.ours, row.rival) if row.ratio_is == "ours / rival" else (row.rival, row.ours)
        assert row.ratio == pytest.approx(numerator / denominator)
        assert row.spread["ours"][0] <= row.ours <= row.spread["ours"][1]


def test_a_stage_that_fails_is_named(smoke_size, tmp_path):
    with pytest.raises(RuntimeError, match="nothing on smoke ended with code 1"):
        stages.run("nothing", "smoke", tmp_path)


# ---- results


@pytest.fixture
def groups():
    rows = [
        faster("quick & dirty", Times([1.0]), Times([100.0]), 50, "On <b>9</b> slates."),
        at_most("close to the floor", Times([3.0]), Times([1.0]), 2.5),
        not_measured("polars", Bar("ratio", "≥", 3), "polars is not installed"),
    ]
    run = [
        {"stage": "preprocess", "size": size, "candidates": n, "seconds": n / 1e6, "peak_mb": n / 100}
        for size, n in (("demo", 10_000), ("small", 100_000))
    ]
    return {"slates": {"rows": [row.plain() for row in rows], "stages": run, "seconds": 1.0, "failed": False}}


def test_the_report_shows_every_row_and_opens_offline(groups, tmp_path):
    results = command._results(False, groups, 12.0)
    report.render(tmp_path / "report.html", results)
    page = (tmp_path / "report.html").read_text()
    for text in (
        "quick &amp; dirty",
        "On &lt;b&gt;9&lt;/b&gt; slates.",
        "close to the floor",
        "polars is not installed",
    ):
        assert text in page
    assert page.count('class="status complete"') == 1 and page.count('class="status failed"') == 1
    assert "1 of 3" in page
    assert page.count("<img ") == page.count("alt=") == 3
    assert len(page) < 3e6 and offline.fetched(page) == [] and "http" not in page.split("<body")[1]
    assert set(results) >= {"rows", "machine", "versions"} and results["rows"][0]["group"] == "slates"
    assert [line.split()[0] for line in report.summary(results)] == ["met", "not", "not"]


def test_results_name_neither_host_nor_folder(groups, tmp_path):
    import platform

    text = json.dumps(command._results(True, groups, 1.0), allow_nan=False)
    assert platform.node() not in text and str(tmp_path.anchor + "work") not in text and "/home" not in text


def test_the_command_writes_results_and_a_group_that_fails_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(command.NAMES, "nowhere", True)
    start = time.monotonic()
    assert command.main(["--quick", "--rows", "reading,nowhere", "--out", str(tmp_path)]) == 1
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["group"] for row in results["rows"]][-1] == "nowhere"
    assert results["rows"][-1]["note"].startswith("not measured: ModuleNotFoundError")
    assert results["rows"][0]["name"].startswith("reports of sample") and (tmp_path / "report.html").exists()
    assert 0 < results["seconds"] <= round(time.monotonic() - start, 1)  # both are rounded to a tenth
    assert "nowhere" in capsys.readouterr().out


def test_unknown_rows_are_refused_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        command.main(["--rows", "slats"])
    assert "unknown: slats. Use slates, features" in capsys.readouterr().err


def test_what_is_missing_is_said_with_its_remedy():
    assert packages.missing("numpy") == ""
    assert packages.missing("numpy", "no_such_module") == (
        "no_such_module not installed. Run `python -m benchmarks.packages`."
    )
    assert {each.name for each in packages.wanted()} == {"polars", "implicit", "lightgbm"}
    assert all(len(each.specifier) == 1 and str(each.specifier).startswith("==") for each in packages.wanted())
