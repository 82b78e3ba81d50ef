"""Downloads from a local server that cuts, changes and refuses; archives that are good, unsafe and damaged."""

import hashlib
import io
import json
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from runs import contents

from ebnerd_lib.__main__ import INTERRUPTED, main
from ebnerd_lib.data import schema
from ebnerd_lib.data.download import BUNDLES, download, unpack
from ebnerd_lib.data.layout import VECTORS
from ebnerd_lib.errors import BundleError, DownloadError, LockedError
from ebnerd_lib.pipeline.paths import ROOT

NAME = "ebnerd_demo"
ATTEMPTS, PATIENCE = 5, 60  # of the client; seconds to wait for what must happen


class Server(ThreadingHTTPServer):
    """Serves one file, with the faults that a test asks for."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.content = content
        self.validators: dict[str, str] = {"ETag": '"one"'}
        self.cuts: list[int] = []  # bytes after which each of the next answers is cut; then they are whole
        self.instead: list[tuple[int, dict[str, str]]] = []  # statuses and headers of the next answers
        self.ranges = "obeyed"  # or "ignored", or "wrong": a byte too early
        self.hold_after = 10**9  # bytes after which an answer waits for ``release``
        self.release = threading.Event()
        self.asked: list[tuple[str, str | None]] = []  # path and Range of each request


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server, wanted, size = self.server, self.headers.get("Range"), len(self.server.content)
        server.asked.append((self.path, wanted))
        if server.instead:
            return self.answer(*server.instead.pop(0))
        known = self.headers.get("If-Range") in server.validators.values()
        if not wanted or not known or server.ranges == "ignored":
            return self.answer(200, server.validators, server.content)
        start = int(wanted[6:-1]) - (server.ranges == "wrong")
        if start >= size:
            return self.answer(416, {})
        return self.answer(206, {"Content-Range": f"bytes {start}-{size - 1}/{size}"}, server.content[start:])

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        body = body[: self.server.cuts.pop(0)] if self.server.cuts else body
        self.wfile.write(body[: self.server.hold_after])
        if len(body) > self.server.hold_after:
            self.server.release.wait(PATIENCE)
            self.wfile.write(body[self.server.hold_after :])


@pytest.fixture(scope="module")
def bundle(tiny_path, tmp_path_factory) -> Path:
    """The tiny bundle with files of noise and of zeros: the archive has 200 kB, and less than it unpacks to."""
    folder = shutil.copytree(tiny_path, tmp_path_factory.mktemp("served") / "bundle")
    (folder / "noise").write_bytes(random.Random(0).randbytes(200_000))
    (folder / "zeros").write_bytes(bytes(1_000_000))
    return folder


@pytest.fixture
def server(bundle, monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("ebnerd_lib.data.download.time", SimpleNamespace(sleep=lambda seconds: None))
    with Server(packed(contents(bundle))) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.release.set()
        running.shutdown()


def packed(entries: dict[str, bytes]) -> bytes:
    """Pack files; one that is called link is a link."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in entries.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (0o120777 if name == "link" else 0o100644) << 16
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def get(server: Server, out: Path, name: str = NAME, **options) -> Path:
    return download(name, out, True, server.url, **options)


def kept(out: Path) -> int:
    return sum(part.stat().st_size for part in out.glob(f".{NAME}.download/archive"))


def start(server: Server, out: Path, before: Callable[[], object]) -> subprocess.Popen[str]:
    """Start the command in a process of its own, in which a function is called first."""
    words = f"-m ebnerd_lib download --bundle {NAME} --url {server.url} --accept-license --out".split()
    words = [sys.executable, *words, str(out)]
    return subprocess.Popen(words, cwd=ROOT, preexec_fn=before, stderr=subprocess.PIPE, text=True)


def assert_whole(folder: Path, bundle: Path) -> None:
    """See that a folder holds the bundle's files and the record, and nothing lies beside it."""
    found = contents(folder)
    found.pop("downloaded.json", None)
    assert found == contents(bundle)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_bundle_is_downloaded_and_recorded_and_no_secret_is_told(server, bundle, tmp_path, capsys):
    address = f"{server.url.replace('//', '//me:pa55@')}/mine.zip?signature=5ecret"
    good = hashlib.sha256(server.content).hexdigest()
    folder = download(NAME, tmp_path / "data", True, address, sha256=good.upper())
    assert_whole(folder, bundle)
    assert json.loads((folder / "downloaded.json").read_text()) == {"url": f"{server.url}/mine.zip", "sha256": good}
    assert server.asked == [("/mine.zip?signature=5ecret", None)]
    told, server.instead = capsys.readouterr().out, [(404, {})] + [(503, {})] * ATTEMPTS
    for url in (address, address, re.sub(r":\d+/", ":9/", address), address.replace("http", "ftp")):
        with pytest.raises(DownloadError) as error:
            download(NAME, tmp_path / "other", True, url)
        told += str(error.value)
    assert "mine.zip" in told and "pa55" not in told and "5ecret" not in told


def test_a_cut_is_resumed_and_given_up_where_it_stays(server, bundle, tmp_path):
    server.validators = {"Last-Modified": "Mon, 01 May 2023 00:00:00 GMT"}
    server.cuts = [150_000, 50_000] + [0] * ATTEMPTS
    with pytest.raises(DownloadError, match=server.url):
        get(server, tmp_path)
    starts = [int(wanted[6:-1]) for _, wanted in server.asked[1:]]
    assert len(starts) == ATTEMPTS - 1 and starts == sorted(starts) and 0 < starts[0] <= 150_000
    assert kept(tmp_path) == starts[-1] and not (tmp_path / NAME).exists()
    span = {"Content-Range": f"bytes {starts[-1]}-{len(server.content) - 1}/{len(server.content)}"}
    server.cuts, server.instead = [], [(206, span)]  # an answer with less than it announces
    assert_whole(get(server, tmp_path), bundle)
    assert [part for _, part in server.asked[ATTEMPTS:]] == [f"bytes={starts[-1]}-"] * 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, INTERRUPTED)])
def test_a_download_that_is_stopped_resumes(server, bundle, tmp_path, number, code):
    server.hold_after = 150_000  # it cannot be over before the signal comes
    process = start(server, tmp_path, lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while not kept(tmp_path) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    server.release.set()
    assert process.returncode == code and not (tmp_path / NAME).exists()
    assert ("resume" in errors) == (number == signal.SIGINT) and "Traceback" not in errors
    have = kept(tmp_path)
    (tmp_path / f".{NAME}.download" / "unpacked").mkdir()
    (tmp_path / f".{NAME}.download" / "unpacked" / "old").touch()  # as a kill while unpacking leaves it
    assert_whole(get(server, tmp_path), bundle)
    assert server.asked[-1] == ("/ebnerd_demo.zip", f"bytes={have}-")


@pytest.mark.parametrize("how", ["etag", "date", "address", "no validator", "ignored", "wrong", "shorter"])
def test_parts_of_two_versions_are_never_glued(server, bundle, tmp_path, how):
    whole, server.content = server.content, bytes(len(server.content) + 100_000 * (how != "address"))
    first = {"date": {"Last-Modified": "Mon, 01 May 2023 00:00:00 GMT"}, "no validator": {}}
    later = {"date": {"Last-Modified": "Tue, 02 May 2023 00:00:00 GMT"}, "etag": {"ETag": '"two"'}}
    server.validators = first.get(how, server.validators)
    server.cuts = [len(whole) + 70_000 if how == "shorter" else 100_000] + [0] * ATTEMPTS
    with pytest.raises(DownloadError):
        get(server, tmp_path)
    server.cuts, server.content, server.ranges = [], whole, how
    server.validators = later.get(how, server.validators)
    server.url += {"address": "/other.zip"}.get(how, "")
    assert_whole(get(server, tmp_path), bundle)


def test_wrong_archives_and_names_leave_nothing(server, bundle, tmp_path):
    files = contents(bundle)
    part = {name: content for name, content in files.items() if name != "train/history.parquet"}
    for server.content, options, kind, named in [
        (b"<html>log in</html>", {}, BundleError, "http://"),
        (packed(part), {}, BundleError, "train/history.parquet"),
        (packed(files | {"articles.parquet": files["train/history.parquet"]}), {}, BundleError, "articles.parquet"),
        (packed(files), {"sha256": "0" * 64}, DownloadError, "0" * 64),
        (packed(files), {"name": "ebnerd_testset"}, BundleError, "test/behaviors.parquet"),
        (packed(files), {"name": "ebnerd_tiny"}, DownloadError, "ebnerd_tiny"),
    ]:
        with pytest.raises(kind, match=re.escape(named)) as error:
            get(server, tmp_path, **options)
        assert str(tmp_path) not in str(error.value) and not any(tmp_path.iterdir())


def test_a_bundle_that_is_there_is_left_as_it_is(server, bundle, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / NAME)
    assert download(NAME, tmp_path, False, server.url) == folder, "and nobody is asked for the terms"
    (folder / "articles.parquet").unlink()
    with pytest.raises(BundleError, match=r"articles\.parquet"):
        get(server, tmp_path)
    with pytest.raises(DownloadError, match="64"):
        get(server, tmp_path / "other", sha256="abc")
    assert contents(folder).keys() == contents(bundle).keys() - {"articles.parquet"} and not server.asked


def test_two_downloads_of_a_bundle_do_not_meet(server, tmp_path):
    (tmp_path / f".{NAME}.download").mkdir()
    with FileLock(tmp_path / f".{NAME}.download" / "lock"), pytest.raises(LockedError, match=NAME):
        get(server, tmp_path)
    assert not server.asked


@pytest.mark.parametrize("share", [0.3, 1])
def test_a_full_disk_keeps_what_came(server, bundle, tmp_path, share):
    limit = int(share * len(server.content))  # of a file: the archive does not fit, or what it unpacks to
    process = start(server, tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    _, errors = process.communicate(timeout=PATIENCE)
    assert errors.startswith("StorageError: ") and errors.count("\n") == 1
    have = kept(tmp_path)
    assert 0 < have <= limit and not list(tmp_path.glob("*/unpacked"))
    assert_whole(get(server, tmp_path), bundle)
    assert server.asked[1:] == ([("/ebnerd_demo.zip", f"bytes={have}-")] if share < 1 else [])


def test_the_terms_are_asked_for_where_they_were_not_accepted_beforehand(server, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EBNERD_URL", server.url)
    words, answers = ["download", "--bundle", NAME, "--out"], ["", "no", "maybe", "yes"]
    for terminal, accepted in ((False, ""), (False, "no"), (True, "")):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda is_one=terminal: is_one))
        monkeypatch.setattr("builtins.input", lambda *prompt: answers.pop(0))
        monkeypatch.setenv("ACCEPT_LICENSE", accepted)
        assert main([*words, str(tmp_path / "data")]) == 1 and capsys.readouterr().err.startswith("LicenceError: ")
        assert not server.asked and not any(tmp_path.iterdir())
    assert main([*words, str(tmp_path / "data")]) == 0 and not answers
    assert_whole(tmp_path / "data" / NAME, bundle)
    monkeypatch.setenv("ACCEPT_LICENSE", "yes")
    assert main([*words, str(tmp_path / "more")]) == 0 and f"make run-all PROFILE={NAME}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ebnerd_testset", "ebnerd_vectors"])
def test_the_test_set_and_article_vectors_come_out_of_the_folder_around_them(name, server, tmp_path):
    source = tmp_path / "source"
    (source / "test").mkdir(parents=True)
    if name == "ebnerd_vectors":
        pq.write_table(pa.table({"article_id": pa.array([1], pa.int32()), "vector": [[0.5]]}), source / VECTORS)
    else:
        tables = {"articles": schema.ARTICLES, "test/behaviors": schema.TEST_BEHAVIORS, "test/history": schema.HISTORY}
        for table, columns in tables.items():
            pq.write_table(schema.arrow_schema(columns).empty_table(), source / f"{table}.parquet")
    junk = {"__MACOSX/._articles.parquet": b"x", "around/.DS_Store": b"x"}
    server.content = packed({f"around/{file}": content for file, content in contents(source).items()} | junk)
    assert_whole(get(server, tmp_path / "data", name), source)
    (tmp_path / "a.zip").write_bytes(server.content)
    (out := tmp_path / "unpacked" / "any").mkdir(parents=True)
    for code in (0, 1):  # to an empty folder only
        assert main(["unpack", "--archive", str(tmp_path / "a.zip"), "--out", str(out)]) == code
        assert_whole(out, source)


def test_an_unsafe_or_damaged_archive_leaves_nothing(tiny_path, tmp_path, monkeypatch):
    def refuse(content: bytes, named: str) -> None:
        archive.write_bytes(content)
        with pytest.raises(BundleError, match=re.escape(named)) as error:
            unpack(archive, tmp_path / "data")
        assert str(archive) in str(error.value) and "\n" not in str(error.value)
        assert [path.name for path in tmp_path.iterdir()] == [archive.name]

    files, archive = contents(tiny_path), tmp_path / "archive"
    for name in ("../evil", "train/../../evil", "/evil", "link"):
        refuse(packed(files | {name: b""}), name)
    whole = packed(files)
    for content in (whole[: len(whole) // 2], b"<html>", packed({})):
        refuse(content, str(archive))
    monkeypatch.setattr("ebnerd_lib.data.download.MOST_BYTES", sum(map(len, files.values())) - 1)
    refuse(whole, "bytes")


def test_every_profile_of_ebnerd_has_a_bundle_to_download():
    assert {path.name for path in (ROOT / "params").glob("ebnerd_*")} <= set(BUNDLES)
