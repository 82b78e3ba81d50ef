"""What is kept of a training until its stage is complete, so that one that is cut off goes on where it was.

A small file, ``kept.json`` in the folder of a network's logs, tells which checkpoint counts. It appears whole or not
at all and after the checkpoint, so a checkpoint that is being written when the process ends is never looked at.
Standard library only.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "kept.json"
BEST = "best.ckpt"


@dataclass(frozen=True)
class Kept:
    """A training as it was at the end of an epoch.

    Attributes:
        key: sum over all that the training depends on.
        over: whether it has trained its last epoch; if so, the checkpoint is that of the best one.
        rows: the figures of each epoch so far.
        checkpoint: name of the checkpoint's file in the folder.
        sha256: sum of its bytes.
    """

    key: str
    over: bool
    rows: list[dict[str, Any]]
    checkpoint: str
    sha256: str


def keep(folder: Path, key: str, over: bool, rows: list[dict[str, Any]], checkpoint: Path) -> None:
    """Let a checkpoint that lies in ``folder`` be the one that counts, and remove that of the epoch before."""
    kept = Kept(key, over, rows, checkpoint.name, _sum(checkpoint))
    temporary = folder / f".{FILE}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(asdict(kept)) + "\n", encoding="utf-8")
    temporary.replace(folder / FILE)
    for former in folder.glob("epoch-*.ckpt"):
        if former != checkpoint:
            former.unlink()


def find(folder: Path, key: str) -> tuple[Kept | None, str]:
    """Return what is kept of the training with ``key``, or ``None`` and the reason why there is nothing to go on from.

    The reason is empty where nothing was kept at all.
    """
    file = folder / FILE
    if not file.exists():
        return None, ""
    try:
        kept = Kept(**json.loads(file.read_text(encoding="utf-8")))
        whole = _sum(folder / kept.checkpoint) == kept.sha256
    except (OSError, ValueError, TypeError) as error:
        return None, f"{in_logs(file)} or its checkpoint cannot be read ({type(error).__name__})"
    if kept.key != key:
        return None, f"{in_logs(file)} is of other data, settings or code"
    if not whole:
        return None, f"{in_logs(folder / kept.checkpoint)} is not as it was written"
    return kept, ""


def forget(logs: Path) -> None:
    """Let no training under ``logs`` count as done: what it led to is safe, and the next one starts anew."""
    for file in logs.glob(f"*/{FILE}"):
        file.unlink()


def in_logs(file: Path) -> str:
    """Name a file of a network's logs by its stage's folder: what is said ends up in reports, which hold no paths."""
    return "/".join(("logs", *file.parts[-3:]))


def _sum(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
