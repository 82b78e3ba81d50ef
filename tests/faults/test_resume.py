"""A training that is cut off goes on from its last epoch, to the same bytes as one that nothing disturbed."""

import json
import multiprocessing
import os
import random
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.features import store
from ebnerd_lib.features.store import Features
from ebnerd_lib.models.base import SlateModel
from ebnerd_lib.training import kept, resume
from ebnerd_lib.training.batches import HistoryReader, IdEncoder
from ebnerd_lib.training.fit import TrainConfig, train, train_variants
from ebnerd_lib.training.model_file import save_model

pytestmark = pytest.mark.slow

PLAN = TrainConfig(epochs=3, patience=3, batch_size=700, warmup_hours=24, seed=0)
SETTINGS = {"embedding_size": 4, "hidden": [16], "dropout": 0.2, "schedule": "constant", "learning_rate": 1e-2}
STAGE = ["mlp", "mlp_exposure"]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["ebnerd_lib.training.fit", "ebnerd_lib.features.store"])


def stage(folder: Path, out: Path, plan: TrainConfig, death: tuple[str, int] | None) -> None:
    """Train two models of two networks each, as a stage does; ``death`` says before which call it is killed."""
    (out / "logs").mkdir(parents=True, exist_ok=True)
    sys.stdout = (out / "said.txt").open("w", encoding="utf-8")
    if death is not None:
        _die(*death)
    data = datasets.load(folder)
    features = {part: store.read(folder, part) for part in data.parts}
    fits = train_variants(data, features, "mlp", ["mlp"], ["clicks", "exposure"], SETTINGS, plan, out / "logs")
    for fit in fits:
        save_model(fit.model, out)
        fit.curve.to_json(out / f"curve_{fit.model.name}.json", double_precision=15)
    (out / "best.json").write_text(json.dumps([fit.best_epoch for fit in fits]))
    sys.stdout.close()


def _die(what: str, call: int) -> None:
    """Kill this process before the given call of a training step, or of what writes a file, counted from 1."""
    holder, name = {
        "step": (SlateModel, "training_step"),
        "checkpoint": (torch, "save"),
        "keep": (resume, "keep"),
        "rename": (Path, "replace"),
    }[what]
    calls, real = [0], getattr(holder, name)

    def counted(*args, **kwargs):
        calls[0] += 1
        if calls[0] == call:
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    setattr(holder, name, counted)


def run(
    folder: Path, out: Path, plan: TrainConfig = PLAN, death: tuple[str, int] | None = None, after: float | None = None
):
    """Run ``stage`` in a process; returns its exit code. ``after`` kills it from outside, in seconds."""
    process = SERVER.Process(target=stage, args=(folder, out, plan, death))
    process.start()
    process.join(after if after is not None else 120)
    if process.exitcode is None:
        process.kill()
        process.join(30)
    return process.exitcode


def result(out: Path) -> dict[str, bytes]:
    """What a stage leaves: models, curves and the CSV logs of all networks."""
    files = [*out.glob("model_*.pt"), *out.glob("*.json"), *out.glob("logs/*/metrics.csv")]
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def ready(smoke_features) -> Path:
    return smoke_features


@pytest.fixture(scope="module")
def undisturbed(ready, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed")
    assert run(ready, out, replace(PLAN, seeds=2)) == 0
    found = result(out)
    assert set(found) == {
        "best.json", *(f"model_{name}.pt" for name in STAGE), *(f"curve_{name}.json" for name in STAGE),
        *(f"logs/{name}{seed}/metrics.csv" for name in STAGE for seed in ("", "_seed1")),
    }  # fmt: skip
    return found


@pytest.fixture(scope="module")
def steps(smoke) -> int:
    """Batches of an epoch."""
    from ebnerd_lib.training.batches import training_rows

    return -(-len(training_rows(smoke.parts["train"], PLAN.warmup_hours)) // PLAN.batch_size)


# Each of the four networks has 3 epochs. A step is given as (epoch, batch), other calls by their number.
DEATHS = [
    ("step", (1, 1)),  # within the second epoch of the first network
    ("keep", (2, 0)),  # the second epoch's checkpoint is written and does not count yet
    ("rename", (8, 0)),  # in the second model
    ("checkpoint", (4, 0)),
]


@pytest.mark.parametrize("death", DEATHS, ids=str)
def test_killed_and_gone_on_with_gives_the_same_bytes(ready, undisturbed, steps, tmp_path, death):
    what, (place, batch) = death
    call = place * steps + batch + 1 if what == "step" else place
    plan = replace(PLAN, seeds=2)
    assert run(ready, tmp_path, plan, (what, call)) == -signal.SIGKILL
    before = (tmp_path / "said.txt").read_text()
    assert not list(tmp_path.glob("model_*.pt"))
    assert run(ready, tmp_path, plan) == 0
    said = (tmp_path / "said.txt").read_text()
    assert result(tmp_path) == undisturbed
    trained = [len(re.findall(r"  epoch ", text)) for text in (before, said)]
    # No epoch is trained again but the one that was cut off.
    assert 12 <= sum(trained) <= 13, before + said
    assert not list(tmp_path.glob("logs/*/epoch-*.ckpt"))


def test_killed_at_any_moment_again_and_again_gives_the_same_bytes(ready, undisturbed, tmp_path):
    chance, plan, kills = random.Random(0), replace(PLAN, seeds=2), 0
    while run(ready, tmp_path, plan, after=chance.uniform(0.3, 1.5) + 0.3 * kills) != 0:
        kills += 1
    assert result(tmp_path) == undisturbed


def test_early_stopping_counts_on(ready, tmp_path):
    plan = replace(PLAN, epochs=12, patience=1)
    assert run(ready, tmp_path / "whole", plan) == 0
    lengths = [len(pd.read_csv(tmp_path / "whole" / "logs" / name / "metrics.csv")) for name in STAGE]
    assert min(lengths) < 12, "no early stop: the test shows nothing"
    # The epoch that was no better is over, and what is kept is that of the one before.
    place = lengths[0] if lengths[0] < 12 else sum(lengths)
    assert run(ready, tmp_path / "cut", plan, ("keep", place)) == -signal.SIGKILL
    assert run(ready, tmp_path / "cut", plan) == 0
    assert result(tmp_path / "cut") == result(tmp_path / "whole")


class Cut(Exception):
    pass


@pytest.fixture
def trained(smoke, ready, tmp_path):
    """A function that trains in this process, cut off in epoch ``at`` if that is given."""
    features = {part: store.read(ready, part) for part in smoke.parts}

    def go(at: int | None = None, plan: TrainConfig = PLAN, data=smoke, given=features, **settings):
        heard = []

        def report(progress):
            heard.append(progress)
            if progress["epoch"] == at:
                raise Cut

        try:
            train(data, given, "mlp", "mlp", "clicks", "mlp", {**SETTINGS, **settings}, plan, tmp_path, report)
        except Cut:
            assert at is not None
        return [progress["epoch"] for progress in heard]

    go.features = features
    return go


def test_what_is_done_is_taken_as_it_is_until_its_stage_is_complete(trained, tmp_path, capsys):
    assert trained() == [1, 2, 3]
    assert trained() == []
    assert "mlp  taken as it is: all 3 epochs" in capsys.readouterr().out
    kept.forget(tmp_path)
    assert trained() == [1, 2, 3]
    assert "taken as it is" not in capsys.readouterr().out


def other_clicks(go, smoke):
    slates = smoke.parts["tuning"]
    return {"data": replace(smoke, parts={**smoke.parts, "tuning": replace(slates, clicked=slates.clicked[::-1])})}


def other_features(go, smoke):
    matrix = np.array(go.features["train"].matrix)
    matrix[-1, 0] += 1
    return {"given": {**go.features, "train": Features(matrix, go.features["train"].columns)}}


CHANGES = [
    lambda go, smoke: {"learning_rate": 2e-3},
    lambda go, smoke: {"plan": replace(PLAN, seed=1)},
    other_clicks,
    other_features,
]


@pytest.mark.parametrize("change", CHANGES)
def test_anything_changed_is_trained_anew(trained, smoke, capsys, change):
    trained(at=2)
    assert trained(**change(trained, smoke))[0] == 1
    assert "mlp  trained anew: " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["_code", "torch"])
def test_other_code_or_another_torch_is_trained_anew(trained, monkeypatch, name):
    trained(at=2)
    if name == "_code":
        monkeypatch.setattr(resume, "_code", lambda: "other")
    else:
        monkeypatch.setattr(torch, "__version__", "0")
    assert trained() == [1, 2, 3]


def test_vectors_and_histories_count_where_a_model_looks_at_them(smoke):
    lookup = IdEncoder(np.arange(3), np.arange(3))
    reading = HistoryReader(smoke.vectors, smoke.vectors.any(axis=1), smoke.histories, 3)
    sums = {resume.sum_of_inputs(smoke, {}, [], lookup, None), resume.sum_of_inputs(smoke, {}, [], lookup, reading)}
    other = replace(smoke.histories[0], time=smoke.histories[0].time + 1)
    sums.add(resume.sum_of_inputs(smoke, {}, [], lookup, replace(reading, histories=[other, smoke.histories[1]])))
    sums.add(resume.sum_of_inputs(smoke, {}, [], lookup, replace(reading, vectors=smoke.vectors + 1)))
    sums.add(resume.sum_of_inputs(smoke, {}, [], IdEncoder(np.arange(3)[::-1].copy(), lookup.article), None))
    assert len(sums) == 5


class Bomb:
    """Code in a pickle: it would write a file where it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def turn_a_bit(folder: Path, checkpoint: Path) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(bytes(content))


def lose_the_best(folder: Path, checkpoint: Path) -> None:
    (folder / "best.ckpt").unlink()


def cut_the_note(folder: Path, checkpoint: Path) -> None:
    (folder / "kept.json").write_text((folder / "kept.json").read_text()[:50])


def plant_code(folder: Path, checkpoint: Path) -> None:
    torch.save(Bomb(folder.parent / "exploded"), checkpoint)
    note = json.loads((folder / "kept.json").read_text())
    (folder / "kept.json").write_text(json.dumps({**note, "sha256": kept._sum(checkpoint)}))


SPOILERS = [lose_the_best, cut_the_note, turn_a_bit, plant_code]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_spoilt_checkpoint_is_never_used_and_the_reason_is_told(trained, tmp_path, capsys, spoil):
    trained(at=2)
    (checkpoint,) = (tmp_path / "mlp").glob("epoch-*.ckpt")
    spoil(tmp_path / "mlp", checkpoint)
    capsys.readouterr()
    assert trained() == [1, 2, 3]
    said = capsys.readouterr().out
    assert said.startswith(f"mlp  trained anew: logs/{tmp_path.name}/mlp/")
    assert str(tmp_path) not in said
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


def test_dropout_is_drawn_by_seed_and_epoch():
    def drawn(seed: int, epoch: int, rank: int = 0) -> float:
        trainer = type("Trainer", (), {"current_epoch": epoch, "global_rank": rank})()
        resume.EpochSeed(seed).on_train_epoch_start(trainer, None)
        return float(torch.rand(()))

    draws = [drawn(seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    draws = [*draws, drawn(0, 0, 1), drawn(1, 1)]
    assert len(set(draws)) == 5
    torch.rand(100)
    assert drawn(1, 1) == draws[-1]
