"""Unpacking a bundle: good archives give the same files, hostile and damaged ones one message and no file."""

import gzip
import io
import os
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from ebnerd_lib.__main__ import main
from ebnerd_lib.data import archive as archives
from ebnerd_lib.data.archive import unpack
from ebnerd_lib.errors import BundleError, EbnerdError, StorageError

TAR_TYPES = {
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "character device": tarfile.CHRTYPE,
    "block device": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
}
OUTSIDE = [
    "../evil", "train/../../evil", "/evil", "//evil", "C:\\evil", "C:/evil", "..\\evil", "train\\..\\..\\evil",
    "evil\n", "a:b", "train/\x1b[31m",
]  # fmt: skip


def contents(bundle: Path) -> dict[str, bytes]:
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


def write_zip(path: Path, entries: dict[str, bytes], more: tuple[tuple[zipfile.ZipInfo | str, bytes], ...] = ()):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in (*entries.items(), *more):
            packed.writestr(name, content)
    return path


def write_tar(path: Path, entries: dict[str, bytes], more: tuple[tarfile.TarInfo, ...] = ()):
    with tarfile.open(path, "w:gz") as packed:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
        for member in more:
            packed.addfile(member, io.BytesIO(b"x" * member.size))
    return path


WRITERS = {"zip": write_zip, "tar.gz": write_tar}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    return lambda entries: WRITERS[request.param](tmp_path / f"bundle.{request.param}", entries)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data" / "ebnerd_demo"


def refused(archive: Path, out: Path, kind: type[EbnerdError] = BundleError) -> str:
    """Unpack what must be refused: with one line, and without a trace in the file system."""
    beside = {path for path in out.parent.parent.rglob("*") if not path.is_relative_to(out.parent)}
    with pytest.raises(kind) as error:
        unpack(archive, out)
    assert not out.exists() and not any(out.parent.iterdir())
    assert {path for path in out.parent.parent.rglob("*") if not path.is_relative_to(out.parent)} == beside
    assert str(error.value).startswith(str(archive)) and "\n" not in str(error.value)
    assert str(out.parent) not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("around", ["", "./", "ebnerd_demo/", "some/"])
def test_a_bundle_comes_out_as_it_was_without_the_folder_around_it(write, tiny_path, out, around):
    wanted = contents(tiny_path)
    unpack(write({around + name: content for name, content in wanted.items()}), out)
    assert contents(out) == wanted
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_archives_made_by_other_programs_are_read(tiny_path, tmp_path, out):
    for kind in ("zip", "gztar", "tar"):
        archive = Path(shutil.make_archive(str(tmp_path / "made"), kind, tiny_path.parent, tiny_path.name))
        unpack(archive, out / kind)
        assert contents(out / kind) == contents(tiny_path)


def test_what_macos_adds_is_left_out(write, tiny_path, out):
    wanted = contents(tiny_path)
    junk = {"__MACOSX/._articles.parquet": b"x", "__MACOSX/b/._train": b"x", "b/.DS_Store": b"x"}
    unpack(write({**{f"b/{name}": content for name, content in wanted.items()}, **junk}), out)
    assert contents(out) == wanted


def test_an_empty_folder_is_filled_and_any_other_refused(write, tiny_path, out):
    archive = write(contents(tiny_path))
    out.mkdir(parents=True)
    unpack(archive, out)
    (out / "articles.parquet").write_bytes(b"mine")
    with pytest.raises(BundleError, match="not an empty folder"):
        unpack(archive, out)
    assert (out / "articles.parquet").read_bytes() == b"mine"
    link = out.parent / "link"
    link.symlink_to(out.parent.parent, target_is_directory=True)
    with pytest.raises(BundleError, match="not an empty folder"):
        unpack(archive, link)
    with pytest.raises(BundleError, match="not an empty folder"):
        unpack(archive, out / "articles.parquet")


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_outside(write, tiny_path, out, name):
    assert "Nothing was unpacked" in refused(write({**contents(tiny_path), name: b"x"}), out)


def test_a_name_with_a_zero_byte_is_refused_and_not_cut(tiny_path, tmp_path, out):
    archive = write_zip(tmp_path / "b.zip", {**contents(tiny_path), "evil_.parquet": b"x"})
    archive.write_bytes(archive.read_bytes().replace(b"evil_.parquet", b"evil\0.parquet"))
    assert "control character" in refused(archive, out)


@pytest.mark.parametrize("kind", TAR_TYPES)
@pytest.mark.parametrize("target", ["../../outside", "articles.parquet", "/etc/passwd"])
def test_links_and_devices_are_refused(tiny_path, tmp_path, out, kind, target):
    member = tarfile.TarInfo("train/link")
    member.type, member.linkname = TAR_TYPES[kind], target
    archive = write_tar(tmp_path / "b.tar.gz", contents(tiny_path), (member,))
    assert "'train/link' is neither a file nor a folder" in refused(archive, out)


@pytest.mark.parametrize("kind", [0o120000, 0o020000, 0o060000, 0o010000, 0o140000])
def test_links_and_devices_in_a_zip_are_refused(tiny_path, tmp_path, out, kind):
    entry = zipfile.ZipInfo("train/link")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    archive = write_zip(tmp_path / "b.zip", contents(tiny_path), ((entry, b"/etc/passwd"),))
    assert "'train/link' is neither a file nor a folder" in refused(archive, out)


def test_names_that_are_one_file_are_refused(tiny_path, tmp_path, out):
    whole = contents(tiny_path)
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = write_zip(tmp_path / "twice.zip", whole, (("articles.parquet", b"x"),))
    assert "'articles.parquet' occurs twice" in refused(twice, out)
    for name in ("Articles.parquet", "./articles.parquet", "train//history.parquet"):
        assert "occurs twice" in refused(write_tar(tmp_path / "b.tar.gz", {**whole, name: b"x"}), out)
    assert "lies below a file" in refused(write_zip(tmp_path / "b.zip", {**whole, "articles.parquet/x": b"x"}), out)


def test_bombs_are_left_before_they_unfold(tiny_path, tmp_path, out, monkeypatch):
    whole = contents(tiny_path)
    zeros = {**whole, "zeros.parquet": bytes(50_000_000)}
    assert "100 times its size" in refused(write_zip(tmp_path / "b.zip", zeros), out)
    assert "100 times its size" in refused(write_tar(tmp_path / "b.tar.gz", zeros), out)
    declared = tarfile.TarInfo("zeros.parquet")
    declared.size = 2**50
    cut = tmp_path / "declared.tar.gz"
    cut.write_bytes(gzip.compress(declared.tobuf() + bytes(2**16)))
    assert "100 times its size" in refused(cut, out)
    many = {f"{number}.parquet": b"" for number in range(archives.MOST_FILES + 1)}
    assert "more than 10,000 entries" in refused(write_zip(tmp_path / "many.zip", many), out)
    full = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert "than the 100 bytes that the disk has left" in refused(
        write_zip(tmp_path / "b.zip", whole), out, StorageError
    )


def test_an_entry_longer_than_it_declares_does_not_outgrow_the_check(tiny_path, tmp_path, out):
    archive = write_zip(tmp_path / "b.zip", {**contents(tiny_path), "zeros.parquet": bytes(200_000)})
    sizes = (200_000).to_bytes(4, "little"), (5).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(*sizes))
    refused(archive, out)


def test_a_part_of_a_bundle_is_refused_with_what_it_lacks(write, tiny_path, out):
    part = contents(tiny_path)
    del part["train/history.parquet"]
    assert "not a whole bundle, 1 files missing: train/history.parquet" in refused(write(part), out)
    assert "5 files missing" in refused(write({}), out)
    assert "5 files missing" in refused(write({"a/b/articles.parquet": b"x"}), out)


def test_what_is_no_archive_is_refused(tmp_path, out):
    out.parent.mkdir()
    page = tmp_path / "page.zip"
    page.write_text("<html>404</html>")
    assert "damaged, or no zip or tar archive" in refused(page, out)
    (tmp_path / "empty.zip").touch()
    refused(tmp_path / "empty.zip", out)
    with pytest.raises(BundleError, match=r"lost\.zip: no such file"):
        unpack(tmp_path / "lost.zip", out)


def test_an_encrypted_archive_is_refused(tiny_path, tmp_path, out):
    archive = write_zip(tmp_path / "b.zip", contents(tiny_path))
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert "is encrypted. Unpack it by hand" in refused(archive, out)


def test_damaged_archives_end_in_one_message_or_in_the_same_files(write, tiny_path, out):
    """Bytes are changed, dropped and cut off anywhere, by seed; sums of zip and gzip guard the content."""
    whole = contents(tiny_path)
    archive = write(whole)
    good, draw = archive.read_bytes(), random.Random(0)
    outcomes = {"refused": 0, "whole": 0}
    for _ in range(150):
        content = bytearray(good)
        for _ in range(draw.choice([1, 1, 8])):
            place = draw.randrange(len(content))
            match draw.randrange(4):
                case 0 | 1:
                    content[place] = draw.randrange(256)
                case 2:
                    del content[place : place + draw.randrange(1, 200)]
                case 3:
                    del content[place:]
                    content = content or bytearray(b"P")
        archive.write_bytes(content)
        try:
            unpack(archive, out)
        except BundleError:
            assert not out.exists() and not any(out.parent.iterdir())
            outcomes["refused"] += 1
        else:
            found = contents(out)
            assert {name: found[name] for name in whole} == whole
            shutil.rmtree(out)
            outcomes["whole"] += 1
    assert outcomes["refused"] > 100


def test_a_failed_write_leaves_nothing(write, tiny_path, out, monkeypatch):
    archive = write(contents(tiny_path))

    def full(source, stream, length):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    assert "No space left on device" in refused(archive, out, StorageError)


def test_the_verb_unpacks_and_refuses_in_one_line(tiny_path, tmp_path, out, capsys):
    archive = write_zip(tmp_path / "b.zip", contents(tiny_path))
    words = ["unpack", "--archive", str(archive), "--out", str(out)]
    assert main(words) == 0 and contents(out) == contents(tiny_path)
    assert main(words) == 1
    assert capsys.readouterr().err == (
        f"BundleError: {out}: exists and is not an empty folder. Name another folder, or empty this one.\n"
    )
