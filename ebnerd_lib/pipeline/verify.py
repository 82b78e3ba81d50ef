"""Whether a profile repeats: run from scratch in separate folders, on 1 and 2 threads, and after a kill.

Every artifact, and a generated bundle, is compared by its sha256; ``manifest.json``, which holds times, is not.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ebnerd_lib.data.layout import bundle_files, check_files, generated_stamp
from ebnerd_lib.errors import ConfigError, StageError
from ebnerd_lib.pipeline.config import load_config
from ebnerd_lib.pipeline.difference import first_difference
from ebnerd_lib.pipeline.fingerprint import sha256
from ebnerd_lib.pipeline.interruption import end_family
from ebnerd_lib.pipeline.json_file import write_json
from ebnerd_lib.pipeline.layout import ROOT, StagePaths, profile_stages
from ebnerd_lib.pipeline.pages.page import printable
from ebnerd_lib.pipeline.runner import DETERMINISM

CODE = ("ebnerd_lib", "notebooks", "params", "templates")
"""The folders of the project that a run needs."""
RUNS: dict[str, dict[str, str]] = {
    "again": {},
    "1 thread": {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
    "2 threads": {"OMP_NUM_THREADS": "2", "NUMBA_NUM_THREADS": "2"},
    "killed": {},
}
"""The runs that are compared with the first one, each with what it sets in its environment."""
CUT_AFTER = 3.0
"""Seconds into the middle stage at which the run that is to be killed is."""


@dataclass
class Run:
    """One run from scratch.

    Attributes:
        name: ``first`` or one of ``RUNS``.
        seconds: how long it took, generating and resuming included.
        files: sha256 of what it wrote, by path relative to its folder.
        size: bytes of these files.
        kept: stages that were complete when it was killed, ``None`` if it was not.
        differs: by file, where it differs from the first run.
    """

    name: str
    seconds: float = 0.0
    files: dict[str, str] = field(default_factory=dict)
    size: int = 0
    kept: int | None = None
    differs: dict[str, str] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """What is kept of it in plain types."""
        return {
            "run": self.name,
            "seconds": round(self.seconds, 1),
            "files": len(self.files),
            "bytes": self.size,
            "kept": self.kept,
            "differs": self.differs,
        }


def verify(profile: str, runs: Sequence[str] = tuple(RUNS)) -> bool:
    """Run a profile several times from scratch, compare what the runs wrote, and tell.

    A generated bundle is generated anew in each folder, a real one is linked. The folders lie in
    ``outputs/verify`` and are removed; the result stays there as ``<profile>.json``.

    Args:
        profile: a folder of ``params``.
        runs: which of ``RUNS`` to compare with the first one.

    Returns:
        Whether every file of every run is equal to the first run's.

    Raises:
        ConfigError: the profile or the name of a run is unknown.
        BundleError: the bundle is missing or incomplete.
        StageError: a run failed; the message ends with what it said.
    """
    unknown = [name for name in runs if name not in RUNS]
    if unknown:
        raise ConfigError(f"runs: there is no run '{unknown[0]}'. Use some of {', '.join(RUNS)}.")
    stages, bundle = profile_stages(profile), _bundle(profile)
    home = ROOT / "outputs" / "verify"
    home.mkdir(parents=True, exist_ok=True)
    done: list[Run] = []
    with tempfile.TemporaryDirectory(prefix=f".{profile}-", dir=home) as folder:
        for name in ("first", *runs):
            print(f"run {len(done) + 1} of {len(runs) + 1}: {name}", flush=True)
            project = _project(Path(folder) / name.replace(" ", "-"))
            current = _run(name, project, profile, bundle, stages)
            if done:
                current.differs |= _compare(done[0], Path(folder) / "first", current, project)
                shutil.rmtree(project)
            done.append(current)
            print(f"{name}: {_outcome(current)}", flush=True)
    result = {
        "profile": profile,
        "equal": not any(run.differs for run in done),
        "runs": [run.record for run in done],
        "files_compared": sum(len(run.files) for run in done[1:]),
        "bytes_compared": sum(run.size for run in done[1:]),
    }
    write_json(home / f"{profile}.json", result)
    for line in _table(done):
        print(line)
    return bool(result["equal"])


def _bundle(profile: str) -> str:
    """Return the folder of the profile's bundle, relative to the project."""
    for stage in profile_stages(profile):
        if bundle := load_config(profile, stage).parameters.get("bundle"):
            check_files(ROOT / bundle)
            return str(bundle)
    raise ConfigError(f"params/{profile}: no stage has a parameter `bundle`, so there is nothing to run from scratch.")


def _project(folder: Path) -> Path:
    """Copy what a run needs, without anything that an earlier run compiled."""
    for name in CODE:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    return folder


def _run(name: str, project: Path, profile: str, bundle: str, stages: list[str]) -> Run:
    """Give a copy of the project its bundle and run it, killed once in the middle where the name says so."""
    run, start = Run(name), time.monotonic()
    environment = {**os.environ, **DETERMINISM, "PYTHONPATH": str(project), **RUNS.get(name, {})}
    stamp = generated_stamp(ROOT / bundle)
    if stamp is None:
        (project / bundle).parent.mkdir(parents=True)
        (project / bundle).symlink_to((ROOT / bundle).resolve(), target_is_directory=True)
    else:
        sample = ["sample", "--out", bundle, "--seed", str(stamp["seed"]), "--size", str(stamp["size"])]
        _command(project, sample, environment)
    words = ["run", "--profile", profile]
    if name == "killed":
        cut = _command(project, words, environment, f"{stages[len(stages) // 2]}: started")
        artifacts = project / StagePaths(profile, "").artifacts.relative_to(ROOT)
        run.kept = sum((artifacts / stage / "manifest.json").exists() for stage in stages)
        if not cut or run.kept == len(stages):
            run.differs["-"] = "the run ended before it could be killed"
    _command(project, words, environment)
    run.seconds = time.monotonic() - start
    files = _written(project, profile, bundle if stamp is not None else None)
    run.files = {file: sha256(project / file) for file in files}
    run.size = sum((project / file).stat().st_size for file in files)
    return run


def _written(project: Path, profile: str, bundle: str | None) -> list[str]:
    """Return the artifacts of a run and the files of its generated bundle, relative to its folder."""
    files = [file for file in (project / "outputs" / profile / "artifacts").rglob("*") if file.is_file()]
    files += bundle_files(project / bundle) if bundle else []
    return sorted(file.relative_to(project).as_posix() for file in files if file.name != "manifest.json")


def _command(project: Path, words: list[str], environment: dict[str, str], cut_at: str | None = None) -> bool:
    """Run a verb in a copy of the project, telling what it tells; kill it a while after a line, where one is given.

    Returns:
        Whether it was killed.

    Raises:
        StageError: it failed.
    """
    command = [sys.executable, "-m", "ebnerd_lib", *words]
    process = subprocess.Popen(
        command, cwd=project, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    told: list[str] = []
    kill: threading.Timer | None = None
    assert process.stdout is not None
    try:
        for line in process.stdout:
            told.append(printable(line.rstrip()))
            if ": started" in line or ": complete" in line:
                print(f"  {told[-1]}", flush=True)
            if kill is None and cut_at and line.startswith(cut_at):
                kill = threading.Timer(CUT_AFTER, end_family, [process.pid])
                kill.start()
        code = process.wait()
    finally:
        if kill is not None:
            kill.cancel()
        if process.poll() is None:
            end_family(process.pid)
            process.wait()
    if kill is not None and code == -signal.SIGKILL:
        return True
    if code:
        raise StageError(f"`{' '.join(words)}` ended with exit code {code}. It said last: {' | '.join(told[-3:])}")
    return False


def _compare(first: Run, ours: Path, other: Run, theirs: Path) -> dict[str, str]:
    """Return by file where a run differs from the first one."""
    differs = {}
    for file in sorted(first.files.keys() | other.files.keys()):
        if file not in first.files or file not in other.files:
            differs[file] = "written by one of the runs only"
        elif first.files[file] != other.files[file]:
            differs[file] = first_difference(ours / file, theirs / file) or "changed while it was compared"
    return differs


def _outcome(run: Run) -> str:
    return f"{run.seconds:.0f} s, {len(run.files)} files, {len(run.differs)} differ"


def _table(runs: list[Run]) -> list[str]:
    """Return the runs as a table, and every difference as a line."""
    rows = [["run", "seconds", "files", "MB", "differ"]]
    for run in runs:
        kept = "" if run.kept is None else f" after {run.kept} stages"
        numbers = [f"{run.seconds:.0f}", str(len(run.files)), f"{run.size / 1e6:.1f}", str(len(run.differs))]
        rows.append([run.name + kept, *numbers])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pad: list[Callable[[str, int], str]] = [str.ljust, *[str.rjust] * (len(widths) - 1)]
    lines = [
        "  ".join(write(cell, width) for write, cell, width in zip(pad, row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return lines + [f"{run.name}: {file}: {where}" for run in runs for file, where in run.differs.items()]
