"""The Python environment: version, packages against the lock, torch, the kernel, and the variables for equal bytes."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from ebnerd_lib.pipeline.doctor.finding import OK, WARN, WRONG, Finding, few
from ebnerd_lib.pipeline.layout import ROOT

LOADED = ("numpy", "pandas", "pyarrow", "numba")
"""Packages with machine code whose import is tried; torch by itself, since it takes longest."""
SECONDS = 60.0
"""How long an import may take."""
_REINSTALL = "python -m pip install -r requirements.lock"
_IMPORTS = """
import importlib, json, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(json.dumps({"name": name, "fault": f"{type(error).__name__}: {error}"}), flush=True)
    else:
        print(json.dumps({"name": name}), flush=True)
"""
_TORCH = """
import json, torch
cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "devices": torch.cuda.device_count() if cuda else 0,
    "auto": "mps" if mps else "cuda" if cuda else "cpu", "threads": torch.get_num_threads(),
}))
"""


class Probe:
    """A Python of its own that tries what may crash or take long, beside everything else.

    Args:
        code: to run.
        arguments: of the program.
    """

    def __init__(self, code: str, *arguments: str) -> None:
        words = [sys.executable, "-c", code, *arguments]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def lines(self) -> tuple[list[dict[str, Any]], str]:
        """Wait for its end. Returns what it printed, one JSON object a line, and how it failed if it did."""
        try:
            out, err = self._process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return [], f"took more than {SECONDS:.0f} s"
        last = err.strip().splitlines()[-1:] or [f"ended with code {self._process.returncode}"]
        found = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return found, last[0] if self._process.returncode else ""


def start_probes() -> dict[str, Probe]:
    """Start what takes long: importing packages, and torch."""
    return {"imports": Probe(_IMPORTS, *LOADED), "torch": Probe(_TORCH)}


def check_python() -> list[Finding]:
    """See that Python is of a declared version."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8") if (ROOT / "pyproject.toml").is_file() else ""
    declared = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"', project, re.MULTILINE)
    first, end = (int(declared[1]), int(declared[2])) if declared else (11, 14)
    where = " in .venv" if Path(sys.prefix).resolve() == (ROOT / ".venv").resolve() else ", an environment of your own"
    text = f"{platform.python_version()}{where}; {platform.system()} {platform.machine()}"
    if sys.version_info.major == 3 and first <= sys.version_info.minor < end:
        return [Finding(OK, "python", text)]
    wanted = ", ".join(f"3.{minor}" for minor in range(first, end))
    return [Finding(WRONG, "python", text, f"install one of {wanted}, or name one: make … PYTHON=/path/to/python")]


def check_packages() -> list[Finding]:
    """Compare installed packages with ``requirements.lock``: what is missing and needed stops a run."""
    lock = ROOT / "requirements.lock"
    if not lock.is_file():
        return [Finding(WARN, "packages", "there is no requirements.lock", "restore it from git")]
    installed = {_canonical(found.metadata["Name"] or ""): found.version for found in metadata.distributions()}
    locked = read_lock(lock)
    missing = sorted(name for name in locked if name not in installed)
    other = sorted(
        f"{name} {installed[name]} (locked: {version})"
        for name, version in locked.items()
        if name in installed and installed[name].split("+")[0] != version.split("+")[0]
    )
    needed = _needed()
    lost = [name for name in missing if needed is None or name in needed]
    findings = []
    if lost:
        findings.append(Finding(WRONG, "packages", f"{len(lost)} of {len(locked)} missing: {few(lost)}", _REINSTALL))
    if len(missing) > len(lost):
        rest = [name for name in missing if name not in lost]
        text = f"{len(rest)} of {len(locked)} missing that only tests and checks need: {few(rest)}"
        findings.append(Finding(WARN, "packages", text, _REINSTALL))
    if other:
        text = f"{len(other)} of {len(locked)} of other versions, so figures may differ: {few(other)}"
        findings.append(Finding(WARN, "packages", text, _REINSTALL))
    return findings or [Finding(OK, "packages", f"all {len(locked)} as in requirements.lock")]


def read_lock(lock: Path) -> dict[str, str]:
    """Return the versions that a lock file gives for this Python and system, by name of the package."""
    versions = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        requirement, _, marker = line.split("#")[0].partition(";")
        name, _, version = requirement.partition("==")
        if version and _applies(marker.strip()):
            versions[_canonical(name.strip())] = version.strip()
    return versions


def check_imports(probe: Probe) -> list[Finding]:
    """See that packages with machine code can be loaded."""
    tried, fault = probe.lines()
    broken = [f"{line['name']} ({line['fault']})" for line in tried if "fault" in line]
    if fault and len(tried) < len(LOADED):
        broken.append(f"{LOADED[len(tried)]} ({fault})")
    if broken:
        return [Finding(WRONG, "imports", f"cannot be loaded: {few(broken)}", _REINSTALL)]
    return [Finding(OK, "imports", f"{', '.join(LOADED)} load")]


def check_torch(probe: Probe) -> list[Finding]:
    """Tell torch's build, and which accelerator ``accelerator: auto`` takes."""
    tried, fault = probe.lines()
    if not tried:
        return [Finding(WRONG, "torch", f"cannot be loaded: {fault}", _REINSTALL)]
    found = tried[0]
    build = f"CUDA {found['cuda']}" if found["cuda"] else "CPU"
    count = f", {found['devices']} of them" if found["auto"] == "cuda" else ""
    text = (
        f"{found['version']}, built for {build}; `accelerator: auto` takes {found['auto']}{count}; "
        f"{found['threads']} threads"
    )
    if found["auto"] == "cpu" and shutil.which("nvidia-smi"):
        remedy = "see that `nvidia-smi` runs, and install torch's CUDA build: `accelerator: auto` finds it then"
        return [Finding(WARN, "torch", f"{text}, though this machine has an NVIDIA driver", remedy)]
    return [Finding(OK, "torch", text)]


def check_kernel() -> list[Finding]:
    """See that the kernelspec ``python3``, which notebooks run in, starts a Python that exists."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    again = "python -m ipykernel install --sys-prefix --name python3"
    try:
        words = KernelSpecManager().get_kernel_spec("python3").argv
    except NoSuchKernel:
        return [Finding(WRONG, "kernel", "there is no kernelspec python3", again)]
    program = words[0] if words else ""
    if not program or (os.path.isabs(program) and not os.access(program, os.X_OK)):  # noqa: PTH117
        text = "the kernelspec python3 starts a Python that is no more"
        return [Finding(WRONG, "kernel", text, f"jupyter kernelspec remove -f python3 && {again}")]
    if os.path.isabs(program) and os.path.realpath(program) != os.path.realpath(sys.executable):  # noqa: PTH117
        text = "the kernelspec python3 starts another Python than this one, with packages of its own"
        return [Finding(WARN, "kernel", text, f"jupyter kernelspec remove -f python3 && {again}")]
    return [Finding(OK, "kernel", "the kernelspec python3 starts this Python")]


def check_variables() -> list[Finding]:
    """See that the variables for the same bytes on any number of threads are set, as `make` sets them."""
    from ebnerd_lib.pipeline.runner import DETERMINISM

    lacking = [f"{name}={value}" for name, value in DETERMINISM.items() if os.environ.get(name) != value]
    if lacking:
        text = f"{len(lacking)} of {len(DETERMINISM)} not set: notebooks run by hand may give other bytes"
        return [Finding(WARN, "determinism", text, f"use `make`, which sets them, or export {' '.join(lacking)}")]
    return [Finding(OK, "determinism", f"{', '.join(DETERMINISM)} are set")]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _applies(marker: str) -> bool:
    """Say whether a marker of a requirement holds here; without ``packaging``, only where there is none."""
    if not marker:
        return True
    try:
        from packaging.markers import Marker
    except ImportError:
        return False
    return bool(Marker(marker).evaluate())


def _needed() -> set[str] | None:
    """Return what a run needs: the declared packages and all that those require; ``None`` where it cannot be told."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return None
    import tomllib

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    waiting = [Requirement(text) for text in declared]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            key = (_canonical(wanted.name), extra)
            if key in seen:
                continue
            seen.add(key)
            try:
                texts = metadata.requires(wanted.name) or []
            except metadata.PackageNotFoundError:
                continue
            found = [Requirement(text) for text in texts]
            waiting += [each for each in found if each.marker is None or each.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}
