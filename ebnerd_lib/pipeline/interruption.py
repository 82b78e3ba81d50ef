"""Ctrl-C, SIGTERM and a closed terminal end a run in order, and its kernels with it. Standard library until then."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

STOP_SECONDS = 3.0
"""How long to wait for the threads of a run once their kernels have been ended."""
_AGAIN_SECONDS = 0.05  # until an interruption that was dropped is raised again


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let the first SIGINT, SIGTERM or SIGHUP raise ``KeyboardInterrupt``, and later ones not disturb what it does.

    A signal that is ignored, as by ``nohup``, stays so. Outside of the main thread nothing changes. Where Python drops
    the exception, as within a callback of the garbage collector, it is raised again a moment later.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    def ignored(what: "sys.UnraisableHookArgs") -> None:
        if what.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
        else:
            hook(what)

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in wanted if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, interrupt)
    alarm, hook = signal.signal(signal.SIGALRM, interrupt), sys.unraisablehook
    sys.unraisablehook = ignored
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, alarm)
        for number, handler in before.items():
            signal.signal(number, handler)


def end_kernels(futures: list[Future[Any]]) -> None:
    """End the kernels of this process, which are in sessions of their own and hear no Ctrl-C, and their threads.

    Args:
        futures: the stages that are being run, each by a thread that starts a kernel sooner or later.
    """
    until = time.monotonic() + STOP_SECONDS
    for future in futures:
        future.cancel()
    while not all(future.done() for future in futures) and time.monotonic() < until:
        end_family(os.getpid(), itself=False)
        time.sleep(0.05)


def end_family(pid: int, itself: bool = True) -> None:
    """Kill all that a process has started, directly or in turn, and then the process, as a machine does without power.

    Args:
        pid: of the process; nothing happens where there is none.
        itself: whether to kill it too.
    """
    import psutil

    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (*process.children(recursive=True), *([process] if itself else [])):
            with contextlib.suppress(psutil.Error):
                each.kill()
