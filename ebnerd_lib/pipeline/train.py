"""A training stage without its notebook: the same artifacts by the same functions, on one process or on several."""

import contextlib
import math
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.callbacks import LambdaCallback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities import rank_zero_only

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.evaluation.answers import save_results
from ebnerd_lib.features.build import Features, read_features
from ebnerd_lib.models.base import find_model, one_thread
from ebnerd_lib.pipeline.params import StageConfig, hint, load_profile, read_assignments, trained_model, with_values
from ebnerd_lib.pipeline.paths import StagePaths, relative
from ebnerd_lib.pipeline.run import end_with_parent, interruptible
from ebnerd_lib.pipeline.stage import Stage, read_metrics
from ebnerd_lib.pipeline.stale import Hashes, fingerprint, model_module
from ebnerd_lib.training.fit import (
    TRAINER,
    Checkpoints,
    EpochLog,
    EpochReport,
    EpochSeed,
    TuningStop,
    on_first,
    quiet,
    several,
)
from ebnerd_lib.training.inputs import TrainingInputs
from ebnerd_lib.training.lightning import SlateData, SlateTraining
from ebnerd_lib.training.model_file import TrainedModel
from ebnerd_lib.training.online import update_online


def train(profile: str, stage: str, assignments: str = "") -> None:
    """Run a training stage; its artifacts are those of its notebook, and ``make run-all`` takes them for fresh.

    Of several processes rank 0 alone holds the stage's lock, updates the model online, and scores and publishes it; the
    others leave once the network is trained.

    Args:
        profile: a folder of ``params``.
        stage: a training stage of it.
        assignments: parameters that take the place of the profile's, see ``read_assignments``.

    Raises:
        ConfigError: the profile, the stage or a parameter is wrong, or several processes are asked for and not there.
        StageError: an earlier stage has not run, or another process of this training ended or does not answer.
        LockedError: another process runs this stage.
        KeyboardInterrupt: this process was interrupted, by Ctrl-C, SIGTERM or SIGHUP.
    """
    configs = load_profile(profile)
    known = [name for name, config in configs.items() if "trainer" in config.parameters]  # trees need no processes
    if stage not in known:
        raise ConfigError(f"--stage: '{stage}' is no training stage of profile {profile}; {hint(stage, known)}")
    asked = with_values(configs[stage], read_assignments(assignments, "--set"), "--set")
    config = _spread(asked)
    with interruptible(), _told_of_others():
        quiet()
        if TorchElasticEnvironment.detect():
            end_with_parent()
        options, own = config.parameters["trainer"], None
        if options["devices"] * options["num_nodes"] > 1:  # meet the others before what rank 0 does alone
            pl.Trainer(**TRAINER, **options, logger=False, enable_checkpointing=False).strategy.setup_environment()
        if rank_zero_only.rank == 0:
            own = Stage(config, "train", fingerprint(asked, Hashes(StagePaths(profile, "").hashes)))
        on_first(lambda: None)  # the others wait, as the stage may be refused
        _run(config, own)


def _spread(config: StageConfig) -> StageConfig:
    """Return the parameters for as many processes as were started, from which devices, nodes and strategy follow."""
    asked, started = config.parameters["trainer"], spread()
    if started:
        strategy = "ddp" if asked["strategy"] in ("auto", "ddp_notebook") else asked["strategy"]
        return with_values(config, {"trainer": {**started, "strategy": strategy}}, "the launcher")
    if asked["devices"] * asked["num_nodes"] > 1:
        raise ConfigError(
            f"devices: {asked['devices']} on {asked['num_nodes']} nodes, but this process was started alone. Start "
            f"`torchrun --nnodes {asked['num_nodes']} --nproc-per-node {asked['devices']} -m ebnerd_lib train ...`."
        )
    return config


def spread() -> dict[str, int]:
    """Return the trainer's ``devices`` and ``num_nodes`` as torchrun or SLURM started processes.

    Returns:
        Nothing where this process was started alone.

    Raises:
        ConfigError: the nodes have different numbers of processes.
    """
    if TorchElasticEnvironment.detect():
        processes = int(os.environ["WORLD_SIZE"])
        nodes = math.ceil(processes / int(os.environ["LOCAL_WORLD_SIZE"]))
    elif SLURMEnvironment.detect():
        processes, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", "1"))
    else:
        return {}
    if processes % nodes:
        raise ConfigError(f"devices: {processes} processes on {nodes} nodes. Start equally many on each node.")
    return {"devices": processes // nodes, "num_nodes": nodes} if processes > 1 else {}


def _run(config: StageConfig, stage: Stage | None) -> None:
    """Train on all ranks, and publish on the first, which has the stage."""
    parameters, paths = config.parameters, StagePaths(config.profile, config.stage)
    folder = StagePaths(config.profile, config.reads[0]).artifacts
    data = datasets.load(folder)
    features = {part: read_features(folder, part) for part in data.parts}
    inputs = inputs_of(parameters, data, features)
    model = fit(parameters, inputs, paths.logs, str(trained_model(config.stage))).model
    if stage is None:
        return
    online, minutes = None, parameters["update_minutes"]
    if minutes:
        online = update_online(model, inputs, minutes, parameters["seed"], **parameters["online"])
    baselines = read_metrics(folder)["baselines"]
    stage.metrics |= save_results(model, online, inputs, baselines, stage.folder, parameters["seed"])
    manifest = stage.finish()
    for name, entry in stage.metrics.get("models", {}).items():
        print(f"{name}  validation auc {entry['validation']['auc']:.4f}")
    print(f"{config.stage}: complete in {manifest['duration_seconds']:.0f} s, artifacts in {relative(stage.folder)}")


def inputs_of(parameters: Mapping[str, Any], data: Dataset, features: dict[str, Features]) -> TrainingInputs:
    """Return what the model of a stage learns from, by its parameters: logged slates, or samples of what was live."""
    tier, warmup_hours = parameters["tier"], parameters["training"]["warmup_hours"]
    if parameters.get("slates") == "live":
        return TrainingInputs.live(data, tier, warmup_hours, parameters["seed"], **parameters["pools"])
    return TrainingInputs.of(data, features, tier, warmup_hours)


class Fit(NamedTuple):
    """A trained model and how it got there: see ``EpochLog.curve``, and the number of the best epoch from 0."""

    model: TrainedModel
    curve: pd.DataFrame
    best_epoch: int


def fit(
    parameters: Mapping[str, Any],
    inputs: TrainingInputs,
    logs: Path,
    name: str,
    report: EpochReport | None = None,
) -> Fit:
    """Train a model as the notebooks show it.

    Args:
        parameters: of a training stage, checked. The model is the one that they name, else ``mlp``; what it does not
            take is left out.
        inputs: what it learns from.
        logs: logs and checkpoints go to its folder ``name``; a training that was interrupted there resumes.
        name: the model's name in files and tables.
        report: see ``EpochLog``.
    """
    quiet()
    model, training, seed = parameters.get("model", "mlp"), parameters["training"], parameters["seed"]
    kind = find_model(model_module(model), model)
    network = inputs.new(kind, seed, training["seeds"], **kind.known({**parameters, **training}))
    slates = SlateData(inputs, network, parameters["batch_size"], training["negatives"], seed)
    checkpoints = Checkpoints(logs / name, inputs, network, parameters)
    log, stop = EpochLog(report), TuningStop(inputs.best_by, mode="max", patience=training["patience"])
    options = dict(parameters["trainer"])
    if options.get("strategy") == "ddp":  # buffers are those of the transform, which do not change
        options["strategy"] = DDPStrategy(forward_sync_buffers=False)
    more = []
    if several():  # Lightning's own answer to SIGTERM first waits for the other processes, who know nothing
        answer = signal.getsignal(signal.SIGTERM)
        more = [LambdaCallback(on_train_start=lambda *_: signal.signal(signal.SIGTERM, answer))]
    trainer = pl.Trainer(
        max_epochs=parameters["epochs"],
        callbacks=[EpochSeed(seed), stop, log, *checkpoints.callbacks, *more],
        logger=TensorBoardLogger(logs, name, version="", purge_step=checkpoints.steps),
        **TRAINER,
        **options,
    )
    with one_thread():
        try:
            trainer.fit(SlateTraining(network), slates, ckpt_path=checkpoints.last, weights_only=True)
        except SystemExit as exit:  # Lightning's answer to an interruption
            raise KeyboardInterrupt from exit
    best_epoch = checkpoints.load_best(network)
    return Fit(TrainedModel.of(name, network, inputs), log.curve, best_epoch)


@contextlib.contextmanager
def _told_of_others() -> Iterator[None]:
    """Tell the loss of another process apart from failures of this one."""
    try:
        yield
    except RuntimeError as error:
        if not (several() and (isinstance(error, dist.DistError) or "gloo" in str(error))):
            raise
        raise StageError(
            f"rank {dist.get_rank()} of {dist.get_world_size()}: another process of this training ended or does not "
            f"answer ({str(error).splitlines()[0]}). Nothing was published; rerun the command to resume."
        ) from error
