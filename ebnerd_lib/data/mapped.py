"""Large arrays in files without a name, so that the memory of a process is not what a bundle is allowed to fill.

The pages of such an array are the operating system's to keep in memory or to write out. The file has no name in any
folder, so its space is free again when the array is dropped or the process ends, however it ends.
"""

import mmap
import os
import tempfile

import numpy as np

LARGE = 1 << 27
"""Bytes from which on an array lies in a file, in the system's folder for temporary files (``TMPDIR``)."""


def empty(shape: int | tuple[int, ...], kind: np.dtype | type[np.generic]) -> np.ndarray:
    """Return an array to be filled: in memory if it is small, in a file without a name if it is large.

    Raises:
        OSError: there is not enough space for the file; the error names its folder.

    Examples:
        >>> empty((2, 3), np.float32).shape
        (2, 3)
    """
    kind = np.dtype(kind)
    size = int(np.prod(shape)) * kind.itemsize
    if size < LARGE:
        return np.empty(shape, kind)
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            os.ftruncate(stream.fileno(), size)
            if hasattr(os, "posix_fallocate"):  # not on macOS; without space, writing to the map would kill the process
                os.posix_fallocate(stream.fileno(), 0, size)
            return np.frombuffer(mmap.mmap(stream.fileno(), size), kind).reshape(shape)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({size:,} bytes of working space are needed)", folder) from None


def zeros(shape: int | tuple[int, ...], kind: np.dtype | type[np.generic]) -> np.ndarray:
    """Return what ``empty`` does, filled with zeros."""
    found = empty(shape, kind)
    found[...] = 0
    return found
