"""No space, files limited in size, folders that cannot be written: one clear message, and no half-done stage."""

import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from functools import partial

import pytest
from runs import RUN, Project

pytestmark = pytest.mark.slow

MB = 2**20


@pytest.fixture
def project(finished, tmp_path):
    return Project(finished, tmp_path / "p")


@pytest.fixture
def disk(project):
    """Mount a small disk at the project's outputs; a function that makes it larger or smaller."""
    folder = project.root / "outputs"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk, and not everywhere")

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    yield resize
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def assert_fails(project: Project, *parts: str, before: Sequence[str] = (), **options) -> None:
    """See that a run fails with one message that has all the parts, and leaves nothing that looks done."""
    code, text = project.run(*before, *RUN, **options)
    assert code == 1 and "Traceback" not in text, text
    told = [line for line in text.splitlines() if "FAILED" in line or line.startswith("StorageError")]
    assert len(told) == 1 and all(part in told[0] for part in parts), text
    project.assert_nothing_half_done()
    project.assert_no_orphans()


def test_a_full_disk_is_told_and_a_rerun_with_space_gives_the_same_bytes(project, disk):
    """Free space from none at all to nearly enough for stage 01, which writes 29 MB."""
    for stage, space in [("01_preprocess", 20), ("05_compare", 0)]:
        disk(256 * MB)
        project.fill((stage,))
        shutil.rmtree(project.outputs / "artifacts" / stage)
        disk(shutil.disk_usage(project.outputs).used + space * MB)
        assert_fails(project, "The disk of outputs/smoke/ is full (", " bytes free): free space, then")
    disk(256 * MB)
    project.assert_reruns()


def test_a_limit_on_the_size_of_files_is_told(project):
    running = "outputs/smoke/notebooks/.05_compare.running.ipynb"
    for stage, limit, place in [("05_compare", 30_000, running), ("01_preprocess", 1_000_000, "features_train.npy")]:
        project.fill((stage,))
        limited = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
        told = "A limit on the size of files is in force (`ulimit -f`): raise it"
        assert_fails(project, place, told, preexec_fn=limited)
    project.assert_reruns()


def test_outputs_that_are_a_file_are_told(project):
    (project.root / "outputs").write_text("")
    assert_fails(project, "outputs/smoke", "must be folders: move the file out of the way, then")


def test_a_folder_that_cannot_be_written_is_told(project):
    bound = []
    if os.geteuid() == 0:  # permissions do not bind root, unless it lays down what lifts it above them
        bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        if shutil.which("setpriv") is None or subprocess.run([*bound, "true"], capture_output=True).returncode:
            pytest.skip("permissions do not bind root here")
    for closed in ["logs", "artifacts", "reports"]:
        project.fill(("05_compare",))
        folder = project.outputs / closed
        folder.chmod(0o555)
        try:
            assert_fails(project, f"outputs/smoke/{closed}", "writ", before=bound)
        finally:
            folder.chmod(0o755)
    project.assert_reruns()
