"""A stage as its notebook sees it: parameters in, artifacts out, whole or not at all."""

import contextlib
import datetime
import importlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from ebnerd_lib.data.layout import generated_stamp, size_in_words
from ebnerd_lib.errors import StageError
from ebnerd_lib.pipeline.history import check_mlflow, note, send
from ebnerd_lib.pipeline.lab import Progress, show_errors
from ebnerd_lib.pipeline.params import StageConfig, from_values, load_profile, read_stages, trained_model
from ebnerd_lib.pipeline.paths import (
    OURSELVES,
    PREPROCESSED,
    ROOT,
    StagePaths,
    acquire,
    environment,
    files_in,
    holder,
    lab_number,
    parameter_file,
    peak_memory_mb,
    read_json,
    relative,
    release,
    write_json,
)
from ebnerd_lib.pipeline.stale import Hashes, fingerprint, input_files, sha256

BATCH_VARIABLE = "EBNERD_BATCH"
"""Set by the runner for the kernel of a stage: a JSON object of the ``stage``, its ``fingerprint`` and ``reads``."""
ORPHAN_SECONDS = 5.0
"""How long to wait for the lock of a stage: a kernel whose runner was killed may take a moment to end."""
LAB_RUNS = 5
"""How many runs by hand are kept of a notebook, the latest ones."""


class Stage:
    """One run of a stage. Artifacts go to ``folder`` and become visible when ``finish`` succeeds.

    Attributes:
        config: the effective parameters.
        folder: where to write artifacts; a hidden folder until the end.
        logs: where to write logs and checkpoints.
        metrics: what ``metrics.json`` will hold.
        generated: how the bundle was generated, ``None`` for real data.
        model: the name of the model that it trains, ``None`` where it trains none.

    Args:
        config: the effective parameters.
        run: how it is run: ``batch``, ``interactive``, or ``train`` without the notebook.
        fingerprint: what the artifacts are made of, see ``stale.fingerprint``; ``None`` for a run by hand.
    """

    def __init__(self, config: StageConfig, run: str, fingerprint: str | None) -> None:
        self.config = config
        self.model = trained_model(config.stage)
        self._paths = StagePaths(config.profile, config.stage)
        self._run, self._fingerprint = run, fingerprint
        self._told = 0.0
        self._live = Progress() if run == "interactive" else None
        self._start, self._started = time.monotonic(), datetime.datetime.now(datetime.UTC)
        self.folder = self._paths.artifacts.with_name(f".{config.stage}.{os.getpid()}.partial")
        self.logs = self._paths.logs
        self.metrics: dict[str, Any] = {}
        known = Hashes(self._paths.hashes)
        self._inputs = {relative(file): known.of(file) for file in input_files(config)}
        self.generated: dict[str, Any] | None = None
        if "bundle" in config.parameters:
            self.generated = generated_stamp(ROOT / config.parameters["bundle"])
        elif config.reads:
            self.generated = read_manifest(self.artifacts(config.reads[0]))["generated"]
        check_mlflow(config.parameters.get("mlflow", ""))
        how = {"batch": "in a batch run", "train": "without its notebook"}.get(run, "by hand")
        acquire(self._paths.lock, f"{config.stage} {how}", wait=ORPHAN_SECONDS if run == "batch" else 1.0)
        clear_partial(self._paths)
        self.folder.mkdir(parents=True)
        self.logs.mkdir(parents=True, exist_ok=True)

    def artifacts(self, stage: str) -> Path:
        """Return the artifacts folder of an earlier stage.

        Raises:
            StageError: this stage does not declare to read it, or it has not run for this profile.
        """
        if stage not in self.config.reads:
            raise StageError(f"{self.config.stage} does not read {stage}: add it to the parameter `reads`.")
        return complete(self.config.profile, stage).artifacts

    def progress(self, what: dict[str, Any]) -> None:
        """Tell the runner, or who runs the notebook by hand, how far this stage is; shares of a step now and then."""
        now = time.monotonic()
        if what.get("share", 1.0) < 1.0 and now - self._told < (2.0 if self._live is None else 0.2):
            return
        self._told = now
        if self._live is not None:
            self._live.show(what)
            return
        with self._paths.progress.open("a", encoding="utf-8") as stream:
            if "epoch" in what:
                scores = f"{what['best_by']} {what[what['best_by']]:.4f}, loss {what['train/loss']:.4f}"
                stream.write(f"{what['model']} epoch {what['epoch']}/{what['epochs']}, {scores}\n")
            else:
                stream.write(f"{what['step']} {what.get('share', 1.0):.0%}\n")

    def finish(self) -> dict[str, Any]:
        """Write ``metrics.json`` and ``manifest.json`` and make the artifacts visible. Returns the manifest.

        The learning curve of a model becomes the artifact ``curve_<name>.csv``. From here on another process may run
        the stage. Outside a batch run this renders the pages, after a run in JupyterLab, where somebody waits, the
        indexes alone.

        Raises:
            StageError: this run is finished already.
        """
        if self.folder == self._paths.artifacts:
            raise StageError(f"{self.config.stage} is finished. For a new run, run the cell with `start(...)` again.")
        write_json(self.folder / "metrics.json", self.metrics)
        curve = self.logs / str(self.model) / "metrics.csv"
        if curve.exists():
            shutil.copyfile(curve, self.folder / f"curve_{self.model}.csv")
        manifest = {
            "stage": self.config.stage,
            "profile": self.config.profile,
            "status": "complete",
            "run": self._run,
            "fingerprint": self._fingerprint,
            "generated": self.generated,
            "parameters": self.config.parameters,
            "reads": self.config.reads,
            "seed": self.config.parameters.get("seed"),
            **environment(),
            "inputs": self._inputs,
            "outputs": {file.name: sha256(file) for file in files_in(self.folder)},
            "started": self._started.isoformat(timespec="seconds"),
            "duration_seconds": round(self._seconds(), 2),
            "peak_memory_mb": peak_memory_mb(),
        }
        write_json(self.folder / "manifest.json", manifest)
        self._publish()
        for checkpoint in self.logs.glob("*/*/last.ckpt"):  # no training of this stage is to be resumed any more
            checkpoint.unlink()
        release(self._paths.lock)
        with contextlib.suppress(OSError):  # the run is done, whatever can be told of it
            note(self.config.profile, manifest, self.metrics)
        if self._run != "batch" and (told := send(self._paths)):
            print(told)
        if lab_number(self.config.stage):
            _forget_lab(self.config)
            run, name = f"{self.config.profile}/{self.config.stage}", self.config.stage.partition(".")[0]
            print(f"Kept as {run}. To have it in batch runs: make keep RUN={run} NEW={name}.<name>")
        if self._run != "batch":  # after a batch the runner renders
            pages = importlib.import_module("ebnerd_lib.pipeline.report")  # not what a stage is made of
            with contextlib.suppress(OSError):  # pages only tell of what is done
                pages.render_profile(self.config.profile, reports=not lab_number(self.config.stage))
        return manifest

    def provenance(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Return the lines of a manifest that a reader of the report wants to see."""
        git = manifest["git"]
        commit = "not a git checkout" if git["commit"] is None else git["commit"][:12]
        return {
            "profile and stage": f"{manifest['profile']}, {manifest['stage']} ({manifest['run']} run)",
            "data": "real data" if self.generated is None else f"generated, {size_in_words(self.generated['size'])}",
            "commit": commit + (", with uncommitted changes" if git["dirty"] else ""),
            "Python and platform": f"{manifest['python']}, {manifest['platform']}",
            "device and threads": f"{manifest['device']}, {manifest['threads']}",
            "packages": ", ".join(f"{name} {version}" for name, version in manifest["packages"].items()),
            "files read and written": f"{len(manifest['inputs'])} and {len(manifest['outputs'])}",
            "duration": f"{manifest['duration_seconds']:.1f} s",
            "peak memory": f"{manifest['peak_memory_mb']:,.0f} MB",
        }

    def _seconds(self) -> float:
        """Return how long this run has taken; where the process is its own, loading libraries counts."""
        if self._run == "interactive":
            return time.monotonic() - self._start
        import psutil

        return time.time() - psutil.Process().create_time()

    def _publish(self) -> None:
        """Put the finished folder in the place of the last one, which is moved aside first.

        A kill in between leaves the last one aside, and `clear_partial` puts it back.
        """
        target = self._paths.artifacts
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        if target.exists():
            target.replace(old)
        self.folder.replace(target)
        shutil.rmtree(old, ignore_errors=True)
        self.folder = target


def clear_partial(paths: StagePaths) -> None:
    """Remove the hidden folders of runs that ended early; for the holder of the stage's lock only.

    Artifacts that were moved aside for new ones that never took their place are put back.
    """
    own = f".{paths.stage}.[0-9]*."  # no variant begins with a digit
    aside = [folder for folder in paths.artifacts.parent.glob(f"{own}old") if not paths.artifacts.exists()]
    if aside:
        aside[0].replace(paths.artifacts)
    for rest in [*paths.artifacts.parent.glob(f"{own}old"), *paths.artifacts.parent.glob(f"{own}partial")]:
        shutil.rmtree(rest, ignore_errors=True)


def start(notebook: str, **parameters: Any) -> Stage:
    """Begin a run of a notebook with the values that it has for its parameters.

    In a batch run this is the stage that the runner started. By hand it is a run of its own, ``<notebook>.lab1`` and so
    on, which replaces no result of a batch run; the last five are kept. ``01_preprocess`` with the parameters of the
    profile is the profile's own stage.

    Raises:
        ConfigError: a parameter is missing or not legal, or names a model that is not there.
        StageError: an earlier stage has not run.
        LockedError: another process runs this stage.
        BundleError: a file of the bundle is missing.
    """
    batch = json.loads(os.environ.get(BATCH_VARIABLE, "{}"))
    if not batch:
        show_errors()
    config = from_values(notebook, parameters)
    if batch.get("stage", "").partition(".")[0] == notebook:
        return Stage(replace(config, stage=batch["stage"], reads=tuple(batch["reads"])), "batch", batch["fingerprint"])
    if notebook == PREPROCESSED and parameter_file(config.profile, notebook).exists():
        own = load_profile(config.profile)[notebook]
        if own.parameters == config.parameters:
            return Stage(own, "interactive", fingerprint(own, Hashes(StagePaths(own.profile, "").hashes)))
    for stage in config.parameters.get("reads", []):
        complete(config.profile, stage)
    folders = StagePaths(config.profile, "").outputs.glob("artifacts/[!.]*")
    records = {folder.name: (read_json(folder / "manifest.json") or {}).get("parameters", {}) for folder in folders}
    reads = read_stages(config, dict(sorted(records.items())))
    return Stage(replace(config, stage=_next_lab(config), reads=reads), "interactive", None)


def check(holds: Any, what: str) -> None:
    """Raise ``StageError`` unless something holds that this package guarantees, whatever the data.

    Notebooks call this where others would ``assert``, which ``PYTHONOPTIMIZE`` leaves out.
    """
    if not holds:
        raise StageError(f"This does not hold: {what}. That is a fault of this package: report it with its traceback.")


def complete(profile: str, stage: str) -> StagePaths:
    """Return the files of a stage that has to be complete; raises ``StageError`` where it is not."""
    paths = StagePaths(profile, stage)
    if not paths.manifest.exists():
        raise StageError(
            f"{relative(paths.artifacts)}: {stage} has not run for profile {profile}. "
            f"Run `make run-all PROFILE={profile}`, or its notebook first."
        )
    return paths


def _lab_runs(config: StageConfig) -> list[StagePaths]:
    """Return the runs by hand of a notebook, finished or not, the first one first."""
    logs, pattern = StagePaths(config.profile, "").logs, f"{config.stage.partition('.')[0]}.lab[0-9]*"
    names = sorted((folder.name for folder in logs.glob(pattern)), key=lab_number)
    return [StagePaths(config.profile, name) for name in names]


def _next_lab(config: StageConfig) -> str:
    """Return the name of a new run by hand, or of the one that this process has begun and not finished."""
    runs = _lab_runs(config)
    begun = [paths.stage for paths in runs if holder(paths.lock) == OURSELVES]
    return begun[-1] if begun else f"{config.stage}.lab{1 + (lab_number(runs[-1].stage) if runs else 0)}"


def _forget_lab(config: StageConfig) -> None:
    """Remove runs by hand but for the last finished ones, and but for those that go on."""
    runs = _lab_runs(config)
    kept = [paths for paths in runs if paths.artifacts.exists()][-LAB_RUNS:]
    for paths in runs:
        if paths not in kept and not holder(paths.lock):
            shutil.rmtree(paths.artifacts, ignore_errors=True)
            shutil.rmtree(paths.logs, ignore_errors=True)


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return the ``metrics.json`` of a stage's artifacts folder."""
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the ``manifest.json`` of a stage's artifacts folder: what ran, with durations and memory."""
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
