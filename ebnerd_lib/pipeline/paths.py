"""Where the outputs lie, how files are written whole, and who holds them."""

import contextlib
import datetime
import json
import os
import platform
import re
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebnerd_lib.errors import ConfigError, LockedError

if TYPE_CHECKING:
    from filelock import BaseFileLock

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder; every path in artifacts and reports is relative to it."""
DETERMINISM = {"PYTHONHASHSEED": "0", "MKL_CBWR": "AVX2,STRICT", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""What a process needs in its environment from the start, for the same bytes on any number of threads."""
PREPROCESSED = "01_preprocess"
"""The stage whose artifacts training and submissions start from."""


class StagePaths:
    """The files of one stage of a profile, or those of the whole profile where ``stage`` is empty.

    Attributes:
        outputs: the folder of the profile.
        artifacts: the artifacts; the folder appears whole or not at all.
        manifest: what ran, with durations and memory.
        executed: the executed notebook of the last complete run; ``running`` and ``failed`` are executed so far.
        report: the rendered report of the last complete run; ``failed_report`` is that of a failed one.
        logs: logs and checkpoints; not artifacts: they hold times and hosts.
        hashes: checksums of files seen, shared by the stages of the profile.
        lock: the lock of the stage or of the whole profile.
        failure: why the last batch run failed; absent where it did not.
        progress: what a running stage tells of its progress, line by line.
    """

    def __init__(self, profile: str, stage: str) -> None:
        self.profile, self.stage = profile, stage
        self.outputs = ROOT / "outputs" / profile
        self.artifacts = self.outputs / "artifacts" / stage
        self.manifest = self.artifacts / "manifest.json"
        notebooks, reports, logs = (self.outputs / name for name in ("notebooks", "reports", "logs"))
        self.executed, self.failed = notebooks / f"{stage}.ipynb", notebooks / f"{stage}.failed.ipynb"
        self.running = notebooks / f".{stage}.running.ipynb"
        self.report, self.failed_report = reports / f"{stage}.html", reports / f"{stage}.failed.html"
        self.logs, self.hashes = logs / stage, logs / "hashes.json"
        self.lock = self.logs / ("stage.lock" if stage else "run.lock")
        self.failure, self.progress = self.logs / "failure.json", self.logs / "progress.txt"

    @property
    def is_reported(self) -> bool:
        """Whether the executed notebook is of the run that wrote the artifacts, or of a later one."""
        try:
            return self.executed.stat().st_mtime_ns >= self.manifest.stat().st_mtime_ns
        except OSError:
            return False


def notebook_path(stage: str) -> Path:
    """Return the source notebook of a stage, which all its variants share."""
    return ROOT / "notebooks" / f"{stage.partition('.')[0]}.ipynb"


def parameter_file(profile: str, stage: str) -> Path:
    """Return the parameter file of a stage in a profile."""
    return ROOT / "params" / profile / f"{stage}.yaml"


def lab_number(stage: str) -> int:
    """Return the number of a run by hand, 0 for a stage of a profile.

    >>> lab_number("03_train_mlp.lab12"), lab_number("03_train_mlp.wide")
    (12, 0)
    """
    found = re.fullmatch(r".*\.lab([0-9]+)", stage)
    return int(found[1]) if found else 0


def profiles() -> list[str]:
    """Return the names of all profiles, the folders of ``params``."""
    return sorted(p.name for p in (ROOT / "params").glob("[!.]*") if p.is_dir())


def profile_stages(profile: str) -> list[str]:
    """Return the stages of a profile, one a parameter file, in order of their names.

    Raises:
        ConfigError: there is no such profile, or it has a parameter file without a notebook, one that ends in .yml, or
            a variant whose name means something else.
    """
    folder = ROOT / "params" / profile
    known = profiles()
    if profile not in known:
        raise ConfigError(f"params/{profile}: no such profile. Use one of {', '.join(known)}.")
    if other := sorted(path.name for path in folder.glob("[!.]*.yml")):
        raise ConfigError(f"params/{profile}/{other[0]}: parameter files end in .yaml. Rename it.")
    stages = sorted(path.stem for path in folder.glob("[!.]*.yaml"))  # macOS leaves files that begin with a dot
    for stage in stages:
        check_stage(profile, stage)
    if not stages:
        raise ConfigError(f"params/{profile}: no parameter files. A profile runs the notebooks it has one for.")
    return stages


def check_stage(profile: str, stage: str) -> None:
    """Raise ``ConfigError`` where there is no such notebook, or the name of the variant means something else."""
    notebook, dot, variant = stage.partition(".")
    if not re.fullmatch(r"\w+", notebook) or not notebook_path(stage).exists():
        raise ConfigError(
            f"params/{profile}/{stage}.yaml: there is no notebooks/{notebook}.ipynb. Rename or remove it."
        )
    if dot and (not re.fullmatch("[a-z][a-z0-9_]*", variant) or re.fullmatch("lab.*|failed|(.*_)?online", variant)):
        raise ConfigError(
            f"params/{profile}/{stage}.yaml: '{variant}' cannot name a variant. Use a-z, 0-9 and _, beginning with "
            "a letter; lab, failed and what ends in online are taken."
        )


def relative(path: Path) -> str:
    """Return a path as it may be recorded: relative to the project's folder, through links that lie in it."""
    for whole in (Path(os.path.normpath(path.absolute())), path.resolve()):
        if whole.is_relative_to(ROOT):
            return whole.relative_to(ROOT).as_posix()
    return path.name


def read_json(file: Path) -> dict[str, Any] | None:
    """Return the object that a file holds; ``None`` where it is missing, broken or holds none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write an object as JSON with `write_whole`.

    Raises:
        ValueError: a number is not finite.
        OSError: there is no space or no permission.
    """
    write_whole(file, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_whole(file: Path, text: str) -> None:
    """Write a file under a temporary name and put it in its place; folders are made.

    Raises:
        OSError: there is no space or no permission. What was there before is left as it was.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # the system names no file for a write
            error.filename = str(file)
        raise


PACKAGES = (
    "numpy", "pandas", "pyarrow", "numba", "torch", "pytorch-lightning", "torchmetrics", "matplotlib", "papermill",
    "nbconvert", "jupyterlab", "ipykernel",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Return git state, versions, platform, device and threads; nothing that names a person, host or folder."""
    packages = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):  # training without a notebook needs few of them
            packages[name] = version(name)
    return {
        "git": _git(),
        "packages": packages,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": _device(),
        "threads": threads(os.cpu_count() or 1),
    }


def threads(default: int) -> int:
    """Return how many threads ``OMP_NUM_THREADS`` asks for, of a list the first; the default if it has no number."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) else default


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process in MB, mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def files_in(folder: Path) -> list[Path]:
    """Return the artifacts in a folder, the manifest itself left out, by name; none where there is no folder."""
    return sorted(path for path in folder.glob("*") if path.name != "manifest.json")


def _git() -> dict[str, Any]:
    """Return the commit of the project and whether something differs from it; ``None`` where it is no checkout."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # of another one's hook
    words = ["git", "--git-dir=.git", "status", "--porcelain=v2", "--branch"]  # without, git would look further up
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, env=own)
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    first, *lines = done.stdout.splitlines()
    return {"commit": first.removeprefix("# branch.oid "), "dirty": any(line[0] != "#" for line in lines)}


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is None:
        return "cpu"
    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name(0)})"
    return "mps" if torch.backends.mps.is_available() else "cpu"


OURSELVES = "this process"
_held: dict[Path, "BaseFileLock"] = {}
"""The locks that this process holds."""


def acquire(file: Path, task: str, wait: float = 1.0) -> None:
    """Take a lock for this process; nothing happens where it has it already. A lock ends with its process.

    Args:
        file: the lock; it is made with its folder and never removed.
        task: what this process does. It is noted in a file beside the lock, for the message to others.
        wait: seconds to wait for another holder.

    Raises:
        LockedError: another process holds it.
        OSError: the file cannot be made, or its file system has no locks.
    """
    from filelock import FileLock, Timeout  # not at the top: the doctor starts without packages

    if file in _held:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, timeout=wait, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(
            f"{relative(file)} is held by {holder(file) or 'another process'}. Wait until it has ended (a notebook "
            "open in Jupyter: run its last cell or restart its kernel) or end it with `kill`, then start again."
        ) from None
    _held[file] = lock
    since = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    with contextlib.suppress(OSError):  # only for messages
        write_whole(file.with_suffix(".holder"), f"{task}, pid {os.getpid()} since {since}\n")


def release(file: Path) -> None:
    """Give a lock back; nothing happens where this process does not have it."""
    if (lock := _held.pop(file, None)) is not None:
        with contextlib.suppress(OSError):
            file.with_suffix(".holder").unlink(missing_ok=True)
        lock.release()


def holder(file: Path) -> str:
    """Return who holds a lock, as task, pid and time, or ``OURSELVES``; empty where nobody does."""
    if file in _held:
        return OURSELVES
    if not file.exists():
        return ""
    from filelock import FileLock, Timeout

    try:
        with FileLock(file, timeout=0):
            return ""
    except Timeout:
        with contextlib.suppress(OSError, ValueError):
            return file.with_suffix(".holder").read_text(encoding="utf-8").strip()
        return "another process"
    except OSError:  # not ours to open
        return ""
