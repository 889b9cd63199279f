"""The study of readers: inputs that coverage-guided fuzzing makes, each of which has to be taken or refused in words.

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
"""What has those readers, and fuzzes one; it holds its own names against these."""
SECONDS = 120
"""Of fuzzing for each reader."""


def fuzz() -> tuple[Rows, str]:
    """Give readers inputs that nobody thought of; those of an earlier run are not fuzzed again."""
    work = WORK / "fuzz"
    with Journal.opened(work / "fuzz.jsonl", SECONDS) as journal, render.lines("fuzzing") as line:
        rows = journal.records
        for reader in (one for one in READERS if one not in {row["reader"] for row in rows}):
            journal.append(fuzzed(reader, work, SECONDS))
            line(f"{len(rows)}/{len(READERS)} {reader}: {rows[-1]['inputs']:,} inputs {rows[-1]['harm']}")
        return rows, fuzz_page(rows)


def fuzzed(reader: str, work: Path, seconds: int, module: str = FUZZER) -> dict[str, Any]:
    """Fuzz a reader for so many seconds; return how many inputs were tried, and what harm one did, if any."""
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


def _harm(said: str, harmful: Path) -> str:
    """Return what an input did, and its first bytes."""
    error = re.search(r"^((\w+\.)*\w+(Error|Exception|Interrupt)\b|==\d+== ERROR).*", said, re.MULTILINE)
    what = error[0] if error else said[-500:]
    return f"{what[:300]} at {harmful.read_bytes()[:200]!r}" if harmful.exists() else what


def fuzz_page(rows: Rows) -> str:
    """Return what was tried, and a row a reader."""
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
        "Atheris makes inputs, and keeps those that reach new branches of the reader's code, to change them further. "
        f"Each has to be taken, or refused by an error of lissnas, within a minute and 4 GiB.\n\n{table(cells)}"
    )
