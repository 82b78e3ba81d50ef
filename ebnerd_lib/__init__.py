"""News recommendation research on EBNeRD. Importing the package itself imports nothing but the standard library."""

import os
import tempfile
from pathlib import Path


def _writable(folder: Path) -> bool:
    """Say whether a folder can be written, or can be made where it is not there."""
    there = next(each for each in (folder, *folder.parents) if os.access(each, os.F_OK))
    return os.access(f"{there}/.", os.W_OK | os.X_OK)  # the dot: a file is no folder


def _find_compiled(package: Path) -> None:
    """Give numba a place where neither the package nor a home can be written, as in containers: else it gives up."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 raises without a home
    own = [module.with_name("__pycache__") for module in package.glob("*/__init__.py")]
    given, outputs = os.environ.get("NUMBA_CACHE_DIR"), package.parent / "outputs"
    if not ((given and _writable(Path(given))) or all(map(_writable, own)) or _writable(Path(home, "numba"))):
        place = outputs / ".numba" if _writable(outputs) else tempfile.mkdtemp(prefix="ebnerd-numba-")
        os.environ["NUMBA_CACHE_DIR"] = str(place)


_find_compiled(Path(__file__).resolve().parent)
