"""What a run shows: a table in a terminal, few lines elsewhere, and a terminal left as it was."""

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
from types import SimpleNamespace

import psutil
import pytest

from ebnerd_lib.pipeline import paths, terminal
from ebnerd_lib.pipeline.progress import Left, Row
from ebnerd_lib.pipeline.runs import printable

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
PATIENCE = 240.0  # seconds that a whole run may take
EPOCH = {"model": "mlp", "epoch": 3, "epochs": 12, "seconds_left": 40.0, "val/auc": 0.71234, "train/loss": 1.98765}


def frames(text: str) -> list[list[str]]:
    """Return what stood in the table from time to time, as lines, without colours and movements."""
    parts = re.split(r"(?=stage +time)", printable(text.replace("\r\n", "\n").replace("\r", "\n")))
    return [[line.rstrip() for line in part.split("\n")] for part in parts if part.startswith("stage")]


def row(frame: list[str], stage: str) -> str:
    return next(line for line in frame if line.startswith(stage))


def test_a_stage_has_left_what_the_last_run_says_but_no_less_than_its_step():
    stage = Row(last=100.0, state="running", began=1000.0)
    assert stage.left(1030.0) == Left(70.0)
    stage.tell(EPOCH | {"seconds_left": 90.0}, 1030.0)
    assert stage.left(1030.0) == Left(90.0) and stage.left(1050.0) == Left(70.0)
    assert stage.left(1100.0) == Left(20.0, more=True), "the last run tells no more"
    stage.tell({"step": "features", "share": 0.2}, 1200.0)
    assert stage.left(1200.0) == Left(0.0, more=True)
    stage.tell({"step": "features", "share": 0.6}, 1204.0)
    assert stage.left(1204.0).seconds == pytest.approx(4.0), "extrapolated from where it was first told of"
    stage.state = "done"
    assert stage.left(1204.0) == Left(0.0)


class Screen(io.TextIOWrapper):
    """A stream that looks like a terminal, and keeps what it is sent."""

    def isatty(self) -> bool:
        return True

    @property
    def sent(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def show(tmp_path, monkeypatch):
    """Begin a run of three stages on a screen, with a clock set by hand; two stages took a known time last."""
    for stage, seconds in (("02_b", 90.0), ("03_c", 60.0)):
        folder = tmp_path / "outputs" / "p" / "artifacts" / stage
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"duration_seconds": seconds}))
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def begin(columns=100, encoding="utf-8", kind="xterm-256color", errors=None):
        screen = Screen(io.BytesIO(), encoding)
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setattr(sys, "stderr", errors or screen)
        monkeypatch.setenv("TERM", kind)
        monkeypatch.setenv("COLUMNS", str(columns))
        view = terminal.view("p", [["01_a", "02_b"], ["03_c"]], 2)
        view.begin()

        def frame() -> list[str]:
            view._live.refresh()
            return frames(screen.sent)[-1]

        return SimpleNamespace(view=view, screen=screen, clock=clock, frame=frame)

    return begin


def test_the_table_follows_every_stage(show):
    run = show()
    run.view.keep("01_a")
    run.view.start("02_b")
    first = run.frame()
    assert row(first, "01_a").split() == ["01_a", "up", "to", "date"]
    assert row(first, "02_b").split() == ["02_b", "0:00", "1:30", "starting"]
    assert row(first, "03_c").split() == ["03_c", "1:00", "waiting"] and any("2:30" in line for line in first)
    run.clock.now += 5
    run.view.tell("02_b", EPOCH)
    assert row(run.frame(), "02_b").endswith("0:05   1:25  mlp epoch 3/12, val/auc 0.7123, loss 1.9876")
    for stage in ("02_b", "03_c"):
        run.view.start(stage)
        run.view.complete(stage)
    run.view.render()
    assert "writing reports" in run.frame()
    for _ in range(2):
        run.view.close()
    last = frames(run.screen.sent)[-1]
    assert row(last, "02_b").split() == ["02_b", "0:05", "done"] and row(last, "03_c").endswith("done")
    assert run.screen.sent.rindex(SHOW) > run.screen.sent.rindex(HIDE) and sys.stdout is run.screen


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_no_line_is_wider_than_the_terminal_in_any_encoding(show, columns, encoding):
    run = show(columns, encoding)
    run.view.start("01_a")
    run.view.start("02_b")
    run.view.tell("01_a", EPOCH)
    run.view.tell("02_b", {"heading": "\x1b]0;owned\x07Æbler [red]" * 20})
    frame = run.frame()
    run.view.close()
    assert all(len(line) <= columns for line in frame)
    assert ("val/auc 0.7123" in row(frame, "01_a")) is (columns > 40)
    assert ("Æ" if encoding == "utf-8" else "?") + "bler [red]" in row(frame, "02_b") and "owned" not in run.screen.sent


def test_a_failure_is_told_whole_at_once_and_stays_in_its_row(show):
    run = show(80)
    run.view.start("01_a")
    run.view.start("02_b")
    run.view.fail("02_b", "ConfigError: file\x1b]0;owned\x07.yaml: " + "long " * 40 + "end")
    run.view.close()
    told = printable(run.screen.sent).replace("\n", "")
    assert "02_b: FAILED: ConfigError: file.yaml: " + "long " * 40 + "end" in told and "owned" not in told
    last = frames(run.screen.sent)[-1]
    assert "FAILED: ConfigError: file" in row(last, "02_b")
    assert row(last, "01_a").endswith("stopped") and row(last, "03_c").endswith("not run")


def test_a_terminal_that_cannot_move_gets_lines_and_errors_go_where_they_are_sent(show):
    errors = io.StringIO()
    run = show(kind="dumb", errors=errors)
    run.view.start("02_b")
    run.view.tell("02_b", EPOCH)
    run.view.complete("02_b")
    run.view.fail("03_c", "ConfigError: no")
    assert [line.split(":")[0] for line in run.screen.sent.splitlines()] == ["profile p", "02_b", "02_b"]
    assert "\x1b" not in run.screen.sent and errors.getvalue() == "03_c: FAILED: ConfigError: no\n"


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
            kernels = psutil.Process(process.pid).children
            text = read_until(master, lambda text: re.search("05_compare .*starting", text) and kernels())
            os.write(master, b"\x03")
            text += read_until(master, lambda text: False)
            process.wait(PATIENCE)
        finally:
            process.kill()  # where it has not ended; its kernels end with it
    assert process.returncode == 130 and termios.tcgetattr(master) == modes
    assert text.rindex(SHOW) > text.rindex(HIDE)
    assert text.count("interrupted") == 1 and "Traceback" not in text and "FAILED" not in text
    assert row(frames(text)[-1], "05_compare").endswith("stopped")
