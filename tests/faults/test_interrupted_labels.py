"""`lissnas shrink` with a labelling program, interrupted a hundred times at random: no printed answer is paid twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lissnas import artifacts
from tests import labelling_program
from tests.labelling_program import ENDS, names

ROOT = Path(__file__).parents[2]
INTERRUPTIONS = 100
BUDGET = "40"
COMMAND = [sys.executable, "-m", "lissnas.cli", "shrink", "--space", "space.yaml", "--label-budget", BUDGET]
COMMAND += ["--oracle-command", f"{sys.executable} -S train.py", "--out", "out"]


def started() -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(COMMAND, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def interrupted(how: str, after: int) -> int:
    """Run the command, interrupt it once `after` more answers were printed, and return its exit code."""
    before, number = ENDS[how]
    labelling_program.write(before, after)
    there = len(names("printed"))
    with started() as run:
        while run.poll() is None and len(names("printed")) < there + after:
            time.sleep(0.002)
        if number is not None:
            run.send_signal(number)
        message = run.communicate()[1]
    assert "Traceback" not in message, message
    return run.returncode


@pytest.mark.faults
def test_a_hundred_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text(labelling_program.SPACE)
    labelling_program.write()
    with started() as run:
        assert run.wait() == 0
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
            done[how] += interrupted(how, int(rng.integers(0, 8))) != 0
            printed = Counter(names("printed"))
            assert printed.total() == len(printed), f"{how}: {[name for name, n in printed.items() if n > 1]}"
        assert len(names("printed")) == int(BUDGET)
        assert artifacts.read_manifest(Path("out")) == expected
    print(dict(done))
