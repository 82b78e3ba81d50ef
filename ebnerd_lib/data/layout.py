"""Where the files of a bundle lie. Standard library only: `make` asks this before anything heavy is loaded."""

import json
from pathlib import Path

from ebnerd_lib.errors import BundleError

SPLITS = ("train", "validation")
TEST = "test"
VECTORS = "contrastive_vector.parquet"
STAMP = "generated.json"
_STAMPED = {"generator_version": int, "seed": int, "size": str}


def bundle_files(path: Path) -> list[Path]:
    """Return the files of a bundle in a fixed order; those that are optional only where they exist."""
    files = [path / "articles.parquet"]
    files += [path / split / f"{table}.parquet" for split in SPLITS for table in ("behaviors", "history")]
    return files + [extra for extra in (path / STAMP, path / VECTORS) if extra.exists()]


def check_files(path: Path) -> list[Path]:
    """Return the files of a bundle, all of which exist.

    Raises:
        BundleError: the folder or a file is missing.
    """
    if not path.is_dir():
        raise BundleError(
            f"{path}: no such folder. Unpack a bundle there (articles.parquet, train/, validation/), make a generated "
            f"one with `python -m ebnerd_lib sample --out {path}`, or name another folder with the parameter `bundle`."
        )
    return _whole(path, bundle_files(path), "", "Unpack the whole bundle there")


def hidden_files(path: Path) -> list[Path]:
    """Return the files of a hidden-test bundle in a fixed order; those that are optional only where they exist."""
    files = [path / "articles.parquet", *(path / TEST / f"{table}.parquet" for table in ("behaviors", "history"))]
    return files + [extra for extra in (path / STAMP, path / VECTORS) if extra.exists()]


def check_hidden_files(path: Path) -> list[Path]:
    """Return the files of a hidden-test bundle, all of which exist.

    Raises:
        BundleError: the folder or a file is missing.
    """
    if not path.is_dir():
        raise BundleError(
            f"{path}: no such folder. Unpack EBNeRD's test set there (articles.parquet, test/), or generate one "
            f"with `python -m ebnerd_lib sample --test --out {path}`."
        )
    return _whole(path, hidden_files(path), " of the test set", "Unpack all of it there")


def _whole(path: Path, files: list[Path], of: str, remedy: str) -> list[Path]:
    """Return the files of a folder, or raise ``BundleError`` with those that are missing."""
    missing = [str(file.relative_to(path)) for file in files if not file.is_file()]
    if missing:
        raise BundleError(f"{path}: {len(missing)} files{of} missing: {', '.join(missing)}. {remedy}.")
    return files


def generated_stamp(path: Path) -> dict[str, object] | None:
    """Return how a bundle was generated, or ``None`` for one that was not.

    Raises:
        BundleError: the stamp is no JSON object with a generator's version, seed and size.
    """
    stamp = path / STAMP
    if not stamp.exists():
        return None
    try:
        content = json.loads(stamp.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{stamp}: not JSON ({error}). Generate the bundle again.") from error
    lacking = [
        key for key, kind in _STAMPED.items() if not isinstance(content, dict) or type(content.get(key)) is not kind
    ]
    if lacking:
        raise BundleError(
            f"{stamp}: {len(lacking)} of {len(_STAMPED)} entries missing or of a wrong type: {', '.join(lacking)}. "
            "Generate the bundle again; remove the file from real data."
        )
    return dict(content)
