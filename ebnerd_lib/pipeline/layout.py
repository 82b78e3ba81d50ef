"""Where the files of the project lie. Standard library only."""

import os
from dataclasses import dataclass
from pathlib import Path

from ebnerd_lib.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder; every path in artifacts and reports is relative to it."""


@dataclass(frozen=True)
class StagePaths:
    """The files of one stage of a profile."""

    profile: str
    stage: str

    @property
    def outputs(self) -> Path:
        """The folder of the profile."""
        return ROOT / "outputs" / self.profile

    @property
    def artifacts(self) -> Path:
        """The artifacts; appears whole or not at all."""
        return self.outputs / "artifacts" / self.stage

    @property
    def manifest(self) -> Path:
        """What ran, with durations and memory."""
        return self.artifacts / "manifest.json"

    @property
    def executed(self) -> Path:
        """The executed notebook of the last complete run."""
        return self.outputs / "notebooks" / f"{self.stage}.ipynb"

    @property
    def failed(self) -> Path:
        """The notebook of a failed run, executed so far."""
        return self.outputs / "notebooks" / f"{self.stage}.failed.ipynb"

    @property
    def report(self) -> Path:
        """The rendered report of the last complete run."""
        return self.outputs / "reports" / f"{self.stage}.html"

    @property
    def failed_report(self) -> Path:
        """The rendered report of a failed run."""
        return self.outputs / "reports" / f"{self.stage}.failed.html"

    @property
    def hashes(self) -> Path:
        """Sums of files seen, shared by the stages of the profile."""
        return self.outputs / "logs" / "hashes.json"

    @property
    def failure(self) -> Path:
        """Why the last batch run failed; absent where it did not."""
        return self.logs / "failure.json"

    @property
    def progress(self) -> Path:
        """What a running stage tells of its progress, one JSON object a line."""
        return self.logs / "progress.jsonl"

    @property
    def lock(self) -> Path:
        """The lock of the stage, or of the whole profile where no stage is named."""
        return self.outputs / "logs" / f"{self.stage or 'run'}.lock"

    @property
    def logs(self) -> Path:
        """Logs and checkpoints; not artifacts: they hold times and hosts."""
        return self.outputs / "logs" / self.stage


def notebook_path(stage: str) -> Path:
    """Return the source notebook of a stage."""
    return ROOT / "notebooks" / f"{stage}.ipynb"


def parameter_file(profile: str, stage: str) -> Path:
    """Return the parameter file of a stage in a profile."""
    return ROOT / "params" / profile / f"{stage}.yaml"


def profiles() -> list[str]:
    """Return the names of all profiles, the folders of ``params``."""
    return sorted(p.name for p in (ROOT / "params").glob("*") if p.is_dir())


def profile_stages(profile: str) -> list[str]:
    """Return the stages of a profile, the notebooks that it has a parameter file for, in order of their number.

    Raises:
        ConfigError: there is no such profile, or it has a parameter file without a notebook.
    """
    folder = ROOT / "params" / profile
    known = profiles()
    if profile not in known:
        raise ConfigError(f"params/{profile}: no such profile. Use one of {', '.join(known)}.")
    stages = sorted(path.stem for path in folder.glob("*.yaml"))
    lost = [stage for stage in stages if not notebook_path(stage).exists()]
    if lost:
        raise ConfigError(
            f"params/{profile}/{lost[0]}.yaml: there is no notebooks/{lost[0]}.ipynb. Rename or remove it."
        )
    if not stages:
        raise ConfigError(f"params/{profile}: no parameter files. A profile runs the notebooks it has one for.")
    return stages


def relative(path: Path) -> str:
    """Return a path as it may be recorded: relative to the project's folder, through links that lie in it."""
    for whole in (Path(os.path.normpath(path.absolute())), path.resolve()):
        if whole.is_relative_to(ROOT):
            return whole.relative_to(ROOT).as_posix()
    return path.name
