"""What a failed stage or run says: what went wrong, where, and what to do. Standard library only."""

import errno
import os
import shutil
from pathlib import Path

from ebnerd_lib.errors import StorageError
from ebnerd_lib.pipeline.paths import StagePaths, relative

_NO_SPACE = ("No space left on device", f"Errno {errno.ENOSPC}]", f"Errno {errno.EDQUOT}]")
_TOO_LARGE = (f"Errno {errno.EFBIG}]", os.strerror(errno.EFBIG))
_CLOSED = tuple(f"Errno {number}]" for number in (errno.EACCES, errno.EPERM, errno.EROFS))
_LITTLE = 2**20
"""Bytes of free space below which a disk counts as full."""


def stage_message(profile: str, kind: str, text: str) -> str:
    """Return why a stage failed, with the remedy where the cause is the disk or the memory.

    Args:
        profile: whose stage it is.
        kind: name of the exception.
        text: what it said.
    """
    outputs = StagePaths(profile, "").outputs
    message = f"{kind}: {text}"
    again = "then run the same command again: complete stages are kept."
    if any(sign in message for sign in _TOO_LARGE):
        return f"{message}. A limit on the size of files is in force (`ulimit -f`): raise it, {again}"
    if any(sign in message for sign in _NO_SPACE) or _free(outputs) < _LITTLE:
        return f"{message}. {_full(outputs)}, {again}"
    if any(sign in message for sign in _CLOSED):
        return f"{message}. Make {relative(outputs)}/ writable, {again}"
    if "Kernel died" in text or kind.endswith("MemoryError"):
        cause = "" if kind.endswith("MemoryError") else " It was killed, most likely because memory ran out."
        return (
            f"{message}.{cause} Free memory, run one stage at a time "
            f"(`python -m ebnerd_lib run --profile {profile} --jobs 1`) or use less data, {again}"
        )
    return message


def storage_error(profile: str, error: OSError) -> StorageError:
    """Return the one message for a file or folder that the runner itself could not read or write."""
    outputs = StagePaths(profile, "").outputs
    place = relative(Path(os.fsdecode(error.filename))) if isinstance(error.filename, str | bytes) else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = _full(outputs)
    elif error.errno == errno.EFBIG:
        remedy = "A limit on the size of files is in force (`ulimit -f`): raise it"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        remedy = f"{relative(outputs)}/ and what is above must be folders: move the file out of the way"
    else:
        remedy = f"See that {relative(outputs)}/ can be read and written"
    return StorageError(f"{place or relative(outputs)}: {error.strerror or error}. {remedy}, then run this again.")


def _full(outputs: Path) -> str:
    return f"The disk of {relative(outputs)}/ is full ({_free(outputs):,} bytes free): free space"


def _free(folder: Path) -> int:
    """Return the bytes free on the disk of a folder, or of the nearest one above that exists."""
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free
