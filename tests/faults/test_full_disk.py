"""No space, files limited in size, folders that cannot be written: one clear message, and no half-done stage."""

import os
import resource
import shutil
import subprocess

import pytest
from runs import Project

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


def assert_clear(project: Project, code: int, text: str, *parts: str) -> None:
    """See that a run failed with one message that has all the parts, and left nothing that looks done."""
    assert code == 1, text
    assert "Traceback" not in text, text
    told = [line for line in text.splitlines() if "FAILED" in line or line.startswith("StorageError")]
    assert len(told) == 1 and all(part in told[0] for part in parts), text
    project.assert_nothing_half_done()
    project.assert_no_orphans()


def used(folder) -> int:
    return shutil.disk_usage(folder).used


def test_a_full_disk_is_told_and_a_rerun_with_space_gives_the_same_bytes(project, disk):
    """Free space from none at all to nearly enough for stage 01, which writes 29 MB, and for 02, which writes 1."""
    for stage, space in [("02_train_mf.ids", 0.3), ("01_preprocess", 20), ("05_compare", 0.0)]:
        disk(256 * MB)
        project.fill((stage,))
        shutil.rmtree(project.outputs / "artifacts" / stage)
        disk(used(project.outputs) + int(space * MB))
        code, text = project.run()
        if code == 0:  # what was free was enough
            project.assert_finished()
            continue
        assert_clear(project, code, text, "The disk of outputs/smoke/ is full (", " bytes free): free space, then")
    disk(256 * MB)
    project.assert_reruns()


def test_a_limit_on_the_size_of_files_is_told(project):
    cases = [
        ("05_compare", 30_000, "outputs/smoke/notebooks/.05_compare.running.ipynb"),
        ("01_preprocess", 1_000_000, "features_train.npy"),
    ]
    for stage, limit, place in cases:
        project.fill((stage,))

        def limited(limit: int = limit) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        code, text = project.run(preexec_fn=limited)
        assert_clear(project, code, text, place, "A limit on the size of files is in force (`ulimit -f`): raise it")
    project.assert_reruns()


def test_outputs_that_are_a_file_are_told(project):
    (project.root / "outputs").write_text("")
    code, text = project.run()
    assert_clear(project, code, text, "outputs/smoke", "must be folders: move the file out of the way, then")


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
            code, text = project.run(before=bound)
        finally:
            folder.chmod(0o755)
        assert_clear(project, code, text, f"outputs/smoke/{closed}".rstrip("/"), "writ")
    code, text = project.run(before=bound)
    assert code == 0, text
    project.assert_finished()
