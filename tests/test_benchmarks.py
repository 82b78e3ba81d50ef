"""Benchmarks: the bare loop trains the same network, and the ratio and bar of a row are right."""

import json

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import inputs, measure, training
from ebnerd_lib.models.base import one_thread


@pytest.fixture(scope="module")
def stored(smoke, smoke_features):
    return {part: inputs.store.read(smoke_features, part) for part in smoke.parts}


@one_thread()
def test_the_bare_loop_comes_to_the_same_weights(smoke, stored, tmp_path):
    trained = inputs.fitted("smoke", smoke, stored, "mlp", tmp_path, epochs=1).model.network
    seed = torch.manual_seed(inputs.parameters("smoke", "mlp")["seed"]).initial_seed()
    network = type(trained)(**trained.hyperparameters)
    network.transform.load_state_dict(trained.transform.state_dict())
    data = trained.trainer.datamodule
    data.trainer = None  # without one, batches are those of the first epoch
    dropout = np.random.SeedSequence((seed, 0)).generate_state(1, np.uint64)  # of the seed and the epoch
    torch.manual_seed(int(dropout[0] >> np.uint64(1)))
    training.bare_loop(network, data, 1)()
    torch.testing.assert_close(network.state_dict(), trained.state_dict(), rtol=1e-5, atol=1e-6)


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
    monkeypatch.setattr(command, "GROUPS", ("evaluation", "nowhere"))
    assert command.main(["--quick", "--rows", "evaluation,nowhere", "--out", str(tmp_path)]) == 1
    first, second = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert first["rival"] > 0 and "ModuleNotFoundError" in second["note"]
