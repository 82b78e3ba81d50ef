"""Search over the parameters of a training stage with Optuna, by the tuning day alone.

A search is a journal in ``outputs/<profile>/logs/tune/<stage>-<checksum>``, which processes on any number of machines
share. The checksum is over the fingerprint of the stage and what is searched, so searches never mix. Each process holds
the lock of its trial: that of one that was killed is marked as failed, and its parameters are tried again.
"""

import contextlib
import hashlib
import io
import json
import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import yaml
from filelock import FileLock
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import TypeAdapter

from ebnerd_lib.configs import Space, flat, nested
from ebnerd_lib.data import dataset as datasets
from ebnerd_lib.data.dataset import Dataset
from ebnerd_lib.errors import ConfigError
from ebnerd_lib.evaluation.metrics import per_slate
from ebnerd_lib.features.build import Features, read_features
from ebnerd_lib.pipeline import params
from ebnerd_lib.pipeline.params import StageConfig, trained_model, with_values
from ebnerd_lib.pipeline.paths import StagePaths, acquire, holder, release
from ebnerd_lib.pipeline.run import interruptible, run
from ebnerd_lib.pipeline.stage import complete
from ebnerd_lib.pipeline.stale import SPACES, Hashes, fingerprint
from ebnerd_lib.pipeline.train import Fit, fit, inputs_of
from ebnerd_lib.training.fit import EpochReport
from ebnerd_lib.training.inputs import TrainingInputs
from ebnerd_lib.training.model_file import TrainedModel
from ebnerd_lib.training.trees import fit_trees

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
"""The states of trials that count: trained to the end, or stopped early since others were better by then."""
_POLL_SECONDS = 1.0


class Aside:
    """Trainings beside the stages of a profile: they read what ``preprocessed`` left, and leave no artifacts."""

    def __init__(self, profile: str, preprocessed: str) -> None:
        self._folder = complete(profile, preprocessed).artifacts

    @cached_property
    def data(self) -> Dataset:
        """The slates."""
        return datasets.load(self._folder)

    @cached_property
    def features(self) -> dict[str, Features]:
        """The features of each part."""
        return {part: read_features(self._folder, part) for part in self.data.parts}

    def train(
        self, parameters: Mapping[str, Any], logs: Path, name: str, report: EpochReport | None = None
    ) -> tuple[Fit, TrainingInputs]:
        """Train a model by the parameters of a stage and print nothing; see ``train.fit``. Trees count as one epoch."""
        if "boosting" in parameters:
            warmup_hours = parameters["boosting"]["warmup_hours"]
            inputs = TrainingInputs.of(self.data, self.features, parameters["tier"], warmup_hours)
            trees = fit_trees(inputs, name, parameters)
            epoch = {"epoch": 1, "epochs": 1, "val/auc": self.auc(trees, "tuning")}
            if report is not None:
                report(epoch)
            return Fit(trees, pd.DataFrame([epoch]), 0), inputs
        inputs = inputs_of(parameters, self.data, self.features)
        with contextlib.redirect_stdout(io.StringIO()):
            return fit(parameters, inputs, logs, name, report), inputs

    def auc(self, model: TrainedModel, part: str) -> float:
        """Return the mean AUC of a model over the slates of a part."""
        slates, own = self.data.parts[part], self.features[part]
        scores = model.score(self.data, slates, own.matrix, own.columns)
        return float(np.nanmean(per_slate(scores, slates.clicked, slates.offsets)[:, 0]))


class Search:
    """A search over parameters of one training stage, alone or together with other processes.

    Attributes:
        base: the stage; its own parameters are the first trial.
        study: Optuna's, of what was tried.
        metric: of the tuning day, by which trials are compared: AUC, or nDCG@10 of what was live.

    Args:
        profile: a folder of ``params``.
        stage: a training stage of it.
        space: what is searched; empty takes the entry of the stage or its notebook in ``params/tune.yaml``.
        seed: of the samples.

    Raises:
        ConfigError: there is no such stage, or the space names a parameter or a value that the stage refuses.
        StageError: 01 has not run.
    """

    def __init__(self, profile: str, stage: str, space: Mapping[str, Any] | None = None, seed: int = 0) -> None:
        self.base, self._seed, spaces = _training_stage(profile, stage), seed, params.read_yaml(SPACES)
        self.space = space or spaces.get(stage) or spaces.get(stage.partition(".")[0]) or {}
        self._distributions = self._read_space()
        self.aside = Aside(profile, self.base.reads[0])
        is_live = self.base.parameters.get("slates") == "live"
        self.metric, self._logged = ("nDCG@10", "val/ndcg") if is_live else ("AUC", "val/auc")
        wanted = [fingerprint(self.base, Hashes(StagePaths(profile, "").hashes)), self.space]
        key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:12]
        self.folder = StagePaths(profile, "tune").logs / f"{stage}-{key}"
        self.folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(self.folder / "journal.log"))),
            study_name=stage,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
        )

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that count."""
        return self.study.get_trials(deepcopy=False, states=FINISHED)

    def run(self, trials: int) -> None:
        """Try parameters until so many trials are finished, those of other processes and of earlier runs included.

        Where the last ones run elsewhere, this waits for them, and takes over those whose process dies.
        """
        while (trial := self._next(trials)) is not None:
            try:
                self._try(trial)
            finally:
                release(self._lock(trial))
                self._clear(trial)

    def values(self, trial: FrozenTrial | Trial) -> dict[str, Any]:
        """Return the parameters that a trial sets, numbers of a range rounded to three digits."""
        return {
            name: json.loads(own) if isinstance(own, str) else float(f"{own:.3g}") if isinstance(own, float) else own
            for name, own in trial.params.items()
        }

    def config(self, values: Mapping[str, Any]) -> StageConfig:
        """Return the stage with some parameters set anew. Raises ``ConfigError`` where one is refused."""
        return with_values(self.base, nested(values), "space")

    def table(self) -> pd.DataFrame:
        """Tabulate finished trials, best first: the metric on the tuning day, epochs, and the parameters tried."""
        rows = [
            {
                "trial": trial.number,
                self.metric: max(trial.intermediate_values.values()),
                "epochs": len(trial.intermediate_values),
                "stopped early": trial.state == TrialState.PRUNED,
                "as it is": trial.user_attrs.get("own", False),
                **{name: str(value) for name, value in self.values(trial).items()},
            }
            for trial in self.finished
        ]
        return pd.DataFrame(rows).sort_values(self.metric, ascending=False, kind="stable", ignore_index=True)

    def importance(self) -> dict[str, float]:
        """Return the share of each parameter in how much the metric varies (fANOVA, Hutter et al., 2014).

        Empty where too few trials were trained to the end, or their metrics are all the same.
        """
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self._seed)
        with contextlib.suppress(ValueError, RuntimeError):
            shares = optuna.importance.get_param_importances(self.study, evaluator=evaluator)
            return {name: float(share) for name, share in shares.items()}
        return {}

    def command(self, values: Mapping[str, Any]) -> str:
        """Return the command that makes a variant of some parameters: the stage's own, less its online updates.

        It is a comment where no parameter differs from those of the stage.
        """
        notebook, _, variant = self.base.stage.partition(".")
        new = f"{notebook}.{variant}_tuned" if variant else f"{notebook}.tuned"
        base = params.base_config(self.base.profile, new).parameters
        changed = params.differences(base, self.config(values).parameters)
        kept = {name: own for name, own in changed.items() if name.split(".")[0] not in ("update_minutes", "online")}
        if not kept:
            return f"# nothing to do: these are the parameters of {self.base.stage}"
        texts = (yaml.safe_dump(value, default_flow_style=True, width=1000) for value in kept.values())
        pairs = "; ".join(f"{name}={text.splitlines()[0]}" for name, text in zip(kept, texts, strict=True))
        return f'make run-all PROFILE={self.base.profile} NEW={new} SET="{pairs}"'

    def _read_space(self) -> dict[str, optuna.distributions.BaseDistribution]:
        """Return how each parameter is sampled; what the stage has is part of it, and all of it must be legal."""
        found: dict[str, optuna.distributions.BaseDistribution] = {}
        for name, given in self.space.items():
            try:
                own = TypeAdapter(Space).validate_python({name: given})[name]
                choices = own if isinstance(own, list) else [own.low, own.high]
                for value in choices:
                    self.config({name: value})
                choices = [flat(self.base.parameters)[name], *choices]
                if isinstance(own, list):
                    texts = list(dict.fromkeys(map(json.dumps, choices)))
                    found[name] = optuna.distributions.CategoricalDistribution(texts)
                    continue
                is_int = all(isinstance(value, int) for value in choices)
                kind: Any = optuna.distributions.IntDistribution if is_int else optuna.distributions.FloatDistribution
                found[name] = kind(min(choices), max(choices), log=own.log)
            except ValueError:  # of pydantic; of Optuna, where a logarithm is to be taken of what is not above 0
                remedy = "Write a list of choices, or {low: 0.1, high: 0.5}, low below high, above 0 with log: true."
                fault = f"{name} cannot be {params.shown(given)}"
                raise ConfigError(f"space of {self.base.stage}: {fault}. {remedy}") from None
        if not found:
            raise ConfigError(f"params/{SPACES.name}: no entry for {self.base.stage}. Add what is to be searched.")
        return found

    def _lock(self, trial: FrozenTrial | Trial) -> Path:
        return self.folder / f"trial-{trial.number}.lock"

    def _next(self, trials: int) -> Trial | None:
        """Take the next trial and its lock; ``None`` once so many are finished."""
        while len(self.finished) < trials:
            with FileLock(self.folder / "next.lock"):
                for trial in self._running():
                    if not holder(self._lock(trial)):
                        self._give_up(trial)
                        self._clear(trial)
                if len(self.finished) + len(self._running()) < trials:
                    return self._ask()
            time.sleep(_POLL_SECONDS)
        return None

    def _running(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))

    def _ask(self) -> Trial:
        number = len(self.study.get_trials(deepcopy=False))
        if not number:
            now = {name: own for name, own in flat(self.base.parameters).items() if name in self.space}
            own = {name: json.dumps(own) if isinstance(self.space[name], list) else own for name, own in now.items()}
            self.study.enqueue_trial(own, user_attrs={"own": True})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.sampler = optuna.samplers.TPESampler(seed=self._seed + number, constant_liar=True)
        trial = self.study.ask(self._distributions)
        acquire(self._lock(trial), f"trial {trial.number} of a search over {self.base.stage}")
        return trial

    def _give_up(self, trial: FrozenTrial | Trial, again: bool = True) -> None:
        """Mark a trial as failed; its parameters are tried ``again`` before any others."""
        told = self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)  # it may have ended just now
        if again and told.state == TrialState.FAIL:
            self.study.enqueue_trial(trial.params, user_attrs={"own": trial.user_attrs.get("own", False)})

    def _clear(self, trial: FrozenTrial | Trial) -> None:
        """Remove what a trial left beside its line in the journal."""
        shutil.rmtree(self._lock(trial).with_suffix(""), ignore_errors=True)
        for file in self.folder.glob(f"trial-{trial.number}.*"):
            file.unlink(missing_ok=True)

    def _try(self, trial: Trial) -> None:
        """Train by the parameters of a trial, and stop where it is worse than the median of earlier ones."""
        values, folder = self.values(trial), self._lock(trial).with_suffix("")

        def told(epoch: dict[str, Any]) -> None:
            if self._logged not in epoch:  # a share of one
                return
            trial.report(epoch[self._logged], epoch["epoch"])
            if epoch["epoch"] < epoch["epochs"] and trial.should_prune():
                raise optuna.TrialPruned

        try:
            done, _ = self.aside.train(self.config(values).parameters, folder, "network", told)
        except optuna.TrialPruned:
            result = "stopped early"
            self.study.tell(trial, state=TrialState.PRUNED)
        except BaseException as error:
            self._give_up(trial, again=not isinstance(error, Exception))
            if not isinstance(error, ConfigError) or trial.user_attrs.get("own"):
                raise
            print(f"trial {trial.number}  failed: {error}", flush=True)  # as where the loss diverges: others go on
            return
        else:
            value = float(done.curve[self._logged].max())
            result = f"{value:.4f}"
            self.study.tell(trial, value)
        tried = ", ".join(f"{name} {value}" for name, value in values.items())
        print(f"trial {trial.number}  {self.metric} {result}  best {self.study.best_value:.4f}  {tried}", flush=True)


def _training_stage(profile: str, stage: str) -> StageConfig:
    """Return a training stage of a profile. Raises ``ConfigError`` where there is none of this name."""
    known = {name: config for name, config in params.load_profile(profile).items() if config.trains}
    if stage not in known:
        raise ConfigError(f"tune: '{stage}' is no training stage of {profile}; {params.hint(stage, known)}")
    return known[stage]


def tune(profile: str, stage: str, trials: int) -> int:
    """Search until so many trials are finished, then run ``07_tune`` for the report, once for all processes.

    Args:
        profile: a folder of ``params``; its ``07_tune.yaml``, where there is one, may name another space or seed.
        stage: a training stage of it.
        trials: finished ones, over all processes.

    Returns:
        The exit code of the stage ``07_tune.<model>``.
    """
    reads, logs = _training_stage(profile, stage).reads, StagePaths(profile, "tune").logs
    logs.mkdir(parents=True, exist_ok=True)
    with FileLock(logs / "run.lock"):
        if code := run(profile, only=" ".join(reads)):
            return code
    own = params.base_config(profile, f"07_tune.{trained_model(stage)}")
    search = Search(profile, stage, own.parameters["space"], own.parameters["seed"])
    given = {"training_stage": stage, "trials": trials, "reads": list(reads)}
    config = replace(with_values(own, given, "make tune"), reads=reads)
    with interruptible():
        search.run(trials)
    with FileLock(logs / "run.lock"):
        if code := run(profile, extra=config):
            return code
    best = search.study.best_trial
    print(f"Trial {best.number} of {len(search.finished)} has {search.metric} {best.value:.4f}. To make it a variant:")
    print(search.command(search.values(best)))
    return 0
