"""A training stage without its notebook: the same artifacts by the same functions, on one process or on several."""

import contextlib
import os
import shutil
from collections.abc import Iterator

import pytorch_lightning as pl
import torch.distributed as dist
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.evaluation.evaluate import save_results
from ebnerd_lib.features import store
from ebnerd_lib.pipeline.params import StageConfig, hint, load_profile, trained_model, with_assignments, with_values
from ebnerd_lib.pipeline.paths import StagePaths, relative
from ebnerd_lib.pipeline.run import end_with_parent, interruptible
from ebnerd_lib.pipeline.stage import Stage
from ebnerd_lib.pipeline.stale import Hashes, fingerprint
from ebnerd_lib.training import fit
from ebnerd_lib.training.fit import TrainConfig, is_first, on_first, quiet, several, trainer_options
from ebnerd_lib.training.online import OnlineConfig, update_variants_online


def train(profile: str, stage: str, assignments: list[str]) -> None:
    """Run a training stage; its artifacts are those of its notebook, and ``make run-all`` takes them for fresh.

    Of several processes rank 0 alone holds the stage's lock, updates the model online, and scores and publishes it; the
    others leave once the network is trained.

    Args:
        profile: a folder of ``params``.
        stage: a training stage of it.
        assignments: parameters as ``key=value``, see ``with_assignments``.

    Raises:
        ConfigError: the profile, the stage or a parameter is wrong, or several processes are asked for and not there.
        StageError: an earlier stage has not run, or another process of this training ended or does not answer.
        LockedError: another process runs this stage.
        KeyboardInterrupt: this process was interrupted, by Ctrl-C, SIGTERM or SIGHUP.
    """
    configs = load_profile(profile)
    known = [name for name, config in configs.items() if config.trains]
    if stage not in known:
        raise ConfigError(f"--stage: '{stage}' is no training stage of profile {profile}; {hint(stage, known)}")
    asked = with_assignments(configs[stage], assignments)
    config = _spread(asked)
    train_config = TrainConfig.of(config.parameters)
    with interruptible(), _ended_in_order():
        quiet()
        if TorchElasticEnvironment.detect():
            end_with_parent()
        _join(train_config)
        own = None
        if is_first():
            own = Stage(config, "train", fingerprint(asked, Hashes(StagePaths(profile, "").hashes)))
        on_first(lambda: None)  # the others wait, as the stage may be refused
        try:
            _run(config, train_config, own)
        except BaseException:
            if own is not None:
                shutil.rmtree(own.folder, ignore_errors=True)
            raise


def _spread(config: StageConfig) -> StageConfig:
    """Return the parameters for as many processes as were started."""
    asked = {name: config.parameters["trainer"][name] for name in ("devices", "num_nodes")}
    started = spread()
    if not started:
        if asked["devices"] * asked["num_nodes"] > 1:
            raise ConfigError(
                f"devices: {asked['devices']} on {asked['num_nodes']} nodes, but this process was started alone. Start "
                f"`torchrun --nnodes {asked['num_nodes']} --nproc-per-node {asked['devices']} -m ebnerd_lib train ...`."
            )
        return config
    wrong = [name for name, number in asked.items() if number not in (1, started[name])]
    if wrong:
        raise ConfigError(
            f"{wrong[0]}: {asked[wrong[0]]}, but {started[wrong[0]]} were started. Leave {wrong[0]} out: it follows "
            "from how the processes are started."
        )
    strategy = config.parameters["trainer"]["strategy"]
    strategy = "ddp" if strategy in ("auto", "ddp_notebook") else strategy
    return with_values(config, {"trainer": {**started, "strategy": strategy}}, "the launcher")


def spread() -> dict[str, int]:
    """Return the trainer's ``devices`` and ``num_nodes`` as torchrun or SLURM started processes.

    Returns:
        Nothing where this process was started alone.

    Raises:
        ConfigError: the nodes have different numbers of processes.
    """
    if TorchElasticEnvironment.detect():
        processes, on_node = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = max(1, processes // on_node)
    elif SLURMEnvironment.detect():
        processes, nodes = int(os.environ["SLURM_NTASKS"]), int(os.environ.get("SLURM_NNODES", "1"))
        on_node = max(1, processes // nodes)
    else:
        return {}
    if on_node * nodes != processes:
        raise ConfigError(f"devices: {processes} processes on {nodes} nodes. Start equally many on each node.")
    return {"devices": on_node, "num_nodes": nodes} if processes > 1 else {}


def _join(config: TrainConfig) -> None:
    """Meet the other processes, if there are any, before the first training."""
    if config.trainer["devices"] * config.trainer["num_nodes"] > 1:
        trainer = pl.Trainer(
            **trainer_options(config.trainer), logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.strategy.setup_environment()


def _run(config: StageConfig, train_config: TrainConfig, stage: Stage | None) -> None:
    """Train on all ranks, and publish on the first, which has the stage."""
    parameters, logs = config.parameters, StagePaths(config.profile, config.stage).logs
    folder = StagePaths(config.profile, config.reads[0]).artifacts
    data = datasets.load(folder)
    features = {part: store.read(folder, part) for part in data.parts}
    model = parameters.get("model", "mlp")
    module = "mf" if model.startswith("mf_") else model
    settings = {**parameters, **parameters["training"]}
    name = str(trained_model(config.stage))
    results = [fit.train(data, features, module, model, parameters["tier"], name, settings, train_config, logs)]
    if stage is None:
        return
    updated = update_variants_online(results, data, features, OnlineConfig.of(parameters))
    stage.metrics |= save_results(results, updated, data, features, stage.folder, parameters["seed"])
    manifest = stage.finish()
    for name, entry in stage.metrics["models"].items():
        print(f"{name}  validation auc {entry['validation']['auc']:.4f}")
    print(f"{config.stage}: complete in {manifest['duration_seconds']:.0f} s, artifacts in {relative(stage.folder)}")


@contextlib.contextmanager
def _ended_in_order() -> Iterator[None]:
    """Tell an interruption and a lost process apart from failures of this one."""
    try:
        yield
    except SystemExit as exit:  # Lightning's answer to an interruption
        raise KeyboardInterrupt from exit
    except RuntimeError as error:
        if not (several() and (isinstance(error, dist.DistError) or "gloo" in str(error))):
            raise
        raise StageError(
            f"rank {dist.get_rank()} of {dist.get_world_size()}: another process of this training ended or does not "
            f"answer ({str(error).splitlines()[0]}). Nothing was published; rerun the command to resume."
        ) from error
