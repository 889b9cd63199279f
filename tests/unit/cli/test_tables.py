"""Names in tables and in the help are never cut, however narrow the terminal."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from rich.cells import cell_len

from lissnas import spaces


def lissnas(columns: int, *words: str) -> str:
    env = {**os.environ, "COLUMNS": str(columns), "TERMINAL_WIDTH": ""} | {"TERM": "dumb"}
    env.pop("TERMINAL_WIDTH")
    done = subprocess.run([sys.executable, "-m", "lissnas.cli", *words], capture_output=True, text=True, env=env)
    return done.stdout


@pytest.mark.parametrize("columns", [40, 80, 300])
def test_spaces_are_listed_in_full(columns: int) -> None:
    text = lissnas(columns, "spaces")
    assert "…" not in text
    words = text.split()
    for name in (*spaces.names(), "segmentsemantic,", "class_scene,"):
        assert name in words, name
    assert len({cell_len(line) for line in text.splitlines() if line.strip()}) == 1  # columns are aligned


def test_the_doctor_and_the_help_are_readable() -> None:
    text = lissnas(40, "doctor")
    assert "…" not in text
    assert "labels_shufflenetv2_supernet.csv" in text.split()
    assert {"--params", "--label-budget", "--oracle-supernet"} <= {*lissnas(40, "shrink", "--help").split()}
