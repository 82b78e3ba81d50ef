"""Unpack a downloaded bundle: an archive comes from elsewhere, so what it may write is checked before it writes."""

import errno
import lzma
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ebnerd_lib.data.layout import TEST, check_files, check_hidden_files
from ebnerd_lib.errors import BundleError, StorageError, first_line

MOST_FILES = 10_000
"""Entries of an archive; a bundle has about ten."""
MOST_RATIO = 100
"""How many times its own size an archive may unpack to: parquet is compressed already, a bomb is not."""
ALWAYS_FITS = 2**20
"""Bytes that any archive may unpack to, however small it is."""
_PADDING = 2**20
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
_JUNK = ("__MACOSX", ".DS_Store")
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class _Entry:
    """One entry of an archive as its header declares it."""

    name: str
    size: int
    folder: bool
    open: Callable[[], IO[bytes]]

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.name)


def check_whole(folder: Path) -> None:
    """Raise ``BundleError`` unless a folder holds all files of a bundle, or of the test set where it has ``test/``."""
    (check_hidden_files if (folder / TEST).is_dir() else check_files)(folder)


def unpack(archive: Path, out: Path, check: Callable[[Path], object] = check_whole) -> None:
    """Unpack a zip or tar archive of a bundle or of the test set into a folder, which appears whole or not at all.

    A single folder around the bundle is stripped; what macOS adds to archives is left out.

    Args:
        archive: a ``.zip``, ``.tar`` or ``.tar.gz`` file.
        out: folder to write; it must not exist or be empty.
        check: raises ``BundleError`` where what was unpacked to a folder is not what it should be.

    Raises:
        BundleError: ``out`` holds something; the archive is missing, damaged or encrypted, has an entry that is
            neither file nor folder (a link, a device) or whose name is unsafe or occurs twice, unpacks to far more
            than its size, or lacks a file of a bundle. Nothing is written then.
        StorageError: the disk has too little left, or may not be written. Nothing is written then either.
    """
    if not archive.is_file():
        raise BundleError(f"{archive}: no such file. Name the archive that you downloaded.")
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise BundleError(f"{out}: exists and is not an empty folder. Name another folder, or empty this one.")
    out.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        bundle = holder / "bundle"
        bundle.mkdir()
        _extract(archive, bundle)
        try:
            check(bundle)
        except BundleError as error:
            lacking = str(error).removeprefix(f"{bundle}: ").split(". ")[0]
            raise BundleError(f"{archive}: not a whole bundle, {lacking}. Fetch the archive again.") from None
        if out.exists():
            out.rmdir()
        bundle.rename(out)
    finally:
        shutil.rmtree(holder)


def _extract(archive: Path, bundle: Path) -> None:
    """Check every entry of an archive, then write its files below a folder."""
    try:
        with _opened(archive) as declared:
            entries = _checked(archive, declared, shutil.disk_usage(bundle).free)
            files = [entry for entry in entries if not entry.folder and not set(entry.path.parts) & set(_JUNK)]
            tops = {entry.path.parts[0] for entry in files}
            inside = len(tops) == 1 and all(len(entry.path.parts) > 1 for entry in files)
            for entry in files:
                target = bundle.joinpath(*entry.path.parts[inside:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with entry.open() as source, target.open("xb") as stream:
                    shutil.copyfileobj(source, stream, 2**20)
                if target.stat().st_size != entry.size:
                    raise BundleError(f"{archive}: entry {entry.name!r} is cut off. Fetch the archive again.")
    except _DAMAGED as error:
        raise BundleError(
            f"{archive}: damaged, or no zip or tar archive ({first_line(error)}). Fetch it again."
        ) from error
    except OSError as error:
        kind = StorageError if error.errno in _DISK else BundleError
        raise kind(f"{archive}: cannot be unpacked ({error.strerror or error}). Mend that and retry.") from error


@contextmanager
def _opened(archive: Path) -> Iterator[Iterator[_Entry]]:
    """Open an archive and give its entries one by one, so that a bomb is left before all of it is read."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield (_zip_entry(archive, packed, entry) for entry in packed.infolist())
    else:
        with tarfile.open(archive) as tar:
            yield _tar_entries(archive, tar)


def _tar_entries(archive: Path, tar: tarfile.TarFile) -> Iterator[_Entry]:
    for member in tar:
        yield _tar_entry(archive, tar, member)
    if tar.fileobj is not None:
        tar.fileobj.read(_PADDING)  # gzip's own sum stands behind the padding and is checked when it is reached


def _zip_entry(archive: Path, packed: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Entry:
    kind = entry.external_attr >> 16 & 0o170000  # the file type of Unix; 0 where the archive was made elsewhere
    if kind not in (0, 0o100000, 0o040000):
        raise BundleError(_refused(archive, entry.orig_filename, "is neither a file nor a folder"))
    if entry.flag_bits & 1:
        raise BundleError(f"{archive}: entry {entry.orig_filename!r} is encrypted. Unpack it by hand.")
    return _Entry(entry.orig_filename, entry.file_size, entry.is_dir(), lambda: packed.open(entry))


def _tar_entry(archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> _Entry:
    if not (member.isfile() or member.isdir()):
        raise BundleError(_refused(archive, member.name, "is neither a file nor a folder"))

    def opened() -> IO[bytes]:
        stream = tar.extractfile(member)
        assert stream is not None  # only of links and folders
        return stream

    return _Entry(member.name, member.size, member.isdir(), opened)


def _checked(archive: Path, entries: Iterator[_Entry], free: int) -> list[_Entry]:
    """Return all entries, each of which may be written and which together fit the disk."""
    most = max(ALWAYS_FITS, MOST_RATIO * archive.stat().st_size)
    found: dict[str, _Entry] = {}
    total = 0
    for entry in entries:
        if reason := _unsafe(entry):
            raise BundleError(_refused(archive, entry.name, reason))
        key = str(entry.path).casefold()  # two files that differ in case are one where the disk ignores it
        if key in found and not (entry.folder and found[key].folder):
            raise BundleError(_refused(archive, entry.name, "occurs twice"))
        found[key] = entry
        total += entry.size
        if len(found) > MOST_FILES:
            raise BundleError(f"{archive}: more than {MOST_FILES:,} entries. A bundle has about ten: fetch it again.")
        if total > most:
            raise BundleError(
                f"{archive}: unpacks to more than {most:,} bytes, {MOST_RATIO} times its size. A bundle does not: "
                "fetch it again from its source."
            )
        if total > free:
            raise StorageError(f"{archive}: unpacks to more than the {free:,} bytes that the disk has left. Free some.")
    for key, entry in found.items():
        above = [str(folder) for folder in PurePosixPath(key).parents]
        if any(folder in found and not found[folder].folder for folder in above):
            raise BundleError(_refused(archive, entry.name, "lies below a file"))
    return list(found.values())


def _unsafe(entry: _Entry) -> str | None:
    """Say why an entry's name may not be written, ``None`` if it may."""
    if any(sign in entry.name for sign in "\\:") or not entry.name.isprintable():
        return "has a backslash, a colon or a control character in its name"
    if entry.path.is_absolute() or ".." in entry.path.parts:
        return "lies outside the folder to unpack to"
    return None if entry.folder or entry.path.parts else "has no name"


def _refused(archive: Path, name: str, reason: str) -> str:
    return f"{archive}: entry {name!r} {reason}. Nothing was unpacked: fetch the archive from its own source."
