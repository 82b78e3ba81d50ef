"""Where the files of a bundle lie. Standard library only: `make` asks this before anything heavy is loaded."""

import json
from pathlib import Path

from ebnerd_lib.errors import BundleError

SPLITS = ("train", "validation")
TEST = "test"
VECTORS = "contrastive_vector.parquet"
STAMP = "generated.json"
_STAMPED = {"generator_version": int, "seed": int, "size": str}


def check_files(path: Path, splits: tuple[str, ...] = SPLITS) -> list[Path]:
    """Return the files of a bundle in a fixed order, all of which exist; those that are optional only where they do.

    ``splits`` are those of a bundle to train on, or ``(TEST,)`` of a hidden-test bundle.

    Raises:
        BundleError: the folder or a file is missing, or a folder stands where a file should.
    """
    files = [path / "articles.parquet"]
    files += [path / split / f"{table}.parquet" for split in splits for table in ("behaviors", "history")]
    if not path.is_dir():
        what, option, where = ("EBNeRD's test set", "--test ", "`--test`") if TEST in splits else (
            "a bundle", "", "the parameter `bundle`"
        )  # fmt: skip
        fault = "a file where a folder is expected" if path.exists() else "no such folder"
        size = "--size smoke " if path.name == "smoke" else ""
        get = f"Generate one with `python -m ebnerd_lib sample {option}{size}--out '{path}'`"
        if path.name.startswith("ebnerd_"):  # generated data in the folder of a real bundle would pass for it
            get = f"Fetch it with `make data BUNDLE={path.name}`"
        if path.name.startswith("mind_"):
            get = f"Convert MIND with `python -m ebnerd_lib convert-mind --out {path}`, see docs/data.md"
        raise BundleError(
            f"{path}: {fault}. {get}, unpack {what} there (articles.parquet, {', '.join(f'{s}/' for s in splits)}), "
            f"or name another folder by {where}."
        )
    extras = [extra for extra in (path / STAMP, path / VECTORS) if extra.exists()]
    if folders := [str(file.relative_to(path)) for file in files + extras if file.is_dir()]:
        raise BundleError(
            f"{path}: {', '.join(folders)}: a folder where a file is expected. Write each table as one file: "
            "of a folder of parts, put the parts together."
        )
    missing = [str(file.relative_to(path)) for file in files if not file.is_file()]
    if missing:
        raise BundleError(f"{path}: {len(missing)} files missing: {', '.join(missing)}. Unpack the whole bundle there.")
    return files + extras


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
        wrong = [key for key, kind in _STAMPED.items() if type(content[key]) is not kind]
    except (ValueError, RecursionError, KeyError, TypeError):
        wrong = list(_STAMPED)
    if wrong:
        raise BundleError(
            f"{stamp}: no JSON object that tells {', '.join(wrong)}. Generate the bundle again; remove the file from "
            "real data."
        )
    return content


def size_in_words(size: object) -> str:
    """Say how large a generated bundle is, so that none is taken for the bundle of EBNeRD that its size is named after.

    >>> size_in_words("demo"), size_in_words("smoke")
    ('as large as ebnerd_demo', 'size smoke')
    """
    return f"as large as ebnerd_{size}" if size in ("demo", "small", "large") else f"size {size}"
