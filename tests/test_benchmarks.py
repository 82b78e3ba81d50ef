"""Benchmarks: the ratio and bar of a row are right, and the command goes on after what fails."""

import json

import pytest

from benchmarks import __main__ as command
from benchmarks import measure


def test_a_row_knows_its_ratio_and_whether_its_bar_is_met():
    for ours, rival, bar, *expected in (
        (2.0, 50.0, "rival / ours ≥ 20", 25.0, True), (2.0, 50.0, "rival / ours ≥ 30", 25.0, False),
        (3.0, 2.0, "ours / rival ≤ 1.3", 1.5, False), (0.8, 0.8, "ours / rival ≥ 1", 1.0, True),
        (2.0, None, "rival / ours ≥ 20", None, None), (0, None, "ours ≤ 0", None, True), (3.0, None, "", None, None),
    ):  # fmt: skip
        row = measure.Row("x", ours, "s", bar, rival).plain()
        assert [row["ratio"], row["met"]] == expected, bar
        assert ("pip install" in row["note"]) == (rival is None and "rival" in bar)


@pytest.mark.slow
def test_the_command_writes_results_and_names_a_group_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "GROUPS", ("training", "nowhere"))
    assert command.main(["--quick", "--rows", "training,nowhere", "--out", str(tmp_path)]) == 1
    *rows, failed = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert len(rows) == 5 and rows[0]["rival"] > 0 and "ModuleNotFoundError" in failed["note"]
