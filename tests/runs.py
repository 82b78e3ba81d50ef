"""Copies of the project, runs of the profile smoke in them, and what must be true of their outputs."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from ebnerd_lib.pipeline.paths import ROOT, files_in, profile_stages
from ebnerd_lib.pipeline.stale import sha256

STAGES = profile_stages("smoke")
RUN = (sys.executable, "-m", "ebnerd_lib", "run", "--profile", "smoke")
MAKE = ("make", "run-all", "PROFILE=smoke", f"PYTHON={sys.executable}")
KERNEL = "ipykernel_launcher"
ORPHAN_SECONDS = 60.0


def copy_of(source: Path, target: Path, *more: str) -> Path:
    """Copy what a project runs, and ``more`` folders of it. Returns the copy."""
    for name in ("ebnerd_lib", "notebooks", "params", "templates", *more):
        shutil.copytree(source / name, target / name)
    return target


def python(project: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a project to the end, with the package of that project."""
    own = {**os.environ, "PYTHONPATH": str(project), **environment}
    return subprocess.run([sys.executable, *words], cwd=project, capture_output=True, text=True, env=own)


def command(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the package in a project to the end."""
    return python(project, "-m", "ebnerd_lib", *arguments, **environment)


def start_holder(file: Path) -> subprocess.Popen[str]:
    """Start a process that takes a lock, or fails to, and holds it until its input ends or it is killed."""
    code = "import sys; from pathlib import Path; from ebnerd_lib.pipeline.paths import acquire"
    code += "; acquire(Path(sys.argv[1]), 'a test'); print('held', flush=True); sys.stdin.read()"
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code, str(file)], text=True, env=environment, **pipes)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files in a folder and those below it, by their relative paths in order."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def artifacts(project: Path, below: str = "") -> dict[str, bytes]:
    """The artifacts of the profile smoke, those of one stage if ``below`` names it; without manifests."""
    files = contents(project / "outputs" / "smoke" / "artifacts" / below)
    return {name: content for name, content in files.items() if not name.endswith("manifest.json")}


def manifest(project: Path, stage: str) -> dict:
    return json.loads((project / "outputs" / "smoke" / "artifacts" / stage / "manifest.json").read_text())


def metrics(project: Path, stage: str, profile: str = "smoke") -> dict:
    return json.loads((project / "outputs" / profile / "artifacts" / stage / "metrics.json").read_text())


class Project:
    """A project of a test, beside a finished one to compare with."""

    def __init__(self, finished: Path, root: Path) -> None:
        self.finished, self.root = finished, root
        self.outputs = root / "outputs" / "smoke"
        copy_of(finished, root, "data")
        shutil.copy2(ROOT / "Makefile", root / "Makefile")
        (root / "data" / "smoke" / "generated.json").touch()  # newer than the generator, for make

    def fill(self, stale: tuple[str, ...] = ()) -> None:
        """Take the outputs of the finished project; some stages have to run again, to the same bytes."""
        for folder in self.outputs.glob("*"):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        shutil.copytree(self.finished / "outputs" / "smoke", self.outputs, dirs_exist_ok=True)
        for stage in stale:
            (self.outputs / "notebooks" / f"{stage}.ipynb").unlink()

    def start(self, *words: str, **options) -> subprocess.Popen[str]:
        """Start a run, or what some words say, as the leader of a process group of its own.

        It hears the signals that are ignored where the tests themselves run in the background.
        """
        prepare = options.pop("preexec_fn", lambda: None)

        def prepared() -> None:
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            prepare()

        environment = {**os.environ, "PYTHONPATH": str(self.root)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        return subprocess.Popen(words or RUN, cwd=self.root, env=environment, preexec_fn=prepared, **pipes, **options)

    def run(self, *words: str, **options) -> tuple[int, str]:
        """Run to the end. Returns the exit code and what was printed."""
        process = self.start(*words, **options)
        text, _ = process.communicate(timeout=300)
        return process.returncode, text

    def processes(self, *words: str) -> list[psutil.Process]:
        """Return the processes in this project, whoever started them, that have one of some words on their command."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if {*words} & {*process.cmdline()} and Path(process.cwd()) == self.root:
                    found.append(process)
        return found

    def assert_no_orphans(self) -> None:
        """See that the kernels end, and the processes of the stages."""
        start = time.monotonic()
        while orphans := self.processes(KERNEL, "ebnerd_lib.pipeline.kernel"):
            assert time.monotonic() - start < ORPHAN_SECONDS, f"{len(orphans)} processes outlived their run"
            time.sleep(0.05)

    def assert_nothing_half_done(self) -> None:
        """See that whatever can be seen of a stage is whole: its folder by its own sums, and its notebook."""
        for folder in self.outputs.glob("artifacts/[!.]*"):
            manifest = json.loads((folder / "manifest.json").read_text())
            sums = {file.name: sha256(file) for file in files_in(folder)}
            assert manifest["outputs"] == sums and manifest["status"] == "complete", folder.name
        for notebook in self.outputs.glob("notebooks/[!.]*.ipynb"):
            if not notebook.name.endswith(".failed.ipynb"):
                noted = json.loads(notebook.read_text())["metadata"]["papermill"]
                assert noted["end_time"] and not noted["exception"], notebook.name
                assert (self.outputs / "artifacts" / notebook.stem / "manifest.json").exists(), notebook.name
        for page in self.outputs.glob("**/[!.]*.html"):
            assert page.read_text().rstrip().endswith("</html>"), page.name

    def assert_reruns(self) -> None:
        """See that a rerun succeeds and leaves what an undisturbed run leaves."""
        code, text = self.run()
        assert code == 0, text
        self.assert_finished()

    def assert_finished(self) -> None:
        """See that a run is done and equal to an undisturbed one."""
        self.assert_nothing_half_done()
        ours, theirs = artifacts(self.root), artifacts(self.finished)
        assert list(ours) == list(theirs)
        assert [name for name in theirs if ours[name] != theirs[name]] == []
        assert all((self.outputs / "reports" / f"{stage}.html").exists() for stage in STAGES)
        hidden = [p.name for p in self.outputs.rglob(".*")] + [p.name for p in self.outputs.rglob("*.failed.*")]
        assert not hidden
        assert not list(self.outputs.glob("logs/**/*.holder"))

    def complete(self) -> int:
        """Return how many stages look complete."""
        return sum((self.outputs / "notebooks" / f"{stage}.ipynb").exists() for stage in STAGES)


def wait_until(true: Callable[[], object], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait for something to become true while a run goes on; return when the run has ended as well."""
    until = time.monotonic() + seconds
    while not true() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.02)
