"""Runs of the profile smoke in a project of their own, what belongs to them, and what must be true of their outputs."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

STAGES = ["01_preprocess", "02_train_mf", "03_train_mlp", "04_recommend", "05_compare", "06_explore"]
ORPHAN_SECONDS = 60.0


class Project:
    """A project of a test, beside a finished one to compare with."""

    def __init__(self, finished: Path, root: Path) -> None:
        self.finished, self.root = finished, root
        self.outputs = root / "outputs" / "smoke"
        for name in ("ebnerd_lib", "notebooks", "params", "templates", "data"):
            shutil.copytree(finished / name, root / name)
        shutil.copy2(Path(__file__).resolve().parents[2] / "Makefile", root / "Makefile")
        (root / "data" / "smoke" / "generated.json").touch()  # newer than the generator, for make

    def fill(self, stale: tuple[str, ...] = ()) -> None:
        """Take the outputs of the finished project; some stages have to run again, to the same bytes."""
        for folder in self.outputs.glob("*"):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        shutil.copytree(self._finished(), self.outputs, dirs_exist_ok=True)
        for stage in stale:
            (self.outputs / "notebooks" / f"{stage}.ipynb").unlink()

    def start(self, make: bool = False, before: Sequence[str] = (), **options) -> subprocess.Popen[str]:
        """Start a run, the leader of a process group of its own, with words ``before`` the command.

        It hears the signals that are ignored where the tests themselves run in the background.
        """
        prepare = options.pop("preexec_fn", lambda: None)

        def prepared() -> None:
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            prepare()

        words = [*before, sys.executable, "-m", "ebnerd_lib", "run", "--profile", "smoke"]
        if make:
            words = ["make", "run-all", "PROFILE=smoke", f"PYTHON={sys.executable}"]
        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        return subprocess.Popen(words, cwd=self.root, env=environment, preexec_fn=prepared, **pipes, **options)

    def run(self, **options) -> tuple[int, str]:
        """Run to the end. Returns the exit code and what was printed."""
        process = self.start(**options)
        text, _ = process.communicate(timeout=300)
        return process.returncode, text

    def kernels(self) -> list[psutil.Process]:
        """Return the kernels that run in this project, whoever started them."""
        return self._processes("ipykernel_launcher")

    def _processes(self, word: str) -> list[psutil.Process]:
        """Return the processes in this project that have a word on their command line."""
        found = []
        for process in psutil.process_iter():
            try:
                if word in process.cmdline() and Path(process.cwd()) == self.root:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def assert_no_orphans(self) -> None:
        """See that the kernels end, and the processes of the stages."""
        start = time.monotonic()
        while orphans := [*self.kernels(), *self._processes("ebnerd_lib.pipeline.kernel")]:
            assert time.monotonic() - start < ORPHAN_SECONDS, f"{len(orphans)} processes outlived their run"
            time.sleep(0.05)

    def assert_nothing_half_done(self) -> None:
        """See that whatever can be seen of a stage is whole: its folder by its own sums, and its notebook."""
        for folder in self.outputs.glob("artifacts/[!.]*"):
            manifest = json.loads((folder / "manifest.json").read_text())
            sums = {file.name: sha256(file) for file in folder.iterdir() if file.name != "manifest.json"}
            assert manifest["outputs"] == sums and manifest["status"] == "complete", folder.name
        for notebook in self.outputs.glob("notebooks/[!.]*.ipynb"):
            if not notebook.name.endswith(".failed.ipynb"):
                noted = json.loads(notebook.read_text())["metadata"]["papermill"]
                assert noted["end_time"] and not noted["exception"], notebook.name
                assert (self.outputs / "artifacts" / notebook.stem / "manifest.json").exists(), notebook.name
        for page in self.outputs.glob("**/[!.]*.html"):
            assert page.read_text().rstrip().endswith("</html>"), page.name

    def assert_finished(self) -> None:
        """See that a run is done and equal to an undisturbed one."""
        self.assert_nothing_half_done()
        ours, theirs = artifacts(self.outputs), artifacts(self._finished())
        assert list(ours) == list(theirs)
        assert [name for name in theirs if ours[name] != theirs[name]] == []
        for stage in STAGES:
            both = [outputs / "artifacts" / stage / "manifest.json" for outputs in (self.outputs, self._finished())]
            mine, undisturbed = (json.loads(file.read_text())["outputs"] for file in both)
            assert mine == undisturbed, stage
            assert (self.outputs / "reports" / f"{stage}.html").exists()
        hidden = [p.name for p in self.outputs.rglob(".*")] + [p.name for p in self.outputs.rglob("*.failed.*")]
        assert not hidden
        assert not list(self.outputs.glob("logs/*.holder"))

    def complete(self) -> int:
        """Return how many stages look complete."""
        return sum((self.outputs / "notebooks" / f"{stage}.ipynb").exists() for stage in STAGES)

    def _finished(self) -> Path:
        return self.finished / "outputs" / "smoke"


def artifacts(outputs: Path) -> dict[str, bytes]:
    root = outputs / "artifacts"
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and p.name != "manifest.json"]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in files}


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def wait_until(true: Callable[[], object], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait for something to become true while a run goes on; return when the run has ended as well."""
    until = time.monotonic() + seconds
    while not true() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
