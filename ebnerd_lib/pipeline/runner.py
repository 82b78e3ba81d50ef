"""Run the stale stages of a profile: one process runs the kernels, stages that do not wait for each other at once.

Checking needs the standard library and YAML only; papermill and nbconvert are loaded when there is work.
"""

import contextlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ebnerd_lib.errors import LockedError
from ebnerd_lib.pipeline import paths as lock
from ebnerd_lib.pipeline import report, terminal
from ebnerd_lib.pipeline.failure import stage_message, storage_error
from ebnerd_lib.pipeline.interruption import end_kernels, interruptible
from ebnerd_lib.pipeline.params import StageConfig, load_config
from ebnerd_lib.pipeline.paths import (
    ROOT,
    StagePaths,
    clear_temporary,
    notebook_path,
    profile_stages,
    read_json,
    relative,
    write_json,
)
from ebnerd_lib.pipeline.report import make_plain
from ebnerd_lib.pipeline.runs import headline
from ebnerd_lib.pipeline.stage import BATCH_VARIABLE, ORPHAN_SECONDS, clear_partial
from ebnerd_lib.pipeline.stale import Hashes, fingerprint, plan, stale_stages
from ebnerd_lib.pipeline.terminal import say

DETERMINISM = {"PYTHONHASHSEED": "0", "MKL_CBWR": "AVX2,STRICT", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""What a kernel needs in its environment from the start, for the same bytes on any number of threads."""
LOCK_SECONDS = 1.0
"""How long to wait for another run of the profile: long enough for one that finds nothing to do."""


def run(profile: str, jobs: int | None = None) -> int:
    """Run what is stale in a profile and render what changed.

    Args:
        profile: a folder of ``params``.
        jobs: stages at a time; as many as there are cores if not given.

    Returns:
        0 if every stage is complete, 1 if one failed, 130 if the run was interrupted by Ctrl-C, SIGTERM or SIGHUP.
        Stages after a failed one are not run.

    Raises:
        ConfigError: the profile, a parameter file or a notebook's parameters are wrong.
        BundleError: the bundle is missing or incomplete.
        LockedError: another process runs the profile, or one of its stages by hand.
        StorageError: the outputs cannot be written.
    """
    os.chdir(ROOT)
    kept: list[str] = []
    with interruptible():
        try:
            return _run_locked(profile, jobs or os.cpu_count() or 1, kept)
        except KeyboardInterrupt:
            names = f" ({', '.join(sorted(kept))})" if kept else ""
            what = f"{len(kept)} stages are complete and kept{names}"
            say(f"interrupted: {what}. The same command goes on from here.", error=True)
            return 130
        except OSError as error:
            raise storage_error(profile, error) from error


def _run_locked(profile: str, jobs: int, kept: list[str]) -> int:
    configs = {stage: load_config(profile, stage) for stage in profile_stages(profile)}
    levels = plan(configs)
    file = StagePaths(profile, "").lock
    last = lock.acquire(file, f"a run of profile {profile}", wait=LOCK_SECONDS)
    try:
        if last is not None:
            say(f"taking over from {last}, which ended before it was done.")
        return _run_profile(profile, levels, configs, jobs, kept)
    finally:
        lock.release(file)


def _run_profile(
    profile: str, levels: list[list[str]], configs: dict[str, StageConfig], jobs: int, kept: list[str]
) -> int:
    """Run and render as `run` does; ``kept`` gains the stages that are complete."""
    hashes = Hashes(StagePaths(profile, "").hashes)
    start = time.monotonic()
    _clear_temporary(StagePaths(profile, "").outputs)
    with contextlib.closing(terminal.view(profile, levels, jobs)) as view:
        ran = _run_levels(levels, configs, hashes, jobs, kept, view)
        view.render()
        if ran is None:
            where = _render_failed(profile, configs, hashes)
        else:
            rendered = report.render_profile(profile, list(configs))
            hashes.save()
            if ran or rendered or not report.overview_file().exists():
                report.render_overview()
    if ran is None:
        say(f"stopped: a stage failed. {where}")
        return 1
    if ran:
        say(f"done in {time.monotonic() - start:.0f} s, {ran} of {len(configs)} stages run.")
        for line in headline(profile, list(configs)):
            say(line)
    elif rendered:
        say(f"rendered {rendered} reports again; no stage needed to run.")
    else:
        say(f"nothing to do: all {len(configs)} stages are up to date.")
    say(f"index: {relative(StagePaths(profile, '').outputs / 'index.html')}")
    return 0


def _run_levels(
    levels: list[list[str]],
    configs: dict[str, StageConfig],
    hashes: Hashes,
    jobs: int,
    kept: list[str],
    view: terminal.Lines,
) -> int | None:
    """Run what is stale, level after level. Returns how many stages that were, ``None`` if one of them failed."""
    ran = 0
    for level in levels:
        wanted = {stage: fingerprint(configs[stage], hashes) for stage in level}
        stale = [stage for stage in level if not is_fresh(configs[stage], wanted[stage], hashes)]
        for stage in level:
            if stage not in stale:
                kept.append(stage)
                view.keep(stage)
        if stale:
            if not ran:
                hashes.save()
                view.begin()
            ran += len(stale)
            if not _run_level([configs[stage] for stage in stale], wanted, jobs, kept, view):
                return None
    return ran


def _render_failed(profile: str, configs: dict[str, StageConfig], hashes: Hashes) -> str:
    """Render after a failure, which may have a cause that stops this too. Returns where to look."""
    try:
        report.render_profile(profile, list(configs), stale_stages(profile, list(configs)))
        hashes.save()
        report.render_overview()
    except OSError as error:
        return f"Its report could not be written ({error.strerror})."
    return f"Index: {relative(StagePaths(profile, '').outputs / 'index.html')}"


def is_fresh(config: StageConfig, wanted: str, hashes: Hashes) -> bool:
    """Say whether the artifacts of a stage are those of a complete batch run with the fingerprint ``wanted``."""
    paths = StagePaths(config.profile, config.stage)
    try:
        manifest = json.loads(paths.manifest.read_text(encoding="utf-8"))
        outputs = {name: hashes.of(paths.artifacts / name) for name in manifest["outputs"]}
    except (OSError, ValueError, KeyError):
        return False
    return manifest["fingerprint"] == wanted and manifest["outputs"] == outputs and paths.executed.exists()


def _run_level(
    configs: list[StageConfig], wanted: dict[str, str], jobs: int, kept: list[str], view: terminal.Lines
) -> bool:
    """Run stages side by side; one that fails does not stop its neighbours. Says whether all are complete."""
    width = min(jobs, len(configs))
    threads = max(1, (os.cpu_count() or 1) // width)
    settings = {"OMP_NUM_THREADS": str(threads), **DETERMINISM, BATCH_VARIABLE: json.dumps(wanted)}
    if "OMP_NUM_THREADS" in os.environ:
        del settings["OMP_NUM_THREADS"]
    for place, config in enumerate(configs):
        _prepare(config)
        if place < width:  # the others start when one of these has ended
            view.start(config.stage)
    stopped = threading.Event()
    futures: list[Future[bool]] = []
    with _environment(settings):
        try:
            pool = ThreadPoolExecutor(width)
            for config in configs:
                futures.append(pool.submit(_execute, config, wanted[config.stage], stopped, kept, view))
            _follow(configs, lambda: not all(future.done() for future in futures), view)
        except BaseException:
            stopped.set()
            end_kernels(futures)
            for config in configs:
                _clear_partial(StagePaths(config.profile, config.stage))
            raise
    outcomes = [future.result() for future in futures]
    return all(outcomes)


def _prepare(config: StageConfig) -> None:
    """Clear away what earlier runs left, so that nothing half-done or outdated passes for a result."""
    paths = StagePaths(config.profile, config.stage)
    for folder in (paths.executed.parent, paths.report.parent, paths.artifacts.parent, paths.logs):
        folder.mkdir(parents=True, exist_ok=True)
    with _own(paths):
        clear_partial(paths)
        for file in (paths.executed, paths.report, paths.failed, paths.failed_report, paths.failure, paths.progress):
            file.unlink(missing_ok=True)


def _execute(config: StageConfig, wanted: str, stopped: threading.Event, kept: list[str], view: terminal.Lines) -> bool:
    """Run the notebook of a stage in a kernel of its own and keep it where its outcome belongs."""
    view.start(config.stage)
    paths = StagePaths(config.profile, config.stage)
    running = paths.executed.with_name(f".{config.stage}.running.ipynb")
    try:
        message = _run_notebook(config, running, stopped)
        make_plain(running)
        if message is None and _fingerprint_of(paths.manifest) != wanted:
            message = "StageError: the notebook ran to its end without `stage.finish()`. Call it in the last step."
        if message is None:
            running.replace(paths.executed)
            kept.append(config.stage)
            view.complete(config.stage)
            return True
    except Exception as error:  # a killed kernel, a full disk: whatever it was, the stage failed and says why
        if isinstance(error, OSError) and error.filename is None:
            error.filename = relative(running)
        message = stage_message(config.profile, type(error).__name__, str(error))
    if stopped.is_set():
        return False
    _clear_partial(paths)
    # The space that the partial folder gave back mostly suffices for these; the message is told either way.
    with contextlib.suppress(OSError):
        if read_json(running) is not None:  # a full disk cuts it off
            running.replace(paths.failed)
        running.unlink(missing_ok=True)
        write_json(paths.failure, {"message": message})
    view.fail(config.stage, message)
    return False


def _run_notebook(config: StageConfig, running: Path, stopped: threading.Event) -> str | None:
    """Run a notebook and write it, executed, to ``running``. Returns what a cell failed with, if one did."""
    import logging

    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    from ebnerd_lib.pipeline.kernel import ProjectKernel

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it logs of a dead kernel, the stage's message says
    if stopped.is_set():
        return "interrupted"

    # Sockets in a short folder of their own: over TCP, kernels that start together can take each other's ports.
    with tempfile.TemporaryDirectory(prefix="ek", ignore_cleanup_errors=True) as sockets:
        try:
            papermill.execute_notebook(
                relative(notebook_path(config.stage)),
                relative(running),
                parameters={**config.given, "profile": config.profile},
                kernel_name="python3",
                kernel_manager_class=ProjectKernel,
                progress_bar=False,
                on_cell_start=partial(_tell_section, StagePaths(config.profile, config.stage).progress),
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/k"}}),
            )
        except PapermillExecutionError as error:
            return stage_message(config.profile, error.ename, error.evalue)
    return None


def _tell_section(progress: Path, cell: Any, cell_index: int) -> None:
    """Add the section that a cell begins, of ``## 2 · Train`` it is ``Train``, to what the stage tells of itself."""
    if cell.cell_type == "markdown" and cell.source.startswith("## "):
        heading = cell.source.splitlines()[0].removeprefix("## ").split(" · ")[-1]
        with contextlib.suppress(OSError), progress.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"heading": heading}) + "\n")


@contextlib.contextmanager
def _own(paths: StagePaths) -> Iterator[None]:
    """Hold the lock of a stage for a moment, while no kernel of this run does."""
    lock.acquire(paths.lock, f"{paths.stage} in a batch run", wait=ORPHAN_SECONDS)
    try:
        yield
    finally:
        lock.release(paths.lock)


def _clear_partial(paths: StagePaths) -> None:
    """Remove what a kernel of this run left; not where somebody has begun to run the stage by hand since."""
    with contextlib.suppress(LockedError, OSError), _own(paths):
        clear_partial(paths)


def _clear_temporary(outputs: Path) -> None:
    """Remove the files that a killed runner was writing; for the holder of the profile's lock only."""
    for folder in (outputs, outputs / "reports", outputs / "logs"):
        clear_temporary(folder)
    for notebook in outputs.glob("notebooks/.*.running.ipynb"):
        notebook.unlink(missing_ok=True)


def _fingerprint_of(manifest: Path) -> str | None:
    try:
        return str(json.loads(manifest.read_text(encoding="utf-8"))["fingerprint"])
    except (OSError, ValueError, KeyError):
        return None


def _follow(configs: list[StageConfig], running: Callable[[], bool], view: terminal.Lines) -> None:
    """Pass on what the stages tell of their progress until all have ended."""
    seen = dict.fromkeys((config.stage for config in configs), 0)
    more = True
    while more:
        more = running()
        for config in configs:
            for line in _new_lines(StagePaths(config.profile, config.stage).progress, seen, config.stage):
                with contextlib.suppress(ValueError, KeyError):  # cut off by a full disk
                    view.tell(config.stage, json.loads(line))
        if more:
            time.sleep(0.2)


def _new_lines(file: Path, seen: dict[str, int], stage: str) -> list[str]:
    """Return the whole lines that a file has gained."""
    try:
        text = file.read_text(encoding="utf-8")[seen[stage] :]
    except OSError:
        return []
    whole = text[: text.rfind("\n") + 1]
    seen[stage] += len(whole)
    return whole.splitlines()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables, for the kernels that start meanwhile."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
