"""The study of readers: inputs that coverage-guided fuzzing makes, each of which has to be taken or refused in words.

python -m tests.robustness --name fuzz     (or `make study NAME=fuzz`)
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lissnas.artifacts.journal import Journal

READERS = (
    *("params", "space", "labels", "parquet", "members", "notations", "manifest", "run"),
    *("tfrecord", "row-of-101", "201-torch", "201-torch-zip", "201-tar", "transnas-torch"),
)
FUZZER = "tests.faults.fuzz"
"""What has those readers, and fuzzes one; it holds its own names against these."""
SECONDS = 120
"""Of fuzzing for each reader."""


def fuzz(reader: str, work: Path, seconds: int, module: str = FUZZER) -> dict[str, Any]:
    """Fuzz a reader for so many seconds; return how many inputs were tried, and what harm one did, if any."""
    work.mkdir(parents=True, exist_ok=True)
    root, said, harmful = Path(__file__).parents[2], work / f"{reader}.log", work / f"{reader}.harmful"
    options = [f"-max_total_time={seconds}", f"-exact_artifact_path={harmful.absolute()}"]
    with said.open("w") as log:
        done = subprocess.run(
            [sys.executable, "-m", module, reader, str((work / reader).absolute()), *options],
            cwd=root,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            timeout=20 * seconds + 600,
        )
    text = said.read_text(errors="replace")
    tried = re.findall(r"number_of_executed_units: (\d+)", text)
    reached = re.findall(r" cov: (\d+)", text)
    harm = "" if done.returncode == 0 else _harm(text, harmful)
    return {
        "reader": reader,
        "seconds": seconds,
        "inputs": int(tried[-1]) if tried else 0,
        "branches": int(reached[-1]) if reached else 0,
        "harm": harm,
    }


def _harm(said: str, harmful: Path) -> str:
    """Return what an input did, and its first bytes."""
    errors = [
        line for line in said.splitlines() if re.match(r"(\w+\.)*\w+(Error|Exception|Interrupt)\b|==\d+== ERROR", line)
    ]
    what = errors[0] if errors else said[-500:]
    return f"{what[:300]} at {harmful.read_bytes()[:200]!r}" if harmful.exists() else what


def fuzz_study(work: Path, on_reader: Callable[[str], None], seconds: int = SECONDS) -> list[dict[str, Any]]:
    """Return a row for each reader; those of an earlier run are kept."""
    with Journal.opened(work / "fuzz.jsonl", seconds) as journal:
        rows = journal.records
        done = {row["reader"] for row in rows}
        for reader in (one for one in READERS if one not in done):
            journal.append(fuzz(reader, work, seconds))
            on_reader(f"{len(rows)}/{len(READERS)} {reader}: {rows[-1]['inputs']:,} inputs {rows[-1]['harm']}")
        return rows


def fuzz_page(rows: Sequence[Mapping[str, Any]], made_by: str) -> str:
    """Return a Markdown table: a row a reader."""
    lines = [
        f"{made_by} Atheris makes inputs, and keeps those that reach new branches of the reader's code, to change them",
        "further. Each has to be taken, or refused by an error of lissnas, within a minute and 4 GiB.",
        "",
        "| reader | seconds | inputs | branches reached | harm |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['reader']} | {r['seconds']} | {r['inputs']:,} | {r['branches']:,} | "
        f"{str(r['harm']).replace('|', chr(92) + '|') or 'none'} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"
