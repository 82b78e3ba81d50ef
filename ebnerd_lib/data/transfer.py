"""Fetch one file over HTTP so that a cut costs nothing: what has come is kept, and the rest is asked for.

Beside the part lies which version of the server's file it belongs to. The rest is asked for with ``If-Range``
(RFC 9110, 13.1.5), so two versions are never glued together. Standard library only.
"""

import contextlib
import errno
import http.client
import json
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

from ebnerd_lib.errors import DownloadError, StorageError

ATTEMPTS = 5
"""How often to ask without a byte more coming, before giving up."""
WAIT_SECONDS = 1.0
"""Before the second attempt; each further wait is twice as long."""
SILENT_SECONDS = 60.0
"""How long a connection may say nothing."""
_CHUNK = 1 << 18
_AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_GOES_ON = "The same command goes on from there."

Progress = Callable[[int, int | None], None]
"""Is told the bytes that have come, and all that there are where the server said so."""


@dataclass(frozen=True)
class Version:
    """Which file of a server it is.

    Attributes:
        url: without what may be secret: a user, a password, a query.
        etag: the server's name of this version.
        modified: when the server's file was changed.
        size: bytes, ``None`` where the server does not say.
    """

    url: str
    etag: str | None
    modified: str | None
    size: int | None

    @property
    def validator(self) -> str | None:
        """What tells this version from another for certain, ``None`` where nothing does."""
        strong = self.etag if self.etag and not self.etag.startswith("W/") else None
        return strong or self.modified


class _CutError(Exception):
    """An attempt ended before the file did; another may get further."""


def fetch(
    url: str,
    part: Path,
    progress: Progress,
    say: Callable[[str], None] = print,
    check_room: Callable[[int, int], None] = lambda size, have: None,
) -> Version:
    """Fetch a file, going on from what is there of it.

    Args:
        url: http or https address.
        part: file to write, complete once this returns; its version is kept beside it, see ``version_file``.
        progress: see ``Progress``.
        say: is told why the file begins anew or an attempt ended.
        check_room: called with the file's size and the bytes there before anything is written; raises
            ``StorageError`` where the disk has no room for it.

    Returns:
        The version that was fetched.

    Raises:
        DownloadError: the address is none of http, the server refuses, or the connection was cut ``ATTEMPTS`` times
            without a byte more. What has come is kept.
        StorageError: the part cannot be written. What has come is kept.
    """
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise DownloadError(f"{public(url)}: not an http or https address. Name one.")
    failures = most = 0
    while True:
        try:
            return _attempt(url, part, progress, say, check_room)
        except _CutError as cut:
            have = size_of(part)
            failures = 1 if have > most else failures + 1
            most = max(most, have)
            if failures >= ATTEMPTS:
                raise DownloadError(
                    f"{public(url)}: {cut}, {ATTEMPTS} times; {have:,} bytes have come. {_GOES_ON}"
                ) from None
            wait = WAIT_SECONDS * 2 ** (failures - 1)
            say(f"{cut} after {have:,} bytes; trying again in {wait:g} s.")
            time.sleep(wait)


def version_file(part: Path) -> Path:
    """Return the file that says which version a part belongs to."""
    return part.with_name(f"{part.name}.json")


def read_version(part: Path) -> Version | None:
    """Return the version that a part belongs to; ``None`` where that is not known."""
    try:
        found = Version(**json.loads(version_file(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.size is None or type(found.size) is int else None


def size_of(part: Path) -> int:
    """Return the bytes of a part, 0 where there is none."""
    return part.stat().st_size if part.exists() else 0


def public(url: str) -> str:
    """Return an address without what may be secret in it.

    >>> public("https://me:word@example.org/a.zip?signature=1")
    'https://example.org/a.zip'
    """
    pieces = urlsplit(url)
    return urlunsplit((pieces.scheme, pieces.netloc.rpartition("@")[2], pieces.path, "", ""))


def _attempt(
    url: str, part: Path, progress: Progress, say: Callable[[str], None], check_room: Callable[[int, int], None]
) -> Version:
    """Ask once for what is missing. Raises ``_CutError`` where the file did not come to its end."""
    kept, have = read_version(part), size_of(part)
    if kept is not None and kept.url == public(url) and kept.size == have:
        return kept
    resumable = kept is not None and kept.url == public(url) and kept.validator is not None and have > 0
    headers = {"User-Agent": "ebnerd-lib", "Accept-Encoding": "identity"}
    if resumable and kept is not None:
        headers |= {"Range": f"bytes={have}-", "If-Range": str(kept.validator)}
    with _opened(url, headers, part) as answer:
        if resumable and kept is not None and _continues(answer, kept, have):
            version = kept
        elif answer.status == HTTPStatus.OK:
            if have:
                say("starting anew: the server cannot resume, or its file has changed.")
            version, have = _version_of(answer, url), 0
        else:
            _drop(part)
            raise _CutError(f"the server answered {answer.status} with another part than the one asked for")
        if version.size is not None:
            check_room(version.size, have)
        _keep(version, part, have)
        _copy(answer, part, have, version.size, progress)
    whole = replace(version, size=size_of(part))
    _keep(whole, part, size_of(part))
    return whole


@contextlib.contextmanager
def _opened(url: str, headers: dict[str, str], part: Path) -> Iterator[http.client.HTTPResponse]:
    """Open a connection and give the answer, of any status below 400."""
    try:
        answer = _opener().open(urllib.request.Request(url, headers=headers), timeout=SILENT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _drop(part)
            raise _CutError("the server's file is shorter than what was there, which was dropped") from None
        if error.code in _AGAIN or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _CutError(f"the server answered {error.code} {error.reason}") from None
        raise DownloadError(
            f"{public(url)}: the server answered {error.code} {error.reason}. "
            "See the data set's site for the present address and give it with `--url` or EBNERD_URL."
        ) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"{public(url)}: its certificate is not trusted ({error.reason.verify_message}). "
                "See that this machine's certificates and clock are right."
            ) from None
        raise _CutError(f"no connection ({getattr(error.reason, 'strerror', None) or error.reason})") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _CutError(f"no connection ({error or type(error).__name__})") from None
    with answer:
        yield answer


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone, and never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Return the request that follows; raises ``DownloadError`` where it would not be safe."""
        allowed = ("https",) if urlsplit(req.full_url).scheme == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            raise DownloadError(
                f"{public(req.full_url)}: leads on to {public(newurl)}, which is not safe. Name another."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(Redirects)


def _continues(answer: http.client.HTTPResponse, kept: Version, have: int) -> bool:
    """Say whether an answer is the rest of the version that is kept."""
    found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status != HTTPStatus.PARTIAL_CONTENT or found is None or int(found[1]) != have:
        return False
    same_size = kept.size is None or found[2] in ("*", str(kept.size))
    return same_size and answer.headers.get("ETag", kept.etag) == kept.etag


def _version_of(answer: http.client.HTTPResponse, url: str) -> Version:
    length = answer.headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else None
    return Version(public(url), answer.headers.get("ETag"), answer.headers.get("Last-Modified"), size)


def _keep(version: Version, part: Path, have: int) -> None:
    """Write which version follows, and drop bytes of another one first."""
    try:
        if not have:
            _drop(part)
        if read_version(part) != version:
            temporary = part.with_name(f".{part.name}.tmp")
            temporary.write_text(json.dumps(asdict(version)), encoding="utf-8")
            temporary.replace(version_file(part))
    except OSError as error:
        raise unwritable(part, error) from error


def _drop(part: Path) -> None:
    version_file(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def _copy(answer: http.client.HTTPResponse, part: Path, have: int, size: int | None, progress: Progress) -> None:
    """Append what comes to the part, byte by byte as it comes, so that a kill loses none."""
    with _appending(part) as stream:
        progress(have, size)
        while chunk := _read(answer):
            _append(stream, part, chunk)
            have += len(chunk)
            progress(have, size)
    if size is not None and have != size:
        if have > size:
            _drop(part)
        raise _CutError("the connection was cut" if have < size else "more came than the server had announced")


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(_CHUNK)
    except TimeoutError:
        raise _CutError(f"the connection was silent for {SILENT_SECONDS:g} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _CutError(
            f"the connection was cut ({getattr(error, 'strerror', None) or type(error).__name__})"
        ) from None


def _appending(part: Path) -> IO[bytes]:
    try:
        return part.open("ab", buffering=0)
    except OSError as error:
        raise unwritable(part, error) from error


def _append(stream: IO[bytes], part: Path, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        try:
            rest = rest[stream.write(rest) :]
        except OSError as error:
            raise unwritable(part, error) from error


def unwritable(part: Path, error: OSError) -> StorageError:
    """Return the message for a file that cannot be written; what is there of it stays."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = f"The disk is full ({shutil.disk_usage(part.parent).free:,} bytes free): free space"
    elif error.errno == errno.EFBIG:
        remedy = "A limit on the size of files is in force (`ulimit -f`): raise it"
    else:
        remedy = f"See that {part.parent} can be written"
    return StorageError(
        f"{part}: {error.strerror or os.strerror(error.errno or 0)} after {size_of(part):,} bytes. {remedy}, "
        "then run the same command again: it goes on from there."
    )
