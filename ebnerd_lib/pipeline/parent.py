"""A process ends with the one that started it, a runner or torchrun, so that no orphan writes beside the next run."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Have the system kill this process as soon as the one that started it has ended.

    Elsewhere than on Linux, ipykernel's own look at its parent, once a second, has to do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    runner = int(os.environ.get("JPY_PARENT_PID") or 0)  # set by jupyter_client
    if runner and not is_alive(runner):  # it ended before the wish was placed
        os._exit(1)


def is_alive(pid: int) -> bool:
    """Say whether there is a process of a number, of whatever user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
