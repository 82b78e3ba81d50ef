"""News recommendation research on EBNeRD. Importing the package itself imports nothing but the standard library.

Where neither its folders nor the user's cache can be written, as in many containers, numba refuses to compile. What it
compiles then goes to ``outputs``, or to a temporary folder of this process and those that it starts.
"""

import os
from pathlib import Path


def _writable(folder: Path) -> bool:
    """Say whether a folder can be written, or can be made where it is not there."""
    there = next(each for each in (folder, *folder.parents) if os.access(each, os.F_OK))
    return os.access(f"{there}/.", os.W_OK | os.X_OK)  # the dot: a file is no folder


def _find_compiled(package: Path) -> None:
    """Tell numba where compiled code can be kept, unless it finds a place by itself."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 raises without a home
    own = [module.with_name("__pycache__") for module in package.glob("*/__init__.py")]
    given = os.environ.get("NUMBA_CACHE_DIR")
    if (given and _writable(Path(given))) or all(map(_writable, own)) or _writable(Path(home, "numba")):
        return
    if _writable(package.parent / "outputs"):
        os.environ["NUMBA_CACHE_DIR"] = str(package.parent / "outputs" / ".numba")
        return
    import atexit
    import shutil
    import tempfile

    folder = os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="ebnerd-numba-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


_find_compiled(Path(__file__).resolve().parent)
