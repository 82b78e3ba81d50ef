"""A training stage without its notebook: the same artifacts by the same functions, on one process or on several."""

import contextlib
import difflib
import shutil
from collections.abc import Iterator

from pytorch_lightning.plugins.environments import TorchElasticEnvironment

from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.evaluation.evaluate import save_results
from ebnerd_lib.features import store
from ebnerd_lib.pipeline.params import StageConfig, load_config, with_assignments, with_values
from ebnerd_lib.pipeline.paths import StagePaths, profile_stages, relative
from ebnerd_lib.pipeline.run import end_with_parent, interruptible
from ebnerd_lib.pipeline.stage import Stage
from ebnerd_lib.training import ranks
from ebnerd_lib.training.fit import TrainConfig, quiet, train_variants
from ebnerd_lib.training.online import OnlineConfig, update_variants_online

PREPROCESSED = "01_preprocess"


def train(profile: str, models: list[str], assignments: list[str]) -> None:
    """Run the stage that trains some models.

    Of several processes rank 0 alone holds the stage's lock, lets models learn on, and scores and publishes them; the
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
    plan = TrainConfig.of(config.parameters)
    with interruptible(), _ended_in_order():
        quiet()
        if TorchElasticEnvironment.detect():
            end_with_parent()
        ranks.join(plan.trainer)
        stage = Stage(config, run="train") if ranks.is_first() else None
        ranks.wait_for_first()  # it may be refused
        try:
            _run(config, plan, stage)
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
    near = difflib.get_close_matches(unknown[0], known, 1)
    hint = f"did you mean '{near[0]}'?" if near else f"use some of {', '.join(known) or 'none'}."
    raise ConfigError(f"--model: no stage of profile {profile} trains '{unknown[0]}'; {hint}")


def _spread(config: StageConfig) -> StageConfig:
    """Return the parameters for as many processes as were started."""
    asked = {name: config.parameters[name] for name in ("devices", "num_nodes")}
    started = ranks.spread()
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
    return with_values(
        config, {**started, "strategy": "ddp" if strategy in ("auto", "ddp_notebook") else strategy}, "the launcher"
    )


def _run(config: StageConfig, plan: TrainConfig, stage: Stage | None) -> None:
    """Train on all ranks, and publish on the first, which has the stage."""
    parameters, logs = config.parameters, StagePaths(config.profile, config.stage).logs
    folder = StagePaths(config.profile, PREPROCESSED).artifacts
    data = datasets.load(folder)
    features = {part: store.read(folder, part) for part in data.parts}
    fits = train_variants(
        data, features, parameters["module"], parameters["models"], parameters["tiers"], parameters, plan, logs
    )
    if stage is None:
        return
    learned = update_variants_online(fits, data, features, OnlineConfig.of(parameters))
    stage.metrics |= save_results(fits, learned, data, features, stage.folder, parameters["seed"])
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
        if not ranks.is_of_another(error):
            raise
        raise StageError(
            f"{ranks.name()}: another process of this training ended or did not answer for {ranks.SECONDS} seconds "
            f"({str(error).splitlines()[0]}). Nothing was published; the same command goes on from the last epoch."
        ) from error
