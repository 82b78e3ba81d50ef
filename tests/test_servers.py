"""JupyterLab and TensorBoard as Make starts them: on this machine only, JupyterLab behind its token."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests
from jupyter_client import BlockingKernelClient
from runs import copy_of, wait_until

from ebnerd_lib.pipeline.kernel import ProjectKernel
from ebnerd_lib.pipeline.paths import ROOT

pytestmark = pytest.mark.slow

MAKE = ("make", *(f"--old-file=data/{name}/generated.json" for name in ("sample", "smoke")), f"PYTHON={sys.executable}")
START = 180.0
"""Seconds that a server may take to answer on a busy machine."""
TOLD = re.compile(r"(http://127\.0\.0\.1:\d+)/\S*\?token=([0-9a-f]{32,})")


@pytest.fixture
def project(tmp_path):
    copy_of(ROOT, tmp_path)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "data" / "sample").mkdir(parents=True)
    (tmp_path / "data" / "sample" / "generated.json").write_text("{}")
    (tmp_path / "outputs" / "sample" / "logs").mkdir(parents=True)
    return tmp_path


def addresses(handle: psutil.Process) -> set[str]:
    """Return the addresses on which a process or a child of it listens."""
    family = [handle, *handle.children(recursive=True)]
    listening = [c for each in family for c in each.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return {connection.laddr.ip for connection in listening}


@contextlib.contextmanager
def served(project: Path, *words: str) -> Iterator[tuple[str, str, psutil.Process]]:
    """Start JupyterLab by Make on a free port; yield its address, its token and the process, once it listens."""
    home, told = project / "home", project / "told.txt"
    folders = {f"JUPYTER_{name.upper()}_DIR": str(home / name) for name in ("config", "runtime", "data")}
    environment = {**os.environ, "HOME": str(home), "BROWSER": "true", **folders}
    environment.pop("JUPYTER_TOKEN", None)
    with told.open("w") as stream:
        words = [*MAKE, "lab", *words]
        process = subprocess.Popen(words, cwd=project, env=environment, stdout=stream, stderr=stream)
    handle = psutil.Process(process.pid)
    try:
        # It says so a moment before it does.
        wait_until(lambda: TOLD.search(told.read_text()) and addresses(handle), process, START)
        yield *TOLD.search(told.read_text()).groups(), handle
    finally:
        for each in (*handle.children(recursive=True), handle):
            with contextlib.suppress(psutil.Error):
                each.kill()
        process.wait(10)


def status(address: str, **headers: str) -> int:
    return requests.get(address, headers=headers, timeout=30, allow_redirects=False).status_code


@pytest.fixture
def elsewhere(project, monkeypatch):
    """A user whose kernel python3, found before that of any environment, is of another interpreter."""
    for name in ("python3", "other"):
        file = project / "home" / "data" / "kernels" / name / "kernel.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"argv": ["false"], "display_name": "No", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(project / "home" / "data"))


def kernel_of(project: Path, address: str, token: str) -> Callable[[str], str]:
    """Start a kernel as JupyterLab does for a notebook; return what runs a cell and returns what it prints."""
    headers = {"Authorization": f"token {token}"}
    answer = requests.post(f"{address}/api/kernels", json={"name": "python3"}, headers=headers, timeout=START)
    file = project / "home" / "runtime" / f"kernel-{answer.json()['id']}.json"
    client = BlockingKernelClient(connection_file=str(file))
    client.load_connection_file()
    client.start_channels()
    client.wait_for_ready(timeout=START)

    def run(cell: str) -> str:
        printed: list[dict] = []
        client.execute_interactive(cell, timeout=START, output_hook=lambda told: printed.append(told["content"]))
        return "".join(each.get("text", "\n".join(each.get("traceback", []))) for each in printed)

    return run


def test_jupyterlab_listens_here_only_wants_its_token_and_has_the_projects_kernel(project, elsewhere):
    batch = ProjectKernel(kernel_name="python3").kernel_spec.argv
    assert batch[0] == sys.executable and "autoreload" not in " ".join(batch)
    module = project / "ebnerd_lib" / "probe.py"
    module.write_text("def answer():\n    return 'before'\n")
    with served(project) as (address, token, handle):
        run = kernel_of(project, address, token)
        assert addresses(handle) == {"127.0.0.1"}
        contents, known = f"{address}/api/contents", {"Authorization": f"token {token}"}
        assert status(contents) == status(contents, Authorization="token 0123") == 403
        assert status(f"{address}/lab") == 302
        assert status(contents, **known) == 200
        assert status(contents, Host="evil.test", **known) == 403, "a rebound name"
        kernels = requests.get(f"{address}/api/kernelspecs", headers=known, timeout=START).json()["kernelspecs"]
        assert set(kernels) >= {"python3", "other"}, "those of the user stay within reach"
        told = run("import os, sys; print(sys.executable, os.getcwd(), os.environ['MKL_CBWR'])").split()
        assert told == [sys.executable, str(project.resolve()), "AVX2,STRICT"]
        assert run("from ebnerd_lib.probe import answer; from ebnerd_lib import probe").strip() == ""
        assert run("print(probe.__file__, answer())").split() == [str(module), "before"]
        module.write_text("def answer():\n    return 'after it was edited'\n")
        assert run("print(answer(), probe.answer())").strip() == "after it was edited after it was edited"


def test_servers_are_for_this_machine_and_take_a_named_port_alone(project):
    def shown(*words: str) -> str:
        return subprocess.check_output([*MAKE, "-n", *words], cwd=project, text=True)

    assert ("--allow-root" in shown("lab")) == (os.geteuid() == 0)
    assert "--ip=127.0.0.1 --port=8888" in shown("lab") and "token" not in shown("lab")
    assert "--port=80 --ServerApp.port_retries=0" in shown("lab", "PORT=80") and "retries" not in shown("lab")
    assert "--host 127.0.0.1 --port 80" in shown("tensorboard", "PORT=80") and "--port" not in shown("tensorboard")
