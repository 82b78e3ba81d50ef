"""Ask everything, print what was found with its remedy, and say whether anything stops the profile."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from ebnerd_lib.pipeline.doctor import bundles, environment, machine, project
from ebnerd_lib.pipeline.doctor.finding import OK, WARN, WRONG, Finding
from ebnerd_lib.pipeline.layout import ROOT

_COLOURS = {OK: "\x1b[32m", WARN: "\x1b[33m", WRONG: "\x1b[31m"}
_Check = Callable[[], "list[Finding]"]
_Found = TypeVar("_Found")


def doctor(profile: str) -> int:
    """Print what is there and what is wrong for a profile.

    Args:
        profile: a folder of ``params``.

    Returns:
        1 if something is wrong that stops `make run-all` for the profile, else 0.
    """
    states = []
    print(f"doctor: what there is, and whether `make run-all PROFILE={profile}` can run")
    for title, checks in _sections(profile):
        print(f"\n{title}")
        for name, check in checks.items():
            for finding in _found(name, check):
                _print(finding)
                states.append(finding.state)
    wrong, warn = states.count(WRONG), states.count(WARN)
    looks = f"; {warn} worth a look" if warn else ""
    if wrong:
        print(f"\n{wrong} wrong: `make run-all PROFILE={profile}` would not get through{looks}.")
        return 1
    print(f"\nnothing stops `make run-all PROFILE={profile}`{looks}.")
    return 0


def _sections(profile: str) -> Iterator[tuple[str, dict[str, _Check]]]:
    """Yield the checks by group; those that take long are under way from the start."""
    probes = environment.start_probes()
    nothing: tuple[set[str], str] = set(), "demo"
    wanted, size = _tried(lambda: _reads(profile), nothing)
    yield (
        "environment",
        {
            "python": environment.check_python,
            "packages": environment.check_packages,
            "determinism": environment.check_variables,
            "kernel": environment.check_kernel,
        },
    )
    yield (
        "machine",
        {
            "threads": machine.check_threads,
            "memory": lambda: machine.check_memory(profile, size),
            "disk": lambda: machine.check_disk(profile, size),
        },
    )
    yield (
        "project",
        {
            "parameters": lambda: project.check_parameters(profile),
            "writing": lambda: project.check_writing(profile),
            "outputs": lambda: project.check_outputs(profile),
            "locks": lambda: project.check_locks(profile),
            "git": project.check_git,
            "browser": project.check_browser,
        },
    )
    yield (
        "data",
        {"data/": lambda: bundles.check_data(wanted), "profile data": lambda: bundles.check_profiles(profile)},
    )
    yield (
        "loading",
        {
            "imports": lambda: environment.check_imports(probes["imports"]),
            "torch": lambda: environment.check_torch(probes["torch"]),
        },
    )


def _reads(profile: str) -> tuple[set[str], str]:
    """Return the bundles that a profile reads, and the size that it counts as."""
    wanted = bundles.bundles_of(profile)
    rows = [count for count in map(bundles.rows_of, wanted) if count is not None]
    name = Path(min(wanted)).name if wanted else profile
    return wanted, machine.size_of(name, max(rows, default=None))


def _found(name: str, check: _Check) -> list[Finding]:
    """Run a check; one that cannot run in a broken environment says so, and what is broken says another."""
    try:
        return check()
    except Exception as error:
        return [Finding(WARN, name, f"could not be checked ({type(error).__name__}: {error})")]


def _tried(ask: Callable[[], _Found], otherwise: _Found) -> _Found:
    try:
        return ask()
    except Exception:
        return otherwise


def _print(finding: Finding) -> None:
    colour, end = (_COLOURS[finding.state], "\x1b[0m") if _is_coloured() else ("", "")
    print(f"  {colour}{finding.state:<5}{end}  {finding.name:<15} {_public(finding.text)}", flush=True)
    if finding.remedy:
        print(f"{'':24}→ {_public(finding.remedy)}")


def _is_coloured() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _public(text: str) -> str:
    """Drop paths that are nobody's business, and what would command a terminal."""
    try:
        from ebnerd_lib.pipeline.pages.page import plain

        text = plain(text)
    except Exception:  # a Python that is too old for that module
        text = text.replace(f"{ROOT}/", "").replace(str(Path.home()), "~")
    return " ".join(text.split())
