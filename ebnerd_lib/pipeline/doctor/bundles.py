"""What lies in ``data/``: which bundles, whole or not, generated or real, and whether profiles have theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ebnerd_lib.pipeline.doctor.finding import OK, WARN, WRONG, Finding, few, gigabytes
from ebnerd_lib.pipeline.layout import ROOT, profile_stages, profiles, relative

GENERATED = ("smoke", "sample")
"""Bundles that `make` generates where they are missing."""
_WEEKS = ("train", "validation", "test")


def check_data(wanted: set[str]) -> list[Finding]:
    """Describe each folder in ``data/``.

    Args:
        wanted: bundles that the profile reads, as ``data/sample``; one that is not whole stops it.
    """
    data = ROOT / "data"
    folders = sorted(path for path in data.glob("*") if path.is_dir() and not path.name.startswith("."))
    findings = [_describe(folder, relative(folder) in wanted) for folder in folders]
    return findings or [Finding(OK, "data/", "empty: `make run-all` generates a sample")]


def check_profiles(profile: str) -> list[Finding]:
    """See that the profile's bundle is there, and name other profiles whose bundle is not."""
    findings, others = [], []
    for name in profiles():
        lacking = [bundle for bundle in sorted(bundles_of(name)) if not (ROOT / bundle).is_dir()]
        for bundle in lacking:
            if name == profile:
                findings.append(_lacking(profile, bundle))
            elif Path(bundle).name not in GENERATED:
                others.append(f"{name} (`make data BUNDLE={Path(bundle).name}`)")
    if not findings:
        findings.append(Finding(OK, "profile data", f"{profile} has {few(sorted(bundles_of(profile))) or 'no bundle'}"))
    if others:
        findings.append(Finding(OK, "other profiles", f"without their data: {few(others)}"))
    return findings


def bundles_of(profile: str) -> set[str]:
    """Return the bundles that a profile's stages read; what cannot be told is left out."""
    from ebnerd_lib.errors import EbnerdError
    from ebnerd_lib.pipeline.config import load_config

    found = set()
    try:
        for stage in profile_stages(profile):
            found.add(str(load_config(profile, stage).parameters.get("bundle", "")))
    except EbnerdError:
        pass  # told by the check of the parameters
    return found - {""}


def rows_of(bundle: str) -> int | None:
    """Return the impressions of a bundle's train week, ``None`` where they cannot be told."""
    try:
        return _rows(ROOT / bundle / "train" / "behaviors.parquet")
    except Exception:
        return None


def _describe(folder: Path, needed: bool) -> Finding:
    """Say what a folder holds."""
    from ebnerd_lib.data.layout import VECTORS, check_files, check_hidden_files
    from ebnerd_lib.errors import EbnerdError

    name, size = relative(folder), sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    weeks = [week for week in _WEEKS if (folder / week).is_dir()]
    if not needed and not weeks and not (folder / "articles.parquet").exists():
        kind = "article vectors, for bundles to share" if (folder / VECTORS).is_file() else "no bundle, left alone"
        return Finding(OK, name, f"{kind}; {gigabytes(size)}")
    try:
        (check_hidden_files if "test" in weeks else check_files)(folder)
        rows = {week: _checked_rows(folder, week) for week in weeks}
        source = _source(folder)
    except EbnerdError as error:
        reason = str(error).replace(f"{folder}: ", "", 1).replace(f"{folder}/", "").split(". ")[0]
        return Finding(WRONG if needed else WARN, name, f"not whole: {reason}", _mend(folder, name))
    except ImportError as error:
        return Finding(OK, name, f"all files are there; not opened, since {error.name} is missing; {gigabytes(size)}")
    counts = ", ".join(f"{week} {count:,}" for week, count in rows.items())
    vectors = "with" if (folder / VECTORS).is_file() else "without"
    return Finding(OK, name, f"whole, {source}; impressions: {counts}; {vectors} article vectors; {gigabytes(size)}")


def _checked_rows(folder: Path, week: str) -> int:
    """Return the impressions of a week, once each of its tables was seen to have the schema's columns."""
    from ebnerd_lib.data import schema

    behaviors = schema.TEST_BEHAVIORS if week == "test" else schema.BEHAVIORS
    tables = {"articles": schema.ARTICLES, f"{week}/behaviors": behaviors, f"{week}/history": schema.HISTORY}
    for table, columns in tables.items():
        file = folder / f"{table}.parquet"
        schema.check_schema(file, _opened(file).schema_arrow, columns)
    return _rows(folder / week / "behaviors.parquet")


def _source(folder: Path) -> str:
    from ebnerd_lib.data.download import RECORD
    from ebnerd_lib.data.layout import generated_stamp

    stamp = generated_stamp(folder)
    if stamp is not None:
        return f"generated, size {stamp['size']}, seed {stamp['seed']}"
    return "fetched with `make data`" if (folder / RECORD).is_file() else "not generated"


def _rows(file: Path) -> int:
    return int(_opened(file).metadata.num_rows)


def _opened(file: Path) -> Any:
    """Open a parquet file without what compiles, which takes longer than all else here."""
    import pyarrow.parquet as pq

    from ebnerd_lib.data.values import UNREADABLE
    from ebnerd_lib.errors import BundleError, first_line

    try:
        return pq.ParquetFile(file)
    except UNREADABLE as error:
        raise BundleError(f"{file}: not a readable parquet file ({first_line(error)}).") from error


def _mend(folder: Path, name: str) -> str:
    if folder.name in GENERATED:
        return f"rm -r {name}; `make run-all` generates it again"
    if folder.name.startswith("ebnerd_"):
        return f"move {name} away and `make data BUNDLE={folder.name}`"
    return f"unpack or generate it again, or remove {name}"


def _lacking(profile: str, bundle: str) -> Finding:
    from ebnerd_lib.data.download import BUNDLES

    name = Path(bundle).name
    if name in GENERATED:
        return Finding(OK, "profile data", f"{profile} reads {bundle}, which `make run-all` generates")
    fetch = (
        f"make data BUNDLE={name}"
        if name in BUNDLES
        else f"put a bundle at {bundle}, or change `bundle` in params/{profile}"
    )
    return Finding(WRONG, "profile data", f"{profile} reads {bundle}, which is not there", fetch)
