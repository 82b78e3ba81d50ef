"""JSON files that are whole whenever they can be seen. Standard library only."""

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
    """Write a file under a temporary name and put it in its place; folders are made.

    Raises:
        ValueError: a number is not finite.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(file)
