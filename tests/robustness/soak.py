"""The study of endurance: many flow runs against one server, many labels of which some fail and some hang.

python -m tests.robustness --name soak     (or `make study NAME=soak`)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from lissnas.artifacts.stage_run import finished
from lissnas.core.errors import LissnasError

RUNS, LABELS = 200, 2_000
WARM = 0.1
"""The share of the runs after which memory is taken to be what it will be."""
SPACE, TASK = "transnas_micro", "nas_bench_macro"
FAILING, HANGING = 10, 5
"""Percent of the networks."""
LIMIT = 1.0
"""Seconds until a program that hangs is ended."""
MEGA = 1 << 20
PROGRAM = f"""\
import sys, time, zlib
share = zlib.crc32(sys.stdin.read().strip().encode()) % 100
if share < {FAILING}:
    sys.exit("out of memory")
if share < {FAILING + HANGING}:
    time.sleep(600)
print(50 + share / 10)
"""
"""A program that labels: what comes of a network is a function of its name."""


def soak_runs(work: Path, runs: int, on_run: Callable[[str], None]) -> dict[str, Any]:
    """Run a flow so many times against one server, in one process; return how much that process and the server grew."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    environment = {**os.environ, "PREFECT_HOME": str((work / "prefect").absolute()), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{(work / 'mlflow.db').absolute()}"
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "tests.robustness.soak", str(runs)]
    with (work / "said.log").open("w") as log:
        process = subprocess.Popen(command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        samples = []
        for line in process.stdout:
            if line.startswith("{"):
                samples.append(json.loads(line))
                on_run(f"run {samples[-1]['run']}/{runs}  {samples[-1]['memory']:.0f} MiB")
        if process.wait():
            raise LissnasError(f"the runs ended with code {process.returncode}: {work / 'said.log'}")
    warm, last = samples[max(1, int(WARM * runs))], samples[-1]
    locked = (work / "said.log").read_text(errors="replace").count("database is locked")
    grown = {f"{what}_growth": last[what] - warm[what] for what in ("files", "threads", "processes")}
    share = {f"{who}_growth": last[who] / warm[who] - 1 for who in ("memory", "server")}
    return {"what": "flow runs", "count": runs, "warm": warm["run"], **grown, **share, "database_is_locked": locked}


def soak_labels(work: Path, labels: int) -> dict[str, Any]:
    """Collect labels by a program that fails on some networks and hangs on others; return what was made of them."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    program = work / "label.py"
    program.write_text(PROGRAM)
    words = ["--space", SPACE, "--program", f"{sys.executable} -S {program.absolute()}", "--out", str(work / "out")]
    more = [
        "--networks",
        str(labels),
        "--set",
        "label.attempts=2",
        "--set",
        f"label.time_limit={LIMIT}",
        "--workers",
        "0",
    ]
    code = subprocess.run([sys.executable, "-m", "flows.label", *words, *more], stderr=subprocess.DEVNULL).returncode
    if code:
        raise LissnasError(f"the collecting ended with code {code}")
    metrics = finished(work / "out").metrics
    made = {"space": SPACE, "labels": metrics["labels"], "failed": len(metrics["failed"])}
    # Each program has a session of its own: one that was left would be nobody's child.
    left = [p for p in psutil.process_iter(["cmdline"]) if str(program.absolute()) in (p.info["cmdline"] or ())]
    return {"what": "labels", "count": labels, **made, "processes_growth": len(left)}


def soak_page(rows: Sequence[Mapping[str, Any]], made_by: str) -> str:
    """Return what grew, in words."""
    runs, labels = rows
    return "\n".join(
        (
            made_by,
            "",
            f"{runs['count']} runs of the flow `shrink` in one process, against one Prefect server and MLflow, both on "
            f"SQLite. From run {runs['warm']} to the last the memory of the process grew by "
            f"{100 * runs['memory_growth']:.1f} %, that of the server by {100 * runs['server_growth']:.1f} %; "
            f"{runs['files_growth']:+d} open files, {runs['threads_growth']:+d} threads, {runs['processes_growth']:+d} "
            f'processes; "database is locked" was said {runs["database_is_locked"]} times.',
            "",
            f"{labels['count']:,} networks of {labels['space']} labelled by a program that fails on {FAILING} %, "
            f"hangs on {HANGING} %: {labels['labels']:,} labels, {labels['failed']:,} networks failed, "
            f"{labels['processes_growth']} processes left.",
            "",
        )
    )


def main(runs: int) -> None:
    """Run the flow in this process; print what it takes after each run."""
    from flows.shrink import shrink
    from lissnas.shrinkers.description import Description

    me = psutil.Process()
    for run in range(runs):
        shrink(Description(TASK), seed=run % 5, out=Path("out"), overrides={"shrink.target_size": 100}, force=True)
        below = me.children(recursive=True)
        sample = {
            "run": run + 1,
            "memory": me.memory_info().rss / MEGA,
            "server": sum(child.memory_info().rss for child in below) / MEGA,
            "files": me.num_fds(),
            "threads": me.num_threads(),
            "processes": len(below),
        }
        print(json.dumps(sample), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
