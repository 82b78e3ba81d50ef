"""Fetching a bundle from a local server: cut, changed, wrong, silent, hostile, and with no room for it."""

import errno
import fcntl
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ebnerd_lib.__main__ import INTERRUPTED, main
from ebnerd_lib.data import archive as archives
from ebnerd_lib.data import schema, transfer
from ebnerd_lib.data.download import BUNDLES, ask_terms, download, pending, work_folder
from ebnerd_lib.data.layout import VECTORS
from ebnerd_lib.errors import BundleError, DownloadError, LicenceError, LockedError, StorageError
from ebnerd_lib.pipeline.paths import ROOT

NAME = "ebnerd_demo"
PIECE = 1 << 14
PATIENCE = 60  # seconds to wait for what must happen


class Server(ThreadingHTTPServer):
    """Serves one file, with the faults that a test asks for."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.etag: str | None = '"one"'
        self.modified: str | None = None
        self.cuts: list[int] = []  # bytes after which each of the next answers is cut; then they are whole
        self.instead: list[tuple[int, dict[str, str]]] = []  # statuses and headers of the next answers
        self.wrong_part = False  # whether a part begins a byte too early, and is as long as the one asked for
        self.hold_after: int | None = None  # bytes after which an answer waits for ``release``
        self.release = threading.Event()
        self.asked: list[tuple[str, str | None]] = []  # path and Range of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:  # clients are killed here
        pass


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        size = len(server.content)
        if server.instead:
            status, headers = server.instead.pop(0)
            return self.answer(status, **headers)
        body, validators = server.content, {"ETag": server.etag, "Last-Modified": server.modified}
        if not wanted or self.headers.get("If-Range") not in validators.values():
            self.answer(200, len(body), **validators)
            return self.send(body)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= size:
            return self.answer(416)
        body = body[start - 1 : -1] if server.wrong_part else body[start:]
        span = {"Content-Range": f"bytes {start - server.wrong_part}-{size - 1}/{size}"}
        self.answer(206, len(body), **span, **validators)
        return self.send(body)

    def answer(self, status: int, length: int = 0, **headers: str | None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def send(self, body: bytes) -> None:
        server = self.server
        cut = server.cuts.pop(0) if server.cuts else len(body)
        for place in range(0, cut, PIECE):
            if server.hold_after is not None and place >= server.hold_after:
                server.release.wait(PATIENCE)
            self.wfile.write(body[place : min(place + PIECE, cut)])

    def log_message(self, *words) -> None:
        pass


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[[bytes], Server]]:
    """A function that serves a file and returns its server."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(transfer, "WAIT_SECONDS", 0.01)
    servers = []

    def start(content: bytes) -> Server:
        servers.append(Server(content))
        threading.Thread(target=servers[-1].serve_forever, args=(0.02,), daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.release.set()
        server.shutdown()
        server.server_close()


def packed(folder: Path, around: str = "") -> bytes:
    """Zip the tables below a folder, in a folder of their own if one is named."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.parquet")):
            archive.write(file, around + file.relative_to(folder).as_posix())
    return stream.getvalue()


@pytest.fixture(scope="module")
def bundle(tiny_path, tmp_path_factory) -> Path:
    """The tiny bundle with article vectors of noise, so that its archive has more than 200 kB."""
    folder = tmp_path_factory.mktemp("served") / "bundle"
    shutil.copytree(tiny_path, folder)
    noise = np.random.default_rng(0).random((200, 300), np.float32)
    ids = pa.array(range(1_001, 1_201), pa.int32())
    pq.write_table(pa.table({"article_id": ids, "vector": list(noise)}), folder / VECTORS)
    return folder


@pytest.fixture
def server(serve, bundle) -> Server:
    return serve(packed(bundle))


def get(server: Server, out: Path, name: str = NAME, **options) -> Path:
    return download(name, out, lambda: True, server.url, **options)


def command(server: Server, out: Path) -> list[str]:
    words = [sys.executable, "-m", "ebnerd_lib", "download", "--bundle", NAME, "--url", server.url]
    return [*words, "--accept-license", "--out", str(out)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_whole(folder: Path, bundle: Path) -> None:
    """See that a folder holds the bundle's files and the record, and nothing lies beside it."""
    found = files(folder)
    found.pop("downloaded.json")
    assert found == files(bundle)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_bundle_is_fetched_checked_unpacked_and_recorded_without_secrets(server, bundle, tmp_path, capsys):
    secret, good = "5b1f7c2e90d34", hashlib.sha256(server.content).hexdigest()
    address = f"{server.url}/mine.zip?signature={secret}"
    folder = download(NAME, tmp_path / "data", lambda: True, address, sha256=good.upper())
    assert_whole(folder, bundle)
    record = json.loads((folder / "downloaded.json").read_text())
    assert record["sha256"] == good and record["sha256_checked"] is True
    assert (record["url"], record["size"]) == (f"{server.url}/mine.zip", len(server.content))
    assert server.asked == [(f"/mine.zip?signature={secret}", None)]
    told = capsys.readouterr().out
    assert secret not in told and "24,724" in told, "the rows of the published bundle, which this is not"


def test_a_cut_is_resumed_without_fetching_twice_and_given_up_where_it_stays(server, bundle, tmp_path):
    server.cuts = [100_000, 50_000, 1] + [0] * transfer.ATTEMPTS
    with pytest.raises(DownloadError, match="150,001"):
        get(server, tmp_path / "data")
    assert [part for _, part in server.asked[:4]] == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]
    assert not (tmp_path / "data" / NAME).exists()
    assert pending(tmp_path / "data") == {NAME: (150_001, len(server.content))}
    server.cuts = []
    assert_whole(get(server, tmp_path / "data"), bundle)
    assert server.asked[-1][1] == "bytes=150001-"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_download_that_is_stopped_resumes(server, bundle, tmp_path, number):
    out, server.hold_after = tmp_path / "data", 4 * PIECE  # it cannot be over before the signal comes
    process = subprocess.Popen(
        command(server, out), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while pending(out).get(NAME, (0, 0))[0] < 4 * PIECE:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    server.release.set()
    assert process.returncode == (INTERRUPTED if number == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors
    assert pending(out) == {NAME: (4 * PIECE, len(server.content))} and not (out / NAME).exists()
    (work_folder(out / NAME) / "bundle" / "train").mkdir(parents=True)  # as a kill while unpacking leaves it
    assert_whole(get(server, out), bundle)
    assert server.asked[-1] == ("/ebnerd_demo.zip", f"bytes={4 * PIECE}-")


@pytest.mark.parametrize("how", ["another etag", "another date", "no validator", "a wrong part", "shorter"])
def test_parts_of_two_versions_are_never_glued(serve, bundle, tmp_path, how):
    whole = packed(bundle)
    server = serve(bytes(len(whole) + 100_000))
    if how in ("another date", "no validator"):
        server.etag = None
        server.modified = "Mon, 01 May 2023 00:00:00 GMT" if how == "another date" else None
    server.cuts = [len(whole) + 10 if how == "shorter" else 60_000] + [0] * transfer.ATTEMPTS
    with pytest.raises(DownloadError):
        get(server, tmp_path)
    server.cuts, server.content, server.wrong_part = [], whole, how == "a wrong part"
    if how == "another etag":
        server.etag = '"two"'
    if how == "another date":
        server.modified = "Tue, 02 May 2023 00:00:00 GMT"
    assert_whole(get(server, tmp_path), bundle)


def test_a_busy_server_is_asked_again_and_one_that_refuses_is_not(server, bundle, tmp_path):
    server.instead = [(503, {}), (500, {}), (429, {})]
    assert_whole(get(server, tmp_path / "a"), bundle)
    server.instead, server.asked = [(404, {})], []
    with pytest.raises(DownloadError, match=r"404 .*EBNERD_URL"):
        get(server, tmp_path / "b")
    assert len(server.asked) == 1 and not (tmp_path / "b" / NAME).exists()


def test_no_server_and_a_silent_one_are_given_up(server, tmp_path, monkeypatch):
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9"):
        download(NAME, tmp_path, lambda: True, "http://127.0.0.1:9")
    monkeypatch.setattr(transfer, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    server.hold_after = 0
    with pytest.raises(DownloadError, match=server.url):
        get(server, tmp_path)


def test_only_http_addresses_are_taken_and_redirects_followed(server, serve, bundle, tmp_path):
    other = serve(b"")
    other.instead = [(302, {"Location": f"{server.url}/moved.zip"})] * 2
    server.cuts = [10_000]
    assert_whole(get(other, tmp_path / "data"), bundle)
    assert server.asked == [("/moved.zip", None), ("/moved.zip", "bytes=10000-")]
    for address in ("file:///etc/hosts", "ftp://127.0.0.1/a.zip", "http:///a.zip"):
        other.instead = [(302, {"Location": address})] * transfer.ATTEMPTS
        for url in (address, f"{other.url}/a.zip"):
            with pytest.raises(DownloadError):
                transfer.fetch(url, tmp_path / "a", lambda done, total: None)
    asked = urllib.request.Request("https://a/x")
    with pytest.raises(DownloadError, match="http://b/x"):
        transfer.Redirects().redirect_request(asked, None, 302, "Found", {}, "http://b/x")


def test_wrong_archives_and_names_leave_nothing(serve, bundle, tmp_path):
    part, odd = shutil.copytree(bundle, tmp_path / "part"), shutil.copytree(bundle, tmp_path / "odd")
    (part / "train" / "history.parquet").unlink()
    pq.write_table(pa.table({"article_id": [1]}), odd / "articles.parquet")
    for content, options, kind, named in [
        (b"<html>log in</html>", {}, BundleError, "zip"),
        (packed(part), {}, BundleError, "train/history.parquet"),
        (packed(odd), {}, BundleError, "articles.parquet"),
        (packed(bundle), {"sha256": "0" * 64}, DownloadError, "0" * 64),
        (packed(bundle), {"sha256": "abc"}, DownloadError, "abc"),
        (packed(bundle), {"name": "ebnerd_testset"}, BundleError, "test/behaviors.parquet"),
        (packed(bundle), {"name": "ebnerd_tiny"}, DownloadError, "ebnerd_tiny"),
    ]:
        with pytest.raises(kind) as error:
            get(serve(content), tmp_path / "data", **options)
        assert named in str(error.value) and str(tmp_path) not in str(error.value)
        assert not (tmp_path / "data").exists() or not any((tmp_path / "data").iterdir())


def test_a_bundle_that_is_there_is_left_as_it_is(server, bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / NAME)
    before = files(folder)
    assert download(NAME, tmp_path, lambda: pytest.fail("asked for the terms"), server.url) == folder
    (folder / "articles.parquet").unlink()
    with pytest.raises(BundleError, match=r"articles\.parquet"):
        get(server, tmp_path)
    del before["articles.parquet"]
    assert files(folder) == before and not server.asked


def test_two_downloads_of_a_bundle_do_not_meet(server, tmp_path):
    work = work_folder(tmp_path / NAME)
    work.mkdir()
    holder = os.open(work, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(LockedError, match=NAME):
        get(server, tmp_path)
    os.close(holder)
    assert not server.asked


def test_a_limit_on_the_size_of_files_keeps_what_came(server, bundle, tmp_path):
    done = subprocess.run(
        command(server, tmp_path), cwd=ROOT, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000)),
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("StorageError: ") and done.stderr.count("\n") == 1
    assert "ulimit" in done.stderr and pending(tmp_path) == {NAME: (90_000, len(server.content))}
    assert_whole(get(server, tmp_path), bundle)
    assert server.asked[-1] == ("/ebnerd_demo.zip", "bytes=90000-")


def test_a_full_disk_is_told_beforehand_or_keeps_the_archive(server, bundle, tmp_path, monkeypatch):
    def fill(source, stream, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    size = len(server.content)
    usage = shutil.disk_usage(tmp_path)._replace(free=2 * size)
    for owner, name, value, kept in (
        (shutil, "disk_usage", lambda path: usage, {}),
        (archives.shutil, "copyfileobj", fill, {NAME: (size, size)}),
    ):
        with monkeypatch.context() as patch, pytest.raises(StorageError, match=str(tmp_path)):
            patch.setattr(owner, name, value)
            get(server, tmp_path)
        assert pending(tmp_path) == kept and not (tmp_path / NAME).exists()
    assert_whole(get(server, tmp_path), bundle)
    assert len(server.asked) == 2, "the archive is not fetched again"


def test_only_yes_is_yes_and_a_refusal_writes_nothing(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    for answers, accepted in ((["no"], False), (["", "maybe", " YES "], True)):
        assert ask_terms(NAME, False, lambda question, left=answers: left.pop(0)) is accepted and not answers
    with pytest.raises(LicenceError, match=r"recsys\.eb\.dk"):
        download(NAME, tmp_path / "data", lambda: False, server.url)
    assert not server.asked and not any(tmp_path.iterdir())


def test_without_a_terminal_the_terms_must_be_accepted_beforehand(server, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setenv("EBNERD_URL", server.url)
    words = ["download", "--bundle", NAME, "--out", str(tmp_path / "data")]
    for accepted in ("", "no"):
        monkeypatch.setenv("ACCEPT_LICENSE", accepted)
        assert main(words) == 1 and "ACCEPT_LICENSE=yes" in capsys.readouterr().err
    assert not server.asked and not any(tmp_path.iterdir())
    monkeypatch.setenv("ACCEPT_LICENSE", "yes")
    assert main(words) == 0
    assert_whole(tmp_path / "data" / NAME, bundle)


def test_the_test_set_and_article_vectors_come_out_of_the_folder_around_them(serve, bundle, tmp_path):
    testset, vectors = tmp_path / "testset", tmp_path / "vectors"
    (testset / "test").mkdir(parents=True)
    tables = {"articles": schema.ARTICLES, "test/behaviors": schema.TEST_BEHAVIORS, "test/history": schema.HISTORY}
    for name, columns in tables.items():
        pq.write_table(schema.arrow_schema(columns).empty_table(), testset / f"{name}.parquet")
    vectors.mkdir()
    shutil.copy(bundle / VECTORS, vectors)
    for folder, name in ((testset, "ebnerd_testset"), (vectors, "ebnerd_vectors")):
        assert_whole(get(serve(packed(folder, "around/")), tmp_path / f"{name}-data", name), folder)


def test_every_profile_of_ebnerd_has_a_bundle_to_fetch():
    assert {path.name for path in (ROOT / "params").glob("ebnerd_*")} <= set(BUNDLES)
