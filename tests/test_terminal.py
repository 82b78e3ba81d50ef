"""What a run shows in a terminal: a row for each running stage, and a terminal left as it was."""

import contextlib
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from fcntl import ioctl

import psutil
import pytest

from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline import run as runner
from ebnerd_lib.pipeline.paths import StagePaths
from ebnerd_lib.pipeline.runs import printable

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
PATIENCE = 240.0  # seconds that a whole run may take
EPOCH = {"model": "mlp", "epoch": 3, "epochs": 12, "val/auc": 0.71234, "train/loss": 1.98765}


class Screen(io.TextIOWrapper):
    """A stream that looks like a terminal, and keeps what it is sent."""

    def isatty(self) -> bool:
        return True

    @property
    def sent(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("kind", ["xterm-256color", "dumb"])
def test_a_row_tells_what_a_stage_does_and_lines_command_no_terminal(tmp_path, monkeypatch, encoding, kind):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    told = StagePaths("p", "02_b").progress
    told.parent.mkdir(parents=True)
    screen = Screen(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setenv("COLUMNS", "120")
    running = {"02_b": runner._Running(None, told, time.monotonic() - 5, 1000.0, "f")}
    with runner._rows("p") as show:
        for what in (EPOCH, {"heading": "\x1b]0;owned\x07Æbler [red]"}):
            told.write_text(json.dumps(what) + "\n")
            show(running)
        runner.say("02_b: FAILED: \x1b]0;owned\x07Æ")
        show({})
    shown = printable(screen.sent.replace("\r", "\n"))
    assert sys.stdout is screen and "owned" not in screen.sent and "02_b: FAILED: " in shown
    assert ("val/auc 0.7123" in shown) is ("bler [red]" in shown) is (kind != "dumb")
    assert all(len(line) <= 120 for line in shown.split("\n"))
    assert ("\x1b" in screen.sent) is (kind != "dumb") and screen.sent.rfind(SHOW) >= screen.sent.rfind(HIDE)


def read_until(master: int, done: Callable[[str], object]) -> str:
    """Read what a terminal is sent until a condition holds, or its other side is closed."""
    text, stop = "", time.monotonic() + PATIENCE
    with contextlib.suppress(OSError):  # how Linux says that it is closed
        while not done(text):
            assert time.monotonic() < stop, text[-2000:]
            if select.select([master], [], [], 0.1)[0]:
                text += os.read(master, 65536).decode("utf-8", "replace")
    return text


@pytest.mark.slow
def test_ctrl_c_leaves_one_message_and_the_terminal_as_it_was(finished, tmp_path):
    root = shutil.copytree(finished, tmp_path / "p", copy_function=shutil.copy2)
    (root / "outputs" / "smoke" / "notebooks" / "05_compare.ipynb").unlink()

    def prepare():
        os.setsid()
        ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    master, slave = pty.openpty()
    modes = termios.tcgetattr(master)
    words = [sys.executable, "-m", "ebnerd_lib", "run", "--profile", "smoke"]
    environment = {**os.environ, "PYTHONPATH": str(root), "TERM": "xterm-256color"}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
    with subprocess.Popen(words, cwd=root, env=environment, preexec_fn=prepare, **streams) as process:
        os.close(slave)
        try:
            stages = psutil.Process(process.pid).children
            text = read_until(master, lambda text: re.search("05_compare.*starting", text) and stages())
            os.write(master, b"\x03")
            text += read_until(master, lambda text: False)
            process.wait(PATIENCE)
        finally:
            process.kill()  # where it has not ended; its stages end with it
    assert process.returncode == 130 and termios.tcgetattr(master) == modes
    assert text.rindex(SHOW) > text.rindex(HIDE)
    assert text.count("interrupted") == 1 and "Traceback" not in text and "FAILED" not in text


def test_a_kernel_that_did_not_start_is_no_lack_of_memory():
    said = runner.with_remedy("smoke", "DeadKernelError: Kernel died before replying to kernel_info")
    assert "did not start" in said and "memory" not in said
    assert "memory" in runner.with_remedy("smoke", "DeadKernelError: Kernel died")
