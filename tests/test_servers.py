"""JupyterLab and TensorBoard as Make starts them: on this machine only, JupyterLab behind its token."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from jupyter_client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from runs import copy_of

from ebnerd_lib.pipeline.kernel import LabKernels, ProjectKernel
from ebnerd_lib.pipeline.paths import ROOT

pytestmark = pytest.mark.slow

MAKE = ("make", *(f"--old-file=data/{name}/generated.json" for name in ("sample", "smoke")), f"PYTHON={sys.executable}")
START = 180.0
"""Seconds that a server may take to answer on a busy machine."""


@pytest.fixture
def project(tmp_path):
    copy_of(ROOT, tmp_path)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "data" / "sample").mkdir(parents=True)
    (tmp_path / "data" / "sample" / "generated.json").write_text("{}")
    (tmp_path / "outputs" / "sample" / "logs").mkdir(parents=True)
    return tmp_path


def wait_for(found: Callable[[], Any], lines: list[str]) -> Any:
    """Return what is found as soon as it is true."""
    deadline = time.monotonic() + START
    while not (value := found()):
        assert time.monotonic() < deadline, "".join(lines)
        time.sleep(0.1)
    return value


@contextlib.contextmanager
def served(project: Path, *target: str) -> Iterator[tuple[int, list[str], psutil.Process]]:
    """Start a target of Make on a free port; yield port, lines told so far, and the process, once it listens."""
    home = project / "home"
    folders = {f"JUPYTER_{name.upper()}_DIR": str(home / name) for name in ("config", "runtime", "data")}
    environment = {**os.environ, "HOME": str(home), "BROWSER": "true", **folders}
    environment.pop("JUPYTER_TOKEN", None)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen([*MAKE, *target], cwd=project, env=environment, text=True, **streams)
    lines: list[str] = []
    threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True).start()
    handle = psutil.Process(process.pid)
    try:
        told = wait_for(lambda: re.search(r"http://127\.0\.0\.1:(\d+)/", "".join(lines)), lines)
        yield int(told[1]), lines, handle
    finally:
        for each in (*handle.children(recursive=True), handle):
            with contextlib.suppress(psutil.Error):
                each.kill()
        process.wait(10)


def addresses(handle: psutil.Process) -> set[str]:
    """Return the addresses on which a process or a child of it listens."""
    family = [handle, *handle.children(recursive=True)]
    listening = [c for each in family for c in each.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return {connection.laddr.ip for connection in listening}


def status(address: str, **headers: str) -> int:
    return requests.get(address, headers=headers, timeout=30, allow_redirects=False).status_code


def told_token(lines: list[str]) -> str:
    return wait_for(lambda: re.search(r"\?token=([0-9a-f]{32,})", "".join(lines)), lines)[1]


@pytest.fixture
def elsewhere(project, monkeypatch):
    """A user whose kernel python3, found before that of any environment, is of another interpreter."""
    for folder in (project / "home" / "data", project / "home" / "path"):
        kernel = folder / "kernels" / "python3"
        kernel.mkdir(parents=True)
        (kernel / "kernel.json").write_text(json.dumps({"argv": ["false"], "display_name": "No", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.setenv("JUPYTER_PATH", str(project / "home" / "path"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(project / "home" / "data"))


@contextlib.contextmanager
def opened_kernel(project: Path, port: int, token: str) -> Iterator[Callable[[str], str]]:
    """Start a kernel as JupyterLab does for a notebook; yield what runs a cell and returns what it prints."""
    address, headers = f"http://127.0.0.1:{port}/api/kernels", {"Authorization": f"token {token}"}
    name = requests.post(address, json={"name": "python3"}, headers=headers, timeout=START).json()["id"]
    client = BlockingKernelClient(connection_file=str(project / "home" / "runtime" / f"kernel-{name}.json"))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=START)

        def run(cell: str) -> str:
            printed: list[str] = []

            def keep(message: dict) -> None:
                printed.append(message["content"].get("text", "".join(message["content"].get("traceback", []))))

            client.execute_interactive(cell, timeout=START, output_hook=keep)
            return "".join(printed)

        yield run
    finally:
        client.stop_channels()


def test_jupyterlab_listens_here_only_wants_its_token_and_has_the_projects_kernel(project, elsewhere):
    module = project / "ebnerd_lib" / "probe.py"
    module.write_text("def answer():\n    return 'before'\n")
    with (
        served(project, "lab") as (port, lines, handle),
        opened_kernel(project, port, told_token(lines)) as run,
    ):
        assert addresses(handle) == {"127.0.0.1"}
        contents, token = f"http://127.0.0.1:{port}/api/contents", f"token {told_token(lines)}"
        assert status(contents) == status(contents, Authorization="token 0123") == 403
        assert status(f"http://127.0.0.1:{port}/lab") == 302
        assert status(contents, Authorization=token) == 200
        assert status(contents, Host="evil.test", Authorization=token) == 403, "a rebound name"
        assert run("import sys; print(sys.executable)").strip() == sys.executable
        assert run("import os; print(os.getcwd(), os.environ['MKL_CBWR'])").split() == [
            str(project.resolve()), "AVX2,STRICT",
        ]  # fmt: skip
        assert run("from ebnerd_lib.probe import answer; from ebnerd_lib import probe").strip() == ""
        assert run("print(probe.__file__, answer())").split() == [str(module), "before"]
        module.write_text("def answer():\n    return 'after it was edited'\n")
        assert run("print(answer(), probe.answer())").strip() == "after it was edited after it was edited"


def test_python3_is_the_projects_and_other_kernels_of_a_user_stay_within_reach(project, elsewhere):
    folder = project / "home" / "data" / "kernels"
    shutil.copytree(folder / "python3", folder / "other")
    batch = ProjectKernel(kernel_name="python3").kernel_spec.argv
    assert batch[0] == sys.executable and "autoreload" not in " ".join(batch)
    assert KernelSpecManager().get_kernel_spec("python3").argv == ["false"]
    kernels = LabKernels()
    assert kernels.get_kernel_spec("other").argv == ["false"]
    found = kernels.get_all_specs()
    assert {"other", "python3"} <= set(found) and found["python3"]["spec"]["argv"][0] == sys.executable


@pytest.mark.parametrize("user, allowed", [("0", True), ("1000", False)])
def test_servers_are_for_this_machine_and_take_a_named_port_alone(project, user, allowed):
    (project / "bin").mkdir()
    (project / "bin" / "id").write_text(f"#!/bin/sh\necho {user}\n")
    (project / "bin" / "id").chmod(0o755)
    environment = {**os.environ, "PATH": f"{project / 'bin'}:{os.environ['PATH']}"}

    def shown(*words: str) -> str:
        return subprocess.check_output([*MAKE, "-n", *words], cwd=project, env=environment, text=True)

    assert ("--allow-root" in shown("lab")) is allowed
    assert "--ip=127.0.0.1 --port=8888" in shown("lab") and "token" not in shown("lab")
    assert "--port=80 --ServerApp.port_retries=0" in shown("lab", "PORT=80") and "retries" not in shown("lab")
    assert "--host 127.0.0.1 --port 80" in shown("tensorboard", "PORT=80") and "--port" not in shown("tensorboard")
