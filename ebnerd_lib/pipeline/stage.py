"""A stage as its notebook sees it: parameters in, artifacts out, whole or not at all."""

import datetime
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ebnerd_lib.data.layout import generated_stamp
from ebnerd_lib.errors import StageError
from ebnerd_lib.pipeline.params import StageConfig, from_namespace
from ebnerd_lib.pipeline.paths import (
    ROOT,
    StagePaths,
    acquire,
    environment,
    files_in,
    peak_memory_mb,
    relative,
    release,
    write_json,
)
from ebnerd_lib.pipeline.stale import Hashes, input_files, sha256

BATCH_VARIABLE = "EBNERD_BATCH"
"""Set by the runner for the kernels of a batch run: a JSON object of the fingerprint of each stage."""
ORPHAN_SECONDS = 5.0
"""How long to wait for the lock of a stage: a kernel whose runner was killed may take a moment to end."""


class Stage:
    """One run of a stage. Artifacts go to ``folder`` and become visible when ``finish`` succeeds.

    Attributes:
        config: the effective parameters.
        folder: where to write artifacts; a hidden folder until the end.
        logs: where to write logs and checkpoints.
        metrics: what ``metrics.json`` will hold.
        generated: how the bundle was generated, ``None`` for real data.

    Args:
        config: the effective parameters.
        run: how it is run where it is not by the runner: ``interactive``, or ``train`` without the notebook.
    """

    def __init__(self, config: StageConfig, run: str = "interactive") -> None:
        self.config = config
        self._paths = StagePaths(config.profile, config.stage)
        self._batch = json.loads(os.environ.get(BATCH_VARIABLE, "{}")).get(config.stage)
        self._run = "batch" if self._batch else run
        self._told = 0.0
        self._start, self._started = time.monotonic(), datetime.datetime.now(datetime.UTC)
        self.folder = self._paths.artifacts.with_name(f".{config.stage}.{os.getpid()}.partial")
        self.logs = self._paths.logs
        self.metrics: dict[str, Any] = {}
        known = Hashes(self._paths.hashes)
        self._inputs = {relative(file): known.of(file) for file in input_files(config)}
        self.generated = self._generated()
        self._take()
        self.folder.mkdir(parents=True)
        self.logs.mkdir(parents=True, exist_ok=True)

    def artifacts(self, stage: str) -> Path:
        """Return the artifacts folder of an earlier stage.

        Raises:
            StageError: this stage does not declare to read it, or it has not run for this profile.
        """
        if stage not in self.config.reads:
            raise StageError(f"{self.config.stage} does not read {stage}: add it to the parameter `reads`.")
        folder = StagePaths(self.config.profile, stage).artifacts
        if not (folder / "manifest.json").exists():
            raise StageError(
                f"{relative(folder)}: {stage} has not run for profile {self.config.profile}. "
                f"Run `make run-all PROFILE={self.config.profile}`, or its notebook first."
            )
        return folder

    def progress(self, what: dict[str, Any]) -> None:
        """Tell the runner how far this stage is, shares of a step at most every two seconds."""
        now = time.monotonic()
        if what.get("share", 1.0) < 1.0 and now - self._told < 2.0:
            return
        self._told = now
        with self._paths.progress.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(what) + "\n")

    def finish(self) -> dict[str, Any]:
        """Write ``metrics.json`` and ``manifest.json`` and make the artifacts visible. Returns the manifest.

        From here on another process may run the stage.
        """
        write_json(self.folder / "metrics.json", self.metrics)
        manifest = {
            "stage": self.config.stage,
            "profile": self.config.profile,
            "status": "complete",
            "run": self._run,
            "fingerprint": self._batch,
            "generated": self.generated,
            "parameters": self.config.parameters,
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
        return manifest

    def provenance(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Return the lines of a manifest that a reader of the report wants to see."""
        git = manifest["git"]
        commit = "not a git checkout" if git["commit"] is None else git["commit"][:12]
        return {
            "profile and stage": f"{manifest['profile']}, {manifest['stage']} ({manifest['run']} run)",
            "data": "real data" if self.generated is None else f"generated, size {self.generated['size']}",
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

    def _take(self) -> None:
        """See that no other process runs this stage, and clear away what dead ones left."""
        how = {"batch": "in a batch run", "train": "without its notebook"}.get(self._run, "by hand")
        acquire(self._paths.lock, f"{self.config.stage} {how}", wait=ORPHAN_SECONDS if self._batch else 1.0)
        clear_partial(self._paths)

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

    def _generated(self) -> dict[str, Any] | None:
        if "bundle" in self.config.parameters:
            return generated_stamp(ROOT / self.config.parameters["bundle"])
        if not self.config.reads:
            return None
        return read_manifest(self.artifacts(self.config.reads[0]))["generated"]


def clear_partial(paths: StagePaths) -> None:
    """Remove the hidden folders of runs that ended early; for the holder of the stage's lock only.

    Artifacts that were moved aside for new ones that never took their place are put back.
    """
    aside = [folder for folder in paths.artifacts.parent.glob(f".{paths.stage}.*.old") if not paths.artifacts.exists()]
    if aside:
        aside[0].replace(paths.artifacts)
    for rest in paths.artifacts.parent.glob(f".{paths.stage}.*"):
        shutil.rmtree(rest, ignore_errors=True)


def start(stage: str, namespace: Mapping[str, Any]) -> Stage:
    """Begin a run of a stage with the parameters in a notebook's variables (``globals()``).

    Raises:
        ConfigError: a parameter is missing or of a wrong type.
        StageError: an earlier stage has not run.
        LockedError: another process runs this stage.
        BundleError: a file of the bundle is missing.
    """
    return Stage(from_namespace(stage, namespace))


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return the ``metrics.json`` of a stage's artifacts folder."""
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the ``manifest.json`` of a stage's artifacts folder: what ran, with durations and memory."""
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
