"""Files that are whole whenever they can be seen, JSON for the most part. Standard library only."""

import json
import os
from pathlib import Path
from typing import Any


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


def clear_temporary(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder."""
    for rest in folder.glob(".*.tmp"):
        rest.unlink(missing_ok=True)
