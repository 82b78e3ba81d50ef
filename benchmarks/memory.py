"""Peak anonymous memory of a child process: what it allocates itself, pages of mapped files left out."""

import subprocess
import time
from pathlib import Path

_EVERY = 0.01  # seconds between two looks


def watch(child: subprocess.Popen[str]) -> float | None:
    """Wait for a child to end and return its peak RssAnon in MB; ``None`` where the platform does not tell."""
    peak: int | None = None
    while child.poll() is None:
        found = _anonymous_kb(child.pid)
        if found is not None:
            peak = max(found, peak or 0)
        time.sleep(_EVERY)
    return None if peak is None else peak / 1024


def _anonymous_kb(pid: int) -> int | None:
    """Return the anonymous resident memory of a process as Linux tells it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(found[0]) if found else None
