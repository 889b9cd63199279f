"""A labelling program that records what it was asked and what it printed, and the ways in which its run can end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

TEXT = """\
import os, signal, sys, time
before = open("before").read()
for i, line in enumerate(sys.stdin):
    name = line.strip()
    a, b, c = name.split("|")[:3]
    value = 80 + 2 * int(a) + int(b)
    open("requested", "a").write(line)
    exec(before)
    print(value, flush=True)
    open("printed", "a").write(line)
"""
"""Appends each name to `requested` when it arrives, and to `printed` once its value is printed and flushed.

What it does in between is in another file: a program whose content changed is another program.
"""
SPACE = """\
name: mine
metric: {name: acc, direction: maximize}
positions:
  - {name: a, choices: ["1", "2", "3", "4", "5"]}
  - {name: b, choices: ["1", "2", "3", "4", "5"]}
  - {name: c, choices: [x, y, z]}
"""
PAUSE = "time.sleep(.02)"
ENDS: dict[str, tuple[str, signal.Signals | None]] = {
    "SIGINT": (PAUSE, signal.SIGINT),
    "SIGTERM": (PAUSE, signal.SIGTERM),
    "SIGKILL": (PAUSE, signal.SIGKILL),
    "bad line": (f"{PAUSE}\n    if i == AFTER: print('oops', flush=True); sys.exit(0)", None),
    "short answer": (f"{PAUSE}\n    if i == AFTER: sys.exit(0)", None),
}
"""What the program does before each answer, and the signal that the run gets, for each end of a batch."""


def write(before: str = "pass", after: int = 0) -> None:
    """Write `train.py`, which runs `before` ahead of each answer."""
    Path("before").write_text(f"if True:\n    {before.replace('AFTER', str(after))}\n")
    Path("train.py").write_text(TEXT)


def end(run: BaseProcess, due: Callable[[], bool], number: signal.Signals | None) -> None:
    """Send a signal, if any, to a run once it is due, and wait for the end of the run."""
    while run.is_alive() and not due():
        time.sleep(0.002)
    if number is not None:
        assert run.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.pid, number)
    run.join()


def value(name: str) -> float:
    """Return the program's answer for an architecture."""
    a, b, *_ = name.split("|")
    return 80.0 + 2 * int(a) + int(b)


def names(file: str) -> list[str]:
    """Return the names in `requested` or `printed`."""
    return Path(file).read_text().split() if Path(file).exists() else []
