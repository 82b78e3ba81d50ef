"""The rivals' packages: the extra ``bench`` of ``pyproject.toml``, installed where missing.

``python -m benchmarks.packages`` installs them one by one; one that cannot be installed costs its rows only.
"""

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from packaging.requirements import Requirement

from ebnerd_lib.pipeline.layout import ROOT

EXTRA = "bench"


def missing(*names: str) -> str:
    """Say which of some modules cannot be imported and what to do about it; empty where all can."""
    lacking = [name for name in names if find_spec(name) is None]
    return f"{', '.join(lacking)} not installed. Run `python -m benchmarks.packages`." if lacking else ""


def wanted() -> list[Requirement]:
    """Return the pinned packages of the extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(text) for text in project["optional-dependencies"][EXTRA]]


def install() -> None:
    """Install what is missing of the extra, in the versions of the lock where it has them."""
    for package in wanted():
        if not _installed(package):
            print(f"installing {package}", flush=True)
            words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            done = subprocess.run([*words, "--constraint", str(ROOT / "requirements.lock"), str(package)])
            if done.returncode:
                print(f"{package} could not be installed: its rows will not be measured", file=sys.stderr)


def _installed(package: Requirement) -> bool:
    try:
        return package.specifier.contains(version(package.name))
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    install()
