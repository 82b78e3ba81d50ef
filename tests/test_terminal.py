"""What a run shows in a terminal: a row for each running stage, and a terminal left as it was."""

import io
import sys
import time

import pytest

from ebnerd_lib.pipeline import paths
from ebnerd_lib.pipeline import run as runner
from ebnerd_lib.pipeline.paths import StagePaths
from ebnerd_lib.pipeline.runs import printable

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
EPOCH = "mlp epoch 3/12, val/auc 0.7123, loss 1.9877"


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
def test_a_row_tells_what_a_stage_does_and_ctrl_c_leaves_the_terminal_as_it_was(tmp_path, monkeypatch, encoding, kind):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    told = StagePaths("p", "02_b").progress
    told.parent.mkdir(parents=True)
    screen = Screen(io.BytesIO(), encoding, errors="replace")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setenv("COLUMNS", "120")
    running = {"02_b": runner._Running(None, told, time.monotonic() - 5, 1000.0, "f")}
    with pytest.raises(KeyboardInterrupt), runner._rows("p") as show:
        for what in (EPOCH, "\x1b]0;owned\x07Æbler [red]"):
            told.write_text(f"{what}\n")
            show(running)
        runner.say("02_b: FAILED: \x1b]0;owned\x07Æ")
        raise KeyboardInterrupt
    shown = printable(screen.sent.replace("\r", "\n"))
    assert sys.stdout is screen and "owned" not in screen.sent and "02_b: FAILED: " in shown
    assert ("val/auc 0.7123" in shown) is ("bler [red]" in shown) is (kind != "dumb")
    assert all(len(line) <= 120 for line in shown.split("\n"))
    assert ("\x1b" in screen.sent) is (kind != "dumb") and screen.sent.rfind(SHOW) >= screen.sent.rfind(HIDE)


def test_a_kernel_that_did_not_start_is_no_lack_of_memory():
    said = runner.with_remedy("smoke", "DeadKernelError: Kernel died before replying to kernel_info")
    assert "ulimit -n" in said and "memory" not in said
    assert "memory" in runner.with_remedy("smoke", "DeadKernelError: Kernel died")
