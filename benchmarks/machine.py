"""What figures hang on: versions, cores, memory and processor; nothing that names a host or a folder."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ebnerd_lib.pipeline.manifest import environment

MORE_PACKAGES = ("scikit-learn", "polars", "implicit", "lightgbm")


def machine() -> dict[str, Any]:
    """Return cores that may be used, memory in GB and the model of the processor; ``None`` for what is not told."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cores": usable, "memory_gb": _memory_gb(), "processor": _processor()}


def versions() -> dict[str, Any]:
    """Return git state, Python, platform and packages, the rivals' among them."""
    found = environment()
    found["packages"] |= {name: known for name in MORE_PACKAGES if (known := _version(name))}
    return found


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or None
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
