"""An interrupted training resumes from its last epoch, to the same metrics as one that nothing disturbed."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fits import fitted
from runs import Payload

import ebnerd_lib
from ebnerd_lib.features.build import Features
from ebnerd_lib.training.lightning import SlateTraining

pytestmark = pytest.mark.slow

SETTINGS = {
    "epochs": 3, "batch_size": 700, "embedding_size": 4, "hidden": [16], "dropout": 0.2, "schedule": "constant",
    "learning_rate": 1e-2,
}  # fmt: skip
PLACES = {"step": (SlateTraining, "training_step"), "checkpoint": (torch, "save"), "move": (shutil, "move")}


class Cut(BaseException):
    pass


@pytest.fixture
def trained(smoke, features, tmp_path):
    """A function that trains, cut off in epoch ``at`` if that is given; returns the epochs trained."""

    def go(at: int | None = None, data=smoke, given=features, **settings):
        heard = []

        def report(progress):
            if "epoch" not in progress:  # a share of one
                return
            heard.append(progress["epoch"])
            if progress["epoch"] == at:
                raise Cut

        try:
            go.result = fitted(data, given, tmp_path, report=report, **{**SETTINGS, **settings})
        except Cut:
            assert at is not None
        return heard

    return go


def outcome(result) -> list[torch.Tensor]:
    """The metrics of all epochs, the best one and its weights."""
    return [torch.tensor(result.curve.to_numpy(float)), result.best_epoch, *result.model.network.parameters()]


@pytest.fixture(scope="module")
def undisturbed(smoke, features, tmp_path_factory) -> list[torch.Tensor]:
    return outcome(fitted(smoke, features, tmp_path_factory.mktemp("undisturbed"), **SETTINGS))


# An epoch writes two checkpoints at most.
@pytest.mark.parametrize(("what", "last"), [("step", 3), ("checkpoint", 4), ("move", 2), ("move", 3)])
def test_cut_off_before_a_call_and_resumed_gives_the_same_metrics(trained, undisturbed, monkeypatch, what, last):
    owner, name = PLACES[what]
    calls, real = [], getattr(owner, name)

    def counted(*args, **kwargs):
        calls.append(name)
        if len(calls) == last:
            raise Cut
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, counted)
        trained(at=0)
    assert len(calls) == last and not hasattr(trained, "result")
    trained()
    torch.testing.assert_close(outcome(trained.result), undisturbed, rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{}, {"seeds": 2}, {"epochs": 30, "patience": 1}])
def test_no_epoch_is_trained_twice_until_the_stage_is_complete(trained, tmp_path, settings):
    assert trained(at=2, **settings) == [1, 2]
    rest = trained(**settings)
    assert rest == list(range(2, rest[-1] + 1)) and rest[-1] < 30, "it stops early"
    best = next(tmp_path.glob("mlp/*/best.ckpt")).read_bytes()
    assert trained(**settings) == []
    assert next(tmp_path.glob("mlp/*/best.ckpt")).read_bytes() == best
    for checkpoint in tmp_path.glob("mlp/*/last.ckpt"):  # as a complete stage does
        checkpoint.unlink()
    assert trained(**settings) == [1, *rest]


def test_anything_changed_is_trained_anew(trained, smoke, features, capsys, monkeypatch):
    tuning, matrix = smoke.parts["tuning"], np.array(features["train"].matrix)
    matrix[-1, 0] += 1
    clicks = {**smoke.parts, "tuning": replace(tuning, clicked=tuning.clicked[::-1])}
    one_value = {**features, "train": Features(matrix, features["train"].columns)}
    changes = [{"learning_rate": 2e-3}, {"data": replace(smoke, parts=clicks)}, {"given": one_value}, {}]
    for change in changes:
        trained(at=2)
        capsys.readouterr()
        with monkeypatch.context() as patch:
            if not change:
                patch.setattr(ebnerd_lib, "__path__", ["nowhere"])  # a package of no files: other code
            assert trained(**change)[0] == 1
        assert "mlp  trained anew: " in capsys.readouterr().out


def turn_a_bit(checkpoint: Path) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(bytes(content))


def lose_the_best(checkpoint: Path) -> None:
    checkpoint.with_name("best.ckpt").unlink()


def plant_code(checkpoint: Path) -> None:
    torch.save(Payload(checkpoint.parents[2] / "exploded"), checkpoint)


@pytest.mark.parametrize("spoil", [turn_a_bit, lose_the_best, plant_code])
def test_a_broken_or_hostile_checkpoint_is_never_used_and_the_reason_is_told(trained, tmp_path, capsys, spoil):
    trained(at=2)
    (checkpoint,) = tmp_path.glob("mlp/*/last.ckpt")
    spoil(checkpoint)
    capsys.readouterr()
    assert trained() == [1, 2, 3]
    said = capsys.readouterr().out
    assert said.startswith("mlp  trained anew: ") and checkpoint.parent.name in said
    assert str(tmp_path) not in said  # it ends up in reports, which hold no paths
    assert not (tmp_path / "exploded").exists()


def test_tensorboard_and_csv_show_every_epoch_once(trained, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained(at=2)
    trained()
    curve = pd.read_csv(tmp_path / "mlp" / "metrics.csv")
    assert list(curve["epoch"]) == [0, 1, 2]
    shown = EventAccumulator(str(tmp_path / "mlp")).Reload()
    for name in ("train/loss", "val/auc"):
        assert [point.value for point in shown.Scalars(name)] == pytest.approx(curve[name], rel=1e-6)
