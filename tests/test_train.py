"""Training without a notebook: the same artifacts on one process, shared exactly by two, and a clean end of both."""

import os
import shutil
import signal
import subprocess
from collections import Counter
from contextlib import nullcontext
from itertools import chain, pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from runs import artifacts, command, manifest, metrics, python

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation.metrics import mean_metrics, per_slate
from ebnerd_lib.features.build import read_features
from ebnerd_lib.models.base import listwise
from ebnerd_lib.models.mf import MFIds
from ebnerd_lib.pipeline import train as verb
from ebnerd_lib.training.inputs import TrainingInputs
from ebnerd_lib.training.lightning import SlateData
from ebnerd_lib.training.model_file import load_model

WORDS = ["train", "--profile", "smoke", "--stage", "03_train_mlp", "--set", "update_minutes=0"]
BATCH = 64  # of profile smoke
# The command line, whose second process is killed in the second epoch.
DEADLY = """
import os, signal, sys
from ebnerd_lib.__main__ import main
from ebnerd_lib.training.lightning import SlateTraining

def step(self, batch, number):
    if self.current_epoch == 1 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, batch, number)

real, SlateTraining.training_step = SlateTraining.training_step, step
sys.exit(main(sys.argv[1:]))
"""


def torchrun(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module or a script on two processes."""
    return python(project, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words)


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory) -> Path:
    """A copy of the finished project, in which two processes have trained one network of the MLP."""
    folder = tmp_path_factory.mktemp("ranks") / "project"
    shutil.copytree(finished, folder)
    done = torchrun(folder, "-m", "ebnerd_lib", *WORDS, "--set", "trainer.strategy=ddp")
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stdout)
    return folder


@pytest.mark.slow
def test_without_its_notebook_a_stage_leaves_the_same_bytes(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "a")
    for stage in ("03_train_mlp", "02_train_mf.ids"):
        shutil.rmtree(tmp_path / "a" / "outputs" / "smoke" / "artifacts" / stage)
        done = command(tmp_path / "a", "train", "--profile", "smoke", "--stage", stage)
        assert done.returncode == 0, done.stderr
        assert artifacts(tmp_path / "a", stage) == artifacts(finished, stage)
        ours, theirs = manifest(tmp_path / "a", stage), manifest(finished, stage)
        assert (ours["run"], ours["status"]) == ("train", "complete")
        for key in ("parameters", "inputs", "outputs", "generated", "fingerprint"):
            assert ours[key] == theirs[key]


@pytest.mark.slow
def test_two_processes_share_slates_have_the_tuning_metrics_of_one_and_train_as_good_a_model(project, finished):
    outputs, stage = project / "outputs" / "smoke", "03_train_mlp"
    trainer = manifest(project, stage)["parameters"]["trainer"]
    assert (trainer["devices"], trainer["num_nodes"], trainer["strategy"]) == (2, 1, "ddp")
    assert (project / "said.txt").read_text().count("mlp  epoch  1/2") == 1
    # The smoke bundle is so small that another order of dropout alone moves its AUC by .003.
    together, alone = (metrics(at, stage)["models"]["mlp"]["validation"]["auc"] for at in (project, finished))
    assert together == pytest.approx(alone, abs=0.005) and together != alone
    folder = outputs / "artifacts" / "01_preprocess"
    data = datasets.load(folder)
    features = {part: read_features(folder, part) for part in data.parts}
    model = load_model(outputs / "artifacts" / stage / "model_mlp.pt")
    slates = SlateData(TrainingInputs.of(data, features, "clicks", 48.0), model.network, BATCH)
    scores, loss, clicks = [], 0.0, 0.0
    with torch.inference_mode():
        for batch in slates.val_dataloader():
            scores.append(model.network(batch))
            loss += listwise(scores[-1].double(), batch).item() * batch.clicked.sum().item()
            clicks += batch.clicked.sum().item()
    curve = pd.read_csv(outputs / "logs" / stage / "mlp" / "metrics.csv")
    best, tuning = curve.loc[curve["val/auc"].idxmax()], data.parts["tuning"]
    evaluated = per_slate(torch.cat(scores).numpy(), tuning.clicked, tuning.offsets)
    assert best["val/auc"] == pytest.approx(mean_metrics(evaluated)["auc"], abs=1e-9)
    assert best["val/loss"] == pytest.approx(loss / clicks, abs=1e-9)


@pytest.mark.slow
def test_a_killed_process_ends_both_and_the_same_command_resumes(project, tmp_path):
    wanted, before = artifacts(project, "03_train_mlp"), manifest(project, "03_train_mlp")
    (tmp_path / "deadly.py").write_text(DEADLY)
    dead = torchrun(project, str(tmp_path / "deadly.py"), *WORDS)
    assert dead.returncode != 0
    assert f"exitcode  : {-signal.SIGKILL}" in dead.stderr
    assert "epoch  1/2" in dead.stdout and "epoch  2/2" not in dead.stdout
    assert manifest(project, "03_train_mlp") == before
    done = torchrun(project, "-m", "ebnerd_lib", *WORDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mlp  resumes after epoch 1\n") and done.stdout.count("  epoch  ") == 1
    assert artifacts(project, "03_train_mlp") == wanted


def data_of(smoke, features, batch_size: int, rank: int, world: int) -> SlateData:
    inputs = TrainingInputs.of(smoke, features, "ids", 24.0)
    data = SlateData(inputs, inputs.new(MFIds), batch_size)
    data.trainer = type("Trainer", (), {"current_epoch": 3, "global_rank": rank, "world_size": world})()
    return data


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [64, 7, 5])
def test_the_shares_of_a_batch_make_up_the_batch(smoke, features, world, batch_size):
    def loaders(rank: int, world: int) -> list[list[list[str]]]:
        data = data_of(smoke, features, batch_size, rank, world)
        both = (data.train_dataloader(), data.val_dataloader())
        found = [[[str(user) for user in batch.user] for batch in loader] for loader in both]
        assert [len(loader) for loader in both] == [len(batches) for batches in found]
        return found

    whole, shares = loaders(0, 1), [loaders(rank, world) for rank in range(world)]
    for place, alone in enumerate(whole):
        together = list(zip(*(share[place] for share in shares), strict=True))
        assert all(part for parts in together for part in parts)
        assert Counter(chain.from_iterable(alone)) == Counter(one for parts in together for one in chain(*parts))
        # All but the last two batches are those of one process: a last one that is too small joins the one before.
        for one, parts in list(zip(alone, together, strict=False))[:-2]:
            assert Counter(one) == Counter(chain(*parts))
        assert all(0 <= a - b <= 1 for parts in together for a, b in pairwise(map(len, parts)))


def test_more_processes_than_a_batch_has_slates_are_refused(smoke, features):
    with pytest.raises(ConfigError, match="batch_size: 4 processes cannot share batches of 3"):
        data_of(smoke, features, 3, 0, 4).train_dataloader()


def test_a_stage_that_trains_nothing_and_several_devices_without_a_launcher_are_refused():
    with pytest.raises(ConfigError, match=r"--stage: '03_train_mpl'.*'03_train_mlp"):
        verb.train("smoke", "03_train_mpl")
    with pytest.raises(ConfigError, match=r"`torchrun --nnodes 1 --nproc-per-node 2 -m ebnerd_lib train"):
        verb.train("smoke", "03_train_mlp", "trainer.devices=2; trainer.strategy=ddp")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {}),
        ({"TORCHELASTIC_RUN_ID": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, {}),
        ({"TORCHELASTIC_RUN_ID": "0", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}, {"devices": 4, "num_nodes": 2}),
        ({"SLURM_NTASKS": "6", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}, {"devices": 3, "num_nodes": 2}),
        ({"TORCHELASTIC_RUN_ID": "0", "WORLD_SIZE": "5", "LOCAL_WORLD_SIZE": "2"}, None),
    ],
)
def test_devices_and_nodes_follow_from_how_processes_were_started(monkeypatch, variables, expected):
    for name in [name for name in os.environ if name.startswith(("SLURM", "TORCHELASTIC"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with nullcontext() if expected is not None else pytest.raises(ConfigError, match="5 processes on 3 nodes"):
        assert verb.spread() == expected
