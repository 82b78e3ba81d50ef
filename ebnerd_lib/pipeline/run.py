"""Run the stale stages of a profile, each in a process of its own, those that do not wait for each other side by side.

Checking needs the standard library and YAML only. What a stage's process does is in ``kernel``.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from ebnerd_lib.errors import EbnerdError, LockedError, StorageError
from ebnerd_lib.pipeline import history, report
from ebnerd_lib.pipeline.experiments import select
from ebnerd_lib.pipeline.params import StageConfig, load_profile
from ebnerd_lib.pipeline.paths import (
    DETERMINISM,
    ROOT,
    StagePaths,
    acquire,
    read_json,
    relative,
    release,
    threads,
    write_json,
)
from ebnerd_lib.pipeline.runs import headline, is_number, printable
from ebnerd_lib.pipeline.stage import BATCH_VARIABLE, ORPHAN_SECONDS, clear_partial
from ebnerd_lib.pipeline.stale import Hashes, behind, fingerprint, input_files, notebook_modules, order

STOP_SECONDS = 3.0
"""How long a stage that is told to end may take before it is killed."""
FRESH, COMPLETE, FAILED, LEFT = "fresh", "complete", "failed", "out of date"
"""How a stage ends in a run: it need not run, ran to its end, did not, or is not to run as it or what it reads is."""
AGAIN_SECONDS = 10.0
"""How long after an interruption further ones are taken for the same."""
_LEFT_OUT = {
    "RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "PYTHONSTARTUP", "PYTHONWARNINGS",
    "PYTHONSAFEPATH",
}  # fmt: skip
"""Variables of launchers, by which Lightning takes a process for one of several, and of a user's own set-up; with the
last one ipykernel drops the project's folder from where packages are looked for."""
_BACKEND = "module://matplotlib_inline.backend_inline"
_LONGEST_FOLDER = 60
"""Characters of a folder for sockets, whose whole paths may have about a hundred."""
_LITTLE = 2**20
"""Bytes of free space below which a disk counts as full."""
_FULL = "The disk of {outputs}/ is full ({free:,} bytes free): free space"
_IN_THE_WAY = "{outputs}/ and what is above must be folders: move the file out of the way"
_CLOSED = "Make {outputs}/ writable"
_REMEDIES = {
    "No space left on device": _FULL,
    "Disk quota exceeded": _FULL,
    "File too large": "A limit on the size of files is in force (`ulimit -f`): raise it",
    "Not a directory": _IN_THE_WAY,
    "File exists": _IN_THE_WAY,
    "Permission denied": _CLOSED,
    "Operation not permitted": _CLOSED,
    "Read-only file system": _CLOSED,
    "died before replying": "See that `python -m ipykernel_launcher` starts, and that `ulimit -n` is 256 or more",
    "Kernel died": "It was killed, most likely because memory ran out. Free memory or use `--jobs 1`",
    "MemoryError": "Free memory, use `--jobs 1` or use less data",
}
"""What to do about a failure, by words of its message."""


def run(
    profile: str,
    jobs: int | None = None,
    only: str = "",
    start: str = "",
    force: bool = False,
    extra: StageConfig | None = None,
) -> int:
    """Run what is stale in a profile and render what changed.

    Args:
        profile: a folder of ``params``.
        jobs: stages at a time; as many as there are cores if not given.
        only: the stages to run, see ``experiments.select``. What they read runs first where it is stale.
        start: the same, with what reads them. Of those, one that reads another stale stage is left as it is.
        force: also run the stages that are asked for where they are fresh.
        extra: a stage to run that is none of the profile, and what it reads.

    Returns:
        0 if every stage is complete, 1 if one failed, 130 if the run was interrupted by Ctrl-C, SIGTERM or SIGHUP.
        A failed stage stops those that read it, and no others.

    Raises:
        ConfigError: the profile, a parameter file or a notebook's parameters are wrong.
        BundleError: the bundle is missing or incomplete.
        LockedError: another process runs the profile.
        StorageError: the outputs cannot be written.
    """
    os.chdir(ROOT)
    whole = StagePaths(profile, "")
    ended: dict[str, str] = {}
    with interruptible():
        try:
            configs = load_profile(profile) | ({extra.stage: extra} if extra else {})
            waiting = order(configs)
            asked, may_run = select(configs, extra.stage if extra else only, start)
            for stage in sorted(may_run):  # what is wrong with any of them shows before one runs
                notebook_modules(configs[stage])
                input_files(configs[stage])
            acquire(whole.lock, f"a run of profile {profile}")
            forced = asked if force else set()
            return _Run(profile, configs, may_run, forced, jobs or os.cpu_count() or 1, ended).run(waiting)
        except KeyboardInterrupt:
            kept = sorted(stage for stage, how in ended.items() if how in (FRESH, COMPLETE))
            names = f" ({', '.join(kept)})" if kept else ""
            say(f"interrupted: {len(kept)} stages are complete and kept{names}. Rerun the command to resume.", True)
            with contextlib.suppress(OSError, EbnerdError, KeyboardInterrupt):
                report.render_profile(profile)
            return 130
        except OSError as error:
            named = error.filename if isinstance(error.filename, str | bytes) else whole.outputs
            message = f"{relative(Path(os.fsdecode(named)))}: {error.strerror or error}"
            other = f"See that {relative(whole.outputs)}/ can be read and written"
            raise StorageError(with_remedy(profile, message, other)) from error
        finally:
            release(whole.lock)


@dataclass
class _Running:
    """A stage that runs."""

    process: subprocess.Popen[bytes]  # runs it, as the leader of a process group
    note: Path  # file that the process writes to why the stage failed
    began: float  # moment of the monotonic clock
    last: float | None  # seconds that it took when it was last complete, where that is known
    wanted: str  # the fingerprint that its artifacts will have


_Show = Callable[[dict[str, _Running]], None]


@dataclass
class _Run:
    """One run of a profile whose lock is held."""

    profile: str
    configs: dict[str, StageConfig]  # of every stage
    may_run: set[str]
    forced: set[str]  # that run where they are fresh too
    jobs: int  # stages at a time
    ended: dict[str, str]  # how each stage ends

    def __post_init__(self) -> None:
        self.hashes = Hashes(StagePaths(self.profile, "").hashes)

    def run(self, sorter: TopologicalSorter[str]) -> int:
        """Run every stage once those that it reads are done, and render. Returns the exit code."""
        start, outputs = time.monotonic(), StagePaths(self.profile, "").outputs
        _clear_temporary(outputs)
        base = "/tmp" if len(tempfile.gettempdir()) > _LONGEST_FOLDER else None
        waiting, running = dict[str, str](), dict[str, _Running]()
        # What most stages follow on begins first, so that the last ones begin sooner.
        following = behind({stage: config.reads for stage, config in self.configs.items()})
        with contextlib.ExitStack() as stack:
            folder, show = Path(), None
            while sorter.is_active():
                for stage in sorter.get_ready():
                    if wanted := self._stale(stage):
                        waiting[stage] = wanted
                    else:
                        sorter.done(stage)
                if waiting and show is None:
                    self.hashes.save()
                    say(f"profile {self.profile}: {len(self.may_run)} stages, outputs in {relative(outputs)}/")
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ek", dir=base)))
                    show = stack.enter_context(_rows(self.profile))
                    stack.callback(self._stop, running)
                for stage in sorted(waiting, key=following.__getitem__, reverse=True):
                    is_next = not self._needs_gpu(stage) or not any(map(self._needs_gpu, running))
                    if len(running) < self.jobs and is_next:
                        running[stage] = self._start(stage, waiting.pop(stage), folder)
                if show is not None:
                    show(running)
                    time.sleep(0.1 if running else 0)
                for stage in [name for name, each in running.items() if each.process.poll() is not None]:
                    self._end(stage, running[stage])
                    del running[stage]
                    sorter.done(stage)
        return self._conclude(time.monotonic() - start)

    def _stale(self, stage: str) -> str:
        """Return the fingerprint of a stage that has to run; empty where it is fresh, or is not to run."""
        config, may_run = self.configs[stage], stage in self.may_run
        if lacking := [name for name in config.reads if self.ended[name] in (FAILED, LEFT)]:
            is_failed = may_run and any(self.ended[name] == FAILED for name in lacking)
            self.ended[stage] = FAILED if is_failed else LEFT
            if may_run:
                names = ", ".join(f"{name} ({self.ended[name]})" for name in lacking)
                say(f"{stage}: not run, since it reads {names}", is_failed)
            return ""
        wanted = fingerprint(config, self.hashes)
        if stage not in self.forced and is_fresh(config, wanted, self.hashes):
            self.ended[stage] = FRESH
            paths = StagePaths(self.profile, stage)
            for file in (paths.failed, paths.failed_report, paths.failure):  # what failed since was taken back
                file.unlink(missing_ok=True)
            return ""
        if may_run:
            return wanted
        self.ended[stage] = LEFT
        return ""

    def _start(self, stage: str, wanted: str, folder: Path) -> _Running:
        """Start the process of a stage, in a group of its own. It ends when its input does, which this one holds.

        A training computes on one thread, all else on as many as there are cores, whatever runs beside it.
        """
        config, paths, note = self.configs[stage], StagePaths(self.profile, stage), folder / f"{stage}.txt"
        _prepare(paths)
        batch = {"stage": stage, "fingerprint": wanted, "reads": config.reads}
        own = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
        own["OMP_NUM_THREADS"] = str(threads(1 if config.trains else os.cpu_count() or 1))
        words = [self.profile, stage, json.dumps(config.given), str(note)]
        process = subprocess.Popen(
            [sys.executable, "-m", "ebnerd_lib.pipeline.kernel", *words],
            env={**own, **DETERMINISM, BATCH_VARIABLE: json.dumps(batch)}
            | {"IPYTHONDIR": str(folder / f"{stage}.ipython"), "MPLBACKEND": _BACKEND},  # not a user's own set-up
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        seconds: Any = (read_json(paths.manifest) or {}).get("duration_seconds")
        last = float(seconds) if is_number(seconds) else None
        say(f"{stage}: started" + ("" if last is None else f" (last time {last:.0f} s)"))
        return _Running(process, note, time.monotonic(), last, wanted)

    def _stop(self, running: dict[str, _Running]) -> None:
        """End the stages that run with their process groups, as the run itself ends; kill those that take too long."""
        until = time.monotonic() + STOP_SECONDS
        for number in (signal.SIGTERM, signal.SIGKILL):
            for each in running.values():
                if each.process.poll() is None:
                    with contextlib.suppress(ProcessLookupError, PermissionError):  # it ends just now
                        os.killpg(each.process.pid, number)
            for each in running.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    each.process.wait(max(0.1, until - time.monotonic()))
        for stage in running:
            _clear_partial(StagePaths(self.profile, stage))
        running.clear()

    def _needs_gpu(self, stage: str) -> bool:
        """Say whether a stage trains on a GPU: one training at a time does."""
        trainer = self.configs[stage].parameters.get("trainer", {})
        return trainer.get("accelerator", "cpu") != "cpu" and Path("/dev/nvidia0").exists()

    def _end(self, stage: str, each: _Running) -> None:
        """Keep the notebook of a stage that has ended where its outcome belongs, and tell the outcome."""
        paths = StagePaths(self.profile, stage)
        each.process.communicate()  # closes its input
        if not (message := _failure(each, paths)):
            paths.running.replace(paths.executed)
            self.ended[stage] = COMPLETE
            say(f"{stage}: complete in {time.monotonic() - each.began:.0f} s")
            return
        self.ended[stage] = FAILED
        message = with_remedy(self.profile, message)
        _clear_partial(paths)
        # The space that the partial folder gave back mostly suffices for these; the message is told either way.
        with contextlib.suppress(OSError):
            if read_json(paths.running) is not None:  # a full disk cuts it off
                paths.running.replace(paths.failed)
            paths.running.unlink(missing_ok=True)
            write_json(paths.failure, {"message": message})
        say(f"{stage}: FAILED: {' '.join(message.split())}", True)

    def _conclude(self, seconds: float) -> int:
        """Render what changed, send what is complete to where its parameters say, and tell the outcome."""
        ran, failed = (sum(how == kind for how in self.ended.values()) for kind in (COMPLETE, FAILED))
        index, rendered = f"index: {relative(StagePaths(self.profile, '').outputs / 'index.html')}", 0
        try:
            self.hashes.save()  # before the pages, which ask for the same checksums
            rendered = report.render_profile(self.profile)
        except OSError as error:
            if not failed:
                raise
            index = f"The reports could not be written ({error.strerror})."  # for the same cause, most likely
        for stage, how in self.ended.items():
            if how == COMPLETE and (told := history.send(StagePaths(self.profile, stage))):
                say(told)
        if failed:
            say(f"{failed} of {len(self.may_run)} stages are not complete. {index}")
            return 1
        if ran:
            say(f"done in {seconds:.0f} s, {ran} of {len(self.may_run)} stages run.")
            for line in headline(self.profile):
                say(line)
        elif rendered:
            say(f"rendered {rendered} reports again; no stage needed to run.")
        else:
            fresh = sum(self.ended[stage] == FRESH for stage in self.may_run)
            say(f"nothing to do: {fresh} of {len(self.may_run)} stages are up to date.")
        say(index)
        return 0


def is_fresh(config: StageConfig, wanted: str, hashes: Hashes) -> bool:
    """Say whether the artifacts of a stage are complete, with the fingerprint ``wanted``, and have their report."""
    paths = StagePaths(config.profile, config.stage)
    try:
        manifest = json.loads(paths.manifest.read_text(encoding="utf-8"))
        outputs = {name: hashes.of(paths.artifacts / name) for name in manifest["outputs"]}
    except (OSError, ValueError, KeyError):
        return False
    reported = manifest["run"] != "batch" or paths.is_reported
    return manifest["fingerprint"] == wanted and manifest["outputs"] == outputs and reported


def with_remedy(profile: str, message: str, other: str = "") -> str:
    """Return a message of a failure with what to do about it.

    Args:
        profile: whose outputs are written.
        message: what went wrong.
        other: the remedy where the cause is neither the disk nor the memory; the message stays as it is without one.
    """
    outputs = StagePaths(profile, "").outputs
    there = next(folder for folder in (outputs, *outputs.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    found = (remedy for words, remedy in _REMEDIES.items() if words in message)
    remedy = next(found, _FULL if free < _LITTLE else other)
    if not remedy:
        return message
    return f"{message.rstrip('.')}. {remedy.format(outputs=relative(outputs), free=free)}, then rerun the command."


def say(line: str, error: bool = False) -> None:
    """Print a line that commands no terminal."""
    print(printable(line), file=sys.stderr if error else sys.stdout, flush=True)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise ``KeyboardInterrupt``, and not disturb what the first of them does.

    A signal that is ignored, as by ``nohup``, stays so. For the main thread only.
    """
    last = -AGAIN_SECONDS

    def interrupt(number: int, frame: object) -> None:
        nonlocal last
        if time.monotonic() - last >= AGAIN_SECONDS:
            last = time.monotonic()
            raise KeyboardInterrupt

    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in wanted if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Have Linux kill this process as soon as the one that started it has ended; elsewhere nothing happens."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


@contextlib.contextmanager
def _rows(profile: str) -> Iterator[_Show]:
    """Yield what shows the stages that run: a row each where a person watches, nothing elsewhere."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "") in ("", "dumb", "unknown"):  # no cursor to move
        yield lambda running: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    now = TextColumn("{task.fields[now]}", markup=False, table_column=rest)
    times = TimeElapsedColumn(), TimeRemainingColumn()
    columns = [TextColumn("{task.description}", markup=False), BarColumn(20), *times, now]
    rows: dict[str, TaskID] = {}
    errors = sys.stderr.isatty()  # what is printed goes above the rows, unless it was sent elsewhere
    own = Console()  # rich's shared one keeps what the streams were when it was first used
    with Progress(
        *columns, console=own, auto_refresh=False, transient=True, expand=True, redirect_stderr=errors
    ) as progress:

        def show(running: dict[str, _Running]) -> None:
            for stage in rows.keys() - running.keys():
                progress.remove_task(rows.pop(stage))
            for stage, each in running.items():
                if stage not in rows:
                    rows[stage] = progress.add_task(stage, total=each.last, now="")
                elapsed = time.monotonic() - each.began
                done = elapsed if each.last is None else min(elapsed, 0.99 * each.last)  # a full bar would stand still
                progress.update(rows[stage], completed=done, now=printable(_doing(StagePaths(profile, stage))))
            progress.refresh()

        yield show


def _doing(paths: StagePaths) -> str:
    """Return what a stage told last of itself: a heading, an epoch or a share of a step."""
    with contextlib.suppress(OSError, IndexError):  # not there yet, or nothing in it
        return paths.progress.read_text(encoding="utf-8", errors="replace").splitlines()[-1]
    return "starting"


def _failure(each: _Running, paths: StagePaths) -> str:
    """Return why a stage whose process has ended is not complete; empty where it is."""
    code = each.process.returncode
    if each.note.exists() and (text := each.note.read_text(encoding="utf-8").strip()):
        return text
    if code == -signal.SIGKILL:
        return "Kernel died with the process of the stage"
    if code != 0:
        return f"the process of the stage ended with code {code} and without a message"
    if (read_json(paths.manifest) or {}).get("fingerprint") != each.wanted:
        return "StageError: the notebook ran to its end without `stage.finish()`. Call it in the last step."
    return ""


def _prepare(paths: StagePaths) -> None:
    """Clear away what tells of earlier runs. The last complete report stays until a new one replaces it."""
    for folder in (paths.executed.parent, paths.report.parent, paths.artifacts.parent, paths.logs):
        folder.mkdir(parents=True, exist_ok=True)
    for file in (paths.failed, paths.failed_report, paths.failure, paths.progress):
        file.unlink(missing_ok=True)


def _clear_partial(paths: StagePaths) -> None:
    """Remove what a kernel of this run left; not where somebody has begun to run the stage by hand since."""
    with contextlib.suppress(LockedError, OSError):
        acquire(paths.lock, f"{paths.stage} in a batch run", wait=ORPHAN_SECONDS)
        try:
            clear_partial(paths)
        finally:
            release(paths.lock)


def _clear_temporary(outputs: Path) -> None:
    """Remove the files that a killed runner was writing; for the holder of the profile's lock only."""
    for pattern in (".*.tmp", "reports/.*.tmp", "logs/.*.tmp", "notebooks/.*.running.ipynb"):
        for file in outputs.glob(pattern):
            file.unlink(missing_ok=True)
