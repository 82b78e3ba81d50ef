"""Locks that name their holder and end with its process, however that ends. Standard library only.

The kernel holds the lock, the file only says who has it: a holder that was killed leaves a free lock and its name.
"""

import datetime
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ebnerd_lib.errors import LockedError, StorageError
from ebnerd_lib.pipeline.layout import relative

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_POLL_SECONDS = 0.05
_held: dict[Path, int] = {}
"""Descriptors of the locks that this process holds."""


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock, or held it when it was killed."""

    pid: int
    since: str
    task: str

    def __str__(self) -> str:
        return f"{self.task}, pid {self.pid} since {self.since}"


def acquire(file: Path, task: str, wait: float = 0.0) -> Holder | None:
    """Take a lock for this process; nothing happens where it has it already.

    Args:
        file: the lock; it is made with its folder and never removed.
        task: what this process does, for the message to others.
        wait: seconds to wait for another holder.

    Returns:
        The process that held the lock and ended without releasing it; ``None`` where the last one did release it.

    Raises:
        LockedError: another process holds it.
        StorageError: the system or its file system has no locks.
        OSError: the file cannot be made or written.
    """
    if file in _held:
        return None
    if fcntl is None:
        raise StorageError("Windows has no `fcntl` locks: run this on Linux, macOS or in WSL.")
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _wait_for(descriptor, file, time.monotonic() + wait)
        last = _read(descriptor)
        now = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
        _write(descriptor, json.dumps(asdict(Holder(os.getpid(), now, task))))
    except BaseException:
        os.close(descriptor)
        raise
    _held[file] = descriptor
    return last


def release(file: Path) -> None:
    """Give a lock back; nothing happens where this process does not have it."""
    descriptor = _held.pop(file, None)
    if descriptor is not None:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def holder(file: Path) -> Holder | None:
    """Return who holds a lock, without taking it; ``None`` where nobody does, or this process."""
    if fcntl is None or file in _held:
        return None
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _read(descriptor) or Holder(0, "", "another process")
    finally:
        os.close(descriptor)
    return None


def _wait_for(descriptor: int, file: Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise LockedError(_refusal(file, _read(descriptor))) from None
        except OSError as error:
            raise StorageError(
                f"{relative(file)}: the file system has no locks ({error.strerror}). "
                "Put outputs/ on one that has, for instance as a link."
            ) from None
        time.sleep(_POLL_SECONDS)


def _refusal(file: Path, holder: Holder | None) -> str:
    kill = f"`kill {holder.pid}`" if holder else "`kill`"
    return (
        f"{relative(file)} is held by {holder or 'another process'}. Wait until it has ended (a notebook open in "
        f"Jupyter: run its last cell or restart its kernel) or end it with {kill}, then start again."
    )


def _read(descriptor: int) -> Holder | None:
    """Return the holder that the file names; ``None`` where it names none or is being written."""
    try:
        return Holder(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None


def _write(descriptor: int, text: str) -> None:
    content = text.encode()
    os.pwrite(descriptor, content, 0)
    os.ftruncate(descriptor, len(content))
