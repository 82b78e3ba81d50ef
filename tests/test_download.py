"""Fetching a bundle from a local server: cut, changed, wrong, slow, lost, hostile, and with no room for it."""

import fcntl
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ebnerd_lib.__main__ import main
from ebnerd_lib.data import download as downloads
from ebnerd_lib.data import meter, transfer
from ebnerd_lib.data.download import BUNDLES, ask_terms, download, next_command, pending
from ebnerd_lib.data.layout import VECTORS
from ebnerd_lib.errors import BundleError, DownloadError, LicenceError, LockedError, StorageError
from ebnerd_lib.pipeline.layout import ROOT
from ebnerd_lib.sample import generate_test

NAME = "ebnerd_demo"


class Server(ThreadingHTTPServer):
    """Serves one file, with the faults that a test asks for.

    Attributes:
        content: the file.
        etag, modified: its validators, none where ``None``.
        ranges: whether parts can be asked for.
        lengths: whether the size is told.
        cuts: bytes after which each of the next answers is cut; then they are whole.
        statuses: of the next answers instead of a file.
        wrong_part: whether a part begins a byte too early, and is as long as the one that was asked for.
        pause: seconds between pieces of 16 kB.
        asked: path and Range of each request.
        sent: bytes of content that left.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.modified = content, '"one"', None
        self.ranges, self.lengths, self.pause = True, True, 0.0
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.redirect: str | None = None
        self.wrong_part = False
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address) -> None:  # clients are killed here
        pass


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        self.close_connection = True
        if server.statuses:
            return self.answer(server.statuses.pop(0), {"Content-Length": "0"})
        if server.redirect:
            return self.answer(302, {"Location": server.redirect, "Content-Length": "0"})
        start, status, headers = 0, 200, {}
        same = self.headers.get("If-Range") in (None, server.etag, server.modified)
        if wanted and server.ranges and same:
            start, status = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
            if start >= len(server.content):
                return self.answer(416, {"Content-Range": f"bytes */{len(server.content)}", "Content-Length": "0"})
            start -= server.wrong_part
            headers["Content-Range"] = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
        body = server.content[start:-1] if status == 206 and server.wrong_part else server.content[start:]
        headers |= {"Content-Length": str(len(body))} if server.lengths else {}
        headers |= {"ETag": server.etag} if server.etag else {}
        headers |= {"Last-Modified": server.modified} if server.modified else {}
        self.answer(status, headers)
        for place in range(0, len(body), 1 << 14):
            piece = body[place : place + (1 << 14)]
            if server.cuts:
                piece = piece[: server.cuts[0] - place]
            time.sleep(server.pause)
            self.wfile.write(piece)
            server.sent += len(piece)
            if server.cuts and place + len(piece) >= server.cuts[0]:
                server.cuts.pop(0)
                return None
        return None

    def answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *words) -> None:
        pass


@pytest.fixture
def serve(monkeypatch) -> Iterator:
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
        server.shutdown()
        server.server_close()


def packed(folder: Path, around: str = "", **more: bytes) -> bytes:
    """Zip a folder, the files in a folder of their own as those of the test set are."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.parquet")):
            archive.write(file, around + file.relative_to(folder).as_posix())
        for name, content in more.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture(scope="session")
def archive(smoke_bundle) -> bytes:
    return packed(smoke_bundle)


@pytest.fixture
def server(serve, archive) -> Server:
    return serve(archive)


def yes() -> bool:
    return True


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_whole(folder: Path, bundle: Path) -> None:
    """See that a folder holds the bundle's files, and nothing lies beside it."""
    found, wanted = files(folder), files(bundle)
    assert {name: found[name] for name in wanted if name != "generated.json"} == {
        name: content for name, content in wanted.items() if name != "generated.json"
    }
    assert set(found) - set(wanted) == {"downloaded.json"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_bundle_is_fetched_checked_unpacked_and_recorded(server, archive, smoke_bundle, tmp_path, capsys):
    folder = download(NAME, tmp_path / "data", yes, server.url)
    assert_whole(folder, smoke_bundle)
    record = json.loads((folder / "downloaded.json").read_text())
    found = hashlib.sha256(archive).hexdigest()
    assert record["sha256"] == found and record["size"] == len(archive) and record["etag"] == '"one"'
    assert record["url"] == f"{server.url}/ebnerd_demo.zip" and record["sha256_checked"] is False
    told = capsys.readouterr().out
    assert f"sha256 {found} (not checked: none published)" in told
    assert "train/behaviors.parquet has" in told and "that was published has 24,724" in told
    assert server.asked == [("/ebnerd_demo.zip", None)]


def test_a_cut_is_resumed_without_fetching_twice(server, archive, smoke_bundle, tmp_path, capsys):
    server.cuts = [100_000, 50_000, 1]
    folder = download(NAME, tmp_path / "data", yes, server.url)
    assert_whole(folder, smoke_bundle)
    assert [asked for _, asked in server.asked] == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]
    assert server.sent == len(archive)
    assert "the connection was cut after 150,000 bytes" in capsys.readouterr().out


def test_a_connection_that_stays_cut_is_given_up_and_the_same_command_goes_on(server, archive, smoke_bundle, tmp_path):
    server.cuts = [70_000] + [0] * transfer.ATTEMPTS
    with pytest.raises(DownloadError, match=r"70,000 bytes have come\. The same command goes on from there"):
        download(NAME, tmp_path / "data", yes, server.url)
    assert not (tmp_path / "data" / NAME).exists()
    assert pending(tmp_path / "data") == {NAME: (70_000, len(archive))}
    server.cuts = []
    assert_whole(download(NAME, tmp_path / "data", yes, server.url), smoke_bundle)
    assert server.sent == len(archive)


def test_a_killed_download_goes_on(server, archive, smoke_bundle, tmp_path):
    server.pause = 0.02
    words = [sys.executable, "-m", "ebnerd_lib", "download", "--bundle", NAME, "--url", server.url, "--accept-license"]
    process = subprocess.Popen([*words, "--out", str(tmp_path / "data")], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while not (have := pending(tmp_path / "data").get(NAME, (0, 0))[0]):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    have = pending(tmp_path / "data")[NAME][0]
    assert 0 < have < len(archive) and not (tmp_path / "data" / NAME).exists()
    server.pause = 0.0
    assert_whole(download(NAME, tmp_path / "data", yes, server.url), smoke_bundle)
    assert server.asked[-1] == ("/ebnerd_demo.zip", f"bytes={have}-")


def test_an_interrupted_download_says_that_it_goes_on(server, tmp_path):
    server.pause = 0.02
    words = [sys.executable, "-m", "ebnerd_lib", "download", "--bundle", NAME, "--url", server.url, "--accept-license"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*words, "--out", str(tmp_path / "data")], cwd=ROOT, **pipes)
    while not pending(tmp_path / "data").get(NAME, (0, 0))[0]:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(2)
    _, told = process.communicate()
    assert process.returncode == 130 and "Traceback" not in told
    assert "What has come is kept: the same command goes on from there." in told


@pytest.mark.parametrize("how", ["another etag", "another date", "no ranges", "no validator", "a wrong part"])
def test_parts_of_two_versions_are_never_glued(serve, archive, smoke_bundle, tmp_path, how):
    old = bytes(len(archive))
    server = serve(old)
    if how == "another date":
        server.etag, server.modified = None, "Mon, 01 May 2023 00:00:00 GMT"
    if how == "no validator":
        server.etag = None
    server.cuts = [60_000] + [0] * transfer.ATTEMPTS
    with pytest.raises(DownloadError):
        download(NAME, tmp_path, yes, server.url)
    server.cuts, server.content = [], archive
    match how:
        case "another etag":
            server.etag = '"two"'
        case "another date":
            server.modified = "Tue, 02 May 2023 00:00:00 GMT"
        case "no ranges":
            server.ranges = False
        case "a wrong part":
            server.wrong_part = True
    assert_whole(download(NAME, tmp_path, yes, server.url), smoke_bundle)


def test_a_file_that_changes_between_two_attempts_is_fetched_anew(server, archive, smoke_bundle, tmp_path, capsys):
    server.content = bytes(len(archive) + 7)
    server.cuts = [60_000]

    def change(line: str) -> None:
        if "trying again" in line:
            server.content, server.etag = archive, '"two"'

    part = tmp_path / "a"
    version = transfer.fetch(f"{server.url}/x.zip", part, lambda done, total: None, change)
    assert part.read_bytes() == archive and version.etag == '"two"' and version.size == len(archive)


def test_a_file_that_became_shorter_is_fetched_anew(serve, archive, smoke_bundle, tmp_path):
    server = serve(archive + bytes(100_000))
    server.cuts = [len(archive) + 10] + [0] * transfer.ATTEMPTS
    with pytest.raises(DownloadError):
        download(NAME, tmp_path, yes, server.url)
    server.content, server.cuts = archive, []
    assert_whole(download(NAME, tmp_path, yes, server.url), smoke_bundle)


def test_a_server_that_tells_no_size_is_read_to_its_end(server, smoke_bundle, tmp_path):
    server.lengths = False
    assert_whole(download(NAME, tmp_path, yes, server.url), smoke_bundle)


def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not(server, smoke_bundle, tmp_path):
    server.statuses = [503, 500, 429]
    assert_whole(download(NAME, tmp_path / "a", yes, server.url), smoke_bundle)
    for status in (404, 403, 410):
        server.statuses, server.asked = [status], []
        with pytest.raises(DownloadError, match=rf"answered {status} .*`--url` or EBNERD_URL"):
            download(NAME, tmp_path / "b", yes, server.url)
        assert len(server.asked) == 1
    assert not (tmp_path / "b" / NAME).exists()


def test_no_server_is_told(tmp_path, monkeypatch, serve):
    with pytest.raises(DownloadError, match=r"no connection \(Connection refused\), 5 times; 0 bytes have come"):
        download(NAME, tmp_path, yes, "http://127.0.0.1:9")


def test_a_silent_server_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(transfer, "ATTEMPTS", 2)
    server.pause = 1.0
    with pytest.raises(DownloadError, match=r"the connection was silent for 0\.05 s, 2 times"):
        transfer.fetch(f"{server.url}/a.zip", tmp_path / "a", lambda done, total: None)


@pytest.mark.parametrize("url", ["file:///etc/hosts", "ftp://127.0.0.1/a.zip", "a.zip", "http:///a.zip"])
def test_only_http_addresses_are_taken(url, tmp_path):
    with pytest.raises(DownloadError, match="not an http or https address"):
        transfer.fetch(url, tmp_path / "a", lambda done, total: None)


def test_redirects_are_followed_to_http_alone(server, serve, archive, smoke_bundle, tmp_path):
    other = serve(b"")
    other.redirect = f"{server.url}/moved.zip"
    server.cuts = [10_000]
    assert_whole(download(NAME, tmp_path, yes, other.url), smoke_bundle)
    assert server.asked == [("/moved.zip", None), ("/moved.zip", "bytes=10000-")]
    for target in ("file:///etc/hosts", "ftp://127.0.0.1/a.zip"):
        other.redirect = target
        with pytest.raises(DownloadError, match=r"is not allowed|which is not safe"):
            transfer.fetch(f"{other.url}/a.zip", tmp_path / "a", lambda done, total: None)
    with pytest.raises(DownloadError, match="leads on to http://b/x, which is not safe"):
        asked = urllib.request.Request("https://a/x")
        transfer.Redirects().redirect_request(asked, None, 302, "Found", {}, "http://b/x?signature=1")


def test_the_sum_is_checked_and_a_wrong_file_is_dropped(server, archive, smoke_bundle, tmp_path):
    good = hashlib.sha256(archive).hexdigest()
    with pytest.raises(DownloadError, match=f"sha256 is {good} instead of {'0' * 64}"):
        download(NAME, tmp_path, yes, server.url, sha256="0" * 64)
    assert not any(tmp_path.iterdir())
    with pytest.raises(DownloadError, match="not a sha256 sum"):
        download(NAME, tmp_path, yes, server.url, sha256="abc")
    folder = download(NAME, tmp_path, yes, server.url, sha256=good.upper())
    assert_whole(folder, smoke_bundle)
    assert json.loads((folder / "downloaded.json").read_text())["sha256_checked"] is True


def test_hostile_wrong_and_incomplete_archives_leave_nothing(serve, smoke_bundle, tmp_path):
    part = tmp_path / "part"
    shutil.copytree(smoke_bundle, part)
    (part / "train" / "history.parquet").unlink()
    odd = tmp_path / "odd"
    shutil.copytree(smoke_bundle, odd)
    pq.write_table(pa.table({"article_id": [1]}), odd / "articles.parquet")
    for content, reason in [
        (packed(smoke_bundle, **{"../evil": b"x"}), "lies outside the folder"),
        (b"<html>log in</html>", "damaged, or no zip or tar archive"),
        (packed(part), "1 files missing: train/history.parquet"),
        (packed(odd), "20 of 21 columns missing"),
        (packed(smoke_bundle)[:-5_000], "damaged"),
    ]:
        server = serve(content)
        with pytest.raises(BundleError, match=reason) as error:
            download(NAME, tmp_path / "data", yes, server.url)
        assert "What was fetched has been removed" in str(error.value) and str(tmp_path) not in str(error.value)
        assert not any((tmp_path / "data").iterdir())
    assert not (tmp_path / "evil").exists()


def test_a_bundle_that_is_there_is_left_as_it_is(server, smoke_bundle, tmp_path, capsys):
    folder = tmp_path / NAME
    shutil.copytree(smoke_bundle, folder)
    before = files(folder)

    def refuse() -> bool:
        raise AssertionError("the terms were asked for a bundle that is there")

    assert download(NAME, tmp_path, refuse, server.url) == folder
    assert "already there and whole" in capsys.readouterr().out
    (folder / "articles.parquet").unlink()
    with pytest.raises(BundleError, match=r"1 files missing: articles\.parquet.*overwrites nothing"):
        download(NAME, tmp_path, yes, server.url)
    del before["articles.parquet"]
    assert files(folder) == before and not server.asked


def test_what_is_in_the_way_is_told_and_an_empty_folder_filled(server, smoke_bundle, tmp_path):
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / NAME).write_text("mine")
    with pytest.raises(BundleError, match="is in the way"):
        download(NAME, tmp_path / "file", yes, server.url)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / NAME).symlink_to(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="is in the way"):
        download(NAME, tmp_path / "link", yes, server.url)
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match="is a folder that can be written"):
        download(NAME, tmp_path / "out", yes, server.url)
    assert not server.asked
    (tmp_path / "empty" / NAME).mkdir(parents=True)
    assert_whole(download(NAME, tmp_path / "empty", yes, server.url), smoke_bundle)


def test_two_downloads_of_a_bundle_do_not_meet(server, tmp_path):
    work = downloads.work_folder(tmp_path / NAME)
    work.mkdir()
    holder = os.open(work, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(LockedError, match="another process fetches ebnerd_demo"):
        download(NAME, tmp_path, yes, server.url)
    os.close(holder)
    assert not server.asked


def test_what_a_kill_left_half_unpacked_is_cleared(server, smoke_bundle, tmp_path):
    half = downloads.work_folder(tmp_path / NAME) / "bundle" / "train"
    half.mkdir(parents=True)
    (half / "behaviors.parquet").write_bytes(b"half")
    assert_whole(download(NAME, tmp_path, yes, server.url), smoke_bundle)


# ----- the disk


def test_too_little_space_is_told_before_anything_is_written(server, archive, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * len(archive)))
    with pytest.raises(StorageError, match=r"free, and the archive of .* needs about .* more with what it unpacks to"):
        download(NAME, tmp_path, yes, server.url)
    assert pending(tmp_path) == {}
    monkeypatch.undo()


def test_a_limit_on_files_is_told_and_the_part_goes_on(server, archive, smoke_bundle, tmp_path):
    words = [sys.executable, "-m", "ebnerd_lib", "download", "--bundle", NAME, "--url", server.url, "--accept-license"]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000))

    done = subprocess.run(
        [*words, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, preexec_fn=limited
    )
    assert done.returncode == 1 and done.stderr.startswith("StorageError: ") and done.stderr.count("\n") == 1
    assert "after 90,000 bytes" in done.stderr and "`ulimit -f`" in done.stderr
    assert "run the same command again: it goes on from there" in done.stderr
    assert pending(tmp_path) == {NAME: (90_000, len(archive))}
    assert_whole(download(NAME, tmp_path, yes, server.url), smoke_bundle)
    assert server.asked[-1] == ("/ebnerd_demo.zip", "bytes=90000-")


def test_a_disk_that_fills_keeps_what_came_and_goes_on(server, archive, smoke_bundle, tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(data)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk, and not everywhere")
    try:
        with monkeypatch.context() as patch:  # the space goes while the file comes
            patch.setattr(downloads, "_check_room", lambda work, size, have: None)
            with pytest.raises(StorageError, match=r"The disk is full \(\d[\d,]* bytes free\): free space, then run"):
                download(NAME, data, yes, server.url)
        have, size = pending(data)[NAME]
        assert 0 < have < size == len(archive)
        # now room for the archive, not for what it unpacks to
        resized = ["mount", "-o", f"remount,size={len(archive) + 200_000}", str(data)]
        subprocess.run(resized, check=True)
        with monkeypatch.context() as patch:
            patch.setattr(downloads, "_check_room", lambda work, size, have: None)
            with pytest.raises(StorageError, match=r"The archive is kept: the same command goes on from it"):
                download(NAME, data, yes, server.url)
        assert pending(data) == {NAME: (len(archive), len(archive))} and not (data / NAME).exists()
        subprocess.run(["mount", "-o", "remount,size=32m", str(data)], check=True)
        server.asked.clear()
        assert_whole(download(NAME, data, yes, server.url), smoke_bundle)
        assert not server.asked
    finally:
        subprocess.run(["umount", "--lazy", str(data)], check=True)


# ----- the terms


def test_the_terms_are_shown_and_a_refusal_writes_nothing(server, tmp_path):
    with pytest.raises(LicenceError, match=r"Read them at https://recsys\.eb\.dk/"):
        download(NAME, tmp_path / "data", lambda: False, server.url)
    assert not server.asked and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("answers", "accepted"), [(["yes"], True), (["no"], False), (["", "maybe", " YES "], True), (["ok", "No"], False)]
)
def test_only_yes_is_yes(answers, accepted, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    given = list(answers)
    assert ask_terms(NAME, False, lambda question: given.pop(0)) is accepted
    assert not given and "https://recsys.eb.dk/" in capsys.readouterr().out


def test_an_answer_on_a_terminal_is_heard(server, tmp_path, smoke_bundle):
    """A real terminal: no is refused with code 1, yes fetches with a bar, end of input is no."""
    for typed, code in (("no\n", 1), ("\x04", 1), ("what\nyes\n", 0)):
        done, told = on_a_terminal(typed, server.url, tmp_path / "data")
        assert done == code, told
        assert "do you accept them? [yes/no]" in told
        if code:
            assert "LicenceError: ebnerd_demo: the terms were not accepted" in told and not server.asked
            assert not (tmp_path / "data").exists()
    assert "━" in told and "MB" in told  # a bar
    assert "next: make run-all PROFILE=ebnerd_demo" in told
    assert_whole(tmp_path / "data" / NAME, smoke_bundle)


def on_a_terminal(typed: str, url: str, out: Path) -> tuple[int, str]:
    """Run the verb on a terminal of its own, type a text, return the exit code and what was shown."""
    import pty

    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "ebnerd_lib", "download", "--bundle", NAME, "--url", url, "--out", str(out)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(words, cwd=ROOT, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    os.write(leader, typed.encode())
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # how Linux tells that the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    return process.wait(), shown.decode()


def test_nobody_to_ask_is_a_refusal_with_the_remedy_unless_accepted_beforehand(server, smoke_bundle, tmp_path):
    words = ["make", "data", f"BUNDLE={NAME}", f"PYTHON={sys.executable}"]
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    for name in ("ebnerd_lib", "params"):
        (project / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "Makefile", project)
    environment = {**os.environ, "EBNERD_URL": server.url}
    pipes = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "env": environment, "cwd": project}
    done = subprocess.run(words, **pipes)
    assert done.returncode == 2 and "`make data BUNDLE=ebnerd_demo ACCEPT_LICENSE=yes`" in done.stderr
    done = subprocess.run([*words, "ACCEPT_LICENSE=no"], **pipes)
    assert done.returncode == 2 and "https://recsys.eb.dk/" in done.stdout
    assert not any((project / "data").iterdir()) and not server.asked
    done = subprocess.run([*words, "ACCEPT_LICENSE=yes"], **pipes)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("next: make run-all PROFILE=ebnerd_demo\n") and "\x1b" not in done.stdout
    assert_whole(project / "data" / NAME, smoke_bundle)


# ----- the other archives


def test_the_test_set_comes_out_of_the_folder_around_it(serve, tmp_path, capsys):
    generate_test(tmp_path / "made", seed=0, size="smoke")
    junk = {"__MACOSX/._ebnerd_testset": b"x", "ebnerd_testset/.DS_Store": b"x"}
    server = serve(packed(tmp_path / "made", "ebnerd_testset/", **junk))
    folder = download("ebnerd_testset", tmp_path / "data", yes, server.url)
    assert_whole(folder, tmp_path / "made")
    assert server.asked == [("/ebnerd_testset.zip", None)]
    assert next_command("ebnerd_testset", folder).startswith("python -m ebnerd_lib submit --profile ebnerd_large")


def test_a_bundle_in_the_place_of_the_test_set_is_refused(server, tmp_path):
    with pytest.raises(BundleError, match=r"test/behaviors\.parquet, test/history\.parquet"):
        download("ebnerd_testset", tmp_path, yes, server.url)


def test_article_vectors_are_fetched_for_bundles_to_share(serve, smoke_bundle, tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    shutil.copy(smoke_bundle / VECTORS, made)
    server = serve(packed(made, "Ekstra_Bladet_contrastive_vector/"))
    folder = download("ebnerd_vectors", tmp_path / "data", yes, server.url)
    assert files(folder).keys() == {VECTORS, "downloaded.json"}
    assert server.asked == [("/artifacts/Ekstra_Bladet_contrastive_vector.zip", None)]
    wrong = np.array([[1.0, np.inf]], np.float32)
    pq.write_table(pa.table({"article_id": pa.array([1], pa.int32()), "v": list(wrong)}), made / VECTORS)
    other = serve(packed(made, "x/"))
    with pytest.raises(BundleError, match="not finite"):
        download("ebnerd_vectors", tmp_path / "other", yes, other.url)


def test_every_profile_of_ebnerd_has_a_bundle_to_fetch():
    real = {path.name for path in (ROOT / "params").glob("ebnerd_*")}
    assert real and real <= set(BUNDLES)
    assert all(
        table.split("/")[0] in ("articles", "train", "validation", "test") for b in BUNDLES.values() for table in b.rows
    )


# ----- what is shown


def test_secrets_in_an_address_are_neither_shown_nor_recorded(server, tmp_path, capsys):
    secret = "5b1f7c2e90d34"
    url = f"{server.url}/mine.zip?signature={secret}"
    server.cuts = [50_000]
    folder = download(NAME, tmp_path, yes, url)
    assert server.asked[0] == (f"/mine.zip?signature={secret}", None) and len(server.asked) == 2
    server.statuses = [404]
    shutil.rmtree(folder)
    with pytest.raises(DownloadError) as error:
        download(NAME, tmp_path, yes, url)
    assert secret not in capsys.readouterr().out + str(error.value)


def test_without_a_terminal_a_line_now_and_then_tells_rate_and_time_left(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(meter.time, "monotonic", lambda: clock[0])
    with meter.Meter(NAME) as shown:
        for second in range(0, 13):
            clock[0] = float(second)
            shown.show(4_000_000 + 1_000_000 * second, 64_000_000)
    assert capsys.readouterr().out.splitlines() == [
        "ebnerd_demo: 14% of 64.0 MB, 1.0 MB/s, 55 s left",
        "ebnerd_demo: 22% of 64.0 MB, 1.0 MB/s, 50 s left",
    ]


def test_an_unknown_bundle_is_told(capsys):
    assert main(["download", "--bundle", "ebnerd_tiny", "--accept-license"]) == 1
    assert "no such bundle. Use one of ebnerd_demo, ebnerd_small" in capsys.readouterr().err
