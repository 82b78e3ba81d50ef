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
from ebnerd_lib.pipeline.params import StageConfig, hint, load_config, with_assignments, with_values
from ebnerd_lib.pipeline.paths import PREPROCESSED, StagePaths, profile_stages, relative
from ebnerd_lib.pipeline.run import end_with_parent, interruptible
from ebnerd_lib.pipeline.stage import Stage
from ebnerd_lib.training.fit import TrainConfig, is_first, on_first, quiet, several, train_variants, trainer_options
from ebnerd_lib.training.online import OnlineConfig, update_variants_online


def train(profile: str, models: list[str], assignments: list[str]) -> None:
    """Run the stage that trains some models.

    Of several processes rank 0 alone holds the stage's lock, updates models online, and scores and publishes them; the
    others leave once the last network is trained.

    Args:
        profile: a folder of ``params``.
        models: names of models that one stage of the profile trains. Its artifacts are then those of these models.
        assignments: parameters as ``key=value``, see ``with_assignments``.

    Raises:
        ConfigError: the profile, a model or a parameter is wrong, or several processes are asked for and not there.
        StageError: an earlier stage has not run, or another process of this training ended or does not answer.
        LockedError: another process runs this stage.
        KeyboardInterrupt: this process was interrupted, by Ctrl-C, SIGTERM or SIGHUP.
    """
    config = _spread(with_assignments(stage_of(profile, models), assignments))
    config = with_values(config, {"models": models}, "--model")
    train_config = TrainConfig.of(config.parameters)
    with interruptible(), _ended_in_order():
        quiet()
        if TorchElasticEnvironment.detect():
            end_with_parent()
        _join(train_config)
        stage = Stage(config, run="train") if is_first() else None
        on_first(lambda: None)  # the others wait, as the stage may be refused
        try:
            _run(config, train_config, stage)
        except BaseException:
            if stage is not None:
                shutil.rmtree(stage.folder, ignore_errors=True)
            raise


def stage_of(profile: str, models: list[str]) -> StageConfig:
    """Return the parameters of the stage of a profile that trains some models.

    Raises:
        ConfigError: there is none, or there are several.
    """
    configs = [load_config(profile, stage) for stage in profile_stages(profile)]
    training = [config for config in configs if "module" in config.parameters]
    found = [config for config in training if set(models) <= set(config.parameters["models"])]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"--model: {', '.join(config.stage for config in found)} of profile {profile} all train "
            f"{', '.join(models)}. Name models that one of them trains."
        )
    known = {model: config.stage for config in training for model in config.parameters["models"]}
    unknown = [model for model in models if model not in known]
    if not unknown:
        stages = ", ".join(f"{model} in {known[model]}" for model in models)
        raise ConfigError(f"--model: these are trained by several stages: {stages}. Run `train` for each stage.")
    raise ConfigError(f"--model: no stage of profile {profile} trains '{unknown[0]}'; {hint(unknown[0], known)}")


def _spread(config: StageConfig) -> StageConfig:
    """Return the parameters for as many processes as were started."""
    asked = {name: config.parameters[name] for name in ("devices", "num_nodes")}
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
    strategy = config.parameters["strategy"]
    strategy = "ddp" if strategy in ("auto", "ddp_notebook") else strategy
    return with_values(config, {**started, "strategy": strategy}, "the launcher")


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
    folder = StagePaths(config.profile, PREPROCESSED).artifacts
    data = datasets.load(folder)
    features = {part: store.read(folder, part) for part in data.parts}
    results = train_variants(
        data, features, parameters["module"], parameters["models"], parameters["tiers"], parameters, train_config, logs
    )
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
