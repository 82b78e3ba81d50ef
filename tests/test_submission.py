"""Submissions: read by an independent reader, compared with scores made in memory, and spoilt in every way."""

import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from runs import command
from test_bundle import put, set_row

from ebnerd_lib.__main__ import main
from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.bundle import open_bundle
from ebnerd_lib.data.layout import TEST
from ebnerd_lib.data.schema import BEHAVIORS, arrow_schema
from ebnerd_lib.errors import BundleError, SubmissionError
from ebnerd_lib.features.build import build
from ebnerd_lib.features.context import feature_context
from ebnerd_lib.features.registry import every_column
from ebnerd_lib.pipeline import paths, submission
from ebnerd_lib.pipeline.submission import MEMBER, check_submission, rank, ranks_of, write_predictions
from ebnerd_lib.sample import generate
from ebnerd_lib.training.model_file import load_model

LINE = re.compile(r"(\d+) \[(\d+(?:,\d+)*)\]")
MODEL = "mlp_exposure"
MEMORY_MB = 4_000  # for a test set of size demo


def read_submission(file: Path) -> list[tuple[int, list[int]]]:
    """Read a submission by its published format alone."""
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["predictions.txt"]
        *lines, end = archive.read("predictions.txt").decode("ascii").split("\n")
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found) and not end
    return [(int(line[1]), [int(rank) for rank in line[2].split(",")]) for line in found]


@pytest.fixture(scope="module")
def test_set(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hidden") / "testset"
    generate(folder, size="smoke", test=True)
    return folder


def changed(test_set: Path, folder: Path, change) -> Path:
    """Copy a test set with its behaviors changed."""
    shutil.copytree(test_set, folder)
    file = folder / "test" / "behaviors.parquet"
    pq.write_table(change(pq.read_table(file)), file)
    return folder


@pytest.fixture(scope="module")
def rows(test_set) -> list[dict]:
    return pq.read_table(test_set / "test" / "behaviors.parquet").to_pylist()


@pytest.fixture(scope="module")
def submitted(finished, test_set, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("sent") / "predictions.zip"
    words = ("--profile=smoke", f"--model={MODEL}", f"--test={test_set}", f"--out={file}")
    done = command(finished, "submit", *words)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "2,060 rows ranked by mlp_exposure (tier exposure)" in done.stdout
    assert {path.name for path in file.parent.iterdir()} == {"predictions.zip", "predictions.json"}
    return file


@pytest.fixture(scope="module")
def model(finished):
    return load_model(finished / "outputs" / "smoke" / "artifacts" / "03_train_mlp.exposure" / f"model_{MODEL}.pt")


@pytest.fixture(scope="module")
def ranks_of_week(finished, model):
    """Rank a test set after the weeks of the finished run."""

    def ranked(test_set: Path) -> list[list[int]]:
        before = open_bundle(finished / "data" / "smoke")
        dataset, _ = datasets.prepare_hidden(before, open_bundle(test_set, (TEST,)))
        _, offsets, ranks = rank(model, dataset, lambda share: None)
        return [part.tolist() for part in np.split(ranks, offsets[1:-1])]

    return ranked


def test_every_row_is_ranked_in_its_place(submitted, rows):
    lines = read_submission(submitted)
    assert [number for number, _ in lines] == [row["impression_id"] for row in rows]
    for (_, ranks), row in zip(lines, rows, strict=True):
        assert sorted(ranks) == list(range(1, len(row["article_ids_inview"]) + 1))
    beyond = [ranks for (_, ranks), row in zip(lines, rows, strict=True) if row["is_beyond_accuracy"]]
    assert len(beyond) == 60 and {len(ranks) for ranks in beyond} == {250}
    assert len(set(map(tuple, beyond))) > 10  # ranked for their users, not all alike


def test_the_record_names_model_tier_and_sums(submitted, test_set):
    record = json.loads(submitted.with_suffix(".json").read_text())
    assert (record["model"], record["tier"], record["profile"]) == (MODEL, "exposure", "smoke")
    assert (record["rows"], record["beyond_accuracy"], record["impressions_before"]) == (2_060, 60, 2_050)
    assert set(record["inputs"]) >= {"articles.parquet", "test/behaviors.parquet", "test/history.parquet"}
    assert str(test_set) not in json.dumps(record)


def test_ranks_are_those_of_scores_made_in_memory(submitted, finished, test_set, model, rows, tmp_path):
    """The hidden week as the second week of an ordinary bundle, by the way that training data takes."""
    bundle = tmp_path / "bundle"
    for split in ("train", "validation"):
        (bundle / split).mkdir(parents=True)
    past = finished / "data" / "smoke" / "validation"
    for name in ("behaviors", "history"):
        shutil.copy(past / f"{name}.parquet", bundle / "train" / f"{name}.parquet")
    for name in ("articles.parquet", "contrastive_vector.parquet"):
        shutil.copy(test_set / name, bundle / name)
    shutil.copy(test_set / "test" / "history.parquet", bundle / "validation" / "history.parquet")
    asked = pq.read_table(test_set / "test" / "behaviors.parquet")
    asked = asked.filter(pc.invert(asked["is_beyond_accuracy"]))
    clicks = {
        "article_ids_clicked": pq.read_table(test_set / "test" / "truth.parquet")["article_ids_clicked"].to_pylist()
    }
    columns = [
        asked[name] if name in asked.column_names else pa.array(clicks.get(name, [None] * len(asked)), kind)
        for name, kind in BEHAVIORS.items()
    ]
    pq.write_table(pa.table(columns, schema=arrow_schema(BEHAVIORS)), bundle / "validation" / "behaviors.parquet")
    data = datasets.prepare(open_bundle(bundle), "official")[0]
    week = data.parts["validation"].take(data.parts["validation"].file_order)
    names = [column.name for column in every_column()]
    expected = ranks_of(model.score(data, week, build(week, feature_context(data)), names), week.offsets)
    found = [r for (_, r), row in zip(read_submission(submitted), rows, strict=True) if not row["is_beyond_accuracy"]]
    assert week.impression_id.tolist() == [row["impression_id"] for row in rows if not row["is_beyond_accuracy"]]
    assert [part.tolist() for part in np.split(expected, week.offsets[1:-1])] == found


def test_arrays_in_files_change_nothing(submitted, test_set, ranks_of_week, monkeypatch):
    monkeypatch.setattr("ebnerd_lib.data.slates.LARGE", 1)
    assert ranks_of_week(test_set) == [ranks for _, ranks in read_submission(submitted)]


@pytest.mark.parametrize("left_out", ["the future", "beyond accuracy"])
def test_neither_the_future_of_a_row_nor_rows_that_nobody_was_shown_change_it(
    test_set, ranks_of_week, tmp_path, left_out
):
    table = pq.read_table(test_set / "test" / "behaviors.parquet")
    times = table["impression_time"].to_numpy().astype(np.int64)
    kept = times < np.median(times) if left_out == "the future" else ~table["is_beyond_accuracy"].to_numpy()
    some = changed(test_set, tmp_path / "some", lambda table: table.filter(pa.array(kept)))
    expected = [ranks for ranks, keep in zip(ranks_of_week(test_set), kept, strict=True) if keep]
    assert 0 < len(expected) < len(kept) and ranks_of_week(some) == expected


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        ("model", "mlp", "mlp: tier clicks.* 03_train_mlp.exposure"),
        ("model", "mlp_live", "mlp_live: it was trained to rank all.* 03_train_mlp.exposure"),
        ("model", "mpl", "no trained model 'mpl'; there are mf_features"),
        ("test", "nowhere", "nowhere: no such folder"),
        ("out", "predictions.txt", r"predictions\.txt: a submission is a zip file"),
        ("out", "/dev/null/p.zip", r"p\.zip: cannot be written"),
    ],
)
def test_what_cannot_be_submitted_is_one_clear_error(
    finished, test_set, tmp_path, monkeypatch, capsys, word, value, message
):
    for module in (paths, submission):
        monkeypatch.setattr(module, "ROOT", finished)
    given = {"profile": "smoke", "model": MODEL, "test": test_set, "out": tmp_path / "p.zip", word: value}
    assert main(["submit", *(f"--{name}={value}" for name, value in given.items())]) == 1
    assert re.search(message, capsys.readouterr().err) and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_large_submission_is_right_and_stays_within_memory(finished, tmp_path):
    test_set, file = tmp_path / "testset", tmp_path / "predictions.zip"
    generate(test_set, test=True)
    words = ("--profile=smoke", f"--model={MODEL}", f"--test={test_set}", f"--out={file}")
    assert command(finished, "submit", *words).returncode == 0
    assert json.loads(file.with_suffix(".json").read_text())["peak_memory_mb"] <= MEMORY_MB
    assert command(finished, "check-submission", f"--file={file}", f"--test={test_set}").returncode == 0


def test_a_malformed_test_set_is_one_clear_error(test_set, ranks_of_week, tmp_path):
    repeated = changed(test_set, tmp_path / "bad", set_row("article_ids_inview", 7, [5, 6, 5]))
    with pytest.raises(BundleError, match=r"behaviors\.parquet: .*article_ids_inview repeats an article in 1 rows"):
        ranks_of_week(repeated)


def test_a_week_before_that_reaches_into_the_test_week_counts_up_to_its_first_impression(finished, test_set, tmp_path):
    def shifted(table: pa.Table) -> pa.Table:
        times = pc.subtract(table["impression_time"], pa.scalar(3 * 86_400_000_000, pa.duration("us")))
        return put("impression_time", times.combine_chunks())(table)

    early = open_bundle(changed(test_set, tmp_path / "early", shifted), (TEST,))
    dataset, left_out = datasets.prepare_hidden(open_bundle(finished / "data" / "smoke"), early)
    assert left_out > 0 and 0 < len(dataset.parts["validation"]) == 2_050 - left_out
    assert dataset.parts["validation"].time.max() < dataset.parts["test"].time.min()


# ---- the check, on files that others wrote


@pytest.fixture
def sent(rows, tmp_path):
    """Write a submission of given lines, the right ones where a line is not given."""
    slates = [(row["impression_id"], len(row["article_ids_inview"])) for row in rows]
    right = [f"{number} [{','.join(map(str, range(1, length + 1)))}]" for number, length in slates]

    def write(lines=None, end: int | None = None, more: str = "", member: str = MEMBER) -> Path:
        every = [(lines or {}).get(number, line) for number, line in enumerate(right)][:end]
        file = tmp_path / "sent.zip"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(member, "\n".join(every) + "\n" + more)
        return file

    return write, right


@pytest.mark.parametrize(
    "last",
    [
        "[1]", "5 []", "5 [1,]", "5 [,1]", "5 [1,2", "x [1]", " 5 [1]", "", "5 [1, 2]", "5 [1.0]", "5 [-1]", "5 [1] ",
        "99999999999999999999999 [1]", "5 [99999999999999999999999]", "5 [1]\r", "٣ [1]",
    ],
)  # fmt: skip
def test_lines_of_another_form_are_named(sent, test_set, last):
    write, _ = sent
    with pytest.raises(SubmissionError, match=r"predictions\.txt: line 12 is not of the form"):
        check_submission(write({11: last}), test_set)


def test_each_kind_of_wrong_line_is_counted_and_the_first_named(sent, test_set):
    write, right = sent
    assert check_submission(write(), test_set) == len(right)
    ids = [line.split()[0] for line in right]
    length = right[3].count(",") + 1
    wrong = {
        3: f"{ids[3]} [{','.join(['1'] * length)}]",
        4: f"{ids[4]} [{','.join(str(n) for n in range(right[4].count(',') + 1))}]",
        7: f"{ids[8]} {right[7].split()[1]}",
        9: f"{ids[9]} [1]",
        10: "nothing",
    }
    with pytest.raises(SubmissionError) as caught:
        check_submission(write(wrong), test_set)
    for part in ("line 4 has ranks that are no permutation", "(2 such lines)", "line 8 has another impression_id",
                 "line 10 has not as many ranks", "line 11 is not of the form"):  # fmt: skip
        assert part in str(caught.value)


def test_files_that_are_no_submission_are_refused(sent, test_set, tmp_path):
    write, _ = sent
    for changes, message in (
        ({"end": 2_000}, "2000 lines for 2060 rows"), ({"more": "5 [1]\n\n"}, "2062 lines for 2060 rows"),
        ({"member": "other.txt"}, r"holds other\.txt; it must hold predictions\.txt alone"),
    ):  # fmt: skip
        with pytest.raises(SubmissionError, match=message):
            check_submission(write(**changes), test_set)
    with pytest.raises(SubmissionError, match="no such file"):
        check_submission(tmp_path / "none.zip", test_set)
    whole = write().read_bytes()
    for content in (b"", b"no zip", whole[: len(whole) // 2], whole[:200] + b"\0" * 500 + whole[700:]):
        (tmp_path / "bad.zip").write_bytes(content)
        with pytest.raises(SubmissionError):
            check_submission(tmp_path / "bad.zip", test_set)


def test_a_write_that_ends_early_leaves_no_file(tmp_path):
    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(tmp_path / "p.zip", np.array([5], np.uint32), np.array([0, 1]), np.array([1]), stop)
    assert not list(tmp_path.iterdir())
