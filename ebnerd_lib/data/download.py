"""Get a bundle of EBNeRD from its published address: terms accepted, fetched, checked, unpacked whole or not at all."""

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from ebnerd_lib.data.archive import unpack
from ebnerd_lib.data.layout import VECTORS, check_files, check_hidden_files
from ebnerd_lib.data.meter import Meter, amount
from ebnerd_lib.data.transfer import Version, fetch, public, read_version, size_of, unwritable
from ebnerd_lib.errors import BundleError, DownloadError, LicenceError, LockedError, StorageError

SITE = "https://recsys.eb.dk/"
"""The data set's site, which shows the licence terms before it gives addresses."""
ADDRESS = "https://ebnerd-dataset.s3.eu-west-1.amazonaws.com"
"""Where the site's own links to the archives lead; ``--url`` and EBNERD_URL take precedence."""
TERMS = f"""\
EBNeRD is under Ekstra Bladet's own licence terms and may not be passed on. Its site shows them before the download:
  {SITE}"""
QUESTION = "Have you read these terms, and do you accept them? [yes/no] "
RECORD = "downloaded.json"
"""What was fetched from where, in the folder of the bundle."""
UNPACKED = 1.2
"""Bytes that a byte of an archive unpacks to, about; parquet is compressed already."""
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Published:
    """An archive that the data set's site links to.

    Attributes:
        path: below ``ADDRESS``.
        size: as the site gives it, rounded.
        rows: of some of its files, without ``.parquet``, as published.
        sha256: ``None`` where none is published.
    """

    path: str
    size: str
    rows: dict[str, int]
    sha256: str | None = None


BUNDLES = {
    "ebnerd_demo": Published(
        "ebnerd_demo.zip",
        "20 MB",
        {"articles": 11_777, "train/behaviors": 24_724, "validation/behaviors": 25_356},
    ),
    "ebnerd_small": Published(
        "ebnerd_small.zip",
        "80 MB",
        {"articles": 20_738, "train/behaviors": 232_887, "validation/behaviors": 244_647},
    ),
    "ebnerd_large": Published(
        "ebnerd_large.zip",
        "3.0 GB",
        {"articles": 125_541, "train/behaviors": 12_063_890, "validation/behaviors": 12_566_385},
    ),
    "ebnerd_testset": Published(
        "ebnerd_testset.zip", "1.5 GB", {"articles": 125_541, "test/behaviors": 13_536_710, "test/history": 807_677}
    ),
    "ebnerd_vectors": Published("artifacts/Ekstra_Bladet_contrastive_vector.zip", "341 MB", {}),
}
"""What can be fetched, by the name of the folder that it comes to. No sums are published."""


def download(
    name: str,
    out: Path,
    accepted: Callable[[], bool],
    url: str | None = None,
    sha256: str | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Fetch a bundle into a folder of its name, which appears whole or not at all.

    A folder that is there and whole is left as it is. What a cut transfer leaves is kept in a hidden folder beside it
    until the bundle is there.

    Args:
        name: of ``BUNDLES``.
        out: folder that holds the bundles.
        accepted: asked once whether the user accepts the licence terms, before anything is fetched or written.
        url: address of the archive, or of what it lies below; ``ADDRESS`` if not given.
        sha256: sum that the archive must have.
        say: is told each step.

    Returns:
        The folder of the bundle.

    Raises:
        LicenceError: the terms were not accepted. Nothing is written.
        DownloadError: there is no such bundle, the archive cannot be fetched, or has another sum.
        BundleError: the folder is there and not whole; or the archive is unsafe, damaged or not this bundle.
        StorageError: the disk has too little left, or cannot be written.
        LockedError: another process fetches it.
    """
    folder, address = out / name, address_of(name, url)
    wanted = _sum(sha256) or BUNDLES[name].sha256
    if _is_filled(folder):
        _check_present(name, folder)
        say(f"{folder}: already there and whole; left as it is.")
        return folder
    if not accepted():
        raise LicenceError(f"{name}: the terms were not accepted, so nothing was fetched. Read them at {SITE}")
    with _work(folder) as work:
        part = work / "archive"
        say(f"fetching {public(address)}")
        with Meter(name) as meter:
            version = fetch(address, part, meter.show, meter.say, lambda size, have: _check_room(work, size, have))
        record = _checked(name, part, version, wanted, say)
        say("unpacking and checking")
        _unpack(name, part, work / "bundle", record)
        for line in unlike_published(name, work / "bundle"):
            say(line)
        _put_in_place(work / "bundle", folder)
        shutil.rmtree(work)
    say(f"{folder}: whole, {amount(sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()))} on disk.")
    return folder


def ask_terms(name: str, given: bool, read: Callable[[str], str] = input) -> bool:
    """Show where the licence terms are and ask whether they are accepted.

    Args:
        name: of the bundle, for the size that is shown.
        given: whether the user has said so beforehand, with ``--accept-license`` or ACCEPT_LICENSE=yes.
        read: shows a question and returns the answer.

    Raises:
        LicenceError: nobody can be asked.
    """
    print(TERMS)
    if given:
        print("Accepted with ACCEPT_LICENSE=yes or --accept-license.")
        return True
    if not sys.stdin.isatty():
        raise LicenceError(
            f"{name}: nobody can be asked for the terms here. Read them at {SITE} and, if you accept them, run "
            f"`make data BUNDLE={name} ACCEPT_LICENSE=yes`."
        )
    print(f"{name} is a download of {BUNDLES[name].size}.")
    while True:
        try:
            answer = read(QUESTION).strip().lower()
        except EOFError:
            return False
        if answer in ("yes", "no"):
            return answer == "yes"


def address_of(name: str, url: str | None = None) -> str:
    """Return the address of an archive.

    Args:
        name: of ``BUNDLES``.
        url: of the archive, told by its ending, or of what the archives lie below.

    Raises:
        DownloadError: there is no such bundle.

    >>> address_of("ebnerd_demo", "http://127.0.0.1:8000/mirror/")
    'http://127.0.0.1:8000/mirror/ebnerd_demo.zip'
    >>> address_of("ebnerd_demo", "https://example.org/mine.zip?signature=1")
    'https://example.org/mine.zip?signature=1'
    """
    if name not in BUNDLES:
        raise DownloadError(f"{name}: no such bundle. Use one of {', '.join(BUNDLES)}.")
    pieces = urlsplit(url or ADDRESS)
    if pieces.path.endswith(_ARCHIVES):
        return urlunsplit(pieces)
    return urlunsplit(pieces._replace(path=f"{pieces.path.rstrip('/')}/{BUNDLES[name].path}"))


def check_bundle(name: str, folder: Path) -> None:
    """See that a folder holds what its name says, each file with the schema's columns and types.

    Raises:
        BundleError: a file or column is missing, a file is no parquet, or a type is wrong.
    """
    from ebnerd_lib.data import schema
    from ebnerd_lib.data.bundle import Bundle, open_bundle, open_parquet

    if name == "ebnerd_vectors":
        if Bundle(folder, None).vectors() is None:
            raise BundleError(f"{folder}: 1 files missing: {VECTORS}. Fetch the archive again.")
    elif name == "ebnerd_testset":
        tables = {"articles": schema.ARTICLES, "behaviors": schema.TEST_BEHAVIORS, "history": schema.HISTORY}
        for file in check_hidden_files(folder):
            if file.stem in tables:
                schema.check_schema(file, open_parquet(file).schema_arrow, tables[file.stem])
    else:
        open_bundle(folder)


def unlike_published(name: str, folder: Path) -> list[str]:
    """Say in a line a file where the rows of a bundle are not as many as were published."""
    from ebnerd_lib.data.bundle import open_parquet

    lines = []
    for table, published in BUNDLES[name].rows.items():
        found = open_parquet(folder / f"{table}.parquet").metadata.num_rows
        if found != published:
            lines.append(f"note: {table}.parquet has {found:,} rows; the {name} that was published has {published:,}.")
    return lines


def next_command(name: str, folder: Path) -> str:
    """Return what to run once a bundle is there."""
    if name == "ebnerd_testset":
        return (
            "python -m ebnerd_lib submit --profile ebnerd_large --model mlp_exposure "
            f"--test {folder} --out predictions.zip"
        )
    if name == "ebnerd_vectors":
        return f"ln {folder / VECTORS} {folder.parent / 'ebnerd_demo'}/ && make run-all PROFILE=ebnerd_demo"
    return f"make run-all PROFILE={name}"


def work_folder(folder: Path) -> Path:
    """Return where the archive of a bundle lies while it is fetched."""
    return folder.with_name(f".{folder.name}.download")


def pending(out: Path) -> dict[str, tuple[int, int | None]]:
    """Return the downloads in a folder that were cut: bytes there, and all of them where known, by bundle."""
    found = {}
    for name in BUNDLES:
        part = work_folder(out / name) / "archive"
        if part.exists():
            version = read_version(part)
            found[name] = (size_of(part), version.size if version else None)
    return found


def _check_present(name: str, folder: Path) -> None:
    try:
        check_bundle(name, folder)
    except BundleError as error:
        raise BundleError(f"{error} A download overwrites nothing: move {folder} away and run this again.") from None


def _sum(text: str | None) -> str | None:
    if text is not None and not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise DownloadError(f"{text!r}: not a sha256 sum. Give 64 hexadecimal digits.")
    return text and text.lower()


def _is_filled(folder: Path) -> bool:
    """Say whether there is something in the place of a bundle.

    Raises:
        BundleError: it is no folder, or one that is empty and reached through a link.
    """
    if not folder.exists() and not folder.is_symlink():
        return False
    if folder.is_dir() and any(folder.iterdir()):
        return True
    if folder.is_symlink() or not folder.is_dir():
        raise BundleError(f"{folder}: is in the way. Move it, or name another place with `--out`.")
    return False


@contextlib.contextmanager
def _work(folder: Path) -> Iterator[Path]:
    """Hold the folder to fetch into; what a kill left half unpacked in it is cleared."""
    work = work_folder(folder)
    try:
        work.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(work, os.O_RDONLY)
    except OSError as error:
        raise StorageError(
            f"{work}: {error.strerror}. See that {folder.parent} is a folder that can be written."
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"{work} is held: another process fetches {folder.name}. Wait until it has ended."
            ) from None
        for rest in work.iterdir():
            if rest.is_dir():
                shutil.rmtree(rest)
        yield work
    finally:
        os.close(descriptor)


def _check_room(work: Path, size: int, have: int) -> None:
    """Raise ``StorageError`` where the disk has no room for the rest of an archive and what it unpacks to."""
    free, needed = shutil.disk_usage(work).free, size - have + int(size * UNPACKED)
    if needed > free:
        raise StorageError(
            f"{work.parent}: {amount(free)} free, and the archive of {amount(size)} needs about {amount(needed)} more "
            "with what it unpacks to. Free space or name another disk with `--out`, then run the same command again."
        )


def _checked(
    name: str, part: Path, version: Version, wanted: str | None, say: Callable[[str], None]
) -> dict[str, object]:
    """Check the sum of an archive and return what to record of it; one with another sum is removed."""
    with part.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if wanted is not None and found != wanted:
        shutil.rmtree(part.parent)
        raise DownloadError(
            f"{version.url}: sha256 is {found} instead of {wanted}. The archive was removed; the same command fetches "
            "it again. If the sum stays, the file is another one: see the data set's site."
        )
    checked = "as wanted" if wanted else "not checked: none published"
    say(f"{version.size:,} bytes, all that the server has; sha256 {found} ({checked})")
    return {
        "bundle": name, "url": version.url, "size": version.size, "etag": version.etag, "sha256": found,
        "sha256_checked": wanted is not None, "downloaded": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    }  # fmt: skip


def _unpack(name: str, part: Path, bundle: Path, record: dict[str, object]) -> None:
    """Unpack an archive and check what it holds; an archive that is of no use is removed."""
    try:
        unpack(part, bundle, lambda folder: _check_parts(name, folder))
        check_bundle(name, bundle)
        (bundle / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except BundleError as error:
        shutil.rmtree(part.parent)
        reason = str(error).replace(f"{bundle}/", "").replace(str(part), public(str(record["url"])))
        raise BundleError(f"{reason} What was fetched has been removed.") from None
    except StorageError as error:
        raise StorageError(f"{error} The archive is kept: the same command goes on from it.") from None
    except OSError as error:
        raise unwritable(part, error) from None


def _check_parts(name: str, folder: Path) -> None:
    """Raise ``BundleError`` where a file is missing that belongs to what was asked for."""
    if name == "ebnerd_vectors":
        if not (folder / VECTORS).is_file():
            raise BundleError(f"{folder}: 1 files missing: {VECTORS}. Fetch it again.")
    else:
        (check_hidden_files if name == "ebnerd_testset" else check_files)(folder)


def _put_in_place(bundle: Path, folder: Path) -> None:
    try:
        bundle.rename(folder)  # onto an empty folder or none, never onto one that holds something
    except OSError as error:
        raise StorageError(
            f"{folder}: {error.strerror}. Nothing was overwritten: move it away and run this again."
        ) from None
