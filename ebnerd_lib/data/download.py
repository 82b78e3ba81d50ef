"""Download a bundle of EBNeRD, or unpack an archive of one; its folder appears whole or not at all."""

import contextlib
import hashlib
import json
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout
from rich.progress import wrap_file
from rich.prompt import Prompt
from urllib3.exceptions import HTTPError

from ebnerd_lib.data.layout import TEST, VECTORS
from ebnerd_lib.errors import BundleError, DownloadError, LicenceError, LockedError, StorageError, first_line

SITE = "https://recsys.eb.dk"
ADDRESS = "https://ebnerd-dataset.s3.eu-west-1.amazonaws.com"
BUNDLES = {
    "ebnerd_demo": ("ebnerd_demo.zip", "20 MB"),
    "ebnerd_small": ("ebnerd_small.zip", "80 MB"),
    "ebnerd_large": ("ebnerd_large.zip", "3.0 GB"),
    "ebnerd_testset": ("ebnerd_testset.zip", "1.5 GB"),
    "ebnerd_vectors": ("artifacts/Ekstra_Bladet_contrastive_vector.zip", "341 MB"),
}
"""Path below ``ADDRESS`` and size of each archive, as ``SITE`` publishes them, by the folder that it comes to."""
RECORD = "downloaded.json"
MOST_BYTES = 20_000_000_000  # that an archive may unpack to; the largest one published takes about 4 GB


def download(name: str, out: Path, accepted: bool, url: str | None = None, sha256: str | None = None) -> Path:
    """Download a bundle of ``BUNDLES`` to ``out / name`` and return that folder; a whole one is left as it is.

    What has come before a cut is kept in ``out / .<name>.download``; ``url`` is the archive's or its folder's.

    Raises:
        LicenceError: the terms are not accepted. Nothing is written.
        DownloadError: there is no such bundle, the server does not give it, or its checksum is wrong.
        BundleError: the folder is there and not whole; or the archive is unsafe, damaged or not this bundle.
        StorageError: the disk is full or cannot be written. What has come is kept.
        LockedError: another process downloads it.
    """
    folder, work, address = out / name, out / f".{name}.download", _address(name, url or ADDRESS)
    part, shown = work / "archive", public(address)
    if sha256 and len(sha256) != 64:
        raise DownloadError(f"{sha256}: not a sha256 checksum. Give its 64 hexadecimal digits.")
    if folder.is_file() or any(folder.glob("*")):
        check_bundle(name, folder)
        return folder
    _accept_terms(name, accepted)
    with writing(work), FileLock(work / "lock", timeout=0):
        print(f"downloading {shown}")
        _fetch(address, part)
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        print(f"{part.stat().st_size:,} bytes, sha256 {found}; unpacking")
        try:
            if found != (sha256 or found).lower():
                raise DownloadError(f"{shown}: sha256 is {found} instead of {sha256}. Compare both with {SITE}.")
            shutil.rmtree(work / "unpacked", ignore_errors=True)  # of a process that was killed
            bundle = _unpack(part, work / "unpacked", shown, name)
            (bundle / RECORD).write_text(json.dumps({"url": shown, "sha256": found}) + "\n", encoding="utf-8")
            bundle.rename(folder)  # onto an empty folder or none, never onto one that holds something
        except (DownloadError, BundleError):
            shutil.rmtree(work)
            raise
        shutil.rmtree(work)
    return folder


def unpack(archive: Path, out: Path) -> None:
    """Unpack a zip archive of a bundle; raises ``BundleError`` or ``StorageError`` and then leaves nothing."""
    if not archive.is_file() or any(out.glob("*")):
        raise BundleError(f"{archive}: no such file, or {out} is not an empty folder. Name another one.")
    with writing(out.parent), TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        _unpack(archive, Path(temporary) / "bundle", str(archive)).rename(out)


def check_bundle(name: str | None, folder: Path) -> None:
    """Raise ``BundleError`` unless a folder is whole for its name, or for ``None`` for what it looks like."""
    from ebnerd_lib.data import bundle

    if name == "ebnerd_testset" or (name is None and (folder / TEST).is_dir()):
        bundle.open_bundle(folder, (TEST,))
    elif name != "ebnerd_vectors" and (name or (folder / "articles.parquet").exists()):
        bundle.open_bundle(folder)
    elif bundle.Bundle(folder, None).vectors() is None:
        raise BundleError(f"{folder}: 1 files missing: {VECTORS}. Download it again.")


def public(url: str) -> str:
    """Return an address without what may be secret in it: a user, a password, a query."""
    return urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2], query="", fragment="").geturl()


def _address(name: str, url: str) -> str:
    """Return the address of an archive: the URL itself if it ends like one, else what lies below it."""
    parts = urlsplit(url)
    if name not in BUNDLES or parts.scheme not in ("http", "https"):
        raise DownloadError(f"{name} at {public(url)}: use one of {', '.join(BUNDLES)}, at an http or https address.")
    if parts.path.endswith(".zip"):
        return url
    return parts._replace(path=f"{parts.path.rstrip('/')}/{BUNDLES[name][0]}").geturl()


def _accept_terms(name: str, accepted: bool) -> None:
    """Show where the licence terms are. Raises ``LicenceError`` unless they are accepted, now or beforehand."""
    print(f"EBNeRD is under Ekstra Bladet's own licence terms and may not be passed on. Read them first: {SITE}")
    question = f"Do you accept these terms, and download {BUNDLES[name][1]}?"
    with contextlib.suppress(EOFError):
        if accepted or (sys.stdin.isatty() and Prompt.ask(question, choices=["yes", "no"]) == "yes"):
            return
    raise LicenceError(f"{name}: terms not accepted. Read {SITE}, then `make data BUNDLE={name} ACCEPT_LICENSE=yes`.")


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make a folder to write to; says in one sentence what the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except Timeout:
        raise LockedError(f"{folder}: another process downloads to it. Wait until it has ended.") from None
    except OSError as error:
        reason = error.strerror or error
        raise StorageError(f"{error.filename or folder}: {reason}. Free space or allow writing, then rerun.") from None


def _fetch(url: str, part: Path, waits: tuple[float, ...] = (1, 2, 4, 8)) -> None:
    """Fetch a file, resuming what is there of it: a note beside it tells which version of which file that is."""
    note = part.with_suffix(".json")
    known = json.loads(note.read_text(encoding="utf-8") or "{}") if note.exists() else {}
    size, version = (known["size"], known["version"]) if known.get("url") == public(url) else (0, None)
    have = part.stat().st_size if size and part.exists() else 0
    if size and have == size:
        return
    resume = {"Range": f"bytes={have}-", "If-Range": version} if version else {}
    try:
        with requests.get(url, headers={"Accept-Encoding": "identity", **resume}, stream=True, timeout=60) as answer:
            code, told = answer.status_code, f"the server answered {answer.status_code} {answer.reason}"
            wrong = code in (206, 416) and answer.headers.get("Content-Range") != f"bytes {have}-{size - 1}/{size}"
            if wrong:
                note.unlink(missing_ok=True)  # so that the next attempt starts from zero
            if wrong or code >= 500:
                raise requests.HTTPError(told)
            if code == 200 and "html" not in answer.headers.get("Content-Type", ""):
                size, have = int(answer.headers.get("Content-Length", 0)), 0
                version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            elif code != 206:
                raise DownloadError(f"{public(url)}: {told}, not with an archive. Give its present address by `--url`.")
            with wrap_file(answer.raw, size - have, transient=True) as body, part.open("ab" if have else "wb") as file:
                note.write_text(json.dumps({"url": public(url), "size": size, "version": version}), encoding="utf-8")
                shutil.copyfileobj(body, file)
        if size and part.stat().st_size != size:
            raise requests.HTTPError("not as many bytes came as the server announced")
    except (requests.RequestException, HTTPError) as error:  # whose text may hold the whole address
        why = str(error) if type(error) is requests.HTTPError else f"no connection ({type(error).__name__})"
        if not waits:
            raise DownloadError(f"{public(url)}: {why}. Check the network, then rerun the command to resume.") from None
        print(f"{why}; trying again in {waits[0]} s")
        time.sleep(waits[0])
        _fetch(url, part, waits[1:])


def _unpack(archive: Path, folder: Path, shown: str, name: str | None = None) -> Path:
    """Unpack an archive and return the folder of the bundle in it, once that is checked."""
    try:
        with zipfile.ZipFile(archive) as packed:
            if sum(member.file_size for member in packed.infolist()) > MOST_BYTES:
                raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")
            for member in packed.infolist():
                path, is_link = member.filename, member.external_attr >> 28 == 0o12
                if is_link or path.startswith("/") or ".." in PurePosixPath(path).parts:
                    raise ValueError(f"{path!r} is a link or leads outside the folder")
                if not {"__MACOSX", ".DS_Store"} & set(PurePosixPath(path).parts):
                    packed.extract(member, folder)
    except Exception as error:  # nobody lists what zipfile and its codecs raise on damage
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno:
            raise
        raise BundleError(f"{shown}: cannot be unpacked ({first_line(error)}). Get it again from {SITE}.") from None
    bundle = min((file.parent for file in folder.rglob("*.parquet")), default=folder)  # a folder is before those in it
    try:
        check_bundle(name, bundle)
    except BundleError as error:
        raise BundleError(str(error).replace(str(bundle), shown)) from None
    return bundle
