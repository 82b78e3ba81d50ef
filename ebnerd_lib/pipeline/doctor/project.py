"""The project: parameters, folders that must be writable, git, the outputs of a profile, locks, and a browser."""

from __future__ import annotations

import shutil
import subprocess
import tempfile

from ebnerd_lib.pipeline.doctor.finding import OK, WARN, WRONG, Finding, few
from ebnerd_lib.pipeline.layout import ROOT, StagePaths, profile_stages, relative

_FOLDERS = ("", "artifacts", "logs", "notebooks", "reports")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
"""Names under which systems have the browser that tests drive."""


def check_parameters(profile: str) -> list[Finding]:
    """See that the profile exists and its parameters fit the notebooks."""
    from ebnerd_lib.errors import EbnerdError
    from ebnerd_lib.pipeline.config import load_config
    from ebnerd_lib.pipeline.plan import plan

    try:
        stages = profile_stages(profile)
        plan({stage: load_config(profile, stage) for stage in stages})
    except EbnerdError as error:
        text, _, remedy = str(error).rpartition(". ") if ". " in str(error) else (str(error), "", "")
        return [Finding(WRONG, "parameters", text, remedy)]
    return [Finding(OK, "parameters", f"{profile}: {len(stages)} stages, all as their notebooks declare")]


def check_writing(profile: str) -> list[Finding]:
    """Write a file into the folders that a run writes to, and remove it."""
    folders = [ROOT / "outputs", *(StagePaths(profile, "").outputs / name for name in _FOLDERS)]
    closed = []
    for folder in folders:
        if not folder.exists() and not folder.is_symlink():
            continue
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            closed.append(f"{relative(folder)} ({error.strerror})")
    if not (ROOT / "outputs").exists():
        try:
            with tempfile.TemporaryFile(dir=ROOT):
                pass
        except OSError as error:
            closed.append(f"outputs cannot be made ({error.strerror})")
    if closed:
        return [Finding(WRONG, "writing", f"not writable: {few(closed)}", "chmod -R u+rwX outputs, or make them yours")]
    return [Finding(OK, "writing", "outputs/ can be written")]


def check_git() -> list[Finding]:
    """Tell the commit, and see that git takes outputs out of notebooks."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        if not commit:
            return [Finding(OK, "git", "no repository: manifests will name no commit")]
        changed = ", with changes" if _git("status", "--porcelain") else ""
        filtered = _git("config", "--get", "filter.nbstripout.clean")
    except FileNotFoundError:
        return [Finding(OK, "git", "not installed: manifests will name no commit")]
    text = f"commit {commit}{changed}"
    if filtered:
        return [Finding(OK, "git", f"{text}; outputs of notebooks are kept out of commits")]
    return [Finding(WARN, "git", f"{text}; outputs of notebooks run by hand would be committed", "make setup-git")]


def check_outputs(profile: str) -> list[Finding]:
    """Tell how far the profile is, from what its stages left."""
    complete: list[str] = []
    failed: list[str] = []
    again: list[str] = []
    stages = profile_stages(profile)
    for stage in stages:
        paths = StagePaths(profile, stage)
        if paths.failure.is_file():
            failed.append(stage)
        elif paths.manifest.is_file():
            (complete if paths.executed.is_file() else again).append(stage)
    if failed:
        text = f"{len(complete)} of {len(stages)} stages complete, failed: {', '.join(failed)}"
        where = f"{relative(StagePaths(profile, '').outputs)}/index.html"
        return [Finding(WARN, "outputs", text, f"read why in {where}; `make run-all PROFILE={profile}` tries again")]
    if not complete and not again:
        return [Finding(OK, "outputs", f"nothing of {profile} has run yet: make run-all PROFILE={profile}")]
    by_hand = f", run by hand or outdated: {', '.join(again)}" if again else ""
    rest = "" if len(complete) == len(stages) else f"; make run-all PROFILE={profile} runs the rest"
    return [Finding(OK, "outputs", f"{len(complete)} of {len(stages)} stages complete{by_hand}{rest}")]


def check_locks(profile: str) -> list[Finding]:
    """Tell which runs hold locks; one of this profile keeps another from starting."""
    from ebnerd_lib.pipeline.lock import holder

    findings = []
    for file in sorted((ROOT / "outputs").glob("*/logs/*.lock")):
        found = holder(file)
        if found is not None:
            own = file.is_relative_to(StagePaths(profile, "").outputs)
            remedy = f"wait until it has ended, or `kill {found.pid}`" if own else ""
            findings.append(Finding(WRONG if own else OK, "locks", f"{relative(file)}: {found}", remedy))
    return findings or [Finding(OK, "locks", "none is held")]


def check_browser() -> list[Finding]:
    """Tell whether the system's Chromium is there, which some tests drive."""
    if any(shutil.which(name) for name in BROWSERS):
        return [Finding(OK, "browser", "Chromium is there, for tests of pages")]
    text = "no Chromium on the PATH: tests of pages are skipped, nothing else wants it"
    return [Finding(OK, "browser", text, "install your system's package, mostly called chromium")]


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()
