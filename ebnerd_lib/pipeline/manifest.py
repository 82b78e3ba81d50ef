"""The record of a run: what ran, on what, with which versions, for how long, and sums of all it read and wrote."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ebnerd_lib.pipeline.layout import ROOT

PACKAGES = (
    "numpy", "pandas", "pyarrow", "numba", "torch", "pytorch-lightning", "torchmetrics", "matplotlib", "papermill",
    "nbconvert", "jupyterlab", "ipykernel",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Return git state, versions, platform, device and threads; nothing that names a person, host or folder."""
    return {
        "git": _git(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": _device(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
    }


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process in MB, mapped files included; 0 where it cannot be told."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def files_in(folder: Path) -> list[Path]:
    """Return the artifacts in a folder, the manifest itself left out, by name."""
    return sorted(path for path in folder.iterdir() if path.name != "manifest.json")


def _git() -> dict[str, Any]:
    try:
        commit = _run("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_run("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _run(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is None:
        return "cpu"
    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name(0)})"
    return "mps" if torch.backends.mps.is_available() else "cpu"
