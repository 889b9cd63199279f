"""Study of readers: inputs from coverage-guided fuzzing must be accepted, or refused with an error of lissnas.

python -m tests.robustness --name fuzz     (or `make study NAME=fuzz`)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from lissnas.artifacts import Journal
from lissnas.cli import render
from studies.run import WORK, Rows, table

READERS = (
    *("params", "space", "labels", "parquet", "members", "notations", "manifest", "run"),
    *("tfrecord", "row-of-101", "201-torch", "201-torch-zip", "201-tar", "transnas-torch"),
)
FUZZER = "tests.faults.fuzz"
"""Module that fuzzes one of these readers; it checks that its names match them."""
SECONDS = 120
"""Seconds of fuzzing for each reader."""


def fuzz() -> tuple[Rows, str]:
    """Fuzz all readers; skip those that an earlier run has finished."""
    work = WORK / "fuzz"
    with Journal.opened(work / "fuzz.jsonl", SECONDS) as journal, render.lines("fuzzing") as line:
        rows = journal.records
        for reader in (one for one in READERS if one not in {row["reader"] for row in rows}):
            journal.append(fuzzed(reader, work, SECONDS))
            line(f"{len(rows)}/{len(READERS)} {reader}: {rows[-1]['inputs']:,} inputs {rows[-1]['harm']}")
        return rows, fuzz_page(rows)


def fuzzed(reader: str, work: Path, seconds: int, module: str = FUZZER) -> dict[str, Any]:
    """Fuzz a reader for `seconds`; return the number of inputs and branches, and the first failure, if any."""
    work.mkdir(parents=True, exist_ok=True)
    harmful, corpus = (work / f"{reader}.harmful").absolute(), (work / reader).absolute()
    options = [f"-max_total_time={seconds}", f"-exact_artifact_path={harmful}"]
    done = subprocess.run(
        [sys.executable, "-m", module, reader, str(corpus), *options],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=20 * seconds + 600,
    )
    tried = re.findall(r"number_of_executed_units: (\d+)", done.stdout)
    reached = re.findall(r" cov: (\d+)", done.stdout)
    return {
        "reader": reader,
        "seconds": seconds,
        "inputs": int(tried[-1]) if tried else 0,
        "branches": int(reached[-1]) if reached else 0,
        "harm": _harm(done.stdout, harmful) if done.returncode else "",
    }


def _harm(output: str, harmful: Path) -> str:
    """Return the error of a failing input, and its first 200 bytes."""
    error = re.search(r"^((\w+\.)*\w+(Error|Exception|Interrupt)\b|==\d+== ERROR).*", output, re.MULTILINE)
    what = error[0] if error else output[-500:]
    return f"{what[:300]} at {harmful.read_bytes()[:200]!r}" if harmful.exists() else what


def fuzz_page(rows: Rows) -> str:
    """Return the page of the study: a description, and a row for each reader."""
    cells = [
        {
            "reader": r["reader"],
            "seconds": str(r["seconds"]),
            "inputs": f"{r['inputs']:,}",
            "branches reached": f"{r['branches']:,}",
            "harm": r["harm"] or "none",
        }
        for r in rows
    ]
    return (
        "Atheris generates inputs, and mutates those that reach new branches of the reader's code further. Each must "
        f"be accepted, or refused with an error of lissnas, within a minute and 4 GiB.\n\n{table(cells)}"
    )
