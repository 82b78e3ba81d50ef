"""The process of one stage of a batch run, and the kernels of the project.

``python3`` is the interpreter of this process, whatever a user's kernels are called: Jupyter finds a user's kernel
``python3`` before that of an environment in some set-ups, and with it other packages.
"""

import contextlib
import json
import os
import shutil
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME, KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

from ebnerd_lib.pipeline.paths import StagePaths, notebook_path, relative
from ebnerd_lib.pipeline.run import end_with_parent

START_SECONDS = 300
"""How long a kernel may take to start on a busy machine."""


class LabKernels(KernelSpecManager):
    """The kernels of JupyterLab: in ``python3`` an edited module counts from the next cell on, a user's others stay."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return how a kernel is started.

        Raises:
            NoSuchKernel: there is none of this name.
        """
        if kernel_name.lower() != NATIVE_KERNEL_NAME:
            return super().get_kernel_spec(kernel_name)
        autoreload = ["--ext=autoreload", "--InteractiveShellApp.exec_lines=%autoreload 2"]
        native = get_kernel_dict(extra_arguments=autoreload)
        # The name that notebooks in git have: saving one does not change it.
        return KernelSpec(resource_dir=RESOURCES, **{**native, "display_name": "Python 3"})


class ProjectKernel(AsyncKernelManager):
    """Starts the kernel of a batch run, which ends with this process."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        await super()._async_launch_kernel(kernel_cmd, preexec_fn=end_with_parent, **kw)

    async def _async_interrupt_kernel(self) -> None:
        """Interrupt the kernel, but not on its way out: it is idle then, and may call the interruption an error."""
        if not self.shutting_down:
            await super()._async_interrupt_kernel()

    @default("kernel_spec_manager")
    def _project_kernels(self) -> KernelSpecManager:
        return KernelSpecManager(parent=self, kernel_dirs=[])


def execute(paths: StagePaths, given: dict[str, Any], sockets: Path) -> str:
    """Run the notebook of a stage and write it, executed, to ``paths.running``.

    Args:
        paths: the files of the stage.
        given: parameters beside those that the notebook has.
        sockets: begins the paths of the kernel's sockets. Over TCP, kernels that start together can take each other's
            ports.

    Returns:
        What a cell failed with, as ``error: text``; empty where none did.
    """
    import logging

    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    from ebnerd_lib.pipeline.report import make_plain

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it logs of a dead kernel, the message says
    try:
        papermill.execute_notebook(
            relative(notebook_path(paths.stage)),
            relative(paths.running),
            parameters={**given, "profile": paths.profile},
            kernel_name=NATIVE_KERNEL_NAME,
            kernel_manager_class=ProjectKernel,
            progress_bar=False,
            start_timeout=START_SECONDS,
            on_cell_start=partial(_tell_section, paths.progress),
            config=Config({"KernelManager": {"transport": "ipc", "ip": str(sockets)}}),
        )
    except PapermillExecutionError as error:
        return _message(error.ename, error.evalue)
    finally:
        make_plain(paths.running)
    return ""


def _message(name: str, text: str) -> str:
    return f"{name}: {text}" if text.strip() else f"{name}, without a message: the report of the failed run shows where"


def _tell_section(progress: Path, cell: Any, cell_index: int) -> None:
    """Add the section that a cell begins, of ``## 2 · Train`` it is ``Train``, to what the stage tells of itself."""
    if cell.cell_type == "markdown" and cell.source.startswith("## "):
        heading = cell.source.splitlines()[0].removeprefix("## ").split(" · ")[-1]
        with contextlib.suppress(OSError), progress.open("a", encoding="utf-8") as stream:
            stream.write(f"{heading}\n")


def _end_with_input(folder: Path) -> None:
    """End this process once the runner has ended, whichever way: its end of the pipe is closed then.

    What it would have removed goes: the folder of the sockets.
    """
    sys.stdin.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main(profile: str, stage: str, given: str, note: str) -> int:
    """Run a stage for the runner and write to the file ``note`` why it failed. Returns the exit code."""
    threading.Thread(target=_end_with_input, args=[Path(note).parent], daemon=True).start()
    paths = StagePaths(profile, stage)
    try:
        message = execute(paths, json.loads(given), Path(note).with_name(str(os.getpid())))
    except Exception as error:  # a killed kernel, a full disk: whatever it was, the stage failed and says why
        if isinstance(error, OSError) and error.filename is None:
            error.filename = relative(paths.running)
        message = _message(type(error).__name__, str(error))
    if message:
        Path(note).write_text(message, encoding="utf-8")
    return 1 if message else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
