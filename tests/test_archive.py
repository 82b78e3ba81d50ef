"""Unpacking a bundle: good archives give the same files, hostile and damaged ones one message and no file."""

import io
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from ebnerd_lib.__main__ import main
from ebnerd_lib.data.archive import unpack
from ebnerd_lib.errors import BundleError, EbnerdError, StorageError


def contents(bundle: Path) -> dict[str, bytes]:
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


def write(path: Path, entries: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as packed:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        for member in more:
            packed.addfile(member)
    return path


@pytest.fixture
def whole(tiny_path) -> dict[str, bytes]:
    return contents(tiny_path)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "data" / "ebnerd_demo"


def refused(archive: Path, out: Path, named: str = "", kind: type[EbnerdError] = BundleError) -> None:
    """Unpack what must be refused: with one line that names the archive, and without a trace in the file system."""
    out.parent.mkdir(exist_ok=True)
    before = set(out.parent.parent.rglob("*"))
    with pytest.raises(kind) as error:
        unpack(archive, out)
    assert set(out.parent.parent.rglob("*")) == before
    message = str(error.value)
    assert message.startswith(str(archive)) and named in message and "\n" not in message


@pytest.mark.parametrize("kind", ["zip", "gztar", "tar"])
def test_an_archive_of_another_program_is_unpacked_into_an_empty_folder_only(kind, tiny_path, tmp_path, out, capsys):
    archive = shutil.make_archive(str(tmp_path / "made"), kind, tiny_path.parent, tiny_path.name)
    out.mkdir(parents=True)
    words = ["unpack", "--archive", archive, "--out", str(out)]
    assert main(words) == 0 and contents(out) == contents(tiny_path)
    assert [folder.name for folder in out.parent.iterdir()] == [out.name]
    assert main(words) == 1 and str(out) in capsys.readouterr().err
    assert contents(out) == contents(tiny_path)


@pytest.mark.parametrize("around", ["", "./", "some/"])
def test_what_is_around_a_bundle_is_left_out(around, whole, tmp_path, out):
    junk = {"__MACOSX/._articles.parquet": b"x", f"{around}.DS_Store": b"x"}
    unpack(write(tmp_path / "b.tar.gz", {around + name: content for name, content in whole.items()} | junk), out)
    assert contents(out) == whole


def test_no_name_leads_outside_or_to_a_file_twice(tmp_path, whole, out):
    outside = ["../evil", "train/../../evil", "/evil", "C:\\evil", "..\\evil", "evil\n", "train/\x1b[31m"]
    for name in [*outside, "Articles.parquet", "./articles.parquet", "articles.parquet/x"]:
        refused(write(tmp_path / "b.tar.gz", whole | {name: b"x"}), out, repr(name))


def test_links_and_devices_are_refused(tmp_path, whole, out):
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        member = tarfile.TarInfo("train/link")
        member.type, member.linkname = kind, "../../outside"
        refused(write(tmp_path / "b.tar.gz", whole, member), out, "'train/link'")
    link = zipfile.ZipInfo("train/link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as packed:
        packed.writestr(link, "../../outside")
    refused(tmp_path / "b.zip", out, "'train/link'")


def test_bombs_parts_of_a_bundle_and_a_full_disk_leave_nothing(tmp_path, whole, out, monkeypatch):
    archive = tmp_path / "b.tar.gz"
    refused(write(archive, whole | {"zeros.parquet": bytes(20_000_000)}), out)
    part = {name: content for name, content in whole.items() if name != "train/history.parquet"}
    refused(write(archive, part), out, "train/history.parquet")
    little = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: little)
    refused(write(archive, whole), out, "100", StorageError)


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_damaged_archives_are_refused_or_give_the_same_files(kind, tiny_path, whole, tmp_path, out):
    archive = Path(shutil.make_archive(str(tmp_path / "made"), kind, tiny_path))
    good, rng, refusals = archive.read_bytes(), random.Random(0), 0
    for _ in range(50):
        content, place = bytearray(good), rng.randrange(len(good))
        content[place : place + rng.choice([1, 100, len(good)])] = rng.randbytes(rng.choice([0, 1, 100]))
        archive.write_bytes(content)
        try:
            unpack(archive, out)
        except BundleError:
            assert not any(out.parent.iterdir())
            refusals += 1
        else:
            assert contents(out) == whole
            shutil.rmtree(out)
    assert refusals > 30
