"""`lissnas shrink` with a labelling program, interrupted at random: no printed answer is paid twice."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from lissnas import artifacts
from lissnas.cli.app import main
from tests import labelling_program
from tests.labelling_program import ENDS, names

INTERRUPTIONS = 10
BUDGET = "40"
COMMAND = ["shrink", "--space", "space.yaml", "--label-budget", BUDGET, "--out", "out"]
COMMAND += ["--oracle-command", f"{sys.executable} -S train.py"]


def started() -> BaseProcess:
    """Start the command in a fork of this process, which has its imports already."""

    def run() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        streams = os.open("messages", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        for standard in (1, 2):
            os.dup2(streams, standard)
        sys.argv = ["lissnas", *COMMAND]
        main()

    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    return child


def interrupted(how: str, after: int) -> int | None:
    """Run the command, interrupt it once `after` more answers were printed, and return its exit code."""
    before, number = ENDS[how]
    labelling_program.write(before, after)
    there = len(names("printed"))
    run = started()
    labelling_program.end(run, lambda: len(names("printed")) >= there + after, number)
    assert "Traceback" not in Path("messages").read_text()
    return run.exitcode


@pytest.mark.faults
def test_interrupted_shrinks_pay_for_no_printed_answer_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(labelling_program.SPACE)
    labelling_program.write()
    run = started()
    run.join()
    assert run.exitcode == 0
    expected = artifacts.read_manifest(Path("out"))
    assert len(names("printed")) == int(BUDGET)
    rng, done = np.random.default_rng(0), Counter[str]()
    while done.total() < INTERRUPTIONS:
        for name in ("out", ".out.checkpoint"):
            shutil.rmtree(name, ignore_errors=True)
        for name in (".out.answers", "requested", "printed"):
            Path(name).unlink(missing_ok=True)
        while not Path("out").exists():
            how = min(ENDS, key=lambda how: done[how])
            done[how] += interrupted(how, int(rng.integers(1, 9))) != 0
            printed = Counter(names("printed"))
            assert printed.total() == len(printed), f"{how}: {[name for name, n in printed.items() if n > 1]}"
        # The program can be killed after it printed a value and before it recorded that.
        assert len(names("printed")) <= len({*names("requested")}) == int(BUDGET)
        assert artifacts.read_manifest(Path("out")) == expected
    print(dict(done))
