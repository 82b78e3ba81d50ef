"""What a run shows: a table in a real pseudo-terminal, few lines elsewhere, and a terminal left as it was."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import time
from fcntl import ioctl

import psutil
import pytest

from ebnerd_lib.pipeline.layout import ROOT
from ebnerd_lib.pipeline.pages.page import printable
from ebnerd_lib.pipeline.progress import Left, Row, left

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*3[0-7]m")
ESCAPE = "\x1b"
TIMEOUT = 240.0


class Watched:
    """A command in a pseudo-terminal of its own, and what it has written to it."""

    def __init__(self, words, cwd, columns=100, stdout=None, stderr=None, **environment):
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.modes = termios.tcgetattr(slave)
        variables = {**os.environ, "PYTHONPATH": str(cwd), "TERM": "xterm-256color", **environment}
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
            if name not in environment:
                variables.pop(name, None)

        def prepare():
            os.setsid()
            ioctl(0, termios.TIOCSCTTY, 0)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)

        self.process = subprocess.Popen(
            words, cwd=cwd, env=variables, stdin=slave, stdout=stdout or slave, stderr=stderr or slave,
            preexec_fn=prepare,
        )  # fmt: skip
        self.slave, self._raw = slave, b""

    @property
    def text(self) -> str:
        return self._raw.decode("utf-8", "replace")

    def until(self, pattern: str) -> None:
        """Read until the terminal has been sent something."""
        stop = time.monotonic() + TIMEOUT
        while not re.search(pattern, self.text):
            assert time.monotonic() < stop and self.process.poll() is None, self.text[-2000:]
            self.read(0.2)

    def end(self) -> tuple[int, str]:
        """Read to the end. Returns exit code and text."""
        stop = time.monotonic() + TIMEOUT
        while self.process.poll() is None:
            assert time.monotonic() < stop, self.text[-2000:]
            self.read(0.1)
        while self.read(0.0):
            pass
        return self.process.returncode, self.text

    def press(self, key: bytes) -> None:
        os.write(self.master, key)

    def read(self, seconds: float) -> bool:
        """Read what there is, or wait so long for it. Says whether there was something."""
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        self._raw += os.read(self.master, 65536)
        return True

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        for end in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(end)


@pytest.fixture
def watch():
    """Start commands in pseudo-terminals, which end with the test."""
    started = []

    def start(words, cwd=ROOT, **options) -> Watched:
        started.append(Watched(words, cwd, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def project(finished, tmp_path):
    """A copy of a finished project in which 05_compare has to run again."""
    root = tmp_path / "p"
    for name in ("ebnerd_lib", "notebooks", "params", "templates", "data", "outputs"):
        shutil.copytree(finished / name, root / name, copy_function=shutil.copy2)
    (root / "outputs" / "smoke" / "notebooks" / "05_compare.ipynb").unlink()
    return root


RUN = [sys.executable, "-m", "ebnerd_lib", "run", "--profile", "smoke"]
ACT = """
import sys, time
from pathlib import Path
from ebnerd_lib.pipeline import layout, terminal
layout.ROOT = Path({root!r})
view = terminal.view("p", [["01_a", "02_b"], ["03_c"]], 2)
def epoch(number):
    return {{"model": "mlp", "epoch": number, "epochs": 12, "seconds_left": 40.0, "val/auc": 0.71234,
            "train/loss": 1.98765}}
try:
{script}
finally:
    view.close()
    view.close()
print("after it")
"""


@pytest.fixture
def act(watch, tmp_path):
    """Show a run of three stages that does what a script says; two of them are known to take a time."""
    for stage, seconds in (("02_b", 90.4), ("03_c", 60.0)):
        folder = tmp_path / "outputs" / "p" / "artifacts" / stage
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"duration_seconds": seconds}))

    def start(script: str, **options) -> Watched:
        code = ACT.format(root=str(tmp_path), script=textwrap.indent(textwrap.dedent(script), "    "))
        return watch([sys.executable, "-c", code], **options)

    return start


def frames(text: str) -> list[list[str]]:
    """Return what stood in the table, as lines, from time to time."""
    parts = re.split(r"(?=stage +time)", plain(text))
    return [part.split("\n") for part in parts if part.startswith("stage")]


def plain(text: str) -> str:
    """Return text without colours and movements, where each movement to the start of a line begins a line."""
    return printable(text.replace("\r\n", "\n").replace("\r", "\n"))


def row(frame: list[str], stage: str) -> str:
    return next(line.rstrip() for line in frame if line.startswith(stage))


# --- time left ---------------------------------------------------------------------------------------------


def test_a_stage_has_left_what_the_last_run_says_but_no_less_than_its_step():
    stage = Row(last=100.0, state="running", began=1000.0)
    assert stage.left(1030.0) == Left(70.0)
    epoch = {"model": "mlp", "epoch": 2, "epochs": 9, "seconds_left": 90.0, "val/auc": 0.7, "train/loss": 2.0}
    stage.tell(epoch, 1030.0)
    assert stage.left(1030.0) == Left(90.0) and stage.left(1050.0) == Left(70.0)
    assert stage.left(1100.0) == Left(20.0, more=True), "the last run tells no more"
    assert stage.left(1200.0) == Left(0.0, more=True)
    stage.tell({"heading": "Judge"}, 1030.0)
    assert stage.left(1030.0) == Left(70.0) and stage.now == ["Judge"]
    stage.state = "done"
    assert stage.left(1030.0) == Left(0.0)


def test_a_step_is_extrapolated_from_where_it_was_first_told_of():
    stage = Row(state="running", began=0.0)
    stage.tell({"step": "features", "share": 0.2}, 10.0)
    assert stage.left(10.0) == Left(0.0, more=True) and stage.now == ["features 20%"]
    stage.tell({"step": "features", "share": 0.6}, 14.0)
    assert stage.left(14.0).seconds == pytest.approx(4.0)
    stage.tell({"step": "another", "share": 0.5}, 15.0)
    assert stage.left(15.0) == Left(0.0, more=True)
    with pytest.raises(KeyError):
        stage.tell({"neither": 1}, 16.0)


def test_a_run_has_left_its_longest_stages_or_all_of_them_by_the_number_of_jobs():
    levels = [[Row(last=50.0, state="running", began=0.0), Row(state="up to date")], [Row(last=30.0), Row(last=20.0)]]
    assert left(levels, 2, 10.0) == Left(70.0)
    assert left(levels, 1, 10.0) == Left(90.0)
    levels[1][0].last = None
    assert left(levels, 2, 10.0) == Left(60.0, more=True) and str(left(levels, 2, 10.0)) == "1:00+"


# --- the table ---------------------------------------------------------------------------------------------


def test_the_table_follows_every_stage(act):
    code, text = act(
        """
        view.begin(); view.keep("01_a"); view.start("02_b"); time.sleep(0.5)
        view.tell("02_b", epoch(3)); time.sleep(0.5)
        view.tell("02_b", {"step": "features", "share": 0.5}); time.sleep(0.5)
        view.complete("02_b"); view.start("03_c"); time.sleep(0.5)
        view.complete("03_c"); view.render(); time.sleep(0.5)
        """
    ).end()
    assert code == 0
    shown = frames(text)
    first = next(frame for frame in shown if "starting" in row(frame, "02_b"))
    assert row(first, "01_a").split() == ["01_a", "up", "to", "date"]
    assert re.fullmatch(r"02_b +0:00 +1:(30|29) +starting", row(first, "02_b"))
    assert row(first, "03_c").split() == ["03_c", "1:00", "waiting"]
    assert any(re.fullmatch(r"0:00 so far, about 2:(30|29) left", line) for line in first), first
    assert any(row(f, "02_b").endswith("mlp epoch 3/12, val/auc 0.7123, loss 1.9876") for f in shown)
    assert any(row(f, "02_b").endswith("features 50%") for f in shown)
    assert any("writing reports" in f for f in shown)
    last = shown[-1]
    assert re.fullmatch(r"02_b +0:01 +done", row(last, "02_b")) and row(last, "03_c").endswith("done")
    assert not any("so far" in line or "writing" in line for line in last), "what is over stays, what goes on does not"
    assert text.count("after it") == 1 and "started" not in text


def test_what_is_not_known_of_the_time_left_is_not_told(act):
    code, text = act(
        """
        view.begin(); view.start("01_a"); view.start("02_b"); time.sleep(0.4)
        view.tell("01_a", epoch(3)); time.sleep(0.4)
        """
    ).end()
    assert code == 0
    shown = frames(text)
    assert re.fullmatch(r"01_a +0:00 +starting", row(next(f for f in shown if "starting" in row(f, "01_a")), "01_a"))
    during = next(f for f in shown if "epoch" in row(f, "01_a"))
    assert re.match(r"01_a +0:0\d +0:(40|39)\+ +mlp", row(during, "01_a"))
    assert any(re.search(r"at least 2:(30|29) left", line) for line in during), during


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(act, columns):
    code, text = act(
        """
        view.begin(); view.start("01_a"); view.start("02_b")
        view.tell("01_a", epoch(10)); view.tell("02_b", {"heading": "A heading that is long " * 9}); time.sleep(0.5)
        """,
        columns=columns,
    ).end()
    assert code == 0
    shown = frames(text)
    assert len(shown) >= 2 and all(len(line) <= columns for frame in shown[:-1] for line in frame)
    during = next(f for f in shown if "epoch" in row(f, "01_a"))
    assert ("val/auc 0.7123" in row(during, "01_a")) is (columns > 40)
    assert row(during, "02_b").endswith("…") and "stage   time   left  now" in during[0]


def test_a_failure_is_told_whole_at_once_and_stays_in_its_row(act):
    code, text = act(
        """
        view.begin(); view.start("01_a"); view.start("02_b")
        view.fail("02_b", "ConfigError: file\\x1b]0;owned\\x07.yaml: " + "long " * 40 + "end"); time.sleep(0.4)
        """,
        columns=80,
    ).end()
    assert code == 0
    assert "02_b: FAILED: ConfigError: file.yaml: " + "long " * 40 + "end" in plain(text).replace("\n", "")
    assert "owned" not in text
    last = frames(text)[-1]
    assert "FAILED: ConfigError: file" in row(last, "02_b") and row(last, "02_b").endswith("…")
    assert row(last, "01_a").endswith("stopped") and row(last, "03_c").endswith("not run")


def test_a_failure_goes_where_errors_were_sent(act, tmp_path):
    with (tmp_path / "errors").open("wb") as errors:
        code, text = act('view.begin(); view.start("01_a"); view.fail("01_a", "ConfigError: no")', stderr=errors).end()
    assert code == 0 and (tmp_path / "errors").read_text() == "01_a: FAILED: ConfigError: no\n"
    assert "01_a: FAILED" not in text


def test_what_libraries_print_does_not_disturb_the_table(act):
    code, text = act('view.begin(); print("a library speaks"); sys.stderr.write("and warns\\n"); time.sleep(0.4)').end()
    assert code == 0
    assert plain(text).count("a library speaks") == 1 and plain(text).count("and warns") == 1
    assert not any("library" in line for frame in frames(text)[-1:] for line in frame)


def test_stages_of_a_notebook_cannot_command_the_terminal(act):
    code, text = act(
        """
        view.begin(); view.start("01_a")
        view.tell("01_a", {"heading": "\\x1b]0;owned\\x07Load [red]x"}); time.sleep(0.4)
        """
    ).end()
    assert code == 0 and "owned" not in text
    assert any(row(frame, "01_a").endswith("Load [red]x") for frame in frames(text)[:-1])


def test_no_colour_where_none_is_wanted(act):
    script = 'view.begin(); view.start("01_a"); view.complete("01_a"); time.sleep(0.3)'
    assert COLOUR.search(act(script).end()[1])
    code, text = act(script, NO_COLOR="1").end()
    assert code == 0 and not COLOUR.search(text) and HIDE in text


def test_an_encoding_without_dashes_is_no_reason_to_fail(act):
    script = """
    view.begin(); view.start("01_a"); view.tell("01_a", {"heading": "Æbler " * 30}); time.sleep(0.4)
    view.close(); terminal.say("95 – 100")
    """
    code, text = act(script, PYTHONIOENCODING="ascii", columns=60).end()
    assert code == 0 and "95 ? 100" in text and "Traceback" not in text
    assert any("?bler ?bler" in row(frame, "01_a") for frame in frames(text))


@pytest.mark.parametrize("interrupted", ["view.begin(); raise KeyboardInterrupt", "view.begin(); sys.exit(3)"])
def test_the_cursor_comes_back_however_it_ends(act, interrupted):
    code, text = act(interrupted).end()
    assert code and HIDE in text and text.rindex(SHOW) > text.rindex(HIDE)


# --- lines -------------------------------------------------------------------------------------------------

LINES = """
view.begin(); view.keep("01_a"); view.start("02_b"); view.start("02_b"); view.tell("02_b", epoch(3))
view.complete("02_b"); view.start("03_c"); view.fail("03_c", "ConfigError: no"); view.render()
view.close()
print([name for name in sys.modules if name.split(".")[0] in ("rich", "pandas", "papermill")])
"""
TOLD = [
    "profile p: 3 stages, outputs in outputs/p/",
    "02_b: started (last time 90 s)",
    "02_b: complete in 0 s",
    "03_c: started (last time 60 s)",
    "03_c: FAILED: ConfigError: no",
    "[]",
    "after it",
]


@pytest.mark.parametrize("kind", ["dumb", "unknown", ""])
def test_a_terminal_that_cannot_move_gets_lines(act, kind):
    code, text = act(LINES, TERM=kind).end()
    assert code == 0 and ESCAPE not in text and text.splitlines() == TOLD


def test_a_pipe_gets_lines(act, tmp_path):
    with (tmp_path / "told").open("wb") as told:
        process = act(LINES, stdout=told)
        assert process.end() == (0, "03_c: FAILED: ConfigError: no\r\n")
    assert (tmp_path / "told").read_text().splitlines() == [line for line in TOLD if "FAILED" not in line]


# --- runs --------------------------------------------------------------------------------------------------


def test_a_run_in_a_terminal_ends_with_figures_and_the_index(project, watch):
    code, text = watch(RUN, project, columns=80).end()
    assert code == 0, text
    shown = frames(text)
    states = {line.split()[-1] for frame in shown for line in frame if line.startswith("05_compare")}
    assert {"starting", "done"} <= states and "scorers" in states, states  # of its heading "All scorers"
    assert row(shown[-1], "01_preprocess").endswith("up to date")
    end = plain(text).rstrip().split("\n")
    assert end[-1] == "index: outputs/smoke/index.html"
    done = next(place for place, line in enumerate(end) if re.fullmatch(r"done in \d+ s, 1 of 7 stages run\.", line))
    assert end[done + 1].split() == ["scorer", "tier", "AUC", "95", "%", "interval", "nDCG@10"]
    assert any(re.match(r"mlp +clicks +0\.\d{4} +0\.\d{4} to 0\.\d{4} +0\.\d{4}$", line) for line in end[done:])
    assert text.rindex(SHOW) > text.rindex(HIDE) and "started" not in text


def test_nothing_to_do_is_said_in_a_terminal_without_loading_rich(finished, watch):
    code = (
        "import sys; from ebnerd_lib.pipeline.runner import run; run('smoke'); "
        "print([m for m in ('rich', 'pandas', 'papermill') if m in sys.modules])"
    )
    code, text = watch([sys.executable, "-c", code], finished).end()
    assert code == 0 and ESCAPE not in text and "nothing to do" in text and text.rstrip().endswith("[]"), text


def test_a_run_elsewhere_says_little_and_nothing_of_epochs(project):
    (project / "outputs" / "smoke" / "notebooks" / "03_train_mlp.ipynb").unlink()
    environment = {**os.environ, "PYTHONPATH": str(project), "TERM": "xterm-256color"}
    done = subprocess.run(RUN, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "profile smoke: 7 stages, outputs in outputs/smoke/"
    patterns = [
        r"03_train_mlp: started \(last time \d+ s\)", r"03_train_mlp: complete in \d+ s",
        r"05_compare: started", r"05_compare: complete in \d+ s", r"done in \d+ s, 2 of 7 stages run\.",
    ]  # fmt: skip
    for pattern, line in zip(patterns, lines[1:6], strict=True):
        assert re.match(pattern, line), line
    assert ESCAPE not in done.stdout and "epoch" not in done.stdout
    assert lines[6].startswith("scorer ") and lines[-1] == "index: outputs/smoke/index.html"


def test_ctrl_c_leaves_one_message_and_the_terminal_as_it_was(project, watch):
    run = watch(RUN, project)
    run.until("05_compare .*starting")
    time.sleep(1)
    run.press(b"\x03")
    code, text = run.end()
    assert code == 130
    assert text.rindex(SHOW) > text.rindex(HIDE) and termios.tcgetattr(run.slave) == run.modes
    end = plain(text).rstrip().split("\n")
    assert re.match(r"interrupted: 6 stages are complete and kept \(.*\)\. The same command goes on", end[-1]), end[-9:]
    assert text.count("interrupted") == 1 and "Traceback" not in text and "FAILED" not in text
    assert row(frames(text)[-1], "05_compare").endswith("stopped")


def test_a_run_ends_with_its_terminal(project, watch):
    run = watch(RUN, project)
    run.until("05_compare .*starting")
    while not (kernels := psutil.Process(run.process.pid).children(recursive=True)):
        run.read(0.1)
    os.close(run.slave)
    os.close(run.master)
    assert run.process.wait(20) in (1, 130, -signal.SIGHUP)
    assert not psutil.wait_procs(kernels, 5)[1]
    assert not list((project / "outputs" / "smoke" / "artifacts").glob(".*"))
